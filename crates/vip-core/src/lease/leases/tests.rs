mod clock;
mod hand_over;
mod renewing;
mod reports;
mod voting;
mod work;

use super::*;
use crate::testing::{apply, move_to, state_of, vip, voter};
use crate::{
    Epoch, Fitness, GuardNotice, Incarnation, NodeOp, Profile, PromiseReply, Refused, VipOp,
    VipOrder, VipUid,
};

pub(super) const START: Mono = Mono(10_000_000_000);
const LAN: Timing = Profile::Lan.timing();

pub(super) const ME: NodeId = NodeId(1);
const OWN: Vote = Vote { term: Term(1), node: ME, committed: true };

/// A node that never promised anything, in a group of three.
fn one_of_three(me: NodeId, timing: Timing, saved: Vote) -> Leases {
    let longest = Duration::ZERO;
    let interfaces = BTreeMap::new();
    let start = LeasesStart { me, timing, run: 0, saved, in_doubt: false, longest, interfaces };
    let mut leases = Leases::new(Mono::ZERO, start);
    leads(&mut leases, Mono::ZERO, None);
    leases
}

/// Raft says whether this node leads the three voters, and in which term.
fn leads(leases: &mut Leases, now: Mono, term: Option<u64>) {
    let voters = Voters::one([ME, NodeId(2), NodeId(3)]);
    leases.step(now, LeaseEvent::Raft(RaftView { leads: term.map(Term), voters }));
}

/// Leads term 1 of three voters, with a promise of node 2 from `START`.
pub(super) fn leading() -> Leases {
    let mut leases = one_of_three(ME, LAN, Vote::default());
    leases.saving_vote(START, OWN);
    leads(&mut leases, START, Some(1));
    promised(&mut leases, START);
    assert_eq!(leases.lease_end(START), START + LAN.lease);
    leases
}

pub(super) fn promised(leases: &mut Leases, sent_at: Mono) -> Vec<LeaseAction> {
    promised_by(leases, NodeId(2), OWN, sent_at)
}

/// Of a node that can hold.
fn report_of(seq: u64) -> Report {
    Report { id: ReportId { run: 0, seq }, fitness: Fitness::Fit, ..Report::default() }
}

fn promised_by(leases: &mut Leases, from: NodeId, vote: Vote, sent_at: Mono) -> Vec<LeaseAction> {
    leases.reported_by(START, from, report_of(0));
    let ack = Acknowledgement { from, vote, sent_at, report: ReportId::default() };
    leases.step(sent_at, LeaseEvent::Acknowledged(ack))
}

/// A promise to node 1 alone; this is the latest report there.
fn acknowledged(leases: &mut Leases, from: u64, report: ReportId) {
    let ack = Acknowledgement { from: NodeId(from), vote: OWN, sent_at: START, report };
    leases.step(START, LeaseEvent::Acknowledged(ack));
}

/// Leads, and node 2 was granted VIP 1.
fn leading_a_holder() -> (Leases, Grantee) {
    let (mut leases, mut state) = (leading(), state_with_two_vips(NodeId(2)));
    let held = Grantee { vip: VipUid(1), epoch: Epoch(1), incarnation: Incarnation(8) };
    apply(&mut state, VipOp::Settle { grants: vec![held], nested: false });
    leases.step(START, LeaseEvent::Applied(Arc::new(state)));
    (leases, held)
}

fn deposed_by(term: u64) -> Vote {
    Vote { term: Term(term), node: NodeId(3), committed: false }
}

/// What is asked of the leader, and what the guard is told of it.
fn asked(actions: &[LeaseAction]) -> Vec<Wanted> {
    let wanted = |action: &LeaseAction| match action {
        LeaseAction::Ask(ask) => Some(ask.wanted.clone()),
        _ => None,
    };
    actions.iter().filter_map(wanted).collect()
}

/// It is to hold two VIPs under another leader; its guard prepares both.
fn assigned_by_another() -> Leases {
    let mut leases = one_of_three(ME, LAN, Vote::default());
    leases.saving_vote(START, LEADER);
    leases.vote_is_durable(START, LEADER);
    let heard = leases.renewed_by(START, LEADER, LAN.promise, ReportId::default());
    assert_eq!(heard, PromiseReply::Promised);
    assert_eq!(asked(&leases.step(START, LeaseEvent::GuardUp(Incarnation(7)))), []);
    leases.step(START, LeaseEvent::Applied(Arc::new(state_with_two_vips(ME))));
    leases
}

/// One of those, as that guard's.
fn leased(vip: u64) -> Grantee {
    Grantee { vip: VipUid(vip), epoch: Epoch(1), incarnation: Incarnation(7) }
}

/// Holds two VIPs under another leader; the guard has both open.
pub(super) fn holding_under_another() -> (Leases, Vec<Grantee>) {
    let mut leases = assigned_by_another();
    leases.step(START, LeaseEvent::Notices(vec![prepared(1), prepared(2)]));
    let all: Vec<_> = [1, 2].map(leased).into();
    let told = answered(
        &mut leases,
        START,
        true,
        GrantAnswer { granted: all.clone(), ..Default::default() },
    );
    assert!(matches!(extended(told)[..], [VipOrder::Extend { .. }]));
    let opened = |number| GuardNotice::Opened { vip: VipUid(number), epoch: Epoch(1) };
    leases.step(START, LeaseEvent::Notices(vec![opened(1), opened(2)]));
    (leases, all)
}

fn answered(leases: &mut Leases, at: Mono, first: bool, answer: GrantAnswer) -> Vec<LeaseAction> {
    let (session, answer) = (Some(Incarnation(7)), Some(answer));
    let asked = if first { Asked::First } else { Asked::More };
    leases.step(at, LeaseEvent::Answered { session, sent_at: at, asked, answer })
}

/// The next heartbeat, in time for the leader's promise.
fn next_heartbeat(leases: &mut Leases, at: Mono) -> Vec<LeaseAction> {
    leases.renewed_by(at, LEADER, LAN.promise, ReportId::default());
    leases.step(at, LeaseEvent::Tick)
}

fn extended(actions: Vec<LeaseAction>) -> Vec<VipOrder> {
    let extends =
        |order: &VipOrder| matches!(order, VipOrder::Extend { .. } | VipOrder::ExtendAll { .. });
    orders(actions).into_iter().flatten().filter(extends).collect()
}

const LEADER: Vote = Vote { term: Term(1), node: NodeId(2), committed: true };

/// Others may have promised this node until its lease ends; it counted on its
/// own voice as well, and has no more right to take it back.
#[test]
fn a_leader_that_stepped_down_neither_votes_nor_campaigns_within_its_lease() {
    let mut leases = leading();
    let now = START + LAN.heartbeat;
    leases.saving_vote(now, deposed_by(2));
    let remaining = LAN.lease - LAN.heartbeat + LAN.gate_to_wire;
    assert_eq!(leases.may_campaign(now), Err(Refused { remaining }));
    assert_eq!(leases.may_vote(now), Err(Refused { remaining }));
    let free_at = START + LAN.lease + LAN.gate_to_wire;
    assert!(leases.may_vote(free_at - Duration::from_nanos(1)).is_err());
    assert!(leases.may_vote(free_at).is_ok());
}

/// A packet that passed the gate at the last moment is on its way for eps; the
/// promises of others have that in reserve (C1).
#[test]
fn a_leaders_own_word_holds_until_its_last_packet_is_out() {
    let mut leases = leading();
    let end = START + LAN.lease;
    assert!(leases.may_vote(end).is_err());
    assert!(leases.may_vote(end + LAN.gate_to_wire).is_ok());
}

/// Node 1 leads with a lease and is drained; nodes 2 and 3 hear it.
pub(super) fn leading_drained(leases: &mut Leases, now: Mono) {
    let mut state = state_of([voter(1), voter(2), voter(3)]);
    apply(&mut state, NodeOp::Drain { node: ME, drained: true });
    leases.step(now, LeaseEvent::Applied(Arc::new(state)));
}

/// The acknowledgement that would revive a lapsed lease may be on its way while
/// the vote is granted.
#[test]
fn a_vote_ends_the_leadership_that_counted_on_it_at_once() {
    let mut leases = leading();
    let lapsed = START + LAN.lease + LAN.gate_to_wire;
    let ticket = leases.may_vote(lapsed).expect("its lease is over");
    leases.saving_vote(lapsed, deposed_by(2));
    promised(&mut leases, lapsed);
    assert!(!leases.has_lease(lapsed));
    assert!(leases.still_may_vote(lapsed, ticket));

    // What Raft shows may be older than what it saved.
    leads(&mut leases, lapsed, Some(1));
    promised(&mut leases, lapsed);
    assert!(!leases.has_lease(lapsed));
}

#[test]
fn a_vote_is_dropped_if_the_lease_revived_before_it_was_saved() {
    let mut leases = leading();
    let lapsed = START + LAN.lease + LAN.gate_to_wire;
    let ticket = leases.may_vote(lapsed).expect("its lease is over");
    promised(&mut leases, lapsed);
    assert!(leases.has_lease(lapsed));
    leases.saving_vote(lapsed, deposed_by(2));
    assert!(!leases.still_may_vote(lapsed, ticket));
}

/// It may be the only one with the whole log.
#[test]
fn a_node_that_stops_campaigns_after_all_others() {
    let mut leases = leading();
    leases.saving_vote(START, deposed_by(2));
    leads(&mut leases, START, None);
    let before = leases.campaign_due().expect("it votes");
    leases.stop_holding(START);
    assert_eq!(leases.campaign_due(), Some(before + LAN.stagger * 3));
}

/// Three voters, the leader of term 1 (`OWN`'s) gone; node 2 of them.
fn follower_of_a_lost_leader() -> (Leases, Mono) {
    let mut leases = one_of_three(NodeId(2), Profile::Fast.timing(), OWN);
    let promise = leases.scene.timing.promise;
    assert_eq!(leases.heard_of(START, OWN, promise), crate::PromiseReply::Promised);
    let free = START + promise;
    assert_eq!(leases.campaign_due(), Some(free), "first in rank");
    (leases, free)
}

#[test]
fn a_voter_gives_the_candidate_it_votes_for_the_time_of_an_election() {
    let (mut leases, free) = follower_of_a_lost_leader();
    let election = leases.scene.timing.election;
    leases.promised_vote(free, NodeId(3));
    assert!(leases.campaign_due() > Some(free + election));
    let granted = free + Duration::from_millis(1);
    leases.saving_vote(granted, deposed_by(2));
    let due = leases.campaign_due().expect("the candidate may be gone");
    assert!(due > granted + election && due < granted + election * 2);

    let own = Vote { term: Term(3), node: NodeId(2), committed: false };
    let (mut leases, free) = follower_of_a_lost_leader();
    leases.saving_vote(free, own);
    assert_eq!(leases.campaign_due(), Some(free), "nobody to give way to");
}

/// The others can lead at once; it has just come back.
#[test]
fn a_leader_that_was_restarted_campaigns_after_all_others() {
    let start = LeasesStart {
        me: ME,
        timing: LAN,
        run: 0,
        saved: OWN,
        in_doubt: false,
        longest: LAN.promise,
        interfaces: BTreeMap::new(),
    };
    let mut leases = Leases::new(START, start);
    leads(&mut leases, START, None);
    // It need not be in use for that, and is told once.
    let mut early = leases.clone();
    for (event, abdicates) in
        [(LeaseEvent::GuardCame, true), (LeaseEvent::GuardUp(Incarnation(1)), false)]
    {
        let actions = early.step(START, event);
        assert_eq!(actions.contains(&LeaseAction::Abdicate(OWN)), abdicates, "{actions:?}");
    }
    let actions = leases.step(START, LeaseEvent::GuardUp(Incarnation(1)));
    assert!(actions.contains(&LeaseAction::Abdicate(OWN)), "{actions:?}");
    assert_eq!(leases.campaign_due(), Some(START + LAN.stagger * 2));
}

/// Term 1 of this node, with two VIPs of `holder`.
pub(super) fn state_with_two_vips(holder: NodeId) -> State {
    let mut state = state_of([voter(1), voter(2)]);
    state.enter(Term(1));
    for (number, name) in [(1, "v1"), (2, "v2")] {
        apply(&mut state, VipOp::Add { spec: vip(name, 100 + number) });
        move_to(&mut state, VipUid(number.into()), holder.0);
    }
    state
}

const SESSION: Incarnation = Incarnation(7);

/// Leads, and its guard is about to answer for two VIPs.
pub(super) fn holding_two_vips() -> (Leases, State) {
    let mut leases = leading();
    let state = state_with_two_vips(ME);
    leases.step(START, LeaseEvent::GuardUp(SESSION));
    leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
    (leases, state)
}

fn prepared(number: u64) -> GuardNotice {
    GuardNotice::Prepared { vip: VipUid(number), epoch: Epoch(1) }
}

fn orders(actions: Vec<LeaseAction>) -> Vec<Vec<VipOrder>> {
    let orders = |action| if let LeaseAction::Order(orders) = action { Some(orders) } else { None };
    actions.into_iter().filter_map(orders).collect()
}

/// Three hundred VIPs, each told again for the notice of each other one, were
/// more than a guard can take.
#[test]
fn a_guard_hears_of_a_grant_once_between_renewals() {
    let (mut leases, _) = holding_two_vips();
    let mut told = vec![];
    for number in 1..=2 {
        let actions = leases.step(START, LeaseEvent::Notices(vec![prepared(number)]));
        for order in orders(actions).into_iter().flatten() {
            if let VipOrder::Extend { deadlines, .. } = order {
                told.extend(deadlines.into_iter().map(|(vip, ..)| vip));
            }
        }
    }
    assert_eq!(told, [VipUid(1), VipUid(2)]);
}

/// A thousand frames would overflow the guard's queue.
#[test]
fn what_a_guard_is_to_give_up_is_one_frame() {
    let (mut leases, mut state) = holding_two_vips();
    leases.step(START, LeaseEvent::Notices(vec![prepared(1), prepared(2)]));
    let opened = |number| GuardNotice::Opened { vip: VipUid(number), epoch: Epoch(1) };
    leases.step(START, LeaseEvent::Notices(vec![opened(1), opened(2)]));
    for number in 1..=2 {
        move_to(&mut state, VipUid(number), 2);
    }
    leases.step(START, LeaseEvent::Applied(Arc::new(state)));
    // The new holder is ready for both, and is told to wait.
    let wanted = [1, 2].map(|number| Grantee {
        vip: VipUid(number),
        epoch: Epoch(2),
        incarnation: Incarnation(8),
    });
    let (answer, _) = leases.granted_to(START, NodeId(2), &Wanted::First(wanted.into()));
    assert_eq!(answer, GrantAnswer::default());
    let now = START + LAN.heartbeat;
    let given_up: Vec<_> = orders(promised(&mut leases, now))
        .into_iter()
        .filter(|frame| frame.iter().any(|order| matches!(order, VipOrder::Release { .. })))
        .collect();
    let release = |number| VipOrder::Release { vip: VipUid(number), epoch: Epoch(1) };
    assert_eq!(given_up, [vec![release(1), release(2)]]);
}

/// With the release alone the VIP would be given back to the node that just
/// lost its link, and the grant after that would have to wait for W.
#[test]
fn a_release_comes_with_why_the_vip_cannot_go_back() {
    let (mut leases, held) = leading_a_holder();
    leases.step(START, LeaseEvent::GuardUp(Incarnation(7)));
    let obstacle = crate::Obstacle { ip: [10, 0, 0, 100].into(), why: crate::Why::NoLink };
    let report = Report {
        unable: [VipUid(1)].into(),
        obstacles: [(VipUid(1), obstacle.clone())].into(),
        released: [held].into(),
        ..report_of(1)
    };
    leases.reported_by(START, NodeId(2), report);
    let work = leases.leader_work(START);
    let to = work.moves.iter().find(|step| step.vip == VipUid(1)).map(|step| step.to);
    assert_eq!(to, Some(Some(ME)), "{work:?}");
    // A renewal that was answered before comes after.
    promised(&mut leases, START);
    assert!(!leases.leader_work(START).moves.iter().any(|step| step.to == Some(NodeId(2))));
    let change = crate::ObstacleChange { vip: VipUid(1), node: NodeId(2), why: Some(obstacle) };
    assert_eq!(work.obstacles, [change]);
}

/// What the log does not take must not be proposed again and again.
#[test]
fn nothing_is_logged_of_a_node_that_was_removed() {
    let mut leases = leading();
    let state = state_with_two_vips(ME);
    leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
    let obstacle = crate::Obstacle { ip: [10, 0, 0, 100].into(), why: crate::Why::NoLink };
    let obstacles: BTreeMap<_, _> = [(VipUid(1), obstacle)].into();
    leases.reported_by(START, NodeId(2), Report { obstacles, ..report_of(1) });
    assert_eq!(leases.leader_work(START).obstacles.len(), 1);
    let mut without = state;
    Arc::make_mut(&mut without.nodes).remove(&NodeId(2));
    leases.step(START, LeaseEvent::Applied(Arc::new(without)));
    assert_eq!(leases.leader_work(START).obstacles, []);
}

/// A leadership that this node never promised to is nobody's to give up: who
/// says so again and again would keep a holder from asking its leader.
#[test]
fn an_abdication_of_a_leadership_that_it_never_promised_to_changes_nothing() {
    let of = |node, term| Vote { term: Term(term), node: NodeId(node), committed: true };
    let leader = of(2, 1);
    let mut leases = one_of_three(ME, LAN, leader);
    leases.vote_is_durable(START, leader);
    assert_eq!(leases.heard_of(START, leader, LAN.promise), PromiseReply::Promised);
    let due = leases.campaign_due();
    for other in [of(3, 1), of(3, 1000), of(2, 0), of(2, 1000)] {
        leases.abdicated_by(START, other);
        leases.handed_over_by(START, other);
        assert_eq!(leases.leader(START), Some(NodeId(2)), "{other:?}");
        assert_eq!(leases.campaign_due(), due, "{other:?}");
    }
    leases.abdicated_by(START, leader);
    assert_eq!(leases.leader(START), None);
}

/// A lone voter is elected without being asked, also inside a promise; a restart
/// that finds its own vote says that whoever it promised before is over.
#[test]
fn a_candidacy_reaches_the_disk_only_when_nobody_was_promised() {
    let other = Vote { term: Term(1), node: NodeId(2), committed: true };
    let mut leases = one_of_three(ME, LAN, other);
    assert_eq!(leases.heard_of(START, other, LAN.promise), PromiseReply::Promised);
    let own = Vote { term: Term(2), node: ME, committed: false };
    let middle = START + LAN.promise / 2;
    leases.saving_vote(middle, own);
    assert_eq!(leases.candidacy_waits(middle, own), LAN.promise / 2);
    // And nothing more is promised to the one before meanwhile.
    let renewed = leases.heard_of(middle, other, LAN.promise);
    assert!(matches!(renewed, PromiseReply::OtherVote(_)), "{renewed:?}");
    assert_eq!(leases.candidacy_waits(START + LAN.promise, own), Duration::ZERO);
    // Votes for others, and what was won, do not wait.
    for free in [other, Vote { committed: true, ..own }] {
        assert_eq!(leases.candidacy_waits(middle, free), Duration::ZERO);
    }
}

/// Without a word from anybody: it was heard too long ago.
#[test]
fn the_end_of_a_conflict_is_reported() {
    let (mut leases, _) = holding_under_another();
    let reported = |actions: Vec<LeaseAction>| {
        let report = |action: LeaseAction| match action {
            LeaseAction::Report(_, report) => Some(report.conflicts.len()),
            _ => None,
        };
        actions.into_iter().find_map(report)
    };
    let ip = "10.0.0.100".parse().expect("valid");
    let (vip, epoch, mac) = (VipUid(1), Epoch(1), Mac([2, 0, 0, 0, 0, 9]));
    let ip =
        leases.state().vip(vip).and_then(|vip| vip.spec.addresses.first()).map_or(ip, |a| a.ip);
    let heard = GuardNotice::Conflict { vip, epoch, ip, mac };
    let actions = leases.step(START, LeaseEvent::Notices(vec![heard]));
    assert_eq!(reported(actions), Some(1));
    let (mut now, mut last) = (START, None);
    while now < START + Duration::from_secs(70) {
        now = now + LAN.heartbeat;
        last = reported(next_heartbeat(&mut leases, now)).or(last);
    }
    assert_eq!(last, Some(0));
}

/// After a partition its neighbours may know another holder's address.
#[test]
fn a_member_that_is_heard_again_after_a_promise_has_the_guard_announce_again() {
    let mut leases = leading();
    let soon = START + LAN.promise;
    assert!(!promised(&mut leases, soon).contains(&LeaseAction::Confirm));
    let late = soon + LAN.promise + Duration::from_nanos(1);
    assert!(promised(&mut leases, late).contains(&LeaseAction::Confirm));
    // One that was never heard before was not away.
    let first = promised_by(&mut leases, NodeId(3), OWN, late);
    assert!(!first.contains(&LeaseAction::Confirm), "{first:?}");
}

/// It looks at its host for each of them; a change of anything else is no reason to.
#[test]
fn the_guard_hears_of_vips_when_they_change() {
    let mut leases = leading();
    let mut state = state_with_two_vips(ME);
    let considered = |leases: &mut Leases, event: LeaseEvent| {
        let uids = |action| match action {
            LeaseAction::Consider(all) => Some(all.into_iter().map(|(uid, _)| uid.0).collect()),
            _ => None,
        };
        leases.step(START, event).into_iter().filter_map(uids).collect::<Vec<Vec<u64>>>()
    };
    let none: [Vec<u64>; 0] = [];
    let applied = |state: &State| LeaseEvent::Applied(Arc::new(state.clone()));
    assert_eq!(considered(&mut leases, applied(&state)), none, "nobody is there to hear");
    assert_eq!(considered(&mut leases, LeaseEvent::GuardUp(SESSION)), [vec![1, 2]]);
    apply(&mut state, NodeOp::Drain { node: NodeId(2), drained: true });
    assert_eq!(considered(&mut leases, applied(&state)), none);
    move_to(&mut state, VipUid(1), 1);
    assert_eq!(considered(&mut leases, applied(&state)), none, "it moved, and is what it was");
    apply(&mut state, VipOp::Add { spec: vip("v3", 103) });
    assert_eq!(considered(&mut leases, applied(&state)), [vec![1, 2, 3]]);
    let seen = state.vips[&VipUid(1)].revision;
    apply(&mut state, VipOp::Set { spec: vip("v1", 111), seen, guest: None });
    assert_eq!(considered(&mut leases, applied(&state)), [vec![1, 2, 3]], "it has another address");
    considered(&mut leases, LeaseEvent::GuardDown);
    assert_eq!(considered(&mut leases, LeaseEvent::GuardUp(Incarnation(9))), [vec![1, 2, 3]]);
}

/// Who promised counts in the configuration that it promised in.
#[test]
fn a_lease_begins_anew_with_other_voters_and_with_nothing_else() {
    let mut leases = leading();
    leads(&mut leases, START, Some(1));
    assert!(leases.has_lease(START), "as it was");
    let voters = Voters::one([ME, NodeId(2), NodeId(3), NodeId(4)]);
    leases.step(START, LeaseEvent::Raft(RaftView { leads: Some(Term(1)), voters }));
    assert!(!leases.has_lease(START));
    assert_eq!(leases.own_leadership(), Some(OWN));
}

/// What renews promises would come too late for a lease that is over.
#[test]
fn a_leader_renews_nothing_once_its_lease_is_over() {
    let mut leases = leading();
    assert!(leases.may_renew(START));
    assert!(!leases.may_renew(START + LAN.lease));
}

/// Who was told that somebody else campaigns now is free for that, and keeps out of
/// the way. The word of no other leader ends a promise.
#[test]
fn a_leader_that_hands_over_frees_its_voters_and_they_give_way() {
    let (mut leases, free) = follower_of_a_lost_leader();
    let election = leases.scene.timing.election;
    let now = START + Duration::from_millis(1);
    leases.handed_over_by(now, deposed_by(9));
    assert!(leases.may_vote(now).is_err());
    assert_eq!(leases.campaign_due(), Some(free));
    leases.handed_over_by(now, OWN);
    assert!(leases.may_vote(now).is_ok());
    assert!(leases.campaign_due() > Some(now + election));
}

#[test]
fn a_candidate_that_was_refused_waits_as_long_as_the_voter_is_bound() {
    let (mut leases, free) = follower_of_a_lost_leader();
    let remaining = leases.scene.timing.promise * 3;
    leases.peer_bound(free, remaining);
    assert!(leases.campaign_due() >= Some(free + remaining), "{:?}", leases.campaign_due());
}

/// What comes many times a second does not have the leader look for work again, and
/// everything else does, whatever it said that it changed.
#[test]
fn a_leader_looks_for_work_again_unless_what_came_would_have_said_so() {
    let mut leases = leading();
    leases.step(START, LeaseEvent::Applied(Arc::new(state_with_two_vips(NodeId(2)))));
    let _ = leases.leader_work(START);
    assert!(leases.idle_as.is_some());
    leases.step(START, LeaseEvent::Tick);
    assert!(leases.idle_as.is_some(), "nothing changed");
    let _ = leases.may_vote(START);
    assert!(leases.idle_as.is_none());
}

#[test]
fn a_change_is_told_however_much_came_after_it() {
    let (mut leases, _) = follower_of_a_lost_leader();
    leases.take_changed();
    leases.handed_over_by(START, OWN);
    leases.step(START, LeaseEvent::Tick);
    assert!(leases.take_changed() && !leases.take_changed());
}

#[test]
fn a_disk_that_makes_writes_wait_for_five_promises_or_fails_is_not_well() {
    let mut leases = leading();
    leases.step(START, LeaseEvent::GuardUp(SESSION));
    let patience = LAN.promise * 5;
    let (at_once, just) = (Duration::ZERO, Duration::from_nanos(1));
    for (oldest_wait, failed, fitness) in [
        (patience - just, false, Fitness::Fit),
        (patience, false, Fitness::Disk),
        (patience + just, false, Fitness::Disk),
        (at_once, false, Fitness::Fit),
        (at_once, true, Fitness::Disk),
        (patience, true, Fitness::Disk),
    ] {
        leases.disk(START, oldest_wait, failed);
        assert_eq!(leases.fitness(START), fitness, "{oldest_wait:?} {failed}");
    }
}
