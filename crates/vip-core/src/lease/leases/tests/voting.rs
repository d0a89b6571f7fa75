//! Whom a node votes for, when it campaigns, and to whom a leader hands over.

use super::*;
use crate::{Node, Presumption, Role, Speaker};

fn elects(actions: &[LeaseAction]) -> Vec<bool> {
    let pre_vote = |action: &LeaseAction| match action {
        LeaseAction::Elect { pre_vote } => Some(*pre_vote),
        _ => None,
    };
    actions.iter().filter_map(pre_vote).collect()
}

/// Long after its election, with node 2 alone heard.
fn leading_with_node_2_alone() -> (Leases, Mono) {
    let mut leases = leading();
    let now = START + LAN.promise * 2;
    promised(&mut leases, now);
    knows(&mut leases, now, [1, 2, 3].map(voter));
    assert_eq!(leases.alive(now), [ME, NodeId(2)].into());
    (leases, now)
}

fn knows(leases: &mut Leases, now: Mono, nodes: impl IntoIterator<Item = Node>) {
    leases.step(now, LeaseEvent::Applied(Arc::new(state_of(nodes))));
}

#[test]
fn a_successor_is_alive_able_and_a_voter_of_every_configuration() {
    let (mut leases, now) = leading_with_node_2_alone();
    assert_eq!(leases.successor(now), Some(NodeId(2)));

    let mut drained = state_of([1, 2, 3].map(voter));
    apply(&mut drained, NodeOp::Drain { node: NodeId(2), drained: true });
    leases.step(now, LeaseEvent::Applied(Arc::new(drained)));
    assert_eq!(leases.successor(now), None, "3 is not heard, and 2 cannot hold");

    knows(&mut leases, now, [1, 2, 3].map(voter));
    let joint = Voters(vec![[1, 2, 3].map(NodeId).into(), [1, 3].map(NodeId).into()]);
    leases.step(now, LeaseEvent::Raft(RaftView { leads: Some(Term(1)), voters: joint }));
    assert_eq!(leases.successor(now), None, "2 is about to lose its vote");
}

/// A VIP that is held here would be silent until another holder has it.
#[test]
fn a_drained_leader_leads_on_while_it_holds_a_vip_itself() {
    let (mut leases, now) = leading_with_node_2_alone();
    for (holder, successor) in [(ME, None), (NodeId(2), Some(NodeId(2)))] {
        let mut state = state_with_two_vips(holder);
        apply(&mut state, NodeOp::Drain { node: ME, drained: true });
        leases.step(now, LeaseEvent::Applied(Arc::new(state)));
        assert_eq!(leases.leads_instead_of(now), successor, "{holder}");
    }
}

/// Somebody else asked for this node's vote meanwhile, and is given its time.
#[test]
fn the_end_of_a_leadership_hastens_no_campaign_where_a_later_candidate_was_voted_for() {
    let (mut leases, _) = follower_of_a_lost_leader();
    let election = leases.scene.timing.election;
    leases.saving_vote(START, deposed_by(2));
    leases.abdicated_by(START, OWN);
    assert!(leases.may_vote(START).is_ok());
    assert!(leases.campaign_due() > Some(START + election), "{:?}", leases.campaign_due());

    let (mut leases, _) = follower_of_a_lost_leader();
    leases.abdicated_by(START, OWN);
    assert_eq!(leases.campaign_due(), Some(START));
}

#[test]
fn a_candidate_asks_beforehand_but_for_after_an_abdication() {
    let (mut leases, free) = follower_of_a_lost_leader();
    assert_eq!(elects(&leases.step(free, LeaseEvent::Tick)), [true]);

    let (mut leases, _) = follower_of_a_lost_leader();
    leases.abdicated_by(START, OWN);
    assert_eq!(elects(&leases.step(START, LeaseEvent::Tick)), [false]);
    let again = leases.campaign_due().expect("it votes");
    assert_eq!(elects(&leases.step(again, LeaseEvent::Tick)), [true], "once");
}

#[test]
fn a_candidate_goes_by_its_place_from_the_second_campaign_on() {
    let (mut leases, free) = follower_of_a_lost_leader();
    let timing = leases.scene.timing;
    leases.step(free, LeaseEvent::Tick);
    let second = free + timing.election + timing.stagger;
    assert_eq!(leases.campaign_due(), Some(second));
    leases.step(second, LeaseEvent::Tick);
    let (pause, place) = ((timing.election + timing.stagger) * 2, timing.stagger);
    assert_eq!(leases.campaign_due(), Some(second + pause + place));
}

/// What it campaigned for in vain before it was elected says nothing about now.
#[test]
fn whoever_was_elected_campaigns_anew_as_if_for_the_first_time() {
    let (mut leases, free) = follower_of_a_lost_leader();
    let timing = leases.scene.timing;
    leases.step(free, LeaseEvent::Tick);
    let won = Vote { term: Term(2), node: NodeId(2), committed: true };
    leases.saving_vote(free, won);
    leads(&mut leases, free, Some(2));
    assert_eq!(leases.campaign_due(), None, "it leads");
    let deposed = RaftView { leads: None, voters: leases.scene.voters.clone() };
    assert_eq!(elects(&leases.step(free, LeaseEvent::Raft(deposed))), [true], "at once");
    assert_eq!(leases.campaign_due(), Some(free + timing.election + timing.stagger));
}

/// The end of a lease that never was binds nobody.
#[test]
fn whoever_never_led_is_bound_by_nothing_of_its_own() {
    let mut leases = one_of_three(ME, LAN, Vote::default());
    assert!(leases.may_vote(Mono::ZERO).is_ok());
}

#[test]
fn a_lease_that_was_closed_binds_nobody() {
    let mut leases = leading();
    assert!(leases.may_vote(START).is_err());
    assert!(leases.close_lease(START, NodeId(2)));
    assert!(leases.may_vote(START).is_ok());
}

/// Whoever can hold VIPs leads rather than who cannot.
#[test]
fn a_witness_campaigns_after_all_others() {
    let (mut leases, free) = follower_of_a_lost_leader();
    let stagger = leases.scene.timing.stagger;
    let witness = |id| Node { role: Role::Witness, ..voter(id) };
    knows(&mut leases, START, [voter(1), voter(2), witness(3)]);
    assert_eq!(leases.campaign_due(), Some(free));
    knows(&mut leases, START, [voter(1), witness(2), voter(3)]);
    assert_eq!(leases.campaign_due(), Some(free + stagger));
}

#[test]
fn a_member_without_a_vote_may_not_lead_nor_may_a_term_leap() {
    let mut leases = leading();
    let learner = Node { role: Role::Learner, ..voter(4) };
    knows(&mut leases, START, [voter(1), voter(2), voter(3), learner]);
    let speaker = |id| Speaker { node: NodeId(id), role: None, outdated: false };
    assert_eq!(leases.may_lead(speaker(2), Term(2)), Ok(()));
    assert_eq!(leases.may_lead(speaker(4), Term(2)), Err(Presumption::NoVote(NodeId(4))));
    let leap = Presumption::Leap { ours: Term(1), theirs: Term(u64::MAX) };
    assert_eq!(leases.may_lead(speaker(2), Term(u64::MAX)), Err(leap));
}
