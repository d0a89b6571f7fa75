//! An operator's program that gives one command after another, through a node's admin
//! socket, and waits for none before the next.

use crate::grpc::call;
use anyhow::{Context, Result};
use bytes::Bytes;
use h2::client::SendRequest;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Of one command.
const LIMIT: Duration = Duration::from_secs(30);
/// A gRPC message without a field.
const NOTHING: Bytes = Bytes::from_static(&[0; 5]);

/// What came of it.
#[derive(Debug)]
pub struct Given {
    /// From the first command to the last answer.
    pub took: Duration,
    /// How long after it was due each command was carried out, the shortest first.
    pub accepted: Vec<Duration>,
    /// Why others were not.
    pub refused: Vec<String>,
}

/// Opens so many join tokens, so many a second.
///
/// # Errors
/// Nobody listens there, or the connection broke.
pub fn open_tokens(socket: &Path, count: u32, per_second: u32) -> Result<Given> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = UnixStream::connect(socket).await?;
        let (requests, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        give(requests, count, per_second).await
    })
}

async fn give(mut requests: SendRequest<Bytes>, count: u32, per_second: u32) -> Result<Given> {
    let begun = Instant::now();
    let mut commands = JoinSet::new();
    for number in 0..count {
        let due = begun + Duration::from_secs(1) * number / per_second;
        sleep_until(due).await;
        requests = requests.ready().await?;
        let create_token = call("vip.v1.Tokens/CreateToken").header("grpc-timeout", "20S");
        let (reply, mut body) = requests.send_request(create_token.body(())?, false)?;
        body.send_data(NOTHING, true)?;
        commands.spawn(async move {
            let status = timeout(LIMIT, status(reply)).await.context("no answer")??;
            // That this program was late is the cluster's doing too: it shares the machine.
            anyhow::Ok((due.elapsed(), status))
        });
    }
    let (mut accepted, mut refused) = (vec![], vec![]);
    while let Some(command) = commands.join_next().await {
        match command?? {
            (took, status) if status == "0" => accepted.push(took),
            (_, status) => refused.push(status),
        }
    }
    accepted.sort_unstable();
    Ok(Given { took: begun.elapsed(), accepted, refused })
}

/// The gRPC status: of a refusal in the first headers, else in the last.
async fn status(reply: h2::client::ResponseFuture) -> Result<String> {
    let (head, mut body) = reply.await?.into_parts();
    let text = |headers: &http::HeaderMap| {
        let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let code = field("grpc-status")?;
        Some(format!("{code}{}", field("grpc-message").unwrap_or_default()))
    };
    if let Some(status) = text(&head.headers) {
        return Ok(status);
    }
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    body.trailers().await?.as_ref().and_then(text).context("an answer without a status")
}
