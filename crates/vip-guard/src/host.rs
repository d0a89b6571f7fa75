//! The kernel's side of a host: what the guard put there, and how it gets
//! there.

mod addresses;
mod carry_out;
mod leave;
mod obstacles;
mod reconcile;
mod serving;

pub(crate) use leave::LeftHost;
use reconcile::attach;
pub(crate) use reconcile::{LinkChange, RECONCILE_INTERVAL};
pub(crate) use serving::LIFE as SERVING_LIFE;
use serving::Serving;

use crate::clock::boottime;
use crate::config::{GuardConfig, GuardError};
use crate::kernel::{Kernel, KernelEvent, Link};
use crate::ledger::Ledger;
use crate::lock::Namespace;
use crate::network::HostView;
use crate::packets::Sender;
use crate::protocol::GateReport;
use crate::records::{record_programs, recorded_programs};
use crate::settings::Settings;
use crate::ways::Scenery;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};
use vip_core::{Address, GateEntry, LOOPBACK, Mac, Mono, Obstacle, VipUid, Why, chain};
use vip_datapath::{Device, ForwardEngine, Gate, LeftEngine, forward_engine};

/// The kernel's side of a host, and what the guard put there.
pub(crate) struct Host {
    kernel: Kernel,
    pub(crate) events: std::pin::Pin<Box<dyn futures_util::Stream<Item = KernelEvent> + Send>>,
    sender: Sender,
    gate: Option<Gate>,
    /// The addresses that the gate knows.
    known: BTreeSet<IpAddr>,
    pub(crate) report: GateReport,
    allow: Vec<IpNet>,
    /// Gate programs of earlier runs, to be taken off.
    stale: BTreeSet<u32>,
    record: PathBuf,
    links: Vec<Link>,
    /// Interfaces that the gate is not on, and why.
    ungated: BTreeMap<u32, String>,
    settings: Settings,
    /// Why there is no second gate, if there is none.
    no_ip_gate: Option<String>,
    ledger: Ledger,
    /// Its interfaces that have addresses of its own.
    macs: BTreeSet<Mac>,
    /// As the agent was told last.
    told_macs: BTreeSet<Mac>,
    /// What it has beside ours, as it was looked at last. On a router that takes a
    /// while: the kernel says when it changes.
    view: HostView,
    /// The same, for the second lane.
    scenery: Arc<ArcSwap<Scenery>>,
    /// The kernel said so since.
    pub(crate) view_is_old: bool,
    /// Where our addresses are.
    placed: BTreeMap<IpAddr, (Address, u32)>,
    /// Where those that are claimed were last.
    homes: BTreeMap<IpAddr, u32>,
    /// All VIPs there are.
    considered: BTreeMap<VipUid, Vec<Address>>,
    /// Those that could not be here, as was said last.
    hindered: BTreeMap<VipUid, Obstacle>,
    /// What real servers on this host take, whoever holds it.
    serving: Serving,
    /// Interfaces that a VIP has been on.
    vip_links: BTreeSet<u32>,
    /// Those that could not be here, and why, for the session's time.
    refused: BTreeMap<IpAddr, (Address, Why)>,
    /// Routes to neighbours that they need.
    routes: BTreeSet<(u32, IpNet)>,
    /// What that follows from changed since.
    routes_are_old: bool,
}

/// How long the kernel may take to let go of what a killed guard had.
const LET_GO: Duration = Duration::from_secs(1);
/// Between two looks.
const LET_GO_POLL: Duration = Duration::from_millis(10);

/// Puts up the second gate. Returns why there is none, if there is none.
///
/// # Errors
/// Another guard has it: one that does not see our files, in another container
/// of this network namespace.
async fn hold_ip(gate: &mut Gate) -> Result<Option<String>, GuardError> {
    let until = boottime() + LET_GO;
    loop {
        match gate.hold_ip() {
            Ok(()) => return Ok(None),
            Err(e) if !e.is_taken() => return Ok(Some(chain(&e))),
            Err(_) if boottime() >= until => return Err(GuardError::NamespaceTaken),
            Err(_) => tokio::time::sleep(LET_GO_POLL).await,
        }
    }
}

/// # Errors
/// It is not there and has to be.
fn load_gate(optional: bool) -> Result<Option<Gate>, GuardError> {
    match Gate::load() {
        Ok(gate) => Ok(Some(gate)),
        Err(e) if optional => {
            warn!(error = %chain(&e), "no lease gate: a frozen node may answer beyond its lease");
            Ok(None)
        }
        Err(e) => Err(GuardError::Gate(e)),
    }
}

/// What keeps interfaces to come silent, and how well it is all enforced with that.
fn settings_and_report(
    namespace: &Namespace,
    is_gated: bool,
    no_ip_gate: Option<&String>,
) -> (Settings, GateReport) {
    let mut settings = Settings::open(&namespace.settings());
    let kept = settings.keep().err().map(|e| e.to_string());
    let weak = kept.or_else(|| no_ip_gate.cloned());
    if let Some(text) = &weak {
        warn!(text, "an interface that takes no gate could answer for every VIP");
    }
    let report = if is_gated {
        GateReport::Enforced { weakness: weak.unwrap_or_default() }
    } else {
        GateReport::Missing("the lease gate is not loaded".into())
    };
    (settings, report)
}

impl Host {
    pub(crate) async fn open(
        config: &GuardConfig,
        namespace: &Namespace,
    ) -> Result<Self, GuardError> {
        let (kernel, events, _task) = Kernel::open()?;
        let ledger = Ledger::open(namespace.addresses());
        kernel.unmarked().are(ledger.placed.clone());
        let rights = |what| move |source| GuardError::Rights { what, source };
        let sender = Sender::open().map_err(rights("sending announcements"))?;
        let mut gate = load_gate(config.gate_optional)?;
        let mut no_ip_gate = None;
        if let Some(gate) = &mut gate {
            // A gate on another clock would be reported and not be there.
            gate.follows(boottime).map_err(GuardError::Gate)?;
            no_ip_gate = hold_ip(gate).await?;
        }
        let (settings, report) =
            settings_and_report(namespace, gate.is_some(), no_ip_gate.as_ref());
        let record = config.socket.with_extension("programs");
        let mut stale = recorded_programs(&record);
        stale.extend(Gate::all_program_ids().unwrap_or_default());
        if let Some(gate) = &gate {
            stale.retain(|id| !gate.program_ids().contains(id));
            let all = stale.union(gate.program_ids()).copied().collect();
            let file = |source| GuardError::File { path: record.clone(), source };
            record_programs(&record, &all).map_err(file)?;
        }
        let links = kernel.links().await?;
        let view = kernel.view(&links).await?;
        let macs = view.macs(&links, &BTreeSet::new());
        Ok(Self {
            kernel,
            events,
            sender,
            gate,
            known: BTreeSet::new(),
            report,
            allow: config.allow.clone(),
            stale,
            record,
            links,
            ungated: BTreeMap::new(),
            settings,
            no_ip_gate,
            ledger,
            macs,
            told_macs: BTreeSet::new(),
            view,
            scenery: Arc::default(),
            view_is_old: false,
            placed: BTreeMap::new(),
            homes: BTreeMap::new(),
            considered: BTreeMap::new(),
            hindered: BTreeMap::new(),
            serving: Serving::default(),
            vip_links: BTreeSet::new(),
            refused: BTreeMap::new(),
            routes: BTreeSet::new(),
            routes_are_old: false,
        })
    }

    /// Undoes what an earlier run left. The new gate, shut for every address
    /// that is still there, stands before the old one is taken off: that one's
    /// map may be out of reach.
    pub(crate) async fn purge(&mut self) -> Result<(), GuardError> {
        let left = self.kernel.our_addresses().await?;
        if let Some(gate) = &mut self.gate {
            for (ip, _) in &left {
                gate.set(*ip, GateEntry::Until(Mono::ZERO)).map_err(GuardError::Gate)?;
                self.known.insert(*ip);
            }
            for link in &self.links {
                // What takes none holds no VIP later; see `exposed`.
                let _ = gate.ensure_first(link.device, &BTreeSet::new());
            }
        }
        for (ip, message) in left {
            self.kernel.delete_message(message).await?;
            info!(%ip, "purged an address that an earlier run left");
        }
        for route in self.kernel.our_routes().await? {
            self.kernel.delete_route(route).await?;
        }
        self.ledger.clear();
        self.kernel.unmarked().are(BTreeSet::new());
        if let Some(gate) = &mut self.gate {
            for link in &self.links {
                attach(gate, link, &self.stale, &mut self.ungated);
            }
            let ids = gate.program_ids().clone();
            let file = |source| GuardError::File { path: self.record.clone(), source };
            record_programs(&self.record, &ids).map_err(file)?;
        }
        Ok(())
    }

    /// What forwards, if there is a gate, and the host's sights for it. It goes on from
    /// what an earlier run left.
    pub(crate) fn forwards(
        &mut self,
        left: Option<LeftEngine>,
    ) -> Result<(Option<ForwardEngine>, Arc<ArcSwap<Scenery>>), GuardError> {
        self.leave_view();
        let forwards = |gate: &mut Gate| match left {
            Some(left) => Ok(ForwardEngine::inherit(gate.take_forward_maps()?, left)),
            None => forward_engine(gate),
        };
        let engine = self.gate.as_mut().map(forwards).transpose();
        let engine = engine.map_err(|e| GuardError::Forwarder(chain(&e)))?;
        Ok((engine, self.scenery.clone()))
    }

    /// For the second lane.
    fn leave_view(&self) {
        let scenery = Scenery { view: self.view.clone(), homes: self.homes.clone() };
        self.scenery.store(Arc::new(scenery));
    }

    fn has_link(&self, ifindex: u32) -> bool {
        // Loopback has no cable.
        let runs = |l: &Link| l.device.ifindex == ifindex && l.running;
        ifindex == LOOPBACK || self.links.iter().any(runs)
    }

    pub(crate) fn is_own_mac(&self, mac: Mac) -> bool {
        self.links.iter().any(|l| l.mac == Some(mac))
    }

    /// Its interfaces, if they are others than the agent was told.
    pub(crate) fn new_macs(&mut self) -> Option<BTreeSet<Mac>> {
        (self.macs != self.told_macs).then(|| {
            self.told_macs.clone_from(&self.macs);
            self.macs.clone()
        })
    }

    /// Somebody else may have lowered what keeps new interfaces silent.
    pub(crate) fn keep_settings(&mut self) {
        let GateReport::Enforced { weakness } = &mut self.report else { return };
        let weak = self.settings.keep().err().map(|e| e.to_string());
        let weak = weak.or_else(|| self.no_ip_gate.clone()).unwrap_or_default();
        if weak != *weakness {
            warn!(weakness = weak, "interfaces to come");
            *weakness = weak;
        }
    }

    /// Takes the gate off and puts settings back, unless an address is left
    /// behind: then all stays, shut.
    pub(crate) async fn detach(&mut self) {
        self.serve(BTreeSet::new()).await;
        if !self.kernel.our_addresses().await.is_ok_and(|left| left.is_empty()) {
            return;
        }
        self.settings.restore();
        let Some(gate) = &mut self.gate else { return };
        let devices: Vec<Device> = self.links.iter().map(|l| l.device).collect();
        for device in devices {
            if let Err(e) = gate.detach(device) {
                debug!(error = %chain(&e), "gate not taken off");
            }
        }
    }
}
