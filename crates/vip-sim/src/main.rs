//! `vip-sim`: many seeds, or one in detail.

use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;
use vip_sim::{Mutant, Options, Report, Scheme, run, run_many};

#[derive(Parser)]
#[command(about = "Runs vipd's decisions under faults, one world per seed")]
struct Cli {
    /// How many seeds.
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this seed, event by event.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// With a rule switched off: finds a seed that shows it.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Nothing goes wrong but by this scheme.
    #[arg(long)]
    only: Option<Scheme>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = Options { mutant: cli.mutant, only: cli.only, ..Default::default() };
    if let Some(seed) = cli.seed {
        let report = run(seed, Options { trace: true, ..options });
        println!("{:?}", report.stats);
        return judge(&[report], cli.mutant);
    }
    let started = Instant::now();
    let summary = run_many(cli.first..cli.first + cli.seeds, options);
    let end = cli.first + cli.seeds;
    println!("seeds {}..{end} in {:.1?}: {:?}", cli.first, started.elapsed(), summary.stats);
    println!("{}", summary.coverage);
    judge(&summary.failed, cli.mutant)
}

fn judge(reports: &[Report], mutant: Option<Mutant>) -> ExitCode {
    let broken = reports.iter().filter_map(|r| r.violation.as_ref().map(|v| (r.seed, v)));
    let mut any = false;
    for (seed, violation) in broken {
        println!("seed {seed}: {violation}");
        any = true;
    }
    if any && mutant.is_none() {
        println!("event by event: cargo xtask sim --seed SEED");
    }
    if any == mutant.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
