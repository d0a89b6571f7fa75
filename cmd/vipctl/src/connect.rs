//! Reaching the daemon: the local socket, or a context's node.

use crate::Failure;
use crate::contexts::Context;
use hyper_util::rt::TokioIo;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use vip_pki::{Connector, NodeIdentity, user_config};
use vip_proto::ALPN_GRPC;

/// A daemon that was just started appears within this time.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(5);
const APPEAR_POLL: Duration = Duration::from_millis(20);
/// For TCP and TLS each.
const REMOTE_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn local(socket: &Path) -> Result<Channel, Failure> {
    let until = Instant::now() + APPEAR_TIMEOUT;
    loop {
        match UnixStream::connect(socket).await {
            Ok(_) => break,
            // A daemon that starts does not mend that.
            Err(e) if e.kind() == ErrorKind::PermissionDenied || Instant::now() >= until => {
                return Err(Failure::Unreachable(format!(
                    "cannot reach vipd at {}: {e}. Is `vipd run` running, and are you root?",
                    socket.display()
                )));
            }
            Err(_) => tokio::time::sleep(APPEAR_POLL).await,
        }
    }
    let socket: PathBuf = socket.to_owned();
    let connector = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://vipd.invalid").connect_with_connector_lazy(connector))
}

pub(crate) async fn remote(context: &Context) -> Result<Channel, Failure> {
    let unusable = |e: String| Failure::Failed(format!("the context cannot be used: {e}"));
    let identity = NodeIdentity::from_pem(&context.key, context.chain.as_bytes())
        .map_err(|e| unusable(e.to_string()))?;
    let config = user_config(&identity, ALPN_GRPC).map_err(|e| unusable(e.to_string()))?;
    let connector = Connector {
        address: context.address.clone(),
        server_name: context.server_name.clone(),
        config,
        timeout: REMOTE_TIMEOUT,
        unacknowledged: REMOTE_TIMEOUT,
    };
    let channel = connector.connected_channel().await;
    channel.map_err(|e| Failure::Unreachable(format!("{:#}", anyhow::Error::from(e))))
}
