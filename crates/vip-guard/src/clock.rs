//! The one clock of leases.

use nix::time::{ClockId, clock_gettime};
use std::io;
use vip_core::{Mono, Steering};

/// `CLOCK_BOOTTIME`: monotonic, counts suspend, and the same that the gate
/// reads in the kernel. Works in every process of a host alike.
#[must_use]
pub fn boottime() -> Mono {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    let seconds = u64::try_from(now.tv_sec()).expect("the clock counts from boot");
    let nanos = u64::try_from(now.tv_nsec()).expect("a part of a second");
    Mono(seconds * 1_000_000_000 + nanos)
}

/// How the kernel steers the clocks of this host. Reads only.
///
/// # Errors
/// Not allowed (a filter of system calls), or not there.
#[expect(unsafe_code, reason = "no safe wrapper reads adjtimex(2)")]
pub fn clock_steering() -> io::Result<Steering> {
    // SAFETY: all zeros are a valid timex, which asks for nothing to be set.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a timex to where one is.
    if unsafe { libc::adjtimex(&raw mut timex) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let nanoseconds = timex.status & libc::STA_NANO != 0;
    Ok(Steering {
        tick_us: timex.tick,
        ticks_per_second: nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100),
        frequency: timex.freq,
        offset_ns: if nanoseconds { timex.offset } else { timex.offset * 1000 },
        constant: timex.constant,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_this_machine_says_how_it_is_steered() {
        let steering = clock_steering().expect("readable by everybody");
        assert!((9_000..=11_000).contains(&steering.tick_us), "{steering:?}");
    }
}
