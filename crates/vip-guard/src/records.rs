//! What a later run of the guard has to know and the kernel does not tell it:
//! the programs of the gate, without the right to look at programs; the
//! addresses that were added, where the kernel keeps no mark of it. Valid since
//! the host booted.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// An address on an interface, by its index.
pub(crate) type Placed = (u32, IpAddr);

/// Ids of gate programs.
pub(crate) fn recorded_programs(path: &Path) -> BTreeSet<u32> {
    recorded(path).iter().filter_map(|line| line.parse().ok()).collect()
}

/// See [`recorded_programs`].
pub(crate) fn record_programs(path: &Path, ids: &BTreeSet<u32>) -> io::Result<()> {
    record(path, ids.iter().map(ToString::to_string))
}

/// Addresses that bear no mark.
pub(crate) fn recorded_addresses(path: &Path) -> BTreeSet<Placed> {
    let placed = |line: &String| {
        let (ifindex, ip) = line.split_once(' ')?;
        Some((ifindex.parse().ok()?, ip.parse().ok()?))
    };
    recorded(path).iter().filter_map(placed).collect()
}

/// See [`recorded_addresses`].
pub(crate) fn record_addresses(path: &Path, placed: &BTreeSet<Placed>) -> io::Result<()> {
    record(path, placed.iter().map(|(ifindex, ip)| format!("{ifindex} {ip}")))
}

/// The lines behind the boot id, if it is the present one: numbers start again
/// when a host boots.
fn recorded(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().map(str::to_owned);
    if lines.next() != Some(boot_id()) {
        return vec![];
    }
    lines.collect()
}

fn record(path: &Path, lines: impl Iterator<Item = String>) -> io::Result<()> {
    let text: String = [boot_id()].into_iter().chain(lines).map(|line| line + "\n").collect();
    std::fs::write(path, text)
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_until_the_host_boots_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("addresses");
        assert!(recorded_addresses(&path).is_empty());
        let placed: BTreeSet<Placed> =
            ["10.0.0.9", "fd00::9"].map(|ip| (2, ip.parse().expect("valid"))).into_iter().collect();
        record_addresses(&path, &placed).expect("written");
        assert_eq!(recorded_addresses(&path), placed);
        let earlier = std::fs::read_to_string(&path).expect("there").replacen('-', "+", 1);
        std::fs::write(&path, earlier).expect("written");
        assert!(recorded_addresses(&path).is_empty());
    }
}
