//! `cargo xtask`: demo, test, verify, fix. Each does all that it needs,
//! including the installation of what is missing.

mod arrows;
mod bench;
mod chaos;
mod crashes;
mod demo;
mod dependencies;
mod docs;
mod lab;
mod mutants;
mod packages;
mod rooms;
mod shell;
mod test;
mod tools;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Three hosts in network namespaces and a VIP that moves among them.
    Demo {
        /// Leave it running and say how to use it.
        #[arg(long)]
        keep: bool,
    },
    /// Everything that must pass.
    Test,
    /// Measurements beside keepalived.
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Faults at random on real processes in network namespaces.
    Chaos {
        /// How long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Decides which faults; without one, another each time.
        #[arg(long)]
        seed: Option<u64>,
        /// Timing profile of the cluster.
        #[arg(long, default_value = "lan")]
        profile: String,
        /// Strangers at the port all the while.
        #[arg(long)]
        strangers: bool,
    },
    /// kill -9 at each change of the data directory: init, join, leave, rotation,
    /// renewal, snapshot.
    Crashes,
    /// Simulated clusters under faults, one per seed; see `--help` after `--`.
    Sim {
        /// `--seeds N`, `--seed N`, `--first N`, `--mutant NAME`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// A command under Debian's kernel 6.12, in a guest; without one, the tests of what
    /// is in the kernel.
    Lab {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// One change of vip-core after the other, of which its tests have to notice
    /// each.
    Mutants {
        /// A part of them, as in `0/6`.
        #[arg(long, conflicts_with = "sample")]
        shard: Option<String>,
        /// Forty, drawn by the commit.
        #[arg(long)]
        sample: bool,
        /// Only in these files, as in `crates/vip-core/src/guard/*`.
        #[arg(long, conflicts_with = "sample")]
        file: Vec<String>,
    },
    /// Has what an agent recorded (SIGUSR1) happen again, and fails where it would
    /// decide otherwise now.
    Replay {
        /// The file.
        file: String,
    },
    /// Format, lints, docs, layers, licences. Changes nothing.
    Verify,
    /// What can be mended by itself: format, lints, the gate's object file.
    Fix,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo { keep } => demo::run(keep),
        Command::Chaos { minutes, seed, profile, strangers } => {
            chaos::run(minutes, seed, profile, strangers)
        }
        Command::Lab { command } => lab::run(&command).map(drop),
        Command::Crashes => crashes::run(),
        Command::Test => test::run(),
        Command::Bench { what } => bench::run(&what),
        Command::Sim { args } => test::simulate(&args),
        Command::Mutants { sample: true, .. } => mutants::sample(),
        Command::Mutants { shard, sample: false, file } => mutants::run(shard.as_deref(), &file),
        Command::Replay { file } => test::simulate(&["--replay".into(), file]),
        Command::Verify => verify::run(),
        Command::Fix => verify::fix(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
