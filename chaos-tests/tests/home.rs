//! The worked example `deploy/home`, as it is written there.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Daemon, Options, Page, resolve, wait_for};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/home");
const SOON: Duration = Duration::from_secs(20);
const VIP: &str = "10.77.0.100";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Requests of which each server gets some.
const MANY: usize = 40;

fn folder(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.dir().join("srv").join(node)
}

fn nginx(cluster: &Cluster, node: &str) -> Result<Daemon> {
    let dir = folder(cluster, node);
    std::fs::create_dir_all(dir.join("html"))?;
    std::fs::copy(Path::new(EXAMPLE).join("nginx.conf"), dir.join("nginx.conf"))?;
    std::fs::write(dir.join("html/index.html"), node)?;
    Daemon::nginx(&cluster.lab, node, &dir)
}

fn names(cluster: &Cluster, node: &str) -> Result<Daemon> {
    let dir = folder(cluster, node).join("names");
    std::fs::create_dir_all(&dir)?;
    let written = std::fs::read_to_string(Path::new(EXAMPLE).join("dnsmasq.conf"))?;
    std::fs::write(dir.join("dnsmasq.conf"), written.replace("192.0.2.10", VIP))?;
    Daemon::dnsmasq(&cluster.lab, node, &dir)
}

/// Who answers, of many requests.
fn who(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let at = SocketAddr::new(VIP.parse()?, 80);
    let page = Page { at, by_tls: false, from: [10, 77, 0, 250].into() };
    (0..MANY).map(|_| page.get(&cluster.lab)).collect()
}

fn answer(cluster: &Cluster, wanted: &[&str]) -> Result<()> {
    let wanted: BTreeSet<_> = wanted.iter().map(ToString::to_string).collect();
    wait_for("these answer, and no other", SOON, || (who(cluster).ok()? == wanted).then_some(()))
        .with_context(|| {
            let shown = cluster.host("n1").ctl_ok(&["vs", "show", "site"]);
            format!("{wanted:?}, not {:?}: {shown:?}", who(cluster))
        })
}

#[test]
fn a_site_and_names_are_there_while_each_server_is_stopped_in_turn() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let mut sites: Vec<_> =
        NODES.iter().map(|node| nginx(&cluster, node)).collect::<Result<_>>()?;
    let mut servers: Vec<_> =
        NODES.iter().map(|node| names(&cluster, node)).collect::<Result<_>>()?;
    cluster.add_example(EXAMPLE, &format!("{VIP}/24"))?;
    answer(&cluster, &NODES)?;
    let at = SocketAddr::new(VIP.parse()?, 53);
    let named = || resolve(&cluster.lab, at, "site.home.arpa");
    wait_for("names are answered", SOON, || named().ok())?;

    let shown = |server: &str| cluster.host("n2").ctl_ok(&["vs", "show", server]);
    for (number, node) in NODES.iter().enumerate() {
        let others: Vec<_> = NODES.iter().copied().filter(|other| other != node).collect();
        drop((sites.remove(number), servers.remove(number)));
        answer(&cluster, &others)?;
        // Of several flows some would go there.
        wait_for("names are answered", SOON, || {
            (0..MANY).all(|_| named().is_ok_and(|ip| ip.to_string() == VIP)).then_some(())
        })?;
        for server in ["site", "names"] {
            assert!(shown(server)?.contains("connection refused"), "{}", shown(server)?);
        }
        sites.insert(number, nginx(&cluster, node)?);
        servers.insert(number, names(&cluster, node)?);
        answer(&cluster, &NODES)?;
    }

    // It runs, and says that it should not be asked.
    let ill = folder(&cluster, "n3").join("ill");
    std::fs::write(&ill, "")?;
    answer(&cluster, &["n1", "n2"])?;
    assert!(shown("site")?.contains("status 503, expected 204"), "{}", shown("site")?);
    std::fs::remove_file(&ill)?;
    answer(&cluster, &NODES)
}
