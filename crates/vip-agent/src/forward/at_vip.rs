//! Whether real servers of direct routing take what is sent to a VIP: the guard's part of a
//! probe.

use super::Forward;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use vip_core::{AtVip, AtVipQuestion, Failure, MAX_REALS_IN_ALL, Mono, Observed, State, Target};
use vip_guard::{ToGuard, boottime};

/// Questions that may wait for the reconciler.
pub(super) const ASKED: usize = 1024;
/// What was seen to be well is asked again after so long: an address of loopback seldom goes
/// by itself, and a probe each second need not be two.
const WELL_FOR: Duration = Duration::from_secs(30);
/// The guard may take so much longer to say that nothing came.
const GRACE: Duration = Duration::from_millis(500);

/// What a probe wants to know, and how long it waits.
pub(super) struct Asked {
    question: AtVipQuestion,
    limit: Duration,
    answer: oneshot::Sender<AtVip>,
}

/// The reconciler's end.
#[derive(Default)]
pub(super) struct Asking {
    /// The guard that is there knows such questions.
    pub(super) understood: bool,
    waiting: BTreeMap<AtVipQuestion, Vec<oneshot::Sender<AtVip>>>,
}

impl Asking {
    /// What the guard is asked, if it is.
    pub(super) fn ask(&mut self, asked: Asked) -> Option<ToGuard> {
        let Asked { question, limit, answer } = asked;
        if !self.understood {
            return None;
        }
        let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let waiting = self.waiting.entry(question).or_default();
        // Who waited in vain has the guard asked again.
        waiting.retain(|answer| !answer.is_closed());
        waiting.push(answer);
        (waiting.len() == 1).then_some(ToGuard::AskAtVip(question, limit_ms))
    }

    pub(super) fn answered(&mut self, question: AtVipQuestion, answer: AtVip) {
        for waits in self.waiting.remove(&question).into_iter().flatten() {
            let _ = waits.send(answer);
        }
    }

    /// Nobody answers any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

/// What came of questions last, and when.
#[derive(Default)]
pub(crate) struct LastAtVips(Mutex<BTreeMap<AtVipQuestion, (Mono, AtVip)>>);

impl LastAtVips {
    fn of(&self, question: &AtVipQuestion) -> Option<(Mono, AtVip)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(question).copied()
    }

    fn is_now(&self, question: AtVipQuestion, answer: AtVip) {
        let now = boottime();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REALS_IN_ALL {
            known.retain(|_, (seen, _)| now.since(*seen) < WELL_FOR);
        }
        known.insert(question, (now, answer));
    }
}

impl Forward {
    async fn ask_at_vip(&self, question: AtVipQuestion, limit: Duration) -> AtVip {
        let (answer, answered) = oneshot::channel();
        if self.at_vip.try_send(Asked { question, limit, answer }).is_err() {
            return AtVip::NotAsked;
        }
        timeout(limit + GRACE, answered).await.ok().and_then(Result::ok).unwrap_or(AtVip::NotAsked)
    }

    /// The rest of a probe of a real server that is well by itself: of direct routing it has to
    /// take what is sent to the VIP as well.
    ///
    /// # Errors
    /// [`Failure::There`]: it does not.
    pub(crate) async fn probe_at_vip(
        &self,
        state: &State,
        (observed, target): (Observed, &Target),
        freshly: bool,
    ) -> Result<(), Failure> {
        let check = (&*target.kind, target.at.port());
        let others = || state.is_seen_down(&observed);
        for question in state.at_vip(observed.server, observed.ip, target.at.port()) {
            let last = self.last_at_vips.of(&question);
            let is_well =
                |(seen, last)| last == AtVip::Accepts && boottime().since(seen) < WELL_FOR;
            // Who is the first to see an end must not be taken for one that is cut off.
            if !freshly && last.is_some_and(is_well) && !others() {
                continue;
            }
            let answer = self.ask_at_vip(question, target.timing.timeout).await;
            if answer == AtVip::NotAsked {
                let failed = |(_, last)| question.failure(last, check).is_some();
                match last.filter(|last| failed(*last)) {
                    // That it cannot be asked just now mends nothing.
                    Some(_) => {
                        let why = "its guard cannot ask just now whether it takes what is sent to the VIP";
                        return Err(Failure::Here(why.to_owned()));
                    }
                    None => continue,
                }
            }
            self.last_at_vips.is_now(question, answer);
            if let Some(why) = question.failure(answer, check) {
                return Err(Failure::There(why));
            }
        }
        Ok(())
    }
}

/// A channel of questions.
pub(super) fn questions() -> (mpsc::Sender<Asked>, mpsc::Receiver<Asked>) {
    mpsc::channel(ASKED)
}
