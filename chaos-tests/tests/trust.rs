//! What somebody with a member's key can say, over real connections: the
//! attacker has the key and a host of its own, and sends what it likes.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Host, Lab, Options, Probe};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::transport::server::Router;
use tonic::{Code, Request, Response, Status, Streaming};
use vip_core::{Actor, Command, NodeId, Op, Placement, TokenText, VipSpec};
use vip_pki::{
    Connections, Connector, NodeIdentity, NodeKey, PkiDir, Roster, SharedRoster, accept,
    node_server_name,
};
use vip_proto::v1::cluster_server::ClusterServer;
use vip_proto::v1::lease_client::LeaseClient;
use vip_proto::v1::raft_client::RaftClient;
use vip_proto::v1::raft_server::{Raft, RaftServer};
use vip_proto::{ALPN_GRPC, ALPN_LEASE, v1};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// What an attack must not bring about. A takeover takes half of it, and the
/// attacks that worked made a VIP silent for twice as long.
const SILENCE: Duration = Duration::from_millis(400);
/// For a handshake.
const LIMIT: Duration = Duration::from_secs(5);
/// Far ahead of any term here, and no leap.
const HIGH: u64 = 1000;

/// Somebody with a node's key.
struct Attacker {
    node: u64,
    cluster: String,
    identity: NodeIdentity,
    roster: SharedRoster,
}

impl Attacker {
    fn with_key_of(host: &Host) -> Result<Self> {
        let data = host.dir().join("data");
        let meta: Value = serde_json::from_str(&std::fs::read_to_string(data.join("node.json"))?)?;
        let text = |key: &str| meta[key].as_str().context("text").map(str::to_owned);
        let (cluster, issuer) = (text("cluster")?, text("issuer")?);
        let members = meta["members"].as_object().context("members")?.iter().map(|(id, spki)| {
            Ok((NodeId(id.parse()?), spki.as_str().context("a key")?.to_owned()))
        });
        let members = members.collect::<Result<Vec<_>>>()?;
        let roster = Roster::of_join(cluster.clone(), issuer, members);
        Ok(Self {
            node: meta["node"].as_u64().context("an id")?,
            cluster,
            identity: PkiDir::new(&data).load_identity()?,
            roster: Arc::new(arc_swap::ArcSwap::from_pointee(roster)),
        })
    }

    fn channel(&self, to: u64, alpn: &[u8]) -> Result<Channel> {
        let connector = Connector {
            address: format!("10.77.0.{to}:7400"),
            server_name: node_server_name(NodeId(to), &self.cluster),
            config: vip_pki::client_config(&self.identity, self.roster.clone(), alpn)?,
            timeout: Duration::from_secs(2),
            unacknowledged: Duration::from_secs(2),
        };
        Ok(connector.channel())
    }

    fn vote(&self, term: u64, committed: bool) -> Option<v1::Vote> {
        Some(v1::Vote { term, node: self.node, committed })
    }

    /// A VIP of the attacker's, as entry behind the first one of every log.
    fn forged(&self, term: u64) -> v1::AppendRequest {
        let spec = VipSpec {
            name: "forged".parse().expect("a name"),
            addresses: vec!["10.77.0.66/24".parse().expect("an address")],
            interface: None,
            placement: Placement::Sticky,
        };
        let (actor, op) = (Actor("root@n1".into()), Op::AddVip { spec });
        let command = json!({ "Normal": Command { time_ms: 1, actor, term: None, op } });
        let entry = |index, payload: &Value| v1::Entry {
            log_id: Some(v1::LogId { term, index }),
            payload: payload.to_string().into_bytes(),
        };
        v1::AppendRequest {
            vote: self.vote(term, true),
            previous: None,
            entries: vec![entry(0, &json!("Blank")), entry(1, &command)],
            commit: Some(v1::LogId { term, index: 1 }),
        }
    }

    /// Says to one node that it leads, in every way there is. What it was told.
    async fn lead(&self, to: u64, term: u64) -> Result<Vec<(&'static str, Status)>> {
        let mut raft = RaftClient::new(self.channel(to, ALPN_GRPC)?);
        let mut lease = LeaseClient::new(self.channel(to, ALPN_LEASE)?);
        let last_log = Some(v1::LogId { term, index: u64::MAX });
        let vote = v1::VoteRequest { vote: self.vote(term, false), last_log };
        let chunk = v1::SnapshotChunk {
            vote: self.vote(term, true),
            meta: b"{}".to_vec(),
            data: vec![0; 1 << 10],
        };
        let transfer =
            v1::TransferLeaderRequest { from_leader: self.vote(term, true), to, last_log: None };
        let renew =
            v1::RenewRequest { vote: self.vote(term, true), promise_us: 60_000_000, wall_ms: 0 };
        let abdicate = v1::AbdicateRequest { vote: self.vote(term, true) };
        let mut told = vec![
            ("append", raft.append(self.forged(term)).await.err()),
            ("vote", raft.vote(vote).await.err()),
            ("pre-vote", raft.pre_vote(vote).await.err()),
            ("snapshot", raft.install_snapshot(tokio_stream::iter([chunk])).await.err()),
            ("transfer", raft.transfer_leader(transfer).await.err()),
            ("renew", lease.renew(renew).await.err()),
        ];
        for _ in 0..200 {
            told.push(("abdicate", lease.abdicate(abdicate).await.err()));
        }
        told.into_iter()
            .map(|(what, refused)| Ok((what, refused.context(format!("{what} was taken"))?)))
            .collect()
    }
}

/// Runs on a host of its own.
fn on<R: Send>(lab: &Lab, host: &str, attack: impl AsyncFnOnce() -> Result<R> + Send) -> Result<R> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            lab.enter(host)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(attack())
        });
        thread.join().expect("no panic")
    })
}

/// Who leads, in which term, and which VIPs there are.
fn seen(cluster: &Cluster, by: &str) -> Result<(Value, Value, Value)> {
    let status = cluster.host(by).ctl_json(&["status"])?;
    let names: Vec<_> =
        status["vips"].as_array().context("VIPs")?.iter().map(|v| v["name"].clone()).collect();
    Ok((status["leader"].clone(), status["term"].clone(), names.into()))
}

/// Three voters with a VIP, a fourth host with a role, and a fifth outside.
fn four(role: &str) -> Result<Cluster> {
    let cluster = Cluster::bare(&Options { nodes: 5, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    for name in ["n2", "n3"] {
        cluster.join(cluster.host(name), "voter")?;
    }
    cluster.join(cluster.host("n4"), role)?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n3")?;
    Ok(cluster)
}

/// A learner's key, used in a later term and in the last: leader, term and VIPs
/// stay, and the VIP answers all the while.
fn nothing_comes_of(attack: impl Fn(&Lab, &Attacker, u64) -> Result<()>) -> Result<()> {
    let mut cluster = four("learner")?;
    cluster.host_mut("n4").kill_all();
    let before = seen(&cluster, "n1")?;
    let attacker = Attacker::with_key_of(cluster.host("n4"))?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    for term in [HIGH, u64::MAX] {
        attack(&cluster.lab, &attacker, term)?;
    }
    let trace = probe.finish()?;
    assert_eq!(trace.outages(SILENCE), [], "nothing fell silent");
    assert_eq!(seen(&cluster, "n2")?, before);
    Ok(())
}

/// Refused for what the sender is, by whoever looked first.
fn is_no_leader(status: &Status) -> bool {
    let why = ["has no vote", "has not joined", "is not allowed for this caller"];
    why.iter().any(|why| status.message().contains(why))
}

#[test]
fn a_learners_key_neither_leads_nor_campaigns_nor_ends_a_lease() -> Result<()> {
    nothing_comes_of(|lab, attacker, term| {
        for to in 1..=3 {
            let told = on(lab, "n4", async || attacker.lead(to, term).await)?;
            for (what, status) in told {
                assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
                assert!(is_no_leader(&status), "{what}: {status}");
            }
        }
        Ok(())
    })
}

/// A voter is a peer: it may be elected. But not in a term that would be the
/// last, and not with a log that no leader can have.
#[test]
fn a_voters_key_does_not_end_the_cluster_by_a_term_or_a_log() -> Result<()> {
    let mut cluster = four("voter")?;
    cluster.host_mut("n4").kill_all();
    cluster.wait_until_settled("n3")?;
    let before = seen(&cluster, "n1")?;
    let attacker = Attacker::with_key_of(cluster.host("n4"))?;
    for to in 1..=3 {
        let told = on(&cluster.lab, "n4", async || attacker.lead(to, u64::MAX).await)?;
        for (what, status) in told {
            assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
            assert!(status.message().contains("further ahead"), "{what}: {status}");
        }
        let (mut later, mut hole) = (attacker.forged(HIGH), attacker.forged(HIGH));
        later.vote = attacker.vote(HIGH - 1, true);
        hole.entries.remove(0);
        for bad in [later, hole] {
            let refused = on(&cluster.lab, "n4", async || {
                let mut raft = RaftClient::new(attacker.channel(to, ALPN_GRPC)?);
                raft.append(bad).await.err().context("it was taken")
            })?;
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        }
    }
    assert_eq!(seen(&cluster, "n2")?, before);
    // Nor was any of it stored.
    cluster.host_mut("n1").stop()?;
    cluster.host_mut("n1").start()?;
    cluster.wait_until_settled("n1")?;
    Ok(())
}

/// A voter's key sends 48 MB that are no state: they go to the disk and away
/// again, and no node ends by it.
#[test]
fn a_snapshot_that_is_none_costs_little_and_ends_nobody() -> Result<()> {
    const PARTS: usize = 48;
    /// Of memory, while it comes.
    const LITTLE: u64 = 16 << 20;
    let mut cluster = four("voter")?;
    cluster.host_mut("n4").kill_all();
    cluster.wait_until_settled("n3")?;
    let before = seen(&cluster, "n1")?;
    let n2 = cluster.host("n2");
    let (agent, most) = (n2.find(chaos_tests::Process::Agent), n2.memory("VmHWM:")?);
    let attacker = Attacker::with_key_of(cluster.host("n4"))?;
    let vote = attacker.vote(HIGH, true);
    let membership = json!({ "log_id": null, "membership": { "configs": [], "nodes": {} } });
    let meta = json!({ "last_log_id": null, "last_membership": membership });
    let first = v1::SnapshotChunk { vote, meta: meta.to_string().into_bytes(), data: vec![] };
    let part = v1::SnapshotChunk { data: vec![b'['; 1 << 20], ..Default::default() };
    let parts = std::iter::once(first).chain(std::iter::repeat_n(part, PARTS));
    let refused = on(&cluster.lab, "n4", async || {
        let mut raft = RaftClient::new(attacker.channel(2, ALPN_GRPC)?);
        let parts: Vec<_> = parts.collect();
        raft.install_snapshot(tokio_stream::iter(parts)).await.err().context("it was taken")
    })?;
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let n2 = cluster.host("n2");
    let grown = n2.memory("VmHWM:")?.saturating_sub(most);
    assert!(grown < LITTLE, "{} MB", grown >> 20);
    assert_eq!(n2.find(chaos_tests::Process::Agent), agent);
    let left = std::fs::read_dir(n2.dir().join("data/raft"))?.filter_map(Result::ok);
    let left: Vec<_> = left.map(|e| e.file_name().display().to_string()).collect();
    assert!(!left.iter().any(|name| name.starts_with("snapshot-")), "{left:?}");
    assert_eq!(seen(&cluster, "n2")?, before);
    Ok(())
}

/// Answers every leader that somebody else leads, in a later term.
#[derive(Clone)]
struct Liar {
    vote: Option<v1::Vote>,
    told: Arc<AtomicU32>,
}

#[tonic::async_trait]
impl Raft for Liar {
    async fn append(
        &self,
        _: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendReply>, Status> {
        self.told.fetch_add(1, Ordering::Relaxed);
        let result = self.vote.map(v1::append_reply::Result::HigherVote);
        Ok(Response::new(v1::AppendReply { result }))
    }

    async fn vote(&self, _: Request<v1::VoteRequest>) -> Result<Response<v1::VoteReply>, Status> {
        let vote = self.vote;
        Ok(Response::new(v1::VoteReply {
            vote,
            granted: false,
            last_log: None,
            bound_for_us: None,
        }))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteReply>, Status> {
        self.vote(request).await
    }

    async fn install_snapshot(
        &self,
        _: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotReply>, Status> {
        Ok(Response::new(v1::SnapshotReply { vote: self.vote }))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        Err(Status::unimplemented("never asked"))
    }
}

/// Answers a joiner with another root and another cluster.
struct Impostor(String);

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Impostor {
    async fn identify(
        &self,
        _: Request<v1::IdentifyRequest>,
    ) -> Result<Response<v1::IdentifyReply>, Status> {
        Ok(Response::new(v1::IdentifyReply { cluster: self.0.clone() }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let ca =
            vip_pki::generate_cluster_ca("mine").map_err(|e| Status::internal(e.to_string()))?;
        let chain = ca.issuer.sign_node(&request.get_ref().csr, NodeId(9), None, 1, "mine");
        let chain = chain.map_err(|e| Status::internal(e.to_string()))?;
        let admitted = v1::join_reply::Admitted {
            node: 9,
            role: "voter".into(),
            cluster: "mine".into(),
            cluster_name: "mine".into(),
            profile: "lan".into(),
            chain: chain.iter().map(|c| c.to_vec()).collect(),
            members: vec![],
        };
        let result = Some(v1::join_reply::Result::Admitted(admitted));
        Ok(Response::new(v1::JoinReply { result }))
    }

    async fn activate(
        &self,
        _: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::ActivateReply>, Status> {
        Ok(Response::new(v1::ActivateReply::default()))
    }

    async fn renew_certificate(
        &self,
        _: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateReply>, Status> {
        Err(Status::unimplemented("never asked"))
    }

    async fn reissued(
        &self,
        _: Request<v1::ReissuedRequest>,
    ) -> Result<Response<v1::ReissuedReply>, Status> {
        Err(Status::unimplemented("never asked"))
    }

    async fn rotate_issuer(
        &self,
        _: Request<v1::RotateIssuerRequest>,
    ) -> Result<Response<v1::RotateIssuerReply>, Status> {
        Err(Status::unimplemented("never asked"))
    }

    async fn fetch_issuer(
        &self,
        _: Request<v1::FetchIssuerRequest>,
    ) -> Result<Response<v1::FetchIssuerReply>, Status> {
        Err(Status::unimplemented("never asked"))
    }
}

/// The port, as soon as the process that was killed has let go of it.
async fn bound() -> Result<TcpListener> {
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(("0.0.0.0", 7400)).await {
            Ok(listener) => return Ok(listener),
            Err(e) if tokio::time::Instant::now() >= until => return Err(e.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

impl Attacker {
    /// Serves this node's port, with its certificate, until `done`.
    async fn serve(&self, lies: Router, done: impl Future<Output = Result<()>>) -> Result<()> {
        let alpn = [ALPN_GRPC, ALPN_LEASE];
        let config = vip_pki::server_config(&self.identity, self.roster.clone(), &alpn)?;
        let listener = bound().await?;
        let (roster, connections) = (self.roster.clone(), Connections::default());
        let (accepted, streams) = mpsc::channel(16);
        let port = tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let config = config.clone();
                if let Ok(stream) = accept(stream, from, config, &roster, &connections, LIMIT).await
                {
                    let _ = accepted.send(Ok::<_, std::io::Error>(stream)).await;
                }
            }
        });
        let served = lies.serve_with_incoming(ReceiverStream::new(streams));
        let served = tokio::select! {
            ended = served => ended.map_err(anyhow::Error::from),
            done = tokio::time::timeout(Duration::from_secs(20), done) => done?,
        };
        port.abort();
        served
    }

    /// Lies to leaders in this node's name until enough were told.
    async fn lie(&self, term: u64) -> Result<()> {
        let told = Arc::new(AtomicU32::new(0));
        let liar = Liar { vote: self.vote(term, true), told: told.clone() };
        let lies = tonic::transport::Server::builder().add_service(RaftServer::new(liar));
        let enough = async {
            while told.load(Ordering::Relaxed) < 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        self.serve(lies, enough).await
    }
}

/// Whoever replicates to it would step down, and store the term.
#[test]
fn a_learner_that_answers_with_a_later_leader_deposes_nobody() -> Result<()> {
    nothing_comes_of(|lab, attacker, term| on(lab, "n4", async || attacker.lie(term).await))
}

/// Its certificate is of the cluster that the token names; its answer is not.
#[test]
fn a_joiner_takes_no_other_root_from_a_member() -> Result<()> {
    let mut cluster = four("learner")?;
    let token = cluster.token("voter")?;
    cluster.host_mut("n4").kill_all();
    let attacker = Attacker::with_key_of(cluster.host("n4"))?;
    let n5 = cluster.host("n5");
    on(&cluster.lab, "n4", async || {
        let impostor = ClusterServer::new(Impostor(attacker.cluster.clone()));
        let lies = tonic::transport::Server::builder().add_service(impostor);
        let control = n5.control();
        let joined = async {
            let join = move || control.ctl(&["join", "10.77.0.4:7400", "--token-file", &token]);
            let refused = tokio::task::spawn_blocking(join).await??;
            ensure!(refused.code == Some(1), "{refused:?}");
            ensure!(refused.stderr.contains("its root is another one"), "{}", refused.stderr);
            Ok(())
        };
        attacker.serve(lies, joined).await
    })?;
    assert!(!n5.dir().join("data/pki/node.crt").exists(), "nothing was stored");
    // Nor is it worse off for it.
    let token = cluster.token("voter")?;
    n5.ctl_ok(&["join", "10.77.0.1:7400", "--token-file", &token])?;
    Ok(())
}

/// Somebody outside with a token, or with none.
struct Stranger {
    token: TokenText,
    cluster: String,
    key: NodeKey,
}

impl Stranger {
    /// Of the cluster that `host` belongs to.
    fn with_token(token: &str, host: &Host) -> Result<Self> {
        Ok(Self {
            token: TokenText::parse(token.trim()).context("a token")?,
            cluster: Attacker::with_key_of(host)?.cluster,
            key: NodeKey::generate()?,
        })
    }

    /// A request to join that is right in everything.
    fn request(&self, advertise: &str) -> Result<v1::JoinRequest> {
        let (name, spki) = ("n9".parse()?, self.key.spki());
        let (id, role) = (&self.token.id, self.token.role);
        let statement = vip_core::join_statement(&self.cluster, id, role, &name, advertise, &spki);
        Ok(v1::JoinRequest {
            token_id: id.0.clone(),
            name: name.to_string(),
            advertise: advertise.to_owned(),
            csr: self.key.csr()?,
            proof: self.token.secret.sign(&statement).0,
        })
    }

    async fn join(&self, request: v1::JoinRequest) -> Result<Status> {
        self.ask(request).await?.err().context("it was admitted")
    }

    async fn ask(&self, request: v1::JoinRequest) -> Result<Result<v1::JoinReply, Status>> {
        let config = vip_pki::pinned_config(&self.token.pin, ALPN_GRPC)?;
        let limit = Duration::from_secs(2);
        let channel = vip_pki::pinned_channel("10.77.0.1:7400", config, limit).await?;
        let mut client = v1::cluster_client::ClusterClient::new(channel);
        Ok(client.join(request).await.map(Response::into_inner))
    }

    /// Is admitted, and so has a node's key; it runs nothing.
    async fn admitted(self, advertise: &str) -> Result<Attacker> {
        use v1::join_reply::Result::Admitted;
        let reply = self.ask(self.request(advertise)?).await??;
        let Some(Admitted(admitted)) = reply.result else { anyhow::bail!("elsewhere") };
        let chain: Vec<_> = admitted.chain.into_iter().map(Into::into).collect();
        let members = admitted.members.into_iter().map(|m| (NodeId(m.node), m.spki));
        let issuer = vip_pki::Issuer::new(vec![].into(), chain[1..].to_vec()).spki()?;
        let roster = Roster::of_join(admitted.cluster.clone(), issuer, members);
        Ok(Attacker {
            node: admitted.node,
            cluster: admitted.cluster,
            identity: NodeIdentity { key: self.key, chain },
            roster: Arc::new(arc_swap::ArcSwap::from_pointee(roster)),
        })
    }
}

#[test]
fn a_stranger_learns_nothing_and_leaves_little_behind() -> Result<()> {
    let cluster = Cluster::bare(&Options { nodes: 2, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["init", "--name", "test"])?;
    let token = std::fs::read_to_string(cluster.token("voter")?)?;
    let stranger = Stranger::with_token(&token, n1)?;
    let ask = |request| on(&cluster.lab, "n2", async || stranger.join(request).await);

    // A look around from the leader's host, through a token.
    for door in ["127.0.0.1:22", "[::1]:7400", "169.254.169.254:80", "224.0.0.1:1", "0.0.0.0:7400"]
    {
        let refused = ask(stranger.request(door)?)?;
        assert_eq!(refused.code(), Code::InvalidArgument, "{door}: {refused}");
        assert!(refused.message().contains("no other member reaches"), "{door}: {refused}");
    }
    let shut = ask(stranger.request("10.77.0.2:9")?)?;
    let dark = ask(stranger.request("10.77.0.77:9")?)?;
    assert_eq!(shut.message().replace("10.77.0.2:", "10.77.0.77:"), dark.message());

    // Which tokens there are.
    let (mut unknown, mut forged) =
        (stranger.request("10.77.0.2:7400")?, stranger.request("10.77.0.2:7400")?);
    unknown.token_id = "aaaaaaaa".into();
    forged.proof = "00".repeat(64);
    let (unknown, forged) = (ask(unknown)?, ask(forged)?);
    assert_eq!(unknown.code(), forged.code());
    let same = forged.message().replace(&stranger.token.id.0, "aaaaaaaa");
    assert_eq!(unknown.message(), same);

    // Its log and its errors are not the stranger's to fill.
    let before = n1.log().len();
    for part in 0..3 {
        let mut long = stranger.request("10.77.0.2:7400")?;
        let text = "x".repeat(4 << 10);
        match part {
            0 => long.token_id = text,
            1 => long.name = text,
            _ => long.advertise = text,
        }
        let refused = ask(long)?;
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().len() < 200, "{}", refused.message().len());
    }
    for part in 0..3 {
        let mut long = stranger.request("10.77.0.2:7400")?;
        let text = "x".repeat(1 << 20);
        match part {
            0 => long.token_id = text,
            1 => long.name = text,
            _ => long.advertise = text,
        }
        let refused = ask(long)?;
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        assert!(refused.message().len() < 200, "{}", refused.message().len());
    }
    assert!(n1.log().len() - before < 4096, "{} bytes more", n1.log().len() - before);
    Ok(())
}

/// A voter's token, and a port that takes connections and answers nothing.
#[test]
fn a_port_that_answers_nothing_gets_no_vote_and_no_say() -> Result<()> {
    let cluster = Cluster::bare(&Options { nodes: 2, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["init", "--name", "test"])?;
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let token = std::fs::read_to_string(cluster.token("voter")?)?;
    let stranger = Stranger::with_token(&token, n1)?;
    let before = seen(&cluster, "n1")?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let (attacker, told) = on(&cluster.lab, "n2", async || {
        let mute = TcpListener::bind(("0.0.0.0", 7401)).await?;
        let attacker = stranger.admitted("10.77.0.2:7401").await?;
        // Neither by what it says of itself, nor by waiting.
        let mut client = v1::cluster_client::ClusterClient::new(attacker.channel(1, ALPN_GRPC)?);
        let csr = attacker.identity.key.csr()?;
        let request = v1::ActivateRequest { csr, applied: u64::MAX };
        let refused = client.activate(request).await.err().context("it was taken in")?;
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("does not follow"), "{refused}");
        let told = attacker.lead(1, HIGH).await?;
        drop(mute);
        Ok((attacker, told))
    })?;
    for (what, status) in told {
        assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
        assert!(is_no_leader(&status), "{what}: {status}");
    }
    assert_eq!(probe.finish()?.outages(SILENCE), [], "nothing fell silent");
    assert_eq!(seen(&cluster, "n1")?, before);
    let status = n1.ctl_json(&["status"])?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    let joining = nodes.iter().find(|n| n["id"] == attacker.node).context("the node")?;
    assert_eq!(joining["state"], "joining");
    assert!(status["warnings"].to_string().contains("n9 stays joining: its log does not follow"));
    // The cluster of one decides by itself.
    n1.ctl_ok(&["node", "remove", "n9"])?;
    Ok(())
}

/// Whoever votes may give up what it leads, and nothing else.
#[test]
fn a_voter_ends_no_leadership_that_nobody_promised_to() -> Result<()> {
    let mut cluster = four("voter")?;
    cluster.host_mut("n4").kill_all();
    // Who holds asks the leader for more time, again and again.
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
    let before = seen(&cluster, "n1")?;
    let attacker = Attacker::with_key_of(cluster.host("n4"))?;
    let term = before.1.as_u64().context("a term")?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let attack = async || {
        let mut lease = LeaseClient::new(attacker.channel(2, ALPN_LEASE)?);
        for vote in [term - 1, term, term + 1, HIGH].repeat(1000) {
            let abdicate = v1::AbdicateRequest { vote: attacker.vote(vote, true) };
            lease.abdicate(abdicate).await?;
        }
        Ok(())
    };
    // What the victim knows of its leader meanwhile.
    let knows = std::thread::scope(|scope| {
        let attacking = scope.spawn(|| on(&cluster.lab, "n4", attack));
        let mut knows = vec![];
        while !attacking.is_finished() {
            knows.push(cluster.status("n2")?.quorum);
        }
        attacking.join().expect("no panic")?;
        anyhow::Ok(knows)
    })?;
    let knew = knows.iter().filter(|knew| **knew).count();
    assert!(2 * knew > knows.len(), "of {} looks only {knew} saw a leader", knows.len());
    assert_eq!(probe.finish()?.outages(SILENCE), [], "nothing fell silent");
    assert_eq!(seen(&cluster, "n2")?, before);
    Ok(())
}

/// Every RPC of every service.
fn all_rpcs() -> Result<BTreeSet<String>> {
    let files = prost_types::FileDescriptorSet::decode(vip_proto::DESCRIPTOR)?;
    let services = files.file.iter().flat_map(|file| {
        file.service.iter().map(|service| (file.package().to_owned(), service.clone()))
    });
    let rpcs = services.flat_map(|(package, service)| {
        let name = format!("/{package}.{}", service.name());
        let methods = service.method.into_iter();
        methods.map(move |method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
    });
    Ok(rpcs.collect())
}

impl Attacker {
    /// Calls with an empty message; whether that was refused for who it is.
    /// `None`: there was no answer at all.
    async fn is_denied(&self, to: u64, rpc: &str) -> Result<Option<bool>> {
        let lease = rpc.starts_with("/vip.v1.Lease/");
        let channel = self.channel(to, if lease { ALPN_LEASE } else { ALPN_GRPC })?;
        let mut client = tonic::client::Grpc::new(channel);
        if client.ready().await.is_err() {
            return Ok(None);
        }
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let mut request = Request::new(());
        request.set_timeout(Duration::from_secs(5));
        let reply: Result<Response<()>, Status> = client.unary(request, rpc.parse()?, codec).await;
        Ok(match reply {
            Ok(_) => Some(false),
            // Made here, of a connection that was not to be.
            Err(status) if std::error::Error::source(&status).is_some() => None,
            Err(status) => Some(status.code() == Code::PermissionDenied),
        })
    }

    /// The RPCs that are refused, or `None` if it gets no answer to any.
    async fn denied(&self, to: u64) -> Result<Option<BTreeSet<String>>> {
        let (mut denied, mut answered) = (BTreeSet::new(), 0);
        for rpc in all_rpcs()? {
            let answer = self.is_denied(to, &rpc).await?;
            answered += usize::from(answer.is_some());
            if answer == Some(true) {
                denied.insert(rpc);
            }
        }
        Ok((answered > 0).then_some(denied))
    }
}

fn paths(service: &str, names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("/vip.v1.{service}/{name}")).collect()
}

/// People and nobody: `admin_api.rs`.
#[test]
fn every_rpc_has_a_rule_for_every_kind_of_node() -> Result<()> {
    let mut cluster = Cluster::bare(&Options { nodes: 6, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    for (name, role) in [("n2", "voter"), ("n3", "learner"), ("n4", "witness"), ("n5", "voter")] {
        cluster.join(cluster.host(name), role)?;
    }
    let of = |cluster: &Cluster, name: &str| Attacker::with_key_of(cluster.host(name));
    let removed = of(&cluster, "n5")?;
    cluster.host_mut("n5").kill_all();
    cluster.host("n1").ctl_ok(&["node", "remove", "n5"])?;
    cluster.host("n6").ctl_ok(&["init", "--name", "elsewhere"])?;
    // Another cluster's, with the right name on it.
    let mut foreign = of(&cluster, "n6")?;
    let ours = of(&cluster, "n2")?;
    let issuer = PkiDir::new(&cluster.host("n6").dir().join("data")).load_issuer()?;
    let issuer = issuer.context("an issuer")?;
    let (csr, role) = (foreign.identity.key.csr()?, Some(vip_core::Role::Voter));
    foreign.identity.chain = issuer.sign_node(&csr, NodeId(2), role, 1, &ours.cluster)?;
    foreign.cluster = ours.cluster.clone();
    let token = std::fs::read_to_string(cluster.token("voter")?)?;
    let stranger = Stranger::with_token(&token, cluster.host("n1"))?;
    let joining = on(&cluster.lab, "n6", async || {
        let _port = TcpListener::bind(("0.0.0.0", 7401)).await?;
        stranger.admitted("10.77.0.6:7401").await
    })?;

    let all = all_rpcs()?;
    let local = paths("Admin", &["Init", "Join", "Leave", "RotateCa"]);
    let changes = [
        "Login",
        "RevokeLogin",
        "CreateToken",
        "RevokeToken",
        "DrainNode",
        "RemoveNode",
        "AddVip",
        "MoveVip",
        "RemoveVip",
    ];
    let leading = ["Append", "Vote", "PreVote", "InstallSnapshot", "TransferLeader"];
    let keys = paths("Cluster", &["FetchIssuer", "RotateIssuer"]);
    let witness = &(&local | &paths("Admin", &changes)) | &keys;
    let learner = &(&witness | &paths("Raft", &leading)) | &paths("Lease", &["Renew", "Abdicate"]);
    let open = ["Identify", "Join", "Activate", "RenewCertificate"];
    let only_joining = &all - &paths("Cluster", &open);
    let expected = [
        ("voter", ours, Some(local)),
        ("witness", of(&cluster, "n4")?, Some(witness)),
        ("learner", of(&cluster, "n3")?, Some(learner)),
        ("joining", joining, Some(only_joining)),
        ("removed", removed, None),
        ("foreign", foreign, None),
    ];
    for (who, attacker, denied) in expected {
        let seen = on(&cluster.lab, "n6", async || attacker.denied(1).await)?;
        assert_eq!(seen, denied, "{who}");
    }
    Ok(())
}

/// Somebody with a voter's issuing key signs what it likes, and the log lists
/// none of it.
#[test]
fn a_stolen_issuing_key_makes_no_admin() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 2, ..Options::default() })?;
    let n1 = cluster.host("n1");
    let issuer = PkiDir::new(&n1.dir().join("data")).load_issuer()?.context("an issuer")?;
    let ours = Attacker::with_key_of(n1)?;
    let key = NodeKey::generate()?;
    let (eve, role) = ("eve".parse()?, vip_core::AdminRole::Admin);
    let chain = issuer.sign_user(&key.csr()?, &eve, role, &ours.cluster)?;
    let forged = NodeIdentity { key, chain };
    let refused = on(&cluster.lab, "n2", async || {
        let connector = Connector {
            address: "10.77.0.1:7400".into(),
            server_name: node_server_name(NodeId(1), &ours.cluster),
            config: vip_pki::user_config(&forged, ALPN_GRPC)?,
            timeout: LIMIT,
            unacknowledged: LIMIT,
        };
        let channel = connector.connected_channel().await?;
        let mut admin = v1::admin_client::AdminClient::new(channel);
        let request = v1::CreateTokenRequest { role: "voter".into(), ttl_s: 60, uses: 1 };
        admin.create_token(request).await.err().context("a token was made")
    })?;
    assert!(std::error::Error::source(&refused).is_some(), "no connection at all: {refused}");
    assert!(!n1.ctl_ok(&["token", "list"])?.contains("eve"));
    Ok(())
}

/// Reads what the command prints, until it ends by itself.
fn followed(cluster: &Cluster, home: &str) -> Result<std::process::Child> {
    let ctl = chaos_tests::binaries()?.join("vipctl");
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", &cluster.lab.namespace("n2"), "env", home]).arg(ctl);
    command.args(["--context", "test", "events", "--follow"]);
    Ok(command.stdout(std::process::Stdio::null()).spawn()?)
}

#[test]
fn a_login_is_listed_and_ends_when_it_is_revoked() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 2, ..Options::default() })?;
    let ctl = chaos_tests::binaries()?.join("vipctl").display().to_string();
    let home = format!("XDG_CONFIG_HOME={}", cluster.dir().display());
    // By a follower, and used there at once.
    cluster.host("n2").login(cluster.dir(), "eve", "admin")?;
    let remote = |arguments: &[&str]| {
        let context = [home.as_str(), &ctl, "--context", "test"];
        cluster.host("n1").exec("env", &[&context, arguments].concat())
    };
    remote(&["token", "create"])?.ok()?;
    let listed = remote(&["login", "list"])?.ok()?;
    assert!(listed.contains("eve") && listed.contains("admin"), "{listed}");
    let mut follows = followed(&cluster, &home)?;
    chaos_tests::wait_for("eve follows", LIMIT, || {
        let open = cluster.host("n2").exec("ss", &["-Htn", "state", "established"]);
        open.ok().filter(|out| out.stdout.lines().any(|l| l.contains(":7400"))).map(|_| ())
    })?;

    cluster.host("n1").ctl_ok(&["login", "revoke", "eve"])?;
    let refused = remote(&["status"])?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    chaos_tests::wait_for("what eve followed ends", LIMIT, || follows.try_wait().ok().flatten())?;
    let events = cluster.host("n1").ctl_ok(&["events"])?;
    for what in ["eve was given a certificate as admin", "all certificates of eve were revoked"] {
        assert!(events.contains(what), "{events}");
    }
    assert!(!cluster.host("n1").ctl_ok(&["login", "list"])?.contains("eve"));
    let again = cluster.host("n1").ctl(&["login", "revoke", "eve"])?;
    assert!(again.stderr.contains("eve has no login"), "{again:?}");
    Ok(())
}
