//! What is asked of the speaker, one thing at a time.

use super::api::gobgp_api_client::GobgpApiClient;
use super::api::{
    AddPathRequest, DeletePathRequest, GetBgpRequest, ListPathRequest, ListPeerRequest, Path,
    TableLookupPrefix, TableType,
};
use super::neighbour::Neighbour;
use super::route::{Known, address, family, known, prefix};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// It is on this host: what takes longer hangs.
const ANSWER: Duration = Duration::from_secs(1);
/// It may have a whole table of the Internet, and says all of it.
const ALL: Duration = Duration::from_secs(60);
/// More are not kept.
const MAX_ROUTES: usize = 10_000;
const MAX_NEIGHBOURS: usize = 256;

#[derive(Debug)]
pub(super) struct Speaker {
    place: String,
    /// Or why there is none.
    client: Result<GobgpApiClient<Channel>, String>,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody is there, and so nothing is announced.
    Gone(String),
    Other(String),
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Gone(why) | Trouble::Other(why) => why,
        }
    }
}

impl Speaker {
    pub(super) fn at(place: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{place}"));
        let endpoint = endpoint.map_err(|_| format!("cloud.bgp.api: {place:?} is no address"));
        let client = endpoint
            .map(|endpoint| GobgpApiClient::new(endpoint.connect_timeout(ANSWER).connect_lazy()));
        Self { place: place.to_owned(), client }
    }

    /// A whole answer, within a limit.
    async fn within<T>(
        &self,
        limit: Duration,
        asked: impl AsyncFnOnce(GobgpApiClient<Channel>) -> Result<T, tonic::Status>,
    ) -> Result<T, Trouble> {
        let client = self.client.clone().map_err(Trouble::Other)?;
        let at = |why: &dyn std::fmt::Display| {
            crate::one_line(&format!("gobgpd at {}: {why}", self.place))
        };
        match tokio::time::timeout(limit, asked(client)).await {
            Ok(answer) => answer.map_err(|status| {
                let mut cause: &dyn std::error::Error = &status;
                while let Some(next) = cause.source() {
                    cause = next;
                }
                let io = cause.downcast_ref::<std::io::Error>();
                if io.is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
                    return Trouble::Gone(at(cause));
                }
                let is_own = std::error::Error::source(&status).is_none();
                Trouble::Other(if is_own { at(&status.message()) } else { at(cause) })
            }),
            Err(_) => Err(Trouble::Other(at(&format!("no answer within {limit:?}")))),
        }
    }

    /// Who it is, as a sentence begins.
    pub(super) async fn who(&self) -> Result<String, Trouble> {
        let asked = self.within(ANSWER, async |mut client| client.get_bgp(GetBgpRequest {}).await);
        let global = asked.await?.into_inner().global.unwrap_or_default();
        if global.asn == 0 {
            let text = format!("gobgpd at {} has no configuration", self.place);
            return Err(Trouble::Other(text));
        }
        let text = format!("gobgpd at {}, AS {}, {}", self.place, global.asn, global.router_id);
        Ok(crate::one_line(&text))
    }

    pub(super) async fn neighbours(&self) -> Result<Vec<Neighbour>, Trouble> {
        let asked = async |mut client: GobgpApiClient<Channel>| {
            let mut stream = client.list_peer(ListPeerRequest {}).await?.into_inner();
            let mut all = vec![];
            while let Some(one) = stream.message().await? {
                all.extend(one.peer.map(Neighbour::of));
                if all.len() > MAX_NEIGHBOURS {
                    let text = format!("more than {MAX_NEIGHBOURS} neighbours");
                    return Err(tonic::Status::out_of_range(text));
                }
            }
            Ok(all)
        };
        self.within(ANSWER, asked).await
    }

    /// The routes of ours that it has of itself to an address.
    pub(super) async fn routes_to(&self, ip: IpAddr) -> Result<Vec<Known>, Trouble> {
        let routes = self.within(ANSWER, async |client| listed(client, ip, true).await).await?;
        Ok(routes.into_iter().map(|(_, route)| route).collect())
    }

    /// All routes of ours that it has of itself, of whatever it knows.
    pub(super) async fn all_routes(&self) -> Result<Vec<(IpAddr, Known)>, Trouble> {
        let mut found = vec![];
        let families: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        for of in families {
            match self.within(ALL, async |client| listed(client, of, false).await).await {
                Ok(routes) => found.extend(routes),
                // It has no table of that family.
                Err(Trouble::Other(why)) if why.contains("not supported") => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(found)
    }

    /// In place of what was announced to the same address.
    pub(super) async fn announce(&self, path: Path) -> Result<(), Trouble> {
        let request = AddPathRequest { table_type: TableType::Global.into(), path: Some(path) };
        let asked = self.within(ANSWER, async |mut client| client.add_path(request).await);
        asked.await.map(|_| ())
    }

    pub(super) async fn withdraw(&self, route: &Known) -> Result<(), Trouble> {
        let (family, path) = (route.path.family, Some(route.path.clone()));
        let request = DeletePathRequest { table_type: TableType::Global.into(), family, path };
        let asked = self.within(ANSWER, async |mut client| client.delete_path(request).await);
        asked.await.map(|_| ())
    }
}

/// Of an address's family: those to it alone, or all.
async fn listed(
    mut client: GobgpApiClient<Channel>,
    ip: IpAddr,
    alone: bool,
) -> Result<Vec<(IpAddr, Known)>, tonic::Status> {
    let prefixes = alone.then(|| TableLookupPrefix { prefix: prefix(ip) });
    let request = ListPathRequest {
        table_type: TableType::Global.into(),
        family: Some(family(ip)),
        prefixes: prefixes.into_iter().collect(),
    };
    let mut stream = client.list_path(request).await?.into_inner();
    let mut found = vec![];
    while let Some(one) = stream.message().await? {
        let Some(to) = one.destination else { continue };
        let Some(ip) = address(&to.prefix) else { continue };
        found.extend(to.paths.iter().filter_map(known).map(|route| (ip, route)));
        if found.len() > MAX_ROUTES {
            let text = format!("more than {MAX_ROUTES} routes to VIPs");
            return Err(tonic::Status::out_of_range(text));
        }
    }
    Ok(found)
}
