//! `cargo xtask demo`: the main job, on one machine, for a person to watch.

use crate::packages::{CC, IP, install};
use crate::shell::{become_root, run as call};
use anyhow::{Context, Result, bail};
use chaos_tests::{Cluster, Mac, Options, Probe, Reply, binaries, wait_for};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// How long the VIP is watched before and after each thing that happens.
const WATCH: Duration = Duration::from_millis(1500);
/// Shorter silences are between two probes or a busy machine.
const NOTABLE: Duration = Duration::from_millis(20);
const TAKEOVER: Duration = Duration::from_secs(10);

struct Demo {
    cluster: Cluster,
    begin: Instant,
    begin_ns: u64,
    notes: Vec<(u64, String)>,
    stopped: Arc<AtomicBool>,
}

pub(crate) fn run(keep: bool) -> Result<()> {
    call("cargo", &["build", "--locked", "-p", "vipd", "-p", "vipctl"])?;
    become_root()?;
    install(&[CC, IP])?;
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stopped.clone())?;
    }
    println!("three hosts, a client and a switch, in network namespaces …");
    let cluster = Cluster::bare(&Options::default())?;
    let begin_ns = now_ns()?;
    let notes = vec![];
    let mut demo = Demo { cluster, begin: Instant::now(), begin_ns, notes, stopped };
    demo.form()?;
    let failed = demo.story()?;
    if keep {
        demo.keep()?;
    }
    if failed { bail!("the old holder answered after the new one") } else { Ok(()) }
}

fn now_ns() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(u64::try_from(now.as_nanos())?)
}

impl Demo {
    fn note(&mut self, text: String) -> Result<()> {
        println!("  {:6.2} s  {text}", self.begin.elapsed().as_secs_f64());
        self.notes.push((now_ns()?, text));
        if self.stopped.load(Ordering::Relaxed) {
            bail!("stopped; everything that was made is removed");
        }
        Ok(())
    }

    fn watch(&self) -> Result<()> {
        let until = Instant::now() + WATCH;
        while Instant::now() < until {
            if self.stopped.load(Ordering::Relaxed) {
                bail!("stopped; everything that was made is removed");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn form(&mut self) -> Result<()> {
        self.cluster.host("n1").ctl_ok(&["init", "--name", "demo"])?;
        self.note("n1: vipctl init".into())?;
        for name in ["n2", "n3"] {
            let host = self.cluster.host(name);
            self.cluster.join(host, "voter")?;
            self.note(format!("{name}: vipctl join, with a single-use token"))?;
        }
        let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--address", "fd77::100/64"];
        self.cluster.host("n1").ctl_ok(&add)?;
        self.note("VIP web (10.77.0.100, fd77::100) was added".into())
    }

    fn holder(&self, from: &str) -> Result<String> {
        let status = self.cluster.wait_until_settled(from)?;
        status.vips.first().and_then(|v| v.1.clone()).context("nobody holds the VIP")
    }

    fn takeover(&self, from: &str, old: &str) -> Result<String> {
        wait_for("a takeover", TAKEOVER, || {
            let json = self.cluster.host(from).ctl_json(&["vip", "show", "web"]).ok()?;
            let holder = json["holder"].as_str()?.to_owned();
            (json["answers"].as_bool()? && holder != old).then_some(holder)
        })
    }

    fn other(old: &[&str]) -> &'static str {
        ["n1", "n2", "n3"].into_iter().find(|n| !old.contains(n)).unwrap_or("n1")
    }

    fn story(&mut self) -> Result<bool> {
        let macs = self.cluster.macs()?;
        let probe = Probe::start(&self.cluster.lab, VIP)?;
        self.watch()?;

        let first = self.holder("n1")?;
        self.note(format!("the power of {first} fails"))?;
        self.cluster.lab.cable(&first, false)?;
        self.cluster.host_mut(&first).kill_all();
        let second = self.takeover(Self::other(&[&first]), &first)?;
        self.note(format!("{second} holds the VIP"))?;
        self.watch()?;

        self.note(format!("{first} is started again"))?;
        self.cluster.lab.cable(&first, true)?;
        self.cluster.host_mut(&first).start()?;
        let leader = second.clone();
        self.cluster.wait_for_status(&first, "it follows", |s| {
            (s.leader.as_ref() == Some(&leader)).then_some(())
        })?;
        self.watch()?;

        self.note(format!("{second} is cut off; its link stays up"))?;
        self.cluster.lab.isolate(&second)?;
        let third = self.takeover(Self::other(&[&second]), &second)?;
        self.note(format!("{third} holds the VIP"))?;
        self.watch()?;

        self.note(format!("{second} is connected again"))?;
        self.cluster.lab.heal(&second)?;
        let leader = third.clone();
        self.cluster.wait_for_status(&second, "it follows", |s| {
            (s.leader.as_ref() == Some(&leader)).then_some(())
        })?;
        self.watch()?;

        self.note(format!("vipctl vip move web --to {second}"))?;
        self.cluster.host(&first).ctl_ok(&["vip", "move", "web", "--to", &second])?;
        self.note(format!("{second} holds the VIP"))?;
        self.watch()?;

        let trace = probe.finish()?;
        Ok(self.timeline(&trace, &macs))
    }

    /// Prints it; returns whether somebody answered who should not have.
    fn timeline(&self, trace: &chaos_tests::Trace, macs: &[(String, Mac)]) -> bool {
        let name = |mac: Mac| {
            let known = macs.iter().find(|(_, m)| *m == mac);
            known.map_or_else(|| format!("{mac:?}"), |(name, _)| name.clone())
        };
        let at = |ns: u64| Duration::from_nanos(ns.saturating_sub(self.begin_ns)).as_secs_f64();
        let mut lines: Vec<(u64, String)> =
            self.notes.iter().map(|(ns, text)| (*ns, text.clone())).collect();
        for outage in trace.outages(NOTABLE).into_iter().chain(trace.changes()) {
            let (from, to) = (name(outage.before), name(outage.after));
            let text =
                format!("    on the wire: {from} -> {to}, {:.1} ms without an answer", outage.ms());
            if !lines.contains(&(outage.to_ns, text.clone())) {
                lines.push((outage.to_ns, text));
            }
        }
        lines.sort();
        println!("\nTimeline (probed at 1 kHz; who answered is told by its Ethernet address)\n");
        for (ns, text) in lines {
            println!("  {:7.3} s  {text}", at(ns));
        }
        let order: Vec<String> = trace.holders().into_iter().map(&name).collect();
        println!("\n{} answers, in this order: {}", trace.replies.len(), order.join(", "));
        let expected = self.expected_changes();
        let overlap = order.len() != expected + 1;
        if overlap {
            println!(
                "A host answered out of turn: {} changes, {expected} expected.",
                order.len() - 1
            );
        } else {
            println!("No holder answered after the next one had begun.");
        }
        first_and_last(&trace.replies);
        overlap
    }

    fn expected_changes(&self) -> usize {
        self.notes.iter().filter(|(_, text)| text.ends_with("holds the VIP")).count()
    }

    fn keep(&mut self) -> Result<()> {
        let socket = self.cluster.host("n1").dir().join("admin.sock");
        let vipctl = binaries()?.join("vipctl");
        println!("\nIt goes on until ctrl-C. In another terminal, as root:\n");
        println!("  {} --socket {} status", vipctl.display(), socket.display());
        println!(
            "  ip netns exec {} bash     # be the client",
            self.cluster.lab.namespace("client")
        );
        println!("  ls {}     # logs and sockets of n1, n2, n3", self.cluster.dir().display());
        while !self.stopped.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

fn first_and_last(replies: &[Reply]) {
    if let (Some(first), Some(last)) = (replies.first(), replies.last()) {
        let span = Duration::from_nanos(last.at_ns - first.at_ns);
        println!("Probed for {:.1} s.", span.as_secs_f64());
    }
}
