//! Becoming a member, and ceasing to be one, on this node's side.

use super::data_dir::wipe;
use super::seat::Seat;
use crate::errors::{from_refusal, from_write, internal, invalid, no_issuer};
use crate::node::{COMMIT_TIMEOUT, KnownMember, Member, Meta};
use aws_lc_rs::rand::fill;
use rustls_pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Channel;
use vip_core::{
    Actor, ClusterOp, Name, NodeId, NodeState, Outcome, Profile, Role, Runs, TokenError, TokenOp,
    TokenText, chain, join_statement,
};
use vip_pki::{
    NewCa, NodeIdentity, NodeKey, PkiDir, cluster_id, generate_cluster_ca, pinned_channel,
    pinned_config, write_secret,
};
use vip_proto::v1::cluster_client::ClusterClient;
use vip_proto::{ALPN_GRPC, FieldError, read, v1};

/// Time to reach one address of a cluster.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// Times a joiner follows a redirect or waits for a leader.
const JOIN_ATTEMPTS: u32 = 50;
/// The root's private key, until somebody takes it away.
pub(crate) const RECOVERY_FILE: &str = "recovery-root-key.pem";
/// Between two of them.
const JOIN_PAUSE: Duration = Duration::from_millis(100);
/// The only voter elects itself at once; its disk may be slow.
const LEADS_WITHIN: Duration = Duration::from_secs(10);

/// What `init` made.
pub(crate) struct Initialised {
    pub(crate) member: Arc<Member>,
    pub(crate) recovery_file: PathBuf,
}

/// The id of a cluster that begins.
pub(crate) fn new_cluster_id() -> Result<String, Status> {
    let mut random = [0; 8];
    fill(&mut random).map_err(|e| internal("random numbers", &e))?;
    Ok(cluster_id(random))
}

pub(crate) fn already(member: &Member) -> Status {
    if let Err(removed) = member.refuse_if_removed() {
        return removed;
    }
    let Meta { name, cluster_name, .. } = &member.meta;
    Status::failed_precondition(format!(
        "this node is already {name} in cluster {cluster_name}. Nothing was changed; `vipctl \
         leave` takes it out"
    ))
}

/// The root's key, until somebody takes it away. Returns where it is.
pub(crate) fn keep_root_key(dir: &Path, ca: &NewCa) -> Result<PathBuf, Status> {
    let file = dir.join(RECOVERY_FILE);
    write_secret(&file, ca.root_key.as_bytes())
        .map_err(|e| internal(&format!("writing {}", file.display()), &e))?;
    Ok(file)
}

pub(crate) fn advertise(agent: &Seat) -> Result<String, Status> {
    agent.config.advertise().map_err(|e| Status::failed_precondition(format!("{e}")))
}

pub(crate) async fn start(agent: &Arc<Seat>, meta: Meta) -> Result<Arc<Member>, Status> {
    let listener = agent.listen();
    let listener = listener.map_err(|e| Status::failed_precondition(chain(&e)))?;
    start_on(agent, meta, listener).await
}

async fn start_on(
    agent: &Arc<Seat>,
    meta: Meta,
    listener: std::net::TcpListener,
) -> Result<Arc<Member>, Status> {
    agent.start(meta, listener).await.map_err(|e| internal("starting", &e))
}

/// Makes a cluster of this node.
pub(crate) async fn init(agent: &Arc<Seat>, name: Name) -> Result<Initialised, Status> {
    let _one = agent.begin_forming().await?;
    if let Some(member) = agent.member() {
        return Err(already(&member));
    }
    let dir = agent.config.node.data_dir.clone();
    let address = advertise(agent)?;
    wipe(&dir)?;
    let cluster = new_cluster_id()?;
    let ca = generate_cluster_ca(&cluster).map_err(|e| internal("making the CA", &e))?;
    let key = NodeKey::generate().map_err(|e| internal("making a key", &e))?;
    let spki = key.spki();
    let me = NodeId(1);
    let csr = key.csr().map_err(|e| internal("making a key", &e))?;
    let chain = ca.issuer.sign_node(&csr, me, Some(Role::Voter), 0, &cluster);
    let chain = chain.map_err(|e| internal("signing", &e))?;
    let pki = PkiDir::new(&dir);
    let stored = pki
        .store_identity(&NodeIdentity { key, chain })
        .and_then(|()| pki.store_issuer(&ca.issuer));
    stored.map_err(|e| internal("storing keys", &e))?;
    let recovery_file = keep_root_key(&dir, &ca)?;
    let issuer = ca.issuer.spki().map_err(|e| internal("making the CA", &e))?;
    let members = [KnownMember { node: me, spki: spki.clone(), address: address.clone() }];
    let meta = Meta::new(
        (cluster.clone(), name.clone()),
        (me, agent.name.clone()),
        agent.config.node.profile,
        address.clone(),
        &members,
        issuer.clone(),
    );
    let member = start(agent, meta.clone()).await?;
    let op = ClusterOp::Bootstrap {
        cluster,
        name,
        profile: agent.config.node.profile,
        node: agent.name.clone(),
        advertise: address.clone(),
        spki,
        issuer,
        runs: Runs::here(),
    };
    let formed = async {
        member.raft.initialize(address).await.map_err(|e| from_write(&e))?;
        if !member.comes_true(LEADS_WITHIN, || member.leases.leads_applied()).await {
            return Err(Status::deadline_exceeded("this node did not become the leader"));
        }
        let actor = Actor(format!("root@{}", agent.name));
        let outcome = member.log.propose_as(actor, op, COMMIT_TIMEOUT).await;
        outcome.map_err(|e| from_write(&e))?.accepted().map_err(|e| from_refusal(&e))?;
        meta.store(&dir).map_err(|e| internal("storing the membership", &e))
    };
    if let Err(status) = formed.await {
        member.shut_down().await;
        wipe(&dir)?;
        return Err(status);
    }
    agent.set_member(Some(member.clone()));
    Ok(Initialised { member, recovery_file })
}

/// Makes this node a member of the cluster that the token is for.
pub(crate) async fn join(
    agent: &Arc<Seat>,
    addresses: &[String],
    token: &str,
    limit: Duration,
) -> Result<(Arc<Member>, Role), Status> {
    let _one = agent.begin_forming().await?;
    if let Some(member) = agent.member() {
        return Err(already(&member));
    }
    let malformed = |e: TokenError| invalid(format!("the join token was refused: {e}"));
    let token = TokenText::parse(token).map_err(malformed)?;
    let address = advertise(agent)?;
    let dir = agent.config.node.data_dir.clone();
    wipe(&dir)?;
    // Before the cluster is asked: it tries to reach this node.
    let listener = agent.listen();
    let listener = listener.map_err(|e| Status::failed_precondition(chain(&e)))?;
    let key = NodeKey::generate().map_err(|e| internal("making a key", &e))?;
    let admitted = ask_to_join(addresses, &token, &agent.name, &address, &key).await?;
    let unclear = |e: FieldError| Status::internal(e.to_string());
    let role = read::<v1::Role, Role>("role", admitted.role).map_err(unclear)?;
    let role = role.ok_or_else(|| unclear(FieldError::Missing("role")))?;
    let name_of = |text: &str| text.parse::<Name>().map_err(|e| Status::internal(e.to_string()));
    let profile = read::<v1::Profile, Profile>("profile", admitted.profile).map_err(unclear)?;
    let profile = profile.ok_or_else(|| unclear(FieldError::Missing("profile")))?;
    let chain: Vec<CertificateDer<'static>> =
        admitted.chain.into_iter().map(CertificateDer::from).collect();
    believe(&admitted.cluster, NodeId(admitted.node), role, &chain, &token, &key)?;
    let issuer = vip_pki::Issuer::new(Vec::new().into(), chain.iter().skip(1).cloned().collect());
    let issuer = issuer.spki().map_err(|e| internal("the cluster's CA", &e))?;
    let known = |m: v1::join_reply::Member| {
        let v1::join_reply::Member { node, spki, address } = m;
        KnownMember { node: NodeId(node), spki, address }
    };
    let members: Vec<KnownMember> = admitted.members.into_iter().map(known).collect();
    let meta = Meta::new(
        (admitted.cluster, name_of(&admitted.cluster_name)?),
        (NodeId(admitted.node), agent.name.clone()),
        profile,
        address,
        &members,
        issuer,
    );
    let pki = PkiDir::new(&dir);
    pki.store_identity(&NodeIdentity { key, chain }).map_err(|e| internal("storing keys", &e))?;
    let member = start_on(agent, meta.clone(), listener).await?;
    // From here on the cluster may count on this node, so it stays one whatever
    // becomes of this call; housekeeping goes on asking.
    meta.store(&dir).map_err(|e| internal("storing the membership", &e))?;
    agent.set_member(Some(member.clone()));
    activate(&member, &members, limit).await?;
    let me = meta.node;
    let active = || {
        let state = member.log.state();
        state.nodes.get(&me).is_some_and(|n| n.state == NodeState::Active)
    };
    if !member.comes_true(limit, active).await {
        return Err(Status::deadline_exceeded(
            "this node was admitted but has not caught up with the log yet; it goes on",
        ));
    }
    if role == Role::Voter {
        // So that it can lead at once; housekeeping tries again if not.
        let _ = member.fetch_issuer().await;
    }
    Ok((member, role))
}

/// Whoever answered is a member of the cluster that the token names, perhaps a
/// stolen one: nothing of another root is stored.
fn believe(
    cluster: &str,
    node: NodeId,
    role: Role,
    chain: &[CertificateDer<'_>],
    token: &TokenText,
    key: &NodeKey,
) -> Result<(), Status> {
    let refuse = |why: String| {
        Status::permission_denied(format!(
            "the answer was not believed: {why}. Nothing was stored here; the token may be used \
             up. Join by another member, and look at the one that answered"
        ))
    };
    if role != token.role {
        return Err(refuse(format!(
            "it makes a {role} of this node, and the token a {}",
            token.role
        )));
    }
    let expected = vip_pki::Expected { root: token.pin, key, node, cluster };
    expected.check(chain).map_err(|e| refuse(vip_core::chain(&e)))
}

async fn connect(address: &str, token: &TokenText) -> Result<Channel, Status> {
    let config = pinned_config(&token.pin, ALPN_GRPC).map_err(|e| internal("TLS", &e))?;
    pinned_channel(address, config, REACH_TIMEOUT).await.map_err(|e| {
        Status::failed_precondition(format!(
            "{}. No secret was sent and nothing was changed; check the address, and that the \
             token is of that cluster",
            chain(&e)
        ))
    })
}

/// Finds the leader, starting at `addresses`, and asks it for admission.
async fn ask_to_join(
    addresses: &[String],
    token: &TokenText,
    name: &Name,
    advertise: &str,
    key: &NodeKey,
) -> Result<v1::join_reply::Admitted, Status> {
    use v1::join_reply::Result as R;
    let spki = key.spki();
    let csr = key.csr().map_err(|e| internal("making a key", &e))?;
    let mut next: Vec<String> = addresses.iter().rev().cloned().collect();
    let mut last = Status::invalid_argument("no address of the cluster was given");
    for _ in 0..JOIN_ATTEMPTS {
        let Some(address) = next.pop() else {
            if last.code() != tonic::Code::Unavailable {
                break;
            }
            // The cluster has no leader at the moment.
            sleep(JOIN_PAUSE).await;
            next = addresses.iter().rev().cloned().collect();
            continue;
        };
        let channel = match connect(&address, token).await {
            Ok(channel) => channel,
            Err(status) => {
                last = status;
                continue;
            }
        };
        // The cluster's id is in the name of the certificate that the pin
        // vouched for; it is asked of the node itself, and signed.
        let mut client = ClusterClient::new(channel);
        let cluster = match client.identify(v1::IdentifyRequest::default()).await {
            Ok(reply) => reply.into_inner().cluster,
            Err(status) => {
                last = status;
                continue;
            }
        };
        let statement = join_statement(&cluster, &token.id, token.role, name, advertise, &spki);
        let request = v1::JoinRequest {
            token_id: token.id.0.clone(),
            name: name.to_string(),
            advertise: advertise.to_owned(),
            csr: csr.clone(),
            proof: token.secret.sign(&statement).0,
            runs: Some(Runs::here().into()),
        };
        match client.join(request).await.map(|r| r.into_inner().result) {
            Ok(Some(R::Admitted(admitted))) => return Ok(admitted),
            Ok(Some(R::Redirect(redirect))) => next.push(redirect.leader),
            Ok(None) => last = Status::internal("an empty answer"),
            Err(status) if status.code() == tonic::Code::Unavailable => last = status,
            Err(status) => return Err(status),
        }
    }
    Err(last)
}

/// Asks the cluster to make this admitted node what its role says.
async fn activate(
    member: &Arc<Member>,
    members: &[KnownMember],
    limit: Duration,
) -> Result<(), Status> {
    let until = Instant::now() + limit;
    let mut last = Status::unavailable("no member of the cluster answers");
    while Instant::now() < until {
        let others = members.iter().filter(|other| other.node != member.meta.node);
        for KnownMember { node, address, .. } in others {
            let channel = || ClusterClient::new(member.peers.patient_channel(*node, address));
            match member.activate(channel, limit).await {
                Ok(()) => return Ok(()),
                Err(status) => last = status,
            }
        }
        sleep(JOIN_PAUSE).await;
    }
    Err(last)
}

/// Ends this node's membership on its own side: everything stops, its data
/// goes.
pub(crate) async fn forget_membership(agent: &Arc<Seat>) -> Result<(), Status> {
    if let Some(member) = agent.member() {
        member.shut_down().await;
    }
    agent.set_member(None);
    wipe(&agent.config.node.data_dir)
}

/// A new join token, in the log by its public half.
pub(crate) async fn create_token(
    member: &Member,
    actor: Actor,
    role: Role,
    expires_ms: u64,
    max_uses: u32,
) -> Result<TokenText, Status> {
    let issuer = member.authority.issuer().ok_or_else(no_issuer)?;
    let pin = issuer.root_pin().map_err(|e| internal("the CA", &e))?;
    let (mut id, mut secret) = ([0; 5], [0; 32]);
    fill(&mut id).and_then(|()| fill(&mut secret)).map_err(|e| internal("random numbers", &e))?;
    let token = TokenText::new(role, id, secret, pin);
    let op = TokenOp::Create {
        id: token.id.clone(),
        verifier: token.secret.verifier(),
        role,
        expires_ms,
        max_uses,
    };
    let outcome = member.log.propose_as(actor, op, COMMIT_TIMEOUT).await;
    match outcome.map_err(|e| from_write(&e))? {
        Outcome::Refused(refusal) => Err(from_refusal(&refusal)),
        _ => Ok(token),
    }
}
