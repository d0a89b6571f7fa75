//! vipctl: tells vipd what to do, and what it did.

mod cli;
mod connect;
mod contexts;
mod ctl;
mod flags;
mod host;
mod logins;
mod nodes;
mod otherwise;
mod output;
mod overview;
mod run;
mod secrets;
mod servers;
mod setup;
mod tokens;
mod vips;

use clap::Parser;
use std::process::ExitCode;
use tonic::Code;

/// Why a command failed, by exit code.
#[derive(Debug)]
enum Failure {
    /// 1: refused or failed.
    Failed(String),
    /// 2: usage.
    Usage(String),
    /// 3: no quorum.
    NoQuorum(String),
    /// 4: the daemon cannot be reached.
    Unreachable(String),
    /// 4: nor is it after a command was given.
    Lost(String),
    /// 1: no answer in time.
    Late,
    /// 1: what it did could not be printed.
    Unprinted(String),
    /// 0: whoever read what is printed has read enough.
    Unheard,
}

impl Failure {
    /// The same, after something else was done.
    fn after(self, done: &str) -> Self {
        let with = |text| format!("{done}; the rest was not done: {text}");
        match self {
            Self::Failed(text) => Self::Failed(with(text)),
            Self::Usage(text) => Self::Usage(with(text)),
            Self::NoQuorum(text) => Self::NoQuorum(with(text)),
            Self::Unreachable(text) => Self::Unreachable(with(text)),
            Self::Lost(text) => Self::Lost(with(text)),
            Self::Late => Self::Failed(with("no answer within --timeout".into())),
            Self::Unprinted(text) => Self::Unprinted(text),
            Self::Unheard => Self::Unheard,
        }
    }
}

/// Of a command that was to change something and had no answer.
const UNKNOWN: &str = ": whether it took effect is not known; `vipctl events` and `vipctl status` \
                       say so";

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let mut text = status.message().to_owned();
        match status.code() {
            Code::Unavailable if text.starts_with("no quorum") => Self::NoQuorum(text),
            Code::Cancelled | Code::DeadlineExceeded if text == "Timeout expired" => Self::Late,
            Code::InvalidArgument => Self::Usage(text),
            // No answer at all, rather than one that says unavailable.
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
                if let Some(cause) = std::error::Error::source(&status) =>
            {
                text = vip_core::plain(cause);
                if text == "Timeout expired" { Self::Late } else { Self::Lost(text) }
            }
            _ => Self::Failed(text),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let changes = cli.command.changes();
    let unknown = if changes { UNKNOWN } else { "" };
    let (code, text) = match run::run(cli).await {
        Ok(()) | Err(Failure::Unheard) => return ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => (1, text),
        Err(Failure::Usage(text)) => (2, text),
        Err(Failure::NoQuorum(text)) => (3, text),
        Err(Failure::Unreachable(text)) => (4, text),
        Err(Failure::Lost(text)) => {
            (4, format!("the connection to vipd was lost ({text}){unknown}"))
        }
        Err(Failure::Late) => (1, format!("no answer within --timeout{unknown}")),
        Err(Failure::Unprinted(text)) if changes => {
            (1, format!("{text}. The command was carried out"))
        }
        Err(Failure::Unprinted(text)) => (1, text),
    };
    eprintln!("vipctl: {text}");
    ExitCode::from(code)
}
