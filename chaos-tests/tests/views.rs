//! What commands show, and what they cannot know.

use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Options, wait_for};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Two of three are off: the third one knows of itself alone.
#[test]
fn without_a_quorum_nothing_is_said_to_answer_or_to_be_active() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let n3 = |cluster: &Cluster, arguments: &[&str]| cluster.host("n3").ctl_json(arguments);
    let (vip, nodes) = (["vip", "show", "web"], ["node", "list"]);
    let before = n3(&cluster, &vip)?;
    assert_eq!((&before["answers"], &before["fresh"]), (&true.into(), &true.into()), "{before}");
    let mut faults = Faults::default();
    for lost in ["n1", "n2"] {
        faults.inject(&mut cluster, Fault::PowerOff(lost.into()))?;
    }
    wait_for("n3 to know of no leader", SOON, || {
        (!cluster.status("n3").ok()?.quorum).then_some(())
    })?;
    let after = n3(&cluster, &vip)?;
    assert_eq!((&after["answers"], &after["fresh"]), (&false.into(), &false.into()), "{after}");
    let after = n3(&cluster, &nodes)?;
    let state = |name: &str| {
        let all = after.as_array().into_iter().flatten();
        all.filter(|node| node["name"] == name).map(|node| node["state"].clone()).next()
    };
    for (name, expected) in [("n1", "unknown"), ("n2", "unknown"), ("n3", "active")] {
        assert_eq!(state(name), Some(expected.into()), "{after}");
    }
    Ok(())
}
