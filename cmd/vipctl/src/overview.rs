//! `vipctl status`, `events`, `backup`.

use crate::Failure;
use crate::cli::Format;
use crate::ctl::Ctl;
use crate::output::{in_file, moment, or_dash, print, say, word};
use crate::{nodes, vips};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_stream::StreamExt;
use tonic::Request;
use vip_proto::v1;
use vip_proto::v1::overview_client::OverviewClient;

/// `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// So many troubles are named in the first line.
const NAMED: usize = 3;
/// Clocks that are kept in step differ by less, ms.
const OUT_OF_STEP_MS: u64 = 5_000;

impl Ctl {
    pub(crate) async fn status(&self, watch: bool) -> Result<(), Failure> {
        loop {
            let status = self.overview().await?;
            if watch && self.format == Format::Table && std::io::stdout().is_terminal() {
                // Clear the screen, as watch(1) does.
                say("\x1b[2J\x1b[H")?;
            }
            print(self.format, &status, at_a_glance)?;
            if watch && self.format == Format::Table && !std::io::stdout().is_terminal() {
                say("")?;
            }
            if !watch {
                return Ok(());
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    pub(crate) async fn events(&self, follow: bool) -> Result<(), Failure> {
        // Following has no end, so no timeout.
        let mut request = Request::new(v1::EventsRequest { follow, after: 0 });
        if !follow {
            request.set_timeout(self.timeout);
        }
        let mut events =
            OverviewClient::new(self.channel.clone()).events(request).await?.into_inner();
        while let Some(event) = events.next().await {
            let event = event?;
            match self.format {
                Format::Table => say(&event_line(&event, SystemTime::now()))?,
                // One object a line, so that a stream can be read.
                Format::Json | Format::Yaml => {
                    let line = serde_json::to_string(&event);
                    say(&line.map_err(|e| Failure::Failed(e.to_string()))?)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn backup(&self, path: &Path) -> Result<(), Failure> {
        let request = self.request(v1::BackupRequest {});
        let mut parts =
            OverviewClient::new(self.channel.clone()).backup(request).await?.into_inner();
        let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        // Of mode 0600, and in its place only when it is whole.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(in_file(path))?;
        let (mut bytes, mut fresh) = (0, false);
        while let Some(part) = parts.message().await? {
            file.write_all(&part.data).map_err(in_file(path))?;
            bytes += part.data.len();
            fresh = part.fresh;
        }
        file.as_file().sync_all().map_err(in_file(path))?;
        file.persist(path).map_err(|e| in_file(path)(e.error))?;
        std::fs::File::open(directory).and_then(|dir| dir.sync_all()).map_err(in_file(path))?;
        if !fresh {
            eprintln!("vipctl: no leader answered: this is what this node knew last");
        }
        let name = path.display().to_string();
        let value = json!({ "file": name, "bytes": bytes, "fresh": fresh });
        let text = format!(
            "{name} has what the cluster knows, and no private key: keep the root's key beside it"
        );
        self.done(value, &text)
    }
}

/// The first line: is anything wrong, and what may still fail.
fn verdict(status: &v1::StatusReply) -> String {
    let votes = |node: &&v1::Node| {
        let votes = matches!(node.role(), v1::Role::Voter | v1::Role::Witness);
        votes && node.state() != v1::NodeState::Joining
    };
    let there =
        |node: &&v1::Node| matches!(node.state(), v1::NodeState::Active | v1::NodeState::Drained);
    let voters: Vec<&v1::Node> = status.nodes.iter().filter(votes).collect();
    if let Some(removed) = &status.removed {
        return format!("REMOVED: {removed}");
    }
    if !status.quorum {
        let of = voters.len();
        return format!(
            "NO QUORUM: nothing can be changed until {} of the {of} voters reach each other",
            of / 2 + 1
        );
    }
    if !status.fresh {
        return format!("THE LEADER DOES NOT ANSWER: this is what {} knew last", status.node);
    }
    let lost = status.nodes.iter().filter(|node| node.state() == v1::NodeState::Lost);
    let lost = lost.map(|node| format!("{} is lost", node.name));
    let silent = status.vips.iter().filter(|vip| vip.fresh && !vip.answers);
    let silent = silent.map(|vip| format!("{} does not answer", vip.name));
    let unfit = status.nodes.iter().filter(|node| node.trouble.is_some());
    let unfit = unfit.map(|node| format!("{} can hold nothing", node.name));
    let trouble: Vec<String> = silent.chain(lost).chain(unfit).collect();
    let spare =
        voters.iter().filter(|node| there(node)).count().saturating_sub(voters.len() / 2 + 1);
    let spare = match spare {
        0 => "the loss of one more voter would stop it".to_owned(),
        1 => "one more voter may be lost".to_owned(),
        n => format!("{n} more voters may be lost"),
    };
    match trouble.as_slice() {
        [] if status.warnings.is_empty() => format!("all well; {spare}"),
        [] => format!("all VIPs answer, see the warnings; {spare}"),
        some if some.len() <= NAMED => format!("TROUBLE: {}; {spare}", some.join(", ")),
        some => {
            let (named, more) = (some[..NAMED].join(", "), some.len() - NAMED);
            format!("TROUBLE: {named} and {more} more; {spare}")
        }
    }
}

fn at_a_glance(status: &v1::StatusReply) -> String {
    let leader = or_dash(status.leader.as_deref());
    let quorum = if status.quorum { "yes" } else { "NO" };
    let mut text = format!(
        "{}\n\ncluster {}  leader {leader}  term {}  quorum {quorum}  profile {}  (seen by {})\n\n{}",
        verdict(status),
        status.cluster,
        status.term,
        word::<v1::Profile>(status.profile),
        status.node,
        nodes::table_of(&status.nodes)
    );
    if !status.vips.is_empty() {
        text += &format!("\n\n{}", vips::at_a_glance(&status.vips, SystemTime::now()));
    }
    for warning in &status.warnings {
        text += &format!("\n\nwarning: {warning}");
    }
    text
}

fn event_line(event: &v1::Event, now: SystemTime) -> String {
    // The log's time never falls, so it is that of the fastest clock of a leader.
    let then = UNIX_EPOCH + Duration::from_millis(event.time_ms.saturating_sub(OUT_OF_STEP_MS));
    let by = if then > now { " (by a clock that is ahead of this one)" } else { "" };
    format!("{}{by}  {}  [{}]", moment(event.time_ms), event.text, event.actor)
}

#[cfg(test)]
mod tests {
    use super::*;

    use v1::NodeState::{Active, Lost, Unknown};
    use v1::Role::{Learner, Voter, Witness};

    fn node(name: &str, role: v1::Role, state: v1::NodeState) -> v1::Node {
        v1::Node {
            name: name.to_owned(),
            role: role.into(),
            state: state.into(),
            id: 1,
            address: "192.0.2.1:7400".to_owned(),
            fresh: true,
            ..Default::default()
        }
    }

    fn vip(name: &str, answers: bool, addresses: usize) -> v1::Vip {
        let all = (0..addresses).map(|n| format!("2001:db8:ffff:ffff::{n}/128"));
        v1::Vip {
            name: name.to_owned(),
            addresses: all.collect(),
            answers,
            fresh: true,
            holder: Some("node-1".to_owned()),
            cause: Some(v1::Cause::LeaderChanged.into()),
            placement: v1::Placement::Leader.into(),
            ..Default::default()
        }
    }

    fn of(quorum: bool, nodes: Vec<v1::Node>, vips: Vec<v1::Vip>) -> v1::StatusReply {
        v1::StatusReply { quorum, fresh: quorum, nodes, vips, ..Default::default() }
    }

    #[test]
    fn the_first_line_says_who_is_in_trouble_and_what_may_still_fail() {
        let voters = |states: &[v1::NodeState]| -> Vec<v1::Node> {
            let names = ["n1", "n2", "n3", "n4", "n5"];
            names.iter().zip(states).map(|(name, state)| node(name, Voter, *state)).collect()
        };
        let web = |answers| vec![vip("web", answers, 1)];
        for (status, said) in [
            (of(true, voters(&[Active; 3]), web(true)), "all well; one more voter may be lost"),
            (of(true, voters(&[Active; 5]), web(true)), "all well; 2 more voters may be lost"),
            (
                of(true, voters(&[Active, Active, Lost]), web(true)),
                "TROUBLE: n3 is lost; the loss of one more voter would stop it",
            ),
            (
                of(true, voters(&[Active; 2]), web(false)),
                "TROUBLE: web does not answer; the loss of one more voter would stop it",
            ),
            (
                of(false, voters(&[Unknown, Active, Unknown]), web(false)),
                "NO QUORUM: nothing can be changed until 2 of the 3 voters reach each other",
            ),
        ] {
            assert_eq!(at_a_glance(&status).lines().next(), Some(said));
        }
        let mut with_witness = voters(&[Active, Lost]);
        with_witness.extend([node("w", Witness, Active), node("l", Learner, Lost)]);
        let line = verdict(&of(true, with_witness, vec![]));
        assert_eq!(
            line,
            "TROUBLE: n2 is lost, l is lost; the loss of one more voter would stop it"
        );
    }

    #[test]
    fn a_vip_with_many_addresses_fits_a_terminal() {
        let mut nodes = vec![node("node-1", Voter, Active)];
        nodes[0].leader = true;
        nodes[0].vips = (0..1000).map(|n| format!("vip-{n}")).collect();
        let mut vips = vec![vip("web", true, 64)];
        vips[0].since_ms = 1;
        let text = at_a_glance(&of(true, nodes, vips));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn of_many_troubles_the_first_line_names_some() {
        let nodes = vec![node("n1", Voter, Active)];
        let vips = (0..1000).map(|n| vip(&format!("v{n}"), false, 1)).collect();
        let line = verdict(&of(true, nodes, vips));
        assert!(line.contains("v2 does not answer and 997 more;"), "{line}");
    }

    /// The log's clock is the fastest that any leader had.
    #[test]
    fn what_comes_from_a_fast_clock_is_not_said_to_be_now() {
        let now = UNIX_EPOCH + Duration::from_secs(100_000);
        let at = |time_ms| v1::Event { time_ms, ..Default::default() };
        assert!(event_line(&at(100_060_000), now).contains("a clock that is ahead"));
        assert!(!event_line(&at(100_001_000), now).contains("a clock that is ahead"));
    }
}
