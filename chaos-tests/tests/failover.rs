//! Whatever happens to the holder: another takes over, and the old one was
//! silent before.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Fault, Faults, Options, Probe, Process, Trace, wait_for};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Time for a takeover on a busy machine; how fast it is, the bench tells.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Three nodes, the VIP held by the leader n1 and answering.
fn cluster() -> Result<Cluster> {
    cluster_with(&Options::default())
}

fn cluster_with(options: &Options) -> Result<Cluster> {
    let cluster = Cluster::formed(options)?;
    let address = ["vip", "add", "web", "--address", "10.77.0.100/24", "--address", "fd77::100/64"];
    cluster.host("n1").ctl_ok(&address)?;
    Ok(cluster)
}

fn holder(cluster: &Cluster, seen_by: &str) -> Result<String> {
    let status = cluster.wait_until_settled(seen_by)?;
    status.vips[0].1.clone().context("held")
}

/// Each host answered in one stretch, in this order: none came back after
/// another had begun.
fn assert_order(cluster: &Cluster, trace: &Trace, expected: &[&str]) -> Result<()> {
    assert_eq!(cluster.holders(trace)?, expected);
    assert_eq!(cluster.claimants(trace)?, expected, "by ARP as well");
    Ok(())
}

fn run_until_answered(cluster: &Cluster, probe: Probe, by: &str) -> Result<Trace> {
    let mac = cluster.lab.mac(by)?;
    // Some more replies of the new holder, so that a late one of the old
    // holder would be seen.
    std::thread::sleep(Duration::from_millis(500));
    let trace = probe.finish()?;
    assert!(trace.replies.iter().any(|r| r.from == mac), "{by} answers on the wire");
    for change in trace.changes() {
        println!("outage {:.1} ms", change.ms());
    }
    Ok(trace)
}

#[test]
fn power_off_of_the_holder() -> Result<()> {
    let mut cluster = cluster()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    cluster.lab.cable("n1", false)?;
    cluster.host_mut("n1").kill_all();
    let new = cluster.wait_for_takeover("n3", "n1")?;
    let trace = run_until_answered(&cluster, probe, &new)?;
    assert_order(&cluster, &trace, &["n1", &new])
}

/// The client reaches the VIP, so the probe runs.
fn wait_for_replies(cluster: &Cluster) -> Result<()> {
    let neighbour = || {
        let all = cluster.lab.ip("client", &["neigh", "show", "10.77.0.100"]).ok()?;
        all.contains("lladdr").then_some(())
    };
    wait_for("the client knows the VIP", TAKEOVER, neighbour)?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

#[test]
fn isolation_of_the_holder_and_its_return() -> Result<()> {
    let cluster = cluster()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    cluster.lab.isolate("n1")?;
    let new = cluster.wait_for_takeover("n2", "n1")?;
    wait_for("n1 let the address go", TAKEOVER, || {
        (!cluster.lab.has_address("n1", "10.77.0.100").ok()?).then_some(())
    })?;
    cluster.lab.heal("n1")?;
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    let trace = run_until_answered(&cluster, probe, &new)?;
    assert_order(&cluster, &trace, &["n1", &new])?;
    assert_eq!(holder(&cluster, "n1")?, new, "a heal moves nothing");
    Ok(())
}

#[test]
fn a_frozen_holder_falls_silent_before_the_next_one_answers() -> Result<()> {
    let cluster = cluster()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    let both = [Process::Agent, Process::Guard];
    cluster.host("n1").signal(&both, Signal::SIGSTOP)?;
    let new = cluster.wait_for_takeover("n2", "n1")?;
    std::thread::sleep(Duration::from_millis(500));
    cluster.host("n1").signal(&both, Signal::SIGCONT)?;
    cluster.wait_for_status("n1", "n1 recovers", |s| {
        (s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    let trace = run_until_answered(&cluster, probe, &new)?;
    assert_order(&cluster, &trace, &["n1", &new])
}

/// Its grant reaches further than an election takes.
#[test]
fn a_sticky_vip_elsewhere_lives_through_the_loss_of_the_leader() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"];
    cluster.host("n1").ctl_ok(&add)?;
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    let epoch = cluster.wait_until_settled("n3")?.vips[0].2;
    cluster.lab.cable("n1", false)?;
    cluster.host_mut("n1").kill_all();
    cluster.wait_for_status("n3", "another leader", |s| {
        (s.quorum && s.leader.as_deref() != Some("n1")).then_some(())
    })?;
    let trace = run_until_answered(&cluster, probe, "n2")?;
    assert_order(&cluster, &trace, &["n2"])?;
    assert_eq!(trace.outages(Duration::from_millis(40)), [], "no answer was missing");
    let status = cluster.wait_until_settled("n3")?;
    assert_eq!(status.vips[0], ("web".into(), Some("n2".into()), epoch));
    Ok(())
}

/// Its agent lives and has quorum, so nothing but the agent's own doubt moves
/// the VIP.
#[test]
fn a_frozen_guard_alone_costs_its_node_the_vip() -> Result<()> {
    let cluster = cluster()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    cluster.host("n1").signal(&[Process::Guard], Signal::SIGSTOP)?;
    let new = cluster.wait_for_takeover("n1", "n1")?;
    cluster.host("n1").signal(&[Process::Guard], Signal::SIGCONT)?;
    // With its guard back, the leader takes the VIP again.
    assert_eq!(cluster.wait_for_takeover("n2", &new)?, "n1");
    let trace = run_until_answered(&cluster, probe, &new)?;
    assert_order(&cluster, &trace, &["n1", &new, "n1"])?;
    Ok(())
}

#[test]
fn three_hundred_vips_move_together() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    for number in 0..300 {
        let (name, address) =
            (format!("v{number}"), format!("10.78.{}.{}/32", number / 200, number % 200 + 1));
        cluster.host("n1").ctl_ok(&[
            "vip",
            "add",
            &name,
            "--address",
            &address,
            "--interface",
            "eth0",
        ])?;
    }
    let count = |cluster: &Cluster, name: &str| -> Option<usize> {
        let all = cluster.lab.ip(name, &["-o", "address", "show", "dev", "eth0"]).ok()?;
        Some(all.matches(" 10.78.").count())
    };
    // A listing is not whole while the guard refreshes what is listed.
    let wait_for_all = |cluster: &Cluster, old: &str| {
        wait_for("all of them to be on one of the others", TAKEOVER, || {
            let mut others = ["n1", "n2", "n3"].into_iter().filter(|name| *name != old);
            others.find(|name| count(cluster, name) == Some(300))
        })
    };
    assert_eq!(wait_for_all(&cluster, "")?, "n1");

    cluster.host("n1").ctl_ok(&["node", "drain", "n1"])?;
    let holder = wait_for_all(&cluster, "n1")?;
    let vips = cluster.host(holder).ctl_json(&["vip", "list"])?;
    let epochs: BTreeSet<_> =
        vips.as_array().into_iter().flatten().map(|v| v["epoch"].as_u64()).collect();
    assert_eq!(epochs, [Some(2)].into(), "each moved once");
    for name in ["n1", "n2", "n3"] {
        let sessions = cluster.host(name).log().matches("guard connected").count();
        assert_eq!(sessions, 1, "the guard of {name} kept up");
    }

    cluster.host("n1").ctl_ok(&["node", "undrain", "n1"])?;
    cluster.lab.cable(holder, false)?;
    cluster.host_mut(holder).kill_all();
    wait_for_all(&cluster, holder)?;
    Ok(())
}

/// The host lives, so it may get the VIP back; but its gate was shut at once.
#[test]
fn a_killed_agent_alone_costs_little_and_leaks_nothing() -> Result<()> {
    let cluster = cluster()?;
    let agent = cluster.host("n1").find(Process::Agent).context("runs")?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    let before = cluster.wait_until_settled("n2")?.vips[0].2;
    let term = |host: &str| -> Result<Option<u64>> {
        Ok(cluster.host(host).ctl_json(&["status"])?["term"].as_u64())
    };
    let term_before = term("n2")?;
    cluster.host("n1").signal(&[Process::Agent], Signal::SIGKILL)?;
    cluster.host("n1").wait_for_process(Process::Agent, agent)?;
    let after = wait_for("a new epoch that answers", TAKEOVER, || {
        let json = cluster.host("n2").ctl_json(&["vip", "show", "web"]).ok()?;
        let epoch = json["epoch"].as_u64()?;
        (json["answers"].as_bool()? && epoch > before)
            .then(|| json["holder"].as_str().map(str::to_owned))?
    })?;
    let trace = run_until_answered(&cluster, probe, &after)?;
    assert!(trace.holders().len() <= 2, "{:?}", trace.holders());
    assert!(term("n2")? > term_before, "a killed leader does not resume its term");
    Ok(())
}

#[test]
fn a_killed_guard_alone_is_replaced_and_its_addresses_are_purged() -> Result<()> {
    let cluster = cluster()?;
    let guard = cluster.host("n1").find(Process::Guard).context("runs")?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    cluster.host("n1").signal(&[Process::Guard], Signal::SIGKILL)?;
    cluster.host("n1").wait_for_process(Process::Guard, guard)?;
    let after = wait_for("a new epoch that answers", TAKEOVER, || {
        let json = cluster.host("n2").ctl_json(&["vip", "show", "web"]).ok()?;
        let epoch = json["epoch"].as_u64()?;
        (json["answers"].as_bool()? && epoch > 1)
            .then(|| json["holder"].as_str().map(str::to_owned))?
    })?;
    let trace = run_until_answered(&cluster, probe, &after)?;
    assert!(trace.holders().len() <= 2, "{:?}", trace.holders());
    Ok(())
}

#[test]
fn both_killed_with_their_parent_leave_an_orphan_that_does_not_answer() -> Result<()> {
    let mut cluster = cluster()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    cluster.host_mut("n1").kill_all();
    let new = cluster.wait_for_takeover("n2", "n1")?;
    // The address may still be there; the kernel's gate is shut all the same.
    let trace = run_until_answered(&cluster, probe, &new)?;
    assert_order(&cluster, &trace, &["n1", &new])?;
    wait_for("the kernel removes the orphan", TAKEOVER, || {
        (!cluster.lab.has_address("n1", "10.77.0.100").ok()?).then_some(())
    })?;
    // It comes back as a follower that holds nothing.
    cluster.host_mut("n1").start()?;
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    assert_eq!(holder(&cluster, "n1")?, new);
    Ok(())
}

#[test]
fn a_restart_of_all_three_at_once_brings_the_vip_back() -> Result<()> {
    let mut cluster = cluster()?;
    for name in ["n1", "n2", "n3"] {
        cluster.host_mut(name).kill_all();
    }
    for name in ["n1", "n2", "n3"] {
        cluster.host_mut(name).start()?;
    }
    let holder = cluster.wait_until_at_leader("n2")?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    let trace = run_until_answered(&cluster, probe, &holder)?;
    assert_order(&cluster, &trace, &[&holder])
}

#[test]
fn a_planned_move_and_a_stop_hand_over() -> Result<()> {
    let mut cluster = cluster()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    cluster.host("n3").ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
    let took = cluster.host_mut("n2").stop()?;
    assert!(took < Duration::from_secs(2), "SIGTERM took {took:?}");
    let new = cluster.wait_for_takeover("n3", "n2")?;
    let trace = run_until_answered(&cluster, probe, &new)?;
    assert_order(&cluster, &trace, &["n1", "n2", &new])
}

#[test]
fn a_single_voter_holds_alone() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&[
        "vip",
        "add",
        "web",
        "--address",
        "10.77.0.100/32",
        "--interface",
        "eth0",
    ])?;
    let probe = Probe::start(&cluster.lab, VIP);
    // A /32 is reached through the client's own subnet route.
    wait_for_replies(&cluster)?;
    let trace = run_until_answered(&cluster, probe?, "n1")?;
    assert_order(&cluster, &trace, &["n1"])
}

/// By the kernel's freezer, parent and all: nothing of it can notice.
#[test]
fn a_holder_in_a_frozen_cgroup_falls_silent_and_comes_back_as_a_follower() -> Result<()> {
    let mut cluster = cluster()?;
    let mut faults = Faults::default();
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    faults.inject(&mut cluster, Fault::Freeze("n1".into()))?;
    let new = cluster.wait_for_takeover("n2", "n1")?;
    faults.heal(&mut cluster)?;
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    let trace = run_until_answered(&cluster, probe, &new)?;
    assert_order(&cluster, &trace, &["n1", &new])
}

/// The agent of a follower comes back at once and reaches only one other: it
/// must not vote while what it promised before may still count. With `wan`, a
/// restart takes a tenth of a promise.
#[test]
fn a_restart_inside_a_promise_gives_no_second_holder() -> Result<()> {
    let options = Options { profile: "wan".into(), ..Options::default() };
    let mut cluster = cluster_with(&options)?;
    let mut faults = Faults::default();
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    // n3 hears nobody but n2, which refuses it for what it promised n1 ...
    faults.inject(&mut cluster, Fault::CutPair("n3".into(), "n1".into()))?;
    let asks = || cluster.host("n3").log().contains("asking for votes").then_some(());
    wait_for("n3 to ask for votes", TAKEOVER, asks)?;
    // ... until that promise is lost with its agent.
    faults.inject(&mut cluster, Fault::RestartAndCut("n2".into(), "n1".into()))?;
    let new = cluster.wait_for_takeover("n3", "n1")?;
    faults.heal(&mut cluster)?;
    let trace = run_until_answered(&cluster, probe, &new)?;
    assert_order(&cluster, &trace, &["n1", &new])
}

/// Eight busy loops and three nodes on the same machine.
#[test]
fn a_busy_machine_moves_nothing() -> Result<()> {
    let mut cluster = cluster()?;
    let mut faults = Faults::default();
    let before = cluster.wait_until_settled("n2")?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for_replies(&cluster)?;
    faults.inject(&mut cluster, Fault::Busy(8))?;
    std::thread::sleep(Duration::from_secs(10));
    faults.heal(&mut cluster)?;
    let after = cluster.wait_until_settled("n2")?;
    assert_eq!((after.leader, after.vips), (before.leader, before.vips));
    let trace = run_until_answered(&cluster, probe, "n1")?;
    assert_order(&cluster, &trace, &["n1"])
}
