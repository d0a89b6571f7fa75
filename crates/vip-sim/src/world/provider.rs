//! Whoever has to be told where VIPs are. It is slow; until all is healed its answers get
//! lost, after it did what it was asked; it refuses whoever asks too often; and what it says
//! may be what was true a while ago.

use super::due::{Reached, What};
use super::{World, micros};
use crate::agent::Input;
use crate::clock::Real;
use crate::invariant::{late_call_never_wins, later_counts};
use crate::scenario::Manners;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use vip_core::{CallId, CloudReply, Epoch, Verb, VipUid};

/// One answer in so many is lost.
const LOST: u32 = 5;
/// One call in so many is refused, where any is.
const REFUSED: u32 = 3;
/// Until a host has taken back what it announced, in promises: it may hear late that another one
/// is assigned, and each of two calls is slow.
const TAKEN_BACK: u32 = 16;
/// Longest that it takes until something is done, and until that is heard, in promises.
const SLOW: u32 = 2;

/// Where an address is.
#[derive(Clone, Copy, Debug)]
struct Place {
    host: Option<usize>,
    revision: u64,
    /// Of which VIP, and under which epoch of it, it was told so.
    by: (VipUid, Epoch),
}

/// Before anything was told.
const NOWHERE: Place = Place { host: None, revision: 0, by: (VipUid(0), Epoch(0)) };

/// What a host announces.
#[derive(Clone, Copy, Debug)]
struct Announced {
    rank: u64,
    since: Real,
}

#[derive(Debug, Default)]
pub(super) struct Provider {
    places: BTreeMap<IpAddr, Place>,
    /// What was before the last change, and until when it may say so.
    before: BTreeMap<IpAddr, (Place, Real)>,
    /// With which rank each host announces an address.
    announced: BTreeMap<(IpAddr, usize), Announced>,
    /// Changes that were done.
    pub(super) done: u64,
}

impl World {
    /// An agent asks or tells it something.
    pub(super) fn call(
        &mut self,
        at: usize,
        (id, ip, epoch): (CallId, IpAddr, Epoch),
        (verb, announced): (Verb, Option<u64>),
        limit: Duration,
    ) {
        let Some(manners) = self.scenario.called else { return };
        let run = self.hosts[at].agent_run;
        let takes = self.slowly();
        let troubled = self.now < self.scenario.healed_at;
        if troubled && manners.refuses && self.rng.u32(0..REFUSED) == 0 {
            let reply = CloudReply::Busy("throttled".to_owned());
            self.after(takes, at, What::Agent { run, input: Input::Called(id, reply) });
            return;
        }
        let lost = troubled && self.rng.u32(0..LOST) == 0;
        if lost {
            let reply = CloudReply::Failed("no answer".to_owned());
            self.after(limit, at, What::Agent { run, input: Input::Called(id, reply) });
        }
        let reached = Reached { run, id, ip, epoch, verb, announced, lost };
        self.after(takes, at, What::Provider(Box::new(reached)));
    }

    fn slowly(&mut self) -> Duration {
        let longest = u64::try_from((self.timing.promise * SLOW).as_micros()).unwrap_or(u64::MAX);
        // Most are quick.
        let longest = if self.rng.bool() { longest / 20 } else { longest };
        micros(&mut self.rng, 100..longest)
    }

    /// It comes to a call of `at`'s, whatever became of the caller.
    pub(super) fn provider(&mut self, at: usize, reached: &Reached) {
        let Reached { run, id, ip, verb, announced, lost, .. } = reached;
        let place = self.provider.places.get(ip).copied().unwrap_or(NOWHERE);
        let reply = match (verb, *announced) {
            // It is on the same host, and hears no more of a process that ended.
            (_, Some(_)) if self.hosts[at].agent_run != *run => return,
            (_, Some(rank)) => {
                let others = self.provider.announced.iter().filter(|((_, host), _)| *host != at);
                let mut same = others.filter(|((of, _), other)| of == ip && other.rank == rank);
                let same = same.next().map(|((_, host), _)| *host);
                self.check(later_counts(self.now, (*ip, at), rank, same));
                self.provider.announce((*ip, at), verb, Announced { rank, since: self.now })
            }
            (verb, None) => self.told((at, reached), verb, place),
        };
        self.trace(at, &(id, verb, &reply));
        if !lost {
            let (run, input) = (*run, Input::Called(*id, reply));
            let takes = self.slowly();
            self.after(takes, at, What::Agent { run, input });
        }
    }

    /// The one that there is for all.
    fn told(&mut self, (at, reached): (usize, &Reached), verb: &Verb, place: Place) -> CloudReply {
        let Some(manners) = self.scenario.called else { return CloudReply::Done };
        let Reached { id, ip, epoch, .. } = reached;
        match verb {
            Verb::Observe => {
                let before = self.provider.before.get(ip).copied();
                let old = before.filter(|(_, until)| self.now < *until && self.rng.bool());
                let Place { host, revision, .. } = old.map_or(place, |(old, _)| old);
                if host == Some(at) {
                    CloudReply::Here
                } else {
                    CloudReply::Elsewhere(revision.to_string())
                }
            }
            Verb::Take(token) if manners.conditional && *token != place.revision.to_string() => {
                CloudReply::Failed("it changed since".to_owned())
            }
            Verb::Take(_) => {
                if manners.conditional {
                    let result =
                        late_call_never_wins(self.now, (*ip, at), place.by, (id.vip, *epoch));
                    self.check(result);
                }
                let (revision, by) = (place.revision + 1, (id.vip, *epoch));
                self.put(*ip, Place { host: Some(at), revision, by });
                CloudReply::Done
            }
            Verb::Release if place.host == Some(at) => {
                self.put(*ip, Place { host: None, revision: place.revision + 1, ..place });
                CloudReply::Done
            }
            Verb::Release => CloudReply::Done,
        }
    }

    /// An agent begins, or its host is off: what an earlier run left is announced no more.
    pub(super) fn begins(&mut self, at: usize) {
        self.provider.announced.retain(|(_, host), _| *host != at);
    }

    fn put(&mut self, ip: IpAddr, place: Place) {
        self.provider.done += 1;
        let lag = self.scenario.called.map(|Manners { lag, .. }| lag).unwrap_or_default();
        let before = self.provider.places.insert(ip, place).unwrap_or(NOWHERE);
        self.provider.before.insert(ip, (before, self.now.plus(lag)));
    }

    /// Where it says that an address is.
    pub(super) fn provided(&self, ip: IpAddr) -> Option<usize> {
        if self.scenario.called.is_some_and(|manners| manners.announces) {
            return self.provider.preferred(ip, self.now, self.timing.promise * TAKEN_BACK);
        }
        self.provider.places.get(&ip)?.host
    }
}

impl Provider {
    /// What a host's own is told.
    fn announce(&mut self, key: (IpAddr, usize), verb: &Verb, told: Announced) -> CloudReply {
        let here = self.announced.get(&key).copied();
        let (rank, known) = (told.rank, here);
        let here = here.map(|here| here.rank);
        match verb {
            Verb::Observe if here == Some(rank) => return CloudReply::Here,
            Verb::Observe => return CloudReply::Elsewhere(format!("{here:?}")),
            Verb::Take(_) => {
                let same = known.filter(|known| known.rank == rank);
                self.announced.insert(key, same.unwrap_or(told));
            }
            Verb::Release if here.is_some_and(|here| here <= rank) => {
                self.announced.remove(&key);
            }
            Verb::Release => {}
        }
        self.done += 1;
        CloudReply::Done
    }

    /// What routers prefer: what was announced last. Where others have had `time` to take back
    /// what they announced before, and did not, one of those.
    fn preferred(&self, ip: IpAddr, now: Real, time: Duration) -> Option<usize> {
        let of_it = self.announced.iter().filter(|((of, _), _)| *of == ip);
        let ((_, best), last) = of_it.clone().max_by_key(|(_, announced)| announced.rank)?;
        let others = of_it.map(|((_, host), _)| *host).find(|host| host != best);
        others.filter(|_| last.since.plus(time) < now).or(Some(*best))
    }
}
