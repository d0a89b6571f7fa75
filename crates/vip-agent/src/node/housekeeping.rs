//! What a member does for itself from time to time: certificates and keys.

use super::Member;
use crate::errors::from_call;
use crate::wall_clock::wall_clock_ms;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;
use vip_core::{NodeId, NodeState, Role, chain};
use vip_pki::Issuer;
use vip_proto::v1;
use vip_proto::v1::cluster_client::ClusterClient;

/// How often a certificate's age and the issuing key are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Sooner, until a voter has the issuing key.
const HOUSEKEEPING_SOON: Duration = Duration::from_secs(1);

/// How long one request to be taken in may take.
const ACTIVATION: Duration = Duration::from_secs(30);

/// Without a leader for so long, a node may be one that missed that the issuer
/// was replaced: no leader gets through to it.
const LEADERLESS: Duration = Duration::from_secs(5);
/// How long one member may take to answer such a node.
const ANSWER: Duration = Duration::from_secs(5);

/// Renews the certificate and, on a voter, gets the issuing key.
pub(super) async fn run(member: Arc<Member>) {
    let stop = member.stopped();
    let mut applied = member.log.applied();
    let (mut renewed, mut said, mut led) = (false, None, Instant::now());
    let mut last = Instant::now();
    loop {
        // Also at first: after days off, nobody new could join before.
        let busy = !renewed || member.is_joining() || member.lacks_of_the_issuer();
        let leaderless = member.leases.leader().is_none();
        let pause = if busy || leaderless { HOUSEKEEPING_SOON } else { HOUSEKEEPING };
        let issuer_changed = async {
            while applied.changed().await.is_ok() {
                applied.borrow_and_update();
                if member.lacks_of_the_issuer() {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = issuer_changed, if !busy => {}
            () = tokio::time::sleep(pause.min(LEADERLESS)) => {
                if member.leases.leader().is_some() {
                    member.is_led();
                }
                // That the leader is gone is to be noticed soon.
                if last.elapsed() < pause && member.leases.leader().is_some() {
                    continue;
                }
            }
        }
        last = Instant::now();
        if member.leases.leader().is_some() {
            led = Instant::now();
            member.is_led();
        } else if led.elapsed() >= LEADERLESS {
            member.ask_whether_removed().await;
            member.renew_by_anybody().await;
            if member.is_joining() {
                // It may have been stopped before the leader called it.
                member.activate_by(member.peers.all()).await;
            }
            led = Instant::now();
        }
        if member.is_joining() {
            member.activate_by(member.leader_address()).await;
        }
        if let Err(e) = member.have_issuer().await {
            tracing::debug!(error = %e, "the issuing key could not be had; trying again");
        }
        let renewal = member.renew_certificate_if_due().await;
        renewed = renewal.is_ok();
        let trouble = member.certificate_trouble().or(renewal.err());
        if trouble != said {
            match &trouble {
                Some(trouble) => tracing::warn!(trouble, "the certificate"),
                None => tracing::info!("the certificate is good again"),
            }
        }
        said = trouble;
        member.say_reissued().await;
    }
}

impl Member {
    fn is_joining(&self) -> bool {
        let state = self.log.state();
        state.nodes.get(&self.meta.node).is_none_or(|n| n.state == NodeState::Joining)
    }

    fn is_voter(&self) -> bool {
        let state = self.log.state();
        let node = state.nodes.get(&self.meta.node);
        node.is_some_and(|n| n.role == Role::Voter && n.state != NodeState::Joining)
    }

    fn wants_issuer(&self) -> bool {
        self.authority.issuer().is_none() && self.is_voter()
    }

    /// Whether the CA that signs is another one than this node's certificate is
    /// of, or its key is missing, or others wait for this node to take it.
    fn lacks_of_the_issuer(&self) -> bool {
        let state = self.log.state();
        let Some(issuers) = state.issuers() else { return false };
        self.is_outdated() || issuers.is_rotating() || self.wants_issuer()
    }

    /// Whether the issuer of this node's certificate was replaced. One that the
    /// log does not name yet is newer than the log here.
    fn is_outdated(&self) -> bool {
        let (state, own) = (self.log.state(), self.authority.own_issuer().unwrap_or_default());
        state.issuers().is_some_and(|i| i.signing() != Some(&own) && i.knows(&own))
    }

    /// Sees that a voter has the key that signs, in its place.
    async fn have_issuer(&self) -> Result<(), String> {
        if let Some(issuer) = self.authority.issuer() {
            return self.authority.settle_issuer(issuer).map_err(|e| chain(&e));
        }
        if self.wants_issuer() { self.fetch_issuer().await } else { Ok(()) }
    }

    /// Tells the leader that this node has a certificate of the issuer that
    /// signs; again until the old one is retired, as leaders change.
    async fn say_reissued(&self) {
        let state = self.log.state();
        let rotating = state.issuers().filter(|issuers| issuers.is_rotating());
        let has = |signing| self.authority.own_issuer().as_deref() == Some(signing);
        if rotating.and_then(|issuers| issuers.signing()).is_some_and(has)
            && let Some(mut leader) = self.leader_client()
            && let Err(status) = leader.reissued(v1::ReissuedRequest {}).await
        {
            tracing::debug!(%status, "the leader does not know of the new certificate yet");
        }
    }

    /// Asks every member that it knows for a certificate, by its key alone: the
    /// issuer may have been replaced while this node was off. It takes none that
    /// is like its own.
    async fn renew_by_anybody(&self) {
        let state = self.log.state();
        for (node, address) in self.peers.all() {
            // Only they have the key that signs, as far as is known here.
            if state.nodes.get(&node).is_some_and(|n| n.role != Role::Voter) {
                continue;
            }
            if let Err(why) = self.renew_by(node, &address).await {
                tracing::debug!(%node, why, "no new certificate from there");
                continue;
            }
            tracing::info!(%node, "the issuing CA was replaced; this node has a new certificate");
            return;
        }
    }

    async fn renew_by(&self, node: NodeId, address: &str) -> Result<(), String> {
        let csr = self.authority.csr()?;
        let mut request = tonic::Request::new(v1::RenewCertificateRequest { csr });
        request.set_timeout(ANSWER);
        let mut client = ClusterClient::new(self.peers.renewing_channel(node, address));
        let reply = client.renew_certificate(request).await;
        let reply = reply.map_err(|e| from_call(e).message().to_owned())?.into_inner();
        let issuer = reply.chain.get(1).and_then(|c| vip_pki::spki_of_certificate(c));
        if issuer == self.authority.own_issuer() {
            return Err("the issuer is the same".into());
        }
        self.authority.take_certificate(reply.chain).await
    }

    fn leader_address(&self) -> Option<(NodeId, String)> {
        let leader = self.leases.leader().filter(|l| *l != self.meta.node)?;
        Some((leader, self.log.state().nodes.get(&leader)?.advertise.clone()))
    }

    fn leader_client(&self) -> Option<ClusterClient<Channel>> {
        let leader = self.leases.leader().filter(|l| *l != self.meta.node)?;
        Some(ClusterClient::new(self.peers.channel(leader)?))
    }

    /// What is wrong with the dates of this node's certificate.
    pub(crate) fn certificate_trouble(&self) -> Option<String> {
        let (from, until) = self.authority.validity()?;
        crate::certificate::trouble(from, until, wall_clock_ms())
    }

    /// Asks each of `members`, until one makes this admitted node what its role
    /// says.
    async fn activate_by(&self, members: impl IntoIterator<Item = (NodeId, String)>) {
        for (node, address) in members {
            let client = || ClusterClient::new(self.peers.patient_channel(node, &address));
            match self.activate(client, ACTIVATION).await {
                Ok(()) => return,
                Err(e) => {
                    tracing::info!(%node, why = e.message(), "this node has not joined yet");
                }
            }
        }
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
            let csr = self.authority.csr().map_err(Status::internal)?;
            let applied = self.log.index();
            let mut request = tonic::Request::new(v1::ActivateRequest { csr, applied });
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            let reply = client().activate(request).await.map_err(from_call)?.into_inner();
            if reply.chain.is_empty() {
                return Ok(());
            }
            self.authority
                .take_certificate(reply.chain)
                .await
                .map_err(Status::permission_denied)?;
            let left = until.saturating_duration_since(Instant::now());
            let through = || self.log.index() >= reply.through;
            if !self.comes_true(left, through).await {
                return Err(Status::deadline_exceeded("this node does not follow the log"));
            }
        }
    }

    /// Lets every member see the new certificate: they tell whose ends soon by
    /// what they last saw, and connections last for longer.
    async fn show_certificate(&self) {
        for (node, address) in self.peers.all() {
            let mut client = ClusterClient::new(self.peers.channel_at(node, &address));
            let mut request = tonic::Request::new(v1::IdentifyRequest::default());
            request.set_timeout(ANSWER);
            if let Err(status) = client.identify(request).await {
                tracing::debug!(%node, %status, "it has not seen the new certificate");
            }
        }
    }

    /// Gets the issuing key from whoever made it, or from the leader.
    pub(crate) async fn fetch_issuer(&self) -> Result<(), String> {
        let state = self.log.state();
        let maker = state.issuers().and_then(|issuers| issuers.made_by);
        let maker = maker.filter(|maker| *maker != self.meta.node);
        let maker = maker.and_then(|maker| self.peers.channel(maker)).map(ClusterClient::new);
        let mut last = "no leader is known".to_owned();
        for client in self.leader_client().into_iter().chain(maker) {
            match self.fetch_issuer_from(client).await {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn fetch_issuer_from(&self, mut client: ClusterClient<Channel>) -> Result<(), String> {
        let reply = client.fetch_issuer(v1::FetchIssuerRequest {}).await;
        let reply = reply.map_err(|e| from_call(e).message().to_owned())?.into_inner();
        let chain = reply.chain.into_iter().map(Into::into).collect();
        self.authority.take_issuer(Issuer::new(reply.key.into(), chain))
    }

    /// After half of its life, before it, when it does not say what the node is,
    /// and when its issuer was replaced. Nodes differ in when they look, so that
    /// they do not all come at once.
    async fn renew_certificate_if_due(&self) -> Result<(), String> {
        let text = |e: vip_pki::IdentityError| chain(&e);
        let identity = self.authority.identity().map_err(text)?;
        let (from, until) = identity.validity().ok_or("the certificate is damaged")?;
        let now = i64::try_from(wall_clock_ms() / 1000).unwrap_or(i64::MAX);
        let state = self.log.state();
        let joined = state.nodes.get(&self.meta.node).filter(|n| n.state != NodeState::Joining);
        let says_role = joined.is_none_or(|node| identity.role() == Some(node.role));
        let good = says_role && !self.is_outdated();
        // One from the future was signed by a clock that was wrong.
        if good && (from..from + (until - from) / 2).contains(&now) {
            return Ok(());
        }
        let csr = identity.key.csr().map_err(|e| chain(&e))?;
        let chain = match self.leader_client() {
            Some(mut client) => {
                let reply = client.renew_certificate(v1::RenewCertificateRequest { csr }).await;
                reply.map_err(|e| from_call(e).message().to_owned())?.into_inner().chain
            }
            None if self.leases.leader() == Some(self.meta.node) => {
                let signed = self.authority.renewed(self.meta.node, &csr);
                signed.map_err(|e| e.message().to_owned())?
            }
            None => return Err("no leader is known".into()),
        };
        self.authority.take_certificate(chain).await?;
        tracing::info!("certificate renewed");
        self.show_certificate().await;
        Ok(())
    }
}
