//! Which gate programs are this guard's, for a later run without the right to
//! look at programs.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// What was recorded since the host booted: ids start again then.
pub(crate) fn recorded_programs(path: &Path) -> BTreeSet<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(boot_id().as_str()) {
        return BTreeSet::new();
    }
    lines.filter_map(|line| line.parse().ok()).collect()
}

/// Boot id and program ids.
pub(crate) fn record_programs(path: &Path, ids: &BTreeSet<u32>) -> io::Result<()> {
    let mut text = boot_id() + "\n";
    for id in ids {
        text += &format!("{id}\n");
    }
    std::fs::write(path, text)
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
