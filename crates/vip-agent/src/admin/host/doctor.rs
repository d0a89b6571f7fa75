//! What this host needs to be a member, before it is one and after, and whether
//! it has it.

use crate::admin::warnings::{claimant, nobody_can_ask, wall_clocks};
use crate::descriptors::used;
use crate::lease::GuardStatus;
use crate::membership::RECOVERY_FILE;
use crate::membership::Seat;
use crate::membership::reached;
use crate::node::Member;
use crate::wall_clock::wall_clock_ms;
use futures_util::future::join_all;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use vip_cloud::Finding;
use vip_core::{
    DropReason, Drops, MAX_CLOCK_DRIFT, Node, NodeState, Provider, State, TableCounters, no_peer,
    plain,
};
use vip_guard::GateReport;
use vip_proto::v1;
use vip_proto::v1::cluster_client::ClusterClient;
use vip_proto::v1::{Check, CheckResult};

/// How long a guard, or another member, may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Nothing that is done to a table takes so many seconds.
const TABLES_STUCK_S: u32 = 2;
/// Between two looks for a guard.
const GUARD_POLL: Duration = Duration::from_millis(50);
/// How long a member may take to look back at this node, its own wait included.
const LOOK_BACK: Duration = Duration::from_secs(7);
/// Less free space than this and the log may fail soon, and with it this node.
const SPACE_LEFT: u64 = 256 << 20;
/// The first kernel in which nothing of the lease gate is missing (tcx).
const KERNEL: (u32, u32) = (6, 6);

fn ok(name: &str, text: impl Into<String>) -> Check {
    Check { name: name.into(), result: CheckResult::Ok.into(), text: text.into() }
}

fn warning(name: &str, text: impl Into<String>) -> Check {
    Check { name: name.into(), result: CheckResult::Warning.into(), text: text.into() }
}

fn error(name: &str, text: impl Into<String>) -> Check {
    Check { name: name.into(), result: CheckResult::Error.into(), text: text.into() }
}

/// `good`, or all that is wrong.
fn all_of(name: &str, troubles: &[String], good: &str) -> Check {
    if troubles.is_empty() { ok(name, good) } else { warning(name, troubles.join("; ")) }
}

/// Looks at everything.
pub(super) async fn examine(agent: &Seat) -> v1::DoctorReply {
    let mut checks = vec![advertised(agent)];
    // What a join has to itself is not tried while one is under way.
    let forming = agent.formation.try_lock();
    checks.extend(listening(agent, forming.is_ok()));
    checks.extend([http(agent), kernel(), clock()]);
    match agent.member() {
        None if forming.is_err() => {
            checks.push(warning("membership", "one is being made, or ended; look again"));
        }
        None => {
            checks.push(guard_of_no_member(agent).await);
            checks.push(warning("membership", "this node is in no cluster"));
        }
        Some(member) => {
            drop(forming);
            checks.push(named(agent, &member));
            checks.extend(guard(&member));
            checks.extend(of_member(&member).await);
            for provider in Provider::ALL.iter().copied() {
                checks.extend(told(&member, provider).await);
            }
        }
    }
    checks.extend([recovery_key(agent), descriptors(), space(&agent.config.node.data_dir)]);
    v1::DoctorReply { checks }
}

/// Where peers reach this node: as the log says, which is what they go by.
fn advertised(agent: &Seat) -> Check {
    const NAME: &str = "advertise";
    let logged = agent.member().and_then(|member| {
        let state = member.log.state();
        Some(state.nodes.get(&member.meta.node)?.advertise.clone())
    });
    match (logged, agent.config.advertise()) {
        (Some(logged), Ok(own)) if own != logged => warning(
            NAME,
            format!(
                "peers use {logged}, and this host would say {own} now: if it has moved, `vipctl \
                 leave --force` and join again"
            ),
        ),
        (Some(logged), _) => ok(NAME, format!("peers use {logged}")),
        (None, Ok(own)) => ok(NAME, format!("peers will use {own}")),
        (None, Err(e)) => error(NAME, e.to_string()),
    }
}

/// Its name is the cluster's; another one in the configuration means nothing.
fn named(agent: &Seat, member: &Member) -> Check {
    const NAME: &str = "name";
    let known = &member.meta.name;
    if agent.name == *known {
        return ok(NAME, known.to_string());
    }
    let text = format!("it is {known} in the cluster, and {} in its configuration", agent.name);
    warning(NAME, text)
}

/// Whether load balancers and orchestrators can ask this node what they have to.
fn http(agent: &Seat) -> Check {
    const NAME: &str = "http";
    let http = &agent.config.http;
    let state = agent.member().map(|member| member.log.state());
    let unasked = state.as_deref().map(|state| nobody_can_ask(http, state)).unwrap_or_default();
    let unknown = |state: &State| {
        let names = http.tcp.keys().filter(|name| state.vip_named(name).is_none());
        names.map(|name| format!("http.tcp names {name}, and there is no such VIP")).collect()
    };
    let unknown: Vec<_> = state.as_deref().map(unknown).unwrap_or_default();
    let not_there = agent.not_listening.all().into_iter().chain(unknown);
    let troubles: Vec<_> =
        not_there.chain(unasked.into_iter().map(|why| why.trim_end_matches('.').into())).collect();
    match http.listen {
        Some(at) => all_of(NAME, &troubles, &format!("answers at {at}")),
        None => all_of(NAME, &troubles, "off (http.listen)"),
    }
}

/// Whether a provider can be told from here where its VIPs are.
async fn told(member: &Member, provider: Provider) -> Option<Check> {
    let state = member.log.state();
    let specs = state.all_vips().map(|vip| &vip.spec);
    let specs = specs.filter(|spec| spec.via.provider() == Some(provider));
    let specs: Vec<_> = specs.cloned().collect();
    if specs.is_empty() || !member.holds(&state) {
        return None;
    }
    let found = member.providers.examine(provider, &specs).await;
    let (well, ill): (Vec<_>, Vec<_>) = found.into_iter().partition(|finding| finding.is_well);
    let texts = |found: Vec<Finding>| found.into_iter().map(|one| one.text).collect::<Vec<_>>();
    let troubles = texts(ill);
    Some(all_of(provider.as_str(), &troubles, &texts(well).join("; ")))
}

/// Whether what peers use leads to what this node listens at.
fn listening(agent: &Seat, free: bool) -> Option<Check> {
    const NAME: &str = "listen";
    let listen = agent.config.node.listen;
    // A host name is for the peers' resolvers.
    let place: SocketAddr = agent.config.advertise().ok()?.parse().ok()?;
    let ip = place.ip();
    if let Some(what) = no_peer(ip) {
        return Some(error(NAME, format!("no other member reaches {place}: it is {what}")));
    }
    if free
        && agent.member().is_none()
        && let Err(e) = agent.listen()
    {
        return Some(error(NAME, plain(&e)));
    }
    let at_one = !listen.ip().is_unspecified();
    let text = if at_one && listen.ip() != ip {
        format!(
            "it listens at {listen} alone, and peers use {place}: right only where that is \
                 forwarded"
        )
    } else if !at_one && listen.is_ipv4() && ip.is_ipv6() {
        format!("it listens by IPv4 alone ({listen}), and peers use {place}")
    } else if listen.port() != place.port() {
        format!(
            "it listens at port {}, and peers use {}: right only where that is forwarded",
            listen.port(),
            place.port()
        )
    } else if !is_own(ip) {
        format!("no interface has {ip}: right only where that is forwarded to this host")
    } else {
        return Some(ok(NAME, format!("at {listen}")));
    };
    Some(warning(NAME, text))
}

fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

fn kernel() -> Check {
    const NAME: &str = "kernel";
    let Ok(name) = nix::sys::utsname::uname() else { return warning(NAME, "it has no name") };
    let release = name.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version >= KERNEL => ok(NAME, release),
        Some(_) => warning(
            NAME,
            format!(
                "{release} is older than {}.{}: another program's tcx filter can go around the \
                 lease gate",
                KERNEL.0, KERNEL.1
            ),
        ),
        None => warning(NAME, format!("{release} is no version that is known here")),
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// How fast chrony slews by default, and what it may at most.
const CHRONY_CONF: [&str; 2] = ["/etc/chrony/chrony.conf", "/etc/chrony.conf"];

/// What the clock does, and what its daemon may do with it.
fn clock() -> Check {
    const NAME: &str = "clock";
    match vip_guard::clock_steering().map(|steering| steering.check()) {
        Ok(Err(why)) => return error(NAME, why.to_string()),
        Err(why) => {
            return warning(NAME, format!("how the clock is steered cannot be read: {why}"));
        }
        Ok(Ok(())) => {}
    }
    let conf = CHRONY_CONF.iter().find_map(|path| std::fs::read_to_string(path).ok());
    match conf.map(|text| chrony_slews_at_most(&text)) {
        Some(ppm) if ppm > MAX_CLOCK_DRIFT * 1e6 => warning(
            NAME,
            format!(
                "chrony may slew this clock by {ppm:.0} ppm, and this node then leads and holds \
                 nothing until that is over; set `maxslewrate 500` in chrony.conf"
            ),
        ),
        _ => ok(NAME, "it runs as leases assume"),
    }
}

/// `maxslewrate` of a chrony.conf, ppm.
fn chrony_slews_at_most(conf: &str) -> f64 {
    const DEFAULT: f64 = 83_333.333;
    let value = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| word.eq_ignore_ascii_case("maxslewrate"))?;
        words.next()?.parse().ok()
    };
    conf.lines().filter_map(value).next_back().unwrap_or(DEFAULT)
}

fn space(data_dir: &Path) -> Check {
    const NAME: &str = "space for the log";
    let left = nix::sys::statvfs::statvfs(data_dir)
        .map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
    match left {
        Ok(left) if left < SPACE_LEFT => warning(NAME, format!("only {} MB are free", left >> 20)),
        Ok(left) => ok(NAME, format!("{} MB are free", left >> 20)),
        Err(why) => warning(NAME, format!("free space cannot be read: {why}")),
    }
}

fn recovery_key(agent: &Seat) -> Check {
    const NAME: &str = "recovery key";
    let key = agent.config.node.data_dir.join(RECOVERY_FILE);
    if !key.exists() {
        return ok(NAME, "it is not on this host");
    }
    let text = format!(
        "{} is the key to this whole cluster: move it to a safe place off this host",
        key.display()
    );
    warning(NAME, text)
}

fn descriptors() -> Check {
    const NAME: &str = "descriptors";
    match used() {
        Some((open, limit)) if open * 5 > limit * 4 => {
            warning(NAME, format!("{open} of {limit} open files are used"))
        }
        Some((open, limit)) => ok(NAME, format!("{open} of {limit} are used")),
        None => warning(NAME, "they cannot be counted"),
    }
}

/// The guard is greeted and left again: it holds nothing for a node that is in no
/// cluster.
async fn guard_of_no_member(agent: &Seat) -> Check {
    let socket = &agent.config.guard.socket;
    let mut why = format!("it does not answer at {}", socket.display());
    let greeted = async {
        loop {
            match vip_guard::connect(socket, "").await {
                Ok((.., report)) => return report,
                // It may just be starting.
                Err(e) => why = plain(&e),
            }
            sleep(GUARD_POLL).await;
        }
    };
    match timeout(ANSWER, greeted).await {
        Ok(report) => gate(&report).swap_remove(0),
        Err(_) => error("guard", why),
    }
}

fn guard(member: &Member) -> Vec<Check> {
    match member.leases.guard() {
        GuardStatus::Absent => {
            vec![error("guard", "it is not there: is `vipd guard` running, and allowed to?")]
        }
        GuardStatus::Present(report) => {
            let mut checks = gate(&report);
            checks.push(tables(&member.forward.counters()));
            checks.push(dropped(&member.forward.dropped()));
            checks
        }
    }
}

/// The guard's second lane.
fn tables(counters: &TableCounters) -> Check {
    let TableCounters { done, overtaken: _, waiting, behind_s, failed } = *counters;
    if failed {
        return error("tables", "the guard's thread for them failed; restart `vipd guard`");
    }
    if behind_s >= TABLES_STUCK_S {
        let text =
            format!("nothing was done for {behind_s} s, {waiting} orders wait; leases go on");
        return warning("tables", text);
    }
    ok("tables", format!("{done} orders carried out, {waiting} wait"))
}

/// What the guard's program dropped of virtual servers.
fn dropped(drops: &Drops) -> Check {
    const NAME: &str = "dropped packets";
    let counts = |all: &mut dyn Iterator<Item = (&DropReason, &u64)>| {
        let texts: Vec<_> = all.map(|(why, count)| format!("{count} {why}")).collect();
        texts.join(", ")
    };
    let troubles = counts(&mut drops.iter().filter(|(why, _)| why.is_trouble()));
    if !troubles.is_empty() {
        return warning(NAME, format!("since the guard started: {troubles}"));
    }
    match drops.is_empty() {
        true => ok(NAME, "none"),
        false => ok(NAME, counts(&mut drops.iter())),
    }
}

fn gate(report: &GateReport) -> Vec<Check> {
    match report {
        GateReport::Missing(why) => vec![warning("gate", why.clone())],
        GateReport::Enforced { weakness } => {
            let mut checks = vec![ok("gate", "the kernel enforces leases")];
            if !weakness.is_empty() {
                let text = format!(
                    "an interface that appears while the guard stands still could answer: \
                     {weakness}"
                );
                checks.push(warning("gate of new interfaces", text));
            }
            checks
        }
    }
}

async fn of_member(member: &Member) -> Vec<Check> {
    let state = member.log.state();
    let mut checks = vec![match member.certificate_trouble() {
        Some(why) => warning("certificate", why),
        None => ok("certificate", "valid, and renewed in time"),
    }];
    let others =
        member.authority.roster().load().certificates().into_iter().filter_map(|(node, until)| {
            let name = state.node_name(node)?.to_string();
            crate::certificate::trouble_of_other(&name, until, wall_clock_ms())
        });
    let others: Vec<_> = others.collect();
    let good = "none that was shown here ends soon";
    checks.push(all_of("certificates of others", &others, good));
    let good = "this node's and those it hears of agree";
    checks.push(all_of("wall clocks", &wall_clocks(member), good));
    checks.push(match (member.removal(), member.leases.leader()) {
        (Some(removed), _) => error("quorum", removed),
        (None, Some(_)) => ok("quorum", "a leader is known"),
        (None, None) => error("quorum", "no leader is known"),
    });
    checks.push(match member.raft.store.disk().failure() {
        None => ok("disk", "the log is synced"),
        Some(why) => error("disk", why),
    });
    checks.push(if member.raft.store.is_in_doubt() {
        error("votes", vip_raft::DOUBT.to_owned())
    } else {
        ok("votes", "none is lost")
    });
    checks.push(all_of("VIPs here", &hindered(member, &state), "nothing hinders any"));
    let good = "nobody else is heard to claim one";
    checks.push(all_of("copies of VIPs", &copies(member, &state), good));
    checks.extend(reachability(member, &state).await);
    checks
}

/// VIPs that this host could not hold: on the wrong interface, or none, or its own
/// address.
fn hindered(member: &Member, state: &State) -> Vec<String> {
    let me = member.meta.node;
    let vips = state.vips_by_name().into_iter();
    let here = vips.filter_map(|vip| {
        let why = state.obstacles.get(&vip.uid)?.get(&me)?;
        Some(format!("{} cannot be here: {why}", vip.spec.name))
    });
    here.collect()
}

/// Addresses of VIPs that somebody else claims, as this host hears.
fn copies(member: &Member, state: &State) -> Vec<String> {
    let me = member.meta.node;
    let vips = state.vips_by_name().into_iter();
    let heard = vips.filter_map(|vip| {
        let what = state.conflicts.get(&vip.uid)?.get(&me)?;
        Some(format!("{} claims {} of {}", claimant(state, what.mac), what.ip, vip.spec.name))
    });
    heard.collect()
}

/// There and back, for every other member at once.
async fn reachability(member: &Member, state: &State) -> Vec<Check> {
    let others = state.nodes.values().filter(|node| node.id != member.meta.node);
    join_all(others.map(|node| there_and_back(member, node))).await
}

async fn there_and_back(member: &Member, node: &Node) -> Check {
    let (name, begun) = (format!("to {}", node.name), Instant::now());
    let mut client = ClusterClient::new(member.peers.patient_channel(node.id, &node.advertise));
    if let Err(why) = reached(&mut client).await {
        return error(&name, format!("{} does not answer: {why}", node.advertise));
    }
    let took = begun.elapsed();
    if node.state == NodeState::Joining {
        return warning(&name, "it is there, and has not joined yet");
    }
    let mut request = tonic::Request::new(v1::LookBackRequest {});
    request.set_timeout(LOOK_BACK);
    match client.look_back(request).await {
        Ok(_) => ok(&name, format!("there and back; {} ms for a new connection", took.as_millis())),
        Err(status) => error(&name, format!("it is there, and says: {}", status.message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chronys_limit_is_read_from_its_configuration() {
        assert!(chrony_slews_at_most("pool example.net iburst\n") > 80_000.0);
        let set = "# maxslewrate 1\nmaxslewrate 500\n";
        assert!((chrony_slews_at_most(set) - 500.0).abs() < 1e-9);
    }

    #[test]
    fn a_kernels_release_begins_with_its_version() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.5"), Some((6, 18)));
        assert_eq!(version("next"), None);
        assert!((6, 18) >= KERNEL && (6, 1) < KERNEL && (7, 0) >= KERNEL);
    }
}
