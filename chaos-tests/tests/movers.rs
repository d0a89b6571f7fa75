//! VIPs that a program of the operator's own moves (`--via exec`), by an API that takes its time
//! and changes what it was asked to change alone.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Options, wait_for, within};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// Those that were refused are asked again after longer and longer.
const LATE: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VIP: &str = "10.77.0.100";
/// Nobody waits for what cannot be.
const SHORTLY: [&str; 2] = ["--timeout", "6s"];
/// Longer than any lease.
const SLOW: &str = "2";

/// An API in files, and the program that calls it.
struct Api {
    /// Root's alone.
    programs: PathBuf,
    state: PathBuf,
}

const PROGRAM: &str = r#"#!/bin/sh
cd STATE || exit 1
if [ "$1" = take ] && [ -f slow ]; then sleep "$(cat slow)"; fi
exec 9>lock; flock 9
rev=$(cat rev); who=$(cat who)
echo "$1 $VIPD_NODE $VIPD_EPOCH ${VIPD_TOKEN:-none} $rev $who" >> calls
if [ -f "refuse-$VIPD_NODE" ]; then echo "no permission"; exit 1; fi
case $1 in
observe) [ "$who" = "$VIPD_NODE" ] && exit 0; echo "$rev"; exit 3 ;;
take)
    [ "$rev" = "$VIPD_TOKEN" ] || { echo "stale"; exit 1; }
    echo $((rev + 1)) > rev; echo "$VIPD_NODE" > who
    if [ -f lose ]; then echo "no answer"; exit 1; fi ;;
release)
    [ "$who" = "$VIPD_NODE" ] || exit 0
    if [ -f lose ]; then rm lose; echo "no answer"; exit 1; fi
    echo $((rev + 1)) > rev; echo nobody > who ;;
esac
"#;

impl Api {
    fn new(name: &str) -> Result<Self> {
        let own = |what: &str| {
            std::env::temp_dir().join(format!("vipd-{what}-{name}-{}", std::process::id()))
        };
        let api = Self { programs: own("movers"), state: own("api") };
        for (dir, mode) in [(&api.programs, 0o755), (&api.state, 0o777)] {
            std::fs::create_dir(dir)?;
            std::fs::set_permissions(dir, PermissionsExt::from_mode(mode))?;
        }
        let program = api.programs.join("move");
        std::fs::write(&program, PROGRAM.replace("STATE", &api.state.display().to_string()))?;
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
        api.says("rev", "1")?;
        api.says("who", "nobody")?;
        Ok(api)
    }

    /// Whoever runs the program may change it.
    fn says(&self, file: &str, text: &str) -> Result<()> {
        let path = self.state.join(file);
        std::fs::write(&path, format!("{text}\n"))?;
        Ok(std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666))?)
    }

    fn ends(&self, file: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.state.join(file))?)
    }

    fn who(&self) -> String {
        std::fs::read_to_string(self.state.join("who")).unwrap_or_default().trim().to_owned()
    }

    /// Those that took it, of the calls so far.
    fn takes(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.state.join("calls")).unwrap_or_default();
        calls.lines().filter(|line| line.starts_with("take ")).map(ToOwned::to_owned).collect()
    }

    fn cluster(&self) -> Result<Cluster> {
        let settings = vec![format!("cloud.exec.dir={}", self.programs.display())];
        Cluster::formed(&Options { settings, ..Options::default() })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        for dir in [&self.programs, &self.state] {
            let _ = std::fs::remove_dir_all(dir as &Path);
        }
    }
}

const ADD: [&str; 10] = [
    "vip",
    "add",
    "web",
    "--address",
    "10.77.0.100/24",
    "--placement",
    "sticky",
    "--via",
    "exec",
    "--param",
];

fn add(cluster: &Cluster, more: &[&str]) -> Result<String> {
    cluster.host("n1").ctl_ok(&[&ADD[..], &["file=move"], more].concat())
}

fn answers(cluster: &Cluster) -> bool {
    let ping = ["-c1", "-W1", VIP];
    cluster.lab.exec("client", "ping", &ping).is_ok_and(|outcome| outcome.code == Some(0))
}

fn another_than(node: &str) -> &'static str {
    NODES.into_iter().find(|name| *name != node).unwrap_or("n1")
}

#[test]
fn it_answers_once_the_program_confirms_and_wherever_it_goes() -> Result<()> {
    let api = Api::new("moves")?;
    let mut cluster = api.cluster()?;
    let refused = cluster.host("n1").ctl(&[&ADD[..9]].concat())?;
    ensure!(refused.stderr.contains("--via exec wants --param file=.."), "{refused:?}");
    add(&cluster, &[])?;
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    assert_eq!(api.who(), holder);
    ensure!(answers(&cluster), "it does not answer");
    let shown = cluster.host("n2").ctl_ok(&["vip", "show", "web"])?;
    ensure!(shown.contains("web is moved by the program move on its holder"), "{shown}");

    // Planned, by a program that is slower than any lease lasts.
    api.says("slow", SLOW)?;
    let (to, began) = (another_than(&holder), Instant::now());
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
    ensure!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((api.who().as_str(), answers(&cluster)), (to, true));
    let epoch = cluster.status("n1")?.vips[0].2;
    let last = api.takes().pop().context("a take")?;
    ensure!(last.starts_with(&format!("take {to} {epoch} 2 2")), "{last}");

    // Its host loses its power, and an answer its way.
    api.ends("slow")?;
    api.says("lose", "")?;
    cluster.host_mut(to).kill_all();
    let next = cluster.wait_for_takeover(another_than(to), to)?;
    assert_eq!((api.who(), answers(&cluster)), (next.clone(), true));
    let of_next = api.takes().iter().filter(|line| line.contains(&next)).count();
    ensure!(of_next >= 1, "{:?}", api.takes());
    api.ends("lose")?;

    // Somebody else moves it away.
    api.says("rev", "9")?;
    api.says("who", "somebody")?;
    wait_for("it is taken back", SOON, || (api.who() == next).then_some(()))?;
    ensure!(answers(&cluster), "it was held all the while");
    let at = another_than(to);
    let told = || cluster.host(at).ctl_ok(&["events"]).ok();
    let said = format!("VIP web was not found at {next} any more, which takes it back");
    wait_for("it is said", SOON, || told().filter(|events| events.contains(&said)))?;

    // It is removed, which its holder says, again and again.
    api.says("lose", "")?;
    cluster.host(at).ctl_ok(&["vip", "remove", "web"])?;
    wait_for("it is nobody's", SOON, || (api.who() == "nobody").then_some(()))?;
    ensure!(!api.state.join("lose").exists(), "it was not refused");
    Ok(())
}

#[test]
fn whoever_may_not_move_it_leaves_it_to_others() -> Result<()> {
    let api = Api::new("refused")?;
    let cluster = api.cluster()?;
    for node in ["n1", "n2"] {
        api.says(&format!("refuse-{node}"), "")?;
    }
    add(&cluster, &["--no-wait"])?;
    wait_for("the one that may has it", SOON, || (api.who() == "n3").then_some(()))?;
    cluster.wait_for_status("n1", "n3 to hold it", |status| {
        (status.vips.first()?.1.as_deref() == Some("n3")).then_some(())
    })?;
    let listed = || cluster.host("n2").ctl_ok(&["vip", "list"]).unwrap_or_default();
    let why = "cannot be moved here: move ended with 1: no permission";
    wait_for("why others do not", SOON, || listed().contains(why).then_some(()))
        .with_context(listed)?;
    let events = cluster.host("n1").ctl_ok(&["events"])?;
    ensure!(events.contains(why), "{events}");

    // Once it may, it has to be said: it is taken from nobody who has it.
    api.ends("refuse-n1")?;
    cluster.host("n2").ctl_ok(&["vip", "move", "web", "--to", "n1"])?;
    assert_eq!((api.who().as_str(), answers(&cluster)), ("n1", true));
    api.says("refuse-n1", "")?;

    // Nobody may: nothing is left behind.
    api.says("refuse-n3", "")?;
    cluster.host("n1").ctl_ok(&["vip", "remove", "web"])?;
    let refused = cluster.host("n1").ctl(&[&ADD[..], &["file=move"]].concat())?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("no permission"), "{refused:?}");
    let missing = cluster.host("n1").ctl(&[&ADD[..], &["file=other"]].concat())?;
    ensure!(missing.stderr.contains("other"), "{missing:?}");
    Ok(())
}

/// What kept them from it may be over, and nobody is told of that.
#[test]
fn whoever_could_not_move_it_is_asked_again_when_the_one_that_could_is_gone() -> Result<()> {
    let api = Api::new("again")?;
    let mut cluster = api.cluster()?;
    for node in NODES {
        api.says(&format!("refuse-{node}"), "")?;
    }
    add(&cluster, &["--no-wait"])?;
    let listed = || cluster.host("n1").ctl_ok(&["vip", "list"]).unwrap_or_default();
    for node in NODES {
        let why = format!("cannot be on {node}");
        wait_for("all to have been refused", LATE, || listed().contains(&why).then_some(()))
            .with_context(listed)?;
    }
    api.ends("refuse-n3")?;
    wait_for("the one that may has it", LATE, || (api.who() == "n3").then_some(()))?;
    for node in ["n1", "n2"] {
        api.ends(&format!("refuse-{node}"))?;
    }
    let told = || cluster.host("n1").ctl_ok(&["events"]).unwrap_or_default();
    let answers_there = || told().contains("VIP web answers on n3").then_some(());
    wait_for("it to answer there", SOON, answers_there)?;
    cluster.host_mut("n3").kill_all();
    let next = cluster.wait_for_takeover("n1", "n3")?;
    wait_for("it is moved there", SOON, || (api.who() == next).then_some(()))?;
    ensure!(answers(&cluster), "it does not answer");
    Ok(())
}

/// A holder that is cut off while it has the VIP moved does not move it after that.
#[test]
fn a_call_ends_with_the_lease() -> Result<()> {
    let api = Api::new("cut")?;
    let cluster = api.cluster()?;
    add(&cluster, &[])?;
    let leader = cluster.status("n1")?.leader.context("a leader")?;
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    let to = NODES.into_iter().find(|n| *n != leader && *n != holder).context("a third")?;
    api.says("slow", SLOW)?;
    let from = leader.clone();
    std::thread::scope(|scope| -> Result<()> {
        let moved = scope.spawn(|| {
            cluster.host(&from).ctl(&[&SHORTLY[..], &["vip", "move", "web", "--to", to]].concat())
        });
        let assigned = |status: &chaos_tests::Status| {
            (status.vips.first()?.1.as_deref() == Some(to)).then_some(())
        };
        cluster.wait_for_status(&leader, "it to be assigned", assigned)?;
        // The program runs from here on.
        let runs = || {
            let pids = cluster.lab.exec(to, "pgrep", &["-f", "move take"]).ok()?;
            (pids.code == Some(0)).then_some(())
        };
        wait_for("the program to run", SOON, runs)?;
        cluster.lab.isolate(to)?;
        api.ends("slow")?;
        let next = cluster.wait_for_takeover(&leader, to)?;
        wait_for("it is moved there", SOON, || (api.who() == next).then_some(()))?;
        let before = api.takes();
        // What was asked for by whoever lost the lease would act by now.
        let late = within(Duration::from_secs(3), || (api.takes() != before).then(|| api.takes()));
        ensure!(late.is_none(), "{before:?}, then {late:?}");
        ensure!(!before.iter().any(|line| line.contains(&format!("take {to} "))), "{before:?}");
        cluster.lab.heal(to)?;
        let _ = moved.join();
        Ok(())
    })?;
    ensure!(answers(&cluster), "it does not answer");
    Ok(())
}
