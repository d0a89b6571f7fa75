//! Joining, leaving, tokens: what works, and what is refused without a change.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Host, Options, Outcome, Process, wait_for};
use nix::sys::signal::Signal;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn options(nodes: u8) -> Options {
    Options { nodes, ..Options::default() }
}

/// One node that leads, and others that are in no cluster yet.
fn first_of(nodes: u8) -> Result<Cluster> {
    let cluster = Cluster::bare(&options(nodes))?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    Ok(cluster)
}

fn refused(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?} is not in: {}", outcome.stderr);
    }
}

fn join(host: &Host, address: &str, token: &str) -> Result<Outcome> {
    host.ctl(&["join", address, "--token-file", token])
}

fn names(cluster: &Cluster, seen_by: &str) -> Result<Vec<String>> {
    Ok(cluster.status(seen_by)?.nodes.into_iter().map(|(name, _)| name).collect())
}

#[test]
fn a_token_is_good_for_one_node_and_says_so() -> Result<()> {
    let cluster = first_of(3)?;
    let token = cluster.token("voter")?;
    join(cluster.host("n2"), "10.77.0.1:7400", &token)?.ok()?;
    refused(&join(cluster.host("n3"), "10.77.0.1:7400", &token)?, 1, &["used already"]);
    assert_eq!(names(&cluster, "n1")?, ["n1", "n2"]);
    // Nothing was left on n3: it joins with a token of its own, by a follower.
    let token = cluster.token("voter")?;
    join(cluster.host("n3"), "10.77.0.2:7400", &token)?.ok()?;
    assert_eq!(names(&cluster, "n3")?, ["n1", "n2", "n3"]);
    let again = cluster.token("voter")?;
    refused(&join(cluster.host("n3"), "10.77.0.1:7400", &again)?, 1, &["already", "leave"]);
    refused(&cluster.host("n3").ctl(&["init"])?, 1, &["already"]);
    Ok(())
}

#[test]
fn wrong_tokens_and_addresses_are_refused_and_change_nothing() -> Result<()> {
    let cluster = first_of(3)?;
    let n3 = cluster.host("n3");
    let events = cluster.host("n1").ctl_ok(&["events"])?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = cluster.dir().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };

    let garbage = file("garbage", "vipt1_voter_nonsense")?;
    refused(&join(n3, "10.77.0.1:7400", &garbage)?, 2, &["not a join token"]);

    // Of another cluster, which n2 makes.
    cluster.host("n2").ctl_ok(&["init", "--name", "other"])?;
    let foreign = file("foreign", &cluster.host("n2").ctl_ok(&["token", "create", "-q"])?)?;
    refused(
        &join(n3, "10.77.0.1:7400", &foreign)?,
        1,
        &["did not prove to be who it should be", "of that cluster"],
    );

    let token = cluster.token("voter")?;
    refused(&join(n3, "10.77.0.99:7400", &token)?, 1, &["cannot connect to 10.77.0.99:7400"]);
    let one = cluster.host("n1").ctl_json(&["token", "create", "--ttl", "1s"])?;
    let expired = file("expired", one["token"].as_str().context("a token")?)?;
    wait_for("the token expires", SOON, || {
        let tokens = cluster.host("n1").ctl_json(&["token", "list"]).ok()?;
        let tokens = tokens.as_array()?.iter();
        tokens.clone().any(|t| t["id"] == one["id"] && t["state"] == "expired").then_some(())
    })?;
    refused(&join(n3, "10.77.0.1:7400", &expired)?, 1, &["expired"]);

    let two = cluster.host("n1").ctl_json(&["token", "create"])?;
    cluster.host("n1").ctl_ok(&["token", "revoke", two["id"].as_str().context("an id")?])?;
    let revoked = file("revoked", two["token"].as_str().context("a token")?)?;
    refused(&join(n3, "10.77.0.1:7400", &revoked)?, 1, &["revoked"]);
    refused(&cluster.host("n1").ctl(&["token", "revoke", "nosuch"])?, 1, &["no token"]);
    refused(&n3.ctl(&["join", "10.77.0.1:7400"])?, 2, &["VIPD_JOIN_TOKEN"]);

    assert_eq!(names(&cluster, "n1")?, ["n1"]);
    let tokens_only = cluster.host("n1").ctl_ok(&["events"])?;
    let news = tokens_only.lines().skip(events.lines().count());
    for line in news {
        assert!(line.contains("token"), "{line}");
    }
    // After all that, a right one works.
    join(n3, "10.77.0.99:7400,10.77.0.1:7400", &token)?.ok()?;
    Ok(())
}

#[test]
fn no_secret_is_in_logs_data_or_command_lines() -> Result<()> {
    let cluster = first_of(2)?;
    let token = cluster.host("n1").ctl_ok(&["token", "create", "-q"])?;
    let file = cluster.dir().join("token");
    std::fs::write(&file, &token)?;
    join(cluster.host("n2"), "10.77.0.1:7400", &file.display().to_string())?.ok()?;
    let secret = token.split('_').nth(3).context("a secret")?.as_bytes();
    assert!(secret.len() > 40);
    std::fs::remove_file(&file)?;
    for host in &cluster.hosts {
        let mut stack = vec![host.dir().clone()];
        while let Some(path) = stack.pop() {
            if path.is_dir() {
                stack.extend(
                    std::fs::read_dir(path)?
                        .map(|e| e.map(|e| e.path()))
                        .collect::<Result<Vec<_>, _>>()?,
                );
            } else if path.is_file() {
                let bytes = std::fs::read(&path)?;
                let found = bytes.windows(secret.len()).any(|w| w == secret);
                assert!(!found, "the token's secret is in {}", path.display());
            }
        }
    }
    Ok(())
}

#[test]
fn a_node_leaves_hands_over_and_can_join_again() -> Result<()> {
    let cluster = Cluster::formed(&options(3))?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    // The leader and holder itself.
    cluster.host("n1").ctl_ok(&["leave"])?;
    assert!(!cluster.lab.has_address("n1", "10.77.0.100")?);
    let status = cluster.wait_until_settled("n2")?;
    assert_eq!(status.nodes.len(), 2);
    assert_ne!(status.vips[0].1.as_deref(), Some("n1"));
    refused(&cluster.host("n1").ctl(&["status"])?, 1, &["in no cluster"]);

    let token = cluster.host("n2").ctl_ok(&["token", "create", "-q"])?;
    let file = cluster.dir().join("again");
    std::fs::write(&file, token)?;
    join(cluster.host("n1"), "10.77.0.2:7400", &file.display().to_string())?.ok()?;
    assert_eq!(cluster.wait_until_settled("n1")?.nodes.len(), 3);
    Ok(())
}

#[test]
fn the_last_voter_cannot_leave() -> Result<()> {
    let cluster = first_of(1)?;
    refused(&cluster.host("n1").ctl(&["leave"])?, 1, &["last voter"]);
    assert_eq!(names(&cluster, "n1")?, ["n1"]);
    Ok(())
}

/// A dead machine is replaced by a new one of the same name; a wiped one comes
/// back.
#[test]
fn a_dead_node_is_removed_and_replaced_under_its_name() -> Result<()> {
    let mut cluster = Cluster::formed(&options(3))?;
    cluster.host_mut("n3").kill_all();
    std::fs::remove_dir_all(cluster.host("n3").dir().join("data"))?;
    cluster.host_mut("n3").start()?;
    let token = cluster.token("voter")?;
    let taken = join(cluster.host("n3"), "10.77.0.1:7400", &token)?;
    refused(&taken, 1, &["a node named n3 exists already", "node remove"]);

    cluster.host("n2").ctl_ok(&["node", "remove", "n3"])?;
    assert_eq!(names(&cluster, "n1")?, ["n1", "n2"]);
    // The refused join left the token open.
    join(cluster.host("n3"), "10.77.0.1:7400", &token)?.ok()?;
    assert_eq!(names(&cluster, "n3")?, ["n1", "n2", "n3"]);
    Ok(())
}

/// Raft changes who votes in two steps. Whoever asked hangs up between them:
/// the second voter does not answer, so the first step cannot be committed yet.
#[test]
fn a_removal_whose_caller_hung_up_is_finished() -> Result<()> {
    let cluster = Cluster::formed(&options(3))?;
    let leader = cluster.wait_until_settled("n1")?.leader.context("a leader")?;
    let mut others = cluster.hosts.iter().map(|h| h.name.clone()).filter(|name| *name != leader);
    let (slow, removed) = (others.next().context("n2")?, others.next().context("n3")?);
    let leader = cluster.host(&leader);
    let changes = || leader.log().matches("changing who votes").count();
    let before = changes();

    cluster.host(&slow).signal(&[Process::Agent], Signal::SIGSTOP)?;
    let vipctl = chaos_tests::binaries()?.join("vipctl");
    let mut caller = std::process::Command::new(vipctl)
        .arg("--socket")
        .arg(leader.dir().join("admin.sock"))
        .args(["node", "remove", &removed])
        .spawn()?;
    let begun = wait_for("the change begins", SOON, || (changes() > before).then_some(()));
    caller.kill()?;
    caller.wait()?;
    cluster.host(&slow).signal(&[Process::Agent], Signal::SIGCONT)?;
    begun?;

    wait_for("the removal is finished", SOON, || {
        let seen = cluster.status(&leader.name).ok()?;
        (seen.quorum && seen.nodes.iter().all(|(name, _)| *name != removed)).then_some(())
    })
}

#[test]
fn a_removed_node_is_cut_off_at_once() -> Result<()> {
    let cluster = Cluster::formed(&options(3))?;
    cluster.host("n1").ctl_ok(&["node", "remove", "n3"])?;
    // It hears nobody any more and so knows no leader.
    cluster.wait_for_status("n3", "it is cut off", |s| (!s.quorum).then_some(()))?;
    let outcome = cluster.host("n3").ctl(&[
        "--timeout",
        "2s",
        "vip",
        "add",
        "x",
        "--address",
        "10.77.0.9/24",
    ])?;
    refused(&outcome, 3, &["no quorum"]);
    Ok(())
}

#[test]
fn without_a_quorum_a_command_fails_in_time_with_code_3() -> Result<()> {
    let mut cluster = Cluster::formed(&options(3))?;
    for name in ["n2", "n3"] {
        cluster.host_mut(name).kill_all();
    }
    cluster.wait_for_status("n1", "the quorum is lost", |s| (!s.quorum).then_some(()))?;
    let begin = std::time::Instant::now();
    let add = ["--timeout", "2s", "vip", "add", "web", "--address", "10.77.0.100/24"];
    refused(&cluster.host("n1").ctl(&add)?, 3, &["no quorum"]);
    assert!(begin.elapsed() < Duration::from_secs(3));
    Ok(())
}

#[test]
fn learners_and_witnesses_do_their_part() -> Result<()> {
    let cluster = first_of(3)?;
    cluster.join(cluster.host("n2"), "witness")?;
    cluster.join(cluster.host("n3"), "learner")?;
    let nodes = cluster.host("n1").ctl_json(&["node", "list"])?;
    let roles: Vec<_> =
        nodes.as_array().context("a list")?.iter().map(|n| n["role"].as_str()).collect();
    assert_eq!(roles, [Some("voter"), Some("witness"), Some("learner")]);
    let keeps_issuer = |name| cluster.host(name).dir().join("data/pki/issuer.key").exists();
    assert_eq!(["n1", "n2", "n3"].map(keeps_issuer), [true, false, false], "who can sign");
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    refused(&cluster.host("n1").ctl(&["vip", "move", "web", "--to", "n2"])?, 1, &["witness"]);
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", "n3"])?;
    assert!(cluster.lab.has_address("n3", "10.77.0.100")?);
    let change = cluster.host("n3").ctl(&["vip", "remove", "web"])?;
    refused(&change, 1, &["voter"]);
    Ok(())
}

#[test]
fn joins_at_the_same_time_queue() -> Result<()> {
    let cluster = first_of(4)?;
    let token = cluster.host("n1").ctl_ok(&["token", "create", "-q", "--uses", "3"])?;
    let file = cluster.dir().join("three");
    std::fs::write(&file, token)?;
    let file = file.display().to_string();
    std::thread::scope(|scope| {
        let joins: Vec<_> = cluster.hosts[1..]
            .iter()
            .map(|host| scope.spawn(|| join(host, "10.77.0.1:7400", &file)?.ok()))
            .collect();
        joins.into_iter().try_for_each(|j| j.join().expect("no panic").map(|_| ()))
    })?;
    assert_eq!(names(&cluster, "n4")?.len(), 4);
    Ok(())
}

#[test]
fn several_vips_on_several_interfaces_and_bad_ones_refused() -> Result<()> {
    let cluster = Cluster::formed(&options(2))?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "a", "--address", "10.77.0.101/24", "--address", "10.77.0.102/32"])?;
    for name in ["n1", "n2"] {
        let second = ["link", "add", "eth1", "type", "veth", "peer", "name", "peer1"];
        cluster.lab.ip(name, &second)?;
        cluster.lab.ip(name, &["link", "set", "eth1", "up"])?;
        cluster.lab.ip(name, &["link", "set", "peer1", "up"])?;
    }
    n1.ctl_ok(&["vip", "add", "b", "--address", "192.0.2.5/24", "--interface", "eth1"])?;
    let eth1 = cluster.lab.ip("n1", &["address", "show", "dev", "eth1"])?;
    assert!(eth1.contains("192.0.2.5/32"), "{eth1}");
    // As it is already: no change, success.
    n1.ctl_ok(&["vip", "add", "b", "--address", "192.0.2.5/24", "--interface", "eth1"])?;

    refused(&n1.ctl(&["vip", "add", "b", "--address", "192.0.2.6/24"])?, 1, &["exists already"]);
    refused(
        &n1.ctl(&["vip", "add", "c", "--address", "10.77.0.101/24"])?,
        1,
        &["belongs to VIP a"],
    );
    refused(
        &n1.ctl(&["vip", "add", "c", "--address", "10.77.0.2/24"])?,
        2,
        &["address of node n2"],
    );
    refused(&n1.ctl(&["vip", "add", "c", "--address", "10.77.0.300/24"])?, 2, &["10.77.0.300"]);
    refused(&n1.ctl(&["vip", "add", "C!", "--address", "10.77.0.9/24"])?, 2, &["not a name"]);
    let spread = ["vip", "add", "c", "--address", "10.77.0.9/24", "--placement", "spread"];
    refused(&n1.ctl(&spread)?, 2, &["spread", "use leader or sticky"]);
    refused(&n1.ctl(&["vip", "move", "nosuch", "--to", "n2"])?, 1, &["no VIP nosuch"]);

    n1.ctl_ok(&["vip", "remove", "a"])?;
    assert!(!cluster.lab.has_address("n1", "10.77.0.101")?);
    assert_eq!(cluster.status("n2")?.vips.len(), 1);
    Ok(())
}

#[test]
fn what_is_wrong_at_the_start_is_named() -> Result<()> {
    let mut cluster = Cluster::bare(&options(2))?;
    let vipd = chaos_tests::binaries()?.join("vipd").display().to_string();
    let n1 = cluster.host("n1");

    let bad = cluster.dir().join("bad.toml");
    std::fs::write(&bad, "[node]\nname = \"x\"\nprofil = \"lan\"\n")?;
    let outcome = n1.exec(&vipd, &["run", "--config", &bad.display().to_string()])?;
    refused(&outcome, 2, &["profil", "line 3", "bad.toml"]);
    refused(&n1.exec(&vipd, &["run", "--set", "node.nam=x"])?, 2, &["nam"]);

    // A second agent on the same data, once the first has it.
    wait_for("n1's agent and guard", Duration::from_secs(15), || {
        let answers = n1.ctl(&["status"]).ok()?.code != Some(4);
        (answers && n1.dir().join("guard.sock").exists()).then_some(())
    })?;
    let settings: Vec<_> = n1.settings().iter().flat_map(|s| ["--set", s.as_str()]).collect();
    let outcome = n1.exec(&vipd, &[&["agent"], settings.as_slice()].concat())?;
    refused(&outcome, 1, &["another vipd"]);
    // A second guard on the same socket.
    let outcome = n1.exec(&vipd, &[&["guard"], settings.as_slice()].concat())?;
    refused(&outcome, 1, &["another guard"]);

    // A guard without its capabilities, where no other one runs.
    let other = format!("guard.socket={}", cluster.dir().join("other.sock").display());
    let bare = ["--bounding-set=-all", "--inh-caps=-all", &vipd, "guard", "--set", &other];
    refused(&cluster.lab.exec("client", "setpriv", &bare)?, 1, &["CAP_NET"]);

    // The port is taken.
    let blocker = std::thread::scope(|scope| {
        let lab = &cluster.lab;
        let bound = scope.spawn(move || -> Result<_> {
            lab.enter("n2")?;
            Ok(std::net::TcpListener::bind("0.0.0.0:7400")?)
        });
        bound.join().expect("no panic")
    })?;
    refused(&cluster.host("n2").ctl(&["init"])?, 1, &["cannot listen", "node.listen"]);
    drop(blocker);
    cluster.host("n2").ctl_ok(&["init"])?;

    // Data of another version.
    cluster.host_mut("n2").stop()?;
    let meta = cluster.host("n2").dir().join("data/node.json");
    let text = std::fs::read_to_string(&meta)?;
    let n2 = cluster.host("n2");
    let settings: Vec<_> = n2.settings().iter().flat_map(|s| ["--set", s.as_str()]).collect();
    for (version, said) in [(99, "newer vipd"), (2, "earlier vipd")] {
        let mut other: serde_json::Value = serde_json::from_str(&text)?;
        other["version"] = version.into();
        std::fs::write(&meta, other.to_string())?;
        let outcome = n2.exec(&vipd, &[&["agent"], settings.as_slice()].concat())?;
        refused(&outcome, 1, &[said, &format!("layout {version}")]);
        let kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&meta)?)?;
        assert_eq!(kept, other, "it was changed");
    }
    std::fs::write(&meta, text)?;

    // A damaged log.
    let log = cluster.host("n2").dir().join("data/raft/db");
    let mut bytes = std::fs::read(&log)?;
    let used = bytes.iter().rposition(|b| *b != 0).context("not empty")?;
    for byte in &mut bytes[used / 2..used] {
        *byte ^= 0xff;
    }
    std::fs::write(&log, bytes)?;
    let outcome = n2.exec(&vipd, &[&["agent"], settings.as_slice()].concat())?;
    refused(&outcome, 1, &["the log in", "join again"]);

    // Nobody there at all: exit code 4, after waiting for it.
    let vipctl = chaos_tests::binaries()?.join("vipctl").display().to_string();
    let outcome = chaos_tests::run(&vipctl, &["--socket", "/nonexistent/admin.sock", "status"])?;
    refused(&outcome, 4, &["cannot reach vipd"]);
    let outcome = chaos_tests::run(&vipctl, &["frobnicate"])?;
    assert_eq!(outcome.code, Some(2));
    Ok(())
}

/// A virtual machine that was copied with its data: two nodes with one identity
/// could each be elected in one term.
#[test]
fn a_copy_of_a_nodes_data_does_not_run_on_another_host() -> Result<()> {
    let mut cluster = Cluster::bare(&options(3))?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    cluster.join(cluster.host("n2"), "voter")?;
    cluster.host_mut("n3").stop()?;
    let (from, to) = (cluster.host("n2").dir().join("data"), cluster.host("n3").dir().join("data"));
    std::fs::remove_dir_all(&to)?;
    let copied = ["-a", &from.display().to_string(), &to.display().to_string()];
    chaos_tests::run("cp", &copied)?.ok()?;
    let vipd = chaos_tests::binaries()?.join("vipd").display().to_string();
    let n3 = cluster.host("n3");
    let all: Vec<_> = n3.settings().iter().flat_map(|s| ["--set", s.as_str()]).collect();
    let words = ["node n2", "10.77.0.2:7400", "10.77.0.3:7400", "join"];
    refused(&n3.exec(&vipd, &[&["agent"], all.as_slice()].concat())?, 1, &words);
    // The same with the address left to vipd to find.
    let bare: Vec<_> = n3.settings().iter().filter(|s| !s.starts_with("node.advertise")).collect();
    let bare: Vec<_> = bare.into_iter().flat_map(|s| ["--set", s.as_str()]).collect();
    refused(&n3.exec(&vipd, &[&["agent"], bare.as_slice()].concat())?, 1, &["10.77.0.2:7400"]);
    // The cluster does not mind.
    assert!(cluster.wait_until_settled("n2")?.quorum);
    Ok(())
}

/// Another member's vipd.toml, copied with the name changed; or the address that
/// everybody knows. Said by name, and nothing is used up.
#[test]
fn a_copied_advertise_is_refused_by_name() -> Result<()> {
    let mut cluster = Cluster::bare(&options(2))?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let token = cluster.token("voter")?;
    // It runs: one that is ended while it starts leaves a child for a moment.
    cluster.host("n2").ctl(&["doctor"])?;
    for (place, code, words) in [
        ("10.77.0.1:7400", 1, &["n1 is reached at 10.77.0.1:7400", "node.advertise"][..]),
        ("10.77.0.100:7400", 1, &["is an address of VIP web", "node.advertise"]),
        ("127.0.0.1:7400", 2, &["it is a loopback address"]),
    ] {
        cluster.host_mut("n2").stop()?;
        cluster.host_mut("n2").set("node.advertise", place);
        cluster.host_mut("n2").start()?;
        let join = ["join", "10.77.0.1", "--token-file", &token];
        refused(&cluster.host("n2").ctl(&join)?, code, words);
        assert_eq!(names(&cluster, "n1")?, ["n1"]);
    }
    cluster.host_mut("n2").stop()?;
    cluster.host_mut("n2").set("node.advertise", "10.77.0.2:7400");
    cluster.host_mut("n2").start()?;
    cluster.host("n2").ctl_ok(&["join", "10.77.0.1", "--token-file", &token])?;
    Ok(())
}

/// Hosts without IPv4, and a configuration that says nothing of addresses.
#[test]
fn an_ipv6_only_cluster_needs_no_configuration() -> Result<()> {
    let mut cluster = Cluster::bare(&options(2))?;
    for name in ["n1", "n2"] {
        cluster.host_mut(name).stop()?;
        cluster.host_mut(name).unset("node.advertise");
        let lab = &cluster.lab;
        lab.ip(name, &["-4", "address", "flush", "dev", "eth0"])?;
        lab.ip(name, &["-6", "route", "add", "default", "via", "fd77::250"])?;
        cluster.host_mut(name).start()?;
    }
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    let token = cluster.token("voter")?;
    cluster.host("n2").ctl_ok(&["join", "fd77::1", "--token-file", &token])?;
    let add = ["vip", "add", "web", "--address", "fd77::100/64"];
    cluster.host("n2").ctl_ok(&add)?;
    let nodes = cluster.host("n1").ctl_json(&["node", "list"])?;
    assert_eq!(nodes[1]["address"], "[fd77::2]:7400", "{nodes}");
    let asked = cluster.lab.exec("client", "ping", &["-c1", "-W1", "fd77::100"])?;
    assert_eq!(asked.code, Some(0), "{asked:?}");
    Ok(())
}

/// It was off when it was removed: nobody calls it, so it asks, and says what it
/// found rather than look for votes for ever.
#[test]
fn a_node_that_was_removed_while_it_was_off_says_so() -> Result<()> {
    let mut cluster = Cluster::formed(&options(3))?;
    cluster.host_mut("n3").stop()?;
    cluster.host("n2").ctl_ok(&["node", "remove", "n3"])?;
    cluster.host_mut("n3").start()?;
    let n3 = cluster.host("n3");
    let status = wait_for("n3 to know", Duration::from_secs(20), || {
        let status = n3.ctl_ok(&["status"]).ok()?;
        status.starts_with("REMOVED: ").then_some(status)
    })?;
    let words =
        ["was removed from cluster test on 20", "by root@n2", "leave --force", "join again"];
    for word in words {
        assert!(status.contains(word), "{word}: {status}");
    }
    let token = cluster.token("voter")?;
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24"];
    for command in [&["init"][..], &["join", "10.77.0.1", "--token-file", &token], &add] {
        let begun = std::time::Instant::now();
        refused(&n3.ctl(command)?, 1, &words);
        assert!(begun.elapsed() < Duration::from_secs(3), "{command:?}: {:?}", begun.elapsed());
    }
    // Longer than it waited before.
    let log = n3.log();
    std::thread::sleep(Duration::from_secs(3));
    assert!(!n3.log()[log.len()..].contains("asking for votes"), "{}", n3.log());
    n3.ctl_ok(&["leave", "--force"])?;
    n3.ctl_ok(&["join", "10.77.0.1", "--token-file", &token])?;
    assert!(!n3.ctl_ok(&["status"])?.contains("removed"));
    Ok(())
}

/// Cut off is not removed.
#[test]
fn a_node_that_hears_nobody_goes_on_asking() -> Result<()> {
    let mut cluster = Cluster::formed(&options(3))?;
    cluster.lab.isolate("n3")?;
    cluster.host_mut("n3").stop()?;
    cluster.host_mut("n3").start()?;
    wait_for("n3 to ask for votes after it asked the members", SOON * 2, || {
        let asked = cluster.host("n3").log().matches("asking for votes").count();
        (asked > 20).then_some(())
    })?;
    assert!(!cluster.host("n3").ctl_ok(&["status"])?.contains("REMOVED"));
    cluster.lab.heal("n3")?;
    cluster.wait_for_status("n3", "a leader", |s| s.leader.is_some().then_some(()))
}
