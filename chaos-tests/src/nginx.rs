//! An nginx in a namespace.

use crate::command::{binaries, run};
use crate::net::Lab;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// One that runs; it ends with the value.
#[derive(Debug)]
pub struct Nginx(Child);

impl Nginx {
    /// Starts it on a host, with the `nginx.conf` of a folder, which is its prefix; what it
    /// complains of is in `log` there.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn start(lab: &Lab, host: &str, dir: &Path) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.namespace(host)]).arg(program()?);
        command.arg("-p").arg(dir).args(["-c", "nginx.conf"]);
        // One process, which whoever started it ends.
        command.args(["-g", "daemon off; master_process off;"]);
        let log = std::fs::File::create(dir.join("log"))?;
        Ok(Self(command.stdin(Stdio::null()).stderr(log).spawn()?))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `cargo xtask` unpacks it where none is installed.
fn program() -> Result<PathBuf> {
    let unpacked = binaries()?.join("../unpacked/usr/sbin/nginx");
    if unpacked.exists() {
        return Ok(unpacked);
    }
    ensure!(run("nginx", &["-v"]).is_ok(), "no nginx: run `cargo xtask test` once");
    Ok("nginx".into())
}
