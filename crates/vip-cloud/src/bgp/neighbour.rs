//! A router that a speaker is to talk to.

use super::api::peer_state::SessionState;
use super::api::{Family, Peer};
use super::route::family;
use crate::Finding;
use std::net::IpAddr;

/// A router that the speaker is to talk to.
#[derive(Debug)]
pub(super) struct Neighbour {
    address: String,
    session: SessionState,
    families: Vec<Family>,
    keeps_routes: bool,
}

impl Neighbour {
    pub(super) fn of(peer: Peer) -> Self {
        let state = peer.state.unwrap_or_default();
        let enabled = peer.afi_safis.into_iter().filter_map(|one| one.config);
        Self {
            session: state.session_state(),
            address: crate::one_line(&state.neighbor_address),
            families: enabled.filter(|one| one.enabled).filter_map(|one| one.family).collect(),
            keeps_routes: peer.graceful_restart.is_some_and(|graceful| graceful.enabled),
        }
    }

    fn is_established(&self) -> bool {
        self.session == SessionState::Established
    }

    /// `by_session`: the session's own address is the next hop, which is of the same family
    /// then.
    pub(super) fn hears_of(&self, ip: IpAddr, by_session: bool) -> bool {
        let at = self.address.split('%').next().and_then(|text| text.parse::<IpAddr>().ok());
        let leads = !by_session || at.is_some_and(|at| at.is_ipv4() == ip.is_ipv4());
        self.is_established() && self.families.contains(&family(ip)) && leads
    }

    pub(super) fn examined(&self) -> Finding {
        match (self.is_established(), self.keeps_routes) {
            (false, _) => Finding::ill(format!("neighbour {self}")),
            (true, true) => Finding::ill(format!(
                "neighbour {self}; with graceful restart it keeps the routes of a speaker that is \
                 gone: turn that off"
            )),
            (true, false) => Finding::well(format!("neighbour {self}")),
        }
    }
}

impl std::fmt::Display for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let session = self.session.as_str_name().to_lowercase();
        write!(f, "{}: {session}", self.address)
    }
}
