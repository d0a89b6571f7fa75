//! What a leader finds to be put into the log.

use super::*;
use crate::{
    Assignment, Cause, Conflict, ConflictChange, LeaderWork, Level, Mac, Obstacle, ObstacleChange,
    Op, Runs, Why,
};
use std::net::IpAddr;

const OTHER: NodeId = NodeId(2);

fn grantee(vip: u64) -> Grantee {
    Grantee { vip: VipUid(vip), epoch: Epoch(1), incarnation: Incarnation(8) }
}

fn obstacle() -> Obstacle {
    Obstacle { ip: IpAddr::from([10, 0, 0, 101]), why: Why::NoLink }
}

fn conflict() -> Conflict {
    Conflict { ip: IpAddr::from([10, 0, 0, 101]), mac: Mac([2, 0, 0, 0, 0, 9]) }
}

/// Leads by its own entry, with two VIPs of node 2.
fn leading_others_vips() -> (Leases, State) {
    let (mut leases, state) = (leading(), state_with_two_vips(OTHER));
    leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
    (leases, state)
}

fn applied(leases: &mut Leases, state: &State) {
    leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
}

#[test]
fn what_is_due_is_proposed_in_order_of_urgency_and_nothing_else_is() {
    assert_eq!(LeaderWork::default().ops(), []);
    let moved =
        Assignment { vip: VipUid(1), seen: Epoch(1), to: Some(OTHER), cause: Cause::Command };
    let (hindered, heard) = (
        ObstacleChange { vip: VipUid(5), node: OTHER, why: Some(obstacle()) },
        ConflictChange { vip: VipUid(8), node: OTHER, what: Some(conflict()) },
    );
    let macs: BTreeSet<_> = [Mac([2; 6])].into();
    let work = LeaderWork {
        term: Term(1),
        moves: vec![moved],
        own: vec![grantee(2)],
        others: vec![grantee(3)],
        releases: vec![grantee(4)],
        obstacles: vec![hindered.clone()],
        outwaited: vec![VipUid(6)],
        answered: vec![grantee(7)],
        conflicts: vec![heard.clone()],
        tokens: vec![],
        interfaces: vec![(OTHER, macs.clone())],
        runs: vec![(OTHER, Runs::here())],
    };
    let of_vips = [
        VipOp::Assign { moves: vec![moved] },
        VipOp::Settle { grants: vec![grantee(2)], nested: true },
        VipOp::Settle { grants: vec![grantee(3)], nested: false },
        VipOp::Released { releases: vec![grantee(4)] },
        VipOp::Obstacles { changes: vec![hindered] },
        VipOp::Outwaited { vips: vec![VipUid(6)] },
        VipOp::Answered { grants: vec![grantee(7)] },
        VipOp::Conflicts { changes: vec![heard] },
    ];
    let of_nodes = [
        NodeOp::Interfaces { node: OTHER, macs },
        NodeOp::Runs { node: OTHER, runs: Runs::here() },
    ];
    let ops: Vec<Op> =
        of_vips.into_iter().map(Op::from).chain(of_nodes.into_iter().map(Op::from)).collect();
    assert_eq!(work.ops(), ops);
}

/// What was not proposed, or not taken, is still due.
#[test]
fn work_is_found_until_the_log_has_it() {
    let (mut leases, mut state) = leading_others_vips();
    leases.reported_by(START, OTHER, Report { open: [grantee(1)].into(), ..report_of(1) });
    assert_eq!(leases.leader_work(START).answered, [], "nobody granted it");
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1), grantee(2)], nested: false });
    applied(&mut leases, &state);
    for _ in 0..2 {
        assert_eq!(leases.leader_work(START).answered, [grantee(1)]);
    }
    apply(&mut state, VipOp::Answered { grants: vec![grantee(1)] });
    applied(&mut leases, &state);
    assert_eq!(leases.leader_work(START).answered, []);
}

/// Each VIP that a node says this of, as far as the log knows VIP and node.
#[test]
fn what_a_node_says_of_vips_is_logged_where_it_differs() {
    let (mut leases, mut state) = leading_others_vips();
    let said = Report {
        obstacles: [(VipUid(1), obstacle()), (VipUid(9), obstacle())].into(),
        conflicts: [(VipUid(2), conflict()), (VipUid(9), conflict())].into(),
        ..report_of(1)
    };
    leases.reported_by(START, OTHER, said.clone());
    leases.reported_by(START, NodeId(9), said);
    let hindered = |why| ObstacleChange { vip: VipUid(1), node: OTHER, why };
    let heard = |what| ConflictChange { vip: VipUid(2), node: OTHER, what };
    let work = leases.leader_work(START);
    assert_eq!(work.obstacles, [hindered(Some(obstacle()))]);
    assert_eq!(work.conflicts, [heard(Some(conflict()))]);

    apply(&mut state, VipOp::Obstacles { changes: work.obstacles });
    apply(&mut state, VipOp::Conflicts { changes: work.conflicts });
    applied(&mut leases, &state);
    let work = leases.leader_work(START);
    assert_eq!((work.obstacles, work.conflicts), (vec![], vec![]), "it is known");

    leases.reported_by(START, OTHER, report_of(2));
    let work = leases.leader_work(START);
    assert_eq!((work.obstacles, work.conflicts), (vec![hindered(None)], vec![heard(None)]));
}

#[test]
fn what_nodes_run_and_their_interfaces_are_logged_where_they_differ() {
    let (mut leases, mut state) = leading_others_vips();
    let (macs, runs) = ([Mac([2; 6])].into(), Runs { level: Level::HERE, version: "x".into() });
    let said = Report { macs, runs, ..report_of(1) };
    leases.reported_by(START, OTHER, said.clone());
    leases.reported_by(START, NodeId(9), said.clone());
    let work = leases.leader_work(START);
    assert_eq!(work.interfaces, [(OTHER, said.macs.clone())], "9 is no member");
    assert_eq!(work.runs, [(OTHER, said.runs.clone())]);

    apply(&mut state, NodeOp::Interfaces { node: OTHER, macs: said.macs });
    apply(&mut state, NodeOp::Runs { node: OTHER, runs: said.runs });
    applied(&mut leases, &state);
    let work = leases.leader_work(START);
    assert_eq!((work.interfaces, work.runs), (vec![], vec![]));

    leases.reported_by(START, OTHER, report_of(2));
    assert_eq!(leases.leader_work(START).interfaces, [], "its guard is not there");
}

#[test]
fn a_vip_is_to_be_where_placement_has_it() {
    let (mut leases, mut state) = leading_others_vips();
    apply(&mut state, VipOp::Add { spec: vip("v9", 109) });
    let added = state.vips.values().max_by_key(|vip| vip.uid).expect("added").clone();
    leases.step(START, LeaseEvent::GuardUp(SESSION));
    applied(&mut leases, &state);
    assert_eq!(leases.target(START, &added), Some(ME), "with the leader");
}

/// By time alone there is new work once what it had before its election is over, and
/// as long as somebody may answer for what was removed.
#[test]
fn a_leader_looks_again_where_time_alone_makes_work() {
    let looked = |at, state: &State| {
        let mut leases = leading();
        leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
        promised(&mut leases, at);
        assert_eq!(leases.leader_work(at).ops(), []);
        leases.idle_as
    };
    let mut state = state_of([voter(1), voter(2)]);
    state.enter(Term(1));
    let [soon, late] = [LAN.grant - LAN.heartbeat, LAN.grant].map(|after| START + after);
    let [before, after] = [soon, late].map(|at| looked(at, &state).expect("nothing to do"));
    assert_ne!(before, after);
    assert_eq!(Some(after), looked(late + LAN.heartbeat, &state));

    let retired = state_with_two_vips(OTHER).vips.values().next().cloned();
    Arc::make_mut(&mut state.retired).extend(retired);
    assert_eq!(looked(soon, &state), None);
}

/// What is due by the log alone is proposed beside it: as this leader's, or it is refused.
#[test]
fn a_leader_without_work_of_its_own_says_in_which_term_that_is() {
    let mut state = state_of([voter(1), voter(2)]);
    state.enter(Term(1));
    let mut leases = leading();
    leases.step(START, LeaseEvent::Applied(Arc::new(state)));
    for look in ["the first", "and one that finds that nothing changed"] {
        let work = leases.leader_work(START);
        assert_eq!((work.term, work.ops()), (Term(1), vec![]), "{look}");
    }
}

/// What it would do is none of its business yet.
#[test]
fn a_leader_whose_own_entry_is_not_applied_does_not_conclude_that_there_is_no_work() {
    let mut leases = leading();
    leases.step(START, LeaseEvent::Applied(Arc::new(state_of([1, 2].map(voter)))));
    assert_eq!(leases.leader_work(START), LeaderWork::default());
    assert_eq!(leases.idle_as, None);
}
