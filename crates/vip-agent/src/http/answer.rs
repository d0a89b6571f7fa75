//! What is answered to a path.

use super::checks::{Checked, alive, health, ready};
use super::sight::Sight;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use std::fmt::Write;

/// The epoch under which a VIP answers here.
const EPOCH: HeaderName = HeaderName::from_static("vip-epoch");
const VIP: &str = "/v1/vip/";

pub(super) type Answer = Response<Full<Bytes>>;

/// Of `/v1/vip/NAME`.
#[derive(Serialize)]
struct Vip<'a> {
    vip: &'a str,
    node: &'a str,
    /// Clients are served here.
    answers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Answers one request, on this host or from elsewhere.
pub(super) fn to(sight: &Sight, is_local: bool, method: &Method, path: &str) -> Answer {
    let everything = is_local || sight.seat.config.http.public;
    let answer = match path {
        _ if method != Method::GET && method != Method::HEAD => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD alone\n".into());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            answer
        }
        "/livez" => checked(&alive()),
        "/readyz" => checked(&ready(sight)),
        "/healthz" => checked(&health(sight)),
        "/" if everything => text(StatusCode::OK, overview(sight)),
        _ => match path.strip_prefix(VIP) {
            Some(name) => vip(sight, name),
            None => text(StatusCode::NOT_FOUND, "there is nothing here\n".into()),
        },
    };
    finished(answer)
}

fn vip(sight: &Sight, name: &str) -> Answer {
    let node = sight.seat.name.as_str();
    let (status, epoch, reason) = match sight.takes_clients(name) {
        Ok(epoch) => (StatusCode::OK, Some(epoch.0), None),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, None, Some(why.to_string())),
    };
    let answers = reason.is_none();
    let mut answer = json(status, &Vip { vip: name, node, answers, epoch, reason });
    if let Some(epoch) = epoch {
        answer.headers_mut().insert(EPOCH, epoch.into());
    }
    answer
}

fn checked(checked: &Checked) -> Answer {
    let status = if checked.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, checked)
}

/// For a person.
fn overview(sight: &Sight) -> String {
    let mut page = format!("vipd on {}\n", sight.seat.name);
    let how = |ok: bool| if ok { "ok" } else { "not ok" };
    let _ = writeln!(page, "/readyz {}", how(ready(sight).ok));
    let _ = writeln!(page, "/healthz {}", how(health(sight).ok));
    for name in sight.names() {
        let _ = match sight.takes_clients(&name) {
            Ok(epoch) => writeln!(page, "{VIP}{name} ok: it answers here, epoch {epoch}"),
            Err(why) => writeln!(page, "{VIP}{name} not ok: {why}"),
        };
    }
    page
}

fn text(status: StatusCode, body: String) -> Answer {
    of(status, "text/plain; charset=utf-8", body.into())
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let mut bytes = serde_json::to_vec(body).unwrap_or_default();
    bytes.push(b'\n');
    of(status, "application/json", bytes.into())
}

fn of(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A balancer that keeps a connection, or an answer, misses when a node is drained.
fn finished(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
