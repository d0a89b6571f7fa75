//! What the kernel must not do while the guard cannot look.
//!
//! An interface that appears has no gate until the guard put it there, and the
//! guard may be frozen. Until then it must not answer ARP for addresses of
//! other interfaces (arp_ignore 1), nor name one of them as its own
//! (arp_announce 2). `conf.all` counts for every interface; a new one inherits
//! from `conf.default` alone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

const DIRECTORY: &str = "/proc/sys/net/ipv4/conf/all";
/// Never lowered: whoever set more had a reason.
const WANTED: [(&str, u32); 2] = [("arp_ignore", 1), ("arp_announce", 2)];

/// Settings of a network namespace, as this guard keeps them.
#[derive(Debug)]
pub(crate) struct Settings {
    directory: PathBuf,
    /// Where what they were before is recorded: the next guard restores it if
    /// this one is killed.
    record: PathBuf,
    before: BTreeMap<String, u32>,
}

impl Settings {
    /// With what an earlier guard raised and did not put back.
    pub(crate) fn open(record: &Path) -> Self {
        Self::open_in(Path::new(DIRECTORY), record)
    }

    fn open_in(directory: &Path, record: &Path) -> Self {
        let text = std::fs::read_to_string(record).unwrap_or_default();
        let entry = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let known = |name: &str| WANTED.iter().any(|(wanted, _)| *wanted == name);
        let before = text.lines().filter_map(entry).filter(|(name, _)| known(name)).collect();
        Self { directory: directory.to_owned(), record: record.to_owned(), before }
    }

    /// Raises what is too low. Again and again: others set these as well.
    ///
    /// # Errors
    /// Not allowed, or set to what answers for other interfaces; what was raised
    /// stays recorded.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        let known = self.before.clone();
        for (name, wanted) in WANTED {
            let present = self.read(name)?;
            if present < wanted {
                self.before.insert(name.to_owned(), present);
                self.store()?;
                self.write(name, wanted)?;
                info!(name, from = present, to = wanted, "raised for all interfaces");
            } else if present != wanted {
                self.before.remove(name);
            }
        }
        if self.before != known {
            self.store()?;
        }
        match self.read("arp_ignore")? {
            1 | 2 | 8 => Ok(()),
            ignore => Err(io::Error::other(format!(
                "net.ipv4.conf.all.arp_ignore is {ignore}, which lets every interface answer for \
                 the addresses of others; 1, 2 or 8 do not"
            ))),
        }
    }

    fn read(&self, name: &str) -> io::Result<u32> {
        let text = std::fs::read_to_string(self.directory.join(name))?;
        text.trim().parse().map_err(io::Error::other)
    }

    fn write(&self, name: &str, value: u32) -> io::Result<()> {
        std::fs::write(self.directory.join(name), value.to_string())
    }

    fn store(&self) -> io::Result<()> {
        let lines: String =
            self.before.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        std::fs::write(&self.record, lines)
    }

    /// Puts back what is still as it was set here.
    pub(crate) fn restore(&mut self) {
        for (name, wanted) in WANTED {
            let Some(before) = self.before.remove(name) else { continue };
            let result = match self.read(name) {
                Ok(present) if present == wanted => self.write(name, before),
                result => result.map(|_| ()),
            };
            if let Err(error) = result {
                warn!(name, %error, "not put back");
            }
        }
        let _ = std::fs::remove_file(&self.record);
    }

    /// Puts back what a guard that is gone raised.
    pub(crate) fn restore_recorded(record: &Path) {
        Self::open(record).restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kernel(tempfile::TempDir);

    impl Kernel {
        fn with(ignore: u32, announce: u32) -> Self {
            let kernel = Self(tempfile::tempdir().expect("a directory"));
            kernel.set("arp_ignore", ignore);
            kernel.set("arp_announce", announce);
            kernel
        }

        fn set(&self, name: &str, value: u32) {
            std::fs::write(self.0.path().join(name), format!("{value}\n")).expect("written");
        }

        fn get(&self, name: &str) -> u32 {
            let text = std::fs::read_to_string(self.0.path().join(name)).expect("there");
            text.trim().parse().expect("a number")
        }

        fn both(&self) -> [u32; 2] {
            [self.get("arp_ignore"), self.get("arp_announce")]
        }

        fn raise(&self) -> io::Result<Settings> {
            let mut settings = Settings::open_in(self.0.path(), &self.0.path().join("record"));
            settings.keep().map(|()| settings)
        }
    }

    #[test]
    fn what_is_too_low_is_raised_and_put_back() {
        let kernel = Kernel::with(0, 1);
        let mut settings = kernel.raise().expect("allowed");
        assert_eq!(kernel.both(), [1, 2]);
        settings.restore();
        assert_eq!(kernel.both(), [0, 1]);
    }

    #[test]
    fn what_is_higher_stays() {
        let kernel = Kernel::with(2, 2);
        kernel.raise().expect("allowed").restore();
        assert_eq!(kernel.both(), [2, 2]);
    }

    #[test]
    fn the_next_guard_puts_back_what_a_killed_one_raised() {
        let kernel = Kernel::with(0, 0);
        drop(kernel.raise().expect("allowed"));
        kernel.raise().expect("allowed").restore();
        assert_eq!(kernel.both(), [0, 0]);
    }

    #[test]
    fn what_somebody_else_changed_meanwhile_is_theirs() {
        let kernel = Kernel::with(0, 0);
        let mut settings = kernel.raise().expect("allowed");
        kernel.set("arp_ignore", 8);
        settings.restore();
        assert_eq!(kernel.both(), [8, 0]);
    }

    #[test]
    fn a_value_that_answers_for_other_interfaces_is_said() {
        let kernel = Kernel::with(3, 0);
        assert!(kernel.raise().is_err());
        assert_eq!(kernel.get("arp_ignore"), 3);
    }

    #[test]
    fn what_somebody_lowers_is_raised_again() {
        let kernel = Kernel::with(1, 2);
        let mut settings = kernel.raise().expect("allowed");
        kernel.set("arp_ignore", 0);
        settings.keep().expect("allowed");
        assert_eq!(kernel.both(), [1, 2]);
        settings.restore();
        assert_eq!(kernel.both(), [0, 2], "as they wanted it");
    }
}
