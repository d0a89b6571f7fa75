//! What happened, in words.

use super::sight::named;
use crate::node::Member;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vip_core::{
    ClusterEvent, EventKind, LoginEvent, Name, NodeEvent, NodeId, ServerEvent, State, TokenEvent,
    VipEvent,
};
use vip_pki::Place;
use vip_proto::v1;

/// Events on their way to a slow reader.
const EVENTS_QUEUED: usize = 64;

fn event(state: &State, event: &vip_core::Event) -> v1::Event {
    let out = match &event.what {
        EventKind::Cluster(what) => of_cluster(state, what),
        EventKind::Node(what) => of_node(state, what),
        EventKind::Token(what) => of_token(what),
        EventKind::Login(what) => of_login(what),
        EventKind::Vip(what) => of_vip(state, what),
        EventKind::Server(what) => of_server(state, what),
    };
    v1::Event { seq: event.seq, time_ms: event.time_ms, actor: event.actor.clone(), ..out }
}

fn said(kind: &str, text: impl Into<String>) -> v1::Event {
    v1::Event { kind: kind.to_owned(), text: text.into(), ..v1::Event::default() }
}

fn of_cluster(state: &State, what: &ClusterEvent) -> v1::Event {
    match what {
        ClusterEvent::Created { name } => {
            said("cluster-created", format!("cluster {name} was created"))
        }
        ClusterEvent::IssuerRotated => {
            let text = "a new CA signs certificates; the one before is trusted until all have one";
            said("issuer-rotated", text)
        }
        ClusterEvent::IssuersRetired => {
            said("issuers-retired", "the CA that was replaced is trusted no more")
        }
        ClusterEvent::Refounded { from, node } => {
            let node = named(state, *node);
            let text = format!("{node} is the first of a new cluster, made of {from}");
            v1::Event { node: Some(node), ..said("cluster-refounded", text) }
        }
    }
}

fn of_node(state: &State, what: &NodeEvent) -> v1::Event {
    let (node, kind, text) = match what {
        NodeEvent::Admitted { name, role, .. } => {
            (name.to_string(), "node-admitted", format!("was admitted as {role}"))
        }
        NodeEvent::Active { node } => {
            (named(state, *node), "node-active", "is a full member".to_owned())
        }
        NodeEvent::Drained { node, drained } => {
            let what = if *drained { "was drained" } else { "was undrained" };
            (named(state, *node), "node-drained", what.to_owned())
        }
        NodeEvent::Runs { node, version } => {
            (named(state, *node), "node-version", format!("runs {version}"))
        }
        NodeEvent::Say { node, lost: Some(why) } => {
            let text = format!(
                "has no say any more in which real servers are down: it sees none of those that \
                 others see up ({why})"
            );
            (named(state, *node), "node-sees-nothing", text)
        }
        NodeEvent::Say { node, lost: None } => {
            let text = "has a say again in which real servers are down".to_owned();
            (named(state, *node), "node-sees-again", text)
        }
        NodeEvent::Removed { name, .. } => {
            (name.to_string(), "node-removed", "is no member any more".to_owned())
        }
    };
    let text = format!("{node} {text}");
    v1::Event { node: Some(node), ..said(kind, text) }
}

fn of_token(what: &TokenEvent) -> v1::Event {
    match what {
        TokenEvent::Created { token, role } => {
            said("token-created", format!("join token {token} for a {role} was opened"))
        }
        TokenEvent::Revoked { token } => {
            said("token-revoked", format!("join token {token} was revoked"))
        }
    }
}

fn of_login(what: &LoginEvent) -> v1::Event {
    match what {
        LoginEvent::Issued { user, role } => {
            said("login-issued", format!("{user} was given a certificate as {role}"))
        }
        LoginEvent::Revoked { user } => {
            said("login-revoked", format!("all certificates of {user} were revoked"))
        }
    }
}

fn of_vip(state: &State, what: &VipEvent) -> v1::Event {
    let (vip, told) = match what {
        VipEvent::Added { vip } => (vip, said("vip-added", format!("VIP {vip} was added"))),
        VipEvent::Unprobed { vip } => {
            (vip, said("vip-unprobed", format!("VIP {vip} is claimed whoever answers for it")))
        }
        VipEvent::Pinned { vip, to } => (vip, pinned(state, vip, *to)),
        VipEvent::Set { vip } => (vip, said("vip-set", format!("VIP {vip} was changed"))),
        VipEvent::Removed { vip } => (vip, said("vip-removed", format!("VIP {vip} was removed"))),
        VipEvent::Assigned { vip, .. } => (vip, assigned(state, what)),
        VipEvent::Obstacle { vip, node, why } => {
            let node = named(state, *node);
            let text = format!("VIP {vip} cannot be on {node}: {why}");
            (vip, v1::Event { node: Some(node), ..said("vip-obstacle", text) })
        }
        VipEvent::MovedAway { vip, from } => {
            let node = named(state, *from);
            let text = format!("VIP {vip} was not found at {node} any more, which takes it back");
            (vip, v1::Event { node: Some(node), ..said("vip-moved-away", text) })
        }
        VipEvent::Conflict { vip, node, what, member } => {
            let node = named(state, *node);
            let by = match member {
                Some(member) => format!("{} ({})", named(state, *member), what.mac),
                None => format!("another host ({})", what.mac),
            };
            let text = format!("{by} claims {} of VIP {vip}, as {node} hears", what.ip);
            (vip, v1::Event { node: Some(node), ..said("vip-conflict", text) })
        }
        VipEvent::Answers { vip, node, epoch } => {
            let node = named(state, *node);
            let text = format!("VIP {vip} answers on {node} at epoch {epoch}");
            let (node, epoch) = (Some(node), Some(epoch.0));
            (vip, v1::Event { node, epoch, ..said("vip-answers", text) })
        }
        VipEvent::Released { vip, epoch } => {
            let text = format!("VIP {vip} is silent at epoch {epoch}");
            (vip, v1::Event { epoch: Some(epoch.0), ..said("vip-released", text) })
        }
    };
    v1::Event { vip: Some(vip.to_string()), ..told }
}

fn of_server(state: &State, what: &ServerEvent) -> v1::Event {
    let (server, kind, text) = match what {
        ServerEvent::Added { server } => (server, "server-added", "was added".to_owned()),
        ServerEvent::Set { server } => (server, "server-set", "was changed".to_owned()),
        ServerEvent::Removed { server } => (server, "server-removed", "was removed".to_owned()),
        ServerEvent::RealAdded { server, real } => {
            (server, "real-added", format!("has the real server {real} as well"))
        }
        ServerEvent::RealRemoved { server, real } => {
            (server, "real-removed", format!("has the real server {real} no more"))
        }
        ServerEvent::RealDrained { server, real, drained: true } => {
            let text = format!("gives {real} no new connections; those it has stay");
            (server, "real-drained", text)
        }
        ServerEvent::RealDrained { server, real, drained: false } => {
            (server, "real-undrained", format!("gives {real} new connections again"))
        }
        ServerEvent::RealWeighed { server, real } => {
            let text = format!("gives {} the weight {}", real.ip, real.weight);
            (server, "real-weighed", text)
        }
        ServerEvent::RealUp { server, real } => {
            (server, "real-up", format!("has {real} up: its observers see that it answers"))
        }
        ServerEvent::RealDown { server, real, why } => {
            (server, "real-down", format!("has {real} down: {why}"))
        }
        ServerEvent::Held { server, real } => {
            let text = format!("holds {real} down for some minutes: it went down again and again");
            (server, "real-held", text)
        }
        ServerEvent::CutOff { server, node, why } => {
            let text = format!(
                "has real servers that {} does not reach, and others do ({why}): its VIP goes to one \
                 that does",
                named(state, *node)
            );
            (server, "server-cut-off", text)
        }
        ServerEvent::Down { server, up, needed, instead } => {
            let text =
                format!("counts as down: {up} real servers are up, {needed} have to be: {instead}");
            (server, "server-down", text)
        }
        ServerEvent::Up { server, up } => {
            (server, "server-up", format!("is back: {up} real servers are up"))
        }
        ServerEvent::Retired { server } => (
            server,
            "table-retired",
            "goes by one table again; the one before has retired".to_owned(),
        ),
        ServerEvent::Hindered { .. } => return hindered(state, what),
        ServerEvent::Resolved { .. } | ServerEvent::Unresolved { .. } => return of_name(what),
    };
    let told = said(kind, format!("virtual server {server} {text}"));
    v1::Event { server: Some(server.to_string()), ..told }
}

fn of_name(what: &ServerEvent) -> v1::Event {
    let (server, kind, text) = match what {
        ServerEvent::Resolved { server, name, addresses } => {
            let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            (server, "name-resolved", format!("has {name} resolved to {}", all.join(", ")))
        }
        ServerEvent::Unresolved { server, name, why } => {
            let text = format!("keeps the real servers of {name} as they were: {why}");
            (server, "name-fails", text)
        }
        _ => return v1::Event::default(),
    };
    let told = said(kind, format!("virtual server {server} {text}"));
    v1::Event { server: Some(server.to_string()), ..told }
}

fn hindered(state: &State, what: &ServerEvent) -> v1::Event {
    let ServerEvent::Hindered { server, others, node, what } = what else {
        return v1::Event::default();
    };
    let node = named(state, *node);
    let more = if *others == 0 { String::new() } else { format!(" (and {others} more)") };
    let (kind, how) = match what {
        Some(what) => ("server-hindered", what.to_string()),
        None => ("server-unhindered", "is forwarded as wanted again".to_owned()),
    };
    let told = said(kind, format!("on {node}, virtual server {server}{more} {how}"));
    v1::Event { server: Some(server.to_string()), node: Some(node), ..told }
}

fn pinned(state: &State, vip: &Name, to: Option<NodeId>) -> v1::Event {
    let Some(to) = to.map(|to| named(state, to)) else {
        return said("vip-pinned", format!("VIP {vip} goes where its placement wants it"));
    };
    let text = format!("VIP {vip} is to stay on {to}");
    v1::Event { node: Some(to), ..said("vip-pinned", text) }
}

fn assigned(state: &State, what: &VipEvent) -> v1::Event {
    let VipEvent::Assigned { vip, from, to, epoch, cause } = what else {
        return v1::Event::default();
    };
    let before = match from {
        Some(from) if Some(*from) != *to => format!(" (before: {})", named(state, *from)),
        _ => String::new(),
    };
    let node = to.map(|to| named(state, to));
    let to = node.as_deref().unwrap_or("nobody");
    let text = format!("VIP {vip} goes to {to} at epoch {epoch}: {cause}{before}");
    v1::Event {
        node,
        epoch: Some(epoch.0),
        cause: Some(v1::Cause::from(*cause).into()),
        ..said("vip-assigned", text)
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

/// The stream ends when somebody else needs its place.
pub(super) fn events(
    member: &Arc<Member>,
    after: u64,
    follow: bool,
    place: Place<String>,
) -> EventStream {
    let (send, receive) = mpsc::channel(EVENTS_QUEUED);
    let mut applied = member.log.applied();
    let stop = member.stopped();
    let work = async move {
        let mut after = after;
        loop {
            let state = applied.borrow_and_update().state.clone();
            for item in state.events.after(after) {
                if send.send(Ok(event(&state, &item))).await.is_err() {
                    return;
                }
            }
            after = after.max(state.events.latest());
            if !follow {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = send.closed() => return,
                changed = applied.changed() => if changed.is_err() { return },
            }
        }
    };
    tokio::spawn(async move {
        let lost = place.lost();
        tokio::select! {
            () = lost.cancelled() => {}
            () = work => {}
        }
    });
    Box::pin(ReceiverStream::new(receive))
}
