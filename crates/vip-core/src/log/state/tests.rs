use super::*;
use crate::testing::{apply, move_to, state_of, vip, voter};
use crate::*;

fn command(op: impl Into<Op>) -> Command {
    Command { time_ms: 1, actor: Actor("root@n1".into()), term: None, op: op.into() }
}

fn node(name: &str) -> Name {
    name.parse().expect("valid")
}

fn vip_spec(name: &str, address: &str) -> VipSpec {
    VipSpec {
        name: node(name),
        addresses: vec![address.parse().expect("valid")],
        interface: None,
        placement: Placement::Leader,
        no_probe: false,
        via: crate::Via::default(),
        params: Default::default(),
    }
}

fn cluster() -> State {
    let mut state = State::default();
    state.enter(Term(1));
    let op = ClusterOp::Bootstrap {
        cluster: "c".into(),
        name: node("test"),
        profile: Profile::Lan,
        node: node("n1"),
        advertise: "10.0.0.1:7400".into(),
        spki: "s1".into(),
        issuer: "i".into(),
        runs: Runs::here(),
    };
    assert!(matches!(state.apply(1, &command(op)), Outcome::Admitted { .. }));
    state
}

fn done(state: &mut State, op: impl Into<Op>) {
    assert_eq!(state.apply(9, &command(op)), Outcome::Done);
}

fn secret() -> TokenSecret {
    TokenSecret::from_random([7; 32])
}

fn open_token(state: &mut State, id: &str, role: Role) -> TokenId {
    let id = TokenId(id.into());
    let verifier = secret().verifier();
    done(state, TokenOp::Create { id: id.clone(), verifier, role, expires_ms: 100, max_uses: 1 });
    id
}

fn admit(token: &TokenId, role: Role, name: &str, spki: &str) -> NodeOp {
    let name = node(name);
    let statement = join_statement("c", token, role, &name, "10.0.0.2:7400", spki);
    NodeOp::Admit {
        token: token.clone(),
        name,
        advertise: "10.0.0.2:7400".into(),
        spki: spki.into(),
        proof: secret().sign(&statement),
        runs: Runs::here(),
    }
}

#[test]
fn a_place_that_is_taken_admits_nobody_and_costs_no_token() {
    for (place, vip) in [("10.0.0.1:7400", false), ("10.0.0.100:7400", true)] {
        let mut state = cluster();
        done(&mut state, VipOp::Add { spec: vip_spec("web", "10.0.0.100/24") });
        let token = open_token(&mut state, "t", Role::Voter);
        let before = state.clone();
        let (name, spki) = (node("n2"), "s2".to_owned());
        let statement = join_statement("c", &token, Role::Voter, &name, place, &spki);
        let proof = secret().sign(&statement);
        let advertise = place.to_owned();
        let runs = Runs::here();
        let op = NodeOp::Admit { token, name, advertise, spki, proof, runs };
        let refused = state.apply(7, &command(op));
        let as_meant = match &refused {
            Outcome::Refused(Refusal::PlaceTaken { node, .. }) => !vip && node.as_str() == "n1",
            Outcome::Refused(Refusal::PlaceIsVip { vip: name, .. }) => {
                vip && name.as_str() == "web"
            }
            _ => false,
        };
        assert!(as_meant, "{refused:?}");
        assert_eq!(state, before);
    }
}

#[test]
fn a_token_admits_once_and_the_same_key_again() {
    let mut state = cluster();
    let token = open_token(&mut state, "t", Role::Voter);
    let first = state.apply(5, &command(admit(&token, Role::Voter, "n2", "s2")));
    assert_eq!(first, Outcome::Admitted { node: NodeId(2), role: Role::Voter, admitted: 5 });
    let again = state.apply(6, &command(admit(&token, Role::Voter, "n2", "s2")));
    assert_eq!(again, Outcome::Admitted { node: NodeId(2), role: Role::Voter, admitted: 6 });

    let before = state.clone();
    let second = state.apply(7, &command(admit(&token, Role::Voter, "n3", "s3")));
    let error = TokenError::Used;
    assert_eq!(second, Outcome::Refused(Refusal::Token { token, error }));
    assert_eq!(state, before);
}

#[test]
fn a_joiner_cannot_raise_its_role() {
    let mut state = cluster();
    let token = open_token(&mut state, "t", Role::Learner);
    let outcome = state.apply(5, &command(admit(&token, Role::Voter, "n2", "s2")));
    let error = TokenError::Proof;
    assert_eq!(outcome, Outcome::Refused(Refusal::Token { token, error }));
}

#[test]
fn whether_there_is_a_token_does_not_show_in_the_time_of_the_answer() {
    let mut state = cluster();
    let token = open_token(&mut state, "t", Role::Voter);
    let NodeOp::Admit { name, advertise, spki, proof, .. } =
        admit(&token, Role::Learner, "n2", "s2")
    else {
        panic!("an admission")
    };
    let unknown = TokenId("u".into());
    let time = |token: &TokenId| {
        let begin = std::time::Instant::now();
        let error = state.admission(0, token, &name, &advertise, &spki, &proof);
        (begin.elapsed(), error)
    };
    let (mut there, mut not): (Vec<_>, Vec<_>) = (vec![], vec![]);
    for _ in 0..301 {
        let ((took_there, error_there), (took_not, error_not)) = (time(&token), time(&unknown));
        assert_eq!(error_there, Err(TokenError::Proof));
        assert_eq!(error_not, Err(TokenError::Unknown));
        there.push(took_there);
        not.push(took_not);
    }
    there.sort_unstable();
    not.sort_unstable();
    assert!(not[150] * 2 > there[150], "{:?} against {:?}", not[150], there[150]);
}

#[test]
fn a_taken_name_is_refused_and_keeps_the_token_open() {
    let mut state = cluster();
    let token = open_token(&mut state, "t", Role::Voter);
    let outcome = state.apply(5, &command(admit(&token, Role::Voter, "n1", "s2")));
    assert!(matches!(outcome, Outcome::Refused(Refusal::NodeNameTaken { .. })));
    assert!(state.tokens[&token].used.is_empty());
}

#[test]
fn log_time_never_falls_so_a_token_cannot_come_back() {
    let mut state = cluster();
    let token = open_token(&mut state, "t", Role::Voter);
    let late = Command { time_ms: 200, ..command(TokenOp::Revoke { id: TokenId("x".into()) }) };
    state.apply(5, &late);
    let outcome = state.apply(6, &command(admit(&token, Role::Voter, "n2", "s2")));
    let error = TokenError::Expired;
    assert_eq!(outcome, Outcome::Refused(Refusal::Token { token, error }));
}

#[test]
fn a_removed_node_cannot_be_admitted_again_by_its_key() {
    let mut state = cluster();
    let token = open_token(&mut state, "t", Role::Voter);
    state.apply(5, &command(admit(&token, Role::Voter, "n2", "s2")));
    done(&mut state, NodeOp::Remove { node: NodeId(2) });
    let outcome = state.apply(7, &command(admit(&token, Role::Voter, "n2", "s2")));
    assert!(matches!(outcome, Outcome::Refused(Refusal::Token { .. })));
}

#[test]
fn the_last_voter_cannot_leave() {
    let mut state = cluster();
    let outcome = state.apply(5, &command(NodeOp::Leaving { node: NodeId(1), for_cause: false }));
    assert!(matches!(outcome, Outcome::Refused(Refusal::LastVoter { .. })));
}

#[test]
fn an_identical_vip_is_no_change_and_another_one_is_refused() {
    let mut state = cluster();
    let spec = vip_spec("web", "10.0.0.100/24");
    done(&mut state, VipOp::Add { spec: spec.clone() });
    assert_eq!(state.apply(9, &command(VipOp::Add { spec })), Outcome::Unchanged);
    let other = state.apply(9, &command(VipOp::Add { spec: vip_spec("web", "10.0.0.101/24") }));
    assert!(matches!(other, Outcome::Refused(Refusal::VipExists { .. })));
    let taken = state.apply(9, &command(VipOp::Add { spec: vip_spec("db", "10.0.0.100/32") }));
    assert!(matches!(taken, Outcome::Refused(Refusal::AddressTaken { .. })));
    let own = state.apply(9, &command(VipOp::Add { spec: vip_spec("db", "10.0.0.1/24") }));
    assert!(matches!(own, Outcome::Refused(Refusal::AddressOfNode { .. })));
}

fn assigned(state: &mut State) -> VipUid {
    done(state, VipOp::Add { spec: vip_spec("web", "10.0.0.100/24") });
    let vip = state.vip_named("web").expect("added").uid;
    let to = Some(NodeId(1));
    let moves = vec![Assignment { vip, seen: Epoch(0), to, cause: Cause::Created }];
    done(state, VipOp::Assign { moves });
    vip
}

#[test]
fn an_overtaken_assignment_changes_nothing() {
    let mut state = cluster();
    let vip = assigned(&mut state);
    let before = state.clone();
    let moves = vec![Assignment { vip, seen: Epoch(0), to: None, cause: Cause::Command }];
    let outcome = state.apply(9, &command(VipOp::Assign { moves }));
    assert!(matches!(outcome, Outcome::Refused(Refusal::EpochMoved { .. })));
    assert_eq!(state, before);
}

#[test]
fn a_release_counts_only_from_the_session_that_was_granted() {
    let mut state = cluster();
    let vip = assigned(&mut state);
    let mine = Grantee { vip, epoch: Epoch(1), incarnation: Incarnation(5) };
    let other = Grantee { incarnation: Incarnation(6), ..mine };

    done(&mut state, VipOp::Released { releases: vec![mine] });
    assert_eq!(state.vips[&vip].fenced, Epoch(0), "not settled: nobody knows");
    done(&mut state, VipOp::Settle { grants: vec![mine], nested: false });
    done(&mut state, VipOp::Settle { grants: vec![other], nested: true });
    assert_eq!(state.vips[&vip].bound(Epoch(1)), Some(Incarnation(5)));
    assert_eq!(state.vips[&vip].nested, None);
    done(&mut state, VipOp::Released { releases: vec![other] });
    assert_eq!(state.vips[&vip].fenced, Epoch(0));
    done(&mut state, VipOp::Released { releases: vec![mine] });
    assert_eq!(state.vips[&vip].fenced, Epoch(1));
}

#[test]
fn a_granted_epoch_answers_when_its_holder_said_so() {
    let mut state = cluster();
    let vip = assigned(&mut state);
    let grant = Grantee { vip, epoch: Epoch(1), incarnation: Incarnation(5) };
    let other = Grantee { incarnation: Incarnation(6), ..grant };
    done(&mut state, VipOp::Settle { grants: vec![grant], nested: false });
    let said = |state: &State| {
        let answers = |e: &&Arc<Event>| matches!(e.what, EventKind::Vip(VipEvent::Answers { .. }));
        (state.vips[&vip].answered, state.events.all().iter().filter(answers).count())
    };
    assert_eq!(said(&state), (Epoch(0), 0), "a grant is no answer");
    done(&mut state, VipOp::Answered { grants: vec![other] });
    assert_eq!(said(&state), (Epoch(0), 0), "nor is what another session says");
    for _ in 0..2 {
        done(&mut state, VipOp::Answered { grants: vec![grant] });
        assert_eq!(said(&state), (Epoch(1), 1));
    }
}

#[test]
fn a_conflict_is_an_event_once_and_goes_with_its_node() {
    let mut state = cluster();
    let uid = assigned(&mut state);
    let what = Conflict { ip: [10, 0, 0, 100].into(), mac: Mac([2, 0, 0, 0, 0, 9]) };
    let change = |node, what| ConflictChange { vip: uid, node: NodeId(node), what };
    for _ in 0..2 {
        done(&mut state, VipOp::Conflicts { changes: vec![change(1, Some(what))] });
    }
    let conflicts = |e: &&Arc<Event>| matches!(e.what, EventKind::Vip(VipEvent::Conflict { .. }));
    assert_eq!(state.events.all().iter().filter(conflicts).count(), 1);
    assert_eq!(state.conflicts[&uid], [(NodeId(1), what)].into());
    done(&mut state, VipOp::Conflicts { changes: vec![change(1, None), change(99, Some(what))] });
    assert_eq!(*state.conflicts, [].into());
}

#[test]
fn a_removed_vip_haunts_its_address_until_it_is_released() {
    let mut state = cluster();
    let vip = assigned(&mut state);
    let grant = Grantee { vip, epoch: Epoch(1), incarnation: Incarnation(5) };
    done(&mut state, VipOp::Settle { grants: vec![grant], nested: false });
    done(&mut state, VipOp::Remove { name: node("web") });
    let addresses = vip_spec("x", "10.0.0.100/32").addresses;
    assert_eq!(state.haunting(&addresses).count(), 1);
    done(&mut state, VipOp::Released { releases: vec![grant] });
    assert_eq!(state.haunting(&addresses).count(), 0);
}

#[test]
fn the_state_survives_a_snapshot() {
    let mut state = cluster();
    assigned(&mut state);
    let json = serde_json::to_string(&state).expect("serialises");
    assert_eq!(serde_json::from_str::<State>(&json).expect("reads"), state);
}

#[test]
fn a_node_has_left_once_it_is_out_of_raft_and_holds_nothing() {
    let mut state = testing::state_of([testing::voter(1), testing::voter(2)]);
    let (vip, holder) = (VipUid(1), NodeId(1));
    done(&mut state, VipOp::Add { spec: testing::vip("web", 100) });
    testing::move_to(&mut state, vip, holder.0);
    let nobody = BTreeSet::new();
    assert_eq!(state.left(&nobody), None, "it does not want to");
    done(&mut state, NodeOp::Leaving { node: holder, for_cause: false });
    assert_eq!(state.left(&nobody), None, "it holds a VIP");
    let moves = vec![Assignment { vip, seen: Epoch(1), to: None, cause: Cause::Drain }];
    done(&mut state, VipOp::Assign { moves });
    assert_eq!(state.left(&[holder].into()), None, "Raft knows it");
    assert_eq!(state.left(&nobody).map(|n| n.id), Some(holder));
}

/// A settlement of an earlier leadership would speak for a lease that it knows
/// nothing of.
#[test]
fn what_a_leader_decided_changes_nothing_in_another_term() {
    let mut state = state_of([voter(1)]);
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    move_to(&mut state, VipUid(1), 1);
    state.enter(Term(3));
    let grants = vec![Grantee { vip: VipUid(1), epoch: Epoch(1), incarnation: Incarnation(7) }];
    let settle = command(VipOp::Settle { grants, nested: true });
    let before = state.vip(VipUid(1)).cloned();
    let late = Command { term: Some(Term(2)), ..settle.clone() };
    let refusal = Refusal::OtherTerm { decided: Term(2), term: Term(3) };
    assert_eq!(state.apply(9, &late), Outcome::Refused(refusal));
    assert_eq!(state.vip(VipUid(1)).cloned(), before);
    let due = Command { term: Some(Term(3)), ..settle };
    assert_eq!(state.apply(10, &due), Outcome::Done);
    assert!(state.vip(VipUid(1)).is_some_and(|vip| vip.nested.is_some()));
}

/// Joins and leaves that nobody came to the end of, by what Raft and the log say.
#[test]
fn what_is_left_unfinished_is_found() {
    let mut state = state_of((1..=4).map(voter));
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    let (voters, learners) = (ids(&[1, 2]), ids(&[3]));
    let found = |node: Option<&Node>| node.map(|node| node.id);
    assert_eq!(found(state.late_join(u64::MAX, 0)), None);
    assert_eq!(found(state.half_left(&voters, &learners)), None);
    assert_eq!(found(state.voteless(&learners)), Some(NodeId(3)), "it is to stay");

    let mut set_state = |id, to| state.node_mut(NodeId(id)).expect("there").state = to;
    set_state(3, NodeState::Leaving);
    set_state(4, NodeState::Joining);
    assert_eq!(found(state.half_left(&voters, &learners)), Some(NodeId(3)));
    assert_eq!(found(state.half_left(&ids(&[1, 2, 3]), &ids(&[]))), None, "it votes still");
    assert_eq!(found(state.voteless(&ids(&[3, 4]))), None);
    assert_eq!(found(state.late_join(100, 100)), None);
    assert_eq!(found(state.late_join(101, 100)), Some(NodeId(4)));
}

/// Its entry is in the log all the same: whoever is to read that has to know it.
#[cfg(feature = "next-version")]
#[test]
fn what_a_refused_operation_needs_is_needed() {
    let mut state = cluster();
    assert_eq!(state.needs, Level::FIRST);
    done(&mut state, NodeOp::Mark { marks: [].into() });
    assert_eq!(state.needs, Level::HERE);
}

/// Of members that understand it not.
#[cfg(feature = "next-version")]
#[test]
fn what_a_member_does_not_understand_is_refused_with_its_name() {
    let mut state = cluster();
    let old = Node { runs: Runs::said(1, "0.1.0"), ..voter(2) };
    Arc::make_mut(&mut state.nodes).insert(old.id, old);
    let mark = NodeOp::Mark { marks: [].into() };
    let refused = Refusal::NotEverywhere { nodes: "n2 (0.1.0)".into() };
    assert_eq!(state.apply(9, &command(mark)), Outcome::Refused(refused));
    assert_eq!((state.understood(), state.needs), (Level::FIRST, Level::FIRST));
}

/// The lease thread wakes for what a lease depends on, whichever it is, and for nothing
/// else.
#[test]
fn what_leases_depend_on_is_told_from_the_rest() {
    fn touch<T: Clone>(subject: &mut Arc<T>) {
        Arc::make_mut(subject);
    }
    let state = cluster();
    let touched = |change: fn(&mut State)| {
        let mut other = state.clone();
        change(&mut other);
        other.same_for_leases(&state)
    };
    assert!(touched(|_| {}));
    let depended_on: [fn(&mut State); 9] = [
        |state| state.term = state.term.next(),
        |state| state.previous_term = state.previous_term.next(),
        |state| touch(&mut state.nodes),
        |state| touch(&mut state.tombstones),
        |state| touch(&mut state.vips),
        |state| touch(&mut state.retired),
        |state| touch(&mut state.obstacles),
        |state| touch(&mut state.conflicts),
        |state| touch(&mut state.cut_off),
    ];
    assert!(depended_on.iter().all(|change| !touched(*change)));
    assert!(touched(|state| touch(&mut state.tokens)));
    assert!(touched(|state| touch(&mut state.logins)));
    assert!(touched(|state| state.time_ms += 1));
}

/// Three members, and VIP `web`.
fn three() -> (State, VipUid) {
    let mut state = state_of([1, 2, 3].map(voter));
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    let uid = state.vip_named("web").expect("added").uid;
    (state, uid)
}

#[test]
fn a_vip_goes_only_to_who_may_hold_it() {
    let (mut state, uid) = three();
    state.node_mut(NodeId(2)).expect("there").role = Role::Witness;
    apply(&mut state, NodeOp::Drain { node: NodeId(3), drained: true });
    for (to, reason) in [(2, "it is a witness"), (3, "it is drained"), (9, "there is no node 9")] {
        let to = Some(NodeId(to));
        let moves = vec![Assignment { vip: uid, seen: Epoch(0), to, cause: Cause::Command }];
        for op in [VipOp::Assign { moves }, VipOp::Pin { name: node("web"), to }] {
            let before = state.clone();
            let refusal = state.apply(9, &command(op)).accepted().expect_err("refused");
            assert!(refusal.to_string().contains(reason), "{refusal}");
            assert_eq!(state.vips, before.vips);
        }
    }
}

#[test]
fn a_pin_is_said_once_and_ends_with_its_node_alone() {
    let (mut state, uid) = three();
    let pin = VipOp::Pin { name: node("web"), to: Some(NodeId(2)) };
    done(&mut state, pin.clone());
    assert_eq!(state.apply(9, &command(pin.clone())), Outcome::Unchanged);
    let pinned = |state: &State| state.vip(uid).and_then(|vip| vip.pinned);
    done(&mut state, NodeOp::Drain { node: NodeId(3), drained: true });
    assert_eq!(pinned(&state), Some(NodeId(2)));
    done(&mut state, NodeOp::Drain { node: NodeId(2), drained: true });
    assert_eq!(pinned(&state), None);
    done(&mut state, NodeOp::Drain { node: NodeId(2), drained: false });
    done(&mut state, pin);
    done(&mut state, NodeOp::Remove { node: NodeId(2) });
    assert_eq!(pinned(&state), None);
}

#[test]
fn what_a_node_says_of_vips_goes_with_it() {
    let (mut state, uid) = three();
    let ip = [10, 0, 0, 100].into();
    let why = Some(Obstacle { ip, why: Why::NoLink });
    for node in [2, 3].map(NodeId) {
        let changes = vec![ObstacleChange { vip: uid, node, why: why.clone() }];
        done(&mut state, VipOp::Obstacles { changes });
        let what = Some(Conflict { ip, mac: Mac([2; 6]) });
        done(
            &mut state,
            VipOp::Conflicts { changes: vec![ConflictChange { vip: uid, node, what }] },
        );
    }
    let vip = state.vip(uid).expect("there").clone();
    let hindered = state.hindrance(&vip, NodeId(2)).map(|why| why.to_string());
    assert!(hindered.is_some_and(|why| why.contains("n2") && why.contains("no link")));
    done(&mut state, NodeOp::Remove { node: NodeId(2) });
    let said: Vec<_> = state.obstacles[&uid].keys().chain(state.conflicts[&uid].keys()).collect();
    assert_eq!(said, [&NodeId(3), &NodeId(3)]);
    assert_eq!(state.hindrance(&vip, NodeId(2)), None);
}

#[test]
fn a_member_that_joins_is_active_once() {
    let (mut state, _) = three();
    state.node_mut(NodeId(3)).expect("there").state = NodeState::Joining;
    done(&mut state, NodeOp::Activate { node: NodeId(3) });
    assert_eq!(state.apply(9, &command(NodeOp::Activate { node: NodeId(3) })), Outcome::Unchanged);
}

#[test]
fn a_version_that_understands_too_little_is_not_admitted() {
    for (level, is_admitted) in [(1, false), (2, true), (3, true)] {
        let mut state = cluster();
        let token = open_token(&mut state, "t", Role::Voter);
        state.needs = Level(2);
        let NodeOp::Admit { token, name, advertise, spki, proof, .. } =
            admit(&token, Role::Voter, "n2", "s2")
        else {
            panic!("an admission");
        };
        let runs = Runs { level: Level(level), version: "x".into() };
        let op = NodeOp::Admit { token, name, advertise, spki, proof, runs };
        let outcome = state.apply(7, &command(op));
        assert_eq!(matches!(outcome, Outcome::Admitted { .. }), is_admitted, "{outcome:?}");
    }
}

/// A day after its end nobody asks for it any more.
#[test]
fn a_token_is_listed_for_a_day_after_its_end() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    for (later, is_listed) in [(DAY_MS - 1, true), (DAY_MS, false)] {
        let mut state = cluster();
        let old = open_token(&mut state, "t", Role::Voter);
        let new = TokenOp::Create {
            id: TokenId("u".into()),
            verifier: secret().verifier(),
            role: Role::Voter,
            expires_ms: 2 * DAY_MS,
            max_uses: 1,
        };
        // The first one is good until 100.
        state.apply(9, &Command { time_ms: 100 + later, ..command(new) });
        assert_eq!(state.tokens.contains_key(&old), is_listed);
    }
}

#[test]
fn vips_are_listed_by_name_and_the_profile_is_the_clusters() {
    let (mut state, _) = three();
    apply(&mut state, VipOp::Add { spec: vip("app", 101) });
    let names: Vec<_> = state.vips_by_name().iter().map(|vip| vip.spec.name.to_string()).collect();
    assert_eq!(names, ["app", "web"]);
    let mut state = cluster();
    let cluster = state.cluster.as_mut().map(Arc::make_mut).expect("there");
    cluster.profile = Profile::Fast;
    assert_eq!((state.profile(), State::default().profile()), (Profile::Fast, Profile::Lan));
}

/// An epoch that ended is over for good, also in the words of who was granted it.
#[test]
fn what_has_ended_is_neither_settled_nor_nested_again() {
    let (mut state, uid) = three();
    move_to(&mut state, uid, 1);
    let grant = |epoch| Grantee { vip: uid, epoch: Epoch(epoch), incarnation: Incarnation(7) };
    let settle = |epoch, nested| VipOp::Settle { grants: vec![grant(epoch)], nested };
    done(&mut state, settle(9, true));
    assert_eq!(state.vip(uid).expect("there").settled, None, "nobody assigned that");
    done(&mut state, settle(1, false));
    let settled = Settled { epoch: Epoch(1), incarnation: Incarnation(7), node: NodeId(1) };
    assert_eq!(state.vip(uid).expect("there").settled, Some(settled));
    done(&mut state, VipOp::Released { releases: vec![grant(1)] });
    done(&mut state, settle(1, true));
    assert_eq!(state.vip(uid).expect("there").nested, None);
}

/// Every epoch that had it ended before the next one was granted.
#[test]
fn an_address_that_was_given_up_is_free_once_the_next_epoch_is_granted() {
    let (mut state, uid) = three();
    move_to(&mut state, uid, 1);
    let grant = |epoch| Grantee { vip: uid, epoch: Epoch(epoch), incarnation: Incarnation(7) };
    done(&mut state, VipOp::Settle { grants: vec![grant(1)], nested: false });
    done(&mut state, VipOp::Set { spec: vip("web", 105), seen: 0, guest: None });
    let dropped = |state: &State| state.vip(uid).map_or(0, |vip| vip.dropped.len());
    assert_eq!(dropped(&state), 1);
    let again = command(VipOp::Add { spec: vip("other", 100) });
    assert!(matches!(
        state.clone().apply(9, &again),
        Outcome::Refused(Refusal::AddressLeaving { .. })
    ));
    done(&mut state, VipOp::Settle { grants: vec![grant(2)], nested: false });
    assert_eq!(dropped(&state), 0);
    assert_eq!(state.apply(9, &again), Outcome::Done);
}

/// An earlier version reads what has nothing of a later one.
#[test]
fn what_nobody_used_is_not_in_the_log() {
    let text = serde_json::to_string(&State::default()).expect("written");
    for absent in ["servers", "hindrances", "cut_off", "marks"] {
        assert!(!text.contains(absent), "{text}");
    }
}
