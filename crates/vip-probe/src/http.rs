//! Whether a page comes back as it should (RFC 9110, RFC 9112).

use crate::tls::{self, HostTls};
use crate::{tcp, words};
use aws_lc_rs::digest::{SHA256, digest};
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};
use vip_core::{Body, Failure, HttpCheck};

/// Most of a head, and of its headers.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Most of a body that is looked at.
const MAX_BODY: usize = 64 * 1024;
const AGENT: &str = concat!("vipd/", env!("CARGO_PKG_VERSION"));

pub(crate) async fn probe(own: &HostTls, at: SocketAddr, check: &HttpCheck) -> Result<(), Failure> {
    let stream = tcp::connect(at).await?;
    match &check.tls {
        Some(tls) => {
            let host = (check.host.as_deref(), at);
            let stream = tls::begin(stream, (own, tls), host, &[b"http/1.1"]).await?;
            ask(stream, at, check).await
        }
        None => ask(stream, at, check).await,
    }
}

async fn ask<S>(stream: S, at: SocketAddr, check: &HttpCheck) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let begun = http.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = begun.map_err(|error| failure(&error))?;
    let request = request(at, check).map_err(|error| Failure::Here(error.to_string()))?;
    let mut answer = pin!(async move {
        let response = sender.send_request(request).await.map_err(|error| failure(&error))?;
        judge(response, check).await
    });
    // Who ends the connection after its answer is as well as who does not.
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    answer.await
}

fn request(at: SocketAddr, check: &HttpCheck) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request =
        Request::builder().method(check.method.as_str()).uri(&check.path).body(Empty::new())?;
    let headers: &mut HeaderMap = request.headers_mut();
    let host = check.host.clone().unwrap_or_else(|| at.to_string());
    headers.insert(HOST, HeaderValue::from_str(&host)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for header in &check.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes())?;
        headers.insert(name, HeaderValue::from_str(&header.value)?);
    }
    Ok(request)
}

async fn judge(response: Response<Incoming>, check: &HttpCheck) -> Result<(), Failure> {
    let status = response.status().as_u16();
    if !check.expect.contain(status) {
        return Err(Failure::There(format!("status {status}, expected {}", check.expect)));
    }
    match &check.body {
        None => Ok(()),
        Some(Body::Contains(text)) => contains(response.into_body(), text.as_bytes()).await,
        Some(Body::Is(wanted)) => {
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<hyper::Error>() {
                Some(error) => failure(error),
                None => Failure::There(format!("its answer is longer than {MAX_BODY} bytes")),
            })?;
            if digest(&SHA256, &body.to_bytes()).as_ref() == wanted {
                Ok(())
            } else {
                Err(Failure::There("its answer is another than the digest says".to_owned()))
            }
        }
    }
}

/// Reads no further than it has to.
async fn contains(mut body: Incoming, text: &[u8]) -> Result<(), Failure> {
    let mut read = vec![];
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failure(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        let from = read.len().saturating_sub(text.len());
        read.extend_from_slice(&data[..data.len().min(MAX_BODY - read.len())]);
        if read[from..].windows(text.len()).any(|part| part == text) {
            return Ok(());
        }
        if read.len() == MAX_BODY {
            break;
        }
    }
    let text = String::from_utf8_lossy(text);
    Err(Failure::There(format!("its answer does not contain {text:?}")))
}

/// What went wrong on a connection that there was.
pub(crate) fn failure(error: &hyper::Error) -> Failure {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    if let Some(why) = cause.and_then(tls::refused) {
        return Failure::There(why);
    }
    let what = if error.is_parse_too_large() {
        "the head of its answer is too long"
    } else if error.is_parse() {
        "what answers there does not speak HTTP"
    } else if let Some(words) = cause.and_then(words::spoken) {
        words
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "it ended the connection before its answer"
    } else {
        return Failure::There(format!("HTTP failed: {error}"));
    };
    Failure::There(what.to_owned())
}

#[cfg(test)]
mod tests;
