//! A second gate, on IP, that needs no interface: an interface may appear while
//! the guard is frozen, and nothing is attached to it then.
//!
//! ```text
//!  packet to a local socket   ──> does the gate know its destination, and is its deadline past?
//!                                 drop
//!  packet from a local socket ──> the same for its source
//! ```
//!
//! Two programs for each family, by BPF links of netfilter (Linux 6.4). They
//! see no ARP, and fall with the guard's descriptors. Reading a packet takes
//! the kernel function `bpf_dynptr_from_skb`, which aya cannot link to, and so
//! few instructions are written here as they are. The kernel lends that
//! function to programs under the GPL alone, so these are offered under it as
//! well.

use crate::btf::kernel_function;
use crate::inherit::Inherited;
use crate::layout::{DEADLINE_AT, SERVED_AT, SLOT_AT};
use crate::syscall::{bpf_fd, in_spite_of_signals, raw};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_NETFILTER: u32 = 32;
const BPF_NETFILTER: u32 = 45;
/// Before everybody else's rules, connection tracking included. The kernel takes
/// a BPF program only where nobody else is, so a place that nobody chooses
/// ("vipd" in ASCII): whoever finds it taken finds another guard.
const PRIORITY: i32 = -0x7669_7064;
const LICENSE: &[u8] = b"Dual BSD/GPL\0";

/// Helpers, by their stable numbers.
const MAP_LOOKUP: i32 = 1;
const BOOT_NS: i32 = 125;
const DYNPTR_READ: i32 = 201;

/// A family, as netfilter numbers it, and where its header has the addresses.
struct Family {
    number: u32,
    source: i32,
    destination: i32,
    len: i32,
    /// The second half of the map's key before an address is read into it: an
    /// IPv4 address is mapped (RFC 4291 section 2.5.5.2).
    prefix: i32,
}

const V4: Family = Family {
    number: libc::NFPROTO_IPV4 as u32,
    source: 12,
    destination: 16,
    len: 4,
    prefix: i32::from_le_bytes([0, 0, 0xff, 0xff]),
};
const V6: Family =
    Family { number: libc::NFPROTO_IPV6 as u32, source: 8, destination: 24, len: 16, prefix: 0 };

/// `NF_INET_LOCAL_IN` and `NF_INET_LOCAL_OUT`.
const LOCAL_IN: u32 = 1;
const LOCAL_OUT: u32 = 3;

/// One instruction, as the kernel takes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: to | from << 4, offset, immediate }
}

const MOV: u8 = 0xb7;
const MOV_REGISTER: u8 = 0xbf;
const ADD: u8 = 0x07;
const LOAD_8: u8 = 0x79;
const STORE_4_REGISTER: u8 = 0x63;
const STORE_4: u8 = 0x62;
const STORE_8: u8 = 0x7a;
const CALL: u8 = 0x85;
const JUMP_IF_NOT: u8 = 0x55;
const JUMP_IF: u8 = 0x15;
const JUMP_IF_NOT_LESS_REGISTER: u8 = 0x3d;
const LOAD_IMMEDIATE: u8 = 0x18;
const EXIT: u8 = 0x95;
const FRAME: u8 = 10;
/// Marks of an immediate: a map's descriptor, a kernel function.
const MAP: u8 = 1;
const KERNEL_FUNCTION: u8 = 2;

/// The key at the frame's end, the packet's handle before it.
const KEY: i32 = -16;
const PACKET: i32 = -32;

/// A slot, where the key was.
const SLOT: i16 = -4;

/// The gate's two maps.
#[derive(Clone, Copy)]
struct Maps<'a> {
    entries: BorrowedFd<'a>,
    shared: BorrowedFd<'a>,
}

/// Drops a packet whose address at `address` of the header is shut.
fn program(maps: Maps<'_>, read: i32, family: &Family, address: i32) -> Vec<Insn> {
    let map = |map| {
        let fd = i32::try_from(raw(map)).unwrap_or(i32::MAX);
        [insn(LOAD_IMMEDIATE, 1, MAP, 0, fd), Insn::default()]
    };
    let at = |register, offset| {
        [insn(MOV_REGISTER, register, FRAME, 0, 0), insn(ADD, register, 0, 0, offset)]
    };
    let mut all = vec![
        // skb of struct bpf_nf_ctx
        insn(LOAD_8, 1, 1, 8, 0),
        insn(STORE_8, FRAME, 0, -16, 0),
        insn(STORE_4, FRAME, 0, -8, family.prefix),
        insn(STORE_4, FRAME, 0, -4, 0),
        insn(MOV, 2, 0, 0, 0),
    ];
    all.extend(at(3, PACKET));
    all.push(insn(CALL, 0, KERNEL_FUNCTION, 0, read));
    let mut passes = vec![all.len()];
    all.push(insn(JUMP_IF_NOT, 0, 0, 0, 0));
    all.extend(at(1, -family.len));
    all.push(insn(MOV, 2, 0, 0, family.len));
    all.extend(at(3, PACKET));
    all.push(insn(MOV, 4, 0, 0, address));
    all.push(insn(MOV, 5, 0, 0, 0));
    all.push(insn(CALL, 0, 0, 0, DYNPTR_READ));
    passes.push(all.len());
    all.push(insn(JUMP_IF_NOT, 0, 0, 0, 0));
    all.extend(map(maps.entries));
    all.extend(at(2, KEY));
    all.push(insn(CALL, 0, 0, 0, MAP_LOOKUP));
    passes.push(all.len());
    all.push(insn(JUMP_IF, 0, 0, 0, 0));
    // A real server's on this host: the gates of its interfaces decide.
    all.push(insn(LOAD_8, 6, 0, SERVED_AT, 0));
    passes.push(all.len());
    all.push(insn(JUMP_IF_NOT, 6, 0, 0, 0));
    all.push(insn(LOAD_8, 7, 0, DEADLINE_AT, 0));
    all.push(insn(LOAD_8, 6, 0, SLOT_AT, 0));
    let own = all.len();
    all.push(insn(JUMP_IF, 6, 0, 0, 0));
    all.push(insn(STORE_4_REGISTER, FRAME, 6, SLOT, 0));
    all.extend(map(maps.shared));
    all.extend(at(2, i32::from(SLOT)));
    // A slot that is none is shut.
    all.push(insn(MOV, 7, 0, 0, 0));
    all.push(insn(CALL, 0, 0, 0, MAP_LOOKUP));
    all.push(insn(JUMP_IF, 0, 0, 1, 0));
    all.push(insn(LOAD_8, 7, 0, 0, 0));
    all[own].offset = i16::try_from(all.len() - own - 1).unwrap_or(0);
    all.push(insn(CALL, 0, 0, 0, BOOT_NS));
    // Over NF_ACCEPT and its exit to NF_DROP.
    all.push(insn(JUMP_IF_NOT_LESS_REGISTER, 0, 7, 2, 0));
    let pass = all.len();
    all.extend([insn(MOV, 0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)]);
    all.extend([insn(MOV, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    for jump in passes {
        all[jump].offset = i16::try_from(pass - jump - 1).unwrap_or(0);
    }
    all
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    program: u32,
    target: u32,
    attach: u32,
    flags: u32,
    family: u32,
    hook: u32,
    priority: i32,
    netfilter_flags: u32,
}

/// The gate in force, for as long as it lives.
pub(crate) struct IpGate {
    links: Vec<OwnedFd>,
}

impl IpGate {
    /// Puts it before all of netfilter in the present network namespace.
    ///
    /// # Errors
    /// The kernel is older, or lacks its own type information.
    pub(crate) fn attach(entries: BorrowedFd<'_>, shared: BorrowedFd<'_>) -> io::Result<Self> {
        let maps = Maps { entries, shared };
        let read = i32::try_from(kernel_function("bpf_dynptr_from_skb")?).unwrap_or(0);
        let mut links = vec![];
        for family in [V4, V6] {
            for (hook, address) in [(LOCAL_IN, family.destination), (LOCAL_OUT, family.source)] {
                let program = load(&program(maps, read, &family, address))?;
                links.push(link(program.as_fd(), family.number, hook)?);
            }
        }
        Ok(Self { links })
    }

    /// For the next run of this process.
    ///
    /// # Errors
    /// There is no room for descriptors.
    pub(crate) fn leave(&self) -> io::Result<Vec<Inherited>> {
        self.links.iter().map(Inherited::of).collect()
    }

    /// As an earlier run left it, if it did.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) fn inherit(left: Vec<Inherited>) -> io::Result<Option<Self>> {
        let links: Vec<_> = left.into_iter().map(Inherited::take).collect::<io::Result<_>>()?;
        Ok((!links.is_empty()).then_some(Self { links }))
    }
}

fn load(instructions: &[Insn]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..8].copy_from_slice(b"vipd_ip\0");
    let mut attr = LoadAttr {
        kind: BPF_PROG_TYPE_NETFILTER,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        name,
        expected_attach: BPF_NETFILTER,
        ..Default::default()
    };
    in_spite_of_signals(|| bpf_fd(BPF_PROG_LOAD, &mut attr))
}

fn link(program: BorrowedFd<'_>, family: u32, hook: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkAttr {
        program: raw(program),
        attach: BPF_NETFILTER,
        family,
        hook,
        priority: PRIORITY,
        ..Default::default()
    };
    bpf_fd(BPF_LINK_CREATE, &mut attr)
}
