//! What this node says of itself, and whether the leader knows.

use super::{LeaseAction, Leases};
use crate::{Mono, Report, ReportId, Vote};
use serde::{Deserialize, Serialize};

/// For so long a report may be under way. One too many does no harm: it has a
/// number.
const PATIENCE_HEARTBEATS: u32 = 2;

/// How far this node is with its reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reporting {
    pub(super) latest: Report,
    /// It may not be what there is to say now.
    pub(super) due: bool,
    /// What there is to say got lost, or may have.
    pub(super) again: bool,
    /// Sent last: to the leader of which vote, which one, and until when its fate is
    /// waited for.
    sent: Option<(Vote, ReportId, Mono)>,
    /// The one that a leader knows, as it says at each renewal.
    taken: Option<(Vote, ReportId)>,
}

impl Reporting {
    pub(super) fn of_run(run: u64) -> Self {
        let latest = Report { id: ReportId { run, seq: 0 }, ..Report::default() };
        Self { latest, due: true, again: false, sent: None, taken: None }
    }

    /// The leader of this vote knows this one of this node's.
    pub(super) fn taken(&mut self, vote: Vote, id: ReportId) {
        self.taken = Some((vote, id));
    }

    /// Whether the leader of this vote is to be told now.
    fn is_to_send(&self, now: Mono, vote: Vote) -> bool {
        let latest = self.latest.id;
        let under_way =
            |(to, id, until): (Vote, ReportId, Mono)| (to, id) == (vote, latest) && now < until;
        self.taken != Some((vote, latest)) && !self.sent.is_some_and(under_way)
    }

    /// It did not get there: the next look tries again, and no earlier one.
    pub(super) fn lost(&mut self, id: ReportId) {
        if let Some((_, sent, until)) = &mut self.sent
            && *sent == id
        {
            *until = Mono::ZERO;
        }
    }
}

impl Leases {
    /// Which report of this node is the latest.
    #[must_use]
    pub fn latest_report(&self) -> ReportId {
        self.reporting.latest.id
    }

    /// Says what there is to say now, if the leader does not know.
    pub(super) fn report_to_leader(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        let Some((vote, heard)) = self.voter.heard() else { return };
        if vote.node == self.scene.me || now >= heard + self.scene.timing.promise {
            return;
        }
        let other_fitness = self.fitness(now) != self.reporting.latest.fitness;
        let again = std::mem::take(&mut self.reporting.again);
        if std::mem::take(&mut self.reporting.due) || (again && other_fitness) {
            self.make_report(now);
        } else if !again {
            return;
        }
        if self.reporting.is_to_send(now, vote) {
            let latest = self.reporting.latest.clone();
            let until = now + self.scene.timing.heartbeat * PATIENCE_HEARTBEATS;
            self.reporting.sent = Some((vote, latest.id, until));
            actions.push(LeaseAction::Report(vote, Box::new(latest)));
        }
    }

    fn make_report(&mut self, now: Mono) {
        let latest = &self.reporting.latest;
        let said = Report {
            id: latest.id,
            fitness: self.fitness(now),
            stopping: self.is_stopping(),
            unable: self.holder.claims.unable(now).into_iter().collect(),
            obstacles: self.holder.claims.obstacles(),
            open: self.holder.claims.open().into_iter().collect(),
            released: self.holder.claims.releases().into_iter().collect(),
            revisions: self.holder.claims.revisions(),
            conflicts: self.holder.claims.conflicts(),
            tokens: self.holder.claims.tokens(),
            macs: self.guard.macs().clone(),
            runs: self.scene.runs.clone(),
        };
        if said != *latest {
            let ReportId { run, seq } = said.id;
            self.reporting.latest = Report { id: ReportId { run, seq: seq + 1 }, ..said };
        }
    }
}
