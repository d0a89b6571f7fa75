//! Somebody changes virtual servers.

use super::{World, vip_name};
use std::net::IpAddr;
use std::time::Duration;
use vip_core::{
    AllDown, CheckKind, CheckSpec, CheckTiming, Engine, Forward, Name, Policy, Protocol, Quorum,
    RealPlace, RealSpec, Scheduler, Server, ServerOp, ServerSpec, TableSize,
};

/// Virtual servers that there may be; the last has members as real servers.
const SERVERS: u8 = 3;
/// Real servers that there may be, by the end of their addresses.
pub(super) const REALS: std::ops::Range<u8> = 200..206;

/// The sorry server.
const SORRY: u8 = 210;

/// How all of them are checked.
pub(super) const CHECK: CheckTiming = CheckTiming {
    interval: Duration::from_millis(200),
    timeout: Duration::from_millis(100),
    rise: 1,
    fall: 2,
    grace: Duration::ZERO,
};

/// Of the second.
const SLOW_START: Duration = Duration::from_millis(400);

pub(super) fn real_ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn real(rng: &mut fastrand::Rng) -> RealSpec {
    RealSpec { ip: real_ip(rng.u8(REALS)), port: None, weight: rng.u16(0..4) }
}

fn name(number: u8) -> Name {
    format!("s{number}").parse().expect("a valid name")
}

fn spec(rng: &mut fastrand::Rng, number: u8, checked: bool) -> ServerSpec {
    let port = 80 + u16::from(number);
    let members = number == SERVERS;
    let mut reals: Vec<RealSpec> = vec![];
    while !members && reals.len() < 3 {
        let real = real(rng);
        if reals.iter().all(|there| there.ip != real.ip) {
            reals.push(real);
        }
    }
    // Of members nobody knows how many there will be.
    let most = if members { 2 } else { u16::try_from(reals.len().min(2)).unwrap_or(1) };
    ServerSpec {
        name: name(number),
        vip: vip_name(),
        ports: port.into(),
        protocol: Protocol::Tcp,
        scheduler: Scheduler::Mh,
        forward: Forward::Dr,
        engine: Engine::Auto,
        table_size: Some(TableSize::Tiny),
        reals,
        names: vec![],
        real_nodes: members.then_some(port),
        check: checked.then(|| check(number)),
        policy: policy(rng, most),
    }
}

/// The first is observed by two nodes, of which one may die.
fn check(number: u8) -> CheckSpec {
    let two = ["n1", "n2"].map(|name| name.parse().expect("a valid name"));
    let observers = if number == 1 { two.into() } else { vec![] };
    let slow_start = if number == 2 { SLOW_START } else { Duration::ZERO };
    CheckSpec { timing: CHECK, observers, slow_start, ..CheckKind::Tcp.into() }
}

fn policy(rng: &mut fastrand::Rng, most: u16) -> Policy {
    let quorum = Quorum { up: rng.u16(1..=most), hysteresis: rng.u16(0..2) };
    let all_down = if rng.bool() { AllDown::KeepLast } else { AllDown::Drop };
    let sorry = RealSpec { ip: real_ip(SORRY), port: None, weight: 1 };
    let sorry = Some(sorry).filter(|_| rng.u32(0..3) == 0);
    Policy { quorum, all_down, sorry, ..Policy::default() }
}

fn change(rng: &mut fastrand::Rng, server: &Server) -> ServerOp {
    let name = server.spec.name.clone();
    let there = rng.choice(&server.reals).map_or_else(|| real(rng), |real| real.spec);
    let place = RealPlace { ip: there.ip, port: there.port };
    match rng.u32(0..16) {
        0 => ServerOp::Remove { name },
        1..4 => ServerOp::AddReal { server: name, real: real(rng) },
        4..7 => ServerOp::RemoveReal { server: name, place },
        7..10 => ServerOp::DrainReal { server: name, place, drained: rng.bool() },
        10..12 => ServerOp::WeighReal { server: name, place, weight: rng.u16(0..4) },
        _ => ServerOp::Retire { server: server.uid, seen: server.generation },
    }
}

impl World {
    pub(super) fn change_servers(&mut self, salt: u64) {
        let mut rng = fastrand::Rng::with_seed(salt);
        let number = rng.u8(1..=SERVERS);
        let there = self.tables.servers().find(|server| server.spec.name == name(number));
        let op = match there {
            None => ServerOp::Add { spec: spec(&mut rng, number, self.is_checked()) },
            Some(server) => change(&mut rng, server),
        };
        self.command(op);
    }

    /// Whether every host that reaches its leader forwards what its agent wants; or which
    /// does not.
    pub(super) fn lags(&self, leader: Option<usize>) -> Option<usize> {
        let leader = leader?;
        let reaches = |at: &usize| self.network.is_whole(*at, leader);
        (0..self.hosts.len()).filter(reaches).find(|at| {
            let host = &self.hosts[*at];
            let welcomed = host.link.is_some_and(|(_, welcomed)| welcomed);
            let agent = host.agent.as_ref().filter(|_| welcomed && host.powered);
            agent.is_some_and(|agent| {
                let wanted = agent.state().forwardings();
                !agent.is_in_step() || host.kernel.tables.in_force() != wanted
            })
        })
    }
}
