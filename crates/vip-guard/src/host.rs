//! The kernel's side of a host: what the guard put there, and how it gets
//! there.

use crate::allow::objection;
use crate::clock::boottime;
use crate::config::{GuardConfig, GuardError};
use crate::frames::{announcement, probe};
use crate::kernel::{Kernel, KernelError, KernelEvent, Link};
use crate::ledger::Ledger;
use crate::lock::Namespace;
use crate::network::HostView;
use crate::packets::Sender;
use crate::protocol::GateReport;
use crate::records::{Placed, record_programs, recorded_programs};
use crate::routes::connected;
use crate::settings::Settings;
use futures_util::future::join_all;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::discriminant;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing::{debug, error, info, warn};
use vip_core::{
    Address, GateEntry, Guard, GuardAction, GuardEvent, GuardFailure, GuardNotice, Mac, Mono,
    Obstacle, Slot, VipUid, Why, address_life, chain, renewal_interval,
};
use vip_datapath::{Device, Gate, GateError};

/// What the kernel did not do of a list of actions.
struct Failed {
    list: usize,
    failure: GuardFailure,
}

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
    /// Interfaces that a VIP has been on.
    vip_links: BTreeSet<u32>,
    /// Those that could not be here, and why, for the session's time.
    refused: BTreeMap<IpAddr, (Address, Why)>,
    /// Routes to neighbours that they need.
    routes: BTreeSet<(u32, IpNet)>,
    /// What that follows from changed since.
    routes_are_old: bool,
}

/// Goes on with what the guard does instead of the rest, if something failed.
fn instead_if_failed(
    guard: &mut Guard,
    done: Result<(), GuardFailure>,
    actions: &mut VecDeque<GuardAction>,
) {
    if let Err(failure) = done {
        *actions = guard.failed(&failure, std::mem::take(actions).into()).into();
    }
}

/// What became of interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkChange {
    /// One has a link again, or another Ethernet address.
    Back,
    /// What leaves one with a VIP takes another way.
    Ways,
}

/// Everything is compared with the kernel this often, in case an event was
/// lost or somebody attached a program before ours.
pub(crate) const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);

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
        let mut gate = match Gate::load() {
            Ok(gate) => Some(gate),
            Err(e) if config.gate_optional => {
                warn!(error = %chain(&e), "no lease gate: a frozen node may answer beyond its lease");
                None
            }
            Err(e) => return Err(GuardError::Gate(e)),
        };
        let mut no_ip_gate = None;
        if let Some(gate) = &mut gate {
            // A gate on another clock would be reported and not be there.
            gate.follows(boottime).map_err(GuardError::Gate)?;
            no_ip_gate = hold_ip(gate).await?;
        }
        let mut settings = Settings::open(&namespace.settings());
        let kept = settings.keep().err().map(|e| e.to_string());
        let weak = kept.or_else(|| no_ip_gate.clone());
        let report = match &gate {
            Some(_) => GateReport::Enforced { weakness: weak.clone().unwrap_or_default() },
            None => GateReport::Missing("the lease gate is not loaded".into()),
        };
        if let Some(text) = &weak {
            warn!(text, "an interface that takes no gate could answer for every VIP");
        }
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
            view_is_old: false,
            placed: BTreeMap::new(),
            homes: BTreeMap::new(),
            considered: BTreeMap::new(),
            hindered: BTreeMap::new(),
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

    fn has_link(&self, ifindex: u32) -> bool {
        self.links.iter().any(|l| l.device.ifindex == ifindex && l.running)
    }

    /// The addresses of VIPs whose interface has no link.
    pub(crate) fn without_link(&self) -> Vec<IpAddr> {
        let lost = self.placed.iter().filter(|(_, (_, ifindex))| !self.has_link(*ifindex));
        lost.map(|(ip, _)| *ip).collect()
    }

    /// The addresses that could answer beyond their lease, and why: those on
    /// an interface that the gate is not on, and, if nothing but the gate keeps
    /// that one from it, all others.
    pub(crate) fn exposed(&self) -> Vec<Obstacle> {
        let why = |ifindex: &u32| {
            let own = self.ungated.get(ifindex).cloned();
            own.or_else(|| self.exposed_by_others())
        };
        let placed = self.placed.iter();
        let obstacle = |ip, text| Obstacle { ip, why: Why::NoGate(text) };
        placed.filter_map(|(ip, (_, ifindex))| Some(obstacle(*ip, why(ifindex)?))).collect()
    }

    fn exposed_by_others(&self) -> Option<String> {
        let GateReport::Enforced { weakness } = &self.report else { return None };
        if weakness.is_empty() {
            return None;
        }
        // One that is down hears nobody.
        let up = |ifindex: &u32| self.has_link(*ifindex);
        let (_, text) = self.ungated.iter().find(|(ifindex, _)| up(ifindex))?;
        Some(format!("{text}, and nothing else keeps it from answering: {weakness}"))
    }

    pub(crate) fn is_own_mac(&self, mac: Mac) -> bool {
        self.links.iter().any(|l| l.mac == Some(mac))
    }

    fn home_of(&self, address: &Address) -> Result<u32, Why> {
        self.view.network.home_of(address, self.homes.get(&address.ip).copied())
    }

    /// Where an address can be, as far as the host's network says.
    fn place_for(&self, address: &Address) -> Result<u32, Why> {
        if let Some(why) = objection(&self.allow, &self.view, address.ip, address.prefix) {
            return Err(why);
        }
        let held_on = self.homes.get(&address.ip).copied();
        let ifindex = self.view.network.place_for(address, held_on)?;
        if self.has_link(ifindex) { Ok(ifindex) } else { Err(Why::NoLink) }
    }

    /// A session begins: what an earlier one could not have is forgotten.
    pub(crate) fn forget_refusals(&mut self) {
        self.refused.clear();
        self.considered.clear();
        self.hindered.clear();
        self.told_macs.clear();
    }

    /// Its interfaces, if they are others than the agent was told.
    pub(crate) fn new_macs(&mut self) -> Option<BTreeSet<Mac>> {
        (self.macs != self.told_macs).then(|| {
            self.told_macs.clone_from(&self.macs);
            self.macs.clone()
        })
    }

    /// These are all VIPs there are.
    pub(crate) fn consider(&mut self, all: Vec<(VipUid, Vec<Address>)>) {
        self.considered = all.into_iter().collect();
    }

    /// Which of them could not be here, as was found last.
    pub(crate) fn hindered(&self) -> BTreeMap<VipUid, Obstacle> {
        self.hindered.clone()
    }

    /// Which VIPs could not be here, if that is another answer than the last.
    pub(crate) fn newly_hindered(&mut self) -> Option<BTreeMap<VipUid, Obstacle>> {
        let now = self.find_hindered();
        for (vip, why) in now.iter().filter(|(vip, why)| self.hindered.get(vip) != Some(why)) {
            info!(%vip, %why, "this host could not hold a VIP");
        }
        (now != self.hindered).then(|| {
            self.hindered = now;
            self.hindered.clone()
        })
    }

    fn find_hindered(&self) -> BTreeMap<VipUid, Obstacle> {
        let obstacle = |address: &Address| {
            // What is here as it should be is looked at as such.
            if self.placed.get(&address.ip).is_some_and(|(placed, _)| placed == address) {
                return None;
            }
            let why = match self.place_for(address) {
                Ok(ifindex) => Why::NoGate(self.ungated.get(&ifindex)?.clone()),
                Err(why) => why,
            };
            Some(Obstacle { ip: address.ip, why })
        };
        let found = self
            .considered
            .iter()
            .filter_map(|(vip, addresses)| Some((*vip, addresses.iter().find_map(obstacle)?)));
        found.collect()
    }

    /// Whether an address that could not be here may be now. What else changes
    /// on a host, and how often, is no reason to try.
    fn is_less_hindered(&self) -> bool {
        let is_other = |(address, why): &(Address, Why)| {
            let by_network = !matches!(why, Why::NoGate(_) | Why::Kernel(_));
            by_network && self.place_for(address).is_ok()
        };
        self.refused.values().any(is_other)
    }

    async fn look(&mut self) -> Result<(), KernelError> {
        self.view_is_old = false;
        let view = self.kernel.view(&self.links).await;
        self.view = view.inspect_err(|_| self.view_is_old = true)?;
        self.routes_are_old = true;
        self.macs = self.view.macs(&self.links, &self.vip_links);
        Ok(())
    }

    /// Looks at the host again. Returns the addresses that are not where they
    /// belong, and whether one that could not be here may be now.
    pub(crate) async fn look_around(&mut self) -> (Vec<Obstacle>, bool) {
        if let Err(error) = self.look().await {
            error!(%error, "cannot look at the host's addresses and routes");
            return (vec![], false);
        }
        let mut astray = vec![];
        for (ip, (address, ifindex)) in &self.placed {
            let why = match self.home_of(address) {
                Ok(home) if home == *ifindex => continue,
                Ok(home) => {
                    let named = self.links.iter().find(|link| link.device.ifindex == home);
                    Why::WrongInterface(named.map(|link| link.name.clone()).unwrap_or_default())
                }
                Err(why) => why,
            };
            self.refused.insert(*ip, (address.clone(), why.clone()));
            astray.push(Obstacle { ip: *ip, why });
        }
        let may_be = self.is_less_hindered();
        if may_be {
            self.refused.clear();
        }
        self.reconcile_routes(true).await;
        (astray, may_be)
    }

    /// Adds the routes to neighbours that our addresses need, and takes away what
    /// none needs any more. `thorough`: also if nothing of ours changed.
    async fn reconcile_routes(&mut self, thorough: bool) {
        let placed = self.placed.values().map(|(address, ifindex)| (address, *ifindex));
        let wanted = self.view.network.routes_for(placed);
        self.routes_are_old = false;
        if wanted == self.routes && (!thorough || wanted.is_empty()) {
            return;
        }
        let there = match self.kernel.our_routes().await {
            Ok(there) => there,
            Err(error) => {
                error!(%error, "cannot look at the routes");
                self.routes_are_old = true;
                return;
            }
        };
        let mut present = BTreeSet::new();
        for route in there {
            match connected(&route).filter(|route| wanted.contains(route)) {
                Some(route) => {
                    present.insert(route);
                }
                None => {
                    if let Err(error) = self.kernel.delete_route(route).await {
                        warn!(%error, "a route of ours stays behind");
                    }
                }
            }
        }
        for route in wanted.difference(&present) {
            let (_, prefix) = route;
            match self.kernel.add_route(*route).await {
                Ok(()) => info!(%prefix, "added the route to a VIP's neighbours"),
                Err(error) => warn!(%prefix, %error, "no route to a VIP's neighbours"),
            }
        }
        self.routes = wanted;
    }

    /// Puts the gate first on every interface. Returns what neighbours have to be
    /// told again for, if something.
    pub(crate) async fn reconcile_links(&mut self) -> Option<LinkChange> {
        let links = match self.kernel.links().await {
            Ok(links) => links,
            Err(error) => {
                error!(%error, "cannot list interfaces");
                return None;
            }
        };
        // With another Ethernet address it is another one to its neighbours; and
        // switches look for a VIP where its packets last came from.
        let same = |old: &Link, new: &Link| old.device == new.device && old.mac == new.mac;
        let before = |new: &Link| self.links.iter().find(|old| old.running && same(old, new));
        let has_vip = |link: &Link| self.placed.values().any(|(_, at)| *at == link.device.ifindex);
        let moved = |new: &Link| before(new).is_some_and(|old| old.ways != new.ways);
        let change = if links.iter().any(|l| l.running && before(l).is_none()) {
            Some(LinkChange::Back)
        } else {
            links.iter().any(|l| has_vip(l) && moved(l)).then_some(LinkChange::Ways)
        };
        self.links = links;
        self.vip_links.extend(self.homes.values());
        self.macs = self.view.macs(&self.links, &self.vip_links);
        if let Some(gate) = &mut self.gate {
            self.ungated.retain(|index, _| self.links.iter().any(|l| l.device.ifindex == *index));
            for link in &self.links {
                attach(gate, link, &self.stale, &mut self.ungated);
            }
        }
        change
    }

    /// How often that is worth its cost: what the kernel says of addresses is heard
    /// at once, and this is in case that something was not.
    pub(crate) fn compare_interval(&self) -> Duration {
        RECONCILE_INTERVAL.max(renewal_interval(self.placed.len(), self.gate.is_some()))
    }

    /// Compares the addresses that should be there with those that are;
    /// deletes what is too much and returns what is missing, and what is gone.
    pub(crate) async fn reconcile_addresses(&mut self, guard: &Guard) -> Vec<GuardEvent> {
        let Ok(there) = self.kernel.our_addresses().await else { return vec![] };
        let wanted: BTreeSet<_> = guard.wanted_addresses().into_iter().map(|a| a.ip).collect();
        let mut present = BTreeSet::new();
        let mut events = vec![];
        for (ip, message) in there {
            if wanted.contains(&ip) {
                present.insert(ip);
                continue;
            }
            warn!(%ip, "an address of ours that nobody wants; deleting it");
            match self.kernel.delete_message(message).await {
                Ok(()) => {
                    self.placed.remove(&ip);
                    self.routes_are_old = true;
                    events.push(GuardEvent::AddressDeleted(ip));
                }
                Err(_) => {
                    present.insert(ip);
                }
            }
        }
        events.extend(wanted.difference(&present).map(|ip| GuardEvent::AddressGone(*ip)));
        let gone = guard.departed().into_iter().filter(|ip| !present.contains(ip));
        events.extend(gone.map(GuardEvent::AddressDeleted));
        // What stayed in the gate though nobody has it here any more.
        let claimed: BTreeSet<_> = guard.gate_entries().into_iter().map(|(ip, _)| ip).collect();
        let left = self.known.iter().filter(|ip| !claimed.contains(ip) && !present.contains(ip));
        events.extend(left.copied().map(GuardEvent::AddressDeleted));
        events
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

    /// Carries out lists of actions, each in its order. What they ask of the
    /// kernel at the same point goes out together: a thousand addresses take
    /// little longer than one. Returns what the agent is to be told.
    ///
    /// Addresses are deleted before others are added, because one list may add
    /// what another gives up.
    pub(crate) async fn carry_out(
        &mut self,
        guard: &mut Guard,
        lists: Vec<Vec<GuardAction>>,
    ) -> Vec<GuardNotice> {
        let mut lists: Vec<VecDeque<_>> = lists.into_iter().map(Into::into).collect();
        let mut notices = vec![];
        loop {
            let (mut deletions, mut additions) = (vec![], vec![]);
            for (list, actions) in lists.iter_mut().enumerate() {
                while let Some(action) = actions.pop_front() {
                    let kind = discriminant(&action);
                    let mut waits = false;
                    match action {
                        GuardAction::Gate { ip, entry } => {
                            let written = self.set_gate(ip, entry);
                            instead_if_failed(guard, written, actions);
                        }
                        GuardAction::Deadline { slot, deadline } => {
                            let written = self.set_deadline(slot, deadline);
                            instead_if_failed(guard, written, actions);
                        }
                        GuardAction::AddAddress(address) => {
                            additions.push((list, address));
                            waits = true;
                        }
                        GuardAction::DeleteAddress(address) => {
                            deletions.push((list, address));
                            waits = true;
                        }
                        GuardAction::Forget(ip) => self.forget(ip),
                        GuardAction::RefreshAddresses(addresses) => self.refresh(&addresses).await,
                        GuardAction::Probe(addresses) => self.probe(&addresses),
                        GuardAction::Announce(addresses) => self.announce(&addresses),
                        GuardAction::Notify(notice) => notices.push(notice),
                    }
                    if waits && actions.front().map(discriminant) != Some(kind) {
                        break;
                    }
                }
            }
            if deletions.is_empty() && additions.is_empty() {
                // Of a thousand addresses it is not worked out for each packet sent.
                if self.routes_are_old {
                    self.reconcile_routes(false).await;
                }
                return notices;
            }
            for (list, ip, deleted) in self.delete(deletions).await {
                if deleted {
                    let follow_up = guard.step(boottime(), GuardEvent::AddressDeleted(ip));
                    follow_up.into_iter().rev().for_each(|action| lists[list].push_front(action));
                } else {
                    let failure = GuardFailure::Delete { ip };
                    instead_if_failed(guard, Err(failure), &mut lists[list]);
                }
            }
            for Failed { list, failure } in self.add(additions).await {
                error!(?failure, "the kernel did not take an address");
                instead_if_failed(guard, Err(failure), &mut lists[list]);
            }
        }
    }

    fn set_gate(&mut self, ip: IpAddr, entry: GateEntry) -> Result<(), GuardFailure> {
        let Some(gate) = &mut self.gate else { return Ok(()) };
        self.known.insert(ip);
        gate.set(ip, entry).map_err(|e| {
            let text = chain(&e);
            error!(%ip, text, "gate not written");
            GuardFailure::Gate { ip, text }
        })
    }

    fn set_deadline(&mut self, slot: Slot, deadline: Mono) -> Result<(), GuardFailure> {
        let Some(gate) = &mut self.gate else { return Ok(()) };
        gate.share(slot, deadline).map_err(|e| {
            let text = chain(&e);
            error!(text, "gate not written");
            GuardFailure::Deadline { slot, text }
        })
    }

    fn forget(&mut self, ip: IpAddr) {
        let Some(gate) = &mut self.gate else { return };
        match gate.forget(ip) {
            Ok(()) => {
                self.known.remove(&ip);
                self.homes.remove(&ip);
            }
            Err(e) => warn!(%ip, error = %chain(&e), "a shut gate stays behind"),
        }
    }

    /// Adds addresses of lists; returns the first of each list that cannot be.
    async fn add(&mut self, batch: Vec<(usize, Address)>) -> Vec<Failed> {
        if batch.is_empty() {
            return vec![];
        }
        let looked = if self.view_is_old { self.look().await } else { Ok(()) };
        let kernel = self.kernel.clone();
        let mut gated = BTreeMap::new();
        let (mut refused, mut allowed) = (vec![], vec![]);
        let failed = |list, ip, why| {
            let failure = GuardFailure::Add(Obstacle { ip, why });
            Failed { list, failure }
        };
        for (list, address) in batch {
            let admitted = match &looked {
                Ok(()) => self.admit(&address, &mut gated),
                Err(e) => Err(Why::Kernel(e.to_string())),
            };
            match admitted {
                Ok(ifindex) => allowed.push((list, address, ifindex)),
                Err(why) => {
                    self.refused.insert(address.ip, (address.clone(), why.clone()));
                    refused.push(failed(list, address.ip, why));
                }
            }
        }
        self.expect(allowed.iter().map(|(_, address, ifindex)| (*ifindex, address.ip)));
        let life = address_life(1, self.gate.is_some());
        let added = allowed.iter().map(|(_, address, ifindex)| kernel.add(address, *ifindex, life));
        let added = join_all(added).await;
        if let Some((_, address, _)) = allowed.first() {
            self.look_for_marks(address.ip).await;
        }
        if added.iter().any(Result::is_err) && self.look().await.is_err() {
            warn!("what the kernel refused an address for cannot be looked for");
        }
        for ((list, address, ifindex), result) in allowed.into_iter().zip(added) {
            match result {
                Ok(()) => {
                    self.homes.insert(address.ip, ifindex);
                    self.refused.remove(&address.ip);
                    self.placed.insert(address.ip, (address, ifindex));
                    self.routes_are_old = true;
                }
                Err(e) => {
                    let why = self.place_for(&address).err().unwrap_or_else(|| e.into());
                    refused.push(failed(list, address.ip, why.clone()));
                    self.refused.insert(address.ip, (address, why));
                }
            }
        }
        refused.sort_by_key(|refused| refused.list);
        refused.dedup_by_key(|refused| refused.list);
        refused
    }

    /// Takes note of addresses before they are added: a guard that is killed
    /// leaves them behind, and the next one has to know them.
    fn expect(&mut self, placed: impl Iterator<Item = Placed>) {
        if self.ledger.marks == Some(true) {
            return;
        }
        self.ledger.placed.extend(placed);
        self.kernel.unmarked().are(self.ledger.placed.clone());
        self.ledger.store();
    }

    /// Once: does the kernel itself say which addresses are ours?
    async fn look_for_marks(&mut self, ip: IpAddr) {
        if self.ledger.marks.is_some() {
            return;
        }
        self.ledger.marks = self.kernel.keeps_marks(ip).await.ok().flatten();
        match self.ledger.marks {
            Some(true) => {
                self.ledger.clear();
                self.kernel.unmarked().are(BTreeSet::new());
            }
            Some(false) => info!("this kernel keeps no mark of addresses; they are recorded"),
            None => {}
        }
    }

    /// The interface that an address may be added to, or why there is none.
    /// `gated` knows the interfaces that the gate was found on.
    fn admit(
        &mut self,
        address: &Address,
        gated: &mut BTreeMap<u32, Option<String>>,
    ) -> Result<u32, Why> {
        let ifindex = self.place_for(address)?;
        let ungated = gated.entry(ifindex).or_insert_with(|| self.ungated(ifindex)).clone();
        let ungated = ungated.or_else(|| self.exposed_by_others());
        let unknown = || {
            let gate = self.gate.as_ref()?;
            let unknown = gate.entry(address.ip).is_none();
            unknown.then(|| "it did not take its deadline".to_owned())
        };
        match ungated.or_else(unknown) {
            Some(text) => Err(Why::NoGate(text)),
            None => Ok(ifindex),
        }
    }

    /// Why the gate would not hold addresses on an interface, if it would not.
    fn ungated(&mut self, ifindex: u32) -> Option<String> {
        let gate = self.gate.as_mut()?;
        let device = self.links.iter().map(|l| l.device).find(|d| d.ifindex == ifindex);
        let Some(device) = device else { return Some("its interface is gone".into()) };
        gate.ensure_first(device, &self.stale).err().map(|e| chain(&e))
    }

    /// Deletes addresses of lists; returns of each whether it is gone.
    async fn delete(&mut self, batch: Vec<(usize, Address)>) -> Vec<(usize, IpAddr, bool)> {
        let placed = |(list, address): (usize, Address)| {
            let at = self.placed.get(&address.ip).cloned();
            (list, address.ip, at)
        };
        let batch: Vec<_> = batch.into_iter().map(placed).collect();
        let deleted = batch.iter().map(|(_, _, at)| async {
            match at {
                Some((address, ifindex)) => self.kernel.delete(address, *ifindex).await,
                // Never added by this run, so gone since its start.
                None => Ok(()),
            }
        });
        let deleted = join_all(deleted).await;
        let mut outcome = vec![];
        for ((list, ip, _), result) in batch.into_iter().zip(deleted) {
            match &result {
                Ok(()) => {
                    if let Some((_, ifindex)) = self.placed.remove(&ip) {
                        self.routes_are_old = true;
                        self.ledger.remove((ifindex, ip));
                    }
                }
                // The reconciler and valid_lft follow up.
                Err(error) => warn!(%ip, %error, "address not deleted"),
            }
            outcome.push((list, ip, result.is_ok()));
        }
        outcome
    }

    async fn refresh(&mut self, addresses: &[Address]) {
        let placed: Vec<_> = addresses.iter().filter_map(|a| self.placed.get(&a.ip)).collect();
        let life = address_life(addresses.len(), self.gate.is_some());
        let added = placed.iter().map(|(address, at)| self.kernel.add(address, *at, life));
        for result in join_all(added).await {
            if let Err(error) = result {
                warn!(%error, "life of an address not renewed");
            }
        }
    }

    /// Asks for addresses where they would be.
    fn probe(&self, addresses: &[Address]) {
        for address in addresses {
            // If it can be nowhere, adding it will say so.
            let Ok(ifindex) = self.home_of(address) else { continue };
            let link = self.links.iter().find(|l| l.device.ifindex == ifindex);
            let Some(mac) = link.and_then(|l| l.mac) else { continue };
            if let Err(error) = self.sender.send(ifindex, &probe(mac, address.ip)) {
                debug!(ip = %address.ip, %error, "probe not sent");
            }
        }
    }

    fn announce(&self, addresses: &[Address]) {
        for address in addresses {
            let Some((_, ifindex)) = self.placed.get(&address.ip) else { continue };
            let link = self.links.iter().find(|l| l.device.ifindex == *ifindex);
            let Some(mac) = link.and_then(|l| l.mac) else { continue };
            for frame in announcement(mac, address.ip) {
                if let Err(error) = self.sender.send(*ifindex, &frame) {
                    debug!(ip = %address.ip, %error, "announcement not sent; it is repeated");
                }
            }
        }
    }

    /// Takes the gate off and puts settings back, unless an address is left
    /// behind: then all stays, shut.
    pub(crate) async fn detach(&mut self) {
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

/// Puts the gate first on an interface, or takes note why it is not there.
fn attach(
    gate: &mut Gate,
    link: &Link,
    stale: &BTreeSet<u32>,
    ungated: &mut BTreeMap<u32, String>,
) {
    let (ifindex, name) = (link.device.ifindex, &link.name);
    match gate.ensure_first(link.device, stale) {
        Ok(changed) => {
            if changed {
                info!(interface = %name, "lease gate attached");
            }
            ungated.remove(&ifindex);
        }
        // Interfaces may go at any time.
        Err(GateError::Attach { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
        Err(e) => {
            let text = format!("the lease gate is not on {name}: {}", chain(&e));
            if ungated.insert(ifindex, text.clone()).as_ref() != Some(&text) {
                warn!(interface = %name, text, "no VIP can be here");
            }
        }
    }
}
