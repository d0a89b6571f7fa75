//! The second lane between agent and guard: the tables of virtual servers. It may be
//! slow, or stand still, and no deadline of a VIP waits for it.

use super::{AtVip, AtVipQuestion, Drops, Forwarding};
use crate::{Generation, Mono, ServerUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the agent wants of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableOrder {
    /// This virtual server is none any more.
    Drop(ServerUid),
    /// This one is to be forwarded so. What is in force already is left as it is.
    Put(ServerUid, Box<Forwarding>),
    /// The same, of one that resets.
    PutResetting(ServerUid, Box<Forwarding>),
}

impl TableOrder {
    /// That a virtual server is to be forwarded so.
    #[must_use]
    pub fn put(server: ServerUid, forwarding: Forwarding) -> Self {
        let resets = forwarding.resets;
        let all = Box::new(forwarding);
        if resets { Self::PutResetting(server, all) } else { Self::Put(server, all) }
    }

    /// What is to be forwarded, as it was ordered, with what the message leaves out.
    #[must_use]
    pub fn forwarding(self) -> Option<Forwarding> {
        match self {
            Self::Drop(_) => None,
            Self::Put(_, all) => Some(Forwarding { resets: false, ..*all }),
            Self::PutResetting(_, all) => Some(Forwarding { resets: true, ..*all }),
        }
    }

    /// As a guard is told that does not know how to reset.
    #[must_use]
    pub fn without_reset(self) -> Self {
        match self {
            Self::PutResetting(server, all) => Self::Put(server, all),
            other => other,
        }
    }

    /// Whose table it is about.
    #[must_use]
    pub fn server(&self) -> ServerUid {
        match self {
            Self::Drop(server) | Self::Put(server, _) | Self::PutResetting(server, _) => *server,
        }
    }

    /// What is in force once it is carried out.
    #[must_use]
    pub fn wanted(&self) -> Option<Generation> {
        match self {
            Self::Drop(_) => None,
            Self::Put(_, all) | Self::PutResetting(_, all) => Some(all.generation),
        }
    }

    /// How many real servers it names.
    #[must_use]
    pub fn reals(&self) -> usize {
        match self {
            Self::Drop(_) => 0,
            Self::Put(_, all) | Self::PutResetting(_, all) => {
                let plans = [Some(&all.plan), all.before.as_ref()];
                plans.into_iter().flatten().map(|plan| plan.reals().len()).sum()
            }
        }
    }
}

/// What the guard says of tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableNotice {
    /// All that is in force, when an agent came.
    AllInForce(BTreeMap<ServerUid, Generation>),
    /// An order was carried out.
    InForce {
        /// Of this virtual server.
        server: ServerUid,
        /// What is in force now, if anything is.
        generation: Option<Generation>,
    },
    /// An order was not carried out. What was in force is.
    Refused {
        /// Of this virtual server.
        server: ServerUid,
        /// What would be in force now.
        wanted: Option<Generation>,
        /// The rest of a sentence that begins with the virtual server.
        why: String,
    },
    /// What is in force has a flaw that no order mends, or has none any more.
    Flawed {
        server: ServerUid,
        /// What will not work, and why: the rest of a sentence.
        why: Option<String>,
    },
    /// What was forwarded for a virtual server, as was asked.
    Counted {
        server: ServerUid,
        /// By real server.
        reals: Vec<RealCount>,
    },
    /// When somebody last spoke by the table before, or since when that is the one before.
    Spoke {
        server: ServerUid,
        /// What is in force.
        generation: Generation,
        at: Mono,
    },
    /// What was dropped since the guard started, and why.
    Dropped(Drops),
    /// What came of a question.
    AtVip(AtVipQuestion, AtVip),
    /// Clients begin connections with these real servers of a virtual one, by address and port
    /// as in [`RealCount`], and nothing comes of it.
    Mute(ServerUid, Vec<(IpAddr, u16)>),
}

/// What was forwarded to a real server since it is one on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealCount {
    pub ip: IpAddr,
    /// Its own port; 0: the one that the client named.
    pub port: u16,
    pub counter: Counter,
}

/// What was forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// To the real server.
    pub packets: u64,
    pub bytes: u64,
    /// TCP connections that began.
    pub connections: u64,
    /// Packets from it, where they come back by this host.
    pub replies: u64,
}

/// How the guard's second lane does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCounters {
    /// Orders that were carried out since the guard began.
    pub done: u64,
    /// Orders that a later one took the place of before.
    pub overtaken: u64,
    /// Orders that wait.
    pub waiting: u32,
    /// For how many whole seconds there has been something to do, and nothing was
    /// done.
    pub behind_s: u32,
    /// It failed, and nothing is carried out until the guard begins anew.
    pub failed: bool,
}
