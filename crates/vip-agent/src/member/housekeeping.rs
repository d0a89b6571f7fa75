//! What a member does for itself from time to time: certificates and keys.

use super::Member;
use crate::errors::{from_call, internal};
use crate::wall_clock::wall_clock_ms;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;
use vip_core::{NodeState, Role, chain};
use vip_pki::{Issuer, NodeIdentity};
use vip_proto::v1;
use vip_proto::v1::cluster_client::ClusterClient;

/// How often a certificate's age and the issuing key are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Sooner, until a voter has the issuing key.
const HOUSEKEEPING_SOON: Duration = Duration::from_secs(1);

/// How long one request to be taken in may take.
const ACTIVATION: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// Renews the certificate and, on a voter, gets the issuing key.
pub(super) async fn run(member: Arc<Member>) {
    let stop = member.stopped();
    let (mut renewed, mut said) = (false, None);
    loop {
        // Also at first: after days off, nobody new could join before.
        let pause = if !renewed || member.wants_issuer() || member.is_joining() {
            HOUSEKEEPING_SOON
        } else {
            HOUSEKEEPING
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if member.is_joining()
            && let Some(first) = member.leader_client()
        {
            let again = || member.leader_client().unwrap_or_else(|| first.clone());
            if let Err(e) = member.activate(again, ACTIVATION).await {
                tracing::info!(why = e.message(), "this node has not joined yet");
            }
        }
        if member.wants_issuer()
            && let Err(e) = member.fetch_issuer().await
        {
            tracing::debug!(error = %e, "the issuing key could not be fetched; trying again");
        }
        let renewal = member.renew_certificate_if_due().await;
        renewed = renewal.is_ok();
        let trouble = member.certificate_trouble();
        if trouble != said {
            let (failed, trouble) = (renewal.err(), trouble.clone());
            tracing::warn!(trouble, failed, "the certificate");
        }
        said = trouble;
    }
}

impl Member {
    fn is_joining(&self) -> bool {
        let state = self.raft.state();
        state.nodes.get(&self.meta.node).is_none_or(|n| n.state == NodeState::Joining)
    }

    fn is_voter(&self) -> bool {
        let state = self.raft.state();
        let node = state.nodes.get(&self.meta.node);
        node.is_some_and(|n| n.role == Role::Voter && n.state != NodeState::Joining)
    }

    fn wants_issuer(&self) -> bool {
        self.issuer().is_none() && self.is_voter()
    }

    fn leader_client(&self) -> Option<ClusterClient<Channel>> {
        let leader = self.shared.leader().filter(|l| *l != self.meta.node)?;
        Some(ClusterClient::new(self.channel(leader)?))
    }

    /// What is wrong with the dates of this node's certificate.
    pub(crate) fn certificate_trouble(&self) -> Option<String> {
        let (from, until) = self.configs.load().validity?;
        crate::certificate::trouble(from, until, wall_clock_ms())
    }

    /// Asks the cluster to make this admitted node what its role says.
    /// `client` makes a client of the leader, as far as is known.
    pub(crate) async fn activate(
        &self,
        client: impl Fn() -> ClusterClient<Channel>,
        limit: Duration,
    ) -> Result<(), Status> {
        let until = Instant::now() + limit;
        loop {
            let csr = self.pki.load_identity().map_err(|e| internal("its key", &e))?.key.csr();
            let csr = csr.map_err(|e| internal("its key", &e))?;
            let applied = self.raft.applied.borrow().index;
            let mut request = tonic::Request::new(v1::ActivateRequest { csr, applied });
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            let reply = client().activate(request).await.map_err(from_call)?.into_inner();
            if reply.chain.is_empty() {
                return Ok(());
            }
            self.take_certificate(reply.chain).map_err(Status::permission_denied)?;
            while self.raft.applied.borrow().index < reply.through {
                if Instant::now() >= until {
                    return Err(Status::deadline_exceeded("this node does not follow the log"));
                }
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// Uses a certificate that a member sent, if it is one for this node.
    fn take_certificate(&self, chain: Vec<Vec<u8>>) -> Result<(), String> {
        let identity = self.pki.load_identity().map_err(|e| vip_core::chain(&e))?;
        let chain: Vec<_> = chain.into_iter().map(Into::into).collect();
        let root = identity.root_pin().ok_or("the certificate is damaged")?;
        let (key, node, cluster) = (&identity.key, self.meta.node, &self.meta.cluster);
        let expected = vip_pki::Expected { root, key, node, cluster };
        expected.check(&chain).map_err(|e| vip_core::chain(&e))?;
        let renewed = NodeIdentity { key: identity.key, chain };
        self.use_identity(&renewed).map_err(|e| vip_core::chain(&e))
    }

    /// Gets the issuing key from the leader.
    pub(crate) async fn fetch_issuer(&self) -> Result<(), String> {
        let mut client = self.leader_client().ok_or("no leader is known")?;
        let reply = client.fetch_issuer(v1::FetchIssuerRequest {}).await;
        let reply = reply.map_err(|e| from_call(e).message().to_owned())?.into_inner();
        let chain = reply.chain.into_iter().map(Into::into).collect();
        let issuer = Issuer::new(reply.key.into(), chain);
        let state = self.raft.state();
        let named = state.cluster.as_ref().map_or(&[][..], |cluster| &cluster.issuers);
        let identity = self.pki.load_identity().map_err(|e| vip_core::chain(&e))?;
        let root = identity.root().ok_or("the certificate is damaged")?;
        issuer.check(root, named).map_err(|e| vip_core::chain(&e))?;
        self.pki.store_issuer(&issuer).map_err(|e| vip_core::chain(&e))?;
        *self.issuer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(issuer));
        Ok(())
    }

    /// After half of its life, before it, and when it does not say what the node
    /// is. Nodes differ in when they look, so that they do
    /// not all come at once.
    async fn renew_certificate_if_due(&self) -> Result<(), String> {
        let text = |e: vip_pki::IdentityError| chain(&e);
        let identity = self.pki.load_identity().map_err(text)?;
        let (from, until) = identity.validity().ok_or("the certificate is damaged")?;
        let now = i64::try_from(wall_clock_ms() / 1000).unwrap_or(i64::MAX);
        let state = self.raft.state();
        let joined = state.nodes.get(&self.meta.node).filter(|n| n.state != NodeState::Joining);
        let says_role = joined.is_none_or(|node| identity.role() == Some(node.role));
        // One from the future was signed by a clock that was wrong.
        if says_role && (from..from + (until - from) / 2).contains(&now) {
            return Ok(());
        }
        let csr = identity.key.csr().map_err(|e| chain(&e))?;
        let chain = match self.leader_client() {
            Some(mut client) => {
                let reply = client.renew_certificate(v1::RenewCertificateRequest { csr }).await;
                reply.map_err(|e| from_call(e).message().to_owned())?.into_inner().chain
            }
            None if self.shared.leader() == Some(self.meta.node) => {
                let signed = crate::cluster_service::renewed(self, self.meta.node, &csr);
                signed.map_err(|e| e.message().to_owned())?
            }
            None => return Err("no leader is known".into()),
        };
        self.take_certificate(chain)?;
        tracing::info!("certificate renewed");
        Ok(())
    }
}
