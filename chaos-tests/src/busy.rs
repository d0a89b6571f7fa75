//! Busy loops on the machine.

use anyhow::{Context, Result};
use std::process::{Child, Command, Stdio};

/// Running busy loops; they end with the value.
#[derive(Debug, Default)]
pub struct BusyLoops(Vec<Child>);

impl BusyLoops {
    /// Starts so many.
    ///
    /// # Errors
    /// There is no shell.
    pub fn start(loops: u8) -> Result<Self> {
        let mut running = Self::default();
        for _ in 0..loops {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            running.0.push(command.spawn().context("starting sh")?);
        }
        Ok(running)
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
