//! Replacing the CA that signs: what a removed node kept is worth nothing, and
//! nobody who stays notices.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Host, Options, Probe, wait_for};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use vip_core::{NodeId, Role};
use vip_pki::{Connector, Issuer, NodeIdentity, NodeKey, PkiDir, Roster, node_server_name};
use vip_proto::ALPN_GRPC;
use vip_proto::v1;
use vip_proto::v1::cluster_client::ClusterClient;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// What no rotation may cost; a takeover takes half of it.
const SILENCE: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(20);

fn pki(host: &Host) -> PkiDir {
    PkiDir::new(&host.dir().join("data"))
}

fn issuer_of(host: &Host) -> Result<Issuer> {
    pki(host).load_issuer()?.context("an issuer")
}

/// The root's key, as somebody would have put it away.
fn root_key(cluster: &Cluster) -> Result<String> {
    let kept = cluster.dir().join("root.pem");
    std::fs::rename(cluster.host("n1").dir().join("data/recovery-root-key.pem"), &kept)?;
    Ok(kept.display().to_string())
}

fn warnings(cluster: &Cluster, host: &str) -> String {
    let status = cluster.host(host).ctl_json(&["status"]);
    status.map(|status| status["warnings"].to_string()).unwrap_or_default()
}

/// n1 to n3 vote, n4 learns, n5 is nobody yet.
fn four_with_a_vip() -> Result<Cluster> {
    let cluster = Cluster::bare(&Options { nodes: 5, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    for (name, role) in [("n2", "voter"), ("n3", "voter"), ("n4", "learner")] {
        cluster.join(cluster.host(name), role)?;
    }
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n3")?;
    Ok(cluster)
}

/// Comes to n1 as a node that this issuer signed, from the host of n5.
fn knock(cluster: &Cluster, issuer: &Issuer, id: &str, node: u64) -> Result<String> {
    let (key, n1) = (NodeKey::generate()?, cluster.host("n1"));
    let chain = issuer.sign_node(&key.csr()?, NodeId(node), Some(Role::Voter), u64::MAX, id)?;
    let identity = NodeIdentity { key, chain };
    // It takes n1 as it is, by its key: what n1 says is what counts.
    let known = [(NodeId(1), pki(n1).load_identity()?.key.spki())];
    let roster = Arc::new(arc_swap::ArcSwap::from_pointee(Roster::of_join(
        id.to_owned(),
        String::new(),
        known,
    )));
    let config = vip_pki::renewal_config(&identity, roster, ALPN_GRPC)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cluster.lab.enter("n5")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let connector = Connector {
                    address: "10.77.0.1:7400".into(),
                    server_name: node_server_name(NodeId(1), id),
                    config,
                    timeout: SOON,
                    unacknowledged: SOON,
                };
                let mut client = ClusterClient::new(connector.channel());
                let answer = client.identify(v1::IdentifyRequest::default()).await;
                Ok(answer.map_or_else(|status| status.to_string(), |_| "welcome".into()))
            })
        });
        thread.join().expect("no panic")
    })
}

#[test]
fn what_a_removed_node_kept_signs_nothing_and_nobody_else_notices() -> Result<()> {
    let mut cluster = four_with_a_vip()?;
    let root = root_key(&cluster)?;
    let stolen = issuer_of(cluster.host("n3"))?;
    let meta = std::fs::read_to_string(cluster.host("n3").dir().join("data/node.json"))?;
    let meta: serde_json::Value = serde_json::from_str(&meta)?;
    let id = meta["cluster"].as_str().context("an id")?.to_owned();
    let home = format!("XDG_CONFIG_HOME={}", cluster.dir().display());
    let ctl = chaos_tests::binaries()?.join("vipctl").display().to_string();
    cluster.host("n1").login(cluster.dir(), "eve", "admin")?;
    let remote = |cluster: &Cluster| {
        cluster.host("n2").exec("env", &[home.as_str(), &ctl, "--context", "test", "status"])
    };
    remote(&cluster)?.ok()?;
    assert_eq!(knock(&cluster, &stolen, &id, 9)?, "welcome", "or the attack proves nothing");

    cluster.host_mut("n4").stop()?;
    cluster.host_mut("n3").kill_all();
    let probe = Probe::start(&cluster.lab, VIP)?;
    let n2 = cluster.host("n2");
    // Who is suspected goes at once, with or without the key.
    let said = n2.ctl_ok(&["node", "remove", "n3", "--for-cause"])?;
    assert!(said.contains("vipctl ca rotate"), "{said}");
    let warned = warnings(&cluster, "n1");
    assert!(warned.contains("n3 was removed for cause"), "{warned}");
    let wrong = n2.dir().join("data/pki/node.key").display().to_string();
    let refused = n2.ctl(&["ca", "rotate", "--root-key-file", &wrong])?;
    assert!(refused.stderr.contains("not the key of this cluster's root"), "{refused:?}");
    assert_eq!(issuer_of(n2)?.spki()?, stolen.spki()?);

    n2.ctl_ok(&["ca", "rotate", "--root-key-file", &root])?;
    for name in ["n1", "n2"] {
        assert!(!warnings(&cluster, name).contains("for cause"), "{name}");
        wait_for("the new key", SOON, || {
            let host = cluster.host(name);
            (issuer_of(host).ok()?.spki().ok()? != stolen.spki().ok()?).then_some(())
        })?;
        let own = pki(cluster.host(name)).load_identity()?.issuer();
        assert_eq!(own, Some(issuer_of(cluster.host(name))?.spki()?), "{name}");
    }
    // What differs is the issuer alone.
    assert_eq!(knock(&cluster, &issuer_of(cluster.host("n1"))?, &id, 10)?, "welcome");
    assert_ne!(knock(&cluster, &stolen, &id, 11)?, "welcome");
    let refused = remote(&cluster)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    cluster.host("n1").login(cluster.dir(), "eve", "admin")?;
    remote(&cluster)?.ok()?;
    let text = "a new CA signs";
    assert!(n2.ctl_ok(&["events"])?.contains(text));

    // The leader has led all the while, and reaches who begins anew.
    cluster.host_mut("n2").stop()?;
    cluster.host_mut("n2").start()?;
    cluster.host("n1").ctl_ok(&["token", "create", "-q"])?;
    wait_for("n2 has the log", SOON, || {
        let events = cluster.host("n2").ctl_ok(&["events"]).ok()?;
        let tokens = events.matches("for a voter was opened").count();
        (tokens == 4).then_some(())
    })?;

    // Whoever was off meanwhile comes back, by the key that is known.
    cluster.host_mut("n4").start()?;
    cluster.wait_for_status("n1", "n4 is back", |s| {
        s.nodes.iter().any(|n| n.0 == "n4" && n.1 == "active").then_some(())
    })?;
    let own = pki(cluster.host("n4")).load_identity()?.issuer();
    assert_eq!(own, Some(issuer_of(cluster.host("n1"))?.spki()?));
    cluster.join(cluster.host("n5"), "voter")?;
    let trace = probe.finish()?;
    assert_eq!(trace.outages(SILENCE), [], "nothing fell silent");

    // Nothing rests on what a process remembers.
    for name in ["n1", "n2", "n5"] {
        cluster.host_mut(name).stop()?;
    }
    for name in ["n1", "n2", "n5"] {
        cluster.host_mut(name).start()?;
    }
    cluster.wait_until_settled("n2")?;
    Ok(())
}

#[test]
fn a_removed_node_that_had_the_roots_key_takes_more_than_a_new_issuer() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let root = root_key(&cluster)?;
    let n2 = cluster.host("n2");
    let own = n2.ctl(&["node", "remove", "n2", "--for-cause", "--root-key-file", &root])?;
    assert!(own.stderr.contains("Nothing was changed"), "{own:?}");
    let removed = n2.ctl(&["node", "remove", "n1", "--for-cause", "--root-key-file", &root])?;
    assert!(removed.stderr.contains("make a new cluster"), "{removed:?}");
    assert!(removed.ok()?.contains("is replaced"));
    let again = n2.ctl(&["ca", "rotate", "--root-key-file", &root])?.ok()?;
    assert!(again.contains("a new CA signs"), "{again}");
    assert!(warnings(&cluster, "n3").contains("root CA's key was once on n1"));
    // The key goes nowhere but to the daemon of this host.
    let remote = n2.ctl(&["--context", "x", "ca", "rotate", "--root-key-file", &root])?;
    assert_eq!(remote.code, Some(2), "{remote:?}");
    Ok(())
}
