//! What a host forwards by is what the log said at some time, the same on every host, and
//! never goes back to what it said before.

use super::Violation;
use crate::clock::Real;
use crate::tables::{Sent, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use vip_core::{Flow, Forwarding, Generation, Server, ServerUid, State};

const RULE: &str = "tables_follow_the_log";

/// A virtual server as the log has it.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) forwarding: Forwarding,
    table: Table,
    before: Option<Table>,
}

impl Agreed {
    fn of(forwarding: Forwarding) -> Self {
        let (table, before) =
            (Table::of(&forwarding.plan), forwarding.before.as_ref().map(Table::of));
        Self { forwarding, table, before }
    }

    /// Where a connection goes that nobody remembers.
    pub(crate) fn unknown(&self, flow: Flow) -> Sent {
        let at = |table: &Table| table.at(flow, &self.forwarding);
        let places = self.forwarding.places();
        let before = self.before.as_ref().and_then(at).filter(|place| places.contains(place));
        before.or_else(|| at(&self.table)).map_or(Sent::Nowhere, Sent::To)
    }
}

#[derive(Default)]
pub(crate) struct TablesFollowTheLog {
    agreed: BTreeMap<(ServerUid, Generation), Agreed>,
    latest: Option<Arc<State>>,
    index: usize,
    /// By host, since its guard started.
    in_force: BTreeMap<(usize, ServerUid), Generation>,
    put: u64,
}

impl TablesFollowTheLog {
    /// A node has this state, up to this entry.
    pub(crate) fn applied(&mut self, index: usize, state: &Arc<State>) {
        if index <= self.index {
            return;
        }
        (self.index, self.latest) = (index, Some(state.clone()));
        for server in state.all_servers() {
            let key = (server.uid, server.generation);
            if !self.agreed.contains_key(&key)
                && let Some(all) = Forwarding::of(state, server, &BTreeMap::new())
            {
                self.agreed.insert(key, Agreed::of(all));
            }
        }
    }

    /// The virtual servers that there are.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.latest.iter().flat_map(|state| state.all_servers())
    }

    /// The log's time.
    pub(crate) fn time_ms(&self) -> u64 {
        self.latest.as_ref().map_or(0, |state| state.time_ms)
    }

    /// One of them, as the log has it now.
    pub(crate) fn agreed(&self, server: ServerUid) -> Option<&Agreed> {
        let now = self.latest.as_ref()?.server(server)?;
        self.agreed.get(&(server, now.generation))
    }

    /// The same as it was.
    pub(crate) fn agreed_once(&self, server: ServerUid, then: Generation) -> Option<&Agreed> {
        self.agreed.get(&(server, then))
    }

    /// How many tables were put in force.
    pub(crate) fn put(&self) -> u64 {
        self.put
    }

    /// A guard starts with nothing.
    pub(crate) fn guard_started(&mut self, host: usize) {
        self.in_force.retain(|(at, _), _| *at != host);
    }

    /// A host forwards so from now on.
    pub(crate) fn in_force(
        &mut self,
        at: Real,
        host: usize,
        server: ServerUid,
        forwarding: &Forwarding,
    ) -> Result<(), Violation> {
        let generation = forwarding.generation;
        let no = |what| Err(Violation { rule: RULE, at, what });
        self.put += 1;
        let before = self.in_force.insert((host, server), generation);
        if before.is_some_and(|before| before > generation) {
            return no(format!("host {host}: {server} goes back from {before:?} to {generation}"));
        }
        match self.agreed.get(&(server, generation)) {
            Some(agreed) if agreed.forwarding == *forwarding => Ok(()),
            agreed => no(format!("host {host} has {forwarding:?} of {server}, not {agreed:?}")),
        }
    }

    /// A host answers for a VIP, and has no table of a virtual server that its agent knew
    /// when its guard was used first.
    pub(crate) fn opened_without(
        &self,
        at: Real,
        host: usize,
        server: ServerUid,
    ) -> Result<(), Violation> {
        if self.agreed(server).is_none() {
            return Ok(());
        }
        let what = format!("host {host} answers for the VIP of {server}, without a table");
        Err(Violation { rule: RULE, at, what })
    }

    /// A host forwards nothing of it any more.
    pub(crate) fn dropped(
        &mut self,
        at: Real,
        host: usize,
        server: ServerUid,
    ) -> Result<(), Violation> {
        self.in_force.remove(&(host, server));
        match self.latest.as_ref().and_then(|state| state.server(server)) {
            None => Ok(()),
            Some(_) => {
                let what = format!("host {host} drops {server}, which is there");
                Err(Violation { rule: RULE, at, what })
            }
        }
    }
}
