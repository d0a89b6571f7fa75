//! vipd: virtual IPs that stay up where VRRP cannot work or cannot be trusted.

mod agent;
mod exec;
mod guard;
mod parent;
mod supervised;

use clap::{Args, Parser, Subcommand};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use vip_agent::{Config, ConfigError};

/// Refused or failed.
const FAILED: u8 = 1;
/// Bad usage or configuration: starting again does not help.
const USAGE: u8 = 2;

#[derive(Parser)]
#[command(name = "vipd", version, about = "Virtual IPs over Raft: agent and guard")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run this node: the agent, and a guard if none is there.
    Run(Options),
    /// Run the guard alone: it holds the privileges and the addresses.
    Guard {
        #[command(flatten)]
        options: Options,
        /// If another guard has the socket, wait for its end.
        #[arg(long, hide = true)]
        standby: bool,
        /// Go on from what the program before left behind this descriptor.
        #[arg(long, hide = true, value_name = "DESCRIPTOR")]
        resume: Option<RawFd>,
        /// Say whether it could be gone on from that, and nothing else.
        #[arg(long, hide = true, value_name = "DESCRIPTOR")]
        accepts: Option<RawFd>,
    },
    /// Run the programs that checks name: as a user who can do nothing else, and with the
    /// socket where the agent asks for them as standard input.
    Exec(Options),
    /// Remove the addresses that an earlier run left, and nothing else.
    Purge(Options),
    /// The agent without a parent.
    #[command(hide = true)]
    Agent(Options),
}

#[derive(Args, Clone)]
struct Options {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, as in `--set node.name=n1`; wins over the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Options {
    fn load(&self) -> Result<Config, ConfigError> {
        let default = PathBuf::from("/etc/vipd/vipd.toml");
        let path = self.config.as_ref().unwrap_or(&default);
        Config::load(path, self.config.is_some(), &self.settings)
    }

    /// The same options for a child.
    fn arguments(&self) -> Vec<String> {
        let config = self.config.iter().flat_map(|c| ["--config".into(), c.display().to_string()]);
        let settings = self.settings.iter().flat_map(|s| ["--set".into(), s.clone()]);
        config.chain(settings).collect()
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A child of a guard ends by itself; and another program of a guard's process, which is
    // its parent's child as before, in order.
    if !matches!(
        cli.command,
        Command::Guard { accepts: Some(_), .. } | Command::Guard { resume: Some(_), .. }
    ) {
        parent::end_with_parent();
    }
    let filter = EnvFilter::try_from_env("VIPD_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=error,h2=warn,tonic=warn,sled=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let (Command::Run(options)
    | Command::Guard { options, .. }
    | Command::Exec(options)
    | Command::Purge(options)
    | Command::Agent(options)) = &cli.command;
    let config = match options.load() {
        Ok(config) => config,
        Err(e) => {
            eprintln!("vipd: {:#}", anyhow::Error::from(e));
            return ExitCode::from(USAGE);
        }
    };
    let done = match &cli.command {
        Command::Run(options) => parent::run(options, config),
        Command::Guard { accepts: Some(left), .. } => guard::accepts(config, *left),
        Command::Guard { options, resume: Some(left), .. } => guard::resume(options, config, *left),
        Command::Guard { options, standby: true, .. } => guard::stand_by(options, config),
        Command::Guard { options, .. } => guard::run(options, config),
        Command::Exec(_) => exec::run(config),
        Command::Purge(_) => guard::purge(),
        Command::Agent(options) => agent::run(options, config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is::<ConfigError>() => {
            eprintln!("vipd: {e:#}");
            ExitCode::from(USAGE)
        }
        Err(e) => {
            eprintln!("vipd: {e:#}");
            ExitCode::from(FAILED)
        }
    }
}
