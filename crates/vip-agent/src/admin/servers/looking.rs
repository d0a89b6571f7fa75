//! What each observer sees of real servers when it looks now.

use super::view::seen;
use crate::admin::call::Call;
use crate::admin::sight::named;
use crate::probe_now::probe_now;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use tonic::Request;
use vip_core::{NodeId, Observed, Opinion, RealSpec, Server, Sighting, State};
use vip_proto::v1;
use vip_proto::v1::probes_client::ProbesClient;

/// Asks one node, which may be this one; or why it does not say.
async fn ask(call: &Call, node: NodeId, server: &Server) -> Result<Vec<Sighting>, String> {
    if node == call.member.meta.node {
        let sees = probe_now(&call.member, server.uid, call.time_left()).await;
        return sees.map_err(|status| status.message().to_owned());
    }
    let channel = call.member.peers.channel(node).ok_or("its address is not known here")?;
    let mut request = Request::new(v1::ProbeNowRequest { server: server.uid.0 });
    request.set_timeout(call.time_left());
    let asked = ProbesClient::new(channel);
    let asked = tokio::time::timeout(call.time_left(), async move {
        let mut asked = asked;
        asked.probe_now(request).await
    });
    let reply = asked.await.map_err(|_| "it does not answer".to_owned())?;
    let reply = reply.map_err(|status| status.message().to_owned())?.into_inner();
    let sees = reply.sees.into_iter().map(Sighting::try_from).collect::<Result<_, _>>();
    sees.map_err(|error| error.to_string())
}

/// Has all observers look, and says what each sees; of the real servers at `only`, if it is
/// said.
pub(super) async fn look_now(
    call: &Call,
    state: &State,
    server: &Server,
    only: Option<RealSpec>,
) -> Vec<v1::Looked> {
    let is_asked = |real: &RealSpec| {
        only.is_none_or(|only| {
            real.ip == only.ip && (only.port.is_none() || server.spec.port_of(real) == only.port)
        })
    };
    let reals: Vec<_> = server.reals.iter().filter(|real| is_asked(&real.spec)).collect();
    let observers: BTreeSet<_> =
        reals.iter().flat_map(|real| state.watchers_of(server, real)).collect();
    let asked = observers.iter().map(|node| async { (*node, ask(call, *node, server).await) });
    let answers: BTreeMap<NodeId, Result<BTreeMap<Observed, Opinion>, String>> =
        join_all(asked).await.into_iter().map(|(node, sees)| (node, sees.map(by_real))).collect();
    let looked = reals.into_iter().map(|real| {
        let observed = server.observed(&real.spec);
        let sees = state.watchers_of(server, real).into_iter().map(|node| {
            let opinion = match answers.get(&node) {
                Some(Ok(sees)) => sees.get(&observed).cloned().unwrap_or(Opinion::Blind),
                Some(Err(why)) => Opinion::Unable(why.clone()),
                None => Opinion::Blind,
            };
            seen(named(state, node), &opinion)
        });
        v1::Looked { address: server.spec.place(&real.spec), seen: sees.collect() }
    });
    looked.collect()
}

fn by_real(sees: Vec<Sighting>) -> BTreeMap<Observed, Opinion> {
    sees.into_iter().filter_map(|(observed, opinion)| Some((observed, opinion?))).collect()
}
