//! What can be said of a virtual server, and what it is in messages.

use crate::otherwise;
use clap::Args;
use std::time::Duration;
use vip_core::{Engine, Forward, Protocol, Scheduler};
use vip_proto::v1;

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").multiple(true))]
pub(crate) struct VsAdd {
    /// Its name.
    pub(crate) name: String,
    /// The VIP.
    #[arg(long)]
    pub(crate) vip: String,
    /// A port, a range P-Q, or any.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: String,
    /// tcp or udp.
    #[arg(long, default_value = "tcp")]
    pub(crate) protocol: Protocol,
    /// mh: by a client's address and port, the same on every node; sh: by its address
    /// alone.
    #[arg(long, default_value = "mh")]
    pub(crate) scheduler: Scheduler,
    /// dr: packets as they came, replies go past the holder; nat: rewritten, replies come
    /// back by it; auto: dr where every real server is on the VIP's subnet and has its port.
    #[arg(long, default_value = "auto")]
    pub(crate) forward: Forward,
    /// What forwards: ebpf, the lease gate's program.
    #[arg(long, default_value = "auto")]
    pub(crate) engine: Engine,
    /// A client stays with its real server: as --scheduler sh, which forgets nobody, so how
    /// long does not matter.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[arg(conflicts_with = "scheduler")]
    pub(crate) persistence: Option<Duration>,
    /// Slots of its table, for good: 1021, 4093, 16381 or 65521.
    #[arg(long, value_name = "SLOTS")]
    pub(crate) table_size: Option<u32>,
    /// A real server, or by a DNS name all that it has addresses of.
    #[arg(long = "real", value_name = "ADDR|NAME[:PORT][@WEIGHT]")]
    pub(crate) reals: Vec<String>,
    /// Instead: every active member is one, at this port.
    #[arg(long, value_name = "PORT", conflicts_with = "reals")]
    pub(crate) real_nodes: Option<u32>,
    #[command(flatten)]
    pub(crate) check: CheckFlags,
    #[command(flatten)]
    pub(crate) policy: PolicyFlags,
    /// Return without waiting for what observers see first.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// How the real servers of a virtual one are checked.
#[derive(Args)]
pub(crate) struct CheckFlags {
    /// tcp: a connection is opened; http:/PATH or https:/PATH: a page is asked for;
    /// grpc or grpc:SERVICE: gRPC's own question of health; dns:NAME/TYPE: a name is asked for, by
    /// UDP; udp:HEX: a datagram is sent; icmp: an echo is asked for;
    /// exec:NAME,ARGUMENT,...: a program of that name is run, where root put it on the nodes;
    /// none: real servers are up while their administrator says so.
    #[arg(long, value_name = "KIND", group = "what")]
    pub(crate) check: Option<String>,
    /// http: statuses, such as 200-299,304 (200-299); dns: what one of the records says (there
    /// is one); udp: bytes in hex that the reply begins with, any, or none: silence is well
    /// (any). "" here and below: as usual.
    #[arg(long, value_name = "WHAT", group = "what")]
    pub(crate) check_expect: Option<String>,
    /// http: GET, HEAD, OPTIONS or POST; GET.
    #[arg(long, value_name = "METHOD", group = "what")]
    pub(crate) check_method: Option<String>,
    /// http: whom is asked for; the real server's address.
    #[arg(long, value_name = "HOST", group = "what")]
    pub(crate) check_host: Option<String>,
    /// http: a header more. No secret: the log keeps it.
    #[arg(long, value_name = "NAME: VALUE", group = "what")]
    pub(crate) check_header: Vec<String>,
    /// http: a text that stands in the first 64 KiB of the answer.
    #[arg(long, value_name = "TEXT", group = "what")]
    pub(crate) check_body: Option<String>,
    /// http: SHA-256 of the answer's body, of at most 64 KiB.
    #[arg(long, value_name = "HEX", group = "what")]
    pub(crate) check_digest: Option<String>,
    /// https, grpc: verify: by the roots that the observers' hosts trust; skip: any
    /// certificate; sha256:HEX, or several with commas: one of these. verify; grpc: no TLS without
    /// a word of it.
    #[arg(long, value_name = "TRUST", group = "what")]
    pub(crate) check_tls: Option<String>,
    /// https, grpc: the name that the certificate has to have; that of --check-host.
    #[arg(long, value_name = "NAME", group = "what")]
    pub(crate) check_sni: Option<String>,
    /// From the start of a probe to that of the next; 2s. After a failure four times as
    /// often.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, group = "what")]
    pub(crate) check_interval: Option<Duration>,
    /// A probe without an answer has failed after it; 1s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, group = "what")]
    pub(crate) check_timeout: Option<Duration>,
    /// Successes in a row that make a real server up; 1.
    #[arg(long, value_name = "COUNT", group = "what")]
    pub(crate) check_rise: Option<u32>,
    /// Failures in a row that make one down; 3.
    #[arg(long, value_name = "COUNT", group = "what")]
    pub(crate) check_fall: Option<u32>,
    /// From its first probe on, a real server that was never up is not called down before; 0s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, group = "what")]
    pub(crate) check_grace: Option<Duration>,
    /// A real server that comes back, or is new beside others, has its whole share of new
    /// connections after so long, in four steps; 0s: at once.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, group = "what")]
    pub(crate) check_slow_start: Option<Duration>,
    /// Another port than that of connections; 0: that one.
    #[arg(long, value_name = "PORT", group = "what")]
    pub(crate) check_port: Option<u32>,
    /// One real server is checked otherwise than the others: WORD is check, port, expect, method,
    /// host, header, body, digest, tls or sni. Without a word, as in `10.0.0.1=`: as the others again.
    #[arg(long, value_name = "ADDR[:PORT]=WORD=VALUE", value_parser = otherwise::parse, group = "what")]
    pub(crate) check_of: Vec<v1::RealCheck>,
    /// The nodes that can reach the real servers; all: each that is active.
    #[arg(long, value_name = "NODE,...", value_delimiter = ',', group = "what")]
    pub(crate) observe: Vec<String>,
}

/// What becomes of a virtual server when too few of its real servers are up.
#[derive(Args)]
pub(crate) struct PolicyFlags {
    /// With fewer real servers up it counts as down, and with HYSTERESIS more it is back; 1,0.
    #[arg(long, value_name = "N[,HYSTERESIS]", group = "what")]
    pub(crate) quorum_up: Option<String>,
    /// It takes everybody while the virtual server counts as down; "": none.
    #[arg(long, value_name = "ADDR[:PORT]", group = "what")]
    pub(crate) sorry: Option<String>,
    /// Without a sorry server: drop, or keep-last: to those that were up last.
    #[arg(long, value_name = "HOW", group = "what")]
    pub(crate) all_down: Option<String>,
    /// Connections of a real server that is down: leave.
    #[arg(long, value_name = "HOW", group = "what")]
    pub(crate) on_down: Option<String>,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct VsSet {
    /// Its name.
    pub(crate) name: String,
    /// Another VIP.
    #[arg(long, group = "what")]
    pub(crate) vip: Option<String>,
    /// A port, a range P-Q, or any.
    #[arg(long, value_name = "PORT", group = "what")]
    pub(crate) port: Option<String>,
    /// tcp or udp.
    #[arg(long, group = "what")]
    pub(crate) protocol: Option<Protocol>,
    /// mh or sh.
    #[arg(long, group = "what")]
    pub(crate) scheduler: Option<Scheduler>,
    /// dr or nat; auto: as it was decided.
    #[arg(long, group = "what")]
    pub(crate) forward: Option<Forward>,
    /// What forwards.
    #[arg(long, group = "what")]
    pub(crate) engine: Option<Engine>,
    /// The size that its table has: another one would move nearly every connection.
    #[arg(long, value_name = "SLOTS", group = "what")]
    pub(crate) table_size: Option<u32>,
    /// All real servers, and names of such, that it is to have.
    #[arg(long = "real", value_name = "ADDR|NAME[:PORT][@WEIGHT]", group = "what")]
    pub(crate) reals: Vec<String>,
    /// Instead: every active member is one, at this port.
    #[arg(long, value_name = "PORT", conflicts_with = "reals", group = "what")]
    pub(crate) real_nodes: Option<u32>,
    #[command(flatten)]
    pub(crate) check: CheckFlags,
    #[command(flatten)]
    pub(crate) policy: PolicyFlags,
    /// Where check or real servers change: return without waiting for what observers see first.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

impl From<VsAdd> for v1::AddServerRequest {
    fn from(add: VsAdd) -> Self {
        let scheduler = add.persistence.map_or(add.scheduler, |_| Scheduler::Sh);
        let spec = v1::ServerSpec {
            name: add.name,
            vip: add.vip,
            ports: add.port,
            protocol: v1::Protocol::from(add.protocol).into(),
            scheduler: v1::Scheduler::from(scheduler).into(),
            forward: v1::Forward::from(add.forward).into(),
            engine: v1::Engine::from(add.engine).into(),
            table_size: add.table_size,
            reals: add.reals,
            real_nodes: add.real_nodes,
            check: check(add.check),
            policy: policy(add.policy),
        };
        Self { spec: Some(spec), no_wait: add.no_wait }
    }
}

impl From<VsSet> for v1::SetServerRequest {
    fn from(set: VsSet) -> Self {
        Self {
            name: set.name,
            vip: set.vip,
            ports: set.port,
            protocol: set.protocol.map(|one| v1::Protocol::from(one).into()),
            scheduler: set.scheduler.map(|one| v1::Scheduler::from(one).into()),
            forward: set.forward.map(|one| v1::Forward::from(one).into()),
            engine: set.engine.map(|one| v1::Engine::from(one).into()),
            table_size: set.table_size,
            reals: set.reals,
            real_nodes: set.real_nodes,
            check: check(set.check),
            policy: policy(set.policy),
            no_wait: set.no_wait,
        }
    }
}

/// What is said of checks, if something is.
fn check(flags: CheckFlags) -> Option<v1::HealthCheck> {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let check = v1::HealthCheck {
        kind: flags.check,
        interval_ms: flags.check_interval.map(ms),
        timeout_ms: flags.check_timeout.map(ms),
        rise: flags.check_rise,
        fall: flags.check_fall,
        port: flags.check_port,
        observe: flags.observe,
        expect: flags.check_expect,
        method: flags.check_method,
        host: flags.check_host,
        headers: flags.check_header,
        body: flags.check_body,
        digest: flags.check_digest,
        tls: flags.check_tls,
        sni: flags.check_sni,
        otherwise: flags.check_of,
        grace_ms: flags.check_grace.map(ms),
        slow_start_ms: flags.check_slow_start.map(ms),
    };
    (check != v1::HealthCheck::default()).then_some(check)
}

fn policy(flags: PolicyFlags) -> Option<v1::Policy> {
    let PolicyFlags { quorum_up, sorry, all_down, on_down } = flags;
    let policy = v1::Policy { quorum_up, sorry, all_down, on_down };
    (policy != v1::Policy::default()).then_some(policy)
}
