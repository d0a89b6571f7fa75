//! Leading, campaigning and ending leases without the right to.

use crate::attacker::{Attacker, HIGH, SILENCE, VIP, four, on, seen};
use anyhow::{Context, Result};
use chaos_tests::{Lab, Probe};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tonic::{Code, Request, Response, Status, Streaming};
use vip_core::{Actor, Command, Level, Placement, VipOp, VipSpec};
use vip_proto::v1::lease_client::LeaseClient;
use vip_proto::v1::raft_client::RaftClient;
use vip_proto::v1::raft_server::{Raft, RaftServer};
use vip_proto::{ALPN_GRPC, ALPN_LEASE, v1};

/// Of what stands in the log.
const FORMAT: u8 = 1;

/// An entry's payload, as a member writes it.
fn framed(payload: &Value) -> Vec<u8> {
    let level = Level::FIRST.0.to_be_bytes();
    [&[FORMAT], &level[..], payload.to_string().as_bytes()].concat()
}

impl Attacker {
    /// A VIP of the attacker's, as entry behind the first one of every log.
    fn forged(&self, term: u64) -> v1::AppendRequest {
        let spec = VipSpec {
            name: "forged".parse().expect("a name"),
            addresses: vec!["10.77.0.66/24".parse().expect("an address")],
            interface: None,
            placement: Placement::Sticky,
            no_probe: false,
            via: vip_core::Via::default(),
            params: Default::default(),
        };
        let (actor, op) = (Actor("root@n1".into()), VipOp::Add { spec }.into());
        let command = json!({ "Normal": Command { time_ms: 1, actor, term: None, op } });
        let entry = |index, payload: &Value| v1::Entry {
            log_id: Some(v1::LogId { term, index }),
            payload: framed(payload),
        };
        v1::AppendRequest {
            vote: self.vote(term, true),
            previous: None,
            entries: vec![entry(0, &json!("Blank")), entry(1, &command)],
            commit: Some(v1::LogId { term, index: 1 }),
        }
    }

    /// Says to one node that it leads, in every way there is. What it was told.
    pub(crate) async fn lead(&self, to: u64, term: u64) -> Result<Vec<(&'static str, Status)>> {
        let mut raft = RaftClient::new(self.channel(to, ALPN_GRPC)?);
        let mut lease = LeaseClient::new(self.channel(to, ALPN_LEASE)?);
        let last_log = Some(v1::LogId { term, index: u64::MAX });
        let vote = v1::VoteRequest { vote: self.vote(term, false), last_log };
        let chunk = v1::SnapshotChunk {
            vote: self.vote(term, true),
            meta: b"{}".to_vec(),
            data: vec![0; 1 << 10],
            format: FORMAT.into(),
            needs: Level::FIRST.0,
        };
        let transfer =
            v1::TransferLeaderRequest { from_leader: self.vote(term, true), to, last_log: None };
        let vote_now = self.vote(term, true);
        let renew =
            v1::RenewRequest { vote: vote_now, promise_us: 60_000_000, ..Default::default() };
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
pub(crate) fn is_no_leader(status: &Status) -> bool {
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
    let first = v1::SnapshotChunk {
        vote,
        meta: meta.to_string().into_bytes(),
        data: vec![],
        format: FORMAT.into(),
        needs: Level::FIRST.0,
    };
    let part = v1::SnapshotChunk { data: vec![b'['; 1 << 20], ..Default::default() };
    let parts = std::iter::once(first.clone()).chain(std::iter::repeat_n(part, PARTS));
    let refused = on(&cluster.lab, "n4", async || {
        let mut raft = RaftClient::new(attacker.channel(2, ALPN_GRPC)?);
        let parts: Vec<_> = parts.collect();
        raft.install_snapshot(tokio_stream::iter(parts)).await.err().context("it was taken")
    })?;
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    // Nor is it kept waiting by parts that are none.
    let starved = on(&cluster.lab, "n4", async || {
        let mut raft = RaftClient::new(attacker.channel(2, ALPN_GRPC)?);
        let parts = [first, v1::SnapshotChunk::default()];
        raft.install_snapshot(tokio_stream::iter(parts)).await.err().context("it was taken")
    })?;
    assert_eq!(starved.code(), Code::DeadlineExceeded, "{starved}");
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

/// Whoever replicates to it would step down, and store the term.
#[test]
fn a_learner_that_answers_with_a_later_leader_deposes_nobody() -> Result<()> {
    nothing_comes_of(|lab, attacker, term| on(lab, "n4", async || attacker.lie(term).await))
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
