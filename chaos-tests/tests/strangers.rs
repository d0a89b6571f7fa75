//! Strangers with nothing but the port, and people who may only look: what
//! they cost is bounded, and members do not notice them.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Host, Options, Probe, Process, Strangers, wait_for};
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;
use vip_pki::{Connector, NodeIdentity};
use vip_proto::v1::overview_client::OverviewClient;
use vip_proto::{ALPN_GRPC, v1};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// What strangers may cost a node.
const STRANGERS_COST: u64 = 20 << 20;
/// What a person may cost it.
const VIEWER_COST: u64 = 50 << 20;
const LIMIT: Duration = Duration::from_secs(5);
/// A takeover takes a tenth of it; when strangers had all the places, members
/// waited for 26 s.
const PATIENCE: Duration = Duration::from_secs(2);

/// Three members and a host outside.
fn with_an_outsider() -> Result<Cluster> {
    let mut cluster = Cluster::bare(&Options { nodes: 4, ..Options::default() })?;
    cluster.host_mut("n4").kill_all();
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    for name in ["n2", "n3"] {
        cluster.join(cluster.host(name), "voter")?;
    }
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n3")?;
    Ok(cluster)
}

fn descriptors(host: &Host) -> Result<usize> {
    let agent = host.find(Process::Agent).context("an agent")?;
    Ok(std::fs::read_dir(format!("/proc/{agent}/fd"))?.count())
}

fn members() -> Vec<SocketAddr> {
    (1..=3).map(|last| SocketAddr::from(([10, 77, 0, last], 7400))).collect()
}

#[test]
fn strangers_neither_keep_members_apart_nor_cost_much() -> Result<()> {
    let cluster = with_an_outsider()?;
    let names = ["n1", "n2", "n3"];
    let before = names.map(|name| cluster.host(name).memory("VmRSS:"));
    let strangers = Strangers::start(&cluster.lab, "n4", members())?;
    let counts = strangers.counts();
    wait_for("all kinds of bother", Duration::from_secs(30), || {
        let enough = counts.connections.load(Ordering::Relaxed) > 3000
            && counts.handshakes.load(Ordering::Relaxed) > 60
            && counts.requests.load(Ordering::Relaxed) > 60;
        enough.then_some(())
    })?;
    for (name, before) in names.iter().zip(before) {
        let host = cluster.host(name);
        let (before, most) = (before?, host.memory("VmHWM:")?);
        let cost = most.saturating_sub(before);
        ensure!(cost < STRANGERS_COST, "{name}: {before} bytes before, {most} at most");
        ensure!(descriptors(host)? < 400, "{name}: {} descriptors", descriptors(host)?);
        // Local root gets through, whoever else is there.
        host.ctl_ok(&["status"])?;
    }
    // All connections of a member are made anew, and then an agent is lost.
    let probe = Probe::start(&cluster.lab, VIP)?;
    cluster.lab.isolate("n2")?;
    wait_for("n2 is lost", Duration::from_secs(20), || {
        let status = cluster.host("n1").ctl_ok(&["status"]).ok()?;
        status.contains("lost").then_some(())
    })?;
    cluster.lab.heal("n2")?;
    cluster.wait_until_settled("n2")?;
    cluster.host("n1").signal(&[Process::Agent], Signal::SIGKILL)?;
    cluster.wait_until_settled("n3")?;
    let outages = probe.finish()?.outages(PATIENCE);
    assert_eq!(outages, [], "a takeover waited for strangers");
    strangers.finish()
}

/// A person's certificate, as `vipctl login` keeps it.
struct Person {
    identity: NodeIdentity,
    server_name: String,
}

fn login(cluster: &Cluster, role: &str) -> Result<Person> {
    let context = cluster.host("n1").login(&cluster.dir().join(role), "eve", role)?;
    let part = |key: &str| context[key].as_str().context("text");
    let identity = NodeIdentity::from_pem(part("key")?, part("chain")?.as_bytes())?;
    Ok(Person { identity, server_name: part("server_name")?.to_owned() })
}

/// Asks for more than anybody reads, on as many connections as there are.
async fn look_without_reading(person: &Person) -> Result<()> {
    let mut unread = vec![];
    for _ in 0..40 {
        let connector = Connector {
            address: "10.77.0.1:7400".into(),
            server_name: person.server_name.clone(),
            config: vip_pki::user_config(&person.identity, ALPN_GRPC)?,
            timeout: LIMIT,
            unacknowledged: LIMIT,
        };
        let Ok(channel) = connector.connected_channel().await else {
            // Not more often than that.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        for _ in 0..20 {
            let mut client = OverviewClient::new(channel.clone());
            unread.push(tokio::spawn(async move {
                let events = client.events(v1::EventsRequest { follow: true, after: 0 }).await;
                // Held, and never read.
                std::future::pending::<()>().await;
                drop(events);
            }));
            let mut client = OverviewClient::new(channel.clone());
            unread.push(tokio::spawn(async move {
                let _ = client.status(v1::StatusRequest {}).await;
            }));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unread.into_iter().for_each(|task| task.abort());
    Ok(())
}

#[test]
fn a_viewer_costs_little_and_keeps_nobody_out() -> Result<()> {
    let cluster = with_an_outsider()?;
    let n1 = cluster.host("n1");
    // Enough to be looked at: a log of some length.
    for _ in 0..100 {
        n1.ctl_ok(&["node", "drain", "n3"])?;
        n1.ctl_ok(&["node", "undrain", "n3"])?;
    }
    let viewer = login(&cluster, "viewer")?;
    let before = n1.memory("VmRSS:")?;
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            cluster.lab.enter("n4")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(look_without_reading(&viewer))
        });
        looking.join().expect("no panic")
    })?;
    let most = n1.memory("VmHWM:")?;
    ensure!(most - before < VIEWER_COST, "{before} bytes before, {most} at most");
    ensure!(descriptors(n1)? < 400, "{} descriptors", descriptors(n1)?);
    n1.ctl_ok(&["status"])?;
    Ok(())
}
