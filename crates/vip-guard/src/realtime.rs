//! Threads that deadlines depend on.

use thread_priority::unix::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

/// Priority among real-time threads: above default ones, below the kernel's.
const PRIORITY: u8 = 10;

/// Back to what threads have that nothing waits for, and with it those that this one starts.
#[cfg(feature = "server")]
pub(crate) fn ordinary() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    let (own, any) = (thread_native_id(), ThreadPriority::Min);
    if let Err(error) = set_thread_priority_and_policy(own, any, policy) {
        tracing::warn!(?error, "threads for tables may run before others");
    }
}

/// Asks for `SCHED_RR` for this thread, which then runs before ordinary ones on
/// a busy machine. Whether that was allowed; otherwise nothing changed.
#[must_use]
pub fn realtime() -> bool {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    ThreadPriorityValue::try_from(PRIORITY).is_ok_and(|value| {
        let priority = ThreadPriority::Crossplatform(value);
        set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
    })
}
