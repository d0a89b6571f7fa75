//! What happened, in words.

use super::views::name;
use crate::node::Member;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vip_core::{
    ClusterEvent, EventKind, LoginEvent, NodeEvent, NodeId, State, TokenEvent, VipEvent,
};
use vip_pki::Place;
use vip_proto::v1;

/// Events on their way to a slow reader.
const EVENTS_QUEUED: usize = 64;

fn event(state: &State, event: &vip_core::Event) -> v1::Event {
    let mut out = v1::Event {
        seq: event.seq,
        time_ms: event.time_ms,
        actor: event.actor.clone(),
        ..Default::default()
    };
    let (kind, text) = match &event.what {
        EventKind::Cluster(what) => of_cluster(state, what, &mut out),
        EventKind::Node(what) => of_node(state, what, &mut out),
        EventKind::Token(what) => of_token(what),
        EventKind::Login(what) => of_login(what),
        EventKind::Vip(what) => of_vip(state, what, &mut out),
    };
    out.kind = kind.to_owned();
    out.text = text;
    out
}

/// Kind and sentence.
type Told = (&'static str, String);

fn of_cluster(state: &State, what: &ClusterEvent, out: &mut v1::Event) -> Told {
    let node_name = |id: NodeId| name(state, Some(id));
    match what {
        ClusterEvent::Created { name } => {
            ("cluster-created", format!("cluster {name} was created"))
        }
        ClusterEvent::IssuerRotated => {
            let text = "a new CA signs certificates; the one before is trusted until all have one";
            ("issuer-rotated", text.to_owned())
        }
        ClusterEvent::IssuersRetired => {
            ("issuers-retired", "the CA that was replaced is trusted no more".to_owned())
        }
        ClusterEvent::Refounded { from, node } => {
            out.node = node_name(*node);
            let text = format!("{} is the first of a new cluster, made of {from}", out.node);
            ("cluster-refounded", text)
        }
    }
}

fn of_node(state: &State, what: &NodeEvent, out: &mut v1::Event) -> Told {
    let node_name = |id: NodeId| name(state, Some(id));
    match what {
        NodeEvent::Admitted { name, role, .. } => {
            out.node = name.to_string();
            ("node-admitted", format!("{name} was admitted as {role}"))
        }
        NodeEvent::Active { node } => {
            out.node = node_name(*node);
            ("node-active", format!("{} is a full member", out.node))
        }
        NodeEvent::Drained { node, drained } => {
            out.node = node_name(*node);
            let what = if *drained { "drained" } else { "undrained" };
            ("node-drained", format!("{} was {what}", out.node))
        }
        NodeEvent::Runs { node, version } => {
            out.node = node_name(*node);
            ("node-version", format!("{} runs {version}", out.node))
        }
        NodeEvent::Removed { name, .. } => {
            out.node = name.to_string();
            ("node-removed", format!("{name} is no member any more"))
        }
    }
}

fn of_token(what: &TokenEvent) -> Told {
    match what {
        TokenEvent::Created { token, role } => {
            ("token-created", format!("join token {token} for a {role} was opened"))
        }
        TokenEvent::Revoked { token } => {
            ("token-revoked", format!("join token {token} was revoked"))
        }
    }
}

fn of_login(what: &LoginEvent) -> Told {
    match what {
        LoginEvent::Issued { user, role } => {
            ("login-issued", format!("{user} was given a certificate as {role}"))
        }
        LoginEvent::Revoked { user } => {
            ("login-revoked", format!("all certificates of {user} were revoked"))
        }
    }
}

fn of_vip(state: &State, what: &VipEvent, out: &mut v1::Event) -> Told {
    let node_name = |id: NodeId| name(state, Some(id));
    match what {
        VipEvent::Added { vip } => {
            out.vip = vip.to_string();
            ("vip-added", format!("VIP {vip} was added"))
        }
        VipEvent::Unprobed { vip } => {
            out.vip = vip.to_string();
            ("vip-unprobed", format!("VIP {vip} is claimed whoever answers for it"))
        }
        VipEvent::Pinned { vip, to: Some(to) } => {
            (out.vip, out.node) = (vip.to_string(), node_name(*to));
            ("vip-pinned", format!("VIP {vip} is to stay on {}", out.node))
        }
        VipEvent::Pinned { vip, to: None } => {
            out.vip = vip.to_string();
            ("vip-pinned", format!("VIP {vip} goes where its placement wants it"))
        }
        VipEvent::Set { vip } => {
            out.vip = vip.to_string();
            ("vip-set", format!("VIP {vip} was changed"))
        }
        VipEvent::Removed { vip } => {
            out.vip = vip.to_string();
            ("vip-removed", format!("VIP {vip} was removed"))
        }
        VipEvent::Assigned { vip, from, to, epoch, cause } => {
            out.vip = vip.to_string();
            out.node = name(state, *to);
            out.epoch = epoch.0;
            out.cause = cause.as_str().to_owned();
            let from = match from {
                Some(from) if Some(*from) != *to => {
                    format!(" (before: {})", node_name(*from))
                }
                _ => String::new(),
            };
            let to = if out.node.is_empty() { "nobody" } else { &out.node };
            let text = format!("VIP {vip} goes to {to} at epoch {epoch}: {cause}{from}");
            ("vip-assigned", text)
        }
        VipEvent::Obstacle { vip, node, why } => {
            out.vip = vip.to_string();
            out.node = node_name(*node);
            ("vip-obstacle", format!("VIP {vip} cannot be on {}: {why}", out.node))
        }
        VipEvent::Conflict { vip, node, what, member } => {
            out.vip = vip.to_string();
            out.node = node_name(*node);
            let by = match member {
                Some(member) => format!("{} ({})", node_name(*member), what.mac),
                None => format!("another host ({})", what.mac),
            };
            let text = format!("{by} claims {} of VIP {vip}, as {} hears", what.ip, out.node);
            ("vip-conflict", text)
        }
        VipEvent::Answers { vip, node, epoch } => {
            out.vip = vip.to_string();
            out.node = node_name(*node);
            out.epoch = epoch.0;
            ("vip-answers", format!("VIP {vip} answers on {} at epoch {epoch}", out.node))
        }
        VipEvent::Released { vip, epoch } => {
            out.vip = vip.to_string();
            out.epoch = epoch.0;
            ("vip-released", format!("VIP {vip} is silent at epoch {epoch}"))
        }
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
    let mut applied = member.raft.applied.clone();
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
