//! A virtual server that is changed at random while everything else is: its old
//! connections live through all of it, and new ones come about.

use crate::cluster::Cluster;
use crate::host::Control;
use crate::reals::V4;
use crate::traffic::{Connections, RealServer};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;

/// Real servers, and the last part of their addresses.
const REALS: [(&str, u8); 4] = [("r1", 11), ("r2", 12), ("r3", 13), ("r4", 14)];
/// The one that comes and goes, and whose connections may end.
const GUEST: &str = "10.77.0.14";
const OLD: usize = 60;
const NEW: usize = 10;
const TIMEOUT: &str = "3s";

#[derive(Debug)]
pub(crate) struct Service {
    _reals: Vec<RealServer>,
    at: SocketAddr,
    /// From before any change.
    old: Connections,
}

impl Service {
    /// Adds the real servers, and beside their virtual server one of which the members are
    /// the real servers. The VIP is there and answers.
    pub(crate) fn start(cluster: &mut Cluster) -> Result<Self> {
        let at = V4.target();
        let mut servers = vec![];
        for (name, last) in REALS {
            servers.push(V4.by_dr(&mut cluster.lab, name, last)?);
        }
        let n1 = cluster.host("n1");
        let add = ["vs", "add", "front", "--vip", "web", "--port", "80"];
        let reals = ["--real", "10.77.0.11", "--real", "10.77.0.12", "--real", "10.77.0.13"];
        n1.ctl_ok(&[&add[..], &reals].concat())?;
        let own = ["vs", "add", "own", "--vip", "web", "--port", "81", "--real-nodes", "81"];
        n1.ctl_ok(&own)?;
        let old = Connections::open(&cluster.lab, "client", at, OLD)?;
        ensure!(old.of_each().len() == 3, "{:?}", old.of_each());
        Ok(Self { _reals: servers, at, old })
    }

    /// Something to change of it. The third real server takes new connections whatever
    /// becomes of the others.
    pub(crate) fn prepare(rng: &mut fastrand::Rng) -> Vec<String> {
        let one = if rng.bool() { "10.77.0.11" } else { "10.77.0.12" };
        let weight = rng.u16(1..=8).to_string();
        let change: &[&str] = match rng.u8(..5) {
            0 => &["drain", "front", one],
            1 => &["undrain", "front", one],
            2 => &["set-weight", "front", one, &weight],
            3 => &["add", "front", GUEST],
            _ => &["remove", "front", GUEST],
        };
        change.iter().map(ToString::to_string).collect()
    }

    /// Changes that, through a node. It may be refused, or nobody may lead.
    pub(crate) fn change(through: &Control, change: &[String]) {
        let change: Vec<&str> = change.iter().map(String::as_str).collect();
        let _ = through.ctl(&[&["--timeout", TIMEOUT, "real"], &change[..]].concat());
    }

    /// Everything is well otherwise: then so are its connections.
    pub(crate) fn check(&mut self, cluster: &Cluster) -> Result<()> {
        let lost = self.old.lost();
        ensure!(lost == 0, "{lost} of {OLD} connections are lost, or others' by now");
        let new = Connections::open(&cluster.lab, "client", self.at, NEW);
        new.map(|_| ()).context("new connections")
    }
}
