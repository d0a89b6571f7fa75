//! What is seen of this node here.

use crate::membership::Seat;
use crate::node::Member;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use vip_core::{Epoch, Frontage, Mono, NoClients, State};

/// What the log said of VIPs that were asked for, for as long as it does not change. Only
/// VIPs that there are have a place.
#[derive(Default)]
struct Known {
    state: Arc<State>,
    of: HashMap<String, Frontage>,
}

/// See the module.
pub(super) struct Sight {
    pub(super) seat: Arc<Seat>,
    known: Mutex<Known>,
}

/// Why no clients are to come here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Elsewhere {
    /// `vipctl init` or `join` was not yet.
    #[error("this node is in no cluster")]
    NoMember,
    /// There is a cluster.
    #[error(transparent)]
    Log(#[from] NoClients),
}

impl Sight {
    pub(super) fn of(seat: Arc<Seat>) -> Self {
        Self { seat, known: Mutex::default() }
    }

    fn frontage(&self, member: &Member, name: &str) -> Result<Frontage, NoClients> {
        let state = member.log.state();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&known.state, &state) {
            *known = Known { state, of: HashMap::new() };
        }
        if let Some(frontage) = known.of.get(name) {
            return Ok(frontage.clone());
        }
        let frontage = Frontage::of(&known.state, member.meta.node, name)?;
        known.of.insert(name.to_owned(), frontage.clone());
        Ok(frontage)
    }

    /// The epoch under which clients of a VIP are served here.
    pub(super) fn takes_clients(&self, name: &str) -> Result<Epoch, Elsewhere> {
        let member = self.seat.member().ok_or(Elsewhere::NoMember)?;
        let frontage = self.frontage(&member, name)?;
        Ok(member.leases.takes_clients(&frontage)?)
    }

    /// Until when they are, if nothing changes.
    pub(super) fn takes_clients_until(&self, member: &Member, name: &str) -> Option<Mono> {
        let frontage = self.frontage(member, name).ok()?;
        let taken = member.leases.takes_clients(&frontage).is_ok();
        taken.then(|| member.leases.answers_until(&frontage)).flatten()
    }

    /// The names of all VIPs.
    pub(super) fn names(&self) -> Vec<String> {
        let Some(member) = self.seat.member() else { return vec![] };
        let state = member.log.state();
        state.vips_by_name().iter().map(|vip| vip.spec.name.to_string()).collect()
    }
}
