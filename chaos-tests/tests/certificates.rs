//! Wall clocks that are wrong, and certificates whose time is over or has not
//! come: nothing of it stops a member, and all of it is said.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options, wait_for};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// For a certificate to be renewed.
const RENEWAL: Duration = Duration::from_secs(20);

/// Three members, and a host that is none yet.
fn unwell() -> Result<Cluster> {
    let cluster = Cluster::bare(&Options { nodes: 4, unwell: true, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    for name in ["n2", "n3"] {
        cluster.join(cluster.host(name), "voter")?;
    }
    Ok(cluster)
}

const MEMBERS: [&str; 3] = ["n1", "n2", "n3"];

fn all_ahead(cluster: &Cluster, by: Duration) -> Result<()> {
    cluster.hosts.iter().try_for_each(|host| host.set_ahead(by))
}

fn restart(cluster: &mut Cluster) -> Result<()> {
    for name in MEMBERS {
        cluster.host_mut(name).stop()?;
    }
    MEMBERS.into_iter().try_for_each(|name| cluster.host_mut(name).start())
}

fn warnings(cluster: &Cluster, host: &str) -> String {
    let status = cluster.host(host).ctl_json(&["status"]);
    status.map(|status| status["warnings"].to_string()).unwrap_or_default()
}

fn all_renewed(cluster: &Cluster) -> Result<()> {
    wait_for("all certificates are good", RENEWAL, || {
        let good = |host| {
            let checks = cluster.host(host).ctl(&["doctor"]).ok()?.stdout;
            checks.contains("valid, and renewed in time").then_some(())
        };
        MEMBERS.into_iter().try_for_each(good)
    })
}

#[test]
fn after_nine_days_off_members_meet_and_others_join_at_once() -> Result<()> {
    let mut cluster = unwell()?;
    for name in MEMBERS {
        cluster.host_mut(name).stop()?;
    }
    all_ahead(&cluster, 9 * DAY)?;
    for name in MEMBERS {
        cluster.host_mut(name).start()?;
    }
    cluster.wait_for_status("n1", "a quorum", |status| status.quorum.then_some(()))?;
    all_renewed(&cluster)?;
    for name in MEMBERS {
        wait_for("the others' are seen to be good", RENEWAL, || {
            let checks = cluster.host(name).ctl(&["doctor"]).ok()?.stdout;
            checks.contains("none that was shown here ends soon").then_some(())
        })?;
    }
    cluster.join(cluster.host("n4"), "learner")
}

/// A node that cannot renew its certificate is named by those that see it.
#[test]
fn who_keeps_an_old_certificate_is_named_by_others() -> Result<()> {
    let mut cluster = unwell()?;
    // n3's own clock stands: it sees no need.
    for name in ["n1", "n2"] {
        cluster.host(name).set_ahead(6 * DAY)?;
    }
    for name in ["n1", "n2"] {
        cluster.host_mut(name).stop()?;
        cluster.host_mut(name).start()?;
    }
    wait_for("n1 or n2 says so", RENEWAL, || {
        ["n1", "n2"].into_iter().find(|name| {
            let checks = cluster.host(name).ctl(&["doctor"]).map(|o| o.stdout);
            checks.is_ok_and(|checks| checks.contains("that of n3 ends in"))
        })
    })
    .map(|_| ())
}

/// Certificates from the future and a log from the future: members go on, and
/// whoever is new joins.
#[test]
fn clocks_that_were_ahead_for_a_while_leave_nothing_behind() -> Result<()> {
    let mut cluster = unwell()?;
    all_ahead(&cluster, 9 * DAY)?;
    restart(&mut cluster)?;
    all_renewed(&cluster)?;
    cluster.host("n1").ctl_ok(&["node", "drain", "n3"])?;

    all_ahead(&cluster, Duration::ZERO)?;
    wait_for("it is said", RENEWAL, || {
        let said = warnings(&cluster, "n2").contains("certificate is valid in")
            || cluster.host("n2").log().contains("certificate is valid in");
        said.then_some(())
    })?;
    restart(&mut cluster)?;
    cluster.wait_for_status("n1", "a quorum", |status| status.quorum.then_some(()))?;
    all_renewed(&cluster)?;
    // A token lives from the later of both clocks, and says so.
    let token = cluster.token("learner")?;
    let tokens = cluster.host("n1").ctl_ok(&["token", "list"])?;
    assert!(tokens.contains("open"), "{tokens}");
    let n4 = cluster.host("n4");
    n4.ctl_ok(&["join", "10.77.0.1:7400", "--token-file", &token]).map(|_| ())
}

/// A leader whose clock is wrong signs nothing and writes no times, and the log
/// is none the worse for it.
#[test]
fn a_leader_with_a_wrong_clock_dates_nothing() -> Result<()> {
    let cluster = unwell()?;
    let (n1, n4) = (cluster.host("n1"), cluster.host("n4"));
    let token = cluster.token("learner")?;
    let newest = || -> Result<u64> {
        let events = n1.ctl_ok(&["-o", "json", "events"])?;
        let last = events.lines().last().context("an event")?;
        serde_json::from_str::<serde_json::Value>(last)?["time_ms"].as_u64().context("a time")
    };
    let before = newest()?;

    n1.set_ahead(5 * DAY / 2)?;
    wait_for("n1 knows", RENEWAL, || {
        warnings(&cluster, "n1").contains("far from those of most voters").then_some(())
    })?;
    wait_for("n2 knows", RENEWAL, || {
        warnings(&cluster, "n2").contains("of n1 is 2 days ahead").then_some(())
    })?;
    // It hears the leader alone, and who is wrong is not for it to say.
    assert!(!warnings(&cluster, "n2").contains("far from those of most voters"));
    let doctor = n1.ctl(&["doctor"])?.stdout;
    assert!(doctor.contains("of n2 is 2 days behind"), "{doctor}");
    let joined = n4.ctl(&["--timeout", "5s", "join", "10.77.0.1:7400", "--token-file", &token])?;
    assert!(joined.stderr.contains("signs no certificate"), "{joined:?}");
    let made = n1.ctl(&["token", "create", "-q"])?;
    assert!(made.stderr.contains("makes no token"), "{made:?}");
    // What needs no date goes on, at the log's own time.
    n1.ctl_ok(&["node", "drain", "n3"])?;
    let day_ms = u64::try_from(DAY.as_millis())?;
    assert!(newest()? < before + day_ms);

    n1.set_ahead(Duration::ZERO)?;
    wait_for("n1 is believed", RENEWAL, || {
        let said = warnings(&cluster, "n1");
        (!said.is_empty() && !said.contains("wall clock")).then_some(())
    })?;
    n4.ctl_ok(&["join", "10.77.0.1:7400", "--token-file", &token])?;

    // One follower alone cannot keep a leader from it.
    cluster.host("n3").set_ahead(5 * DAY / 2)?;
    wait_for("n1 sees n3", RENEWAL, || {
        warnings(&cluster, "n1").contains("of n3 is 2 days ahead").then_some(())
    })?;
    n1.ctl_ok(&["token", "create", "-q"]).map(|_| ())
}

/// Certificates have dates, so a machine whose clock is wrong joins nothing; it
/// is told what both clocks say.
#[test]
fn a_machine_whose_clock_is_wrong_is_told_both_times() -> Result<()> {
    let cluster = unwell()?;
    let token = cluster.token("learner")?;
    let n4 = cluster.host("n4");
    n4.set_ahead(30 * DAY)?;
    let refused = n4.ctl(&["join", "10.77.0.1:7400", "--token-file", &token])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in ["its certificate ended on 20", "this host's clock says 20", "set the one"] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    for word in ["Other", "transport", "UnixTime", "CertExpired"] {
        assert!(!refused.stderr.contains(word), "{word}: {refused:?}");
    }
    n4.set_ahead(Duration::ZERO)?;
    n4.ctl_ok(&["join", "10.77.0.1:7400", "--token-file", &token]).map(|_| ())
}
