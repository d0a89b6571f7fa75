//! Faults at random for a given time: rounds of faults, healing and a look at
//! everything that must hold.
//!
//! What must hold, of every round, seen from outside:
//! - **One holder at a time.** The hosts that answered the probe, which asks
//!   each of them every millisecond, come in the order in which the log gave
//!   them the VIP. Two that answer at a time break it at once.
//! - **Epochs only rise.**
//! - **The admin API is linearizable.**
//! - **Progress.** Soon after the faults are healed all nodes agree, and the VIP
//!   answers.
//! - **No orphans.** Then the holder alone has the address.
//! - **Connections live on.** Those from before any change of the real servers are there,
//!   with whom they had, and new ones come about.

use crate::capture::Capture;
use crate::clients::Clients;
use crate::cluster::{Cluster, Options};
use crate::command::{wait_for, within};
use crate::fault::{Fault, Faults};
use crate::host::{Control, Host, Process};
use crate::linear::{Answer, linearizable};
use crate::net::Mac;
use crate::probe::{Probe, Trace};
use crate::service::Service;
use crate::strangers::Strangers;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const MEMBERS: [&str; 3] = ["n1", "n2", "n3"];
/// The host of the strangers.
const STRANGERS: &str = "strangers";
/// Joins and leaves during faults.
const GUEST: &str = "n4";
/// Everything is well again within this after the faults are healed; a killed
/// host has to start, and its promises of before have to run out.
const RECOVERY: Duration = Duration::from_secs(10);
/// A command that ought to succeed.
const COMMAND: &str = "15s";

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides which faults, where, when and for how long.
    pub seed: u64,
    /// No round begins after this.
    pub lasting: Duration,
    /// Timing profile of the cluster.
    pub profile: String,
    /// Strangers bother every member's port all the while. Nobody joins or
    /// leaves then: who is to join is a stranger, too.
    pub strangers: bool,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Rounds without anything wrong.
    pub rounds: u64,
    /// Faults, by their kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Echo replies looked at.
    pub replies: u64,
    /// Changes of the answering host.
    pub takeovers: u64,
    /// Epochs of the VIP.
    pub epochs: u64,
    /// Commands of the admin API whose history was checked.
    pub commands: u64,
    /// Of those, how many nobody answered.
    pub unanswered: u64,
    /// Members that joined or left during faults.
    pub memberships: u64,
    /// The most memory that an agent had at the end of a round, bytes.
    pub memory: u64,
    /// From the heal to everything being well, each round's.
    pub recoveries: Vec<Duration>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.recoveries.clone();
        sorted.sort();
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let worst = sorted.last().copied().unwrap_or_default();
        writeln!(f, "rounds {}, faults {}", self.rounds, self.faults.values().sum::<u64>())?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {kind:26} {count}")?;
        }
        writeln!(f, "replies looked at {}", self.replies)?;
        writeln!(f, "takeovers {}, epochs {}", self.takeovers, self.epochs)?;
        writeln!(f, "joins and leaves {}", self.memberships)?;
        writeln!(f, "an agent's memory {} MB at most", self.memory >> 20)?;
        writeln!(f, "commands {}, of them unanswered {}", self.commands, self.unanswered)?;
        write!(f, "well again after {middle:.1?} (median), {worst:.1?} (worst)")
    }
}

/// How long an agent may take to write what it decided.
const WRITTEN: Duration = Duration::from_secs(3);

/// Runs it. `tell` is told of each round.
///
/// # Errors
/// Something that must hold did not; the files of the run are left, and the
/// message says where and how to do it again.
pub fn run(plan: &Plan, mut tell: impl FnMut(&str)) -> Result<Summary> {
    let mut run = Run::new(plan)?;
    let until = Instant::now() + plan.lasting;
    while Instant::now() < until {
        let round = run.summary.rounds + 1;
        let result = run.round(round, &mut tell);
        if let Err(error) = result {
            // What each agent decided, as files in its data directory.
            let running = |host: &&Host| host.signal(&[Process::Agent], Signal::SIGUSR1).is_ok();
            let asked: Vec<_> = run.cluster.hosts.iter().filter(running).collect();
            let written = || asked.iter().all(|host| !host.recordings().is_empty()).then_some(());
            let _ = within(WRITTEN, written);
            run.cluster.keep_files();
            let minutes = plan.lasting.as_secs().div_ceil(60);
            let again = format!("cargo xtask chaos --minutes {minutes} --seed {}", plan.seed);
            let dir = run.cluster.dir().display();
            return Err(error.context(format!(
                "round {round} of seed {}; logs and captures: {dir}; again: {again}",
                plan.seed
            )));
        }
        run.summary.rounds = round;
    }
    Ok(run.summary)
}

struct Run {
    seed: u64,
    strangers: Option<Strangers>,
    service: Service,
    cluster: Cluster,
    faults: Faults,
    /// Whether the guest is a member.
    guest: bool,
    /// The last event of earlier rounds.
    seen: u64,
    /// The holder and the epoch at the end of the last round.
    holder: Option<String>,
    epoch: u64,
    summary: Summary,
}

/// The VIP went to a node.
struct Assigned {
    to: String,
    epoch: u64,
}

impl Run {
    fn new(plan: &Plan) -> Result<Self> {
        let options =
            Options { nodes: 4, profile: plan.profile.clone(), unwell: true, ..Options::default() };
        let mut cluster = Cluster::bare(&options)?;
        cluster.host("n1").ctl_ok(&["init", "--name", "chaos"])?;
        for name in &MEMBERS[1..] {
            cluster.join(cluster.host(name), "voter")?;
        }
        cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
        let service = Service::start(&mut cluster)?;
        let strangers = plan.strangers.then(|| {
            cluster.lab.add_host(STRANGERS, 240)?;
            let ports = (1..=3).map(|last| SocketAddr::from(([10, 77, 0, last], 7400)));
            Strangers::start(&cluster.lab, STRANGERS, ports.collect())
        });
        Ok(Self {
            seed: plan.seed,
            strangers: strangers.transpose()?,
            service,
            cluster,
            faults: Faults::default(),
            guest: false,
            seen: 0,
            holder: None,
            epoch: 0,
            summary: Summary::default(),
        })
    }

    fn round(&mut self, number: u64, tell: &mut impl FnMut(&str)) -> Result<()> {
        // Each round has a seed of its own, so that its faults do not depend on
        // how long earlier ones took.
        let mut rng = fastrand::Rng::with_seed(self.seed.wrapping_mul(1_000_003) + number);
        let register = format!("reg-{number}");
        let capture = self.cluster.dir().join(format!("round-{number}.pcap"));
        let capture = Capture::start(&self.cluster.lab, &capture)?;
        let probe = Probe::start(&self.cluster.lab, VIP)?;
        let controls = MEMBERS.iter().map(|name| self.cluster.host(name).control()).collect();
        let clients = Clients::start(controls, &register, rng.u64(..));

        let mut story = vec![];
        let moving = rng.bool().then(|| self.start_move(&mut rng, &mut story));
        let changing = rng.bool().then(|| self.start_change(&mut rng, &mut story));
        let membership = rng.u8(..5) == 0 && self.strangers.is_none();
        let membership = membership.then(|| self.start_membership(&mut rng, &mut story));
        let mut left = rng.u8(1..=3);
        while left > 0 {
            left -= 1;
            let fault = choose(&mut rng);
            story.push(fault.to_string());
            *self.summary.faults.entry(fault.kind()).or_default() += 1;
            self.faults.inject(&mut self.cluster, fault)?;
            std::thread::sleep(span(&mut rng, 20, 2_500));
        }
        tell(&format!("round {number}: {}", story.join(", ")));
        self.faults.heal(&mut self.cluster)?;
        let healed = Instant::now();
        // While they are at work, so is their VIP.
        let history = clients.finish()?;
        for thread in moving.into_iter().chain(changing).chain(membership).flatten() {
            let _ = thread.join();
        }
        self.settle_membership()?;
        self.wait_until_well()?;
        self.summary.recoveries.push(healed.elapsed());
        let memory =
            MEMBERS.iter().filter_map(|name| self.cluster.host(name).memory("VmRSS:").ok());
        self.summary.memory = memory.fold(self.summary.memory, u64::max);
        let _ = self.cluster.host("n1").ctl(&["--timeout", COMMAND, "vip", "remove", &register])?;
        let trace = probe.finish()?;

        self.service.check(&self.cluster)?;
        self.check_holders(&trace)?;
        self.summary.commands += history.len() as u64;
        let unanswered = history.iter().filter(|op| op.answer == Answer::Unknown).count();
        self.summary.unanswered += unanswered as u64;
        if !linearizable(&history) {
            let mut history = history;
            history.sort_by_key(|op| op.begin_ns);
            let lines: Vec<_> = history.iter().map(ToString::to_string).collect();
            bail!("the admin API's answers fit no order:\n{}", lines.join("\n"));
        }
        capture.discard();
        Ok(())
    }

    fn start_move(&self, rng: &mut fastrand::Rng, story: &mut Vec<String>) -> Option<Worker> {
        let to = pick(rng, &MEMBERS);
        story.push(format!("move to {to}"));
        let from = self.cluster.host(pick(rng, &MEMBERS)).control();
        let after = span(rng, 1, 1_000);
        Some(std::thread::spawn(move || {
            std::thread::sleep(after);
            let _ = from.ctl(&["--timeout", "3s", "vip", "move", "web", "--to", to]);
            let _ = from.ctl(&["--timeout", "3s", "vip", "move", "web", "--auto"]);
        }))
    }

    fn start_change(&self, rng: &mut fastrand::Rng, story: &mut Vec<String>) -> Option<Worker> {
        let through = self.cluster.host(pick(rng, &MEMBERS)).control();
        let (after, change) = (span(rng, 1, 1_000), Service::prepare(rng));
        story.push(format!("real {}", change.join(" ")));
        Some(std::thread::spawn(move || {
            std::thread::sleep(after);
            Service::change(&through, &change);
        }))
    }

    fn start_membership(
        &mut self,
        rng: &mut fastrand::Rng,
        story: &mut Vec<String>,
    ) -> Option<Worker> {
        let guest = self.cluster.host(GUEST).control();
        let after = span(rng, 1, 1_000);
        self.summary.memberships += 1;
        if self.guest {
            self.guest = false;
            story.push(format!("{GUEST} leaves"));
            return Some(std::thread::spawn(move || {
                std::thread::sleep(after);
                let _ = guest.ctl(&["--timeout", "5s", "leave"]);
            }));
        }
        let role = pick(rng, &["voter", "learner", "witness"]);
        story.push(format!("{GUEST} joins as {role}"));
        let token = self.cluster.token(role).ok()?;
        self.guest = true;
        Some(std::thread::spawn(move || {
            std::thread::sleep(after);
            let _ = join(&guest, &token, "5s");
        }))
    }

    /// What the guest began during the faults is brought to an end.
    fn settle_membership(&mut self) -> Result<()> {
        let guest = self.cluster.host(GUEST).control();
        let is_member = guest.ctl(&["--timeout", COMMAND, "status"])?.code == Some(0);
        if is_member == self.guest {
            return Ok(());
        }
        if self.guest {
            // It may have been admitted and not know.
            let remove = ["--timeout", COMMAND, "node", "remove", GUEST];
            let _ = self.cluster.host("n1").ctl(&remove)?;
            let token = self.cluster.token("voter")?;
            return join(&guest, &token, COMMAND).context("a join after the faults");
        }
        // It may have been removed and not know.
        let left = guest.ctl(&["--timeout", COMMAND, "leave"])?;
        if left.code == Some(0) {
            return Ok(());
        }
        let forced = guest.ctl(&["--timeout", COMMAND, "leave", "--force"])?;
        forced.ok().context("leaving after the faults")?;
        let remove = ["--timeout", COMMAND, "node", "remove", GUEST];
        self.cluster.host("n1").ctl(&remove).map(|_| ())
    }

    /// All members say the same, the VIP answers, and only where it should.
    fn wait_until_well(&self) -> Result<()> {
        let names: Vec<&str> = MEMBERS.into_iter().chain(self.guest.then_some(GUEST)).collect();
        let mut why = String::new();
        let well = wait_for("everything is well again", RECOVERY, || {
            match self.unwell(&names) {
                Ok(None) => return Some(()),
                Ok(Some(what)) => why = what,
                Err(error) => why = format!("{error:#}"),
            }
            None
        });
        well.context(why)
    }

    /// What is not well, if something is not.
    fn unwell(&self, names: &[&str]) -> Result<Option<String>> {
        let mut first = None;
        for name in names {
            let status = self.cluster.status(name)?;
            let bad = status.nodes.iter().find(|(_, state)| state != "active");
            if let Some((node, state)) = bad {
                return Ok(Some(format!("{name} says that {node} is {state}")));
            }
            if !status.quorum || status.nodes.len() != names.len() {
                return Ok(Some(format!("{name} says {status:?}")));
            }
            let leader = (status.leader.clone(), status.vips.clone());
            if *first.get_or_insert(leader.clone()) != leader {
                return Ok(Some(format!("{name} says {leader:?}, another one {first:?}")));
            }
        }
        let shown = self.cluster.host("n2").ctl_json(&["vip", "show", "web"])?;
        if shown["answers"] != true {
            return Ok(Some("nobody answers for the VIP".into()));
        }
        for name in names {
            let there = self.cluster.lab.has_address(name, "10.77.0.100")?;
            if there != (shown["holder"] == *name) {
                return Ok(Some(format!("the address is on {name}: {there}; {shown}")));
            }
        }
        Ok(None)
    }

    /// To whom the log gave the VIP since the last round. A node tells the
    /// events that it has applied itself, which may be some time after the
    /// leader did.
    fn assigned(&mut self) -> Result<Vec<Assigned>> {
        let present = within(RECOVERY, || {
            let status = self.cluster.host("n1").ctl_json(&["status"]).ok()?;
            let vips = status["vips"].as_array().filter(|_| status["fresh"] == true)?;
            vips.iter().find(|vip| vip["name"] == "web")?["epoch"].as_u64()
        });
        let present = present.context("no leader tells the epoch")?;
        let mut all = vec![];
        within(RECOVERY, || {
            let more = self.new_events();
            let result = more.map(|more| all.extend(more));
            let epoch = all.last().map_or(self.epoch, |a: &Assigned| a.epoch);
            (result.is_err() || epoch >= present).then_some(result)
        })
        .with_context(|| format!("no event of epoch {present}"))??;
        Ok(all)
    }

    fn new_events(&mut self) -> Result<Vec<Assigned>> {
        let text = self.cluster.host("n1").ctl_ok(&["-o", "json", "events"])?;
        let mut all = vec![];
        for line in text.lines() {
            let event: serde_json::Value = serde_json::from_str(line)?;
            let seq = event["seq"].as_u64().context("an event's number")?;
            if seq <= self.seen {
                continue;
            }
            ensure!(self.seen == 0 || seq == self.seen + 1, "events are missing before {seq}");
            self.seen = seq;
            if event["kind"] == "vip-assigned" && event["vip"] == "web" {
                let epoch = event["epoch"].as_u64().context("an epoch")?;
                let to = event["node"].as_str().context("a node")?.to_owned();
                all.push(Assigned { to, epoch });
            }
        }
        Ok(all)
    }

    /// The hosts that answered are those of the log, in its order.
    fn check_holders(&mut self, trace: &Trace) -> Result<()> {
        let assigned = self.assigned()?;
        for next in &assigned {
            ensure!(next.epoch > self.epoch, "epoch {} after {}", next.epoch, self.epoch);
            self.epoch = next.epoch;
        }
        let given = assigned.iter().map(|a| &a.to);
        let allowed: Vec<String> = self.holder.iter().chain(given).cloned().collect();
        let macs = self.cluster.macs()?;
        let name = |mac: Mac| macs.iter().find(|(_, m)| *m == mac).map(|(name, _)| name.clone());
        // The foreign host is nobody's holder.
        let is_ours = |mac| name(mac).is_some();
        let ours = Trace {
            asked: trace.asked,
            replies: trace.replies.iter().filter(|r| is_ours(r.from)).copied().collect(),
            claims: trace.claims.iter().filter(|c| is_ours(c.from)).copied().collect(),
        };
        let answered: Vec<String> = ours.claimants().into_iter().filter_map(name).collect();
        ensure!(
            in_order(&answered, &allowed),
            "answered, or claimed it by ARP: {answered:?}; the log gave the VIP to {allowed:?}"
        );
        self.summary.replies += ours.replies.len() as u64;
        self.summary.takeovers += answered.len().saturating_sub(1) as u64;
        self.summary.epochs = self.epoch;
        if let Some(last) = assigned.last() {
            self.holder = Some(last.to.clone());
        }
        Ok(())
    }
}

/// Whether those who answered are among those whom the log gave the VIP, in the
/// same order. Some may never have answered.
fn in_order(answered: &[String], given: &[String]) -> bool {
    let mut given = given.iter();
    answered.iter().all(|host| given.any(|next| next == host))
}

type Worker = std::thread::JoinHandle<()>;

fn join(guest: &Control, token: &str, timeout: &str) -> Result<()> {
    let mut last = None;
    // Any member will do.
    for last_octet in 1..=3 {
        let address = format!("10.77.0.{last_octet}:7400");
        let join = ["--timeout", timeout, "join", &address, "--token-file", token];
        let outcome = guest.ctl(&join)?;
        if outcome.code == Some(0) {
            return Ok(());
        }
        last = Some(outcome);
    }
    last.context("no member")?.ok().map(|_| ())
}

fn pick<'a>(rng: &mut fastrand::Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

/// Between `low` and `high` ms; short ones as often as long ones.
fn span(rng: &mut fastrand::Rng, low: u32, high: u32) -> Duration {
    let ratio = f64::from(high) / f64::from(low);
    Duration::from_millis(u64::from(low)).mul_f64(ratio.powf(rng.f64()))
}

fn choose(rng: &mut fastrand::Rng) -> Fault {
    let host = pick(rng, &MEMBERS).to_owned();
    let others: Vec<&str> = MEMBERS.into_iter().filter(|n| *n != host).collect();
    let other = pick(rng, &others).to_owned();
    let both = [Process::Agent, Process::Guard];
    let some = match rng.u8(..3) {
        0 => vec![both[0]],
        1 => vec![both[1]],
        _ => both.to_vec(),
    };
    match rng.u8(..18) {
        0 => Fault::Kill(host, some),
        1 => Fault::PowerOff(host),
        2 => Fault::RestartAndCut(host, other),
        3 | 4 => Fault::Stop(host, some),
        5 => Fault::Freeze(host),
        6 => Fault::Isolate(host),
        7 => Fault::Unplug(host),
        8 => Fault::Deaf(host),
        9 => Fault::Mute(host),
        10 => Fault::CutPair(host, other),
        11 => Fault::Loss(rng.u8(1..=30)),
        12 => Fault::Duplication(rng.u8(1..=50)),
        13 => {
            if rng.bool() {
                Fault::LoseAnnouncements
            } else {
                Fault::ForeignHost
            }
        }
        14 | 15 => {
            // From what nobody notices to what costs a node its VIPs.
            let spans = [5, 50, 300, 1500].map(Duration::from_millis);
            Fault::SlowDisk(host, spans[rng.usize(0..spans.len())])
        }
        16 => Fault::Replace(host),
        _ => Fault::Busy(rng.u8(1..=8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(answered: &str, given: &str) -> bool {
        let hosts = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        in_order(&hosts(answered), &hosts(given))
    }

    #[test]
    fn whoever_answers_was_given_the_vip_at_that_time() {
        assert!(order("n1 n2", "n1 n2"));
        assert!(order("n1 n3 n1", "n1 n2 n3 n2 n1"));
    }

    #[test]
    fn two_that_answer_in_turn_within_one_epoch_are_found() {
        assert!(!order("n1 n2 n1", "n1 n2"));
        assert!(!order("n1 n2 n1 n2", "n1 n2 n1"));
        assert!(!order("n3", "n1 n2"));
    }
}
