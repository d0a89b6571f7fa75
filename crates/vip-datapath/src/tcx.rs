//! tcx by `bpf(2)`: attach, query and detach by position.
//!
//! aya attaches tcx programs by links, which fall with the guard's last
//! descriptor. `BPF_PROG_ATTACH` stays without a process or a pin, and goes
//! with its interface; only the system call offers it.

use crate::syscall::{bpf, raw};
use std::io;
use std::os::fd::BorrowedFd;

const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_QUERY: libc::c_long = 16;

const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
const BPF_F_ID: u32 = 1 << 5;

/// More programs than the kernel takes per hook (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;

/// A hook of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Hook {
    /// `BPF_TCX_INGRESS`
    In = 46,
    /// `BPF_TCX_EGRESS`
    Out = 47,
}

/// The programs of a hook, first one first, at one revision.
pub(crate) struct Chain {
    pub(crate) programs: Vec<u32>,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_ifindex: u32,
    program: u32,
    hook: u32,
    flags: u32,
    replace: u32,
    relative: u32,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_ifindex: u32,
    hook: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    _pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    program: u32,
    verdict: u32,
    frame_len: u32,
    out_len: u32,
    frame: u64,
    out: u64,
    repeat: u32,
    duration: u32,
}

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What it returned.
    pub verdict: u32,
    /// The frame, as it left it.
    pub frame: Vec<u8>,
}

/// Runs a program once on a frame, which goes nowhere.
pub(crate) fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<Trial> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut out = vec![0; frame.len()];
    let mut attr = TestRunAttr {
        program: raw(program),
        frame_len: len,
        frame: frame.as_ptr() as u64,
        out_len: len,
        out: out.as_mut_ptr() as u64,
        ..Default::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    out.truncate(attr.out_len as usize);
    Ok(Trial { verdict: attr.verdict, frame: out })
}

/// Puts a program before all others of the hook.
pub(crate) fn attach_first(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_ifindex: ifindex,
        program: raw(program),
        hook: hook as u32,
        flags: BPF_F_BEFORE,
        ..Default::default()
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(|_| ())
}

/// The programs of a hook, in order.
pub(crate) fn query(ifindex: u32, hook: Hook) -> io::Result<Chain> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_ifindex: ifindex,
        hook: hook as u32,
        programs: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).expect("64"),
        ..Default::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    let programs = ids.iter().copied().take(attr.count as usize).collect();
    Ok(Chain { programs, revision: attr.revision })
}

/// Removes a program that is held by descriptor.
pub(crate) fn detach(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_ifindex: ifindex,
        program: raw(program),
        hook: hook as u32,
        ..Default::default()
    };
    bpf(BPF_PROG_DETACH, &mut attr).map(|_| ())
}

/// Removes the program at `at`, which is not the first, by its position:
/// getting a descriptor for a foreign program would take `CAP_SYS_ADMIN`. The
/// revision makes sure that it still is the one that the query saw.
pub(crate) fn detach_at(chain: &Chain, at: usize, ifindex: u32, hook: Hook) -> io::Result<()> {
    let before = at.checked_sub(1).and_then(|i| chain.programs.get(i)).copied();
    let Some(before) = before.filter(|_| at < chain.programs.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut attr = AttachAttr {
        target_ifindex: ifindex,
        hook: hook as u32,
        flags: BPF_F_AFTER | BPF_F_ID,
        relative: before,
        revision: chain.revision,
        ..Default::default()
    };
    bpf(BPF_PROG_DETACH, &mut attr).map(|_| ())
}
