//! A new cluster out of what is left of an old one: the last resort after the
//! loss of a majority, or of everything but a backup.
//!
//! The old cluster may be alive and cut off. Its members' keys and addresses are
//! remembered, what it may have granted is waited for, and each VIP is claimed
//! as if for the first time.

use super::node::Joiner;
use super::{Issuers, State, Tombstone};
use crate::{ClusterEvent, Level, Mac, Name, Node, NodeId, NodeState, Refusal, Role, Runs};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Behind the names of nodes of the old cluster: a member may have the same, and
/// none has a dot.
const OLD: &str = ".old";

/// No cluster counts so far.
const FURTHEST: u64 = 1 << 48;
/// Announced assignments that may have been made after what is known here, and lost: what is
/// announced still from then counts for less than what comes.
const LOST: u64 = 1 << 24;
/// Largest rank from which that is a number yet that can be announced.
const MOST_ANNOUNCED: u64 = u32::MAX as u64 - 2 * LOST;

/// What the new cluster begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Its id: random, and never that of the old one.
    pub cluster: String,
    /// Who asked for it.
    pub actor: String,
    /// When, ms since 1970.
    pub time_ms: u64,
    /// Its first node.
    pub founder: Founder,
}

/// The first node of a new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Founder {
    /// A voter of the old one.
    Survivor {
        node: NodeId,
        /// The CA (its key's SPKI hash) that goes on signing: one that the old
        /// cluster trusted, and whose key this node has.
        issuer: String,
    },
    /// A node that was in no cluster. Its CA is new.
    Stranger {
        name: Name,
        /// Where it is reached.
        advertise: String,
        /// Its key (SPKI hash).
        spki: String,
        /// The issuing CA's key (SPKI hash).
        issuer: String,
    },
}

impl State {
    /// The state of the new cluster, and its first node. Names, VIPs and epochs
    /// stay, and the log goes on after this one's end; every other member's key
    /// is refused for good, tokens are closed, and people log in again.
    ///
    /// # Errors
    /// The old one is no cluster, or the survivor no voter of it.
    pub fn refounded(&self, founding: &Founding) -> Result<(Self, NodeId), Refusal> {
        let mut state = self.clone();
        let no = |text: &str| Refusal::Spec { text: text.to_owned() };
        let numbers = [state.term.0, state.next_node, state.next_vip, state.events.latest()];
        let is_far = numbers.iter().any(|number| *number > FURTHEST);
        if is_far || state.announced > MOST_ANNOUNCED {
            return Err(no("its numbers are larger than any cluster's"));
        }
        for vip in state.all_vips() {
            vip.spec.check()?;
        }
        let timings = state.all_servers().filter_map(|server| server.spec.check.as_ref());
        for check in timings {
            check.timing.check().map_err(|e| no(&e.to_string()))?;
        }
        state.time_ms = state.time_ms.max(founding.time_ms);
        let mut old =
            self.cluster.as_deref().ok_or_else(|| no("there is no cluster in it"))?.clone();
        let from = std::mem::replace(&mut old.id, founding.cluster.clone());
        let me = match &founding.founder {
            Founder::Survivor { node: me, issuer } => {
                let known = state.node_mut(*me).filter(|node| node.role == Role::Voter);
                let known = known.filter(|node| node.state != NodeState::Joining);
                let known = known.ok_or_else(|| no("this node is no voter of it"))?;
                known.state = NodeState::Active;
                let issuers = &mut old.issuers;
                let (kept, gone) = std::mem::take(&mut issuers.trusted)
                    .into_iter()
                    .partition(|trusted| trusted == issuer);
                issuers.trusted = kept;
                issuers.retired.extend::<Vec<String>>(gone);
                if issuers.trusted.is_empty() {
                    return Err(no("this CA did not sign for it"));
                }
                *me
            }
            Founder::Stranger { name, advertise, spki, issuer } => {
                let me = NodeId(state.next_node + 1);
                old.issuers = Issuers::first(issuer);
                // Whoever makes a root has its key.
                old.issuers.had_root.insert(me);
                // Its name may be that of a node of the old cluster.
                state.entomb_all_but(None);
                let runs = Runs::here();
                let founder = Joiner { name, advertise, spki, runs: &runs };
                state.new_node(founder, Role::Voter, NodeState::Active)
            }
        };
        state.cluster = Some(Arc::new(old));
        state.entomb_all_but(Some(me));
        let tokens = Arc::make_mut(&mut state.tokens).values_mut();
        tokens.for_each(|token| Arc::make_mut(token).revoked = true);
        (state.logins, state.obstacles, state.conflicts, state.hindrances) = Default::default();
        state.cut_off = Default::default();
        // Nobody goes on with changes that were under way.
        let guests = state.all_vips().filter(|vip| vip.guest.is_some());
        for guest in guests.map(|vip| vip.uid).collect::<Vec<_>>() {
            state.forget_vip(guest);
        }
        let vips = Arc::make_mut(&mut state.vips).values_mut();
        let retired = Arc::make_mut(&mut state.retired).iter_mut();
        vips.chain(retired).for_each(|vip| Arc::make_mut(vip).begin_anew());
        // A backup may be from before there was any.
        if state.needs >= Level::VIAS {
            state.announced += LOST;
        }
        state.servers_follow_nodes();
        state.record(&founding.actor, ClusterEvent::Refounded { from, node: me });
        Ok((state, me))
    }

    fn entomb_all_but(&mut self, me: Option<NodeId>) {
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|id| Some(*id) != me).collect();
        // What several have is no name of any: bridges are made with fixed ones.
        let all: Vec<Mac> = self.nodes.values().flat_map(|node| node.macs.clone()).collect();
        let shared = |mac: &Mac| all.iter().filter(|other| *other == mac).count() > 1;
        for id in others {
            let Some(node) = Arc::make_mut(&mut self.nodes).remove(&id) else { continue };
            let Node { name, spki, mut macs, role, .. } = node;
            macs.retain(|mac| !shared(mac));
            let cut_off = role.holds();
            let tombstone = Tombstone { name, spki, macs, cut_off, removed: None };
            Arc::make_mut(&mut self.tombstones).insert(id, tombstone);
        }
    }

    /// A node of the cluster that this one was made of, and which may not know
    /// that it is over: by an Ethernet address of it that is no member's.
    #[must_use]
    pub fn cut_off_node_with(&self, mac: Mac) -> Option<NodeId> {
        let mut cut_off = self.cut_off();
        let found = cut_off.find(|(_, tombstone)| tombstone.macs.contains(&mac))?;
        (!self.a_voter_has(mac)).then_some(found.0)
    }

    /// The names of such nodes. Until each has joined again, or is said to be
    /// gone, the old cluster may be alive.
    #[must_use]
    pub fn cut_off_nodes(&self) -> Vec<String> {
        // Anybody says what interfaces it has; a voter is believed.
        let rejoined = |macs: &BTreeSet<Mac>| {
            !macs.is_empty() && macs.iter().all(|mac| self.a_voter_has(*mac))
        };
        let left = self.cut_off().filter(|(_, tombstone)| !rejoined(&tombstone.macs));
        left.map(|(_, tombstone)| format!("{}{OLD}", tombstone.name)).collect()
    }

    fn a_voter_has(&self, mac: Mac) -> bool {
        self.nodes.values().any(|node| node.role.votes() && node.macs.contains(&mac))
    }

    /// The node of the old cluster that [`Self::cut_off_nodes`] calls so.
    #[must_use]
    pub fn cut_off_node_named(&self, name: &str) -> Option<NodeId> {
        let name = name.strip_suffix(OLD)?;
        self.cut_off().find(|(_, tombstone)| tombstone.name.as_str() == name).map(|(id, _)| id)
    }

    fn cut_off(&self) -> impl Iterator<Item = (NodeId, &Tombstone)> {
        self.tombstones.iter().filter(|(_, t)| t.cut_off).map(|(id, t)| (*id, t))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, move_to, state_of, vip, voter};
    use crate::{Cluster, Epoch, NodeOp, Profile, TokenOp, VipOp, VipUid};

    const WEB: VipUid = VipUid(1);

    fn old() -> State {
        let mut state = state_of([voter(1), voter(2), voter(3)]);
        state.cluster = Some(Arc::new(Cluster {
            id: "old".into(),
            name: "lab".parse().expect("valid"),
            profile: Profile::Lan,
            issuers: Issuers::first("ca"),
        }));
        for (node, last) in Arc::make_mut(&mut state.nodes).values_mut().zip(1..) {
            node.macs.insert(Mac([2, 0, 0, 0, 0, last]));
        }
        state.next_node = 3;
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        move_to(&mut state, WEB, 2);
        let (vip, epoch, incarnation) = (WEB, Epoch(1), crate::Incarnation(5));
        let grants = vec![crate::Grantee { vip, epoch, incarnation }];
        apply(&mut state, VipOp::Settle { grants: grants.clone(), nested: true });
        apply(&mut state, VipOp::Answered { grants });
        let verifier = "00".repeat(crate::VERIFIER_LEN);
        let (id, role) = (crate::TokenId("t".into()), Role::Voter);
        let (expires_ms, max_uses) = (u64::MAX, 9);
        apply(&mut state, TokenOp::Create { id, verifier, role, expires_ms, max_uses });
        state
    }

    fn by(founder: Founder) -> Founding {
        Founding { cluster: "new".into(), actor: "root@n1".into(), time_ms: 9, founder }
    }

    fn survivor(node: u64) -> Founder {
        Founder::Survivor { node: NodeId(node), issuer: "ca".into() }
    }

    #[test]
    fn a_survivor_keeps_names_vips_epochs_and_the_ca_and_nobody_elses_word() {
        let old = old();
        let (new, me) = old.refounded(&by(survivor(1))).expect("done");
        assert_eq!(me, NodeId(1));
        assert_eq!(new.cluster.as_ref().expect("there").id, "new");
        assert_eq!(new.signing_issuer(), Some("ca"));
        assert_eq!(new.nodes.keys().collect::<Vec<_>>(), [&NodeId(1)]);
        let gone: Vec<_> = new.tombstones.values().map(|t| (t.spki.as_str(), t.cut_off)).collect();
        assert_eq!(gone, [("s2", true), ("s3", true)]);
        assert!(new.tokens.values().all(|token| token.revoked));
        let web = &new.vips[&WEB];
        // One epoch more than anybody knows of may have been granted.
        assert_eq!((web.epoch, web.fenced, web.answered), (Epoch(2), Epoch(0), Epoch(0)));
        assert_eq!((web.holder, web.settled, web.nested), (None, None, None));
    }

    #[test]
    fn a_change_that_was_under_way_leaves_no_guest() {
        let mut old = old();
        let guest = crate::Guest { of: WEB, trial: false };
        apply(&mut old, VipOp::AddGuest { spec: vip("guest", 101), guest });
        let uid = old.vip_named("guest").expect("there").uid;
        move_to(&mut old, uid, 1);
        let (new, _) = old.refounded(&by(survivor(1))).expect("done");
        assert!(new.vip(uid).is_none() && new.vip_or_retired(uid).is_some());
    }

    #[test]
    fn a_stranger_has_an_id_that_nobody_had_and_a_ca_of_its_own() {
        let stranger = Founder::Stranger {
            name: "n1".parse().expect("valid"),
            advertise: "10.0.0.9:7400".into(),
            spki: "s9".into(),
            issuer: "other".into(),
        };
        let (new, me) = old().refounded(&by(stranger)).expect("done");
        assert_eq!(me, NodeId(4));
        assert_eq!(new.nodes[&me].name.as_str(), "n1");
        assert_eq!(new.tombstones.len(), 3);
        let issuers = new.issuers().expect("there");
        assert_eq!(issuers.signing(), Some("other"));
        assert!(issuers.had_root(me));
    }

    #[test]
    fn who_is_no_voter_of_it_founds_nothing() {
        let mut old = old();
        old.node_mut(NodeId(3)).expect("there").role = Role::Learner;
        for id in [3, 9] {
            assert!(old.refounded(&by(survivor(id))).is_err());
        }
        let nothing = State::default();
        assert!(nothing.refounded(&by(survivor(1))).is_err());
    }

    #[test]
    fn the_old_cluster_is_reckoned_with_until_each_of_its_nodes_joined_again() {
        let (mut new, _) = old().refounded(&by(survivor(1))).expect("done");
        assert_eq!(new.cut_off_node_with(Mac([2, 0, 0, 0, 0, 2])), Some(NodeId(2)));
        for (id, mac) in [(4, 2), (5, 3)] {
            assert!(!new.cut_off_nodes().is_empty());
            let macs = [Mac([2, 0, 0, 0, 0, mac])].into();
            Arc::make_mut(&mut new.nodes).insert(NodeId(id), Node { macs, ..voter(id) });
        }
        assert_eq!(new.cut_off_nodes(), [] as [&str; 0]);
        assert_eq!(new.cut_off_node_with(Mac([2, 0, 0, 0, 0, 2])), None, "it is a member");
    }

    #[test]
    fn what_is_announced_counts_for_more_than_what_may_have_been_and_was_lost() {
        let (new, _) = old().refounded(&by(survivor(1))).expect("done");
        assert_eq!(new.announced, 0, "not all know what that is");
        let mut old = old();
        (old.announced, old.needs) = (7, Level::VIAS);
        let (new, _) = old.refounded(&by(survivor(1))).expect("done");
        assert_eq!(new.announced, 7 + LOST);
        old.announced = MOST_ANNOUNCED + 1;
        assert!(old.refounded(&by(survivor(1))).is_err());
    }

    #[test]
    fn a_node_that_is_gone_for_good_is_said_to_be() {
        let (mut new, _) = old().refounded(&by(survivor(1))).expect("done");
        assert_eq!(new.cut_off_nodes(), ["n2.old", "n3.old"]);
        let id = new.cut_off_node_named("n2.old").expect("there");
        assert_eq!(new.cut_off_node_named("n2"), None, "which may be a member's name");
        apply(&mut new, NodeOp::Remove { node: id });
        assert_eq!(new.cut_off_nodes(), ["n3.old"]);
        assert_eq!(new.cut_off_node_named("n2.old"), None);
    }

    /// Granted, released and granted again where the survivor heard nothing.
    #[test]
    fn the_first_grant_waits_whatever_the_log_says_ended() {
        for fenced in [0, 1] {
            let mut old = old();
            old.vip_mut(WEB).expect("there").fenced = Epoch(fenced);
            apply(&mut old, VipOp::Add { spec: vip("db", 101) });
            apply(&mut old, VipOp::Remove { name: "web".parse().expect("valid") });
            let (new, _) = old.refounded(&by(survivor(1))).expect("done");
            for vip in new.all_vips().chain(new.retired_vips()) {
                assert!(vip.fenced < vip.epoch, "{}", vip.spec.name);
                assert_eq!((vip.settled, vip.nested), (None, None), "{}", vip.spec.name);
            }
        }
    }

    #[test]
    fn an_address_that_several_have_tells_nothing() {
        let (mut old, bridge) = (old(), Mac([0, 0x16, 0x3e, 0, 0, 0]));
        for node in Arc::make_mut(&mut old.nodes).values_mut() {
            node.macs.insert(bridge);
        }
        let (mut new, _) = old.refounded(&by(survivor(1))).expect("done");
        assert_eq!(new.cut_off_nodes(), ["n2.old", "n3.old"]);
        assert_eq!(new.cut_off_node_with(bridge), None);
        // Nor does what a learner says of itself.
        let macs = [Mac([2, 0, 0, 0, 0, 2])].into();
        Arc::make_mut(&mut new.nodes)
            .insert(NodeId(4), Node { macs, role: Role::Learner, ..voter(4) });
        assert_eq!(new.cut_off_nodes(), ["n2.old", "n3.old"]);
    }

    #[test]
    fn a_backup_with_impossible_numbers_founds_nothing() {
        let mut old = old();
        old.next_node = u64::MAX;
        let stranger = Founder::Stranger {
            name: "n9".parse().expect("valid"),
            advertise: "10.0.0.9:7400".into(),
            spki: "s9".into(),
            issuer: "other".into(),
        };
        assert!(old.refounded(&by(stranger)).is_err());
    }

    #[test]
    fn of_two_cas_that_which_the_survivor_has_goes_on() {
        let mut old = old();
        let rotated = |state: &mut State, to: &str| {
            let cluster = state.cluster.as_mut().expect("there");
            Arc::make_mut(cluster).issuers.trusted.push(to.into());
        };
        rotated(&mut old, "next");
        let (new, _) = old.refounded(&by(survivor(1))).expect("done");
        let issuers = new.issuers().expect("there");
        assert_eq!((issuers.signing(), issuers.is_rotating()), (Some("ca"), false));
        assert_eq!(issuers.retired, ["next"]);
        let issuer = "nobody's".to_owned();
        assert!(old.refounded(&by(Founder::Survivor { node: NodeId(1), issuer })).is_err());
    }
}
