//! The engine on this kernel: what is ordered, and where packets then go. Needs root.

use etherparse::PacketBuilder;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use vip_core::{
    Address, Counter, Flow, Forward, Forwarding, GateEntry, Generation, Mono, Plan, Protocol,
    RealServer, Scheduler, ServerUid, TableSize,
};
use vip_datapath::{ForwardEngine, Gate, Surroundings, Unforwarded, Way, forward_engine};

const PASS: u32 = u32::MAX;
const DROP: u32 = 2;
const SENT: u32 = 7;

const NOW: Mono = Mono(1_000_000_000);
const VIP: &str = "10.0.0.100:80";
const SEED: u64 = 9;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A host on which everybody is a neighbour, unless it is said otherwise.
#[derive(Default)]
struct Host {
    ways: RefCell<BTreeMap<IpAddr, Way>>,
    refuses: RefCell<BTreeSet<IpAddr>>,
}

impl Surroundings for Host {
    fn way_to(&self, ip: IpAddr) -> Way {
        let known = self.ways.borrow().get(&ip).copied();
        known.unwrap_or(Way::Hop { ifindex: 1, hop: ip })
    }

    fn home_of(&self, _: &Address) -> Option<u32> {
        Some(1)
    }

    fn own(&self) -> BTreeSet<IpAddr> {
        [[10, 0, 0, 1].into()].into()
    }

    fn objection_to(&self, real: IpAddr) -> Option<String> {
        self.refuses.borrow().contains(&real).then(|| "is not allowed here".to_owned())
    }
}

struct Scene {
    gate: Gate,
    engine: ForwardEngine,
    host: Host,
    /// Every change is another run's of the process.
    hands_over: bool,
}

const FRONT: ServerUid = ServerUid(1);

fn real(last: u8, weight: u16) -> RealServer {
    RealServer { ip: [10, 0, 0, last].into(), port: 80, weight }
}

fn plan(reals: &[RealServer]) -> Plan {
    Plan::new(SEED, TableSize::Tiny, reals.to_vec()).expect("a plan")
}

fn forwarding(generation: u64, reals: &[RealServer]) -> Forwarding {
    let ip = at(VIP).ip();
    Forwarding {
        generation: Generation(generation),
        vips: vec![Address { ip, prefix: 24, interface: String::new() }],
        protocol: Protocol::Tcp,
        ports: 80.into(),
        scheduler: Scheduler::Mh,
        forward: Forward::Dr,
        plan: plan(reals),
        before: None,
        resets: false,
    }
}

fn after(generation: u64, before: &[RealServer], reals: &[RealServer]) -> Forwarding {
    Forwarding { before: Some(plan(before)), ..forwarding(generation, reals) }
}

fn packet(syn: bool, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { panic!("v4") };
    let ip = PacketBuilder::ethernet2([2; 6], [0; 6])
        .ipv4(source.octets(), destination.octets(), 64)
        .tcp(from.port(), to.port(), 1, 1000);
    let mut frame = vec![];
    let ip = if syn { ip.syn() } else { ip.ack(1) };
    ip.write(&mut frame, b"x").expect("written");
    frame
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::new([198, 51, 100, 7].into(), port)
}

impl Scene {
    fn new() -> Self {
        let mut gate = Gate::load().expect("loaded");
        gate.set(at(VIP).ip(), GateEntry::Until(Mono(u64::MAX))).expect("open");
        let engine = forward_engine(&mut gate).expect("its maps");
        Self { gate, engine, host: Host::default(), hands_over: false }
    }

    fn that_hands_over() -> Self {
        Self { hands_over: true, ..Self::new() }
    }

    /// As if the process had gone on with another program.
    fn hand_over(self) -> Self {
        let left = (self.gate.leave().expect("left"), self.engine.leave());
        let written = postcard::to_stdvec(&left).expect("written");
        // Reading takes possession of the descriptors.
        std::mem::forget(left);
        let (gate, engine) = postcard::from_bytes(&written).expect("read");
        let mut gate = Gate::inherit(gate).expect("inherited");
        let maps = gate.take_forward_maps().expect("its maps");
        let engine = ForwardEngine::inherit(maps, engine);
        Self { gate, engine, host: self.host, hands_over: self.hands_over }
    }

    fn put(&mut self, forwarding: Forwarding) -> Result<(), Unforwarded> {
        if self.hands_over {
            let next = std::mem::replace(self, Self::new()).hand_over();
            *self = next;
        }
        let mut results = self.engine.put(NOW, &self.host, vec![(FRONT, forwarding)]);
        assert_eq!(results.len(), 1);
        results.remove(0).1
    }

    fn in_force(&self) -> Option<u64> {
        self.engine.in_force().get(&FRONT).map(|generation| generation.0)
    }

    fn verdict(&mut self, syn: bool, port: u16) -> u32 {
        self.gate.tries("vipd_in_a", &packet(syn, client(port), at(VIP))).expect("tried").verdict
    }

    fn counters(&self) -> BTreeMap<IpAddr, Counter> {
        let counters = self.engine.counters(FRONT).expect("read");
        counters.into_iter().map(|((ip, _), counter)| (ip, counter)).collect()
    }

    /// The last octet of whom a packet went to.
    fn goes_to(&mut self, syn: bool, port: u16) -> u8 {
        let before = self.counters();
        assert_eq!(self.verdict(syn, port), SENT);
        let after = self.counters();
        let grew = after
            .iter()
            .find(|(ip, now)| now.packets != before.get(*ip).copied().unwrap_or_default().packets);
        match grew {
            Some((IpAddr::V4(ip), _)) => ip.octets()[3],
            other => panic!("{other:?}"),
        }
    }
}

fn by_plan(plan: &Plan, port: u16) -> u8 {
    let flow = Flow { ip: client(port).ip(), port };
    let slot = flow.slot(SEED, Scheduler::Mh, TableSize::Tiny);
    match plan.reals()[usize::from(plan.slots()[usize::from(slot)])].ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => panic!("v4"),
    }
}

#[test]
fn what_is_ordered_is_in_force_and_goes_where_the_plan_says() {
    let mut scene = Scene::new();
    assert_eq!(scene.verdict(true, 1), PASS);
    let reals = [real(11, 1), real(12, 3), real(13, 0)];
    scene.put(forwarding(4, &reals)).expect("in force");
    assert_eq!(scene.in_force(), Some(4));
    for port in 1..100 {
        assert_eq!(scene.goes_to(true, port), by_plan(&plan(&reals), port));
    }
    scene.engine.drop(FRONT).expect("gone");
    assert_eq!((scene.verdict(true, 1), scene.in_force()), (PASS, None));
    scene.engine.drop(FRONT).expect("it is gone already");
}

#[test]
fn connections_outlive_a_drain_and_its_end_and_not_the_end_of_their_server() {
    drain_and_its_end(Scene::new());
}

#[test]
fn they_outlive_it_where_each_change_is_another_runs_of_the_process() {
    drain_and_its_end(Scene::that_hands_over());
}

fn drain_and_its_end(mut scene: Scene) {
    let [both, drained] = [[real(11, 1), real(12, 1)], [real(11, 0), real(12, 1)]];
    scene.put(forwarding(1, &both)).expect("in force");
    let ports: Vec<u16> = (1..60).filter(|port| by_plan(&plan(&both), *port) == 11).collect();
    assert!(ports.len() > 10);
    for port in &ports {
        assert_eq!(scene.goes_to(true, *port), 11);
    }
    scene.put(after(2, &both, &drained)).expect("in force");
    for port in &ports {
        assert_eq!(scene.goes_to(false, *port), 11, "it began before");
        assert_eq!(scene.goes_to(true, port + 1000), 12);
        assert_eq!(scene.goes_to(false, port + 1000), 12);
    }
    scene.put(forwarding(3, &drained)).expect("in force");
    for port in &ports {
        assert_eq!(scene.goes_to(false, *port), 11, "it spoke since");
    }
    // It is a real server no more; then another one has its number.
    scene.put(forwarding(4, &[real(12, 1)])).expect("in force");
    for port in &ports {
        assert_eq!(scene.goes_to(false, *port), 12);
    }
    assert_eq!(scene.counters().len(), 1);
}

/// A holder that took over knows of connections what they say since.
#[test]
fn a_server_that_was_gone_takes_no_connection_from_who_took_its_place() {
    let mut scene = Scene::new();
    let all = [real(11, 1), real(12, 1), real(13, 1)];
    scene.put(after(2, &all, &all[1..])).expect("in force");
    let ports: Vec<u16> = (1..60).filter(|port| by_plan(&plan(&all), *port) == 11).collect();
    let began = |scene: &mut Scene| -> Vec<u8> {
        ports.iter().map(|port| scene.goes_to(false, *port)).collect()
    };
    let had = began(&mut scene);
    assert!(had.len() > 10 && !had.contains(&11));
    scene.put(after(3, &all, &all)).expect("in force");
    assert_eq!(began(&mut scene), had);
}

/// What connections of the table before say is heard until it retires, and no other's.
#[test]
fn it_is_known_when_somebody_last_went_by_the_table_before() {
    let mut scene = Scene::new();
    let [both, drained] = [[real(11, 1), real(12, 1)], [real(11, 0), real(12, 1)]];
    let spoke = |scene: &Scene| scene.engine.spoke().expect("read").remove(&FRONT);
    scene.put(forwarding(1, &both)).expect("in force");
    assert_eq!(spoke(&scene), None);
    let of = |server| move |port: &u16| by_plan(&plan(&both), *port) == server;
    let (old, other) = ((1..).find(of(11)).expect("one"), (1..).find(of(12)).expect("one"));
    scene.goes_to(true, old);
    scene.put(after(2, &both, &drained)).expect("in force");
    assert_eq!(spoke(&scene), Some((Generation(2), NOW)));
    for (syn, port) in [(false, other), (true, other), (true, old + 1000), (false, old + 1000)] {
        scene.goes_to(syn, port);
    }
    assert_eq!(spoke(&scene), Some((Generation(2), NOW)), "they go by the table in force");
    let mut latest = NOW;
    for _ in 0..2 {
        assert_eq!(scene.goes_to(false, old), 11);
        let (_, at) = spoke(&scene).expect("two tables");
        assert!(at > latest, "{at:?}");
        latest = at;
    }
    // Another change: from then on.
    scene.put(after(3, &both, &[real(12, 1)])).expect("in force");
    assert_eq!(spoke(&scene), Some((Generation(3), NOW)));
    scene.put(forwarding(4, &[real(12, 1)])).expect("in force");
    assert_eq!(spoke(&scene), None);
    scene.engine.drop(FRONT).expect("gone");
}

/// Who was removed is in the table before all the same, or others would move.
#[test]
fn a_server_that_is_removed_costs_no_other_servers_connections() {
    let mut scene = Scene::new();
    let all = [real(11, 1), real(12, 1), real(13, 1)];
    scene.put(forwarding(1, &all)).expect("in force");
    for port in 1..200 {
        scene.goes_to(true, port);
    }
    scene.put(after(2, &all, &all[1..])).expect("in force");
    for port in 1..200 {
        let (began, now) = (by_plan(&plan(&all), port), by_plan(&plan(&all[1..]), port));
        let expected = if began == 11 { now } else { began };
        assert_eq!(scene.goes_to(false, port), expected, "{port}");
    }
    // It comes back before that retires.
    scene.put(after(3, &all, &all)).expect("in force");
    for port in 1000..1200 {
        assert_eq!(scene.goes_to(true, port), by_plan(&plan(&all), port));
    }
}

#[test]
fn ports_and_methods_change_without_a_trace_of_what_was() {
    let mut scene = Scene::new();
    let reals = [RealServer { port: 8080, ..real(11, 1) }];
    let nat = Forwarding { forward: Forward::Nat, ..forwarding(1, &reals) };
    scene.put(nat.clone()).expect("in force");
    let reply = |scene: &mut Scene, from: &str| {
        scene.gate.tries("vipd_in_a", &packet(false, at(from), client(7))).expect("tried").verdict
    };
    assert_eq!((scene.verdict(true, 1), reply(&mut scene, "10.0.0.11:8080")), (SENT, SENT));
    let ports = "8000-8010".parse().expect("ports");
    let reals = [RealServer { port: 0, ..real(11, 1) }];
    let range = Forwarding { ports, forward: Forward::Nat, ..forwarding(2, &reals) };
    scene.put(range).expect("in force");
    assert_eq!((scene.verdict(true, 1), reply(&mut scene, "10.0.0.11:8080")), (PASS, PASS));
    assert_eq!(reply(&mut scene, "10.0.0.11:8007"), SENT);
    scene.put(forwarding(3, &[real(11, 1)])).expect("in force");
    assert_eq!((scene.verdict(true, 1), reply(&mut scene, "10.0.0.11:8007")), (SENT, PASS));
    // On this host itself.
    scene.host.ways.borrow_mut().insert([10, 0, 0, 11].into(), Way::Here);
    scene.put(Forwarding { generation: Generation(4), ..nat }).expect("in force");
    assert_eq!(scene.verdict(true, 1), PASS);
    assert_eq!(reply(&mut scene, "10.0.0.11:8080"), PASS, "its own address is its own");
    let own = packet(false, at("10.0.0.100:8080"), client(7));
    let out = scene.gate.tries("vipd_out_a", &own).expect("tried");
    assert_eq!((out.verdict, &out.frame[34..36]), (PASS, &80_u16.to_be_bytes()[..]));
}

/// Ranges are prefixes in the kernel, and two may have one in common.
#[test]
fn a_range_can_shrink_and_grow_and_be_taken_over_in_part() {
    range_shrinks_and_grows(Scene::new());
}

#[test]
fn it_can_where_each_change_is_another_runs_of_the_process() {
    range_shrinks_and_grows(Scene::that_hands_over());
}

fn range_shrinks_and_grows(mut scene: Scene) {
    let of = |generation, ports: &str| Forwarding {
        ports: ports.parse().expect("ports"),
        forward: Forward::Nat,
        ..forwarding(generation, &[RealServer { port: 0, ..real(11, 1) }])
    };
    let goes = |scene: &mut Scene, port: u16| {
        let to = packet(true, client(1), SocketAddr::new(at(VIP).ip(), port));
        let from = packet(false, SocketAddr::new([10, 0, 0, 11].into(), port), client(1));
        [to, from].map(|frame| scene.gate.tries("vipd_in_a", &frame).expect("tried").verdict)
    };
    let checks =
        [("8000-8010", 8010), ("8000-8007", 8007), ("8000-8015", 8015), ("8004-8020", 8020)];
    for (generation, (ports, last)) in (1..).zip(checks) {
        scene.put(of(generation, ports)).expect("in force");
        assert_eq!(goes(&mut scene, 8005), [SENT; 2], "{ports}");
        assert_eq!(goes(&mut scene, last), [SENT; 2], "{ports}");
        assert_eq!(goes(&mut scene, last + 1), [PASS; 2], "{ports}");
    }
    assert_eq!(goes(&mut scene, 8003), [PASS; 2]);
    // Another one has some of them before this one gives them up.
    let other = (ServerUid(2), of(1, "8016-8020"));
    let results = scene.engine.put(NOW, &scene.host, vec![other, (FRONT, of(9, "8004-8015"))]);
    assert!(results.iter().all(|(_, done)| done.is_ok()), "{results:?}");
    for port in [8004, 8015, 8016, 8020] {
        assert_eq!(goes(&mut scene, port)[0], SENT, "{port}");
    }
}

#[test]
fn what_is_refused_leaves_what_was_in_force() {
    let mut scene = Scene::new();
    scene.put(forwarding(1, &[real(11, 1)])).expect("in force");
    scene.host.refuses.borrow_mut().insert([10, 0, 0, 12].into());
    let refused = scene.put(forwarding(2, &[real(11, 1), real(12, 1)])).expect_err("refused");
    assert_eq!(refused.to_string(), "the real server 10.0.0.12 is not allowed here");
    assert_eq!((scene.in_force(), scene.goes_to(true, 1)), (Some(1), 11));
    // And nothing of any other.
    let other = Forwarding { ports: 81.into(), ..forwarding(1, &[real(11, 1)]) };
    let both = vec![(FRONT, forwarding(2, &[real(12, 1)])), (ServerUid(2), other)];
    let results = scene.engine.put(NOW, &scene.host, both);
    let put: BTreeMap<_, _> = results.iter().map(|(uid, done)| (*uid, done.is_ok())).collect();
    assert_eq!(put, [(FRONT, false), (ServerUid(2), true)].into());
}

#[test]
fn the_way_to_a_real_server_follows_the_hosts_routes() {
    let mut scene = Scene::new();
    scene.put(forwarding(1, &[real(11, 1)])).expect("in force");
    scene.host.ways.borrow_mut().insert([10, 0, 0, 11].into(), Way::None);
    scene.engine.look(&scene.host).expect("looked");
    assert_eq!(scene.verdict(true, 1), DROP);
    scene.host.ways.borrow_mut().clear();
    scene.engine.look(&scene.host).expect("looked");
    assert_eq!(scene.verdict(true, 1), SENT);
}

/// The table before was in force once, and may be again.
#[test]
fn a_server_that_comes_back_is_sent_to_again() {
    let mut scene = Scene::new();
    let sets = [[real(11, 1), real(12, 1)], [real(11, 1), real(13, 1)]];
    for generation in 1..=6 {
        let now = usize::from(generation % 2 == 1);
        let (now, before) = (&sets[now], &sets[1 - now]);
        scene.put(after(generation, before, now)).expect("in force");
    }
    assert_eq!(scene.in_force(), Some(6));
    for port in 1..50 {
        assert_eq!(scene.goes_to(true, port), by_plan(&plan(&sets[0]), port));
    }
}

/// With each round a thousand other real servers and tables, until every number was in
/// use more than once.
#[test]
fn numbers_come_back_however_much_changes() {
    let mut scene = Scene::new();
    let server = |number: u64, round: u64| {
        let [.., high, low] = number.to_be_bytes();
        let real = |round: u64| {
            let [.., round] = round.to_be_bytes();
            RealServer { ip: [10, round, high, low].into(), port: 80, weight: 1 }
        };
        let ports = u16::try_from(1000 + number).expect("small").into();
        (
            ServerUid(number),
            Forwarding { ports, ..after(round, &[real(round - 1)], &[real(round)]) },
        )
    };
    for round in 1..=20 {
        let wanted = (0..1000).map(|number| server(number, round)).collect();
        let results = scene.engine.put(NOW, &scene.host, wanted);
        assert!(results.iter().all(|(_, done)| done.is_ok()), "{round}");
    }
    let counters = scene.engine.counters(ServerUid(999)).expect("read");
    let places: Vec<_> = counters.into_keys().collect();
    let expected: [(IpAddr, u16); 2] = [19, 20].map(|round| ([10, round, 3, 231].into(), 80));
    assert_eq!(places, expected, "those of the two tables");
    let to = SocketAddr::new(at(VIP).ip(), 1999);
    let went = scene.gate.tries("vipd_in_a", &packet(true, client(1), to)).expect("tried");
    assert_eq!(went.verdict, SENT);
}

#[test]
fn what_this_host_takes_as_a_real_server_is_what_it_is_one_of_by_direct_routing() {
    let mut scene = Scene::new();
    scene.put(forwarding(1, &[real(11, 1), real(12, 1)])).expect("in force");
    assert_eq!(scene.engine.served(FRONT, &scene.host), []);
    scene.host.ways.borrow_mut().insert(real(12, 1).ip, Way::Here);
    let vips = forwarding(1, &[]).vips;
    assert_eq!(scene.engine.served(FRONT, &scene.host), vips);
    let nat = Forwarding { forward: Forward::Nat, ..forwarding(2, &[real(12, 1)]) };
    scene.put(nat).expect("in force");
    assert_eq!(scene.engine.served(FRONT, &scene.host), []);
}

#[test]
fn a_kernel_that_does_not_rewrite_ipv6_says_so_and_forwards_the_rest() {
    let vips = vec![Address {
        ip: "fd00::100".parse().expect("an address"),
        prefix: 64,
        interface: String::new(),
    }];
    let real = RealServer { ip: "fd00::11".parse().expect("an address"), port: 80, weight: 1 };
    let of = |forward| Forwarding { vips: vips.clone(), forward, ..forwarding(1, &[real]) };
    let mut gate = Gate::load().expect("loaded");
    let mut engine = ForwardEngine::new(gate.take_forward_maps().expect("its maps"), false);
    let mut put = |forwarding: Forwarding| {
        let mut results = engine.put(NOW, &Host::default(), vec![(FRONT, forwarding)]);
        results.remove(0).1.map_err(|why| why.to_string())
    };
    let why = put(of(Forward::Nat)).expect_err("refused");
    assert!(why.contains("6.16"), "{why}");
    assert_eq!(put(of(Forward::Dr)), Ok(()));
    let nat = Forwarding { forward: Forward::Nat, ..forwarding(2, &[self::real(11, 1)]) };
    assert_eq!(put(nat), Ok(()));
    // This kernel does, and nothing is left of the trial.
    let mut scene = Scene::new();
    scene.put(of(Forward::Nat)).expect("in force");
    assert!(scene.gate.entry("100::1".parse().expect("an address")).is_none());
}
