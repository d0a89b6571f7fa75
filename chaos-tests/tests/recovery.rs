//! The last resorts: a new cluster of one survivor, and of a backup. The old
//! majority may be gone, or cut off and back.

use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Options, Probe, wait_for};
use std::net::Ipv4Addr;
use std::time::Duration;
use vip_core::ANNOUNCE_OFFSETS;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const RECOVER: [&str; 3] = ["recover", "--force-new-cluster", "--others-are-off"];
const SOON: Duration = Duration::from_secs(15);
const SOME_REPLIES: Duration = Duration::from_millis(100);
/// Several times what a VIP takes to be claimed, and a refused one to be tried
/// again.
const A_WHILE: Duration = Duration::from_secs(4);
/// The old cluster is probed for five times a second; then the guard has to let
/// go, on a busy machine.
const NOTICED: Duration = Duration::from_secs(2);

fn with_vip() -> Result<Cluster> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    Ok(cluster)
}

fn wait_until_it_answers(cluster: &Cluster, host: &str) -> Result<()> {
    wait_for(&format!("web to answer on {host}"), SOON, || {
        let vip = cluster.host(host).ctl_json(&["vip", "show", "web"]).ok()?;
        (vip["holder"] == host && vip["answers"] == true).then_some(())
    })
}

fn wait_until_it_has_no_leader(cluster: &Cluster, host: &str) -> Result<()> {
    wait_for(&format!("{host} to know of no leader"), SOON, || {
        (!cluster.status(host).ok()?.quorum).then_some(())
    })
}

/// Asks for the VIP, once it has been answered.
fn probing(cluster: &Cluster) -> Result<Probe> {
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for("the client to know who has the VIP", SOON, || {
        let known = cluster.lab.ip("client", &["neigh", "show", "10.77.0.100"]).ok()?;
        known.contains("lladdr").then_some(())
    })?;
    // The answer to the question that waited for that.
    std::thread::sleep(SOME_REPLIES);
    Ok(probe)
}

fn has_vip(cluster: &Cluster, host: &str) -> Result<bool> {
    cluster.lab.has_address(host, "10.77.0.100")
}

/// What is no emergency, and what was not said, changes nothing.
#[test]
fn a_new_cluster_is_not_made_while_others_answer_or_by_accident() -> Result<()> {
    let mut cluster = with_vip()?;
    let n3 = |cluster: &Cluster, arguments: &[&str]| cluster.host("n3").ctl(arguments);
    for said in [&RECOVER[..1], &RECOVER[..2], &["recover", "--others-are-off"]] {
        assert_eq!(n3(&cluster, said)?.code, Some(2), "{said:?}");
    }
    let healthy = n3(&cluster, &RECOVER)?;
    assert_eq!(healthy.code, Some(1), "{healthy:?}");
    assert!(healthy.stderr.contains("leads: this cluster has its majority"), "{healthy:?}");
    // The majority is gone, and yet something is at a member's port.
    let mut faults = Faults::default();
    faults.inject(&mut cluster, Fault::PowerOff("n1".into()))?;
    cluster.host_mut("n2").kill_all();
    wait_until_it_has_no_leader(&cluster, "n3")?;
    let port = std::thread::scope(|scope| {
        let listen = || -> Result<_> {
            cluster.lab.enter("n2")?;
            Ok(std::net::TcpListener::bind("10.77.0.2:7400")?)
        };
        scope.spawn(listen).join().expect("no panic")
    })?;
    let there = n3(&cluster, &RECOVER)?;
    assert_eq!(there.code, Some(1), "{there:?}");
    assert!(there.stderr.contains("n2 answers at 10.77.0.2:7400"), "{there:?}");
    drop(port);
    // A new cluster was not made meanwhile: with n2 the old one goes on.
    cluster.host_mut("n2").start()?;
    cluster.wait_until_settled("n3")?;
    let status = cluster.host("n3").ctl_ok(&["status"])?;
    assert!(!status.contains("may be alive"), "{status}");
    Ok(())
}

/// Two of three are lost for good. The survivor goes on alone, with what was
/// agreed; nothing of the lost ones is good any more; others join.
#[test]
fn a_survivor_of_three_goes_on_with_the_vips_and_without_the_others() -> Result<()> {
    let mut cluster = with_vip()?;
    let (token, old) = (cluster.token("voter")?, cluster.host("n1").dir().join("login"));
    cluster.host("n1").login(&old, "eve", "admin")?;
    let mut faults = Faults::default();
    let probe = probing(&cluster)?;
    for lost in ["n1", "n2"] {
        faults.inject(&mut cluster, Fault::PowerOff(lost.into()))?;
    }
    wait_until_it_has_no_leader(&cluster, "n3")?;
    let recovered = cluster.host("n3").ctl_ok(&RECOVER)?;
    assert!(recovered.contains("n3 is the only node of a new cluster test"), "{recovered}");
    wait_until_it_answers(&cluster, "n3")?;
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", "n3"]);
    let status = cluster.host("n3").ctl_ok(&["status"])?;
    assert!(status.contains("n1.old, n2.old of that may be alive"), "{status}");
    let events = cluster.host("n3").ctl_ok(&["events"])?;
    assert!(events.contains("n3 is the first of a new cluster"), "{events}");
    let void = cluster.host("n3").ctl_ok(&["token", "list"])?;
    assert!(!void.contains("open"), "{void}");
    assert!(!cluster.host("n3").ctl_ok(&["login", "list"])?.contains("eve"));

    // The new one outlives a restart of everything.
    cluster.host_mut("n3").kill_all();
    cluster.host_mut("n3").start()?;
    wait_until_it_answers(&cluster, "n3")?;

    // n2 is found, and believes what it knew: nobody listens to it.
    cluster.lab.cable("n2", true)?;
    cluster.host_mut("n2").start()?;
    wait_until_it_has_no_leader(&cluster, "n2")?;
    let refused = cluster.host("n2").ctl(&["join", "10.77.0.3:7400", "--token-file", &token])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    cluster.host("n2").ctl_ok(&["leave", "--force"])?;
    let refused = cluster.host("n2").ctl(&["join", "10.77.0.3:7400", "--token-file", &token])?;
    assert_eq!(refused.code, Some(1), "the old token is void: {refused:?}");
    let fresh = cluster.host("n3").ctl_ok(&["token", "create", "-q"])?;
    std::fs::write(&token, fresh)?;
    cluster.host("n2").ctl_ok(&["join", "10.77.0.3:7400", "--token-file", &token])?;
    // n1 is scrap metal.
    cluster.host("n3").ctl_ok(&["node", "remove", "n1.old"])?;
    wait_for("no warning of the old cluster any more", SOON, || {
        let status = cluster.host("n2").ctl_ok(&["status"]).ok()?;
        (!status.contains("may be alive")).then_some(())
    })?;
    cluster.host("n2").ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
    Ok(())
}

/// The others are not off but cut off from the survivor, on the cluster's own
/// network alone: on the network of the VIP they answer, so it does not, then
/// or after the heal.
#[test]
fn a_survivor_that_hears_the_old_holder_answer_claims_nothing() -> Result<()> {
    let mut cluster = with_vip()?;
    let mut faults = Faults::default();
    let probe = probing(&cluster)?;
    for other in ["n1", "n2"] {
        faults.inject(&mut cluster, Fault::CutPair("n3".into(), other.into()))?;
    }
    wait_until_it_has_no_leader(&cluster, "n3")?;
    cluster.host("n3").ctl_ok(&RECOVER)?;
    wait_for("the reason in its status", SOON, || {
        let status = cluster.host("n3").ctl_ok(&["status"]).ok()?;
        status.contains("n1 answers for 10.77.0.100 without holding it").then_some(())
    })?;
    std::thread::sleep(A_WHILE);
    assert!(!has_vip(&cluster, "n3")?);
    faults.heal(&mut cluster)?;
    std::thread::sleep(A_WHILE);
    assert!(!has_vip(&cluster, "n3")?);
    // When the old one is off at last, the VIP comes.
    for old in ["n1", "n2"] {
        faults.inject(&mut cluster, Fault::PowerOff(old.into()))?;
    }
    wait_for("web to answer on n3", Duration::from_secs(45), || {
        let vip = cluster.host("n3").ctl_json(&["vip", "show", "web"]).ok()?;
        (vip["answers"] == true).then_some(())
    })?;
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", "n3"]);
    Ok(())
}

/// The worst: cut off altogether, so that the survivor cannot hear that the old
/// holder answers. When they meet again it is the new cluster that lets go, and
/// clients on the other side never hear of it.
#[test]
fn a_survivor_lets_go_when_the_old_holder_comes_back_into_hearing() -> Result<()> {
    let cluster = with_vip()?;
    let probe = probing(&cluster)?;
    cluster.lab.isolate("n3")?;
    wait_until_it_has_no_leader(&cluster, "n3")?;
    cluster.host("n3").ctl_ok(&RECOVER)?;
    wait_until_it_answers(&cluster, "n3")?;
    // One of its first announcements would reach the clients of the other side in
    // the moment before it hears the old holder; the next one is half a minute off.
    std::thread::sleep(ANNOUNCE_OFFSETS[ANNOUNCE_OFFSETS.len() - 1] + SOME_REPLIES * 5);
    cluster.lab.heal("n3")?;
    wait_for("n3 to let go", NOTICED, || (!has_vip(&cluster, "n3").ok()?).then_some(()))?;
    std::thread::sleep(A_WHILE);
    assert!(!has_vip(&cluster, "n3")?);
    let trace = probe.finish()?;
    let n3 = cluster.lab.mac("n3")?;
    let beside: Vec<_> = trace.replies.iter().filter(|reply| reply.from == n3).collect();
    assert!(beside.iter().all(|reply| reply.direct), "clients were answered by n3");
    let (first, last) = (beside.first().map(|r| r.at_ns), beside.last().map(|r| r.at_ns));
    let lasted = Duration::from_nanos(last.unwrap_or(0) - first.unwrap_or(0));
    println!("asked directly, n3 answered beside n1 for {lasted:?}");
    assert!(lasted < NOTICED, "for {lasted:?}");
    let events = cluster.host("n3").ctl_ok(&["events"])?;
    assert!(events.contains("n1 answers for 10.77.0.100"), "{events}");
    Ok(())
}

/// Everything is lost but a file.
#[test]
fn a_backup_makes_a_new_cluster_with_the_same_vips_and_no_secret_of_the_old() -> Result<()> {
    let mut cluster = with_vip()?;
    let dir = cluster.dir().clone();
    let file = dir.join("backup").display().to_string();
    let said = cluster.host("n2").ctl_json(&["backup", &file])?;
    assert_eq!(said["fresh"], true, "{said}");
    let text = std::fs::read_to_string(&file)?;
    assert!(!text.contains("PRIVATE"), "a key is in it");
    for host in &cluster.hosts {
        for key in ["node.key", "issuer.key"] {
            let pem = std::fs::read_to_string(host.dir().join("data/pki").join(key))?;
            let body = pem.lines().nth(1).unwrap_or(&pem);
            assert!(!text.contains(body), "the {key} of {} is in it", host.name);
        }
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file)?);
    assert_eq!(mode & 0o777, 0o600);

    let member = cluster.host("n1").ctl(&["restore", &file])?;
    assert_eq!(member.code, Some(1), "{member:?}");
    assert!(member.stderr.contains("Nothing was changed"), "{member:?}");
    for host in ["n1", "n2", "n3"] {
        cluster.host_mut(host).kill_all();
        std::fs::remove_dir_all(cluster.host(host).dir().join("data"))?;
    }
    cluster.host_mut("n2").start()?;
    let damaged = dir.join("damaged").display().to_string();
    std::fs::write(&damaged, text.replace("10.77.0.100", "10.77.0.101"))?;
    // It comes in parts, each as long as one may be.
    let long = dir.join("long").display().to_string();
    std::fs::write(&long, vec![b'x'; 600 << 10])?;
    let all_bad = [(&damaged[..], "checksum"), (&long, "no backup"), ("/dev/null", "no backup")];
    for (bad, why) in all_bad {
        let refused = cluster.host("n2").ctl(&["restore", bad])?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
    }
    let restored = cluster.host("n2").ctl_json(&["restore", &file])?;
    assert_eq!(restored["cluster"], "test");
    wait_until_it_answers(&cluster, "n2")?;
    let nodes = cluster.host("n2").ctl_json(&["node", "list"])?;
    assert_eq!(nodes.as_array().map(Vec::len), Some(1), "{nodes}");
    // The others join it as any node would.
    cluster.host_mut("n1").start()?;
    let token = dir.join("token").display().to_string();
    std::fs::write(&token, restored["token"].as_str().unwrap_or_default())?;
    cluster.host("n1").ctl_ok(&["join", "10.77.0.2:7400", "--token-file", &token])?;
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", "n1"])?;
    wait_until_it_answers(&cluster, "n1")?;
    Ok(())
}
