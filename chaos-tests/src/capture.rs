//! What the client's link carried, kept when a run fails.

use crate::net::Lab;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running capture; it ends with the value.
#[derive(Debug)]
pub(crate) struct Capture {
    child: Child,
    path: PathBuf,
}

impl Capture {
    /// Starts one of the client's link into the file `path`.
    pub(crate) fn start(lab: &Lab, path: &Path) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.namespace("client"), "tcpdump"]);
        command.args(["-i", "eth0", "-n", "-U", "-s", "96", "-w"]).arg(path);
        command.args(["-Z", "root", "arp or icmp or icmp6"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("starting tcpdump")?;
        Ok(Self { child, path: path.to_owned() })
    }

    /// Nothing was wrong: nobody will look at it.
    pub(crate) fn discard(self) {
        let path = self.path.clone();
        drop(self);
        let _ = std::fs::remove_file(path);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
