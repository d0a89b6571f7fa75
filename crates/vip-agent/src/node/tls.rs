//! TLS with the certificate of now, of this node as server and as client.

use super::MemberError;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;
use vip_core::NodeId;
use vip_pki::{
    ClientConfig, Connector, NodeIdentity, ServerConfig, SharedRoster, asking_config,
    client_config, node_server_name, renewal_config, server_config,
};
use vip_proto::{ALPN_GRPC, ALPN_LEASE};
use vip_raft::Dial;

/// How long TCP and TLS may take between members: elections wait for it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The same for what nobody's VIP waits for: joining and renewing must do on a
/// machine that is busy for seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The configurations by one certificate.
pub(super) struct Configs {
    /// The key (SPKI hash) of the CA that signed it.
    pub(super) issuer: Option<String>,
    /// From when until when it is valid, seconds since 1970.
    pub(super) validity: Option<(i64, i64)>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) grpc: Arc<ClientConfig>,
    pub(super) renewal: Arc<ClientConfig>,
    pub(super) asking: Arc<ClientConfig>,
    pub(super) lease: Arc<ClientConfig>,
}

impl Configs {
    pub(super) fn of(identity: &NodeIdentity, roster: &SharedRoster) -> Result<Self, MemberError> {
        let tls = MemberError::Tls;
        let both: [&[u8]; 2] = [ALPN_GRPC, ALPN_LEASE];
        Ok(Self {
            issuer: identity.issuer(),
            validity: identity.validity(),
            server: server_config(identity, roster.clone(), &both).map_err(tls)?,
            grpc: client_config(identity, roster.clone(), ALPN_GRPC).map_err(tls)?,
            renewal: renewal_config(identity, roster.clone(), ALPN_GRPC).map_err(tls)?,
            asking: asking_config(identity, roster.clone(), ALPN_GRPC).map_err(tls)?,
            lease: client_config(identity, roster.clone(), ALPN_LEASE).map_err(tls)?,
        })
    }
}

/// Those of now, for all that connect.
#[derive(Clone)]
pub(super) struct Tls {
    configs: Arc<ArcSwap<Configs>>,
    cluster: Arc<str>,
}

impl Tls {
    pub(super) fn of(configs: Configs, cluster: &str) -> Self {
        Self { configs: Arc::new(ArcSwap::from_pointee(configs)), cluster: cluster.into() }
    }

    pub(super) fn now(&self) -> Arc<Configs> {
        self.configs.load_full()
    }

    /// From now on these, also for connections to come.
    pub(super) fn set(&self, configs: Configs) {
        self.configs.store(Arc::new(configs));
    }

    /// Makes channels that connect when they are used, by the certificate of then.
    pub(super) fn dialer(
        &self,
        unacknowledged: Duration,
        pick: fn(&Configs) -> Arc<ClientConfig>,
    ) -> Dial {
        let tls = self.clone();
        Arc::new(move |node, address| {
            let connector = Connector {
                address: address.to_owned(),
                server_name: node_server_name(node, &tls.cluster),
                config: pick(&tls.configs.load()),
                timeout: CONNECT_TIMEOUT,
                unacknowledged,
            };
            let configs = tls.configs.clone();
            connector.channel_with(move || pick(&configs.load()))
        })
    }

    /// A connection of its own, for what may take its time.
    pub(super) fn patient_channel(
        &self,
        node: NodeId,
        address: &str,
        pick: fn(&Configs) -> Arc<ClientConfig>,
    ) -> Channel {
        let connector = Connector {
            address: address.to_owned(),
            server_name: node_server_name(node, &self.cluster),
            config: pick(&self.configs.load()),
            timeout: PATIENCE,
            unacknowledged: PATIENCE,
        };
        connector.channel()
    }
}
