//! The second lane, as the agent has it: what the guard forwards by follows the log, and
//! the guard is used once it does.

use super::{Agent, Message, Out};
use crate::guard::ToGuard;
use crate::mutant::Mutant;
use crate::raft::Index;
use std::collections::BTreeMap;
use std::time::Duration;
use vip_core::{
    Forwarding, Incarnation, LeaseEvent, Mono, NodeId, Plan, Programming, Server, TableNotice,
};

/// As in vip-agent: a lane that does not get on holds nothing up for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the agent knows of its guard's second lane.
#[derive(Default)]
pub(super) struct Lane {
    programming: Programming,
    /// A guard that is not used yet, and since when its lane did not get on.
    waiting: Option<(Incarnation, Mono)>,
    log: Newness,
}

/// Whether the log here is as new as the cluster's was when this agent started: one before
/// that would take back what is in force.
#[derive(Default)]
enum Newness {
    /// Nobody said how far it goes.
    #[default]
    Unknown,
    Through(Index),
    New,
}

impl Agent {
    pub(super) fn lane_up(&mut self, now: Mono, session: Incarnation) {
        self.step(now, LeaseEvent::GuardCame);
        self.lane.programming.up();
        self.lane.waiting = Some((session, now));
        if self.is(Mutant::OpenedBeforeTables) {
            self.use_guard(now);
        }
    }

    pub(super) fn lane_down(&mut self) {
        self.lane.programming.down();
        self.lane.waiting = None;
    }

    pub(super) fn lane_said(&mut self, now: Mono, notice: TableNotice) {
        self.lane.programming.heard(now, notice);
        if let Some((_, since)) = &mut self.lane.waiting {
            *since = now;
        }
        self.follow_log(now);
    }

    /// How far the log goes, as its leader says.
    pub(super) fn log_goes_to(&mut self, now: Mono, index: Index) {
        if matches!(self.lane.log, Newness::Unknown) {
            self.lane.log = Newness::Through(index);
            self.follow_log(now);
        }
    }

    /// Asks for it until it is known.
    pub(super) fn ask_how_far(&mut self, now: Mono) {
        if !matches!(self.lane.log, Newness::Unknown) {
            return;
        }
        if self.leases.leads_applied(now) || self.is(Mutant::OldLogFollowed) {
            self.log_goes_to(now, self.applied);
        } else if let Some(leader) = self.leases.leader(now) {
            self.out.push(Out::Send(leader, Message::HowFar));
        }
    }

    pub(super) fn lane_tick(&mut self, now: Mono) {
        let is_new = matches!(self.lane.log, Newness::New);
        if is_new && self.lane.waiting.is_some_and(|(_, since)| now >= since + PATIENCE) {
            self.use_guard(now);
        }
        if self.lane.programming.next_try().is_some_and(|at| at <= now) {
            self.follow_log(now);
        }
    }

    fn use_guard(&mut self, now: Mono) {
        if let Some((session, _)) = self.lane.waiting.take() {
            self.step(now, LeaseEvent::GuardUp(session));
            self.out.push(Out::Used);
        }
    }

    /// Orders what differs.
    pub(super) fn follow_log(&mut self, now: Mono) {
        let (state, wanted) = (self.state.clone(), self.state.forwardings());
        if matches!(self.lane.log, Newness::Through(index) if self.applied >= index) {
            self.lane.log = Newness::New;
            if let Some((_, since)) = &mut self.lane.waiting {
                *since = now;
            }
        }
        if !matches!(self.lane.log, Newness::New) {
            if wanted.is_empty() && self.lane.programming.has_nothing() {
                self.use_guard(now);
            }
            return;
        }
        let (me, mutant) = (self.me, self.mutant);
        let of = |uid| forwarding(&state, state.server(uid)?, me, mutant);
        let orders = self.lane.programming.orders(now, &wanted, of);
        if !orders.is_empty() {
            self.out.push(Out::Guard(ToGuard::Tables(orders)));
        }
        if self.lane.programming.is_in_step(&wanted) {
            self.use_guard(now);
        }
    }

    /// Whether the guard is used, and forwards as the log here wants it.
    pub(crate) fn is_in_step(&self) -> bool {
        matches!(self.lane.log, Newness::New)
            && self.lane.waiting.is_none()
            && self.lane.programming.is_in_step(&self.state.forwardings())
    }
}

fn forwarding(
    state: &vip_core::State,
    server: &Server,
    me: NodeId,
    mutant: Option<Mutant>,
) -> Option<Forwarding> {
    let all = Forwarding::of(state, server, &BTreeMap::new())?;
    Some(match mutant {
        Some(Mutant::SeedOfItsOwn) => {
            let plan = |plan: &Plan| Plan::new(me.0, plan.size(), plan.reals().to_vec()).ok();
            Forwarding { plan: plan(&all.plan)?, before: all.before.as_ref().and_then(plan), ..all }
        }
        Some(Mutant::BeforeForgotten) => Forwarding { before: None, ..all },
        _ => all,
    })
}
