//! VIPs that AWS moves (`--via aws-route` and `aws-private-ip`): moto has the API and the
//! instance metadata, and the client is the VPC's router, which goes by the route table and asks
//! nobody by ARP.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Daemon, Options, Outcome, wait_for};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// In no subnet of the nodes.
const VIP: &str = "10.99.0.10";
/// Where instance metadata are.
const METADATA: &str = "169.254.169.254";

struct Vpc {
    cluster: Cluster,
    /// See vpc.py.
    place: PathBuf,
    table: String,
    interfaces: Vec<String>,
    _moto: Daemon,
}

impl Vpc {
    fn new() -> Result<Self> {
        let mut cluster = Cluster::bare(&Options::default())?;
        let lab = &cluster.lab;
        lab.ip("client", &["address", "add", &format!("{METADATA}/32"), "dev", "lo"])?;
        let place = cluster.dir().join("vpc");
        let hosts = ["10.77.0.1", "10.77.0.2", "10.77.0.3"];
        let moto = Daemon::moto(lab, "client", cluster.dir(), &place, &hosts)?;
        let made = wait_for("moto to answer", SOON, || std::fs::read_to_string(&place).ok())?;
        let made: serde_json::Value = serde_json::from_str(&made)?;
        let interfaces = made["interfaces"].as_array().context("interfaces")?;
        let interfaces: Vec<_> =
            interfaces.iter().filter_map(|i| Some(i.as_str()?.to_owned())).collect();
        for (name, interface) in NODES.into_iter().zip(&interfaces) {
            let route = ["route", "add", METADATA, "via", "10.77.0.250"];
            cluster.lab.ip(name, &route)?;
            let host = cluster.host_mut(name);
            host.stop()?;
            host.set("cloud.aws.endpoint", "http://10.77.0.250");
            // moto knows of no instance's interfaces.
            host.set("cloud.aws.network_interface", interface);
            host.start()?;
        }
        cluster.form()?;
        let table = made["table"].as_str().context("a table")?.to_owned();
        Ok(Self { cluster, place, table, interfaces, _moto: moto })
    }

    fn add(&self, table: &str) -> Result<Outcome> {
        let (address, param) = (format!("{VIP}/32"), format!("route-table={table}"));
        self.cluster.host("n1").ctl(&[
            "vip",
            "add",
            "web",
            "--address",
            &address,
            "--placement",
            "sticky",
            "--via",
            "aws-route",
            "--param",
            &param,
        ])
    }

    /// To whom the VPC sends what is for the VIP.
    fn routed(&self) -> Option<&'static str> {
        self.routed_to(VIP)
    }

    fn routed_to(&self, address: &str) -> Option<&'static str> {
        let route = self.cluster.lab.ip("client", &["route", "show", address]).ok()?;
        let via = route.split_whitespace().skip_while(|word| *word != "via").nth(1)?;
        NODES.into_iter().find(|name| via == format!("10.77.0.{}", &name[1..]))
    }

    fn answers(&self) -> bool {
        self.answers_at(VIP)
    }

    /// All nodes are there, as one of them says.
    fn wait_until_active(&self, at: &str) -> Result<()> {
        wait_for("all to be active", SOON, || {
            let nodes = self.cluster.host(at).ctl_json(&["node", "list"]).ok()?;
            nodes.as_array()?.iter().all(|node| node["state"] == "active").then_some(())
        })
    }

    fn answers_at(&self, address: &str) -> bool {
        let ping = ["-c1", "-W1", address];
        self.cluster.lab.exec("client", "ping", &ping).is_ok_and(|out| out.code == Some(0))
    }

    /// Has somebody else call the API.
    fn called_by_somebody(&self, call: &str) -> Result<()> {
        let script = format!(
            "import boto3; boto3.client('ec2', endpoint_url='http://127.0.0.1', \
             region_name='us-east-1', aws_access_key_id='x', aws_secret_access_key='x').{call}"
        );
        let python = chaos_tests::python()?.display().to_string();
        self.cluster.lab.exec("client", &python, &["-c", &script])?.ok().map(|_| ())
    }

    /// Has the API stop in the middle of a node's next call of that kind.
    fn hold(&self, action: &str, when: &str, node: &str) -> Result<()> {
        let (file, new) =
            (self.place.with_extension("hold"), self.place.with_extension("new-hold"));
        std::fs::write(&new, format!("{action} {when} 10.77.0.{}", &node[1..]))?;
        Ok(std::fs::rename(new, file)?)
    }

    fn wait_until_held(&self) -> Result<()> {
        let held = self.place.with_extension("held");
        wait_for("the call", SOON, || held.exists().then_some(()))
    }

    fn go_on(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.place.with_extension("held"))?)
    }

    /// Has the VIP go to a node, and switches that off in the middle of a call; which node that
    /// was, and which another one is, besides the holder.
    fn switched_off_in(
        &mut self,
        action: &str,
        when: &str,
    ) -> Result<(&'static str, &'static str)> {
        let step = || format!("{action} {when}");
        let settled = self.cluster.wait_until_settled("n1")?;
        let holder = settled.vips[0].1.as_deref().context("a holder")?;
        let to = another_than(holder);
        let at = NODES.into_iter().find(|n| *n != holder && *n != to).context("a third")?;
        self.hold(action, when, to)?;
        // Nobody waits for its end.
        let moving = ["--timeout", "1s", "vip", "move", "web", "--to", to];
        let moved = self.cluster.host(at).ctl(&moving)?;
        ensure!(moved.code != Some(0), "{}: it was not held: {moved:?}", step());
        self.wait_until_held().with_context(step)?;
        self.cluster.host_mut(to).kill_all();
        Ok((to, at))
    }

    fn interface(&self, node: &str) -> Result<&str> {
        let mut of = NODES.into_iter().zip(&self.interfaces);
        Ok(of.find(|(name, _)| *name == node).context("a node")?.1)
    }
}

fn another_than(node: &str) -> &'static str {
    NODES.into_iter().find(|name| *name != node).unwrap_or("n1")
}

#[test]
fn the_route_follows_the_holder_and_nobody_else_answers() -> Result<()> {
    let mut vpc = Vpc::new()?;
    let refused = vpc.add("rtb-0")?;
    ensure!(
        refused.code == Some(1)
            && refused.stderr.contains("InvalidRouteTableID.NotFound")
            && refused.stderr.contains("Nothing was changed"),
        "{refused:?}"
    );
    let table = vpc.table.clone();
    vpc.add(&table)?.ok()?;
    // It was confirmed when the command returned.
    let holder = vpc.cluster.wait_for_takeover("n1", "nobody")?;
    wait_for("the VPC to know", SOON, || (vpc.routed()? == holder).then_some(()))?;
    ensure!(vpc.answers(), "it does not answer");
    let doctor = || Ok::<_, anyhow::Error>(vpc.cluster.host("n2").ctl(&["doctor"])?.stdout);
    let said = doctor()?;
    ensure!(said.contains("source/destination check is on"), "{said}");
    let own = vpc.interface("n2")?;
    vpc.called_by_somebody(&format!(
        "modify_network_interface_attribute(NetworkInterfaceId='{own}', \
         SourceDestCheck={{'Value': False}})"
    ))?;
    let said = doctor()?;
    ensure!(said.contains("VIP web can be moved here") && said.contains(own), "{said}");
    ensure!(said.contains("credentials from the instance's role"), "{said}");
    let shown = vpc.cluster.host("n2").ctl_ok(&["vip", "show", "web"])?;
    ensure!(shown.contains(&format!("web is moved by a route of {table} in AWS")), "{shown}");

    let to = another_than(&holder);
    vpc.cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
    wait_for("the VPC to know", SOON, || (vpc.routed()? == to).then_some(()))?;
    ensure!(vpc.answers(), "it does not answer");

    // Somebody else's change is undone; meanwhile nobody answers who does not hold it.
    let wrong = another_than(to);
    vpc.hold("DescribeRouteTables", "before", to)?;
    vpc.wait_until_held()?;
    vpc.called_by_somebody(&format!(
        "replace_route(RouteTableId='{table}', DestinationCidrBlock='{VIP}/32', \
         NetworkInterfaceId='{}')",
        vpc.interface(wrong)?
    ))?;
    wait_for("the VPC to be told wrong", SOON, || (vpc.routed()? == wrong).then_some(()))?;
    ensure!(!vpc.answers(), "{wrong} answers, and {to} holds it");
    vpc.go_on()?;
    wait_for("it is taken back", SOON, || (vpc.routed()? == to).then_some(()))?;
    ensure!(vpc.answers(), "it does not answer");
    let told = || vpc.cluster.host("n1").ctl_ok(&["events"]).ok();
    let said = format!("VIP web was not found at {to} any more, which takes it back");
    wait_for("it is said", SOON, || told().filter(|events| events.contains(&said)))?;

    // Power off: the route follows.
    let began = Instant::now();
    vpc.cluster.host_mut(to).kill_all();
    let next = vpc.cluster.wait_for_takeover(another_than(to), to)?;
    wait_for("the VPC to know", SOON, || (vpc.routed()? == next).then_some(()))?;
    wait_for("it to answer", SOON, || vpc.answers().then_some(()))?;
    println!("answers {:?} after the power went off", began.elapsed());

    let at = another_than(to);
    vpc.cluster.host(at).ctl_ok(&["vip", "remove", "web"])?;
    wait_for("the route to be gone", SOON, || vpc.routed().is_none().then_some(()))?;
    Ok(())
}

/// In the nodes' own subnet; the VPC sends it to whom it is assigned, and asks nobody by ARP.
#[test]
fn a_private_address_follows_the_holder() -> Result<()> {
    const VIP: &str = "10.77.0.100";
    let mut vpc = Vpc::new()?;
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"];
    vpc.cluster.host("n1").ctl_ok(&[&add[..], &["--via", "aws-private-ip"]].concat())?;
    let holder = vpc.cluster.wait_for_takeover("n1", "nobody")?;
    wait_for("the VPC to know", SOON, || (vpc.routed_to(VIP)? == holder).then_some(()))?;
    ensure!(vpc.answers_at(VIP), "it does not answer");
    let to = another_than(&holder);
    vpc.cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
    wait_for("the VPC to know", SOON, || (vpc.routed_to(VIP)? == to).then_some(()))?;
    ensure!(vpc.answers_at(VIP), "it does not answer");

    // Switched off between the two calls that this takes, the next one goes on from there.
    for (action, when) in [
        ("UnassignPrivateIpAddresses", "before"),
        ("UnassignPrivateIpAddresses", "after"),
        ("AssignPrivateIpAddresses", "before"),
        ("AssignPrivateIpAddresses", "after"),
    ] {
        let (to, at) = vpc.switched_off_in(action, when)?;
        vpc.go_on()?;
        let next = vpc.cluster.wait_for_takeover(at, to)?;
        let right = || (vpc.routed_to(VIP)? == next && vpc.answers_at(VIP)).then_some(());
        wait_for("the address to be the holder's", SOON, right)
            .with_context(|| format!("{action} {when}"))?;
        vpc.cluster.host_mut(to).start()?;
        vpc.wait_until_active(at)?;
    }
    let last = vpc.cluster.wait_until_settled("n1")?.vips[0].1.clone().context("a holder")?;
    vpc.cluster.host(another_than(&last)).ctl_ok(&["vip", "remove", "web"])?;
    wait_for("it to be nobody's", SOON, || vpc.routed_to(VIP).is_none().then_some(()))?;
    Ok(())
}

/// Whoever takes it over is switched off before, in and after each call that this takes; what
/// it asked for is done, at once or late, and the next one ends with the route at itself.
#[test]
fn a_takeover_that_ends_between_any_two_steps_is_finished_or_undone() -> Result<()> {
    let mut vpc = Vpc::new()?;
    let table = vpc.table.clone();
    vpc.add(&table)?.ok()?;
    for (action, when, late) in [
        ("DescribeRouteTables", "before", false),
        ("DescribeRouteTables", "after", false),
        ("ReplaceRoute", "before", false),
        ("ReplaceRoute", "before", true),
        ("ReplaceRoute", "after", false),
    ] {
        let step = format!("{action} {when}, late {late}");
        let (to, at) = vpc.switched_off_in(action, when)?;
        if !late {
            vpc.go_on()?;
        }
        let next = vpc.cluster.wait_for_takeover(at, to)?;
        if late {
            wait_for("the route", SOON, || (vpc.routed()? == next).then_some(()))?;
            vpc.go_on()?;
        }
        let right = || (vpc.routed()? == next && vpc.answers()).then_some(());
        wait_for("the route to be the holder's", SOON, right).context(step.clone())?;
        if late {
            // It was done meanwhile, and undone.
            let shown = || vpc.cluster.host(at).ctl_ok(&["events"]).ok();
            let moved = || shown().filter(|events| events.contains("VIP web was not found at"));
            wait_for("it to be found", SOON, moved).context(step)?;
            wait_for("the route to be the holder's", SOON, right)?;
        }
        vpc.cluster.host_mut(to).start()?;
        vpc.wait_until_active(at)?;
    }
    Ok(())
}
