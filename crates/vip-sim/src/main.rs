//! `vip-sim`: many seeds, or one in detail.

use clap::Parser;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use vip_core::{Recording, Replayed, chain};
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
    /// Has what an agent recorded happen again, and says where it would decide
    /// otherwise now.
    #[arg(long, conflicts_with_all = ["seeds", "first", "seed", "mutant", "only"])]
    replay: Option<PathBuf>,
}

/// Steps through a recording, and prints its decisions. What they are now has to
/// be what they were.
fn replay(path: &Path) -> Result<(), String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let recording = Recording::read(&mut BufReader::new(file)).map_err(|e| chain(&e))?;
    let (begun, turns) = (recording.begun(), recording.turns());
    let mut differ = 0;
    for Replayed { at, input, recorded, decided } in recording.replay() {
        let ms = at.since(begun).as_secs_f64() * 1e3;
        println!("{ms:11.3} ms  {input:?}");
        println!("                => {decided:?}");
        if Some(&decided) != recorded.as_ref() {
            differ += 1;
            println!("   it was       => {recorded:?}");
        }
    }
    println!("{turns} turns, {differ} of them decided otherwise now");
    (differ == 0).then_some(()).ok_or_else(|| "it does not happen again as it did".to_owned())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(path) = &cli.replay {
        return match replay(path) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{}: {why}", path.display());
                ExitCode::FAILURE
            }
        };
    }
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
