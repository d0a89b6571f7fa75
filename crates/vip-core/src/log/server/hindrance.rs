//! Why virtual servers are not forwarded on nodes as the log wants it, as those nodes say:
//! so that any node can tell of all, and that it can be read later when it was so.

use super::ServerEvent;
use crate::log::State;
use crate::log::reports::take_over;
use crate::{Name, NodeId, Outcome, ServerUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Of so many virtual servers the log keeps what hinders them on one node: a guard that
/// refuses one most often refuses all, and for one reason.
pub const MAX_HINDERED: usize = 64;
/// Bytes of a reason that are kept.
const MAX_WHY: usize = 240;

/// Why a virtual server is not forwarded on a node as the log wants it: the rest of a
/// sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hindrance {
    /// What is wanted is not in force.
    Refused(String),
    /// It is, and something of it will not work.
    Flawed(String),
}

impl Hindrance {
    /// As the log keeps it.
    #[must_use]
    pub fn cut(&self) -> Self {
        let short = |why: &str| why[..why.floor_char_boundary(MAX_WHY)].to_owned();
        match self {
            Self::Refused(why) => Self::Refused(short(why)),
            Self::Flawed(why) => Self::Flawed(short(why)),
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "is not forwarded as wanted: {why}"),
            Self::Flawed(why) => write!(f, "is forwarded, and {why}"),
        }
    }
}

/// What a node says: of which virtual server what hinders it there, or that nothing does
/// any more.
pub type Hindrances = BTreeMap<ServerUid, Option<Hindrance>>;

impl State {
    /// What the log has of what a node said.
    pub fn hindered_on(&self, node: NodeId) -> impl Iterator<Item = (ServerUid, &Hindrance)> {
        let all = self.hindrances.iter();
        all.filter_map(move |(server, nodes)| Some((*server, nodes.get(&node)?)))
    }

    /// The same of one virtual server.
    pub(crate) fn hindrance_said(&self, server: ServerUid, node: NodeId) -> Option<&Hindrance> {
        self.hindrances.get(&server)?.get(&node)
    }

    /// Of what a node says, what the log does not have: nothing else is worth an entry.
    #[must_use]
    pub fn news_of(&self, node: NodeId, said: Hindrances) -> Hindrances {
        let is_news = |(uid, what): &(ServerUid, Option<Hindrance>)| {
            self.server(*uid).is_some() && self.hindrance_said(*uid, node) != what.as_ref()
        };
        said.into_iter().filter(is_news).collect()
    }

    /// Takes over what a node says of itself. Those with one reason are one event.
    pub(super) fn hinder(&mut self, actor: &str, node: NodeId, said: &Hindrances) -> Outcome {
        if !self.nodes.contains_key(&node) {
            return Outcome::Unchanged;
        }
        let mut room = MAX_HINDERED.saturating_sub(self.hindered_on(node).count());
        let mut news: Vec<(Option<Hindrance>, Vec<Name>)> = vec![];
        for (uid, what) in said {
            let Some(server) = self.server(*uid) else { continue };
            let name = server.spec.name.clone();
            let what = what.as_ref().map(Hindrance::cut);
            if what.is_some() && self.hindrance_said(*uid, node).is_none() {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            if take_over(&mut self.hindrances, (*uid, node), what.as_ref()) {
                match news.iter_mut().find(|(known, _)| *known == what) {
                    Some((_, names)) => names.push(name),
                    None => news.push((what, vec![name])),
                }
            }
        }
        if news.is_empty() {
            return Outcome::Unchanged;
        }
        for (what, mut names) in news {
            let others = u32::try_from(names.len() - 1).unwrap_or(u32::MAX);
            let server = names.swap_remove(0);
            self.record(actor, ServerEvent::Hindered { server, others, node, what });
        }
        Outcome::Done
    }
}
