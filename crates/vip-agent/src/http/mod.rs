//! What load balancers and orchestrators ask of this node by HTTP.
//!
//! On a thread of its own: nothing here waits for the disk or for other nodes, and whoever
//! asks a lot keeps nobody else from anything.

mod answer;
mod checks;
mod crowd;
mod sight;
mod while_holding;

use crate::essential;
use crate::listening::listen;
use crate::membership::Seat;
use crowd::Crowd;
use hyper_util::rt::{TokioIo, TokioTimer};
use sight::Sight;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How soon it is tried again to listen: an address may come late at boot.
const RETRY: Duration = Duration::from_secs(1);
/// Connections that the kernel keeps: taking one is quick, and checks come in bursts.
const BACKLOG: i32 = 256;
/// How long somebody may take to send what is asked.
const HEADER: Duration = Duration::from_secs(3);
/// From the first byte of a request to the last of the answer.
const WHOLE: Duration = Duration::from_secs(5);
/// Bytes of a request's header, the least that hyper takes.
const MAX_HEADER: usize = 8192;
/// Lines of it.
const MAX_HEADERS: usize = 64;

/// Serves what the configuration says until `stop`.
///
/// # Errors
/// No thread, or no runtime.
pub(crate) fn serve(seat: &Arc<Seat>, stop: CancellationToken) -> io::Result<()> {
    let http = &seat.config.http;
    if http.listen.is_none() && http.tcp.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sight = Arc::new(Sight::of(seat.clone()));
    let work = move || {
        runtime.block_on(async move {
            if let Some(address) = sight.seat.config.http.listen {
                essential::spawn("http", pages(sight.clone(), address));
            }
            for (name, address) in &sight.seat.config.http.tcp {
                let listens = while_holding::run(sight.clone(), name.clone(), *address);
                essential::spawn("http.tcp", listens);
            }
            stop.cancelled().await;
        });
    };
    let work = || essential::run("http", work);
    std::thread::Builder::new().name("http".into()).spawn(work)?;
    Ok(())
}

async fn pages(sight: Arc<Sight>, address: SocketAddr) {
    let listener = loop {
        let listens = listen(address, BACKLOG).and_then(TcpListener::from_std);
        sight.seat.not_listening.at("http.listen", address, listens.as_ref().err());
        match listens {
            Ok(listener) => break listener,
            Err(_) => sleep(RETRY).await,
        }
    };
    let mut crowd = Crowd::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => crowd.admit(one(sight.clone(), stream)),
                Err(error) => {
                    tracing::warn!(%error, "a connection for http.listen was not accepted");
                    sleep(RETRY).await;
                }
            },
            () = crowd.one_leaves() => {}
        }
    }
}

/// One request on one connection.
async fn one(sight: Arc<Sight>, stream: TcpStream) {
    // On some hosts a loopback address alone can be reached from elsewhere (route_localnet).
    let is_loopback =
        |at: io::Result<SocketAddr>| at.is_ok_and(|at| at.ip().to_canonical().is_loopback());
    let is_local = is_loopback(stream.local_addr()) && is_loopback(stream.peer_addr());
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: http::Request<_>| {
        let answer = answer::to(&sight, is_local, request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(MAX_HEADER)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever breaks off hears nothing more.
    let _ = timeout(WHOLE, connection).await;
}
