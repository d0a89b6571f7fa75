//! Tables for people; JSON and YAML, with one schema per command, for scripts.

use crate::Failure;
use crate::cli::Format;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vip_proto::v1;

/// `vipctl status`.
#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) cluster: String,
    pub(crate) term: u64,
    pub(crate) leader: Option<String>,
    pub(crate) quorum: bool,
    pub(crate) nodes: Vec<Node>,
    pub(crate) vips: Vec<Vip>,
    /// The node that answered.
    pub(crate) node: String,
    pub(crate) profile: String,
    pub(crate) gate: String,
    pub(crate) warnings: Vec<String>,
    /// The leader's own word, not what another node knew last.
    pub(crate) fresh: bool,
    /// That the node which answered was removed, when and by whom.
    pub(crate) removed: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) state: String,
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) leader: bool,
    pub(crate) vips: Vec<String>,
    pub(crate) fresh: bool,
    /// Why it can hold nothing at all.
    pub(crate) trouble: Option<String>,
    pub(crate) hindered: Vec<Hindrance>,
    /// The vipd that it runs.
    pub(crate) version: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Vip {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) holder: Option<String>,
    pub(crate) epoch: u64,
    pub(crate) since_ms: u64,
    pub(crate) cause: Option<String>,
    pub(crate) answers: bool,
    pub(crate) interface: Option<String>,
    pub(crate) placement: String,
    pub(crate) pinned: Option<String>,
    pub(crate) hindered: Vec<Hindrance>,
    pub(crate) fresh: bool,
    /// Its holder itself says that it does not answer.
    pub(crate) silent: bool,
}

/// A node that could not hold a VIP.
#[derive(Serialize)]
pub(crate) struct Hindrance {
    pub(crate) vip: String,
    pub(crate) node: String,
    pub(crate) why: String,
}

#[derive(Serialize)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) role: String,
    pub(crate) state: String,
    pub(crate) uses: u32,
    pub(crate) max_uses: u32,
    pub(crate) expires_ms: u64,
    pub(crate) created_by: String,
}

#[derive(Serialize)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) time_ms: u64,
    pub(crate) kind: String,
    pub(crate) actor: String,
    pub(crate) text: String,
    pub(crate) vip: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) epoch: Option<u64>,
    pub(crate) cause: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) result: String,
    pub(crate) text: String,
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

impl From<v1::Node> for Node {
    fn from(n: v1::Node) -> Self {
        Self {
            name: n.name,
            role: n.role,
            state: n.state,
            id: n.id,
            address: n.address,
            leader: n.leader,
            vips: n.vips,
            fresh: n.fresh,
            trouble: some(n.trouble),
            hindered: n.hindered.into_iter().map(Into::into).collect(),
            version: some(n.version),
        }
    }
}

impl From<v1::Vip> for Vip {
    fn from(v: v1::Vip) -> Self {
        Self {
            name: v.name,
            addresses: v.addresses,
            holder: some(v.holder),
            epoch: v.epoch,
            since_ms: v.since_ms,
            cause: some(v.cause),
            answers: v.answers,
            interface: some(v.interface),
            placement: v.placement,
            pinned: some(v.pinned),
            fresh: v.fresh,
            silent: v.silent,
            hindered: v.hindered.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::Hindrance> for Hindrance {
    fn from(h: v1::Hindrance) -> Self {
        Self { vip: h.vip, node: h.node, why: h.why }
    }
}

impl From<v1::StatusReply> for Status {
    fn from(s: v1::StatusReply) -> Self {
        Self {
            cluster: s.cluster,
            term: s.term,
            leader: some(s.leader),
            quorum: s.quorum,
            nodes: s.nodes.into_iter().map(Into::into).collect(),
            vips: s.vips.into_iter().map(Into::into).collect(),
            node: s.node,
            profile: s.profile,
            gate: s.gate,
            warnings: s.warnings,
            fresh: s.fresh,
            removed: some(s.removed),
        }
    }
}

impl From<v1::Token> for Token {
    fn from(t: v1::Token) -> Self {
        Self {
            id: t.id,
            role: t.role,
            state: t.state,
            uses: t.uses,
            max_uses: t.max_uses,
            expires_ms: t.expires_ms,
            created_by: t.created_by,
        }
    }
}

impl From<v1::Event> for Event {
    fn from(e: v1::Event) -> Self {
        Self {
            seq: e.seq,
            time_ms: e.time_ms,
            kind: e.kind,
            actor: e.actor,
            text: e.text,
            vip: some(e.vip),
            node: some(e.node),
            epoch: Some(e.epoch).filter(|e| *e > 0),
            cause: some(e.cause),
        }
    }
}

/// Prints a value as asked for; `table` makes the people's form.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => {
            serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(e.to_string()))?
        }
        Format::Yaml => {
            serde_norway::to_string(value).map_err(|e| Failure::Failed(e.to_string()))?
        }
    };
    say(text.trim_end())
}

/// A line on standard output, at once.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Unheard,
        _ => Failure::Unprinted(format!("standard output: {e}")),
    })
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<_> = table.to_string().lines().map(|l| l.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".into())
}

/// A moment, ms since 1970, in UTC.
pub(crate) fn moment(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// How long ago, in its two largest units.
fn ago(ms: u64, now: SystemTime) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(ms);
    match now.duration_since(then) {
        _ if ms == 0 => "-".into(),
        Ok(since) => {
            let text = humantime::format_duration(Duration::from_secs(since.as_secs()));
            text.to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
        }
        Err(_) => "to come".into(),
    }
}

const NODE_COLUMNS: [&str; 5] = ["NODE", "ROLE", "STATE", "ADDRESS", "VIPS"];

fn node_row(n: &Node) -> Vec<String> {
    let role = if n.leader { format!("{} (leader)", n.role) } else { n.role.clone() };
    let vips = if n.vips.is_empty() { "-".into() } else { few(&n.vips) };
    vec![n.name.clone(), role, n.state.clone(), n.address.clone(), vips]
}

fn troubles(nodes: &[Node]) -> String {
    let trouble = |node: &Node| {
        let why = node.trouble.as_ref()?;
        Some(format!("\n{} can hold no VIP: {why}", node.name))
    };
    nodes.iter().filter_map(trouble).collect()
}

pub(crate) fn nodes(nodes: &[Node]) -> String {
    table(&NODE_COLUMNS, nodes.iter().map(node_row)) + &troubles(nodes)
}

/// What a line of a table has no room for, in full.
fn all_of(name: &str, what: &str, all: &[String]) -> String {
    if all.len() < 3 { String::new() } else { format!("\n{what} of {name}: {}", all.join(" ")) }
}

pub(crate) fn vip_in_full(vip: &Vip) -> String {
    vips(std::slice::from_ref(vip)) + &all_of(&vip.name, "addresses", &vip.addresses)
}

pub(crate) fn node_in_full(node: &Node) -> String {
    nodes_in_full(std::slice::from_ref(node)) + &all_of(&node.name, "VIPs", &node.vips)
}

/// The same, with what they run, and which VIPs they cannot hold.
pub(crate) fn nodes_in_full(nodes: &[Node]) -> String {
    let version = |n: &Node| n.version.clone().unwrap_or_else(|| "-".into());
    let row = |n: &Node| [node_row(n), vec![version(n)]].concat();
    let columns = [&NODE_COLUMNS[..], &["VERSION"]].concat();
    let mut text = table(&columns, nodes.iter().map(row)) + &troubles(nodes);
    for Hindrance { vip, node, why } in nodes.iter().flat_map(|node| &node.hindered) {
        text += &format!("\n{vip} cannot be on {node}: {why}");
    }
    text
}

/// As many as a line of a table has room for; `-o json` has all.
fn few(all: &[String]) -> String {
    match all {
        [first, rest @ ..] if rest.len() > 1 => format!("{first} +{}", rest.len()),
        all => all.join(" "),
    }
}

fn holder(vip: &Vip) -> String {
    match (&vip.holder, vip.answers) {
        (Some(holder), true) => holder.clone(),
        (Some(holder), false) if vip.silent => format!("{holder} (silent)"),
        (Some(holder), false) if !vip.fresh => format!("{holder} (unknown)"),
        (Some(holder), false) => format!("{holder} (not yet)"),
        (None, _) => "-".into(),
    }
}

/// VIPs in the columns that a terminal has beside names.
fn vips_at_a_glance(vips: &[Vip], now: SystemTime) -> String {
    let row = |v: &Vip| {
        let without_prefix = |cidr: &String| cidr.split('/').next().unwrap_or(cidr).to_owned();
        let addresses: Vec<_> = v.addresses.iter().map(without_prefix).collect();
        vec![v.name.clone(), holder(v), ago(v.since_ms, now), or_dash(&v.cause), few(&addresses)]
    };
    table(&["VIP", "HOLDER", "SINCE", "CAUSE", "ADDRESSES"], vips.iter().map(row))
}

pub(crate) fn vips(vips: &[Vip]) -> String {
    let now = SystemTime::now();
    let row = |v: &Vip| {
        let placement = match &v.pinned {
            Some(node) => format!("{} (pinned to {node})", v.placement),
            None => v.placement.clone(),
        };
        let (epoch, cause) = (v.epoch.to_string(), or_dash(&v.cause));
        let since = ago(v.since_ms, now);
        vec![v.name.clone(), few(&v.addresses), holder(v), epoch, since, cause, placement]
    };
    let header = ["VIP", "ADDRESSES", "HOLDER", "EPOCH", "SINCE", "CAUSE", "PLACEMENT"];
    let mut text = table(&header, vips.iter().map(row));
    for vip in vips {
        for Hindrance { node, why, .. } in &vip.hindered {
            text += &format!("\n{} cannot be on {node}: {why}", vip.name);
        }
    }
    text
}

/// So many troubles are named in the first line.
const NAMED: usize = 3;

/// The first line: is anything wrong, and what may still fail.
fn verdict(status: &Status) -> String {
    let votes =
        |node: &&Node| matches!(node.role.as_str(), "voter" | "witness") && node.state != "joining";
    let there = |node: &&Node| matches!(node.state.as_str(), "active" | "drained");
    let voters: Vec<&Node> = status.nodes.iter().filter(votes).collect();
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
    let lost = status.nodes.iter().filter(|node| node.state == "lost");
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

pub(crate) fn status(status: &Status) -> String {
    let leader = or_dash(&status.leader);
    let quorum = if status.quorum { "yes" } else { "NO" };
    let mut text = format!(
        "{}\n\ncluster {}  leader {leader}  term {}  quorum {quorum}  profile {}  (seen by {})\n\n{}",
        verdict(status),
        status.cluster,
        status.term,
        status.profile,
        status.node,
        nodes(&status.nodes)
    );
    if !status.vips.is_empty() {
        text += &format!("\n\n{}", vips_at_a_glance(&status.vips, SystemTime::now()));
    }
    for warning in &status.warnings {
        text += &format!("\n\nwarning: {warning}");
    }
    text
}

/// `vipctl login list`.
#[derive(Serialize)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) role: String,
    pub(crate) expires_ms: u64,
    pub(crate) issued_by: String,
    pub(crate) key: String,
}

impl From<v1::Login> for Login {
    fn from(login: v1::Login) -> Self {
        let v1::Login { user, role, expires_ms, issued_by, key } = login;
        Self { user, role, expires_ms, issued_by, key }
    }
}

pub(crate) fn logins(logins: &[Login]) -> String {
    let row = |l: &Login| {
        let until = moment(l.expires_ms);
        vec![l.user.clone(), l.role.clone(), until, l.issued_by.clone()]
    };
    table(&["USER", "ROLE", "EXPIRES", "ISSUED BY"], logins.iter().map(row))
}

pub(crate) fn tokens(tokens: &[Token]) -> String {
    let row = |t: &Token| {
        let uses = format!("{}/{}", t.uses, t.max_uses);
        vec![
            t.id.clone(),
            t.role.clone(),
            t.state.clone(),
            uses,
            moment(t.expires_ms),
            t.created_by.clone(),
        ]
    };
    table(&["TOKEN", "ROLE", "STATE", "USES", "EXPIRES", "CREATED BY"], tokens.iter().map(row))
}

/// Clocks that are kept in step differ by less, ms.
const OUT_OF_STEP_MS: u64 = 5_000;

pub(crate) fn event(event: &Event, now: SystemTime) -> String {
    // The log's time never falls, so it is that of the fastest clock of a leader.
    let then = UNIX_EPOCH + Duration::from_millis(event.time_ms.saturating_sub(OUT_OF_STEP_MS));
    let by = if then > now { " (by a clock that is ahead of this one)" } else { "" };
    format!("{}{by}  {}  [{}]", moment(event.time_ms), event.text, event.actor)
}

pub(crate) fn checks(checks: &[Check]) -> String {
    let row = |c: &Check| vec![c.result.to_uppercase(), c.name.clone(), c.text.clone()];
    table(&["RESULT", "CHECK", ""], checks.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, role: &str, state: &str) -> Node {
        let (name, role, state) = (name.to_owned(), role.to_owned(), state.to_owned());
        let address = "192.0.2.1:7400".to_owned();
        v1::Node { name, role, state, id: 1, address, fresh: true, ..Default::default() }.into()
    }

    fn vip(name: &str, answers: bool, addresses: usize) -> Vip {
        let all = (0..addresses).map(|n| format!("2001:db8:ffff:ffff::{n}/128"));
        v1::Vip {
            name: name.to_owned(),
            addresses: all.collect(),
            answers,
            fresh: true,
            holder: "node-1".to_owned(),
            cause: "leader-changed".to_owned(),
            placement: "leader".to_owned(),
            ..Default::default()
        }
        .into()
    }

    fn of(quorum: bool, nodes: Vec<Node>, vips: Vec<Vip>) -> Status {
        let empty = v1::StatusReply { quorum, fresh: quorum, ..Default::default() };
        Status { nodes, vips, ..empty.into() }
    }

    #[test]
    fn the_first_line_says_who_is_in_trouble_and_what_may_still_fail() {
        let voters = |states: &[&str]| -> Vec<Node> {
            let names = ["n1", "n2", "n3", "n4", "n5"];
            names.iter().zip(states).map(|(name, state)| node(name, "voter", state)).collect()
        };
        let web = |answers| vec![vip("web", answers, 1)];
        for (status, said) in [
            (of(true, voters(&["active"; 3]), web(true)), "all well; one more voter may be lost"),
            (of(true, voters(&["active"; 5]), web(true)), "all well; 2 more voters may be lost"),
            (
                of(true, voters(&["active", "active", "lost"]), web(true)),
                "TROUBLE: n3 is lost; the loss of one more voter would stop it",
            ),
            (
                of(true, voters(&["active"; 2]), web(false)),
                "TROUBLE: web does not answer; the loss of one more voter would stop it",
            ),
            (
                of(false, voters(&["unknown", "active", "unknown"]), web(false)),
                "NO QUORUM: nothing can be changed until 2 of the 3 voters reach each other",
            ),
        ] {
            assert_eq!(super::status(&status).lines().next(), Some(said));
        }
        let mut with_witness = voters(&["active", "lost"]);
        with_witness.extend([node("w", "witness", "active"), node("l", "learner", "lost")]);
        let line = verdict(&of(true, with_witness, vec![]));
        assert_eq!(
            line,
            "TROUBLE: n2 is lost, l is lost; the loss of one more voter would stop it"
        );
    }

    #[test]
    fn a_vip_with_many_addresses_fits_a_terminal() {
        let mut nodes = vec![node("node-1", "voter", "active")];
        nodes[0].leader = true;
        nodes[0].vips = (0..1000).map(|n| format!("vip-{n}")).collect();
        let mut vips = vec![vip("web", true, 64)];
        vips[0].since_ms = 1;
        let text = super::status(&of(true, nodes, vips));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn of_many_troubles_the_first_line_names_some() {
        let nodes = vec![node("n1", "voter", "active")];
        let vips = (0..1000).map(|n| vip(&format!("v{n}"), false, 1)).collect();
        let line = verdict(&of(true, nodes, vips));
        assert!(line.contains("v2 does not answer and 997 more;"), "{line}");
    }

    /// The log's clock is the fastest that any leader had.
    #[test]
    fn what_comes_from_a_fast_clock_is_not_said_to_be_now() {
        let now = UNIX_EPOCH + Duration::from_secs(100_000);
        assert_eq!(ago(100_000_000 - 93_784_000, now), "1day 2h");
        assert_eq!(ago(100_060_000, now), "to come");
        assert_eq!(ago(0, now), "-");
        let at = |time_ms| v1::Event { time_ms, ..Default::default() }.into();
        assert!(event(&at(100_060_000), now).contains("a clock that is ahead"));
        assert!(!event(&at(100_001_000), now).contains("a clock that is ahead"));
    }
}
