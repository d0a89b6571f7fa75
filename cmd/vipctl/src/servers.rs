//! `vipctl vs`, `vipctl real`.

use crate::Failure;
use crate::cli::{RealCommand, RealPlace, VsCommand};
use crate::ctl::Ctl;
use crate::otherwise;
use crate::output::{ago, few, print, table, word};
use crate::setup::setup;
use serde_json::json;
use std::time::{Duration, SystemTime};
use vip_proto::v1;
use vip_proto::v1::servers_client::ServersClient;

impl Ctl {
    fn servers(&self) -> ServersClient<tonic::transport::Channel> {
        ServersClient::new(self.channel.clone())
    }

    pub(crate) async fn vs(&self, command: VsCommand) -> Result<(), Failure> {
        let server = match command {
            VsCommand::Add(add) => {
                let request = self.request(v1::AddServerRequest::from(*add));
                let added = self.servers().add_server(request).await?.into_inner().server;
                let added = added.unwrap_or_default();
                return print(self.format, &added, |server| {
                    let setup = setup(server).map(|text| format!("\n\n{text}"));
                    is_forwarded(server) + &setup.unwrap_or_default()
                });
            }
            VsCommand::Set(set) => {
                let request = self.request(v1::SetServerRequest::from(*set));
                self.servers().set_server(request).await?.into_inner().server
            }
            VsCommand::List => {
                let request = self.request(v1::ListServersRequest {});
                let servers = self.servers().list_servers(request).await?.into_inner().servers;
                self.warn_of_age(servers.iter().all(|server| server.fresh));
                return print(self.format, &servers, |servers| table_of(servers));
            }
            VsCommand::Show { name, setup: wanted } => {
                let request = self.request(v1::ShowServerRequest { name });
                let server = self.servers().show_server(request).await?.into_inner().server;
                let server = server.unwrap_or_default();
                self.warn_of_age(server.fresh);
                return print(self.format, &server, |server| {
                    if wanted {
                        setup(server).unwrap_or_else(|| "Nothing has to be set up.".to_owned())
                    } else {
                        in_full(server)
                    }
                });
            }
            VsCommand::Check { name, real } => {
                let request = self.request(v1::CheckServerRequest { name, real });
                let reals = self.servers().check_server(request).await?.into_inner().reals;
                return print(self.format, &reals, |reals| looked_at(reals));
            }
            VsCommand::Remove { name } => {
                let request = self.request(v1::RemoveServerRequest { name: name.clone() });
                self.servers().remove_server(request).await?;
                let text = format!("virtual server {name} is gone");
                return self.done(json!({ "removed": name }), &text);
            }
        };
        print(self.format, &server.unwrap_or_default(), is_forwarded)
    }

    pub(crate) async fn real(&self, command: RealCommand) -> Result<(), Failure> {
        let mut servers = self.servers();
        let server = match command {
            RealCommand::Add { vs: server, real } => {
                let request = self.request(v1::AddRealRequest { server, real });
                servers.add_real(request).await?.into_inner().server
            }
            RealCommand::Remove(RealPlace { vs: server, real }) => {
                let request = self.request(v1::RemoveRealRequest { server, real });
                servers.remove_real(request).await?.into_inner().server
            }
            RealCommand::Drain(RealPlace { vs: server, real }) => {
                let request = self.request(v1::DrainRealRequest { server, real, drained: true });
                servers.drain_real(request).await?.into_inner().server
            }
            RealCommand::Undrain(RealPlace { vs: server, real }) => {
                let request = self.request(v1::DrainRealRequest { server, real, drained: false });
                servers.drain_real(request).await?.into_inner().server
            }
            RealCommand::SetWeight { place: RealPlace { vs: server, real }, weight } => {
                let request = self.request(v1::WeighRealRequest { server, real, weight });
                servers.weigh_real(request).await?.into_inner().server
            }
        };
        print(self.format, &server.unwrap_or_default(), is_forwarded)
    }
}

fn is_forwarded(server: &v1::Server) -> String {
    let (name, vip) = (&server.name, &server.vip);
    let holder = server.holder.as_deref().unwrap_or("nobody");
    let method = word::<v1::Forward>(server.forward);
    let is = |wanted: v1::RealState| {
        let count = |real: &&v1::Real| real.state == i32::from(wanted);
        server.reals.iter().filter(count).count()
    };
    let mut text = format!(
        "{holder}, which holds {vip}, forwards {name} by {method} to {} real servers",
        is(v1::RealState::Up)
    );
    let others = [
        (v1::RealState::Drained, "drained"),
        (v1::RealState::Down, "down"),
        (v1::RealState::Unchecked, "not checked yet"),
    ];
    for (state, what) in others {
        let count = is(state);
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    for real in server.reals.iter().filter(|real| real.state == i32::from(v1::RealState::Down)) {
        text += &format!("\n{} is down: {}", real.address, real.reason);
    }
    for real in &server.reals {
        if let Some(why) = unseen(real) {
            text += &format!("\nNo observer can look at {}: {why}", real.address);
        }
    }
    if let Some(short) = &server.short {
        text += &format!("\nIt counts as down: {short}.");
    }
    text
}

/// Why nobody sees how it is, where nobody does.
fn unseen(real: &v1::Real) -> Option<&str> {
    let sees = |seen: &v1::Seen| seen.state != i32::from(v1::RealState::Unchecked);
    if real.seen.iter().any(sees) {
        return None;
    }
    real.seen.iter().find_map(|seen| seen.why.as_deref())
}

fn place(server: &v1::Server) -> String {
    let protocol = word::<v1::Protocol>(server.protocol);
    format!("{}:{}/{protocol}", server.vip, server.ports)
}

fn table_of(servers: &[v1::Server]) -> String {
    let row = |server: &v1::Server| {
        let is = |real: &v1::Real| v1::RealState::try_from(real.state).unwrap_or_default();
        let sorry = [v1::RealState::Sorry, v1::RealState::Standby];
        let reals = || server.reals.iter().filter(|real| !sorry.contains(&is(real)));
        let up = reals().filter(|real| is(real) == v1::RealState::Up).count();
        let all: Vec<_> = reals().map(|real| real.address.clone()).collect();
        vec![
            server.name.clone(),
            place(server),
            word::<v1::Scheduler>(server.scheduler),
            word::<v1::Forward>(server.forward),
            word::<v1::Engine>(server.engine),
            server.holder.clone().unwrap_or_else(|| "-".into()),
            format!("{up} of {}", all.len()),
            few(&all),
        ]
    };
    let header =
        ["SERVER", "VIP:PORT", "SCHEDULER", "FORWARD", "ENGINE", "HOLDER", "UP", "REAL SERVERS"];
    table(&header, servers.iter().map(row))
}

/// How real servers are checked, and where observers do not agree with what became of it.
fn checks(server: &v1::Server) -> String {
    let Some(check) = &server.check else { return String::new() };
    let kind = check.kind.as_deref().unwrap_or_default();
    let span = |ms: Option<u64>| humantime::format_duration(Duration::from_millis(ms.unwrap_or(0)));
    let mut text = format!(
        "\nChecked by {kind} every {}, {} for an answer; up after {}, down after {} in a row.",
        span(check.interval_ms),
        span(check.timeout_ms),
        check.rise.unwrap_or(0),
        check.fall.unwrap_or(0)
    );
    if let Some(grace) = check.grace_ms {
        text += &format!(" Who was never up has {} for it.", span(Some(grace)));
    }
    if let Some(slow) = check.slow_start_ms {
        text += &format!(" Who comes back has its whole share after {}.", span(Some(slow)));
    }
    for own in &check.otherwise {
        text += &format!("\nOtherwise: {}.", otherwise::spoken(own));
    }
    for real in &server.reals {
        let sees = |seen: &v1::Seen| {
            let why = seen.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{} {}{why}", seen.node, word::<v1::RealState>(seen.state))
        };
        let first = real.seen.first().map(|seen| seen.state);
        if real.seen.iter().any(|seen| Some(seen.state) != first) {
            let all: Vec<_> = real.seen.iter().map(sees).collect();
            text += &format!("\nObservers of {}: {}.", real.address, all.join(", "));
        }
    }
    text
}

/// What names of real servers resolved to last, a line for each.
fn names(server: &v1::Server) -> String {
    let line = |name: &v1::RealName| {
        let failing = name.failing.as_ref();
        let failing = failing.map(|why| format!(" They stay as they were: {why}."));
        let (real, all) = (&name.real, name.addresses.join(", "));
        let mut text = format!("\nReal servers by {real}: {all}.{}", failing.unwrap_or_default());
        if !name.left_out.is_empty() {
            let others = name.left_out.join(", ");
            text += &format!(" Left out, since none can be there: {others}.");
        }
        text
    };
    server.names.iter().map(line).collect()
}

/// What observers see now, a line for each.
fn looked_at(reals: &[v1::Looked]) -> String {
    let row = |real: &v1::Looked, seen: &v1::Seen| {
        let is = v1::RealState::try_from(seen.state).unwrap_or_default();
        let (sees, without) = match is {
            v1::RealState::Up => ("up", "it answers as it should"),
            v1::RealState::Down => ("down", ""),
            _ => ("nothing", "it said nothing of it"),
        };
        let why = seen.why.clone().unwrap_or_else(|| without.to_owned());
        vec![real.address.clone(), seen.node.clone(), sees.to_owned(), why]
    };
    let rows = reals.iter().flat_map(|real| real.seen.iter().map(|seen| row(real, seen)));
    table(&["REAL", "NODE", "SEES", "WHY"], rows)
}

fn in_full(server: &v1::Server) -> String {
    let now = SystemTime::now();
    let number = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let row = |real: &v1::Real| {
        vec![
            real.address.clone(),
            real.node.clone().unwrap_or_else(|| "-".into()),
            match real.share_percent {
                None => real.weight.to_string(),
                Some(percent) => format!("{} ({percent} %)", real.weight),
            },
            word::<v1::RealState>(real.state),
            number(real.connections),
            number(real.packets),
            number(real.bytes),
            number(real.replies),
            real.since_ms.map_or_else(|| "-".to_owned(), |since| ago(since, now)),
            real.reason.clone(),
        ]
    };
    let header = [
        "REAL",
        "NODE",
        "WEIGHT",
        "STATE",
        "CONNECTIONS",
        "PACKETS",
        "BYTES",
        "REPLIES",
        "SINCE",
        "WHY",
    ];
    let reals = table(&header, server.reals.iter().map(row));
    let on_node = |node: &v1::OnNode| {
        let is_holder = server.holder.as_ref() == Some(&node.node);
        let holder = if is_holder { "holds the VIP" } else { "" };
        let why = node.why.clone().unwrap_or_default();
        vec![node.node.clone(), word::<v1::TableState>(node.state), holder.to_owned(), why]
    };
    let nodes = table(&["NODE", "TABLE", "", "WHY"], server.on_nodes.iter().map(on_node));
    let engine = format!("{} ({})", word::<v1::Engine>(server.engine), server.engine_reason);
    let mut text = table_of(std::slice::from_ref(server));
    text += &format!("\n\nEngine: {engine}, a table of {} slots.", server.table_size);
    text += " Its packets pass by this host's firewall and conntrack.";
    if let Some(since) = server.settling_since_ms {
        let since = ago(since, SystemTime::now());
        text += &format!(
            "\nSettling: the real servers changed {since} ago; connections from before go by the \
             table before."
        );
    }
    if let Some(short) = &server.short {
        text += &format!("\nIt counts as down: {short}.");
    }
    text + &names(server) + &checks(server) + &format!("\n\n{reals}\n\n{nodes}")
}
