//! `bpf(2)`, for what aya has no wrapper for: tcx without links, programs that
//! call kernel functions, links of netfilter.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for these commands")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal interrupts the kernel's look at a program, and the load fails with
/// EAGAIN; aya then tries again in a way that is refused in itself, so that error
/// says nothing. libbpf tries as often.
const LOADS: usize = 5;

/// Loads a program, in spite of signals that come meanwhile.
pub(crate) fn in_spite_of_signals<T, E>(mut load: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    for _ in 1..LOADS {
        if let Ok(loaded) = load() {
            return Ok(loaded);
        }
    }
    load()
}

/// Calls it with a struct that is laid out as the prefix of `union bpf_attr`
/// that the command reads. Pointers inside must be to what outlives the call.
pub(crate) fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live, initialised `repr(C)` struct; the size is its
    // own. Its pointers are those that the callers in this crate made from
    // slices which they still borrow.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Calls a command that answers with a new descriptor.
pub(crate) fn bpf_fd<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(command, attr)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as the kernel wants it.
pub(crate) fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}
