//! What the log would cost on other disks than the one that is used: the measurement
//! beside the tests of them.

use crate::shell::run as call;
use anyhow::Result;

pub(super) fn run() -> Result<()> {
    let test = ["test", "--release", "--locked", "-p", "vip-raft", "--test", "store"];
    let which = ["--", "--ignored", "--nocapture", "--exact", "figures_of_disks"];
    call("cargo", &[&test[..], &which].concat())
}
