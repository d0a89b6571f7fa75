//! What an agent keeps of its lease decisions, for whoever reports a surprise.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options, Process, binaries, run, wait_for};
use nix::sys::signal::Signal;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Asked through the parent, as who has its pid would.
#[test]
fn what_agents_decided_is_written_when_asked_and_happens_again_elsewhere() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    let token = std::fs::read_to_string(cluster.token("voter")?)?;
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_at_leader("n1")?;
    n1.ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
    let agents: Vec<_> = cluster.hosts.iter().map(|host| host.find(Process::Agent)).collect();
    for host in &cluster.hosts {
        host.signal(&[Process::Parent, Process::Guard], Signal::SIGUSR1)?;
    }
    let vip_sim = binaries()?.join("vip-sim").display().to_string();
    for host in &cluster.hosts {
        let whole = |path: &std::path::PathBuf| {
            let text = std::fs::read_to_string(path).ok()?;
            (text.lines().count() > 10 && text.ends_with('\n')).then_some(text)
        };
        let text = wait_for("a recording", SOON, || host.recordings().iter().find_map(whole))?;
        for path in host.recordings() {
            let replayed = run(&vip_sim, &["--replay", &path.display().to_string()])?.ok()?;
            assert!(replayed.contains(" 0 of them decided otherwise now"), "{replayed}");
        }
        no_secrets(host, &token, &text)?;
    }
    // It ended nobody.
    let now: Vec<_> = cluster.hosts.iter().map(|host| host.find(Process::Agent)).collect();
    assert_eq!(now, agents);
    assert!(cluster.hosts.iter().all(|host| host.find(Process::Guard).is_some()));
    Ok(())
}

/// Neither the token nor any key that lies in the node's directory.
fn no_secrets(host: &chaos_tests::Host, token: &str, text: &str) -> Result<()> {
    // vipt1_<role>_<id>_<secret>_<pin>_<crc>
    let secret = token.split('_').nth(3).context("a token's secret")?;
    assert!(secret.len() > 20 && !text.contains(secret));
    assert!(!text.contains("PRIVATE KEY"));
    let keys = std::fs::read_dir(host.dir().join("data/pki"))?.filter_map(Result::ok);
    let mut looked_at = 0;
    for key in keys {
        let pem = std::fs::read_to_string(key.path()).unwrap_or_default();
        for line in pem.lines().filter(|line| line.len() > 30 && !line.starts_with("---")) {
            assert!(!text.contains(line), "{} is in it", key.path().display());
            looked_at += 1;
        }
    }
    assert!(looked_at > 0, "no key was looked for");
    Ok(())
}
