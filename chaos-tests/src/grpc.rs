//! gRPC by hand: for callers that no client library would be (gRPC over HTTP/2, "Requests"), and
//! a server that costs little.

use crate::net::Lab;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// `HealthCheckResponse { status: SERVING }`, in a message that is not compressed.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// A server in a host's namespace that is well, whatever it is asked (gRPC Health Checking
/// Protocol). It ends with the value.
#[derive(Debug)]
pub struct WellByGrpc(#[expect(dead_code, reason = "its tasks end with it")] Runtime);

impl WellByGrpc {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot listen there.
    pub fn start(lab: &Lab, host: &str, at: SocketAddr) -> Result<Self> {
        let bind = || {
            lab.enter(host)?;
            anyhow::Ok(std::net::TcpListener::bind(at)?)
        };
        let listener = std::thread::scope(|scope| scope.spawn(bind).join());
        let listener =
            listener.map_err(|_| anyhow::anyhow!("it panicked"))?.context("to listen")?;
        listener.set_nonblocking(true)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(async { TcpListener::from_std(listener) })?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Who goes away is not missed.
                tokio::spawn(async move { serve(stream).await.ok() });
            }
        });
        Ok(Self(runtime))
    }
}

async fn serve(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(asked) = connection.accept().await {
        let (_, mut respond) = asked?;
        let head = Response::builder().header("content-type", "application/grpc").body(());
        let Ok(head) = head else { continue };
        let mut body = respond.send_response(head, false)?;
        body.send_data(Bytes::from_static(SERVING), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        body.send_trailers(trailers)?;
    }
    Ok(())
}

/// A call of `method`, as in `vip.v1.Cluster/Join`; its headers may be added to.
pub(crate) fn call(method: &str) -> Builder {
    Request::builder()
        .version(Version::HTTP_2)
        .method("POST")
        .uri(format!("http://vipd.invalid/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}
