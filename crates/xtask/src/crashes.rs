//! `cargo xtask crashes`.

use crate::packages::{CC, IP, install};
use crate::shell::{become_root, run as call};
use anyhow::Result;
use chaos_tests::{Work, crash};

pub(crate) fn run() -> Result<()> {
    become_root()?;
    install(&[CC, IP])?;
    // The binaries beside this very program are the ones that are tested.
    call("cargo", &["build", "--locked", "-p", "vipd", "-p", "vipctl"])?;
    for work in Work::ALL {
        println!("{}", crash(work, 1, 1)?);
    }
    Ok(())
}
