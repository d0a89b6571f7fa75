//! What happened, in words.

use super::views::name;
use crate::node::Member;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vip_core::{EventKind, NodeId, State};
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
    let told = of_cluster(state, &event.what, &mut out);
    let told = told.or_else(|| of_vip(state, &event.what, &mut out));
    let (kind, text) = told.unwrap_or_default();
    out.kind = kind.to_owned();
    out.text = text;
    out
}

/// Kind and sentence of an event that is about members, tokens or people.
fn of_cluster(
    state: &State,
    what: &EventKind,
    out: &mut v1::Event,
) -> Option<(&'static str, String)> {
    let node_name = |id: NodeId| name(state, Some(id));
    Some(match what {
        EventKind::ClusterCreated { name } => {
            ("cluster-created", format!("cluster {name} was created"))
        }
        EventKind::NodeAdmitted { name, role, .. } => {
            out.node = name.to_string();
            ("node-admitted", format!("{name} was admitted as {role}"))
        }
        EventKind::NodeActive { node } => {
            out.node = node_name(*node);
            ("node-active", format!("{} is a full member", out.node))
        }
        EventKind::NodeDrained { node, drained } => {
            out.node = node_name(*node);
            let what = if *drained { "drained" } else { "undrained" };
            ("node-drained", format!("{} was {what}", out.node))
        }
        EventKind::NodeRemoved { name, .. } => {
            out.node = name.to_string();
            ("node-removed", format!("{name} is no member any more"))
        }
        EventKind::TokenCreated { token, role } => {
            ("token-created", format!("join token {token} for a {role} was opened"))
        }
        EventKind::TokenRevoked { token } => {
            ("token-revoked", format!("join token {token} was revoked"))
        }
        EventKind::LoginIssued { user, role } => {
            ("login-issued", format!("{user} was given a certificate as {role}"))
        }
        EventKind::LoginRevoked { user } => {
            ("login-revoked", format!("all certificates of {user} were revoked"))
        }
        EventKind::IssuerRotated => {
            let text = "a new CA signs certificates; the one before is trusted until all have one";
            ("issuer-rotated", text.to_owned())
        }
        EventKind::IssuersRetired => {
            ("issuers-retired", "the CA that was replaced is trusted no more".to_owned())
        }
        EventKind::ClusterRefounded { from, node } => {
            out.node = node_name(*node);
            let text = format!("{} is the first of a new cluster, made of {from}", out.node);
            ("cluster-refounded", text)
        }
        EventKind::VipAdded { .. }
        | EventKind::VipPinned { .. }
        | EventKind::VipUnprobed { .. }
        | EventKind::VipSet { .. }
        | EventKind::VipRemoved { .. }
        | EventKind::VipAssigned { .. }
        | EventKind::VipObstacle { .. }
        | EventKind::VipConflict { .. }
        | EventKind::VipAnswers { .. }
        | EventKind::VipReleased { .. } => return None,
    })
}

/// The same of one that is about a VIP.
fn of_vip(state: &State, what: &EventKind, out: &mut v1::Event) -> Option<(&'static str, String)> {
    let node_name = |id: NodeId| name(state, Some(id));
    Some(match what {
        EventKind::VipAdded { vip } => {
            out.vip = vip.to_string();
            ("vip-added", format!("VIP {vip} was added"))
        }
        EventKind::VipUnprobed { vip } => {
            out.vip = vip.to_string();
            ("vip-unprobed", format!("VIP {vip} is claimed whoever answers for it"))
        }
        EventKind::VipPinned { vip, to: Some(to) } => {
            (out.vip, out.node) = (vip.to_string(), node_name(*to));
            ("vip-pinned", format!("VIP {vip} is to stay on {}", out.node))
        }
        EventKind::VipPinned { vip, to: None } => {
            out.vip = vip.to_string();
            ("vip-pinned", format!("VIP {vip} goes where its placement wants it"))
        }
        EventKind::VipSet { vip } => {
            out.vip = vip.to_string();
            ("vip-set", format!("VIP {vip} was changed"))
        }
        EventKind::VipRemoved { vip } => {
            out.vip = vip.to_string();
            ("vip-removed", format!("VIP {vip} was removed"))
        }
        EventKind::VipAssigned { vip, from, to, epoch, cause } => {
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
        EventKind::VipObstacle { vip, node, why } => {
            out.vip = vip.to_string();
            out.node = node_name(*node);
            ("vip-obstacle", format!("VIP {vip} cannot be on {}: {why}", out.node))
        }
        EventKind::VipConflict { vip, node, what, member } => {
            out.vip = vip.to_string();
            out.node = node_name(*node);
            let by = match member {
                Some(member) => format!("{} ({})", node_name(*member), what.mac),
                None => format!("another host ({})", what.mac),
            };
            let text = format!("{by} claims {} of VIP {vip}, as {} hears", what.ip, out.node);
            ("vip-conflict", text)
        }
        EventKind::VipAnswers { vip, node, epoch } => {
            out.vip = vip.to_string();
            out.node = node_name(*node);
            out.epoch = epoch.0;
            ("vip-answers", format!("VIP {vip} answers on {} at epoch {epoch}", out.node))
        }
        EventKind::VipReleased { vip, epoch } => {
            out.vip = vip.to_string();
            out.epoch = epoch.0;
            ("vip-released", format!("VIP {vip} is silent at epoch {epoch}"))
        }
        _ => return None,
    })
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
            for item in state.events.iter().filter(|e| e.seq > after) {
                if send.send(Ok(event(&state, item))).await.is_err() {
                    return;
                }
            }
            after = state.events.back().map_or(after, |e| e.seq.max(after));
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
