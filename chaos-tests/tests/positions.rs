//! Attackers by where they stand, those that hold nothing of ours: on the path,
//! and on the VIP's segment. What a leader may not do either is here too.
//! Token and keys of members: `trust/`, `rotation.rs`; people: `admin_api.rs`;
//! the port alone: `strangers.rs`; a foreign host with the VIP's address:
//! `announcements.rs`.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Host, Options, Probe, wait_for};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use vip_core::{NodeId, Role};
use vip_pki::{NodeIdentity, NodeKey, PkiDir, Roster, generate_cluster_ca};
use vip_proto::ALPN_GRPC;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const LEADER: &str = "10.77.0.1:7400";
const SOON: Duration = Duration::from_secs(10);
/// The joiner's first flight and the leader's certificates; less than what it
/// takes to say anything.
const HANDSHAKE: [usize; 4] = [0, 1, 200, 1200];

/// n1 alone; n2 wants to join; n3 is on the path between them.
fn on_the_path() -> Result<(Cluster, String)> {
    let cluster = Cluster::bare(&Options::default())?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    let token = cluster.token("voter")?;
    Ok((cluster, token))
}

/// The joiner is told that n3's port is the leader's. What it said.
fn joins_by_n3(cluster: &Cluster, token: &str) -> Result<String> {
    let join = ["join", "10.77.0.3:7444", "--token-file", token];
    let outcome = cluster.host("n2").ctl(&join)?;
    anyhow::ensure!(outcome.code != Some(0), "it joined: {outcome:?}");
    Ok(outcome.stderr)
}

/// Runs in n3 for as long as `attacked` does.
fn with_port<R>(
    cluster: &Cluster,
    serve: impl Fn(TcpStream) -> Result<()> + Send + Sync,
    attacked: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ready, listens) = std::sync::mpsc::channel();
        let (stop, serve) = (&stop, &serve);
        scope.spawn(move || -> Result<()> {
            cluster.lab.enter("n3")?;
            let listener = TcpListener::bind("0.0.0.0:7444")?;
            listener.set_nonblocking(true)?;
            ready.send(())?;
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false)?;
                        // Whatever becomes of it, the next one is served.
                        let _ = serve(stream);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
            Ok(())
        });
        let result = listens.recv().context("no port").and_then(|()| attacked());
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn nobody_was_admitted(cluster: &Cluster) -> Result<()> {
    let events = cluster.host("n1").ctl_ok(&["events"])?;
    anyhow::ensure!(!events.contains("was admitted"), "{events}");
    let tokens = cluster.host("n1").ctl_ok(&["token", "list"])?;
    anyhow::ensure!(tokens.contains("open"), "{tokens}");
    Ok(())
}

/// A server with a CA of its own and the true root behind it: not one byte of
/// what the joiner would say comes out of it.
#[test]
fn on_the_path_with_the_true_root_behind_ones_own_nothing_is_learnt() -> Result<()> {
    let (cluster, token) = on_the_path()?;
    let root = PkiDir::new(&cluster.host("n1").dir().join("data")).load_identity()?;
    let root = root.root().context("a root")?.clone();
    let ca = generate_cluster_ca("mine")?;
    let key = NodeKey::generate()?;
    let csr = key.csr()?;
    let mut chain = ca.issuer.sign_node(&csr, NodeId(1), Some(Role::Voter), 0, "mine")?;
    chain.push(root);
    let identity = NodeIdentity { key, chain };
    let roster = Arc::new(arc_swap::ArcSwap::from_pointee(Roster::default()));
    let config = vip_pki::server_config(&identity, roster, &[ALPN_GRPC])?;
    let (came, learnt) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let serve = |stream: TcpStream| -> Result<()> {
        came.fetch_add(1, Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            stream.set_nonblocking(true)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let mut stream = TlsAcceptor::from(config.clone()).accept(stream).await?;
            let mut said = [0; 1024];
            let length = tokio::io::AsyncReadExt::read(&mut stream, &mut said).await?;
            learnt.fetch_add(length, Ordering::Relaxed);
            Ok(())
        })
    };
    let said = with_port(&cluster, serve, || joins_by_n3(&cluster, &token))?;
    assert!(said.contains("did not prove to be who it should be"), "{said}");
    assert!(said.contains("No secret was sent"), "{said}");
    assert!(came.into_inner() > 0, "or nothing was tried");
    assert_eq!(learnt.into_inner(), 0);
    nobody_was_admitted(&cluster)?;
    cluster.host("n2").ctl_ok(&["join", LEADER, "--token-file", &token]).map(|_| ())
}

/// Passes so many bytes on in each direction, and cuts.
fn pass(joiner: &TcpStream, bytes: usize) -> Result<()> {
    let leader = TcpStream::connect(LEADER)?;
    let limit = Some(Duration::from_secs(1));
    leader.set_read_timeout(limit)?;
    joiner.set_read_timeout(limit)?;
    let one_way = |mut from: &TcpStream, mut to: &TcpStream| {
        let (mut left, mut buffer) = (bytes, [0; 4096]);
        while left > 0 {
            let wanted = left.min(buffer.len());
            match from.read(&mut buffer[..wanted]) {
                Ok(read) if read > 0 && to.write_all(&buffer[..read]).is_ok() => left -= read,
                _ => break,
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| one_way(joiner, &leader));
        one_way(&leader, joiner);
    });
    Ok(())
}

#[test]
fn on_the_path_a_cut_leaves_the_token_as_it_was() -> Result<()> {
    let (cluster, token) = on_the_path()?;
    for bytes in HANDSHAKE {
        let serve = |stream: TcpStream| pass(&stream, bytes);
        with_port(&cluster, serve, || joins_by_n3(&cluster, &token))?;
        nobody_was_admitted(&cluster)?;
    }
    // Who passes everything on changes nothing.
    let serve = |stream: TcpStream| pass(&stream, usize::MAX);
    let join = ["join", "10.77.0.3:7444", "--token-file", &token];
    with_port(&cluster, serve, || cluster.host("n2").ctl_ok(&join)).map(|_| ())
}

/// A client that knows TLS 1.2 and nothing later (RFC 5246 section 7.4.1.2).
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions = [
        // supported_groups: secp256r1; signature_algorithms: ECDSA with SHA-256.
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 13, 0, 4, 0, 2, 4, 3],
        &[0, 11, 0, 2, 1, 0],
    ]
    .concat();
    let suites = [0, 2, 0xc0, 0x2b];
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &suites, &[1, 0], &length(&extensions), &extensions].concat();
    let handshake = [&[1, 0][..], &length(&body), &body].concat();
    [&[22, 3, 1][..], &length(&handshake), &handshake].concat()
}

#[test]
fn on_the_path_nobody_is_talked_down_to_tls_1_2() -> Result<()> {
    let (cluster, _) = on_the_path()?;
    let answer = std::thread::scope(|scope| {
        let lab = &cluster.lab;
        let thread = scope.spawn(|| -> Result<Vec<u8>> {
            lab.enter("n3")?;
            let mut stream = TcpStream::connect_timeout(&LEADER.parse::<SocketAddr>()?, SOON)?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(&hello_of_tls_1_2())?;
            let mut answer = vec![];
            let _ = stream.read_to_end(&mut answer);
            Ok(answer)
        });
        thread.join().expect("no panic")
    })?;
    // A fatal alert, protocol_version (RFC 8446 section 6.2), and nothing else.
    assert_eq!(answer.get(..1), Some(&[21][..]), "{answer:?}");
    assert_eq!(answer.get(5..), Some(&[2, 70][..]), "{answer:?}");
    Ok(())
}

/// Whatever a leader writes into the log, the guards add no gateway.
#[test]
fn no_leader_gives_the_address_of_a_gateway_to_anybody() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    for name in ["n1", "n2", "n3"] {
        cluster.lab.ip(name, &["route", "add", "default", "via", "10.77.0.254"])?;
    }
    // The entry is the same that a forged one would be.
    let add = ["--timeout", "5s", "vip", "add", "gateway", "--address", "10.77.0.254/24"];
    let refused = cluster.host("n1").ctl(&add)?;
    assert!(refused.stderr.contains("gateway"), "{refused:?}");
    for name in ["n1", "n2", "n3"] {
        wait_for("it to be asked", SOON, || {
            let log = cluster.host(name).log();
            (log.contains("10.77.0.254") && log.contains("gateway")).then_some(())
        })?;
        assert!(!cluster.lab.has_address(name, "10.77.0.254")?, "{name}");
    }
    Ok(())
}

fn holder_and_epoch(host: &Host) -> Result<(String, u64)> {
    let vip = host.ctl_json(&["vip", "show", "web"])?;
    let holder = vip["holder"].as_str().context("a holder")?.to_owned();
    Ok((holder, vip["epoch"].as_u64().context("an epoch")?))
}

/// What the holder before once announced, sent again a thousand times: nothing
/// moves, it is said, and the answer to it is no storm.
#[test]
fn announcements_that_are_replayed_move_nothing_and_cause_no_storm() -> Result<()> {
    /// A defence is eight announcements of two frames, at most one in 10 s.
    const DEFENCE: usize = 16;
    let mut cluster = Cluster::formed(&Options::default())?;
    cluster.lab.add_host("recorder", 77)?;
    let n2 = cluster.host("n2");
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"];
    n2.ctl_ok(&add)?;
    let (old, _) = holder_and_epoch(n2)?;
    let new = if old == "n2" { "n3" } else { "n2" };
    n2.ctl_ok(&["vip", "move", "web", "--to", new])?;
    let before = holder_and_epoch(n2)?;
    assert_eq!(before.0, new);
    let macs = cluster.macs()?;
    let mac = |name: &str| macs.iter().find(|(n, _)| n == name).map(|(_, mac)| *mac);
    let (old_mac, new_mac) = (mac(&old).context("a MAC")?, mac(new).context("a MAC")?);

    let probe = Probe::start(&cluster.lab, VIP)?;
    let begin = std::time::Instant::now();
    cluster.lab.replay("recorder", (old_mac, VIP), 1000, Duration::from_millis(2))?;
    let took = begin.elapsed();
    wait_for("the holder says so", SOON, || {
        cluster.host(new).log().contains("another host claims").then_some(())
    })?;
    let trace = probe.finish()?;
    assert_eq!(holder_and_epoch(cluster.host("n2"))?, before);
    let defences = trace.claims.iter().filter(|claim| claim.from == new_mac).count();
    let most = DEFENCE * (2 + usize::try_from(took.as_secs() / 10)?);
    assert!((1..=most).contains(&defences), "{defences} in {took:?}");
    assert_eq!(cluster.holders(&trace)?, [new], "nobody else answered");
    Ok(())
}
