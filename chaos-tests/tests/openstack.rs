//! VIPs that OpenStack moves (`--via openstack-port` and `openstack-pair`): Neutron and Keystone
//! as they are, and nodes on a network of their own, which asks nobody whether a port may send.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Daemon, Options, wait_for};
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Both services begin.
const BEGINS: Duration = Duration::from_secs(120);
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const SERVICES: &str = "10.77.0.250";
const VIP: &str = "10.77.0.100";
/// It is kept from others by a port of its own.
const PAIRED: &str = "10.77.0.120";

struct Cloud {
    cluster: Cluster,
    /// See neutron_cloud.py.
    place: PathBuf,
    made: serde_json::Value,
    _services: Daemon,
}

impl Cloud {
    fn new() -> Result<Self> {
        let mut cluster = Cluster::bare(&Options::default())?;
        let place = cluster.dir().join("cloud");
        let ports = ["10.77.0.1", "10.77.0.2", "10.77.0.3"];
        let files = (cluster.dir().as_path(), place.as_path());
        let services = Daemon::openstack(&cluster.lab, "client", files, SERVICES, &ports)?;
        let made = wait_for("both to answer", BEGINS, || std::fs::read_to_string(&place).ok())?;
        let made: serde_json::Value = serde_json::from_str(&made)?;
        for name in NODES {
            let host = cluster.host_mut(name);
            host.stop()?;
            for (variable, value) in [
                ("OS_AUTH_URL", &made["identity"]),
                ("OS_APPLICATION_CREDENTIAL_ID", &made["credential"][0]),
                ("OS_APPLICATION_CREDENTIAL_SECRET", &made["credential"][1]),
            ] {
                host.set_variable(variable, value.as_str().context("a text")?);
            }
            host.start()?;
        }
        cluster.form()?;
        Ok(Self { cluster, place, made, _services: services })
    }

    fn add(&self, more: &[&str]) -> Result<String> {
        let add = ["vip", "add", "web", "--placement", "sticky"];
        self.cluster.host("n1").ctl_ok(&[&add[..], more].concat())
    }

    /// Whose port Neutron says has an address, or may send as it.
    fn ports_with(&self, query: &str, has: &str) -> Option<Vec<&'static str>> {
        let script = format!(
            "import sys, json; sys.argv = ['x', '-']; \
             from urllib.request import urlopen, Request; \
             body = json.dumps({{'auth': {{'identity': {{'methods': ['application_credential'], \
             'application_credential': {{'id': '{}', 'secret': '{}'}}}}}}}}).encode(); \
             said = urlopen(Request('http://127.0.0.1:5000/v3/auth/tokens', body, \
             {{'Content-Type': 'application/json'}})); \
             token = said.headers['X-Subject-Token']; \
             print(urlopen(Request('http://127.0.0.1:9696/v2.0/ports{query}', \
             headers={{'X-Auth-Token': token}})).read().decode())",
            self.made["credential"][0].as_str()?,
            self.made["credential"][1].as_str()?,
        );
        let said = self.cluster.lab.exec("client", "python3", &["-c", &script]).ok()?.stdout;
        let said: serde_json::Value = serde_json::from_str(&said).ok()?;
        let ports = self.made["ports"].as_array()?;
        let of = |port: &serde_json::Value| {
            let at = ports.iter().position(|id| *id == port["id"])?;
            port[has]
                .to_string()
                .contains(if has == "fixed_ips" { VIP } else { PAIRED })
                .then(|| NODES[at])
        };
        Some(said["ports"].as_array()?.iter().filter_map(of).collect())
    }

    /// Whose it is, as Neutron says.
    fn at(&self) -> Option<&'static str> {
        let query = format!("?fixed_ips=ip_address%3D{VIP}");
        self.ports_with(&query, "fixed_ips")?.first().copied()
    }

    fn answers(&self, ip: &str) -> bool {
        let ping = ["-c1", "-W1", ip];
        self.cluster.lab.exec("client", "ping", &ping).is_ok_and(|out| out.code == Some(0))
    }

    fn wait_until_at(&self, node: &str) -> Result<()> {
        let is_right = || (self.at()? == node && self.answers(VIP)).then_some(());
        wait_for("it to be the holder's", SOON, is_right)
            .with_context(|| format!("{node}, and Neutron says {:?}", self.at()))
    }

    /// Has the API stop in the middle of a node's next call of that kind.
    fn hold(&self, method: &str, when: &str, node: &str) -> Result<()> {
        let file = self.place.with_extension("hold");
        let new = self.place.with_extension("new-hold");
        std::fs::write(&new, format!("{method} {when} 10.77.0.{}", &node[1..]))?;
        Ok(std::fs::rename(new, file)?)
    }
}

fn another_than(node: &str) -> &'static str {
    NODES.into_iter().find(|name| *name != node).unwrap_or("n1")
}

/// Whoever takes it over is switched off before and after a look and a change, which is the one
/// that takes it from the former holder.
#[test]
fn an_address_follows_the_holder_between_any_two_steps() -> Result<()> {
    let mut cloud = Cloud::new()?;
    cloud.add(&["--address", &format!("{VIP}/24"), "--via", "openstack-port"])?;
    let first = cloud.cluster.wait_for_takeover("n1", "nobody")?;
    cloud.wait_until_at(&first)?;
    let doctor = cloud.cluster.host("n2").ctl(&["doctor"])?.stdout;
    ensure!(doctor.contains("by an application credential"), "{doctor}");
    ensure!(doctor.contains("VIP web can be moved here"), "{doctor}");
    for (method, when, late) in [
        ("GET", "before", false),
        ("GET", "after", false),
        ("PUT", "before", false),
        ("PUT", "before", true),
        ("PUT", "after", false),
    ] {
        let step = format!("{method} {when}, late {late}");
        let settled = cloud.cluster.wait_until_settled("n1")?;
        let holder = settled.vips[0].1.clone().context("a holder")?;
        let to = another_than(&holder);
        let at = NODES.into_iter().find(|n| *n != holder && *n != to).context("a third")?;
        cloud.hold(method, when, to)?;
        let moving = ["--timeout", "1s", "vip", "move", "web", "--to", to];
        let moved = cloud.cluster.host(at).ctl(&moving)?;
        ensure!(moved.code != Some(0), "{step}: it was not held: {moved:?}");
        let held = cloud.place.with_extension("held");
        wait_for("the call", SOON, || held.exists().then_some(())).with_context(|| step.clone())?;
        cloud.cluster.host_mut(to).kill_all();
        if !late {
            std::fs::remove_file(&held)?;
        }
        let next = cloud.cluster.wait_for_takeover(at, to)?;
        cloud.wait_until_at(&next).with_context(|| step.clone())?;
        if late {
            // Done by now, it is refused: nothing moves.
            std::fs::remove_file(&held)?;
            let done = cloud.place.with_extension("done");
            wait_for("it to be done", SOON, || done.exists().then_some(()))?;
        }
        cloud.wait_until_at(&next).with_context(|| step.clone())?;
        cloud.cluster.host_mut(to).start()?;
        wait_for("all to be active", SOON, || {
            let nodes = cloud.cluster.host(at).ctl_json(&["node", "list"]).ok()?;
            nodes.as_array()?.iter().all(|node| node["state"] == "active").then_some(())
        })?;
    }
    let last = cloud.cluster.wait_until_settled("n1")?.vips[0].1.clone().context("a holder")?;
    cloud.cluster.host(another_than(&last)).ctl_ok(&["vip", "remove", "web"])?;
    wait_for("it to be nobody's", SOON, || cloud.at().is_none().then_some(()))?;
    Ok(())
}

/// Every node's port is let send as it before that is needed, and then the API may be gone.
#[test]
fn a_takeover_by_pairs_needs_no_api() -> Result<()> {
    let mut cloud = Cloud::new()?;
    let (address, own) =
        (format!("{PAIRED}/24"), cloud.made["reserved"].as_str().context("a port")?);
    let param = format!("port={own}");
    cloud.add(&["--address", &address, "--via", "openstack-pair", "--param", &param])?;
    let holder = cloud.cluster.wait_for_takeover("n1", "nobody")?;
    ensure!(cloud.answers(PAIRED), "it does not answer");
    // Within half a minute.
    wait_for("all to be let send as it", BEGINS, || {
        (cloud.ports_with("", "allowed_address_pairs")?.len() == NODES.len()).then_some(())
    })?;
    cloud.cluster.lab.ip("client", &["address", "del", "10.77.0.250/24", "dev", "eth0"])?;
    cloud.cluster.lab.ip("client", &["address", "add", "10.77.0.251/24", "dev", "eth0"])?;
    cloud.cluster.host_mut(&holder).kill_all();
    let next = cloud.cluster.wait_for_takeover(another_than(&holder), &holder)?;
    wait_for("it to answer", SOON, || cloud.answers(PAIRED).then_some(()))?;
    let shown = cloud.cluster.host(&next).ctl_ok(&["vip", "show", "web"])?;
    ensure!(
        shown.contains("web is announced from ports that OpenStack lets send as it"),
        "{shown}"
    );
    Ok(())
}
