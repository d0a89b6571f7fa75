//! `cargo xtask test`.

use crate::packages::{CC, IP, SETPRIV, STRACE, SYSTEMD, install};
use crate::shell::{become_root, run as call};
use anyhow::Result;

fn run_all() -> Result<()> {
    call("cargo", &["build", "--workspace", "--locked"])?;
    // Unit tests first: they are fast and say more precisely what is wrong.
    call("cargo", &["test", "--workspace", "--locked", "--exclude", "chaos-tests"])?;
    // One at a time: each has three hosts, and time matters to them.
    let chaos = ["test", "--locked", "-p", "chaos-tests", "--", "--test-threads=1"];
    call("cargo", &chaos)
}

pub(crate) fn run() -> Result<()> {
    become_root()?;
    install(&[CC, IP, SETPRIV, STRACE, SYSTEMD])?;
    run_all()
}
