use super::*;
use crate::testing::{apply, move_to, state_of, vip, voter};
use crate::{
    Acknowledgement, Fitness, Grantee, Incarnation, LeaseEvent, LeasesStart, Obstacle,
    ObstacleChange, Profile, RaftView, Report, ReportId, Term, VipOp, Vote, Voters,
};
use std::sync::Arc;

/// So long ago that whoever was not heard since is not there.
const ELECTED: Mono = Mono(9_000_000_000);
const START: Mono = Mono(10_000_000_000);
const WEB: VipUid = VipUid(1);

/// Node 1, which leads three voters; it hears node 2, and node 3 is not there.
fn leader() -> Leases {
    let (me, own) = (NodeId(1), Vote { term: Term(1), node: NodeId(1), committed: true });
    let start = LeasesStart {
        me,
        timing: Profile::Lan.timing(),
        run: 0,
        saved: Vote::default(),
        in_doubt: false,
        longest: Duration::ZERO,
        interfaces: BTreeMap::new(),
    };
    let mut leases = Leases::new(Mono::ZERO, start);
    leases.saving_vote(ELECTED, own);
    let voters = Voters::one([me, NodeId(2), NodeId(3)]);
    leases.step(ELECTED, LeaseEvent::Raft(RaftView { leads: Some(Term(1)), voters }));
    leases.step(ELECTED, LeaseEvent::GuardUp(Incarnation(5)));
    hears_two(&mut leases, START, Report { fitness: Fitness::Fit, ..Report::default() });
    leases
}

/// Node 2 says that of itself.
fn hears_two(leases: &mut Leases, now: Mono, report: Report) {
    let vote = Vote { term: Term(1), node: NodeId(1), committed: true };
    let ack = Acknowledgement { from: NodeId(2), vote, sent_at: now, report: report.id };
    leases.reported_by(now, NodeId(2), report);
    leases.step(now, LeaseEvent::Acknowledged(ack));
}

fn grantee(epoch: u64) -> Grantee {
    Grantee { vip: WEB, epoch: Epoch(epoch), incarnation: Incarnation(7) }
}

/// Node 2 holds web.
fn held_by_two() -> State {
    let mut state = state_of([1, 2, 3].map(voter));
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    move_to(&mut state, WEB, 2);
    state
}

fn web() -> Name {
    "web".parse().expect("valid")
}

fn obstacle(node: u64, why: Option<Why>) -> VipOp {
    let why = why.map(|why| Obstacle { ip: [10, 0, 0, 100].into(), why });
    VipOp::Obstacles { changes: vec![ObstacleChange { vip: WEB, node: NodeId(node), why }] }
}

fn look(goal: &mut Goal, now: Mono, state: &State, leases: &mut Leases) -> Progress {
    leases.step(now, LeaseEvent::Applied(Arc::new(state.clone())));
    goal.look(now, state, leases)
}

#[test]
fn a_vip_answers_when_its_holder_and_the_log_say_so() {
    let (mut leases, mut state) = (leader(), held_by_two());
    let mut goal = Goal::answers(web(), None, Mono::ZERO);
    let assigned = "web is assigned to n2, which does not answer yet".to_owned();
    let missing = Progress::Missing(assigned);
    assert_eq!(look(&mut goal, START, &state, &mut leases), missing);

    let open = [grantee(1)].into();
    let id = ReportId { run: 0, seq: 1 };
    hears_two(&mut leases, START, Report { id, fitness: Fitness::Fit, open, ..Report::default() });
    assert_eq!(look(&mut goal, START, &state, &mut leases), missing, "the log does not say so");

    apply(&mut state, VipOp::Settle { grants: vec![grantee(1)], nested: false });
    apply(&mut state, VipOp::Answered { grants: vec![grantee(1)] });
    assert_eq!(look(&mut goal, START, &state, &mut leases), Progress::Holds);
    let mut elsewhere = Goal::answers(web(), Some(NodeId(3)), Mono::ZERO);
    assert_eq!(look(&mut elsewhere, START, &state, &mut leases), missing);

    apply(&mut state, VipOp::Remove { name: web() });
    let removed = Progress::Hopeless(Hopeless::Removed(web()));
    assert_eq!(look(&mut goal, START, &state, &mut leases), removed);
}

#[test]
fn nobody_waits_for_what_each_node_that_is_there_cannot_do() {
    let (mut leases, mut state) = (leader(), held_by_two());
    let settled = START + Duration::from_millis(10);
    let mut goal = Goal::answers(web(), None, settled);
    apply(&mut state, obstacle(2, Some(Why::NoRoute)));
    let progress = look(&mut goal, settled, &state, &mut leases);
    let Progress::Missing(text) = progress else { panic!("node 1 may be able to: {progress:?}") };
    assert!(text.contains("; on n2: "), "{text}");

    // Node 3 is not heard and does not count.
    apply(&mut state, obstacle(1, Some(Why::NoRoute)));
    let early = look(&mut goal, START, &state, &mut leases);
    assert!(matches!(early, Progress::Missing(_)), "{early:?}");
    let progress = look(&mut goal, settled, &state, &mut leases);
    let Progress::Hopeless(why @ Hopeless::Nowhere { .. }) = progress else {
        panic!("nobody can: {progress:?}")
    };
    assert!(why.to_string().starts_with("no node can hold web; on n1, n2: "), "{why}");

    apply(&mut state, obstacle(2, None));
    let progress = look(&mut goal, settled, &state, &mut leases);
    assert!(matches!(progress, Progress::Missing(_)), "{progress:?}");
    // Of a host that has the address for itself one is enough.
    apply(&mut state, obstacle(1, Some(Why::HostHasIt)));
    let progress = look(&mut goal, settled, &state, &mut leases);
    let Progress::Hopeless(alone) = progress else { panic!("n1 would answer too: {progress:?}") };
    assert!(alone.to_string().contains("n1 has 10.0.0.100 of web for itself"), "{alone}");
    // What the others say of it by then does not change the answer.
    let why = Why::AnsweredBy("n1".parse().expect("valid"));
    apply(&mut state, obstacle(2, Some(why)));
    let progress = look(&mut goal, settled, &state, &mut leases);
    assert_eq!(progress, Progress::Hopeless(alone));
}

/// A takeover is waited for: whoever has it by then may lose it.
#[test]
fn a_host_that_has_a_vip_that_answered_before_is_no_reason_to_give_up() {
    let (mut leases, mut state) = (leader(), held_by_two());
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1)], nested: false });
    apply(&mut state, VipOp::Answered { grants: vec![grantee(1)] });
    let (seen, to, cause) = (state.vips[&WEB].epoch, Some(NodeId(2)), crate::Cause::HolderLost);
    apply(
        &mut state,
        VipOp::Assign { moves: vec![crate::Assignment { vip: WEB, seen, to, cause }] },
    );
    apply(&mut state, obstacle(1, Some(Why::HostHasIt)));
    let mut goal = Goal::answers(web(), None, Mono::ZERO);
    let progress = look(&mut goal, START, &state, &mut leases);
    assert!(matches!(progress, Progress::Missing(_)), "{progress:?}");
}

#[test]
fn a_node_without_its_guard_is_given_the_time_of_a_start() {
    let (mut leases, state) = (leader(), held_by_two());
    leases.step(START, LeaseEvent::GuardDown);
    let mut goal = Goal::answers(web(), Some(NodeId(1)), Mono::ZERO);
    // The guard of a node that lives is started again at once; for so long it counts.
    let seen = START + Duration::from_secs(1);
    let for_good = seen + GUARD_APPEARS;
    let just_before = for_good - Duration::from_nanos(1);
    for now in [seen, just_before] {
        hears_two(&mut leases, now, Report { fitness: Fitness::Fit, ..Report::default() });
        let progress = look(&mut goal, now, &state, &mut leases);
        assert!(matches!(progress, Progress::Missing(_)), "{progress:?}");
    }
    let progress = look(&mut goal, for_good, &state, &mut leases);
    let Progress::Hopeless(Hopeless::NotThere(Refusal::CannotHold { name, .. })) = &progress else {
        panic!("{progress:?}")
    };
    assert_eq!(name.as_str(), "n1");
}

#[test]
fn what_claims_it_elsewhere_hinders_nobody_who_said_that_it_is_meant() {
    let (mut leases, mut state) = (leader(), held_by_two());
    let answered = || Some(Why::Answered(crate::Mac([2, 0, 0, 0, 0, 9])));
    for node in [1, 2] {
        apply(&mut state, obstacle(node, answered()));
    }
    let mut goal = Goal::answers(web(), None, Mono::ZERO);
    let progress = look(&mut goal, START, &state, &mut leases);
    assert!(matches!(progress, Progress::Hopeless(_)), "{progress:?}");
    let spec = crate::VipSpec { no_probe: true, ..vip("web", 100) };
    let seen = state.vip(WEB).expect("added").revision;
    apply(&mut state, VipOp::Set { spec, seen, guest: None });
    for node in [1, 2] {
        apply(&mut state, obstacle(node, answered()));
    }
    let progress = look(&mut goal, START, &state, &mut leases);
    assert!(matches!(progress, Progress::Missing(_)), "{progress:?}");
}

#[test]
fn a_node_is_relieved_when_what_it_held_is_certainly_silent() {
    let (mut leases, mut state) = (leader(), held_by_two());
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1)], nested: false });
    let mut goal = Goal::Relieved(NodeId(2));
    let Progress::Missing(text) = look(&mut goal, START, &state, &mut leases) else {
        panic!("it holds web")
    };
    assert_eq!(text, "it still holds web, and no other node can take over");
    let seen = state.vip(WEB).expect("added").epoch;
    let moves = vec![crate::Assignment { vip: WEB, seen, to: None, cause: crate::Cause::Drain }];
    apply(&mut state, VipOp::Assign { moves });
    // It has no holder, and may be answered for until the grant is over.
    let progress = look(&mut goal, START, &state, &mut leases);
    assert!(matches!(progress, Progress::Missing(_)), "{progress:?}");

    let (id, released) = (ReportId { run: 0, seq: 1 }, [grantee(1)].into());
    let report = Report { id, fitness: Fitness::Fit, released, ..Report::default() };
    hears_two(&mut leases, START, report);
    assert_eq!(look(&mut goal, START, &state, &mut leases), Progress::Holds);
}

#[test]
fn a_removed_vip_is_gone_when_its_last_holder_let_go() {
    let (mut leases, mut state) = (leader(), held_by_two());
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1)], nested: false });
    apply(&mut state, VipOp::Remove { name: web() });
    let mut goal = Goal::Gone(WEB, web());
    let Progress::Missing(text) = look(&mut goal, START, &state, &mut leases) else {
        panic!("it may still answer")
    };
    assert_eq!(text, "the last holder of web has not released it yet");
    let (id, released) = (ReportId { run: 0, seq: 1 }, [grantee(1)].into());
    let report = Report { id, fitness: Fitness::Fit, released, ..Report::default() };
    hears_two(&mut leases, START, report);
    assert_eq!(look(&mut goal, START, &state, &mut leases), Progress::Holds);

    // One that nobody was ever granted is gone at once.
    let mut state = held_by_two();
    apply(&mut state, VipOp::Remove { name: web() });
    assert_eq!(look(&mut goal, START, &state, &mut leases), Progress::Holds);
}
