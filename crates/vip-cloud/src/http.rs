//! HTTP, as all providers are spoken to.

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Request};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A connection that takes longer is none.
const CONNECT: Duration = Duration::from_secs(2);
/// Connections are kept between the looks of a holder.
const IDLE: Duration = Duration::from_secs(60);
/// What is not acknowledged for so long went nowhere.
const UNHEARD: Duration = Duration::from_secs(3);
/// Largest answer that is read: a route table with a thousand routes has some 300 kB.
const MAX_BODY: usize = 4 << 20;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// What time it is there, if it says so.
    pub(crate) fn date(&self) -> Option<SystemTime> {
        let format = aws_smithy_types::date_time::Format::HttpDate;
        let text = self.headers.get(http::header::DATE)?.to_str().ok()?;
        SystemTime::try_from(aws_smithy_types::DateTime::from_str(text, format).ok()?).ok()
    }
}

fn usual() -> ClientBuilder {
    // Nobody else is to hear what is signed for one.
    let builder = Client::builder().connect_timeout(CONNECT).pool_idle_timeout(IDLE);
    builder.tcp_user_timeout(UNHEARD).redirect(Policy::none())
}

/// For an API: through the proxies that the environment names, and trusting whom this host
/// trusts and whom that file has; `trusts`: who names it, and the file.
///
/// # Errors
/// The file cannot be used, as a sentence.
pub(crate) fn outward(trusts: Option<(&str, &Path)>) -> Result<Client, String> {
    let mut builder = usual();
    if let Some((who, path)) = trusts {
        let bad = |e: &dyn std::fmt::Display| format!("{who}, {}: {e}", path.display());
        let text = std::fs::read(path).map_err(|e| bad(&e))?;
        for certificate in Certificate::from_pem_bundle(&text).map_err(|e| bad(&e))? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|e| format!("no TLS: {}", in_full(&e)))
}

/// For what this host's own hypervisor says: no proxy knows of which host.
///
/// # Errors
/// There is no TLS, as a sentence.
pub(crate) fn local() -> Result<Client, String> {
    usual().no_proxy().build().map_err(|e| format!("no TLS: {}", in_full(&e)))
}

/// Sends it and reads what comes.
///
/// # Errors
/// Nothing whole came within `limit`, as a sentence.
pub(crate) async fn ask(
    client: &Client,
    request: Request,
    limit: Duration,
) -> Result<Answer, String> {
    let host = request.url().authority().to_owned();
    let asked = async {
        let mut response = client.execute(request).await.map_err(|e| in_full(&e))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|e| in_full(&e))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(format!("an answer of more than {MAX_BODY} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|why| format!("{host}: {why}")),
        Err(_) => Err(format!("{host}: no answer within {limit:?}")),
    }
}

/// An error with all its causes: the first says that something failed, the last why.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
