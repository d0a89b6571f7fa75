//! `vip.v1.Probes`: probes at once, for whoever wants to know, beside those that verdicts
//! rest on.

use crate::hasten::observed;
use crate::node::Member;
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tonic::{Request, Response, Status};
use vip_core::{Failure, Opinion, ServerUid, Sighting};
use vip_proto::v1;

/// Probes of one question at once.
const AT_ONCE: usize = 64;

/// How long it may take for another member.
const LIMIT: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct ProbesService {
    member: Arc<Member>,
}

impl ProbesService {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

#[tonic::async_trait]
impl v1::probes_server::Probes for ProbesService {
    async fn probe_now(
        &self,
        request: Request<v1::ProbeNowRequest>,
    ) -> Result<Response<v1::ProbeNowReply>, Status> {
        let server = ServerUid(request.into_inner().server);
        let sees =
            probe_now(&self.member, server, LIMIT).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ProbeNowReply { sees }))
    }

    async fn hasten(
        &self,
        request: Request<v1::HastenRequest>,
    ) -> Result<Response<v1::HastenReply>, Status> {
        self.member.sights.hasten(observed(&request.into_inner()));
        Ok(Response::new(v1::HastenReply {}))
    }
}

/// What this node sees of the real servers of a virtual one that it observes, if it looks
/// now. Of those that there was no time for there is nothing.
///
/// # Errors
/// It answers too many such questions.
pub(crate) async fn probe_now(
    member: &Member,
    server: ServerUid,
    limit: Duration,
) -> Result<Vec<Sighting>, Status> {
    let _one = member.sights.question().ok_or_else(|| {
        Status::resource_exhausted("it answers other such questions; try again a moment later")
    })?;
    let state = member.log.state();
    let Some(server) = state.server(server) else { return Ok(vec![]) };
    let me = member.meta.node;
    let observed = server.reals.iter().filter(|real| state.watchers_of(server, real).contains(&me));
    let probes = observed.filter_map(|real| {
        let (observed, target) = (server.observed(&real.spec), server.target(&real.spec)?);
        let (prober, state) = (member.sights.prober(), &state);
        Some(async move {
            let mut result = prober.probe(&target).await;
            if result.is_ok() {
                let probed = (observed, &target);
                result = member.forward.probe_at_vip(state, probed, true).await;
            }
            let opinion = match result {
                Ok(()) => Opinion::Up,
                Err(Failure::There(why)) => Opinion::Down(why),
                Err(Failure::Here(why)) => Opinion::Unable(why),
            };
            (observed, Some(opinion.cut()))
        })
    });
    let probes: Vec<_> = probes.collect();
    let all = stream::iter(probes).buffer_unordered(AT_ONCE);
    Ok(all.take_until(sleep(limit)).collect().await)
}
