//! HTTP, as all providers are spoken to.

use crate::Environment;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Request};
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
    /// What time it is there, if it says so.
    pub(crate) date: Option<SystemTime>,
    pub(crate) body: String,
}

fn usual() -> ClientBuilder {
    // Nobody else is to hear what is signed for one.
    let builder = Client::builder().connect_timeout(CONNECT).pool_idle_timeout(IDLE);
    builder.tcp_user_timeout(UNHEARD).redirect(Policy::none())
}

/// For the API: through the proxies that the environment names, and trusting whom this host
/// trusts and whom `AWS_CA_BUNDLE` names.
///
/// # Errors
/// The file cannot be used, as a sentence.
pub(crate) fn outward(environment: &Environment) -> Result<Client, String> {
    let mut builder = usual();
    if let Some(path) = environment.path("AWS_CA_BUNDLE") {
        let bad = |e: &dyn std::fmt::Display| format!("AWS_CA_BUNDLE, {}: {e}", path.display());
        let text = std::fs::read(&path).map_err(|e| bad(&e))?;
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
        let date = response.headers().get(http::header::DATE).and_then(|value| {
            let format = aws_smithy_types::date_time::Format::HttpDate;
            let date = aws_smithy_types::DateTime::from_str(value.to_str().ok()?, format).ok()?;
            SystemTime::try_from(date).ok()
        });
        let mut body = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|e| in_full(&e))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(format!("an answer of more than {MAX_BODY} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, date, body: String::from_utf8_lossy(&body).into_owned() })
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
