//! What a host has of ours, for the next run of this process.

use super::serving::Serving;
use super::{Host, settings_and_report};
use crate::config::{GuardConfig, GuardError};
use crate::kernel::{Kernel, Link};
use crate::ledger::Ledger;
use crate::lock::Namespace;
use crate::network::HostView;
use crate::packets::Sender;
use crate::records::{Placed, recorded_programs};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use vip_core::{Address, Mac, Obstacle, VipUid, Why, chain};
use vip_datapath::{ForwardEngine, Gate, LeftEngine, LeftGate};

/// A [`Host`] that a next run takes over as it is. What of it the kernel may have changed
/// meanwhile is looked at again there, beside everything else: on a router that takes a
/// while.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeftHost {
    gate: Option<LeftGate>,
    known: BTreeSet<IpAddr>,
    links: Vec<Link>,
    ungated: BTreeMap<u32, String>,
    no_ip_gate: Option<String>,
    marks: Option<bool>,
    recorded: BTreeSet<Placed>,
    macs: BTreeSet<Mac>,
    told_macs: BTreeSet<Mac>,
    view: HostView,
    placed: BTreeMap<IpAddr, (Address, u32)>,
    homes: BTreeMap<IpAddr, u32>,
    considered: BTreeMap<VipUid, Vec<Address>>,
    hindered: BTreeMap<VipUid, Obstacle>,
    serving: Serving,
    vip_links: BTreeSet<u32>,
    refused: BTreeMap<IpAddr, (Address, Why)>,
    routes: BTreeSet<(u32, IpNet)>,
}

impl LeftHost {
    /// Whether this program can go on with it.
    ///
    /// # Errors
    /// [`GuardError`].
    pub(crate) fn try_on(
        self,
        config: &GuardConfig,
        engine: Option<LeftEngine>,
    ) -> Result<(), GuardError> {
        let Some(gate) = self.gate else {
            let why = "it has no lease gate, and this configuration wants one";
            let missing = || GuardError::Resume(io::Error::other(why));
            return config.gate_optional.then_some(()).ok_or_else(missing);
        };
        let mut gate = Gate::inherit(gate).map_err(GuardError::Gate)?;
        let maps = gate.take_forward_maps().map_err(|e| GuardError::Forwarder(chain(&e)))?;
        drop(engine.map(|engine| ForwardEngine::inherit(maps, engine)));
        Ok(())
    }

    /// What real servers on it take.
    pub(crate) fn served(&self) -> &BTreeSet<Address> {
        self.serving.wanted()
    }
}

impl Host {
    /// For the next run of this process.
    ///
    /// # Errors
    /// There is no room for descriptors.
    pub(crate) fn leave(&self) -> io::Result<LeftHost> {
        Ok(LeftHost {
            gate: self.gate.as_ref().map(Gate::leave).transpose()?,
            known: self.known.clone(),
            links: self.links.clone(),
            ungated: self.ungated.clone(),
            no_ip_gate: self.no_ip_gate.clone(),
            marks: self.ledger.marks,
            recorded: self.ledger.placed.clone(),
            macs: self.macs.clone(),
            told_macs: self.told_macs.clone(),
            view: self.view.clone(),
            placed: self.placed.clone(),
            homes: self.homes.clone(),
            considered: self.considered.clone(),
            hindered: self.hindered.clone(),
            serving: self.serving.clone(),
            vip_links: self.vip_links.clone(),
            refused: self.refused.clone(),
            routes: self.routes.clone(),
        })
    }

    /// As an earlier run left it.
    ///
    /// # Errors
    /// [`GuardError`]; what it held shuts on time.
    pub(crate) fn inherit(
        left: LeftHost,
        (config, socket): (&GuardConfig, &Path),
        namespace: &Namespace,
    ) -> Result<Self, GuardError> {
        // From now on changes are heard of.
        let (kernel, events, _task) = Kernel::open()?;
        let mut ledger = Ledger::open(namespace.addresses());
        (ledger.marks, ledger.placed) = (left.marks, left.recorded);
        kernel.unmarked().are(ledger.placed.clone());
        let rights = |what| move |source| GuardError::Rights { what, source };
        let sender = Sender::open().map_err(rights("sending announcements"))?;
        let gate = left.gate.map(Gate::inherit).transpose().map_err(GuardError::Gate)?;
        let (settings, report) =
            settings_and_report(namespace, gate.is_some(), left.no_ip_gate.as_ref());
        let record = socket.with_extension("programs");
        let mut stale = recorded_programs(&record);
        if let Some(gate) = &gate {
            stale.retain(|id| !gate.program_ids().contains(id));
        }
        Ok(Self {
            kernel,
            events,
            sender,
            gate,
            known: left.known,
            report,
            allow: config.allow.clone(),
            stale,
            record,
            links: left.links,
            ungated: left.ungated,
            settings,
            no_ip_gate: left.no_ip_gate,
            ledger,
            macs: left.macs,
            told_macs: left.told_macs,
            view: left.view,
            scenery: Arc::default(),
            view_is_old: true,
            placed: left.placed,
            homes: left.homes,
            considered: left.considered,
            hindered: left.hindered,
            serving: left.serving,
            vip_links: left.vip_links,
            refused: left.refused,
            routes: left.routes,
            routes_are_old: true,
        })
    }
}

#[cfg(test)]
impl LeftHost {
    /// One with something of everything that is no descriptor.
    pub(crate) fn sample() -> Self {
        use vip_core::HostNetwork;
        use vip_datapath::{Device, Header};
        let ip: IpAddr = [10, 0, 0, 100].into();
        let address = Address { ip, prefix: 24, interface: "eth0".into() };
        let (mac, vip, why) = (Mac([2, 0, 0, 0, 0, 1]), VipUid(1), Why::NoLink);
        let net: IpNet = "10.0.0.0/24".parse().expect("a prefix");
        let link = Link {
            device: Device { ifindex: 2, header: Header::Ethernet },
            name: "eth0".into(),
            mac: Some(mac),
            running: true,
            ways: [2].into(),
            mtu: 1500,
            behind: false,
        };
        let network = HostNetwork {
            links: [(2, "eth0".into())].into(),
            addresses: [(2, [10, 0, 0, 1].into(), 24)].into(),
            connected: [(2, net)].into(),
            without_ipv6: [2].into(),
        };
        let gateways = [[10, 0, 0, 254].into()].into();
        Self {
            gate: None,
            known: [ip].into(),
            links: vec![link],
            ungated: [(3, "a word".into())].into(),
            no_ip_gate: Some("a word".into()),
            marks: Some(true),
            recorded: [(2, ip)].into(),
            macs: [mac].into(),
            told_macs: [mac].into(),
            view: HostView { network, gateways, mtus: [(2, 1500)].into() },
            placed: [(ip, (address.clone(), 2))].into(),
            homes: [(ip, 2)].into(),
            considered: [(vip, vec![address.clone()])].into(),
            hindered: [(vip, Obstacle { ip, why: why.clone() })].into(),
            serving: Serving::sample(&address),
            vip_links: [2].into(),
            refused: [(ip, (address, why))].into(),
            routes: [(2, net)].into(),
        }
    }
}
