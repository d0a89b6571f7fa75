//! Many seeds on all cores.

use crate::coverage::Coverage;
use crate::world::{Options, Report, Stats, run};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What came of many seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sums over all worlds that were run.
    pub stats: Stats,
    /// What went wrong how often.
    pub coverage: Coverage,
    /// The worlds in which a rule did not hold, by seed.
    pub failed: Vec<Report>,
}

/// Runs the seeds. With a broken rule only to the first that shows it.
#[must_use]
pub fn run_many(seeds: Range<u64>, options: Options) -> Summary {
    let only_first = options.mutant.is_some() || options.double_answer;
    let (next, enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !enough.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let report = run(seed, options);
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.stats += report.stats;
            summary.coverage.add(&report.kinds);
            if report.violation.is_some() {
                enough.store(only_first, Ordering::Relaxed);
                summary.failed.push(report);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failed.sort_by_key(|report| report.seed);
    summary
}
