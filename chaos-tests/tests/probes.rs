//! An address that somebody has already (RFC 5227): a first claim is not made,
//! with who it is; a takeover is, unless it is a member.

use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Options, Probe, wait_for};
use std::net::Ipv4Addr;
use std::time::Duration;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// The first pause after a refusal is one second, the next two.
const TRIED_AGAIN: Duration = Duration::from_secs(10);

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Adds an address by hand, as an administrator would who forgets it.
fn give(cluster: &Cluster, host: &str, address: &str) -> Result<()> {
    let arguments = ["address", "add", address, "dev", "eth0", "nodad"];
    let v4 = !address.contains(':');
    cluster.lab.ip(host, &arguments[..if v4 { 5 } else { 6 }]).map(|_| ())
}

fn take(cluster: &Cluster, host: &str, address: &str) -> Result<()> {
    cluster.lab.ip(host, &["address", "del", address, "dev", "eth0"]).map(|_| ())
}

fn wait_for_event(cluster: &Cluster, host: &str, words: &[&str]) -> Result<String> {
    wait_for(&format!("an event with {words:?}"), TRIED_AGAIN, || {
        let events = cluster.host(host).ctl_ok(&["events"]).ok()?;
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        events.lines().find(has).map(ToOwned::to_owned)
    })
}

fn answers(cluster: &Cluster) -> bool {
    let shown = cluster.host("n2").ctl_json(&["vip", "show", "web"]);
    shown.is_ok_and(|vip| vip["answers"] == true)
}

/// For both families: refused with the Ethernet address of who has it, at once;
/// nothing was ever on a member; and once the other is gone, it comes by itself.
#[test]
fn a_vip_that_a_foreign_host_has_is_refused_until_it_is_gone() -> Result<()> {
    for address in ["10.77.0.100/24", "fd77::100/64"] {
        let cluster = Cluster::formed(&Options::default())?;
        let bare = address.split('/').next().unwrap_or(address);
        give(&cluster, "client", address)?;
        let before = std::time::Instant::now();
        let refused = cluster.host("n1").ctl(&["vip", "add", "web", "--address", address])?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(before.elapsed() < TRIED_AGAIN, "it took {:?}", before.elapsed());
        let mac = text(cluster.lab.mac("client")?);
        for said in [mac.as_str(), "--no-probe", "another host has", "on n1, n2, n3"] {
            assert!(refused.stderr.contains(said), "{said}: {refused:?}");
        }
        let left = cluster.host("n1").ctl_json(&["vip", "list"])?;
        assert_eq!(left.as_array().map(Vec::len), Some(0), "left behind: {left}");
        cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", address, "--no-wait"])?;
        wait_for_event(&cluster, "n2", &["cannot be on n3", &mac])?;
        assert!(!answers(&cluster));
        for host in &cluster.hosts {
            assert!(!cluster.lab.has_address(&host.name, bare)?, "{} has it", host.name);
        }
        let events = cluster.host("n2").ctl_ok(&["events"])?;
        assert!(!events.contains("answers on"), "it never did: {events}");
        take(&cluster, "client", address)?;
        wait_for("the VIP to come", TRIED_AGAIN, || answers(&cluster).then_some(()))?;
        wait_for("no warning any more", TRIED_AGAIN, || {
            let status = cluster.host("n2").ctl_ok(&["status"]).ok()?;
            (!status.contains("another host has")).then_some(())
        })?;
    }
    Ok(())
}

/// Who says that it is meant to be has the VIP at once; the foreign host is
/// defended against, and named in status and events.
#[test]
fn a_foreign_host_that_is_meant_to_be_there_hinders_nothing_and_is_said() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    give(&cluster, "client", "10.77.0.100/24")?;
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--no-probe"];
    let refused = cluster.host("n1").ctl(&add[..5])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    cluster.host("n1").ctl_ok(&add)?;
    assert!(answers(&cluster));
    let mac = text(cluster.lab.mac("client")?);
    wait_for_event(&cluster, "n1", &["another host", &mac, "10.77.0.100"])?;
    let status = cluster.host("n2").ctl_ok(&["status"])?;
    assert!(status.contains(&mac), "{status}");
    Ok(())
}

/// What a member has for itself no other may take, whatever was said.
#[test]
fn a_vip_that_a_member_has_by_hand_is_refused_whatever_is_said() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    give(&cluster, "n3", "10.77.0.100/24")?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--no-probe"];
    let refused = cluster.host("n1").ctl(&add)?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("n3 has 10.77.0.100 of web for itself"), "{refused:?}");
    cluster.host("n1").ctl_ok(&[&add[..], &["--no-wait"]].concat())?;
    wait_for_event(&cluster, "n1", &["cannot be on n2", "n3 answers"])?;
    take(&cluster, "n3", "10.77.0.100/24")?;
    wait_for("the VIP to come", TRIED_AGAIN, || answers(&cluster).then_some(()))?;
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?.first().map(String::as_str), Some("n3"));
    Ok(())
}

/// n1 leads, n3 holds: a takeover after n3 is lost has to wait for its lease.
fn held_by_a_follower() -> Result<Cluster> {
    let cluster = Cluster::formed(&Options::default())?;
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"];
    cluster.host("n1").ctl_ok(&add)?;
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", "n3"])?;
    Ok(cluster)
}

/// Anybody on the network can answer; a VIP is not kept down by that.
#[test]
fn a_takeover_is_made_whatever_a_stranger_answers() -> Result<()> {
    let mut cluster = held_by_a_follower()?;
    let mut faults = Faults::default();
    // The holder does not hear it, so nobody does until the takeover.
    faults.inject(&mut cluster, Fault::PowerOff("n3".into()))?;
    give(&cluster, "client", "10.77.0.100/32")?;
    let new = cluster.wait_for_takeover("n1", "n3")?;
    let mac = text(cluster.lab.mac("client")?);
    wait_for_event(&cluster, "n1", &["another host", &mac, "10.77.0.100", &new])?;
    Ok(())
}

/// A member that answers without holding it would be the second one to.
#[test]
fn a_takeover_waits_until_no_member_answers() -> Result<()> {
    let mut cluster = held_by_a_follower()?;
    let mut faults = Faults::default();
    give(&cluster, "n2", "10.77.0.100/32")?;
    faults.inject(&mut cluster, Fault::PowerOff("n3".into()))?;
    let refused = wait_for_event(&cluster, "n1", &["cannot be on n1", "n2 answers for"])?;
    assert!(refused.contains("without holding it"), "{refused}");
    let status = cluster.host("n1").ctl_ok(&["status"])?;
    assert!(status.contains("n2 answers for 10.77.0.100"), "{status}");
    take(&cluster, "n2", "10.77.0.100/32")?;
    cluster.wait_for_takeover("n1", "n3")?;
    Ok(())
}

/// An address that somebody gives a member by hand while the VIP is held by
/// another one: the holder is not moved, and everybody is told where it is.
#[test]
fn a_leftover_on_a_member_is_said_with_its_node() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    give(&cluster, "n3", "10.77.0.100/32")?;
    wait_for("the warning", TRIED_AGAIN, || {
        let status = cluster.host("n2").ctl_ok(&["status"]).ok()?;
        status.contains("cannot be on n3: the host has 10.77.0.100 already").then_some(())
    })?;
    let shown = cluster.host("n1").ctl_json(&["vip", "show", "web"])?;
    assert_eq!((&shown["holder"], &shown["epoch"]), (&"n1".into(), &1.into()), "{shown}");
    take(&cluster, "n3", "10.77.0.100/32")?;
    wait_for("no warning", TRIED_AGAIN, || {
        let status = cluster.host("n2").ctl_ok(&["status"]).ok()?;
        (!status.contains("cannot be on n3")).then_some(())
    })
}
