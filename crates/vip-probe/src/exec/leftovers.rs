//! What runs leave behind: processes that outlived theirs, whatever session they went to.
//!
//! The kernel makes them this process's children (PR_SET_CHILD_SUBREAPER), and so they can be
//! told from all others.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{Pid, getpgid};

/// Ends every child of this process that is left of a run, by its number and that of its group.
/// Those that these leave are children of this process by the next call. Returns how many there
/// were.
pub fn end_left(is_left: impl Fn(Pid, Pid) -> bool) -> usize {
    let looks = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if waitid(Id::All, looks) == Err(Errno::ECHILD) {
        return 0;
    }
    let is_left = |child: &Pid| getpgid(Some(*child)).is_ok_and(|group| is_left(*child, group));
    let left: Vec<_> = children().into_iter().filter(is_left).collect();
    for child in &left {
        let _ = kill(*child, Signal::SIGKILL);
        let _ = waitpid(*child, Some(WaitPidFlag::WNOHANG));
    }
    left.len()
}

/// By all that there are: not every kernel lists them (`CONFIG_PROC_CHILDREN`).
fn children() -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return vec![] };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let me = Pid::this();
    pids.map(Pid::from_raw).filter(|pid| parent(*pid) == Some(me)).collect()
}

/// proc_pid_stat(5): the second field after the name, which may have any letters.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    Some(Pid::from_raw(after.split_whitespace().nth(1)?.parse().ok()?))
}
