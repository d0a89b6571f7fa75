//! A thousand virtual servers with ten real servers each: how long it takes, and what it
//! costs the kernel. In a program of its own, since it counts the kernel's maps. Needs root.

use aya::maps::loaded_maps;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};
use vip_core::{
    Address, Forward, Forwarding, Generation, Mono, Plan, Protocol, RealServer, Scheduler,
    ServerUid, TableSize,
};
use vip_datapath::{ForwardEngine, Gate, Surroundings, Way, forward_engine};

const NOW: Mono = Mono(1_000_000_000);
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
/// What the kernel may take for a thousand of them: with one table each, and with two, on
/// two processors.
const MOST: [u64; 2] = [50_000_000, 90_000_000];
/// Counters of 16,384 real servers, for each processor more.
const COUNTERS: u64 = 16_384 * 32;

/// Everybody is a neighbour.
struct Host {
    ifindex: u32,
}

const HOST: Host = Host { ifindex: 1 };

impl Surroundings for Host {
    fn way_to(&self, ip: IpAddr) -> Way {
        Way::Hop { ifindex: self.ifindex, hop: ip }
    }

    fn home_of(&self, _: &Address) -> Option<u32> {
        Some(1)
    }

    fn own(&self) -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }

    fn objection_to(&self, _: IpAddr) -> Option<String> {
        None
    }
}

/// A plan of ten real servers, of which the last has this weight.
fn plan(number: u16, weight: u16) -> Plan {
    let real = |n: u16| {
        let [high, low] = (number * 10 + n).to_be_bytes();
        let weight = if n == 9 { weight } else { 1 };
        RealServer { ip: [10, 7, high, low].into(), port: 80, weight }
    };
    Plan::new(number.into(), TableSize::Usual, (0..10).map(real).collect()).expect("a plan")
}

fn servers(count: u16, generation: u64, weights: &[u16]) -> Vec<(ServerUid, Forwarding)> {
    let server = |number: u16| {
        let forwarding = Forwarding {
            generation: Generation(generation),
            vips: vec![Address { ip: VIP, prefix: 24, interface: String::new() }],
            protocol: Protocol::Tcp,
            ports: (1000 + number).into(),
            scheduler: Scheduler::Mh,
            forward: Forward::Dr,
            plan: plan(number, weights[0]),
            before: weights.get(1).map(|weight| plan(number, *weight)),
            resets: false,
        };
        (ServerUid(number.into()), forwarding)
    };
    (1..=count).map(server).collect()
}

/// Puts them in force; returns how long it took.
fn put(engine: &mut ForwardEngine, servers: Vec<(ServerUid, Forwarding)>) -> Duration {
    let begun = Instant::now();
    let results = engine.put(NOW, &HOST, servers);
    assert!(results.iter().all(|(_, done)| done.is_ok()), "{results:?}");
    begun.elapsed()
}

/// The memory of each map in the kernel, by its number there.
fn maps() -> BTreeMap<u32, u64> {
    let memory = |map: aya::maps::MapInfo| {
        let fd = map.fd().ok()?;
        let info = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let info = std::fs::read_to_string(info).ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
        Some((map.id(), line.trim().parse().ok()?))
    };
    loaded_maps().filter_map(|map| memory(map.ok()?)).collect()
}

#[test]
fn a_thousand_are_one_step_and_cost_what_is_promised() {
    let before = maps();
    let memory = || {
        let new = maps().into_iter().filter(|(id, _)| !before.contains_key(id));
        new.map(|(_, bytes)| bytes).sum::<u64>()
    };
    let engine = || {
        let mut gate = Gate::load().expect("loaded");
        let engine = forward_engine(&mut gate).expect("its maps");
        (gate, engine)
    };
    let hundred = {
        let (_gate, mut engine) = engine();
        put(&mut engine, servers(100, 1, &[1]))
    };
    let (_gate, mut engine) = engine();
    let thousand = put(&mut engine, servers(1000, 1, &[1]));
    assert_eq!(engine.in_force().len(), 1000);
    let one_table = memory();
    // So long as a table costs the same, ten times as many cost ten times as much: nothing
    // waits for each of them.
    assert!(thousand < hundred * 20 + Duration::from_millis(100), "{hundred:?}, {thousand:?}");

    // A host's network is looked at again whenever a link goes, beside a takeover.
    let mut look = |host: Host| {
        let begun = Instant::now();
        engine.look(&host).expect("looked");
        begun.elapsed()
    };
    let [again, moved] = [HOST, Host { ifindex: 2 }].map(&mut look);
    assert!(again < moved / 2, "as before in {again:?}, all ways others in {moved:?}");

    let changed = put(&mut engine, servers(1000, 2, &[5, 1]));
    let two_tables = memory();
    let one = put(&mut engine, servers(1, 3, &[7, 1]));
    println!(
        "100 in {hundred:?}, 1000 in {thousand:?}, all changed in {changed:?}, one of them in \
         {one:?}; {one_table} bytes, {two_tables} with two tables each"
    );
    assert!(one < thousand / 20, "one in {one:?}, all in {thousand:?}");
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let more = COUNTERS * (processors as u64).saturating_sub(2);
    for (memory, most) in [one_table, two_tables].into_iter().zip(MOST.map(|most| most + more)) {
        assert!(memory > 0 && memory <= most, "{memory} bytes, at most {most}");
    }
}
