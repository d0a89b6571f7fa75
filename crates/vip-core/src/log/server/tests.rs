use super::*;
use crate::testing::{apply, server as spec, state_of, vip, voter};
use crate::{
    Actor, Command, Node, NodeId, NodeOp, NodeState, Op, Ports, Protocol, RealServer, Role, Runs,
    Scheduler, Term, VipOp, VipSpec,
};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn real(text: &str) -> RealSpec {
    text.parse().expect("a real server")
}

fn place(text: &str) -> RealPlace {
    let RealSpec { ip, port, .. } = real(text);
    RealPlace { ip, port }
}

/// Three members, and two VIPs.
fn state() -> State {
    let mut state = state_of([1, 2, 3].map(voter));
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    apply(&mut state, VipOp::Add { spec: vip("other", 101) });
    state
}

fn said(state: &mut State, op: impl Into<Op>) -> Result<Outcome, String> {
    let before = state.clone();
    let command = Command { time_ms: 1, actor: Actor("test".into()), term: None, op: op.into() };
    let outcome = state.apply(7, &command).accepted();
    if let Err(refusal) = outcome {
        let needs = state.needs;
        assert_eq!(
            *state,
            State { needs, time_ms: state.time_ms, ..before },
            "it changed something"
        );
        return Err(refusal.to_string());
    }
    Ok(outcome.expect("accepted"))
}

fn refused(state: &mut State, op: impl Into<Op>) -> String {
    said(state, op).expect_err("refused")
}

fn with(spec: &ServerSpec) -> State {
    let mut state = state();
    apply(&mut state, ServerOp::Add { spec: spec.clone() });
    state
}

fn server<'a>(state: &'a State, name: &str) -> &'a Server {
    state.server_named(name).expect("there")
}

fn front(state: &State) -> &Server {
    server(state, "front")
}

fn add(spec: ServerSpec) -> ServerOp {
    ServerOp::Add { spec }
}

fn weights(reals: &[RealServer]) -> Vec<(String, u16, u16)> {
    reals.iter().map(|real| (real.ip.to_string(), real.port, real.weight)).collect()
}

#[test]
fn what_is_decided_once_stands_in_the_log() {
    let state = with(&spec(&["10.0.0.12@3", "10.0.0.11"]));
    let front = front(&state);
    assert_eq!((front.forward, front.table_size), (Forward::Dr, TableSize::Usual));
    assert_eq!(front.seed, crate::mix::mix_all(1, [front.uid.0]));
    let plan = front.plan().expect("a plan");
    let expected = [("10.0.0.11".into(), 0, 1), ("10.0.0.12".into(), 0, 3)];
    assert_eq!(weights(plan.reals()), expected);
    assert_eq!(front.plan_before(), Ok(None));
    assert_eq!(state.needs, Level::SERVERS);
    let many: Vec<_> = (0..151).map(|n| format!("10.0.0.{}:{}", 11 + n % 80, 80)).collect();
    let many: Vec<_> = many
        .iter()
        .zip(0..)
        .map(|(real, n)| real.replace(":80", &format!(":{}", 8000 + n)))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(self::front(&with(&spec(&many))).table_size, TableSize::Large);
    let small = ServerSpec { table_size: Some(TableSize::Small), ..spec(&["10.0.0.11"]) };
    assert_eq!(self::front(&with(&small)).table_size, TableSize::Small);
}

#[test]
fn auto_is_direct_routing_where_it_can_be() {
    for (reals, forward) in [
        (&["10.0.0.11", "10.0.0.12:80"][..], Forward::Dr),
        (&["10.0.0.11", "10.0.0.12:8080"], Forward::Nat),
        (&["10.0.0.11", "10.0.1.12"], Forward::Nat),
    ] {
        assert_eq!(front(&with(&spec(reals))).forward, forward, "{reals:?}");
    }
    let nat = ServerSpec { forward: Forward::Nat, ..spec(&["10.0.0.11"]) };
    assert_eq!(front(&with(&nat)).forward, Forward::Nat);
    let dr = ServerSpec { forward: Forward::Dr, ..spec(&["10.0.1.11"]) };
    assert!(refused(&mut state(), add(dr)).contains("not on the subnet of 10.0.0.100/24"));
    // What was decided is held to, also by what is added to it later.
    let mut state = with(&spec(&["10.0.0.11"]));
    let far = ServerOp::AddReal { server: name("front"), real: real("10.0.1.12") };
    assert!(refused(&mut state, far).contains("use --forward nat"));
    let other = ServerOp::AddReal { server: name("front"), real: real("10.0.0.12:81") };
    assert!(refused(&mut state, other).contains("dr leaves the port as it is"));
}

#[test]
fn the_same_again_changes_nothing_and_another_of_that_name_is_refused() {
    let mut state = with(&spec(&["10.0.0.12", "10.0.0.11"]));
    for same in [&["10.0.0.12", "10.0.0.11"], &["10.0.0.11:80", "10.0.0.12"]] {
        assert_eq!(said(&mut state, add(spec(same))), Ok(Outcome::Unchanged), "{same:?}");
    }
    for other in [
        spec(&["10.0.0.11"]),
        spec(&["10.0.0.11", "10.0.0.12@2"]),
        spec(&["10.0.0.11", "10.0.0.13"]),
        ServerSpec { protocol: Protocol::Udp, ..spec(&["10.0.0.11", "10.0.0.12"]) },
    ] {
        assert!(refused(&mut state, add(other)).contains("exists already"));
    }
}

#[test]
fn ports_of_a_vip_are_one_virtual_servers() {
    let other = |ports: &str, protocol, vip: &str, real: &str| ServerSpec {
        name: name("second"),
        ports: ports.parse().expect("ports"),
        protocol,
        vip: name(vip),
        ..spec(&[real])
    };
    let clashes = |there: &str, ports: &str, protocol, vip: &str| {
        let ports_there = there.parse().expect("ports");
        let mut state = with(&ServerSpec { ports: ports_there, ..spec(&["10.0.0.11"]) });
        said(&mut state, add(other(ports, protocol, vip, "10.0.0.11"))).is_err()
    };
    assert!(clashes("80", "80", Protocol::Tcp, "web"));
    assert!(
        clashes("80", "any", Protocol::Tcp, "web") && clashes("70-90", "80", Protocol::Tcp, "web")
    );
    assert!(!clashes("80", "81", Protocol::Tcp, "web"));
    assert!(!clashes("80", "80", Protocol::Udp, "web"));
    assert!(!clashes("80", "80", Protocol::Tcp, "other"));
    // Of both families each has its own.
    let mut state = state();
    let both = ["10.0.0.103/24", "fd00::103/64"].map(|text| text.parse().expect("an address"));
    let both = VipSpec { addresses: both.into(), ..vip("both", 103) };
    apply(&mut state, VipOp::Add { spec: both });
    apply(&mut state, add(other("80", Protocol::Tcp, "both", "10.0.0.11")));
    let v6 = ServerSpec { name: name("v6"), ..other("80", Protocol::Tcp, "both", "fd00::11") };
    assert_eq!(said(&mut state, add(v6)), Ok(Outcome::Done));
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let mut state = state();
    let addresses =
        ["10.0.0.103/24", "10.0.0.104/24"].map(|text| text.parse().expect("an address"));
    let two = VipSpec { addresses: addresses.into(), ..vip("two", 103) };
    apply(&mut state, VipOp::Add { spec: two });
    let on_two = |reals: &[&str]| ServerSpec { vip: name("two"), ..spec(reals) };
    for (spec, reason) in [
        (ServerSpec { vip: name("none"), ..spec(&["10.0.0.11"]) }, "there is no VIP none"),
        (spec(&["10.0.0.11", "10.0.0.101"]), "10.0.0.101 is an address of VIP other"),
        (spec(&["fd00::11"]), "VIP web has no IPv6 address, and the real server fd00::11 has one"),
        (on_two(&["10.0.1.11"]), "VIP two has several IPv4 addresses"),
        (spec(&[]), "names no real server"),
        (ServerSpec { scheduler: Scheduler::Rr, ..spec(&["10.0.0.11"]) }, "engine ipvs"),
    ] {
        let refusal = refused(&mut state, add(spec));
        assert!(refusal.contains(reason), "{refusal}");
    }
    assert_eq!(said(&mut state, add(on_two(&["10.0.0.11"]))), Ok(Outcome::Done), "dr needs none");
}

/// A reply is rewritten by its source alone.
#[test]
fn one_port_of_a_real_server_is_behind_one_virtual_server_by_nat() {
    let mut state = with(&spec(&["10.0.0.11:8080"]));
    let second = |reals: &[&str], ports: &str| ServerSpec {
        name: name("second"),
        ports: ports.parse().expect("ports"),
        forward: Forward::Nat,
        vip: name("other"),
        ..spec(reals)
    };
    let refusal = refused(&mut state, add(second(&["10.0.0.11:8080"], "80")));
    assert!(refusal.contains("behind virtual server front by NAT already"), "{refusal}");
    refused(&mut state, add(second(&["10.0.0.11"], "8000-9000")));
    for fine in [
        second(&["10.0.0.11:8081"], "80"),
        second(&["10.0.0.11"], "9000-9999"),
        ServerSpec { protocol: Protocol::Udp, ..second(&["10.0.0.11:8080"], "80") },
        ServerSpec { forward: Forward::Dr, ..second(&["10.0.0.11"], "8080") },
    ] {
        assert_eq!(said(&mut state.clone(), add(fine)), Ok(Outcome::Done));
    }
}

#[test]
fn a_vip_stays_while_it_has_virtual_servers_and_takes_no_real_servers_address() {
    let mut state = with(&spec(&["10.0.0.11"]));
    let refusal = refused(&mut state, VipOp::Remove { name: name("web") });
    assert!(refusal.contains("remove front first"), "{refusal}");
    let taken = refused(&mut state, VipOp::Add { spec: vip("third", 11) });
    assert!(taken.contains("10.0.0.11 is a real server of virtual server front"), "{taken}");
    let set = |last| VipOp::Set { spec: vip("web", last), seen: 0, guest: None };
    refused(&mut state, set(11));
    let elsewhere = ["10.7.0.100/24".parse().expect("an address")];
    let elsewhere = VipSpec { addresses: elsewhere.into(), ..vip("web", 100) };
    let moved = VipOp::Set { spec: elsewhere, seen: 0, guest: None };
    assert!(refused(&mut state, moved).contains("not on the subnet"));
    assert_eq!(said(&mut state, set(105)), Ok(Outcome::Done));
    assert_eq!(said(&mut state, VipOp::Remove { name: name("other") }), Ok(Outcome::Done));
    apply(&mut state, ServerOp::Remove { name: name("front") });
    assert_eq!(said(&mut state, VipOp::Remove { name: name("web") }), Ok(Outcome::Done));
    assert!(refused(&mut state, ServerOp::Remove { name: name("front") }).contains("there is no"));
}

fn of_front(state: &mut State, op: impl FnOnce(Name) -> ServerOp) -> Result<Outcome, String> {
    said(state, op(name("front")))
}

#[test]
fn each_change_of_real_servers_is_a_table_and_the_oldest_stays_the_one_before() {
    let mut state = with(&spec(&["10.0.0.11", "10.0.0.12"]));
    let first = front(&state).plan().expect("a plan");
    let drain = |real: &str, drained| {
        let place = place(real);
        move |server| ServerOp::DrainReal { server, place, drained }
    };
    assert_eq!(of_front(&mut state, drain("10.0.0.11:80", true)), Ok(Outcome::Done));
    assert_eq!(of_front(&mut state, drain("10.0.0.11", true)), Ok(Outcome::Unchanged));
    let drained = front(&state);
    assert_eq!(drained.generation, Generation(2));
    assert_eq!(drained.plan_before(), Ok(Some(first.clone())));
    let now = drained.plan().expect("a plan");
    assert_eq!(weights(now.reals()), [("10.0.0.11".into(), 0, 0), ("10.0.0.12".into(), 0, 1)]);

    let real_13 = real("10.0.0.13@5");
    let added = |server| ServerOp::AddReal { server, real: real_13 };
    assert_eq!(of_front(&mut state, added), Ok(Outcome::Done));
    assert_eq!(of_front(&mut state, added), Ok(Outcome::Unchanged));
    let heavier = of_front(&mut state, |server| ServerOp::AddReal {
        server,
        real: RealSpec { weight: 6, ..real_13 },
    });
    assert!(heavier.expect_err("refused").contains("set-weight"));
    let weigh =
        |weight| move |server| ServerOp::WeighReal { server, place: place("10.0.0.13"), weight };
    assert_eq!(of_front(&mut state, weigh(6)), Ok(Outcome::Done));
    assert_eq!(of_front(&mut state, weigh(6)), Ok(Outcome::Unchanged));
    assert!(of_front(&mut state, weigh(257)).expect_err("refused").contains("weights are"));
    let remove = |real: &str| {
        let place = place(real);
        move |server| ServerOp::RemoveReal { server, place }
    };
    assert_eq!(of_front(&mut state, remove("10.0.0.11")), Ok(Outcome::Done));
    assert!(of_front(&mut state, remove("10.0.0.11")).expect_err("gone").contains("10.0.0.11"));
    assert_eq!(of_front(&mut state, remove("10.0.0.12")), Ok(Outcome::Done));
    assert!(of_front(&mut state, remove("10.0.0.13")).expect_err("the last").contains("the only"));
    let end = front(&state);
    assert_eq!((end.generation, end.revision), (Generation(6), 5));
    assert_eq!(end.plan_before(), Ok(Some(first)), "connections are of that one still");
    assert_eq!(weights(end.plan().expect("a plan").reals()), [("10.0.0.13".into(), 0, 6)]);
}

#[test]
fn the_table_before_goes_after_its_time_or_when_its_connections_have() {
    let mut state = with(&spec(&["10.0.0.11", "10.0.0.12"]));
    assert_eq!(state.retirements(u64::MAX), []);
    let uid = front(&state).uid;
    let change = |state: &mut State, time_ms, drained| {
        let op = ServerOp::DrainReal { server: name("front"), place: place("10.0.0.11"), drained };
        let command = Command { time_ms, actor: Actor("test".into()), term: None, op: op.into() };
        assert_eq!(state.apply(1, &command), Outcome::Done);
    };
    change(&mut state, 1_000, true);
    change(&mut state, 5_000, false);
    let due = 5_000 + RETIRE_AFTER_MS;
    assert_eq!(state.retirements(due - 1), [], "the last change counts");
    let retire = ServerOp::Retire { server: uid, seen: Generation(3) };
    assert_eq!(state.retirements(due), std::slice::from_ref(&retire));
    let overtaken = ServerOp::Retire { server: uid, seen: Generation(2) };
    assert_eq!(said(&mut state, overtaken), Ok(Outcome::Unchanged));
    assert!(front(&state).before.is_some());
    assert_eq!(said(&mut state, retire.clone()), Ok(Outcome::Done));
    assert_eq!((&front(&state).before, front(&state).generation), (&None, Generation(4)));
    assert_eq!(said(&mut state, retire), Ok(Outcome::Unchanged));
    assert_eq!(state.retirements(u64::MAX), []);
}

/// Nobody was sent anywhere.
#[test]
fn a_table_of_nobody_is_not_kept() {
    let mut state = with(&spec(&["10.0.0.11@0"]));
    let weigh = |server| ServerOp::WeighReal { server, place: place("10.0.0.11"), weight: 1 };
    assert_eq!(of_front(&mut state, weigh), Ok(Outcome::Done));
    assert_eq!((&front(&state).before, front(&state).generation), (&None, Generation(2)));
}

#[test]
fn what_is_set_keeps_what_was_decided_and_who_is_drained() {
    let mut state = with(&spec(&["10.0.0.11", "10.0.0.12"]));
    let drain =
        ServerOp::DrainReal { server: name("front"), place: place("10.0.0.11"), drained: true };
    apply(&mut state, drain);
    let set = |spec: ServerSpec, seen| ServerOp::Set { spec, seen };
    let wanted = spec(&["10.0.0.11@4", "10.0.0.13"]);
    assert!(refused(&mut state, set(wanted.clone(), 0)).contains("changed meanwhile"));
    let larger = ServerSpec { table_size: Some(TableSize::Large), ..wanted.clone() };
    assert!(refused(&mut state, set(larger, 1)).contains("16381 slots"));
    let before = front(&state).clone();
    assert_eq!(said(&mut state, set(wanted.clone(), 1)), Ok(Outcome::Done));
    let after = front(&state);
    assert_eq!(
        (after.seed, after.table_size, after.uid),
        (before.seed, before.table_size, before.uid)
    );
    let drained: Vec<_> = after.reals.iter().map(|real| (real.spec, real.drained)).collect();
    assert_eq!(drained, [(real("10.0.0.11@4"), true), (real("10.0.0.13"), false)]);
    assert_eq!((after.spec.reals.len(), before.spec.reals.len()), (0, 0), "they stand apart");
    let mut elsewhere = state.clone();
    let other = ServerSpec { vip: name("other"), ..wanted.clone() };
    assert_eq!(said(&mut elsewhere, set(other, 2)), Ok(Outcome::Done));
    let moved = elsewhere.vip_named("other").map(|vip| vip.uid);
    assert_eq!(Some(front(&elsewhere).vip), moved);
    assert_eq!(said(&mut state, set(wanted.clone(), 2)), Ok(Outcome::Unchanged));
    // By name, where it was decided otherwise.
    let nat = ServerSpec { forward: Forward::Nat, ..wanted };
    assert_eq!(said(&mut state, set(nat, 2)), Ok(Outcome::Done));
    assert_eq!(front(&state).forward, Forward::Nat);
    let unknown = ServerSpec { name: name("none"), ..spec(&["10.0.0.11"]) };
    assert!(refused(&mut state, set(unknown, 0)).contains("there is no virtual server none"));
}

fn nodes_spec() -> ServerSpec {
    ServerSpec { ports: "6443".parse().expect("ports"), real_nodes: Some(6443), ..spec(&[]) }
}

/// Its replies would go past the holder, with its own address.
#[test]
fn a_member_is_no_real_server_by_nat() {
    let mut state = state_of([1, 2].map(voter));
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    for (reals, forward) in
        [(&["10.0.0.2:81"][..], Forward::Auto), (&["10.0.0.9", "10.0.0.2"], Forward::Nat)]
    {
        let spec = ServerSpec { forward, ..spec(reals) };
        assert!(refused(&mut state, add(spec)).contains("10.0.0.2 is the member n2"));
    }
    apply(&mut state, add(spec(&["10.0.0.2"])));
    assert_eq!(front(&state).forward, Forward::Dr);
    let set = ServerSpec { forward: Forward::Nat, ..spec(&["10.0.0.2"]) };
    assert!(refused(&mut state, ServerOp::Set { spec: set, seen: 0 }).contains("the member n2"));
}

#[test]
fn members_are_real_servers_as_long_as_they_are_members() {
    let mut known = [1, 2, 3, 4, 5].map(voter);
    known[2].role = Role::Witness;
    known[3].state = NodeState::Joining;
    known[4].advertise = "192.0.2.5:7400".into();
    let mut state = state_of(known);
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    apply(&mut state, add(nodes_spec()));
    let reals = |state: &State| weights(front(state).plan().expect("a plan").reals());
    let of = |last: u8, weight| (format!("10.0.0.{last}"), 0, weight);
    assert_eq!(reals(&state), [of(1, 1), of(2, 1)]);
    apply(&mut state, NodeOp::Activate { node: NodeId(4) });
    assert_eq!(reals(&state), [of(1, 1), of(2, 1), of(4, 1)]);
    apply(&mut state, NodeOp::Drain { node: NodeId(2), drained: true });
    assert_eq!(reals(&state), [of(1, 1), of(2, 0), of(4, 1)], "it keeps its connections");
    apply(&mut state, NodeOp::Remove { node: NodeId(4) });
    assert_eq!(reals(&state), [of(1, 1), of(2, 0)]);
    assert_eq!(front(&state).generation, Generation(4));
    let by_hand = [
        ServerOp::AddReal { server: name("front"), real: real("10.0.0.11:6443") },
        ServerOp::RemoveReal { server: name("front"), place: place("10.0.0.1") },
        ServerOp::DrainReal { server: name("front"), place: place("10.0.0.1"), drained: true },
        ServerOp::WeighReal { server: name("front"), place: place("10.0.0.1"), weight: 2 },
    ];
    for op in by_hand {
        assert!(refused(&mut state, op).contains("the members of the cluster"));
    }
    assert_eq!(said(&mut state, add(nodes_spec())), Ok(Outcome::Unchanged));
    // Nobody is where the VIP is.
    let mut elsewhere = state_of([Node { advertise: "192.0.2.5:7400".into(), ..voter(1) }]);
    apply(&mut elsewhere, VipOp::Add { spec: vip("web", 100) });
    let refusal = refused(&mut elsewhere, add(nodes_spec()));
    assert!(refusal.contains("no member has an address in the subnet"), "{refusal}");
}

#[test]
fn members_of_an_older_version_come_first() {
    let mut state = state();
    if let Some(node) = state.node_mut(NodeId(2)) {
        node.runs = Runs { level: Level::FIRST, version: "0.0.9".into() };
    }
    let refusal = refused(&mut state, add(spec(&["10.0.0.11"])));
    assert!(refusal.contains("upgrade vipd on n2"), "{refusal}");
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut state = state();
    let mut full = with(&spec(&["10.0.0.11"]));
    let there = full.servers.values().next().cloned().expect("one");
    let many = (1..MAX_SERVERS as u64).map(|n| {
        let uid = ServerUid(1000 + n);
        let spec = ServerSpec { name: name(&format!("s{n}")), ..there.spec.clone() };
        (uid, Arc::new(Server { uid, spec, ..Server::clone(&there) }))
    });
    Arc::make_mut(&mut full.servers).extend(many);
    let one_more = ServerSpec {
        name: name("more"),
        ports: "81".parse().expect("ports"),
        ..spec(&["10.0.0.12"])
    };
    assert!(refused(&mut full, add(one_more.clone())).contains("4000 virtual servers"));
    let thousand: Vec<_> = (0..1000_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            let spec = RealSpec { ip: [10, 9, high, low].into(), port: None, weight: 1 };
            Real::new(spec, false)
        })
        .collect();
    let there = (1..=14_u16).map(|n| {
        let uid = ServerUid(n.into());
        let ports: Ports = (1000 + n).to_string().parse().expect("ports");
        let spec = ServerSpec { name: name(&format!("s{n}")), ports, ..one_more.clone() };
        let server = Server {
            uid,
            spec,
            forward: Forward::Dr,
            reals: thousand.clone(),
            ..Server::clone(&there)
        };
        (uid, Arc::new(server))
    });
    Arc::make_mut(&mut state.servers).extend(there);
    state.next_server = 14;
    assert!(refused(&mut state, add(one_more)).contains("14000 real servers"));
}

#[test]
fn what_the_log_says_is_written_and_read_as_it_is() {
    let mut state = with(&spec(&["10.0.0.11", "10.0.0.12:80@3"]));
    let drain =
        ServerOp::DrainReal { server: name("front"), place: place("10.0.0.11"), drained: true };
    apply(&mut state, drain);
    let text = serde_json::to_string(&state).expect("text");
    assert_eq!(serde_json::from_str::<State>(&text).ok(), Some(state));
    let none = serde_json::to_string(&self::state()).expect("text");
    assert!(!none.contains("server"), "an older version reads it");
}

/// A leadership says nothing of it: it is a person's.
#[test]
fn a_late_leaders_retirement_is_void() {
    let mut state = with(&spec(&["10.0.0.11", "10.0.0.12"]));
    let op = ServerOp::Retire { server: front(&state).uid, seen: Generation(1) };
    let command =
        Command { time_ms: 1, actor: Actor("l".into()), term: Some(Term(9)), op: op.into() };
    assert!(state.apply(9, &command).accepted().is_err());
}

/// Who was on port 80 is where it was on 80 and 81.
#[test]
fn another_port_for_clients_moves_no_connection() {
    let mut state = with(&spec(&["10.0.0.11", "10.0.0.12:80"]));
    let plan = front(&state).plan().expect("a plan");
    let ports = "80-81".parse().expect("ports");
    let more = ServerSpec { ports, ..spec(&["10.0.0.11", "10.0.0.12"]) };
    apply(&mut state, ServerOp::Set { spec: more, seen: 0 });
    assert_eq!((front(&state).plan().expect("a plan"), &front(&state).before), (plan, &None));
    // What real servers have of their own is another matter.
    let own = ServerSpec { forward: Forward::Nat, ..spec(&["10.0.0.11:8080", "10.0.0.12"]) };
    let old = front(&state).plan().expect("a plan");
    apply(&mut state, ServerOp::Set { spec: own, seen: 1 });
    assert_eq!(front(&state).plan_before(), Ok(Some(old)));
    let reals = weights(front(&state).plan().expect("a plan").reals());
    assert_eq!(reals, [("10.0.0.11".into(), 8080, 1), ("10.0.0.12".into(), 0, 1)]);
}

#[test]
fn members_behind_one_port_are_of_one_family_and_each_address_is_there_once() {
    let at = |id, advertise: &str| Node { advertise: advertise.into(), ..voter(id) };
    let nodes = [
        at(1, "10.0.0.1:7400"),
        at(2, "[fd00::2]:7400"),
        at(3, "10.0.0.1:7401"),
        at(4, "10.0.0.4:7400"),
    ];
    let mut state = state_of(nodes);
    let addresses = ["10.0.0.100/24", "fd00::100/64"].map(|text| text.parse().expect("an address"));
    let both = VipSpec { addresses: addresses.into(), ..vip("web", 100) };
    apply(&mut state, VipOp::Add { spec: both });
    apply(&mut state, add(nodes_spec()));
    let reals = weights(front(&state).plan().expect("a plan").reals());
    assert_eq!(reals, [("10.0.0.1".into(), 0, 1), ("10.0.0.4".into(), 0, 1)]);
}

#[test]
fn what_members_cannot_be_is_refused_also_of_one_that_is_there() {
    let mut state =
        with(&ServerSpec { ports: "6443".parse().expect("ports"), ..spec(&["10.0.0.11:8080"]) });
    assert_eq!(front(&state).forward, Forward::Nat);
    let set = |spec, seen| ServerOp::Set { spec, seen };
    assert!(refused(&mut state, set(nodes_spec(), 0)).contains("needs dr"));
    let by_dr = ServerSpec { forward: Forward::Dr, ..nodes_spec() };
    assert_eq!(said(&mut state, set(by_dr, 0)), Ok(Outcome::Done));
    let mut elsewhere = state_of([Node { advertise: "192.0.2.5:7400".into(), ..voter(1) }]);
    apply(&mut elsewhere, VipOp::Add { spec: vip("web", 100) });
    apply(
        &mut elsewhere,
        add(ServerSpec { ports: "6443".parse().expect("ports"), ..spec(&["10.0.0.11"]) }),
    );
    assert!(refused(&mut elsewhere, set(nodes_spec(), 0)).contains("no member has an address"));
}

/// It would answer as that server while the change is tried.
#[test]
fn no_guest_of_a_vip_has_a_real_servers_address() {
    let mut state = with(&spec(&["10.0.0.11"]));
    let of = state.vip_named("web").expect("there").uid;
    for trial in [true, false] {
        let guest = VipOp::AddGuest { spec: vip("web-1", 11), guest: crate::Guest { of, trial } };
        assert!(refused(&mut state, guest).contains("is a real server of virtual server front"));
    }
}

/// A member that is refused changes nothing, and the one that is left is known.
#[test]
fn members_are_followed_where_they_changed_alone() {
    let mut state = state();
    apply(&mut state, add(nodes_spec()));
    let before = state.servers.clone();
    refused(&mut state, NodeOp::Drain { node: NodeId(9), drained: true });
    apply(&mut state, NodeOp::Interfaces { node: NodeId(1), macs: [].into() });
    assert!(Arc::ptr_eq(&before, &state.servers));
}
