//! The programs in the hands of people and scripts: pipes, full disks, too few
//! rights, arguments that mean nothing.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options, Outcome, binaries};
use std::time::{Duration, Instant};

fn alone() -> Result<Cluster> {
    let cluster = Cluster::bare(&Options { nodes: 1, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["init"])?;
    Ok(cluster)
}

/// A line of the shell, in which `$ctl` is vipctl.
fn shell(cluster: &Cluster, line: &str) -> Result<Outcome> {
    let ctl = binaries()?.join("vipctl").display().to_string();
    let socket = cluster.host("n1").dir().join("admin.sock").display().to_string();
    cluster.host("n1").exec("bash", &["-c", &format!("ctl='{ctl} --socket {socket}'; {line}")])
}

fn open_tokens(cluster: &Cluster) -> Result<usize> {
    let tokens = cluster.host("n1").ctl_json(&["token", "list"])?;
    let open = |token: &&serde_json::Value| token["state"] == "open";
    Ok(tokens.as_array().into_iter().flatten().filter(open).count())
}

#[test]
fn whoever_stops_reading_ends_vipctl_quietly() -> Result<()> {
    let cluster = alone()?;
    for command in ["status", "events", "-o json status", "vip list"] {
        // Nobody reads at all.
        let line = format!("$ctl {command} | true; exit ${{PIPESTATUS[0]}}");
        let outcome = shell(&cluster, &line)?;
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{command}");
    }
    let first = shell(&cluster, "$ctl status | head -1")?;
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    assert_eq!(first.stdout.lines().count(), 1);
    Ok(())
}

#[test]
fn a_full_disk_is_an_error_and_costs_no_token() -> Result<()> {
    let cluster = alone()?;
    let full = shell(&cluster, "$ctl status > /dev/full")?;
    assert_eq!(full.code, Some(1), "{full:?}");
    assert!(full.stderr.contains("standard output: No space left"), "{full:?}");
    // The one that `init` made.
    let before = open_tokens(&cluster)?;
    for line in [
        "$ctl token create > /dev/full",
        "$ctl token create -q > /dev/full",
        "$ctl -o json token create > /dev/full",
        "$ctl token create | true; exit ${PIPESTATUS[0]}",
    ] {
        let lost = shell(&cluster, line)?;
        assert_eq!(lost.code, Some(1), "{line}: {lost:?}");
        assert!(lost.stderr.contains("and was revoked"), "{line}: {lost:?}");
        assert_eq!(open_tokens(&cluster)?, before, "{line}");
    }
    Ok(())
}

/// As it is printed: the command, then the token as the terminal's next line,
/// which no shell sees. Nothing in it needs another shell than sh.
#[test]
fn the_printed_join_command_works_and_shows_no_shell_the_token() -> Result<()> {
    let cluster = Cluster::bare(&Options { nodes: 2, ..Options::default() })?;
    let text = cluster.host("n1").ctl_ok(&["init"])?;
    let line = |begins: &str| text.lines().map(str::trim).find(|line| line.starts_with(begins));
    let (command, token) = (line("vipctl join"), line("vipt1_"));
    let (command, token) = (command.context("a command")?, token.context("a token")?);
    assert!(!command.contains(token) && !command.contains('<'), "{text}");
    let n2 = cluster.host("n2");
    let ctl = binaries()?.join("vipctl").display().to_string();
    let ctl = format!("{ctl} --socket {}", n2.dir().join("admin.sock").display());
    let command = command.replacen("vipctl", &ctl, 1);
    // Of a terminal that stays open: no end of file says that it was all.
    let typed = format!("(echo '{token}'; sleep 20) | script -qec '{command}' /dev/null");
    let begun = Instant::now();
    let joined = n2.exec("sh", &["-c", &format!("{typed} & wait $!")])?;
    assert_eq!(joined.code, Some(0), "{joined:?}");
    assert!(joined.stdout.contains("n2 is a voter"), "{joined:?}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    Ok(())
}

#[test]
fn what_would_mean_something_else_is_refused() -> Result<()> {
    let cluster = alone()?;
    let before = open_tokens(&cluster)?;
    for arguments in [["--ttl", "0s"], ["--ttl", "500ms"], ["--uses", "0"]] {
        let refused = cluster.host("n1").ctl(&[&["token", "create"], &arguments[..]].concat())?;
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
    }
    assert_eq!(open_tokens(&cluster)?, before);
    let watched = shell(&cluster, "timeout 2 $ctl status --watch | cat")?;
    assert!(!watched.stdout.contains('\u{1b}'), "escapes in a pipe: {watched:?}");
    Ok(())
}

/// Whoever calls a doctor wants to know what others go by.
#[test]
fn doctor_says_where_peers_reach_this_node() -> Result<()> {
    let cluster = Cluster::bare(&Options { nodes: 1, ..Options::default() })?;
    let said = |words: &str| -> Result<()> {
        let text = cluster.host("n1").ctl(&["doctor"])?.stdout;
        anyhow::ensure!(text.contains(words), "{words}: {text}");
        Ok(())
    };
    said("peers will use 10.77.0.1:7400")?;
    cluster.host("n1").ctl_ok(&["init"])?;
    said("peers use 10.77.0.1:7400")
}

/// No restart brings a right: the reason at once, rather than again and again.
#[test]
fn vipd_without_the_rights_that_it_needs_says_so_and_ends() -> Result<()> {
    let lab = chaos_tests::Lab::new(1)?;
    let vipd = binaries()?.join("vipd").display().to_string();
    let dir = std::env::temp_dir().join(lab.namespace("rights")).display().to_string();
    let begun = Instant::now();
    let data = format!("node.data_dir={dir}");
    let run = ["--bounding-set", "-net_admin,-net_raw,-bpf", &vipd, "run", "--set", &data];
    let outcome = lab.exec("n1", "setpriv", &run)?;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for said in ["CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF", "run vipd as root", "Nothing was started"] {
        assert!(outcome.stderr.contains(said), "{said}: {outcome:?}");
    }
    assert!(!std::path::Path::new(&dir).exists());
    Ok(())
}
