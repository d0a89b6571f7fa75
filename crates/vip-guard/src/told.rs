//! What the agent knows of the second lane's work, and what of that work another program
//! of this process goes on from.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vip_core::{Drops, Generation, Mono, ServerUid};
use vip_datapath::LeftEngine;

/// What the agent knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Of what does not work.
    pub(crate) flawed: BTreeMap<ServerUid, String>,
    /// Of who goes by tables before.
    pub(crate) spoke: BTreeMap<ServerUid, (Generation, Mono)>,
    /// And of what was dropped.
    pub(crate) dropped: Drops,
}

/// The forwarder, for the next run of this process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeftForwarder {
    /// `None`: there is no gate.
    pub(crate) engine: Option<LeftEngine>,
    pub(crate) told: Told,
    /// Of whom the agent wants to know who is mute.
    pub(crate) listens: BTreeSet<ServerUid>,
}

#[cfg(test)]
impl LeftForwarder {
    /// One with something of everything.
    pub(crate) fn sample(engine: LeftEngine) -> Self {
        let (server, generation) = (ServerUid(1), Generation(2));
        let told = Told {
            flawed: [(server, "a word".into())].into(),
            spoke: [(server, (generation, Mono(3)))].into(),
            dropped: [(vip_core::DropReason::Shut, 4)].into(),
        };
        Self { engine: Some(engine), told, listens: [server].into() }
    }
}
