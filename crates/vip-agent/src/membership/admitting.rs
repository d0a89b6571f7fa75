//! Joining, as the cluster sees it.

use super::activation::activate;
use super::look_back::look_back;
use crate::errors::{from_refusal, from_write, internal, invalid, no_issuer, no_quorum};
use crate::node::{COMMIT_TIMEOUT, Member};
use crate::rate::Rate;
use crate::refusals::Refusals;
use governor::Quota;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use vip_core::{
    Actor, ClusterOp, JoinProof, Name, NodeId, NodeOp, NodeState, Outcome, Role, Speaker,
    TokenError, TokenId, excerpt, no_peer,
};
use vip_pki::{PeerInfo, check_issuer, speaker, spki_of_csr};
use vip_proto::v1;
use vip_proto::v1::cluster_server::Cluster;

/// Requests to join that the leader looks at, a minute: of one address, and of
/// all. A machine needs one; many behind one address are rolled out in bursts.
const JOINS_EACH: Quota = Quota::per_minute(NonZeroU32::new(60).expect("not zero"));
const JOINS_ALL: Quota = Quota::per_minute(NonZeroU32::new(600).expect("not zero"));
/// Largest request for a certificate.
const MAX_CSR: usize = 16 << 10;
/// Longest token id: ours have 10 characters.
const MAX_TOKEN_ID: usize = 32;
/// Longest name (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 63;
/// Longest host name (RFC 1035 section 2.3.4), and a port.
const MAX_ADDRESS: usize = 253 + 6;
/// Longest proof: a signature of 64 bytes, as hexadecimal digits.
const MAX_PROOF: usize = 128;
/// How long the joiner's port may take to answer.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Members that are looked back at, at a time.
const LOOKS: usize = 4;

/// See the module.
pub(crate) struct ClusterService {
    member: Arc<Member>,
    rate: Rate,
    refusals: Refusals,
    looks: Semaphore,
}

impl ClusterService {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        let (rate, refusals) = (Rate::new(JOINS_EACH, JOINS_ALL), Refusals::default());
        Self { member, rate, refusals, looks: Semaphore::new(LOOKS) }
    }

    /// Refuses whom the issuing key is not for: a witness leads only until it has
    /// handed leadership on.
    fn keeps_issuer(&self, node: NodeId) -> Result<(), Status> {
        let state = self.member.log.state();
        let keeps = |n: &vip_core::Node| {
            let stays = !matches!(n.state, NodeState::Joining | NodeState::Leaving);
            n.role == Role::Voter && stays
        };
        let why = || Status::permission_denied("only voters keep the issuing key");
        state.nodes.get(&node).is_some_and(keeps).then_some(()).ok_or_else(why)
    }

    /// The leader's address, if it is not this node.
    fn elsewhere(&self) -> Result<Option<String>, Status> {
        let member = &self.member;
        let none = || no_quorum("this cluster has no leader at the moment");
        let leader = member.leases.leader().ok_or_else(none)?;
        if leader == member.meta.node {
            return Ok(None);
        }
        let state = member.log.state();
        let address = state.nodes.get(&leader).map(|n| n.advertise.clone());
        address.map(Some).ok_or_else(|| no_quorum("the leader's address is not known here yet"))
    }

    async fn admit(&self, from: IpAddr, message: v1::JoinRequest) -> Result<v1::JoinReply, Status> {
        use v1::join_reply as j;
        check_lengths(&message)?;
        let member = &self.member;
        if let Some(leader) = self.elsewhere()? {
            let redirect = j::Redirect { leader };
            return Ok(v1::JoinReply { result: Some(j::Result::Redirect(redirect)) });
        }
        if !self.rate.allows(from) {
            return Err(Status::resource_exhausted("too many joins from there; wait a minute"));
        }
        member.log.may_date()?;
        let issuer = member.authority.issuer().ok_or_else(no_issuer)?;
        let spki = spki_of_csr(&message.csr).map_err(invalid)?;
        let name: Name = message.name.parse().map_err(invalid)?;
        self.check_token(&message, &name, &spki)?;
        // Before the token is used up: a node that cannot be reached is no use.
        reach(&message.advertise).await?;
        let op = NodeOp::Admit {
            token: TokenId(message.token_id),
            name,
            advertise: message.advertise,
            spki,
            proof: JoinProof(message.proof),
            runs: message.runs.unwrap_or_default().into(),
        };
        let actor = Actor("joiner".into());
        let outcome = member.log.propose_as(actor, op, COMMIT_TIMEOUT).await;
        let outcome = outcome.map_err(|e| from_write(&e))?;
        let outcome = outcome.accepted().map_err(|e| from_refusal(&e))?;
        let Outcome::Admitted { node, role, admitted } = outcome else {
            return Err(Status::internal("admission answered something else"));
        };
        let chain = issuer
            .sign_node(&message.csr, node, None, admitted, &member.meta.cluster)
            .map_err(|e| internal("signing", &e))?;
        let state = member.log.state();
        let members = state.nodes.values().map(|n| j::Member {
            node: n.id.0,
            address: n.advertise.clone(),
            spki: n.spki.clone(),
        });
        let admitted = j::Admitted {
            node: node.0,
            role: v1::Role::from(role).into(),
            cluster: member.meta.cluster.clone(),
            cluster_name: member.meta.cluster_name.to_string(),
            profile: v1::Profile::from(state.profile()).into(),
            chain: chain.iter().map(|c| c.to_vec()).collect(),
            members: members.collect(),
        };
        Ok(v1::JoinReply { result: Some(j::Result::Admitted(admitted)) })
    }

    /// What the log would say, asked here first: nobody without a token makes
    /// this node connect anywhere or write to the log.
    fn check_token(
        &self,
        message: &v1::JoinRequest,
        name: &Name,
        spki: &str,
    ) -> Result<(), Status> {
        let (state, token) = (self.member.log.state(), TokenId(message.token_id.clone()));
        let (now, proof) = (self.member.log.time_ms(), JoinProof(message.proof.clone()));
        let admission = state.admission(now, &token, name, &message.advertise, spki, &proof);
        let error = match admission {
            Ok(_) => return Ok(()),
            // What tokens there are, only their owners learn.
            Err(TokenError::Proof) => TokenError::Unknown,
            Err(error) => error,
        };
        Err(from_refusal(&vip_core::Refusal::Token { token, error }))
    }
}

/// Whether the joiner's port takes connections. The answer says no more than
/// that: a token is not worth a look around from here.
async fn reach(address: &str) -> Result<(), Status> {
    const THEN: &str = "Nothing was changed and the token can still be used; check \
                        node.advertise in vipd.toml";
    let connect = async {
        let found: Vec<SocketAddr> = tokio::net::lookup_host(address).await.ok()?.collect();
        if let Some(what) = found.iter().find_map(|found| no_peer(found.ip())) {
            return Some(Err(what));
        }
        TcpStream::connect(found.as_slice()).await.ok().map(|_| Ok(()))
    };
    match tokio::time::timeout(REACH_TIMEOUT, connect).await {
        Ok(Some(Ok(()))) => Ok(()),
        Ok(Some(Err(what))) => Err(Status::invalid_argument(format!(
            "no other member reaches this node at {}: it is {what}. {THEN}",
            excerpt(address)
        ))),
        Ok(None) | Err(_) => Err(Status::failed_precondition(format!(
            "the cluster's leader cannot reach this node at {}. {THEN} and the firewall",
            excerpt(address)
        ))),
    }
}

/// Texts of a request are not taken up before they are known to be short: they
/// come back in errors, and in the log.
fn check_lengths(message: &v1::JoinRequest) -> Result<(), Status> {
    let parts = [
        ("token id", message.token_id.len(), MAX_TOKEN_ID),
        ("name", message.name.len(), MAX_NAME),
        ("address", message.advertise.len(), MAX_ADDRESS),
        ("proof", message.proof.len(), MAX_PROOF),
        ("certificate request", message.csr.len(), MAX_CSR),
    ];
    match parts.into_iter().find(|(_, len, max)| len > max) {
        Some((what, len, max)) => Err(Status::invalid_argument(format!(
            "the {what} has {len} bytes, and at most {max} are taken. Nothing was changed"
        ))),
        None => Ok(()),
    }
}

fn sender(extensions: &tonic::Extensions) -> Result<Speaker, Status> {
    speaker(extensions).ok_or_else(|| Status::permission_denied("only for members"))
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn identify(
        &self,
        request: Request<v1::IdentifyRequest>,
    ) -> Result<Response<v1::IdentifyReply>, Status> {
        let cluster = self.member.meta.cluster.clone();
        let mut reply = v1::IdentifyReply { cluster, ..Default::default() };
        let is_led = self.member.leases.leader().is_some();
        let about = request.into_inner().about.filter(|_| is_led);
        if let Some(v1::identify_request::About { node, spki }) = about {
            let (state, node) = (self.member.log.state(), NodeId(node));
            // Whoever was shown its certificate knows that.
            reply.is_member = state.nodes.get(&node).is_some_and(|known| known.spki == spki);
            let tombstone = state.tombstones.get(&node).filter(|known| known.spki == spki);
            reply.removed = tombstone.and_then(|t| t.removed.clone()).map(|removal| {
                let vip_core::Removal { time_ms, actor } = removal;
                v1::identify_reply::Removal { time_ms, actor }
            });
        }
        Ok(Response::new(reply))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let from = request.extensions().get::<PeerInfo>().map(|p| p.address.ip());
        let from = from.ok_or_else(|| Status::permission_denied("no peer address"))?;
        let result = self.admit(from, request.into_inner()).await;
        if let Err(status) = &result {
            self.refusals.join(from, status.message());
        }
        result.map(Response::new)
    }

    async fn activate(
        &self,
        request: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::ActivateReply>, Status> {
        let speaker = sender(request.extensions())?;
        activate(&self.member, speaker, request.get_ref()).await.map(Response::new)
    }

    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateReply>, Status> {
        let node = sender(request.extensions())?.node;
        let chain = self.member.authority.renewed(node, &request.get_ref().csr)?;
        Ok(Response::new(v1::RenewCertificateReply { chain }))
    }

    async fn reissued(
        &self,
        request: Request<v1::ReissuedRequest>,
    ) -> Result<Response<v1::ReissuedReply>, Status> {
        let node = sender(request.extensions())?.node;
        let info = request.extensions().get::<PeerInfo>();
        let issuer = info.map(|peer| peer.issuer.as_str()).unwrap_or_default();
        let state = self.member.log.state();
        let signing = state.signing_issuer().unwrap_or_default();
        self.member.reissued.saw(node, issuer, signing);
        Ok(Response::new(v1::ReissuedReply {}))
    }

    async fn how_far(
        &self,
        request: Request<v1::HowFarRequest>,
    ) -> Result<Response<v1::HowFarReply>, Status> {
        sender(request.extensions())?;
        let index = self.member.log.index();
        if !self.member.leases.leads_applied() {
            return Err(no_quorum("this node does not lead"));
        }
        Ok(Response::new(v1::HowFarReply { index }))
    }

    async fn rotate_issuer(
        &self,
        request: Request<v1::RotateIssuerRequest>,
    ) -> Result<Response<v1::RotateIssuerReply>, Status> {
        let node = sender(request.extensions())?.node;
        self.keeps_issuer(node)?;
        let member = &self.member;
        let identity = member.authority.identity().map_err(|e| internal("its key", &e))?;
        let root = identity.root().ok_or_else(|| Status::internal("the root is damaged"))?;
        let issuer = check_issuer(&request.into_inner().certificate.into(), root);
        let issuer = issuer.map_err(invalid)?;
        let name = member.log.state().node_name(node).map(ToString::to_string);
        let actor = Actor(format!("root@{}", name.unwrap_or_else(|| node.to_string())));
        let rotate = ClusterOp::RotateIssuer { issuer, made_by: node };
        let outcome = member.log.propose_as(actor, rotate, COMMIT_TIMEOUT).await;
        outcome.map_err(|e| from_write(&e))?.accepted().map_err(|e| from_refusal(&e))?;
        Ok(Response::new(v1::RotateIssuerReply {}))
    }

    async fn look_back(
        &self,
        request: Request<v1::LookBackRequest>,
    ) -> Result<Response<v1::LookBackReply>, Status> {
        let node = sender(request.extensions())?.node;
        // It costs a connection; a member that asks again and again waits.
        let _one = self.looks.acquire().await.map_err(|e| internal("looking back", &e))?;
        look_back(&self.member, node).await?;
        Ok(Response::new(v1::LookBackReply {}))
    }

    async fn fetch_issuer(
        &self,
        request: Request<v1::FetchIssuerRequest>,
    ) -> Result<Response<v1::FetchIssuerReply>, Status> {
        let node = sender(request.extensions())?.node;
        self.keeps_issuer(node)?;
        let issuer = self
            .member
            .authority
            .issuer()
            .ok_or_else(|| Status::unavailable("no issuing key here"))?;
        Ok(Response::new(v1::FetchIssuerReply {
            key: issuer.key().to_vec(),
            chain: issuer.chain().iter().map(|c| c.to_vec()).collect(),
        }))
    }
}
