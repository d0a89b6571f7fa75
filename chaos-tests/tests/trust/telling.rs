//! Filling the log with what a member may say of itself.

use crate::attacker::{Attacker, four, on};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tonic::{Code, Request};
use vip_proto::v1::edges_client::EdgesClient;
use vip_proto::v1::hindered::What;
use vip_proto::v1::sighting::Sees;
use vip_proto::{ALPN_GRPC, v1};

const FOR: Duration = Duration::from_secs(3);
/// An entry each, at the pace of a node that has always more to say.
const MOST: usize = 100;

impl Attacker {
    /// Says something else of a virtual server each time, as often as it is taken.
    async fn tell(&self, leader: u64) -> Result<(usize, usize)> {
        let mut edges = EdgesClient::new(self.channel(leader, ALPN_GRPC)?);
        let (mut taken, mut refused) = (0, 0);
        let begun = Instant::now();
        while begun.elapsed() < FOR {
            // What is escaped in the log takes six times as much there.
            let why = format!("{}{}", taken + refused, "\u{1}".repeat(50_000));
            let hindered = vec![v1::Hindered { server: 1, what: Some(What::Refused(why.clone())) }];
            let sees = Some(Sees::Down(why));
            let seen = vec![v1::Sighting { server: 1, ip: vec![10, 77, 0, 11], port: 80, sees }];
            let report = v1::TellEdgesRequest { hindered, seen, ..Default::default() };
            let mut request = Request::new(report);
            request.set_timeout(Duration::from_secs(5));
            match edges.tell_edges(request).await {
                Ok(_) => taken += 1,
                Err(status) => {
                    ensure!(status.code() == Code::ResourceExhausted, "{status}");
                    refused += 1;
                }
            }
        }
        Ok((taken, refused))
    }
}

/// Each word is an entry, and no more than some a second of some hundred bytes; other
/// commands go on.
#[test]
fn what_a_member_says_of_itself_costs_little_however_often_it_says_it() -> Result<()> {
    let mut cluster = four("learner")?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vs", "add", "front", "--vip", "web", "--port", "80", "--real", "10.77.0.11"])?;
    n1.ctl_ok(&["vs", "set", "front", "--check", "tcp", "--observe", "n4"])?;
    let status = n1.ctl_json(&["status"])?;
    let leader = status["leader"].as_str().and_then(|name| name.strip_prefix('n'));
    let leader = leader.context("a leader")?.parse()?;
    let attacker = Attacker::with_key_of(cluster.host("n4"))?;
    cluster.host_mut("n4").kill_all();
    let n1 = cluster.host("n1");
    let control = n1.control();
    let (taken, refused) = std::thread::scope(|scope| {
        let told = scope.spawn(|| on(&cluster.lab, "n4", async || attacker.tell(leader).await));
        let begun = Instant::now();
        while begun.elapsed() < FOR {
            for drain in ["drain", "undrain"] {
                let done = control.ctl(&["real", drain, "front", "10.77.0.11"])?;
                ensure!(done.code == Some(0), "{done:?}");
            }
        }
        told.join().expect("no panic")
    })?;
    ensure!(taken > 0 && taken < MOST && refused > taken, "{taken} taken, {refused} refused");
    let said = n1.ctl_ok(&["status"])?;
    ensure!(said.contains("On n4, virtual server front is not forwarded"), "{said}");
    ensure!(said.len() < 4000, "{} bytes", said.len());
    let shown = n1.ctl_ok(&["vs", "show", "front"])?;
    ensure!(shown.contains("down") && shown.len() < 4000, "{} bytes", shown.len());
    Ok(())
}
