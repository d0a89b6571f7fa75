//! Descriptors that outlive the process's program: what one run has, the next run of the
//! same process goes on with (`execve(2)` closes what is marked so, and these are not).

#![expect(unsafe_code, reason = "a descriptor that was inherited is known by its number alone")]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor for the next run, written as its number. Reading one takes possession of
/// it, so what was written is read once, in the process that it was written in.
#[derive(Debug)]
pub struct Inherited(OwnedFd);

impl Inherited {
    /// A second descriptor of the same; the first one stays this run's.
    ///
    /// # Errors
    /// There is room for no more.
    pub fn of(descriptor: impl AsFd) -> io::Result<Self> {
        let number = fcntl(descriptor, FcntlArg::F_DUPFD(0))?;
        Self::with(number)
    }

    /// What the number names, if it names something.
    fn with(number: RawFd) -> io::Result<Self> {
        // SAFETY: either it was made just now, or it is what an earlier run of this process
        // left open for this one and wrote down, which nobody else here knows of. A number
        // that names nothing is found out before anything is done with it.
        let owned = unsafe { OwnedFd::from_raw_fd(number) };
        match fcntl(&owned, FcntlArg::F_GETFD) {
            Ok(_) => Ok(Self(owned)),
            Err(none) => {
                std::mem::forget(owned);
                Err(none.into())
            }
        }
    }

    /// For this run: the next one does not have it unless it is left again.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn take(self) -> io::Result<OwnedFd> {
        fcntl(&self.0, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(self.0)
    }

    /// What the next run is told of it.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// What an earlier run left.
    ///
    /// # Errors
    /// The number names nothing.
    pub fn numbered(number: RawFd) -> io::Result<Self> {
        if number < 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Self::with(number)
    }
}

impl Serialize for Inherited {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.number().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Inherited {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = RawFd::deserialize(from)?;
        Self::numbered(number).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn what_was_left_is_the_same_and_a_number_of_nothing_is_refused() {
        let mut file = tempfile::tempfile().expect("a file");
        let left = Inherited::of(&file).expect("left");
        file.write_all(b"still here").expect("written");
        let number = left.number();
        // As the end of a program has it.
        std::mem::forget(left);
        let mut again =
            std::fs::File::from(Inherited::numbered(number).expect("there").take().expect("taken"));
        let flags = fcntl(&again, FcntlArg::F_GETFD).expect("open");
        assert_eq!(FdFlag::from_bits_truncate(flags), FdFlag::FD_CLOEXEC);
        again.rewind().expect("rewound");
        let mut text = String::new();
        again.read_to_string(&mut text).expect("read");
        assert_eq!(text, "still here");
        drop(again);
        for none in [-1, RawFd::MAX] {
            assert!(Inherited::numbered(none).is_err(), "{none}");
        }
    }
}
