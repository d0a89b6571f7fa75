//! Joining: false members, strangers, and nodes that do not keep up.

use crate::attacker::{Attacker, HIGH, SILENCE, VIP, four, on, seen};
use crate::leading::is_no_leader;
use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Host, Options, Probe};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status};
use vip_core::{NodeId, TokenText};
use vip_pki::{NodeIdentity, NodeKey, Roster};
use vip_proto::v1::cluster_server::ClusterServer;
use vip_proto::{ALPN_GRPC, v1};

/// Answers a joiner with another root and another cluster.
struct Impostor(String);

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Impostor {
    async fn identify(
        &self,
        _: Request<v1::IdentifyRequest>,
    ) -> Result<Response<v1::IdentifyReply>, Status> {
        Ok(Response::new(v1::IdentifyReply { cluster: self.0.clone(), ..Default::default() }))
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
            role: v1::Role::Voter.into(),
            cluster: "mine".into(),
            cluster_name: "mine".into(),
            profile: v1::Profile::Lan.into(),
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

    async fn look_back(
        &self,
        _: Request<v1::LookBackRequest>,
    ) -> Result<Response<v1::LookBackReply>, Status> {
        Err(Status::unimplemented("never asked"))
    }

    async fn how_far(
        &self,
        _: Request<v1::HowFarRequest>,
    ) -> Result<Response<v1::HowFarReply>, Status> {
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
pub(crate) struct Stranger {
    token: TokenText,
    cluster: String,
    key: NodeKey,
}

impl Stranger {
    /// Of the cluster that `host` belongs to.
    pub(crate) fn with_token(token: &str, host: &Host) -> Result<Self> {
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
            runs: Some(vip_core::Runs::here().into()),
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
    pub(crate) async fn admitted(self, advertise: &str) -> Result<Attacker> {
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
