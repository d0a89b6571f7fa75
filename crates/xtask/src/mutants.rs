//! `cargo xtask mutants`: one change of vip-core's code after the other, of which its
//! own tests have to notice each.

use crate::shell::{command, output, root};
use crate::tools::{Tool, program};
use anyhow::{Context, Result, ensure};

const CARGO_MUTANTS: Tool = Tool { name: "cargo-mutants", version: "27.1.0" };
/// Where it puts its folder of lists.
const OUT: &str = "target/mutants";
const LISTS: &str = "target/mutants/mutants.out";
/// Cases of a property, of which the first few tell a mutant as a rule.
const CASES: &str = "64";
/// Of a hundred that can be built, so many are to be noticed.
const WANTED: usize = 90;
/// So many of a sample may be missed, where chance has a part: of the 35 or so of forty
/// that can be built more are missed once in a hundred and fifty samples where ninety in
/// a hundred are noticed, and once in a hundred thousand where ninety-six are.
const MISSED_OF_SAMPLE: usize = 8;
/// Of one mutant's tests, s: several times what they take.
const TIMEOUT: &str = "30";
/// How it ends where all were tried: as it should, with some missed, with some that
/// went on for ever.
const TRIED_ALL: [i32; 3] = [0, 2, 3];

fn lines(list: &str) -> usize {
    let path = root().join(LISTS).join(list);
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// So many are tried of a commit.
const SAMPLE: usize = 40;

/// A part of them that each commit draws anew, spread over all files.
pub(crate) fn sample() -> Result<()> {
    let list = ["mutants", "--package", "vip-core", "--list"];
    let all = output(&program(&CARGO_MUTANTS)?, &list)?.lines().count();
    let parts = all.div_ceil(SAMPLE).max(1);
    // Whoever the checkout belongs to. Without a history it is always the first part.
    let commit = output("git", &["-c", "safe.directory=*", "rev-parse", "HEAD"]);
    let commit = commit.inspect_err(|e| eprintln!("no commit to draw by: {e}"));
    let digits = commit.as_deref().ok().and_then(|commit| commit.get(..7));
    let drawn = usize::from_str_radix(digits.unwrap_or("0"), 16)?;
    let found = try_them(Some(&format!("{}/{parts}", drawn % parts)), &[])?;
    ensure!(found.missed <= MISSED_OF_SAMPLE, "of a sample {MISSED_OF_SAMPLE} may be missed");
    Ok(())
}

/// All of them, or a part: `shard` is as in `1/6`, `files` are globs.
pub(crate) fn run(shard: Option<&str>, files: &[String]) -> Result<()> {
    let found = try_them(shard, files)?;
    ensure!(found.share() >= WANTED, "{WANTED} % are wanted");
    Ok(())
}

/// What became of those that can be built.
struct Found {
    noticed: usize,
    missed: usize,
}

impl Found {
    fn share(&self) -> usize {
        self.noticed * 100 / (self.noticed + self.missed).max(1)
    }
}

fn try_them(shard: Option<&str>, files: &[String]) -> Result<Found> {
    let program = program(&CARGO_MUTANTS)?;
    // What was found before says nothing of this run, if it does not come to its end.
    let lists = root().join(LISTS);
    if lists.exists() {
        std::fs::remove_dir_all(&lists).with_context(|| format!("removing {}", lists.display()))?;
    }
    let mut arguments = vec!["mutants", "--package", "vip-core", "--output", OUT];
    arguments.extend(["--timeout", TIMEOUT, "--colors", "never"]);
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
    let mut run = command(&program, &arguments);
    let ended = run.env("PROPTEST_CASES", CASES).status().context("starting cargo-mutants")?;
    let tried_all = ended.code().is_some_and(|code| TRIED_ALL.contains(&code));
    ensure!(tried_all, "cargo-mutants did not come to its end: {ended}");
    let (caught, missed) = (lines("caught.txt"), lines("missed.txt"));
    let found = Found { noticed: caught + lines("timeout.txt"), missed };
    ensure!(found.noticed + missed > 0, "no mutant was tried");
    let (noticed, all, share) = (found.noticed, found.noticed + missed, found.share());
    println!("{noticed} of {all} noticed ({share} %); the others: {LISTS}/missed.txt");
    Ok(found)
}
