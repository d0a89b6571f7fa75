//! The second lane between agent and guard: the tables of virtual servers. It may be
//! slow, or stand still, and no deadline of a VIP waits for it.
//!
//! Its orders are level-triggered: the guard says what is in force, first of all when an
//! agent comes, and the agent orders what differs from what is wanted. So an order that
//! a later one of the same server overtook is not missed.

use crate::{Generation, ServerUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the agent wants of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableOrder {
    /// This virtual server is none any more.
    Drop(ServerUid),
}

impl TableOrder {
    /// Whose table it is about.
    #[must_use]
    pub fn server(&self) -> ServerUid {
        match self {
            Self::Drop(server) => *server,
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

/// What has to be ordered so that what is in force becomes what is wanted.
#[must_use]
pub fn table_orders(
    wanted: &BTreeMap<ServerUid, Generation>,
    in_force: &BTreeMap<ServerUid, Generation>,
) -> Vec<TableOrder> {
    let gone = in_force.keys().filter(|server| !wanted.contains_key(server));
    gone.copied().map(TableOrder::Drop).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wants_any_more_is_dropped() {
        let of = |servers: &[u64]| servers.iter().map(|s| (ServerUid(*s), Generation(1))).collect();
        let orders = table_orders(&of(&[2, 4]), &of(&[1, 2, 3]));
        assert_eq!(orders, [TableOrder::Drop(ServerUid(1)), TableOrder::Drop(ServerUid(3))]);
        assert_eq!(table_orders(&of(&[2]), &of(&[2])), []);
    }
}
