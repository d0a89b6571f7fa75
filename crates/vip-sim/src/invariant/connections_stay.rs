//! A connection stays with its real server as long as that is one, whoever holds the VIP;
//! but for those that one holder alone knows, when it is another.

use super::Violation;
use super::tables_follow_the_log::Agreed;
use crate::clock::Real;
use crate::tables::{Place, Sent};
use std::net::IpAddr;
use vip_core::{Flow, Forwarding, Generation, ServerUid};

const RULE: &str = "connections_stay";

/// A client's.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) vip: IpAddr,
    pub(crate) port: u16,
    pub(crate) flow: Flow,
    pub(crate) server: ServerUid,
    pub(crate) real: Place,
    pub(crate) began: Generation,
    /// No table of the log leads there at some time since it began: who was not the holder
    /// then cannot know.
    pub(crate) known_to_holder_alone: bool,
    /// Who heard it last, and by what.
    pub(crate) heard: Option<(Holder, Generation)>,
}

/// A host, and which of its guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) host: usize,
    pub(crate) guard: u64,
}

impl Connection {
    /// The log has this now.
    pub(crate) fn log_says(&mut self, agreed: &Agreed) {
        if agreed.unknown(self.flow) != Sent::To(self.real) {
            self.known_to_holder_alone = true;
        }
    }

    /// Whether it has to stay, by what this holder has in force.
    fn is_owed(&self, holder: Holder, has: &Forwarding, agreed: &Agreed) -> bool {
        let is_real = |of: &Forwarding| {
            of.places().contains(&self.real) && of.vips.iter().any(|vip| vip.ip == self.vip)
        };
        if !is_real(has) || !is_real(&agreed.forwarding) {
            return false;
        }
        // One whose tables are behind at that moment has not heard of its server.
        let by_log = !self.known_to_holder_alone && has.generation >= self.began;
        // Whoever heard it by one generation knows it in the next.
        let heard = self
            .heard
            .is_some_and(|(by, generation)| by == holder && has.generation.0 <= generation.0 + 1);
        by_log || heard
    }

    /// A packet of it went there. Returns whether it lives.
    pub(crate) fn spoke(
        &mut self,
        at: Real,
        holder: Holder,
        has: Option<&Forwarding>,
        sent: Sent,
        agreed: Option<&Agreed>,
    ) -> Result<bool, Violation> {
        if sent == Sent::To(self.real) {
            self.heard = has.map(|has| (holder, has.generation));
            return Ok(true);
        }
        match has.zip(agreed) {
            Some((has, agreed)) if self.is_owed(holder, has, agreed) => {
                let what = format!("{holder:?} sends {sent:?} what is of {self:?}");
                Err(Violation { rule: RULE, at, what })
            }
            _ => Ok(false),
        }
    }
}
