//! `cargo xtask mutants`: one change of vip-core's code after the other, of which its
//! own tests have to notice each.

use crate::shell::{command, execute, output, root};
use crate::tools::{Tool, program};
use anyhow::{Context, Result, ensure};

const CARGO_MUTANTS: Tool = Tool { name: "cargo-mutants", version: "27.1.0" };
/// Where the lists go.
const OUT: &str = "target/mutants";
/// Cases of a property, of which the first few tell a mutant as a rule.
const CASES: &str = "64";
/// Of a hundred that can be built, so many are to be noticed.
const WANTED: usize = 90;
/// The same of a sample, where chance has a part: forty that are drawn fall below this
/// once in sixty-four times where ninety in a hundred are noticed, and once in forty
/// thousand where ninety-six are.
const WANTED_OF_SAMPLE: usize = 80;

fn lines(list: &str) -> usize {
    let path = root().join(OUT).join("mutants.out").join(list);
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// So many are tried of a commit.
const SAMPLE: usize = 40;

/// A part of them that each commit draws anew, spread over all files.
pub(crate) fn sample() -> Result<()> {
    let list = ["mutants", "--package", "vip-core", "--list"];
    let all = output(&program(&CARGO_MUTANTS)?, &list)?.lines().count();
    let parts = all.div_ceil(SAMPLE).max(1);
    // Without a history it is always the first part.
    let commit = output("git", &["rev-parse", "HEAD"]).unwrap_or_default();
    let drawn = usize::from_str_radix(commit.get(..7).unwrap_or("0"), 16)?;
    try_them(Some(&format!("{}/{parts}", drawn % parts)), &[], WANTED_OF_SAMPLE)
}

/// All of them, or a part: `shard` is as in `1/6`, `files` are globs.
pub(crate) fn run(shard: Option<&str>, files: &[String]) -> Result<()> {
    try_them(shard, files, WANTED)
}

fn try_them(shard: Option<&str>, files: &[String], wanted: usize) -> Result<()> {
    let program = program(&CARGO_MUTANTS)?;
    let mut arguments =
        vec!["mutants", "--package", "vip-core", "--output", OUT, "--timeout", "60", "--colors"];
    arguments.push("never");
    if let Some(shard) = shard {
        arguments.extend(["--shard", shard, "--sharding", "round-robin"]);
    }
    // A second copy is built from the ground up, which a sample is not worth.
    if shard.is_none() {
        arguments.extend(["--jobs", "2"]);
    }
    arguments.extend(files.iter().flat_map(|glob| ["--file", glob]));
    // The library alone is built, and not once more for others to link.
    arguments.extend(["--profile", "mutants", "--cargo-arg=--lib"]);
    // It fails where one was missed: that is counted below.
    let ended = execute(command(&program, &arguments).env("PROPTEST_CASES", CASES));
    let noticed = lines("caught.txt") + lines("timeout.txt");
    let missed = lines("missed.txt");
    if noticed + missed == 0 {
        ended.context("no mutant was tried")?;
    }
    ensure!(noticed + missed > 0, "no mutant was tried");
    let share = noticed * 100 / (noticed + missed);
    println!(
        "{noticed} of {} noticed ({share} %); the others: {OUT}/mutants.out/missed.txt",
        noticed + missed
    );
    ensure!(share >= wanted, "{wanted} % are wanted");
    Ok(())
}
