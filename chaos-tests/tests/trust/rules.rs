//! Every RPC, for every kind of node.

use crate::attacker::{Attacker, on};
use crate::joining::Stranger;
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options};
use prost::Message;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status};
use vip_core::NodeId;
use vip_pki::PkiDir;
use vip_proto::{ALPN_GRPC, ALPN_LEASE};

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
    /// Calls with an empty message, with this in front of its user agent. `None`:
    /// there was no answer at all.
    async fn answer(&self, to: u64, rpc: &str, agent: Option<&str>) -> Result<Option<Status>> {
        let lease = rpc.starts_with("/vip.v1.Lease/");
        let channel = self.channel(to, if lease { ALPN_LEASE } else { ALPN_GRPC })?;
        let mut client = tonic::client::Grpc::new(channel);
        if client.ready().await.is_err() {
            return Ok(None);
        }
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let mut request = Request::new(());
        request.set_timeout(Duration::from_secs(5));
        if let Some(agent) = agent {
            request.metadata_mut().insert("user-agent", agent.parse()?);
        }
        let reply: Result<Response<()>, Status> = client.unary(request, rpc.parse()?, codec).await;
        Ok(match reply {
            Ok(_) => Some(Status::ok("")),
            // Made here, of a connection that was not to be.
            Err(status) if std::error::Error::source(&status).is_some() => None,
            Err(status) => Some(status),
        })
    }

    /// The RPCs that are refused, or `None` if it gets no answer to any.
    async fn denied(&self, to: u64) -> Result<Option<BTreeSet<String>>> {
        let (mut denied, mut answered) = (BTreeSet::new(), 0);
        for rpc in all_rpcs()? {
            let answer = self.answer(to, &rpc, None).await?;
            answered += usize::from(answer.is_some());
            if answer.is_some_and(|status| status.code() == Code::PermissionDenied) {
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
    let local = paths("Host", &["Init", "Join", "Leave", "RotateCa", "Recover", "Restore"]);
    let changes = [
        paths("Logins", &["Login", "RevokeLogin"]),
        paths("Tokens", &["CreateToken", "RevokeToken"]),
        paths("Nodes", &["DrainNode", "RemoveNode"]),
        paths("Vips", &["AddVip", "MoveVip", "SetVip", "RemoveVip"]),
        paths("Servers", &["AddServer", "SetServer", "RemoveServer"]),
        paths("Servers", &["AddReal", "RemoveReal", "DrainReal", "WeighReal"]),
    ];
    let changes: BTreeSet<String> = changes.into_iter().flatten().collect();
    let leading = ["Append", "Vote", "PreVote", "InstallSnapshot", "TransferLeader"];
    let keys = paths("Cluster", &["FetchIssuer", "RotateIssuer"]);
    let witness = &(&local | &changes) | &keys;
    let learner = &(&witness | &paths("Raft", &leading)) | &paths("Lease", &["Renew", "Abdicate"]);
    let open = ["Identify", "Join", "Activate", "RenewCertificate", "HowFar"];
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

/// Two versions that are no neighbours would misunderstand each other.
#[test]
fn a_node_of_another_time_is_refused_in_words_whatever_it_calls() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 2, ..Options::default() })?;
    let n2 = Attacker::with_key_of(cluster.host("n2"))?;
    for rpc in ["Raft/Append", "Lease/Renew", "Lease/Grant", "Cluster/LookBack", "Vips/AddVip"] {
        let rpc = format!("/vip.v1.{rpc}");
        let ask = async |agent| {
            n2.answer(1, &rpc, agent).await?.with_context(|| format!("{rpc}: no answer"))
        };
        let told = on(&cluster.lab, "n2", async || ask(Some("vipd/9 protocol/8-9")).await)?;
        assert_eq!(told.code(), Code::FailedPrecondition, "{rpc}: {told}");
        assert!(told.message().contains("speaks protocols 8-9, and"), "{rpc}: {told}");
        let told = on(&cluster.lab, "n2", async || ask(None).await)?;
        assert!(!told.message().contains("protocol"), "{rpc}: {told}");
    }
    Ok(())
}
