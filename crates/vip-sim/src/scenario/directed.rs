//! Faults that belong together. Each scheme attacks a fact that only one
//! process knows, or that was true when a task looked: its owner is killed,
//! stalled or cut off at the worst time. Who leads is known only when a scheme
//! begins, so it is made then.

use super::{Fault, Link, Processes, chance, node, span};
use crate::network::Weather;
use clap::ValueEnum;
use std::time::Duration;

/// The fact that is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scheme {
    /// Whom a node promised: its vote is on the way to the disk when it dies.
    PromiseBeforeDisk,
    /// Until when a node is bound: it dies inside a promise.
    RestartInPromise,
    /// Which term a hand-over speaks for: it is stalled into a later one.
    HandOverStalled,
    /// Which term a settlement speaks for.
    SettlementStalled,
    /// That a voter was free when it was asked.
    VoteStalled,
    /// The same, with a holder that only the leader of before reaches.
    VoteRaced,
    /// That a node was free when it decided to campaign.
    LeftAlone,
    /// What a leader granted and did not log.
    GrantUnlogged,
    /// Which guard session a grant was for.
    MixedSessions,
    /// What an overtaken leader counted on.
    Overtaken,
    /// Who stands behind a lease, when the voters change.
    ExchangedVoters,
}

impl Scheme {
    pub(super) const ALL: &[Self] = &[
        Self::PromiseBeforeDisk,
        Self::RestartInPromise,
        Self::HandOverStalled,
        Self::SettlementStalled,
        Self::VoteStalled,
        Self::VoteRaced,
        Self::LeftAlone,
        Self::GrantUnlogged,
        Self::MixedSessions,
        Self::Overtaken,
        Self::ExchangedVoters,
    ];
}

/// Who takes part.
pub(crate) struct Cast {
    pub(crate) leader: usize,
    /// The other hosts that may vote, in an order of chance. One at least.
    pub(crate) others: Vec<usize>,
    /// All hosts.
    pub(crate) hosts: usize,
}

/// The faults of one scheme, from its beginning on.
pub(crate) struct Directed<'a> {
    rng: &'a mut fastrand::Rng,
    p: Duration,
    cast: Cast,
    faults: Vec<(Duration, Fault)>,
}

impl<'a> Directed<'a> {
    pub(crate) fn of(
        scheme: Scheme,
        rng: &'a mut fastrand::Rng,
        p: Duration,
        cast: Cast,
    ) -> Vec<(Duration, Fault)> {
        let mut made = Self { rng, p, cast, faults: vec![] };
        match scheme {
            Scheme::PromiseBeforeDisk => made.promise_before_disk(),
            Scheme::RestartInPromise => made.restart_in_promise(),
            Scheme::HandOverStalled => made.hand_over_stalled(),
            Scheme::SettlementStalled => made.settlement_stalled(),
            Scheme::VoteStalled => made.vote_stalled(),
            Scheme::VoteRaced => made.vote_raced(),
            Scheme::LeftAlone => made.left_alone(),
            Scheme::GrantUnlogged => made.grant_unlogged(),
            Scheme::MixedSessions => made.mixed_sessions(),
            Scheme::Overtaken => made.overtaken(),
            Scheme::ExchangedVoters => made.exchanged_voters(),
        }
        made.faults
    }

    fn push(&mut self, at: Duration, fault: Fault) {
        self.faults.push((at, fault));
    }

    /// Some time in promises.
    fn some(&mut self, low: f64, high: f64) -> Duration {
        span(self.rng, self.p.mul_f64(low), self.p.mul_f64(high))
    }

    fn between(&self, a: usize, b: usize) -> Vec<Link> {
        vec![(a, b), (b, a)]
    }

    /// All links of a host.
    fn around(&self, host: usize) -> Vec<Link> {
        (0..self.cast.hosts).filter(|h| *h != host).flat_map(|h| self.between(host, h)).collect()
    }

    fn other(&mut self) -> usize {
        self.cast.others[0]
    }

    /// The leader is cut off, another leads; the first one is back with a slow
    /// disk, becomes the only one that the second one hears, and dies.
    fn promise_before_disk(&mut self) {
        let (lost, next) = (self.cast.leader, self.other());
        let (away, rest) = (self.around(lost), self.around(next));
        let rest: Vec<Link> = rest.into_iter().filter(|(a, b)| *a != lost && *b != lost).collect();
        self.push(Duration::ZERO, Fault::Cut(away.clone()));
        let back = self.some(1.3, 2.5);
        let slow = self.some(0.3, 3.0);
        self.push(back, Fault::SlowDisk(lost, slow));
        self.push(back, Fault::Mend(away));
        let alone = back + self.some(0.02, 0.4);
        self.push(alone, Fault::Cut(rest.clone()));
        let killed = alone + self.some(0.02, 0.5);
        self.push(killed, Fault::Kill(lost, Processes::Agent));
        self.push(killed, Fault::SlowDisk(lost, Duration::ZERO));
        let end = killed + self.some(0.5, 2.0);
        self.push(end, Fault::Mend(rest));
    }

    /// A voter dies right after a promise, and somebody whom the leader does
    /// not reach asks for its vote.
    fn restart_in_promise(&mut self) {
        let leader = self.cast.leader;
        let candidate = self.other();
        let voter = *self.cast.others.last().unwrap_or(&candidate);
        let unheard = self.between(leader, candidate);
        self.push(Duration::ZERO, Fault::Cut(unheard.clone()));
        let at = self.some(0.9, 1.3);
        self.push(at, Fault::Kill(voter, Processes::Agent));
        let mut asked = at;
        for _ in 0..4 {
            asked += self.some(0.05, 0.3);
            self.push(asked, Fault::Elect(candidate, false));
        }
        let end = asked + self.p;
        self.push(end, Fault::Mend(unheard));
    }

    /// A drained leader closes its lease, and the word to its successor stands
    /// still until it leads again.
    fn hand_over_stalled(&mut self) {
        let (leader, next) = (self.cast.leader, self.other());
        self.push(Duration::ZERO, Fault::Drain(leader, true));
        // It moves its VIPs, then closes its lease, then stands still.
        let begin = self.some(0.01, 0.4);
        let stall = self.some(2.2, 4.5);
        self.push(begin, Fault::Stall(leader, stall));
        self.push(begin + self.p / 4, Fault::Stall(leader, Duration::ZERO));
        let mut undrained = begin + self.p;
        for _ in 0..3 {
            undrained += self.some(0.1, 0.3);
            self.push(undrained, Fault::Drain(leader, false));
        }
        // Whoever led in between is cut off, and comes back in time to elect.
        let away = self.around(next);
        self.push(undrained, Fault::Cut(away.clone()));
        let mut again = undrained + self.p;
        for _ in 0..3 {
            again += self.some(0.03, 0.3);
            self.push(again, Fault::Elect(leader, false));
        }
        self.push(again, Fault::Mend(away));
    }

    /// That what a leader holds ends with its lease is written down late: after
    /// another one led, granted it for longer, and gave leadership straight
    /// back. Then the first one is cut off.
    fn settlement_stalled(&mut self) {
        let (leader, holder) = (self.cast.leader, self.other());
        let rest: Vec<usize> = self.cast.others[1..].to_vec();
        self.push(Duration::ZERO, Fault::Move(holder));
        // Drained nodes lead only while nobody else can.
        for host in &rest {
            self.push(Duration::ZERO, Fault::Drain(*host, true));
        }
        let drained = self.some(0.2, 0.6);
        self.push(drained, Fault::Drain(leader, true));
        // It waits until what it was granted before has run out.
        let stall = self.some(1.2, 2.4);
        self.push(drained + self.p / 3, Fault::Stall(holder, stall));
        let taken = drained + self.some(1.5, 2.3);
        let away = self.around(holder);
        self.push(taken, Fault::Cut(away.clone()));
        self.push(taken, Fault::Stall(holder, Duration::ZERO));
        let back = taken + self.some(1.1, 1.5);
        self.push(back, Fault::Mend(away.clone()));
        // Its guard hears no more of the shorter deadline that a leader has.
        let frozen = back + self.some(0.01, 0.3);
        self.push(frozen, Fault::Freeze(holder, Processes::Guard));
        let gone = frozen + self.some(0.05, 0.5);
        self.push(gone, Fault::Cut(away.clone()));
        for host in rest.into_iter().chain([leader]) {
            self.push(gone, Fault::Drain(host, false));
        }
        let end = gone + self.some(1.5, 3.0);
        self.push(end, Fault::Thaw(holder, Processes::Guard));
        self.push(end, Fault::Mend(away));
    }

    /// A voter that does not hear the leader lets its promise end and is asked;
    /// before Raft gets to the question it hears the leader again.
    fn vote_stalled(&mut self) {
        let (leader, candidate) = (self.cast.leader, self.other());
        let voter = *self.cast.others.last().unwrap_or(&candidate);
        let unheard = self.between(leader, candidate);
        self.push(Duration::ZERO, Fault::Cut(unheard.clone()));
        let deaf = vec![(leader, voter)];
        self.push(Duration::ZERO, Fault::Cut(deaf.clone()));
        // What the leader sends just before its lease lapses comes late.
        let mended = self.some(0.6, 0.93);
        self.push(mended, Fault::Mend(deaf));
        let late = Weather { late: 0.7, spike: self.some(0.2, 0.8), ..Weather::FAIR };
        self.push(mended, Fault::Weather(late));
        let slow = self.some(0.05, 0.6);
        if chance(self.rng, 0.5) {
            self.push(mended, Fault::Stall(voter, slow));
        } else {
            self.push(mended, Fault::SlowDisk(voter, slow));
        }
        let mut asked = self.p.mul_f64(0.95);
        if chance(self.rng, 0.5) {
            for _ in 0..4 {
                asked += self.some(0.01, 0.1);
                self.push(asked, Fault::Elect(candidate, false));
            }
            asked += self.p;
        } else {
            asked += self.some(0.01, 0.35);
            self.push(asked, Fault::Elect(candidate, false));
            // Only the vote takes long, not what its leader then writes.
            asked += self.some(0.01, 0.1);
        }
        self.push(asked, Fault::SlowDisk(voter, Duration::ZERO));
        self.push(asked, Fault::Stall(voter, Duration::ZERO));
        let end = asked + self.p;
        self.push(end, Fault::Weather(Weather::FAIR));
        self.push(end, Fault::Mend(unheard));
    }

    /// The leader reaches its holder alone. One voter hears it late: after it said
    /// that it is free, before its vote for another, who does not reach the holder.
    fn vote_raced(&mut self) {
        let (leader, candidate) = (self.cast.leader, self.other());
        let voter = *self.cast.others.last().unwrap_or(&candidate);
        let rest = (0..self.cast.hosts).rev().filter(|h| ![leader, candidate, voter].contains(h));
        let rest: Vec<usize> = rest.collect();
        let Some((holder, rest)) = rest.split_first() else { return };
        self.push(Duration::ZERO, Fault::Move(*holder));
        let cut = self.some(0.4, 1.0);
        let mut unheard = self.between(leader, candidate);
        unheard.extend(self.between(candidate, *holder));
        unheard.extend(self.between(voter, *holder));
        for other in rest {
            unheard.extend(self.between(leader, *other));
        }
        let late = vec![(leader, voter)];
        self.push(cut, Fault::Cut([&unheard[..], &late].concat()));
        // Sent before the lease lapses, there when the promise of before is over.
        let sent = self.p.mul_f64(0.4 + 0.4 * self.rng.f64());
        let heard = self.p.mul_f64(1.01 + 0.1 * self.rng.f64());
        self.push(cut + sent, Fault::Slow(late.clone(), heard - sent));
        self.push(cut + sent, Fault::Mend(late.clone()));
        let stalled = self.p.mul_f64(0.05 + 0.3 * self.rng.f64());
        self.push(cut + sent, Fault::Stall(voter, stalled));
        let asked = self.p.mul_f64(0.98 + 0.1 * self.rng.f64());
        self.push(cut + asked, Fault::Elect(candidate, false));
        let voted = asked + stalled + self.p / 20;
        self.push(cut + voted, Fault::Stall(voter, Duration::ZERO));
        self.push(cut + voted, Fault::Slow(late, Duration::ZERO));
        self.push(cut + self.p * 4, Fault::Mend(unheard));
    }

    /// All voters but one go, and that one campaigns on a decision that is
    /// older than its last promise; it may be restarted when it has its own vote.
    fn left_alone(&mut self) {
        let alone = self.other();
        self.push(Duration::ZERO, Fault::Voters([node(alone)].into()));
        // Earlier it would still need others, and only end the change.
        let at = self.some(0.01, 0.3);
        self.push(at, Fault::Elect(alone, false));
        if chance(self.rng, 0.5) {
            let elected = at + self.some(0.001, 0.1);
            self.push(elected, Fault::Kill(alone, Processes::Agent));
        }
        let back = at + self.some(1.0, 4.0);
        let all: std::collections::BTreeSet<_> =
            self.cast.others.iter().copied().chain([self.cast.leader]).map(node).collect();
        self.push(back, Fault::Voters(all.clone()));
        self.push(back + self.p, Fault::Voters(all));
    }

    /// A leader dies, or is cut off, right after a first grant.
    fn grant_unlogged(&mut self) {
        let (leader, holder) = (self.cast.leader, self.other());
        let last = *self.cast.others.last().unwrap_or(&holder);
        if chance(self.rng, 0.5) {
            let slow = self.some(0.1, 1.0);
            self.push(Duration::ZERO, Fault::SlowDisk(leader, slow));
        }
        self.push(Duration::ZERO, Fault::Move(holder));
        let lost = self.some(0.005, 0.5);
        let away = self.around(leader);
        if chance(self.rng, 0.5) {
            self.push(lost, Fault::Kill(leader, Processes::Agent));
        }
        self.push(lost, Fault::Cut(away.clone()));
        if chance(self.rng, 0.5) {
            self.push(lost, Fault::Freeze(holder, Processes::Guard));
            self.push(lost + self.p * 3, Fault::Thaw(holder, Processes::Guard));
        }
        let mut moved = lost + self.p;
        for _ in 0..3 {
            moved += self.some(0.05, 0.6);
            self.push(moved, Fault::Move(last));
        }
        self.push(moved, Fault::Mend(away));
        self.push(moved, Fault::SlowDisk(leader, Duration::ZERO));
    }

    /// A new holder's guard is replaced while its first grant is on its way,
    /// then frozen, while the VIP moves on.
    fn mixed_sessions(&mut self) {
        let (host, other) = (self.other(), self.cast.leader);
        let late = Weather { late: 0.5, spike: self.p, ..Weather::FAIR };
        self.push(Duration::ZERO, Fault::Weather(late));
        self.push(Duration::ZERO, Fault::Move(host));
        let killed = self.some(0.01, 0.25);
        self.push(killed, Fault::Kill(host, Processes::Guard));
        let frozen = killed + self.some(0.1, 1.0);
        self.push(frozen, Fault::Freeze(host, Processes::Guard));
        let moved = frozen + self.some(0.01, 0.5);
        self.push(moved, Fault::Move(other));
        let end = moved + self.p * 2;
        self.push(end, Fault::Thaw(host, Processes::Guard));
        self.push(end, Fault::Weather(Weather::FAIR));
    }

    /// A leader is overtaken by a node that it did not reach, and campaigns
    /// again while its gate may still be open.
    fn overtaken(&mut self) {
        let (leader, other) = (self.cast.leader, self.other());
        let unheard = vec![(leader, other)];
        self.push(Duration::ZERO, Fault::Cut(unheard.clone()));
        let free = self.p.mul_f64(1.05 + self.rng.f64());
        self.push(free, Fault::Elect(other, false));
        self.push(free, Fault::Mend(unheard));
        let again = free + self.some(0.01, 0.5);
        self.push(again, Fault::Elect(leader, false));
        let moved = again + self.some(0.01, 0.25);
        self.push(moved, Fault::Move(other));
    }

    /// One voter takes another's place, and then a leader reaches only the one
    /// that went.
    fn exchanged_voters(&mut self) {
        let leader = self.cast.leader;
        let &[came, went, stays, ..] = self.cast.others.as_slice() else { return };
        let voters = |hosts: [usize; 3]| Fault::Voters(hosts.into_iter().map(node).collect());
        self.push(Duration::ZERO, voters([leader, went, stays]));
        let exchanged = self.some(0.25, 2.0);
        self.push(exchanged, voters([leader, came, stays]));
        let links = [self.between(came, leader), self.between(stays, leader)].concat();
        let cut = exchanged + self.some(0.05, 1.0);
        self.push(cut, Fault::Cut(links.clone()));
        self.push(cut + self.p * 3, Fault::Mend(links));
    }
}
