//! What the lease thread, the gRPC handlers and Raft's storage share: the lease
//! decisions under one lock. Who only reads has a [`LeaseView`].

use super::clock_watch::ClockWatch;
use crate::essential;
use crate::wall_clock::WallClockWatch;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use vip_core::{
    LeaderWork, LeaseAction, LeaseEvent, LeaseSnapshot, Leases, LeasesStart, Mono, NodeId,
    Presumption, PromiseTicket, Recording, Refused, Speaker, Term, Vote,
};
use vip_guard::{GateReport, boottime};
use vip_raft::{Disk, LeaseRules};

/// How long a removed node waits before it thinks of a campaign again.
const REMOVED: Duration = Duration::from_secs(5);

/// No decision takes so long.
const STUCK: Duration = Duration::from_millis(100);

/// The guard as status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuardStatus {
    Absent,
    Present(GateReport),
}

/// See the module.
pub(crate) struct LeaseShared {
    leases: Mutex<Leases>,
    /// As they were after the last decision.
    pub(super) snapshot: ArcSwap<LeaseSnapshot>,
    pub(super) guard: Mutex<GuardStatus>,
    disk: Disk,
    pub(super) clock: ClockWatch,
    wall_clocks: WallClockWatch,
    /// Turns of the lease thread's loop.
    turns: AtomicU64,
    /// This node was removed: it asks for no votes.
    removed: AtomicBool,
    /// That something is new that others may wait for.
    pub(super) changed: watch::Sender<()>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LeaseShared {
    /// At process start, in quarantine.
    pub(crate) fn new(start: LeasesStart, disk: Disk) -> Arc<Self> {
        let mut leases = Leases::new(boottime(), start);
        leases.record();
        let snapshot = ArcSwap::from_pointee(leases.snapshot());
        Arc::new(Self {
            leases: Mutex::new(leases),
            snapshot,
            guard: Mutex::new(GuardStatus::Absent),
            disk,
            clock: ClockWatch::default(),
            wall_clocks: WallClockWatch::default(),
            turns: AtomicU64::new(0),
            removed: AtomicBool::new(false),
            changed: watch::Sender::new(()),
        })
    }

    /// A short critical section. The time is read inside it, so that it never
    /// runs backwards from one to the next.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Leases, Mono) -> R) -> R {
        // Half of a decision is none: what panicked in here is not gone on with.
        let Ok(mut leases) = self.leases.lock() else { essential::gone("leases") };
        let now = boottime();
        leases.disk(now, self.disk.oldest_wait(), self.disk.failure().is_some());
        let result = act(&mut leases, now);
        let (changed, spent) = (leases.take_changed(), leases.take_spent());
        self.snapshot.store(Arc::new(leases.snapshot()));
        drop(leases);
        if let Some(spent) = spent {
            std::thread::spawn(move || drop(spent));
        }
        if changed {
            self.changed.send_replace(());
        }
        result
    }

    /// The same where nothing is decided.
    pub(super) fn read<R>(&self, look: impl FnOnce(&Leases, Mono) -> R) -> R {
        let Ok(leases) = self.leases.lock() else { essential::gone("leases") };
        look(&leases, boottime())
    }

    /// What the leases kept up to now; they begin anew with that. Also after a panic
    /// in one of their decisions, which is the last that was kept.
    pub(super) fn take_recordings(&self) -> Vec<Recording> {
        let until = Instant::now() + STUCK;
        loop {
            match self.leases.try_lock() {
                Ok(mut leases) => return leases.take_recordings(),
                Err(TryLockError::Poisoned(poisoned)) => {
                    return poisoned.into_inner().take_recordings();
                }
                // Whoever ends the process because of that must not wait for it.
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return vec![],
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
    }

    /// Looks at the clock, as often as a lease is renewed.
    pub(super) fn look_at_clock(&self) {
        let is_well = self.clock.look();
        self.with(|leases, now| leases.clock(now, is_well));
    }

    /// The lease thread's loop goes round.
    pub(super) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it went round.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// This node was removed, or was not after all.
    pub(crate) fn set_removed(&self, removed: bool) {
        self.removed.store(removed, Ordering::Relaxed);
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// The members' wall clocks.
    pub(crate) fn wall_clocks(&self) -> &WallClockWatch {
        &self.wall_clocks
    }

    pub(super) fn step(&self, event: LeaseEvent) -> Vec<LeaseAction> {
        self.with(|leases, now| leases.step(now, event))
    }

    pub(super) fn set_guard(&self, status: GuardStatus) {
        *lock(&self.guard) = status;
    }

    /// See [`Leases::leader_work`].
    pub(crate) fn leader_work(&self) -> LeaderWork {
        self.with(|leases, now| leases.leader_work(now))
    }
}

impl LeaseRules for LeaseShared {
    fn saving_vote(&self, vote: Vote) {
        self.with(|leases, now| leases.saving_vote(now, vote));
    }

    fn candidacy_waits(&self, vote: Vote) -> Duration {
        self.with(|leases, now| leases.candidacy_waits(now, vote))
    }

    fn vote_is_durable(&self, vote: Vote) {
        self.with(|leases, now| leases.vote_is_durable(now, vote));
    }

    fn may_lead(&self, speaker: Speaker, term: Term) -> Result<(), Presumption> {
        self.read(|leases, _| leases.may_lead(speaker, term))
    }

    fn may_campaign(&self) -> Result<(), Refused> {
        if self.is_removed() {
            return Err(Refused { remaining: REMOVED });
        }
        self.with(Leases::may_campaign)
    }

    fn may_vote(&self) -> Result<PromiseTicket, Refused> {
        self.with(Leases::may_vote)
    }

    fn still_may_vote(&self, ticket: PromiseTicket) -> bool {
        self.read(|leases, now| leases.still_may_vote(now, ticket))
    }

    fn may_renew(&self) -> bool {
        self.with(Leases::may_renew)
    }

    fn leader_heard(&self, vote: Vote) {
        self.with(|leases, now| {
            let promise = leases.timing().promise;
            leases.heard_of(now, vote, promise);
        });
    }

    fn peer_bound(&self, remaining: Duration) {
        self.with(|leases, now| leases.peer_bound(now, remaining));
    }

    fn promised_vote(&self, candidate: NodeId) {
        self.with(|leases, now| leases.promised_vote(now, candidate));
    }

    fn abdicated(&self, vote: Vote) {
        self.with(|leases, now| leases.handed_over_by(now, vote));
    }

    fn may_transfer(&self, vote: Vote) -> bool {
        self.with(|leases, now| leases.may_transfer(now, vote))
    }
}
