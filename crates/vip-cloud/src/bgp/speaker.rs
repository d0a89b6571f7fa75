//! What is asked of the speaker, one thing at a time.

use super::api::gobgp_api_client::GobgpApiClient;
use super::api::peer_state::SessionState;
use super::api::{
    AddPathRequest, DeletePathRequest, GetBgpRequest, ListPathRequest, ListPeerRequest, Path, Peer,
    TableLookupPrefix, TableType,
};
use super::route::{Known, family, known, prefix};
use crate::Finding;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// It is on this host: what takes longer hangs.
const ANSWER: Duration = Duration::from_secs(1);
/// More are not read.
const MAX_ROUTES: usize = 10_000;
const MAX_NEIGHBOURS: usize = 256;

#[derive(Debug)]
pub(super) struct Speaker {
    place: String,
    /// Or why there is none.
    client: Result<GobgpApiClient<Channel>, String>,
}

/// A router that the speaker is to talk to.
#[derive(Debug)]
pub(super) struct Neighbour {
    address: String,
    session: SessionState,
    families: Vec<super::api::Family>,
    keeps_routes: bool,
}

impl Speaker {
    pub(super) fn at(place: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{place}"));
        let endpoint = endpoint.map_err(|_| format!("cloud.bgp.api: {place:?} is no address"));
        let client = endpoint.map(|endpoint| {
            let endpoint = endpoint.connect_timeout(ANSWER).timeout(ANSWER);
            GobgpApiClient::new(endpoint.connect_lazy())
        });
        Self { place: place.to_owned(), client }
    }

    fn client(&self) -> Result<GobgpApiClient<Channel>, String> {
        self.client.clone()
    }

    fn why(&self, status: &tonic::Status) -> String {
        let mut cause = std::error::Error::source(status);
        while let Some(next) = cause.and_then(std::error::Error::source) {
            cause = Some(next);
        }
        let why = cause.map_or_else(|| status.message().to_owned(), ToString::to_string);
        crate::one_line(&format!("gobgpd at {}: {why}", self.place))
    }

    /// Who it is, as a sentence begins.
    pub(super) async fn who(&self) -> Result<String, String> {
        let asked = self.client()?.get_bgp(GetBgpRequest {}).await;
        let global = asked.map_err(|e| self.why(&e))?.into_inner().global.unwrap_or_default();
        if global.asn == 0 {
            return Err(format!("gobgpd at {} has no configuration", self.place));
        }
        let text = format!("gobgpd at {}, AS {}, {}", self.place, global.asn, global.router_id);
        Ok(crate::one_line(&text))
    }

    pub(super) async fn neighbours(&self) -> Result<Vec<Neighbour>, String> {
        let asked = self.client()?.list_peer(ListPeerRequest {}).await;
        let mut stream = asked.map_err(|e| self.why(&e))?.into_inner();
        let mut all = vec![];
        while let Some(one) = stream.message().await.map_err(|e| self.why(&e))? {
            all.extend(one.peer.map(Neighbour::of));
            if all.len() > MAX_NEIGHBOURS {
                return Err(format!("gobgpd has more than {MAX_NEIGHBOURS} neighbours"));
            }
        }
        Ok(all)
    }

    /// The routes of ours that it has of itself: to one address, or all.
    pub(super) async fn routes(&self, ip: Option<IpAddr>) -> Result<Vec<Known>, String> {
        let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let families = ip.as_ref().map_or(&all[..], std::slice::from_ref);
        let mut found = vec![];
        for of in families {
            let prefixes = ip.map(|ip| TableLookupPrefix { prefix: prefix(ip) });
            let request = ListPathRequest {
                table_type: TableType::Global.into(),
                family: Some(family(*of)),
                prefixes: prefixes.into_iter().collect(),
            };
            let asked = self.client()?.list_path(request).await;
            let mut stream = asked.map_err(|e| self.why(&e))?.into_inner();
            while let Some(one) = stream.message().await.map_err(|e| self.why(&e))? {
                let paths = one.destination.map(|to| to.paths).unwrap_or_default();
                found.extend(paths.iter().filter_map(known));
                if found.len() > MAX_ROUTES {
                    return Err(format!("gobgpd has more than {MAX_ROUTES} routes to VIPs"));
                }
            }
        }
        Ok(found)
    }

    /// In place of what was announced to the same address.
    pub(super) async fn announce(&self, path: Path) -> Result<(), String> {
        let request = AddPathRequest { table_type: TableType::Global.into(), path: Some(path) };
        self.client()?.add_path(request).await.map(|_| ()).map_err(|e| self.why(&e))
    }

    pub(super) async fn withdraw(&self, route: &Known) -> Result<(), String> {
        let (family, path) = (route.path.family, Some(route.path.clone()));
        let request = DeletePathRequest { table_type: TableType::Global.into(), family, path };
        self.client()?.delete_path(request).await.map(|_| ()).map_err(|e| self.why(&e))
    }
}

impl Neighbour {
    fn of(peer: Peer) -> Self {
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

    pub(super) fn hears_of(&self, ip: IpAddr) -> bool {
        self.is_established() && self.families.contains(&family(ip))
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
