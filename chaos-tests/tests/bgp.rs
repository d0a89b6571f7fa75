//! VIPs that routers are told of (`--via bgp`): gobgpd on each node, and BIRD on the client,
//! whose kernel sends what is for a VIP where the best route leads.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Daemon, Options, Outcome, Process, wait_for};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// In no subnet of the nodes.
const VIP: &str = "10.99.0.10";

struct Network {
    cluster: Cluster,
    speakers: BTreeMap<&'static str, Daemon>,
    router: Option<Daemon>,
}

impl Network {
    /// The router does not run yet.
    fn new() -> Result<Self> {
        let cluster = Cluster::formed(&Options::default())?;
        let mut network = Self { cluster, speakers: BTreeMap::new(), router: None };
        for node in NODES {
            network.start_speaker(node)?;
        }
        Ok(network)
    }

    fn dir(&self, host: &str) -> Result<PathBuf> {
        let dir = self.cluster.dir().join(format!("bgp-{host}"));
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// In place of the one that there is.
    fn start_speaker(&mut self, node: &'static str) -> Result<()> {
        self.speakers.remove(node);
        let own = address(node);
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/cloud/bgp/gobgpd.conf");
        let shipped = std::fs::read_to_string(shipped)?;
        let config = shipped.replace("192.0.2.254", "10.77.0.250").replace("192.0.2.1", &own);
        let dir = self.dir(node)?;
        std::fs::write(dir.join("gobgpd.toml"), config)?;
        self.speakers.insert(node, Daemon::gobgpd(&self.cluster.lab, node, &dir)?);
        let says = || self.gobgp(node, &["neighbor"]).ok().filter(|out| out.code == Some(0));
        wait_for("a speaker", SOON, says).map(|_| ())
    }

    fn gobgp(&self, node: &str, args: &[&str]) -> Result<Outcome> {
        let gobgp = chaos_tests::unpacked("gobgp", "--version")?.0.display().to_string();
        self.cluster.lab.exec(node, &gobgp, args)
    }

    fn start_router(&mut self) -> Result<()> {
        let neighbour = |node| {
            let at = address(node);
            format!(
                "protocol bgp {node} {{ local as 65000; neighbor {at} as 65001; hold time 3; \
                 connect delay time 1; error wait time 1, 1; \
                 ipv4 {{ import where net ~ [ 10.99.0.0/16{{32,32}} ]; export none; }}; }}\n"
            )
        };
        let all: String = NODES.into_iter().map(neighbour).collect();
        let config = format!(
            "router id 10.77.0.250;\nprotocol device {{ scan time 1; }}\n\
             protocol direct {{ ipv4; interface \"*\"; }}\n\
             protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n{all}"
        );
        let dir = self.dir("client")?;
        std::fs::write(dir.join("bird.conf"), config)?;
        self.router = Some(Daemon::bird(&self.cluster.lab, "client", &dir)?);
        Ok(())
    }

    fn add(&self) -> Result<Outcome> {
        let address = format!("{VIP}/32");
        let add = ["vip", "add", "web", "--address", &address, "--placement", "sticky"];
        self.cluster.host("n1").ctl(&[&add[..], &["--via", "bgp"]].concat())
    }

    /// Once all have the router for a neighbour: who holds the VIP.
    fn with_vip(&mut self) -> Result<String> {
        self.start_router()?;
        let added = || self.add().ok().filter(|added| added.code == Some(0)).map(|_| ());
        wait_for("the VIP to be taken", SOON, added)?;
        for node in NODES {
            self.wait_until_well(node)?;
        }
        self.cluster.wait_for_takeover("n1", "nobody")
    }

    /// A node could announce it.
    fn wait_until_well(&self, node: &str) -> Result<()> {
        wait_for("a neighbour", SOON, || {
            let said = self.cluster.host(node).ctl(&["doctor"]).ok()?.stdout;
            said.contains("VIP web can be announced here").then_some(())
        })
    }

    /// Where the router sends what is for the VIP.
    fn routed(&self) -> Option<&'static str> {
        let route = self.cluster.lab.ip("client", &["route", "show", VIP]).ok()?;
        let via = route.split_whitespace().skip_while(|word| *word != "via").nth(1)?;
        NODES.into_iter().find(|name| via == address(name))
    }

    /// Who holds it, once that is somebody else.
    fn wait_for_another_than(&self, node: &str) -> Result<&'static str> {
        wait_for("another holder", SOON, || {
            let status = self.cluster.host("n1").ctl_json(&["status"]).ok()?;
            let holder = status["vips"][0]["holder"].as_str()?;
            (holder != node).then(|| named(holder))
        })
    }

    fn answers(&self) -> bool {
        let ping = ["-c1", "-W1", VIP];
        self.cluster.lab.exec("client", "ping", &ping).is_ok_and(|out| out.code == Some(0))
    }

    fn wait_until_at(&self, node: &str) -> Result<()> {
        wait_for("it to be there", SOON, || {
            (self.routed()? == node && self.answers()).then_some(())
        })
        .with_context(|| format!("{node}; the router: {:?}", self.routed()))
    }

    /// Has `at` move the VIP to a node, and kills that: once the log says so, or once the router
    /// heard of it.
    fn killed_while_moving(&self, (at, to): (&str, &str), heard: bool) -> Result<()> {
        std::thread::scope(|scope| {
            let host = self.cluster.host(at);
            // Nobody waits for its end.
            let moving = ["--timeout", "1s", "vip", "move", "web", "--to", to];
            scope.spawn(move || host.ctl(&moving));
            let is_there = || {
                let status = host.ctl_json(&["status"]).ok()?;
                let is_moved = status["vips"][0]["holder"] == to;
                (is_moved && (!heard || self.routed()? == to)).then_some(())
            };
            wait_for("it to be moved", SOON, is_there)?;
            let host = self.cluster.host(to);
            host.signal(&[Process::Parent], Signal::SIGSTOP)?;
            host.signal(&[Process::Agent, Process::Guard], Signal::SIGKILL)
        })
    }

    /// What a node's own speaker has of the VIP.
    fn announced_by(&self, node: &str) -> Result<bool> {
        let said = self.gobgp(node, &["global", "rib", &format!("{VIP}/32")])?;
        let text = format!("{}{}", said.stdout, said.stderr);
        ensure!(text.contains("*>") || text.contains("not in table"), "{said:?}");
        Ok(text.contains("*>"))
    }
}

fn address(node: &str) -> String {
    format!("10.77.0.{}", &node[1..])
}

fn another_than(node: &str) -> &'static str {
    NODES.into_iter().find(|name| *name != node).unwrap_or("n1")
}

#[test]
fn the_route_follows_the_holder_whoever_announces_still() -> Result<()> {
    let mut network = Network::new()?;
    let refused = network.add()?;
    ensure!(
        refused.code == Some(1)
            && refused.stderr.contains("no neighbour takes IPv4 routes from this node now")
            && refused.stderr.contains("Nothing was changed"),
        "{refused:?}"
    );
    let holder = network.with_vip()?;
    // It was confirmed when the command returned.
    network.wait_until_at(&holder)?;
    let cluster = &network.cluster;
    let shown = cluster.host("n2").ctl_ok(&["vip", "show", "web"])?;
    ensure!(shown.contains("web is announced by its holder's BGP speaker"), "{shown}");
    let doctor = cluster.host("n2").ctl(&["doctor"])?.stdout;
    ensure!(doctor.contains("AS 65001") && doctor.contains("10.77.0.250: established"), "{doctor}");

    // Moved: the former one announces it no more.
    let to = another_than(&holder);
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
    network.wait_until_at(to)?;
    wait_for("it to be taken back", SOON, || (!network.announced_by(&holder).ok()?).then_some(()))?;

    // Killed, with a speaker that goes on: the next one is preferred.
    let began = Instant::now();
    network.cluster.host_mut(to).kill_all();
    let next = network.cluster.wait_for_takeover(another_than(to), to)?;
    network.wait_until_at(&next)?;
    println!("answers {:?} after it was killed", began.elapsed());
    ensure!(network.announced_by(to)?, "its speaker goes on");
    // It begins anew, and takes back what it left.
    network.cluster.host_mut(to).start()?;
    wait_for("it to be taken back", SOON, || (!network.announced_by(to).ok()?).then_some(()))?;
    network.wait_until_at(&next)?;

    // One that ends hands over, and takes back what it said before it is gone.
    let took = network.cluster.host_mut(&next).stop()?;
    ensure!(took < Duration::from_secs(2), "{took:?}");
    ensure!(!network.announced_by(&next)?, "{next} announces it still");
    let at = another_than(&next);
    let last = network.cluster.wait_for_takeover(at, &next)?;
    network.wait_until_at(&last)?;

    network.cluster.host(at).ctl_ok(&["vip", "remove", "web"])?;
    wait_for("the route to be gone", SOON, || network.routed().is_none().then_some(()))?;
    Ok(())
}

#[test]
fn a_holder_that_no_router_hears_leaves_it_to_others() -> Result<()> {
    let mut network = Network::new()?;
    let first = named(&network.with_vip()?);
    network.wait_until_at(first)?;
    // Its speaker begins anew: it is told again, or somebody else's is.
    network.start_speaker(first)?;
    let at_holder = || {
        let status = network.cluster.host("n1").ctl_json(&["status"]).ok()?;
        let holder = named(status["vips"][0]["holder"].as_str()?);
        (network.routed()? == holder && network.answers()).then_some(holder)
    };
    let holder = wait_for("it to be announced again", SOON, at_holder)?;
    for node in NODES {
        network.wait_until_well(node)?;
    }
    // It hangs; and when it goes on, what it has is of before.
    network.speakers[holder].signal(Signal::SIGSTOP)?;
    let next = network.wait_for_another_than(holder)?;
    network.wait_until_at(next)?;
    network.speakers[holder].signal(Signal::SIGCONT)?;
    wait_for("it to be taken back", SOON, || (!network.announced_by(holder).ok()?).then_some(()))?;
    network.wait_until_at(next)?;
    // It ends for good.
    network.wait_until_well(holder)?;
    network.speakers.remove(next);
    let last = network.wait_for_another_than(next)?;
    network.wait_until_at(last)?;
    let events = network.cluster.host(last).ctl_ok(&["events"])?;
    ensure!(events.contains(&format!("VIP web cannot be on {next}")), "{events}");
    Ok(())
}

/// Whoever takes it over is switched off before its speaker is told, and as soon as a router
/// heard of it; and a holder that is frozen says nothing later that counts.
#[test]
fn a_takeover_that_ends_between_any_two_steps_is_finished_by_the_next_one() -> Result<()> {
    let mut network = Network::new()?;
    network.with_vip()?;
    for heard in [false, true] {
        let holder = named(&network.cluster.wait_for_takeover("n1", "nobody")?);
        let to = another_than(holder);
        let at = NODES.into_iter().find(|n| *n != holder && *n != to).context("a third")?;
        if !heard {
            network.speakers[to].signal(Signal::SIGSTOP)?;
        }
        network.killed_while_moving((at, to), heard)?;
        network.cluster.host_mut(to).kill_all();
        if !heard {
            network.speakers[to].signal(Signal::SIGCONT)?;
        }
        let next = network.cluster.wait_for_takeover(at, to)?;
        network.wait_until_at(&next).with_context(|| format!("heard {heard}"))?;
        network.cluster.host_mut(to).start()?;
        wait_for("it to be taken back", SOON, || (!network.announced_by(to).ok()?).then_some(()))?;
        wait_for("all to be active", SOON, || {
            let nodes = network.cluster.host(at).ctl_json(&["node", "list"]).ok()?;
            nodes.as_array()?.iter().all(|node| node["state"] == "active").then_some(())
        })?;
        network.wait_until_well(to)?;
    }
    let holder = named(&network.cluster.wait_for_takeover("n1", "nobody")?);
    let agent = [Process::Agent];
    network.cluster.host(holder).signal(&agent, Signal::SIGSTOP)?;
    let next = network.cluster.wait_for_takeover(another_than(holder), holder)?;
    network.wait_until_at(&next)?;
    ensure!(network.announced_by(holder)?, "it is frozen");
    network.cluster.host(holder).signal(&agent, Signal::SIGCONT)?;
    wait_for("it to be taken back", SOON, || (!network.announced_by(holder).ok()?).then_some(()))?;
    network.wait_until_at(&next)
}

fn named(node: &str) -> &'static str {
    NODES.into_iter().find(|name| *name == node).unwrap_or("n1")
}
