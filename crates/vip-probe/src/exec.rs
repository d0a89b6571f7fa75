//! Probes by programs of the operator's own.
//!
//! The agent has the keys of the cluster and can become nobody else, so it runs none of them:
//! a process of its own does ([`serve`]), as a user who can read neither keys nor sockets.
//! It is asked over a unix socket, one connection for one run: a line of JSON there, a line
//! back; who hangs up before has the run ended.

mod folder;
mod leftovers;
mod mover;
mod runner;

pub use leftovers::end_left;
pub use mover::{Move, run_mover};
pub use runner::serve;

/// The folders of programs that are run, each root's alone.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// `[probe] exec_dir`.
    pub checks: Option<PathBuf>,
    /// `[cloud.exec] dir`.
    pub movers: Option<PathBuf>,
}

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use vip_core::{ExecCheck, Failure};

/// What who runs it may take beyond a check's timeout to say that it was late.
pub(crate) const GRACE: Duration = Duration::from_millis(500);
/// What is said of one that does not.
pub(crate) const SILENT: &str = "the process that runs programs here does not answer";
/// Longest line of either sort: sixteen arguments of 1 KiB, each letter of which may take six.
const MAX_LINE: u64 = 128 * 1024;

/// Of which folder a program is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Sort {
    /// Of checks.
    #[default]
    Check,
    /// Of those that move VIPs.
    Mover,
}

/// A run that is asked for.
#[derive(Serialize, Deserialize)]
struct Run {
    #[serde(default)]
    sort: Sort,
    file: String,
    arguments: Vec<String>,
    /// What it is told, beside how long it may take.
    env: BTreeMap<String, String>,
    timeout_ms: u64,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ran {
    /// It ended.
    Ended { code: i32, says: String },
    /// Somebody or something killed it.
    Killed { signal: i32, says: String },
    /// It was ended at its timeout.
    Late { says: String },
    /// It was not run.
    NotRun { why: String },
}

pub(crate) async fn probe(
    socket: Option<&Path>,
    at: SocketAddr,
    check: &ExecCheck,
    limit: Duration,
) -> Result<(), Failure> {
    let here = |why: String| Failure::Here(why);
    let socket = socket.ok_or_else(|| {
        here("[probe] exec_dir is not set here, so that no program can be run".to_owned())
    })?;
    let address = [("VIPD_ADDRESS", at.ip().to_string())].into_iter();
    let port = Some(at.port()).filter(|port| *port != 0);
    let port = port.map(|port| ("VIPD_PORT", port.to_string()));
    let run = Run {
        file: check.file.clone(),
        arguments: check.arguments.clone(),
        sort: Sort::Check,
        env: address.chain(port).map(|(key, value)| (key.to_owned(), value)).collect(),
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    };
    let ran = ask(socket, &run).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            here(format!("nobody runs the programs of checks here, at {}", socket.display()))
        }
        _ => here(format!("a program cannot be run here: {error}")),
    })?;
    let (what, says) = match ran {
        Ran::Ended { code: 0, .. } => return Ok(()),
        Ran::NotRun { why } => return Err(here(why)),
        Ran::Ended { code, says } => (format!("{} ended with {code}", check.file), says),
        // Which says nothing of the server.
        Ran::Killed { signal, says } => {
            let text = format!("{} was killed by signal {signal} {says}", check.file);
            return Err(here(text.trim().to_owned()));
        }
        Ran::Late { says } => {
            (format!("no end of {} within {}", check.file, crate::spoken(limit)), says)
        }
    };
    Err(Failure::There(if says.is_empty() { what } else { format!("{what}: {says}") }))
}

async fn ask(socket: &Path, run: &Run) -> std::io::Result<Ran> {
    let mut stream = UnixStream::connect(socket).await?;
    say(&mut stream, run).await?;
    hear(&mut stream).await
}

async fn say(stream: &mut UnixStream, what: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn hear<T: for<'a> Deserialize<'a>>(stream: &mut UnixStream) -> std::io::Result<T> {
    let mut line = vec![];
    BufReader::new(stream.take(MAX_LINE)).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests;
