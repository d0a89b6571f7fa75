//! Virtual servers on this host: what the guard forwards by is kept at what the log
//! wants. On every node, whoever holds their VIPs: the next holder has its tables before.

mod at_vip;
mod lane;
mod service;

pub(crate) use lane::{IsNew, LinkEnd, TableNews};

use at_vip::{Asked, Asking, LastAtVips};
use lane::Lane;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use vip_core::{
    Drops, Forwarding, Generation, Mac, Node, NodeId, NodeState, Programmed, Programming,
    RealCount, Server, ServerUid, State, TableCounters, TableNotice, TableOrder,
};
use vip_guard::{ToGuard, boottime};
use vip_raft::Applied;

/// Real servers in one message: some 20 kB, which hold up no order of the other lane.
const REALS_AT_ONCE: usize = 1000;
/// Questions that may wait.
const ASKED: usize = 16;
/// Nothing is tried again before somebody changes something.
const NEVER: Duration = Duration::from_secs(3600);

/// What was forwarded is wanted by somebody.
type Question = (ServerUid, oneshot::Sender<Vec<RealCount>>);

type Seen = (Arc<BTreeMap<ServerUid, Arc<Server>>>, Arc<BTreeMap<NodeId, Node>>);

/// For whoever wants to know.
#[derive(Clone)]
pub(crate) struct Forward {
    programming: watch::Receiver<Programming>,
    counters: watch::Receiver<TableCounters>,
    questions: mpsc::Sender<Question>,
    at_vip: mpsc::Sender<Asked>,
    last_at_vips: Arc<LastAtVips>,
    listens: Arc<watch::Sender<BTreeSet<ServerUid>>>,
    mute: broadcast::Sender<Mute>,
}

/// Real servers of a virtual one that say nothing to its clients, by address and port.
pub(crate) type Mute = (ServerUid, Vec<(IpAddr, u16)>);
/// What nobody took up is of no use any more.
const MUTES: usize = 64;

/// See the module.
pub(crate) struct Reconciler {
    applied: watch::Receiver<Applied>,
    is_new: IsNew,
    /// This node.
    me: NodeId,
    /// The cluster's names of this node's interfaces.
    interfaces: BTreeMap<String, String>,
    lane: Lane,
    programming: watch::Sender<Programming>,
    questions: mpsc::Receiver<Question>,
    /// Whom the guard did not answer yet.
    asked: BTreeMap<ServerUid, Vec<oneshot::Sender<Vec<RealCount>>>>,
    asked_at_vip: mpsc::Receiver<Asked>,
    asking: Asking,
    /// Of whom the guard is to say who is mute.
    listens: watch::Receiver<BTreeSet<ServerUid>>,
    mute: broadcast::Sender<Mute>,
    /// Waits until the guard is in step.
    in_step: Option<oneshot::Sender<()>>,
    /// What it was compared with last: all that orders and members follow from.
    seen: Option<Seen>,
    /// The link had something to say since.
    news: bool,
    /// One that forwards is there.
    has_guard: bool,
    /// Whose packets the guard's real servers take, as it was told.
    members: Option<BTreeSet<Mac>>,
}

/// What has to be run, and be told.
pub(crate) struct Ends {
    pub(crate) reconciler: Reconciler,
    pub(crate) link: LinkEnd,
    /// Told that the log here is new enough to be followed.
    pub(crate) caught_up: watch::Sender<bool>,
}

/// What knows of it, and what keeps it so.
pub(crate) fn forward(
    me: NodeId,
    applied: watch::Receiver<Applied>,
    interfaces: BTreeMap<String, String>,
) -> (Forward, Ends) {
    let (caught_up, is_new) = watch::channel(false);
    let (link, lane) = lane::lane(is_new.clone());
    let (programming, programmed) = watch::channel(Programming::default());
    let (ask, questions) = mpsc::channel(ASKED);
    let counters = lane.counters.clone();
    let (at_vip, asked_at_vip) = at_vip::questions();
    let (listens, to_listen) = watch::channel(BTreeSet::new());
    let (mute, _) = broadcast::channel(MUTES);
    let forward = Forward {
        programming: programmed,
        counters,
        questions: ask,
        at_vip,
        last_at_vips: Arc::default(),
        listens: Arc::new(listens),
        mute: mute.clone(),
    };
    let reconciler = Reconciler {
        applied,
        is_new,
        me,
        interfaces,
        lane,
        programming,
        questions,
        asked: BTreeMap::new(),
        asked_at_vip,
        asking: Asking::default(),
        listens: to_listen,
        mute,
        in_step: None,
        seen: None,
        news: false,
        has_guard: false,
        members: None,
    };
    (forward, Ends { reconciler, link, caught_up })
}

impl Forward {
    /// How a virtual server is on this host; and what of it will not work here, though it
    /// is in force.
    pub(crate) fn how(&self, server: ServerUid) -> (Programmed, Option<String>) {
        (self.of(server), self.programming.borrow().flaw(server).map(str::to_owned))
    }

    /// The tables before that nobody goes by here any more.
    pub(crate) fn idle(&self) -> BTreeMap<ServerUid, Generation> {
        // A lane that does not get on hears nobody.
        let TableCounters { failed, behind_s, .. } = self.counters();
        if failed || behind_s > 0 {
            return BTreeMap::new();
        }
        self.programming.borrow().idle(boottime())
    }

    /// What the guard's program dropped since the guard started.
    pub(crate) fn dropped(&self) -> Drops {
        self.programming.borrow().dropped()
    }

    /// Tells that something of it may be otherwise.
    pub(crate) fn changes(&self) -> watch::Receiver<Programming> {
        self.programming.clone()
    }

    /// Of these the guard is to say who is mute.
    pub(crate) fn listen_to(&self, servers: BTreeSet<ServerUid>) {
        self.listens.send_if_modified(|listens| {
            let changed = *listens != servers;
            *listens = servers;
            changed
        });
    }

    /// Who is, as the guard says.
    pub(crate) fn mutes(&self) -> broadcast::Receiver<Mute> {
        self.mute.subscribe()
    }

    /// How a virtual server is on this host.
    fn of(&self, server: ServerUid) -> Programmed {
        if self.counters().failed {
            let why = "what forwards in its guard failed: restart it (`systemctl restart \
                       vipd-guard`)";
            return Programmed::Refused { wanted: None, why: why.into() };
        }
        self.programming.borrow().of(server)
    }

    /// Waits until a virtual server is on this host as of this generation or a later one,
    /// or is refused, or the time is over; `None`: until there is nothing of it. Returns
    /// how it is then.
    async fn wait_for(
        &self,
        server: ServerUid,
        wanted: Option<Generation>,
        limit: Duration,
    ) -> Programmed {
        let mut programming = self.programming.clone();
        let answered = programming.wait_for(|programming| match programming.of(server) {
            Programmed::InForce(generation) => wanted.is_some_and(|wanted| generation >= wanted),
            // What was refused of an earlier one says nothing.
            Programmed::Refused { wanted: refused, .. } => {
                refused.is_none_or(|refused| wanted.is_some_and(|wanted| refused >= wanted))
            }
            Programmed::NotYet => false,
            Programmed::Nothing => wanted.is_none(),
        });
        let _ = tokio::time::timeout(limit, answered).await;
        self.of(server)
    }

    /// What was forwarded for a virtual server on this host, by real server; `None`: the
    /// guard does not say.
    async fn counted(&self, server: ServerUid, limit: Duration) -> Option<Vec<RealCount>> {
        let (answer, counted) = oneshot::channel();
        self.questions.try_send((server, answer)).ok()?;
        tokio::time::timeout(limit, counted).await.ok()?.ok()
    }

    /// How the guard's second lane does.
    pub(crate) fn counters(&self) -> TableCounters {
        *self.counters.borrow()
    }
}

impl Reconciler {
    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let state = self.applied.borrow_and_update().state.clone();
            // What is in force may be of a later log than the one here.
            if *self.is_new.borrow_and_update() {
                if self.may_differ(&state) {
                    self.reconcile(&state).await;
                }
            } else if self.has_nothing_to_forward(&state) {
                self.is_in_step();
            }
            let next = self.programming.borrow().next_try();
            let wait = next.map_or(NEVER, |at| at.since(boottime()));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.applied.changed() => if changed.is_err() { return },
                Ok(()) = self.is_new.changed() => {}
                Some(news) = self.lane.news.recv() => self.heard(news),
                Some(question) = self.questions.recv() => self.ask(question).await,
                Some(asked) = self.asked_at_vip.recv() => {
                    if let Some(question) = self.asking.ask(asked) {
                        let _ = self.lane.orders.send(question).await;
                    }
                }
                Ok(()) = self.listens.changed() => self.listen().await,
                () = sleep(wait) => {}
            }
        }
    }

    /// A guard of an earlier version does not.
    async fn listen(&mut self) {
        let servers = self.listens.borrow_and_update().clone();
        if self.asking.understood {
            let _ = self.lane.orders.send(ToGuard::Listen(servers)).await;
        }
    }

    /// Whether there can be anything to do: most entries of the log are about none of it.
    fn may_differ(&mut self, state: &State) -> bool {
        let is_same = self.seen.as_ref().is_some_and(|(servers, nodes)| {
            Arc::ptr_eq(servers, &state.servers) && Arc::ptr_eq(nodes, &state.nodes)
        });
        let due = self.programming.borrow().next_try().is_some_and(|at| at <= boottime());
        let news = std::mem::take(&mut self.news);
        if is_same && !due && !news {
            return false;
        }
        self.seen = Some((state.servers.clone(), state.nodes.clone()));
        true
    }

    async fn reconcile(&mut self, state: &State) {
        let members = state.member_macs();
        if self.has_guard && self.members.as_ref() != Some(&members) {
            self.members = Some(members.clone());
            let _ = self.lane.orders.send(ToGuard::Members(members)).await;
        }
        let wanted = state.forwardings();
        let of = |uid| Forwarding::of(state, state.server(uid)?, &self.interfaces);
        let mut orders = vec![];
        // What is ordered is no news to anybody.
        self.programming.send_if_modified(|programming| {
            orders = programming.orders(boottime(), &wanted, of);
            false
        });
        for part in parts(orders) {
            if self.lane.orders.send(ToGuard::Tables(part)).await.is_err() {
                return;
            }
        }
        if self.programming.borrow().is_in_step(&wanted) {
            self.is_in_step();
        }
    }

    /// As far as is known of a log that may be old: a member that nobody gave a virtual
    /// server need not wait for the leader's word. One that joins has no log yet.
    fn has_nothing_to_forward(&self, state: &State) -> bool {
        let known = state.nodes.get(&self.me);
        known.is_some_and(|node| node.state != NodeState::Joining)
            && state.servers.is_empty()
            && self.programming.borrow().has_nothing()
    }

    fn is_in_step(&mut self) {
        if let Some(waiting) = self.in_step.take() {
            let _ = waiting.send(());
        }
    }

    /// Takes all that the link has to say by now.
    fn heard(&mut self, first: TableNews) {
        let mut next = Some(first);
        while let Some(news) = next {
            self.news |= !is_an_answer(&news);
            match news {
                // It has nothing and is told nothing; its VIPs need not wait for it.
                TableNews::Up { forwards: false, .. } => {
                    self.programming.send_modify(Programming::up_without);
                }
                TableNews::Up { forwards: true, asks, in_step } => {
                    self.asking.understood = asks;
                    // It is new to it.
                    self.listens.mark_changed();
                    (self.has_guard, self.members) = (true, None);
                    self.in_step = Some(in_step);
                    self.programming.send_modify(Programming::up);
                }
                TableNews::Down => {
                    self.has_guard = false;
                    self.in_step = None;
                    self.asked.clear();
                    self.asking.end();
                    self.programming.send_modify(Programming::down);
                }
                TableNews::Said(TableNotice::Counted { server, reals }) => {
                    for question in self.asked.remove(&server).into_iter().flatten() {
                        let _ = question.send(reals.clone());
                    }
                }
                TableNews::Said(TableNotice::AtVip(question, answer)) => {
                    self.asking.answered(question, answer);
                }
                TableNews::Said(TableNotice::Mute(server, reals)) => {
                    let _ = self.mute.send((server, reals));
                }
                TableNews::Said(notice) => {
                    self.programming.send_modify(|known| known.heard(boottime(), notice));
                }
            }
            next = self.lane.news.try_recv().ok();
        }
    }

    async fn ask(&mut self, (server, answer): Question) {
        let waiting = self.asked.entry(server).or_default();
        waiting.retain(|question| !question.is_closed());
        waiting.push(answer);
        let _ = self.lane.orders.send(ToGuard::Count(server)).await;
    }
}

/// Of which nothing follows for tables.
fn is_an_answer(news: &TableNews) -> bool {
    let TableNews::Said(notice) = news else { return false };
    matches!(notice, TableNotice::Counted { .. } | TableNotice::AtVip(..) | TableNotice::Mute(..))
}

/// Orders in messages that are not too long.
fn parts(orders: Vec<TableOrder>) -> Vec<Vec<TableOrder>> {
    let mut parts: Vec<(usize, Vec<TableOrder>)> = vec![];
    for order in orders {
        let reals = order.reals().max(1);
        match parts.last_mut() {
            Some((count, part)) if *count + reals <= REALS_AT_ONCE => {
                *count += reals;
                part.push(order);
            }
            _ => parts.push((reals, vec![order])),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}
