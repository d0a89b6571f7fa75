//! What nodes forward by: their own word, asked for when somebody wants to know.

use super::find;
use super::view::view;
use crate::admin::call::{Call, late};
use crate::admin::sight;
use crate::node::Member;
use futures_util::future::join_all;
use std::time::Duration;
use tonic::{Request, Status};
use vip_core::{Name, NodeId, NodeState, RealCount, Server, State};
use vip_proto::v1;
use vip_proto::v1::tables_client::TablesClient;

/// How long the holder is waited for in one call: then the holder may be another.
const ONE_LOOK: Duration = Duration::from_millis(500);
/// How long a node may take to say what it has.
const ANSWER: Duration = Duration::from_millis(300);

/// Asks a node, which may be this one; `None`: it does not answer.
async fn look(
    member: &Member,
    node: NodeId,
    asked: v1::LookAtTableRequest,
) -> Option<v1::LookAtTableReply> {
    if node == member.meta.node {
        return Some(member.forward.look(asked).await);
    }
    let limit = Duration::from_micros(asked.wait_us) + ANSWER;
    let mut request = Request::new(asked);
    request.set_timeout(limit);
    let mut client = TablesClient::new(member.peers.channel(node)?);
    let reply = tokio::time::timeout(limit, client.look_at_table(request)).await.ok()?;
    reply.ok().map(tonic::Response::into_inner)
}

fn us(limit: Duration) -> u64 {
    u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)
}

/// Waits until the VIP's holder forwards as the log wants it now.
///
/// # Errors
/// The holder refuses it; or the time is over.
pub(super) async fn wait_until_programmed(call: &Call, name: &Name) -> Result<v1::Server, Status> {
    let member = &call.member;
    let mut news = member.news();
    loop {
        let state = member.log.state();
        let server = find(&state, name.as_str())?;
        let missing = match state.vip(server.vip).and_then(|vip| vip.holder) {
            None => format!("nobody holds VIP {}", server.spec.vip),
            Some(holder) => {
                let wait = call.time_left().min(ONE_LOOK);
                let (server_uid, wanted) = (server.uid.0, Some(server.generation.0));
                let asked = v1::LookAtTableRequest {
                    server: server_uid,
                    wanted,
                    wait_us: us(wait),
                    count: false,
                };
                let reply = look(member, holder, asked).await.unwrap_or_default();
                if reply.in_force.is_some_and(|has| has >= server.generation.0) {
                    return Ok(view(member, &state, server));
                }
                let at = sight::named(&state, holder);
                if let Some(why) = reply.refused {
                    let text = format!("{at}, which holds the VIP, does not forward {name}: {why}");
                    return Err(Status::failed_precondition(text));
                }
                format!(
                    "{at}, which holds the VIP, does not forward {name} yet; is its guard there?"
                )
            }
        };
        if call.time_left().is_zero() {
            return Err(late(&missing));
        }
        news.next().await;
    }
}

/// Waits until the VIP's holder forwards nothing of a virtual server that was removed.
pub(super) async fn wait_until_gone(call: &Call, server: &Server) -> Result<(), Status> {
    let member = &call.member;
    let mut news = member.news();
    loop {
        let state = member.log.state();
        // Without a holder nobody forwards.
        let Some(holder) = state.vip(server.vip).and_then(|vip| vip.holder) else {
            return Ok(());
        };
        let wait_us = us(call.time_left().min(ONE_LOOK));
        let asked =
            v1::LookAtTableRequest { server: server.uid.0, wanted: None, wait_us, count: false };
        let reply = look(member, holder, asked).await;
        if reply.is_some_and(|reply| reply.nothing) {
            return Ok(());
        }
        if call.time_left().is_zero() {
            let at = sight::named(&state, holder);
            return Err(late(&format!("{at} forwards {} yet", server.spec.name)));
        }
        news.next().await;
    }
}

/// What each active node forwards by, and what the VIP's holder counted.
pub(super) async fn everywhere(
    member: &Member,
    state: &State,
    server: &Server,
) -> (Vec<v1::OnNode>, Vec<RealCount>) {
    let holder = state.vip(server.vip).and_then(|vip| vip.holder);
    let nodes = state.nodes.values().filter(|node| node.state == NodeState::Active);
    let asked = nodes.map(|node| async move {
        let asked = v1::LookAtTableRequest {
            server: server.uid.0,
            wanted: Some(server.generation.0),
            wait_us: 0,
            count: holder == Some(node.id),
        };
        (node, look(member, node.id, asked).await)
    });
    let (mut on_nodes, mut counts) = (vec![], vec![]);
    for (node, reply) in join_all(asked).await {
        let name = node.name.to_string();
        let (state, why) = match &reply {
            None => (v1::TableState::Unknown, Some("it does not answer".to_owned())),
            Some(reply) => match (reply.in_force, &reply.refused) {
                (_, Some(why)) => (v1::TableState::Refused, Some(why.clone())),
                (Some(has), None) if has >= server.generation.0 => {
                    (v1::TableState::InForce, reply.flaw.clone())
                }
                (Some(_), None) => (v1::TableState::Old, None),
                (None, None) => (v1::TableState::NotYet, None),
            },
        };
        on_nodes.push(v1::OnNode { node: name, state: state.into(), why });
        let counted = reply.into_iter().flat_map(|reply| reply.counts);
        counts.extend(counted.filter_map(|count| RealCount::try_from(count).ok()));
    }
    (on_nodes, counts)
}
