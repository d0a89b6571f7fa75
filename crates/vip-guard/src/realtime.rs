//! Threads that deadlines depend on.

#![expect(unsafe_code, reason = "no safe wrapper knows SCHED_RESET_ON_FORK")]

/// Priority among real-time threads: above default ones, below the kernel's.
const PRIORITY: libc::c_int = 10;

/// Asks for `SCHED_RR` for this thread, which then runs before ordinary ones on
/// a busy machine. Threads and processes that it starts have none of it
/// (sched(7)), and another program of its process has. Whether that was allowed;
/// otherwise nothing changed.
#[must_use]
pub fn realtime() -> bool {
    let priority = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads a sched_param from where one is; 0 is this thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const priority) == 0 }
}
