//! Real servers by DNS names, which the leader resolves.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Connections, Daemon, Host, Lab, Options, RealServer, V4, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An address lingers for a minute after it was in an answer last.
const SOON: Duration = Duration::from_secs(90);
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const NAME: &str = "web.lab.example";

/// What nodes resolve by, for as long as this lives.
struct ResolvConf(Vec<PathBuf>);

impl ResolvConf {
    /// `ip netns exec` puts these files in the place of the machine's (ip-netns(8)).
    fn write(lab: &Lab) -> Result<Self> {
        let mut dirs = Self(vec![]);
        for node in NODES {
            let dir = PathBuf::from("/etc/netns").join(lab.namespace(node));
            std::fs::create_dir_all(&dir)?;
            dirs.0.push(dir.clone());
            let text = format!("nameserver {}\noptions timeout:1 attempts:2\n", V4.at(53));
            std::fs::write(dir.join("resolv.conf"), text)?;
        }
        Ok(dirs)
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// A server of names with what is in a file.
struct Names {
    dir: PathBuf,
    server: Daemon,
}

impl Names {
    fn start(cluster: &Cluster, lasts: &[&str]) -> Result<Self> {
        let dir = cluster.dir().join("dns");
        std::fs::create_dir_all(&dir)?;
        let hosts = dir.join("hosts");
        let conf = format!(
            "no-resolv\nno-hosts\nlocal-ttl=1\nlocal=/example/\nbind-interfaces\naddn-hosts={}\n",
            hosts.display()
        );
        std::fs::write(dir.join("dnsmasq.conf"), conf)?;
        write_hosts(&dir, lasts)?;
        Ok(Self { server: Daemon::dnsmasq(&cluster.lab, "dns", &dir)?, dir })
    }

    fn are(&self, addresses: &[&str]) -> Result<()> {
        write_hosts(&self.dir, addresses)?;
        self.server.signal(Signal::SIGHUP)
    }
}

fn write_hosts(dir: &std::path::Path, addresses: &[&str]) -> Result<()> {
    let lines: String = addresses.iter().map(|ip| format!("{ip} {NAME}\n")).collect();
    Ok(std::fs::write(dir.join("hosts"), lines)?)
}

fn reals(cluster: &Cluster, from: &str) -> Result<BTreeSet<String>> {
    let shown = cluster.host(from).ctl_json(&["vs", "show", "front"])?;
    let reals = shown["reals"].as_array().context("real servers")?;
    Ok(reals.iter().filter_map(|real| Some(real["address"].as_str()?.to_owned())).collect())
}

fn wait_until(cluster: &Cluster, from: &[&str], wanted: &[&str]) -> Result<()> {
    let wanted: BTreeSet<_> = wanted.iter().map(|ip| format!("{ip}:80")).collect();
    for node in from {
        wait_for("the name's addresses are the real servers", SOON, || {
            (reals(cluster, node).ok()? == wanted).then_some(())
        })
        .with_context(|| format!("{node}: {:?}, not {wanted:?}", reals(cluster, node)))?;
    }
    Ok(())
}

fn events(cluster: &Cluster, kind: &str) -> Result<usize> {
    let all = cluster.host("n2").ctl_ok(&["events", "-o", "json"])?;
    let lines = all.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    Ok(lines.iter().filter(|event| event["kind"] == kind).count())
}

/// One by direct routing that answers at its own address as well.
fn direct(cluster: &mut Cluster, (name, last): (&str, u8)) -> Result<[RealServer; 2]> {
    let own = SocketAddr::new(V4.at(last).parse()?, 80);
    let at_vip = V4.by_dr(&mut cluster.lab, name, last)?;
    Ok([at_vip, RealServer::start(&cluster.lab, name, own)?])
}

#[test]
fn a_names_addresses_are_the_real_servers_and_stay_when_nobody_can_tell() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let _resolv_conf = ResolvConf::write(&cluster.lab)?;
    cluster.hosts.iter_mut().for_each(Host::kill_all);
    cluster.hosts.iter_mut().try_for_each(Host::start)?;
    cluster.lab.add_host("dns", 53)?;
    let _reals = [("r1", 11), ("r2", 12), ("r3", 13)].map(|real| direct(&mut cluster, real));
    let [one, two, three] = ["10.77.0.11", "10.77.0.12", "10.77.0.13"];
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--check", "tcp", "--real"];
    let adds = |name| cluster.host("n2").ctl(&[&add[..], &[name]].concat());

    // Nobody answers, and then nobody knows it.
    let silent = adds(NAME)?;
    assert!(silent.stderr.contains(NAME) && silent.stderr.contains("Nothing was"), "{silent:?}");
    let mut names = Names::start(&cluster, &[one, two])?;
    let unknown = adds("nobody.lab.example")?;
    assert!(unknown.stderr.contains("cannot be resolved"), "{unknown:?}");
    assert_eq!(n1.ctl_json(&["vs", "list"])?, serde_json::json!([]));

    let added = adds(NAME)?;
    assert!(added.stdout.contains("by dr to 2 real servers"), "{added:?}");
    let again = adds(NAME)?;
    ensure!(again.code == Some(0), "an identical add: {again:?}");
    wait_until(&cluster, &NODES, &[one, two])?;
    let mut connections = Connections::open(&cluster.lab, "client", V4.target(), 40)?;

    // Some of many each time; an address that none can have is left out.
    names.are(&["127.0.0.1", "10.78.0.9", two, three])?;
    wait_until(&cluster, &NODES, &[one, two, three])?;
    assert_eq!(connections.lost(), 0);
    let shown = n1.ctl_ok(&["vs", "show", "front"])?;
    assert!(shown.contains("Left out, since none can be there: 10.78.0.9."), "{shown}");
    let removed = n1.ctl(&["real", "remove", "front", one])?;
    assert!(removed.stderr.contains(NAME), "{removed:?}");

    // Nobody tells any more: once.
    drop(names);
    wait_for("it is told", SOON, || (events(&cluster, "name-fails").ok()? == 1).then_some(()))?;
    let status = cluster.host("n3").ctl_ok(&["status"])?;
    assert!(status.contains(&format!("the real servers of {NAME} stay as they were")), "{status}");
    wait_until(&cluster, &NODES, &[one, two, three])?;
    // What is there already needs nobody to resolve it.
    let again = adds(NAME)?;
    ensure!(again.code == Some(0), "an identical add: {again:?}");

    // Another leader asks for itself.
    let leader = n1.ctl_json(&["status"])?["leader"].as_str().context("a leader")?.to_owned();
    let others: Vec<_> = NODES.into_iter().filter(|node| *node != leader).collect();
    names = Names::start(&cluster, &[two, three])?;
    cluster.host_mut(&leader).kill_all();
    wait_until(&cluster, &others, &[two, three])?;
    connections.end_those_of("r1");
    assert_eq!(connections.lost(), 0, "of who stays");
    assert_eq!(events(&cluster, "name-fails")?, 1, "once, however often it was asked for");
    let shown = cluster.host(others[0]).ctl_ok(&["vs", "show", "front"])?;
    assert!(shown.contains(&format!("Real servers by {NAME}: {two}, {three}.\n")), "{shown}");
    let set = cluster.host(others[0]).ctl_ok(&["vs", "set", "front", "--real", two])?;
    assert!(set.contains("to 1 real servers"), "{set}");
    wait_until(&cluster, &others, &[two])?;
    drop(names);
    Ok(())
}
