//! Whether a gRPC server says of itself, or of a service, that it serves
//! (`grpc.health.v1.Health`).

use crate::http::failure;
use crate::tcp;
use crate::tls::{self, HostTls};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;
use vip_core::{Failure, GrpcCheck};

/// What may be on its way at a time.
const MAX_READ: u32 = 64 * 1024;

/// Runs what a connection needs, for no longer than the probe.
#[derive(Clone, Default)]
struct Hands(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Hands {
    fn execute(&self, work: F) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.spawn(async {
            work.await;
        });
    }
}

/// An answer is a number.
const MAX_ANSWER: usize = 4096;
/// Of headers, which may carry a reason.
const MAX_HEADERS: u32 = 16 * 1024;

pub(crate) async fn probe(own: &HostTls, at: SocketAddr, check: &GrpcCheck) -> Result<(), Failure> {
    let stream = tcp::connect(at).await?;
    match &check.tls {
        Some(tls) => {
            let stream = tls::begin(stream, (own, tls), (None, at), &[b"h2"]).await?;
            ask(stream, ("https", at), &check.service).await
        }
        None => ask(stream, ("http", at), &check.service).await,
    }
}

async fn ask<S>(stream: S, (scheme, at): (&str, SocketAddr), service: &str) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let hands = Hands::default();
    let mut http = http2::Builder::new(hands.clone());
    http.max_header_list_size(MAX_HEADERS);
    http.initial_stream_window_size(MAX_READ).initial_connection_window_size(MAX_READ);
    let begun = http.handshake::<_, Body>(TokioIo::new(stream)).await;
    let (sender, connection) = begun.map_err(|error| failure(&error))?;
    let origin = http::Uri::builder().scheme(scheme).authority(at.to_string()).path_and_query("/");
    let origin = origin.build().map_err(|error| Failure::Here(error.to_string()))?;
    let channel = service_fn(move |request: http::Request<Body>| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let client = HealthClient::with_origin(channel, origin).max_decoding_message_size(MAX_ANSWER);
    let mut answer = pin!(async move {
        let mut client = client;
        let request = HealthCheckRequest { service: service.to_owned() };
        judge(client.check(request).await.map(|reply| reply.into_inner().status()), service)
    });
    let _ends = Ends(hands);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    answer.await
}

/// What a peer keeps waiting would keep its connection, too.
struct Ends(Hands);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

fn judge(answer: Result<ServingStatus, Status>, service: &str) -> Result<(), Failure> {
    let why = match answer {
        Ok(ServingStatus::Serving) => return Ok(()),
        Ok(status) => format!("it says {}, expected SERVING", status.as_str_name()),
        Err(status) => match status.code() {
            Code::NotFound => format!("it knows no service {service:?}"),
            Code::Unimplemented => "it has no service of health (grpc.health.v1)".to_owned(),
            Code::Unknown | Code::Internal | Code::Unavailable => {
                "what answers there does not speak gRPC, or ends the connection".to_owned()
            }
            code => format!("it answers {code:?}: {}", status.message()),
        },
    };
    Err(Failure::There(why))
}

#[cfg(test)]
mod tests {
    use crate::testing::{LONG, said, text};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic_health::ServingStatus;
    use vip_core::CheckWords;

    #[tokio::test]
    async fn a_server_is_what_it_says_of_itself_or_of_a_service() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("an address");
        let (reporter, service) = tonic_health::server::health_reporter();
        let serves = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serves = tokio::spawn(serves);
        let ask = |kind: &str| said(at, CheckWords::of(kind), LONG);
        assert_eq!(ask("grpc").await, None);
        assert_eq!(ask("grpc:shop").await.as_deref(), Some("it knows no service \"shop\""));
        reporter.set_service_status("shop", ServingStatus::Serving).await;
        assert_eq!(ask("grpc:shop").await, None);
        reporter.set_service_status("shop", ServingStatus::NotServing).await;
        let no = "it says NOT_SERVING, expected SERVING";
        assert_eq!(ask("grpc:shop").await.as_deref(), Some(no));
        let by_tls = CheckWords { tls: text("skip"), ..CheckWords::of("grpc") };
        assert!(said(at, by_tls, LONG).await.is_some_and(|why| why.contains("TLS")));
        serves.abort();
    }

    #[tokio::test]
    async fn who_speaks_something_else_is_not_well() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let at = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, _) = listener.accept().expect("a probe");
            stream.write_all(b"220 mail.example ESMTP\r\n").expect("written");
        });
        let why = said(at, CheckWords::of("grpc"), LONG).await;
        assert!(
            why.as_ref().is_some_and(|why| why.contains("gRPC") || why.contains("HTTP")),
            "{why:?}"
        );
    }
}
