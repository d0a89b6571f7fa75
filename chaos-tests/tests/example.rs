//! The worked example under `deploy/`, as it is written there.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Daemon, Options, wait_for};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/three-nginx");
const SOON: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 60;
/// TCP tries again several times within it.
const SILENCE: Duration = Duration::from_secs(15);

fn start(cluster: &Cluster, node: &str) -> Result<Daemon> {
    let dir = cluster.dir().join("nginx").join(node);
    std::fs::create_dir_all(dir.join("html"))?;
    std::fs::copy(Path::new(EXAMPLE).join("nginx.conf"), dir.join("nginx.conf"))?;
    std::fs::write(dir.join("html/index.html"), node)?;
    Daemon::nginx(&cluster.lab, node, &dir)
}

/// Asks for the page on a connection that is kept; returns what it says.
fn get(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut reply = vec![];
    let mut part = [0; 1024];
    loop {
        let length = stream.read(&mut part)?;
        ensure!(length > 0, "the connection was closed");
        reply.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&reply);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.context("no length")?.parse()?;
        if body.len() >= length {
            return Ok(body.to_owned());
        }
    }
}

#[test]
fn three_nginx_behind_one_vip_outlive_the_one_that_held_it() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let nodes = ["n1", "n2", "n3"];
    let started = nodes.map(|node| start(&cluster, node));
    let _running = started.into_iter().collect::<Result<Vec<_>>>()?;

    cluster.add_example(EXAMPLE, "10.77.0.100/24")?;
    for node in nodes {
        wait_for("it is a real server", SOON, || {
            let lo = cluster.lab.ip(node, &["address", "show", "dev", "lo"]).ok()?;
            lo.contains("10.77.0.100/32").then_some(())
        })?;
    }

    let namespace = cluster.lab.namespace("client");
    let opened = std::thread::spawn(move || -> Result<Vec<TcpStream>> {
        let file = std::fs::File::open(format!("/run/netns/{namespace}"))?;
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let open = |_| {
            let stream = TcpStream::connect("10.77.0.100:80")?;
            stream.set_read_timeout(Some(SILENCE))?;
            Ok(stream)
        };
        (0..CONNECTIONS).map(open).collect()
    });
    let streams = opened.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    let mut connections = vec![];
    for mut stream in streams {
        let name = get(&mut stream)?;
        connections.push((stream, name));
    }
    let mut seen = BTreeMap::<_, usize>::new();
    for (_, name) in &connections {
        *seen.entry(name.clone()).or_default() += 1;
    }
    assert!(seen.keys().eq(nodes.iter()), "{seen:?}");

    let vip = cluster.host("n1").ctl_json(&["vip", "show", "web"])?;
    let old = vip["holder"].as_str().context("nobody holds it")?.to_owned();
    let watcher = nodes.into_iter().find(|node| *node != old).context("one of three")?;
    cluster.host_mut(&old).kill_all();
    cluster.lab.isolate(&old)?;
    cluster.wait_for_takeover(watcher, &old)?;
    for (stream, name) in connections.iter_mut().filter(|(_, name)| *name != old) {
        assert_eq!(get(stream)?, *name);
    }
    Ok(())
}
