//! What happened to the cluster, as `vipctl events` shows it.

use crate::{ClusterEvent, LoginEvent, NodeEvent, ServerEvent, TokenEvent, VipEvent};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// One thing that happened, by subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// To the cluster as a whole.
    Cluster(ClusterEvent),
    /// To a member.
    Node(NodeEvent),
    /// To a join token.
    Token(TokenEvent),
    /// To somebody's certificates.
    Login(LoginEvent),
    /// To a VIP.
    Vip(VipEvent),
    /// To a virtual server.
    Server(ServerEvent),
}

impl From<ClusterEvent> for EventKind {
    fn from(event: ClusterEvent) -> Self {
        Self::Cluster(event)
    }
}

impl From<NodeEvent> for EventKind {
    fn from(event: NodeEvent) -> Self {
        Self::Node(event)
    }
}

impl From<TokenEvent> for EventKind {
    fn from(event: TokenEvent) -> Self {
        Self::Token(event)
    }
}

impl From<LoginEvent> for EventKind {
    fn from(event: LoginEvent) -> Self {
        Self::Login(event)
    }
}

impl From<VipEvent> for EventKind {
    fn from(event: VipEvent) -> Self {
        Self::Vip(event)
    }
}

impl From<ServerEvent> for EventKind {
    fn from(event: ServerEvent) -> Self {
        Self::Server(event)
    }
}

/// An entry of the event list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up by one.
    pub seq: u64,
    /// Log time, ms since 1970.
    pub time_ms: u64,
    /// Who caused it: `root@n1`, `leader`, …
    pub actor: String,
    /// What happened.
    pub what: EventKind,
}

/// Events of VIPs that are kept: some days of trouble, and still a small snapshot.
const OF_VIPS: usize = 1000;
/// Of virtual servers: as many.
const OF_SERVERS: usize = 1000;
/// Of any other subject. None of them erases another's.
const OF_OTHERS: usize = 250;

/// One subject's, oldest first.
type Kept = Arc<VecDeque<Arc<Event>>>;

fn is_empty(kept: &Kept) -> bool {
    kept.is_empty()
}

/// The events that are kept, by subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    cluster: Kept,
    node: Kept,
    token: Kept,
    login: Kept,
    vip: Kept,
    /// Absent where nobody used it.
    #[serde(default, skip_serializing_if = "is_empty")]
    server: Kept,
    /// Of real servers that come and go by themselves: they may many times, and nothing
    /// else is forgotten for that.
    #[serde(default, skip_serializing_if = "is_empty")]
    health: Kept,
    /// How many there were.
    pub(super) count: u64,
}

impl Events {
    pub(super) fn record(&mut self, time_ms: u64, actor: &str, what: EventKind) {
        self.count += 1;
        let (kept, most) = match &what {
            EventKind::Cluster(_) => (&mut self.cluster, OF_OTHERS),
            EventKind::Node(_) => (&mut self.node, OF_OTHERS),
            EventKind::Token(_) => (&mut self.token, OF_OTHERS),
            EventKind::Login(_) => (&mut self.login, OF_OTHERS),
            EventKind::Vip(_) => (&mut self.vip, OF_VIPS),
            EventKind::Server(
                ServerEvent::RealUp { .. }
                | ServerEvent::Held { .. }
                | ServerEvent::RealDown { .. }
                | ServerEvent::Up { .. }
                | ServerEvent::Resolved { .. }
                | ServerEvent::Unresolved { .. }
                | ServerEvent::Down { .. },
            ) => (&mut self.health, OF_SERVERS),
            EventKind::Server(_) => (&mut self.server, OF_SERVERS),
        };
        let event = Event { seq: self.count, time_ms, actor: actor.to_owned(), what };
        let kept = Arc::make_mut(kept);
        kept.push_back(Arc::new(event));
        while kept.len() > most {
            kept.pop_front();
        }
    }

    /// Those after the one with this number, oldest first.
    #[must_use]
    pub fn after(&self, seq: u64) -> Vec<Arc<Event>> {
        let all = [
            &self.cluster,
            &self.node,
            &self.token,
            &self.login,
            &self.vip,
            &self.server,
            &self.health,
        ];
        let after = all.into_iter().flat_map(|kept| {
            let from = kept.partition_point(|event| event.seq <= seq);
            kept.range(from..).cloned()
        });
        let mut after: Vec<_> = after.collect();
        after.sort_by_key(|event| event.seq);
        after
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Event>> {
        self.after(0)
    }

    /// How many there ever were: the number of the latest.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_subject_erases_anothers_and_all_are_in_one_order() {
        let mut events = Events::default();
        events.record(1, "root@n1", ClusterEvent::IssuerRotated.into());
        let name: crate::Name = "web".parse().expect("a name");
        for time_ms in 0..2 * OF_VIPS as u64 {
            events.record(time_ms, "leader", VipEvent::Added { vip: name.clone() }.into());
        }
        events.record(1, "root@n1", ClusterEvent::IssuersRetired.into());
        let all = events.all();
        assert_eq!(all.len(), 2 + OF_VIPS);
        assert_eq!(all[0].seq, 1);
        assert!(all.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        let last: Vec<_> = events.after(events.latest() - 1).iter().map(|e| e.seq).collect();
        assert_eq!(last, [events.latest()]);
    }
}
