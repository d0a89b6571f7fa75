//! The worked example `deploy/k0s`, as it is written there, with nginx in place of API
//! servers: TLS, `/readyz`, and a page that says who it is.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Daemon, Options, Page, wait_for};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/k0s");
const SOON: Duration = Duration::from_secs(20);
const VIP: &str = "10.77.0.100";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Addresses of the client, each a worker's, by their ends.
const WORKERS: std::ops::Range<u8> = 200..230;

const CONFIG: &str = "
pid nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 6443 ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        root html;
        location = /readyz {
            if (-f $document_root/../ill) {
                return 500;
            }
            return 200 ok;
        }
    }
}
";

fn folder(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.dir().join("srv").join(node)
}

fn api_server(cluster: &Cluster, node: &str) -> Result<Daemon> {
    let dir = folder(cluster, node);
    std::fs::create_dir_all(dir.join("html"))?;
    std::fs::write(dir.join("nginx.conf"), CONFIG)?;
    std::fs::write(dir.join("html/index.html"), node)?;
    let own = rcgen::generate_simple_self_signed(["kubernetes".to_owned()])?;
    std::fs::write(dir.join("cert.pem"), own.cert.pem())?;
    std::fs::write(dir.join("key.pem"), own.signing_key.serialize_pem())?;
    Daemon::nginx(&cluster.lab, node, &dir)
}

/// Whom each worker gets.
fn who(cluster: &Cluster) -> Result<BTreeMap<u8, String>> {
    let at = SocketAddr::new(VIP.parse()?, 6443);
    let ask = |last| {
        let from = IpAddr::from(Ipv4Addr::new(10, 77, 0, last));
        Ok((last, Page { at, by_tls: true, from }.get(&cluster.lab)?))
    };
    WORKERS.map(ask).collect()
}

fn is_by(found: &BTreeMap<u8, String>, wanted: &[&str]) -> bool {
    wanted.iter().all(|node| found.values().any(|by| by == node))
        && found.values().all(|by| wanted.contains(&by.as_str()))
}

fn answer(cluster: &Cluster, wanted: &[&str]) -> Result<BTreeMap<u8, String>> {
    wait_for("these answer, and no other", SOON, || {
        who(cluster).ok().filter(|found| is_by(found, wanted))
    })
    .with_context(|| {
        let shown = cluster.host("n1").ctl_ok(&["vs", "show", "api"]);
        format!("{wanted:?}, not {:?}: {shown:?}", who(cluster))
    })
}

#[test]
fn workers_find_an_api_server_whatever_happens_to_one() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    for last in WORKERS {
        let address = format!("10.77.0.{last}/32");
        cluster.lab.ip("client", &["address", "add", &address, "dev", "eth0"])?;
    }
    let mut servers: Vec<_> =
        NODES.iter().map(|node| api_server(&cluster, node)).collect::<Result<_>>()?;
    cluster.add_example(EXAMPLE, &format!("{VIP}/24"))?;
    let first = answer(&cluster, &NODES)?;
    assert_eq!(who(&cluster)?, first, "each keeps its own");
    let as_at_first = || {
        wait_for("each has its own again", SOON, || (who(&cluster).ok()? == first).then_some(()))
    };
    let shown = || cluster.host("n3").ctl_ok(&["vs", "show", "api"]);
    // Those of the others are where they were.
    let only_those_of = |gone: &str, now: &BTreeMap<u8, String>| {
        first.iter().all(|(worker, by)| by == gone || now.get(worker) == Some(by))
    };

    // One stops, the node that holds the VIP first.
    drop(servers.remove(0));
    let now = answer(&cluster, &["n2", "n3"])?;
    assert!(only_those_of("n1", &now), "{first:?} {now:?}");
    assert!(shown()?.contains("connection refused"), "{}", shown()?);
    servers.insert(0, api_server(&cluster, "n1")?);
    as_at_first()?;

    // One hangs: its kernel takes connections, and nobody reads them.
    servers[1].signal(Signal::SIGSTOP)?;
    let now = answer(&cluster, &["n1", "n3"])?;
    assert!(only_those_of("n2", &now), "{first:?} {now:?}");
    assert!(shown()?.contains("no answer within 1 s"), "{}", shown()?);
    servers[1].signal(Signal::SIGCONT)?;
    as_at_first()?;

    // One is there, and says that it is not ready.
    let ill = folder(&cluster, "n3").join("ill");
    std::fs::write(&ill, "")?;
    answer(&cluster, &["n1", "n2"])?;
    assert!(shown()?.contains("status 500, expected 200"), "{}", shown()?);
    std::fs::remove_file(&ill)?;
    as_at_first()
}
