//! One host: its clock, disk and kernel, and the processes on it.

use crate::agent::{Agent, Input};
use crate::clock::{Clock, Real};
use crate::disk::{Disk, Written};
use crate::guard::{Connection, GuardInput, GuardProcess};
use crate::kernel::Kernel;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use vip_core::ServerUid;

/// Messages and timers that wait for a frozen process.
#[derive(Debug)]
pub(crate) struct Frozen<T> {
    /// How many faults freeze it.
    pub(crate) times: u32,
    pub(crate) backlog: VecDeque<T>,
}

impl<T> Default for Frozen<T> {
    fn default() -> Self {
        Self { times: 0, backlog: VecDeque::new() }
    }
}

pub(crate) struct Host {
    pub(crate) clock: Clock,
    pub(crate) kernel: Kernel,
    pub(crate) disk: Disk,
    /// What each write takes longer.
    pub(crate) disk_delay: Duration,
    pub(crate) disk_free_at: Real,
    /// When the writes under way were issued.
    pub(crate) writes: VecDeque<Real>,
    /// The same of a vote; openraft's core waits for each.
    pub(crate) vote_write: Option<Real>,
    /// How long the agent's tasks stand still between looking and acting.
    pub(crate) stall: Duration,
    pub(crate) powered: bool,
    /// Never again.
    pub(crate) dead: bool,
    pub(crate) agent: Option<Agent>,
    /// Counts processes, so that nothing reaches the wrong one.
    pub(crate) agent_run: u64,
    pub(crate) agent_frozen: Frozen<Input>,
    pub(crate) agent_tick: u64,
    pub(crate) guard: Option<GuardProcess>,
    pub(crate) guard_run: u64,
    pub(crate) guard_frozen: Frozen<GuardInput>,
    pub(crate) guard_tick: u64,
    /// The agent's connection to its guard, and whether it was welcomed.
    pub(crate) link: Option<(Connection, bool)>,
    /// Latest arrival at the guard and at the agent: a socket keeps its order.
    pub(crate) to_guard_at: Real,
    pub(crate) to_agent_at: Real,
    /// Counts guards that started, each with nothing in force.
    pub(crate) guards: u64,
    /// When the second lane is done with what it was told.
    pub(crate) lane_at: Real,
    /// The virtual servers that were in force when the guard was used first.
    pub(crate) owed: BTreeSet<ServerUid>,
}

impl Host {
    /// The disk has the oldest write of that sort.
    pub(crate) fn written(&mut self, written: Written) {
        self.disk.complete(written);
        match written {
            Written::Vote(_) => self.vote_write = None,
            Written::Truncation | Written::Entries => drop(self.writes.pop_front()),
        }
    }

    pub(crate) fn new(clock: Clock, kernel: Kernel) -> Self {
        Self {
            clock,
            kernel,
            disk: Disk::default(),
            disk_delay: Duration::ZERO,
            disk_free_at: Real::default(),
            writes: VecDeque::new(),
            vote_write: None,
            stall: Duration::ZERO,
            powered: true,
            dead: false,
            agent: None,
            agent_run: 0,
            agent_frozen: Frozen::default(),
            agent_tick: 0,
            guard: None,
            guard_run: 0,
            guard_frozen: Frozen::default(),
            guard_tick: 0,
            link: None,
            to_guard_at: Real::default(),
            to_agent_at: Real::default(),
            guards: 0,
            lane_at: Real::default(),
            owed: BTreeSet::new(),
        }
    }
}
