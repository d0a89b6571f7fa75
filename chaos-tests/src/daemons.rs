//! Servers of other people, in a namespace.

use crate::command::{binaries, run};
use crate::net::Lab;
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// One that runs; it ends with the value.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// An nginx on a host, with the `nginx.conf` of a folder, which is its prefix; what it
    /// complains of is in `log` there.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn nginx(lab: &Lab, host: &str, dir: &Path) -> Result<Self> {
        let mut command = on(lab, host);
        command.arg(unpacked("nginx", "-v")?.0).arg("-p").arg(dir).args(["-c", "nginx.conf"]);
        // One process, which whoever started it ends.
        command.args(["-g", "daemon off; master_process off;"]);
        Self::start(command, dir)
    }

    /// A dnsmasq on a host, with the `dnsmasq.conf` of a folder; what it complains of is in
    /// `log` there.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn dnsmasq(lab: &Lab, host: &str, dir: &Path) -> Result<Self> {
        ensure!(run("dnsmasq", &["--version"]).is_ok(), "no dnsmasq: run `cargo xtask test` once");
        let mut command = on(lab, host);
        command.args(["dnsmasq", "--keep-in-foreground", "--user=root", "--pid-file="]);
        command.arg(format!("--conf-file={}", dir.join("dnsmasq.conf").display()));
        Self::start(command, dir)
    }

    /// A haproxy on a host, with the `haproxy.cfg` of a folder; what it complains of is in
    /// `log` there.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn haproxy(lab: &Lab, host: &str, dir: &Path) -> Result<Self> {
        let (mut command, (program, libraries)) = (on(lab, host), unpacked("haproxy", "-v")?);
        // In the foreground, as one process.
        command.arg(program).arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        Self::start(command, dir)
    }

    /// A moto on a host, that has AWS's API and instance metadata at all its addresses, and a
    /// VPC whose router the host is: what it made is in the file `place` once it answers; what
    /// it complains of is in `log` of a folder.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn moto(lab: &Lab, host: &str, dir: &Path, place: &Path, hosts: &[&str]) -> Result<Self> {
        let mut command = on(lab, host);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/vip-cloud/tests/vpc.py");
        command.arg(python()?).arg(script).arg(place).args(["0.0.0.0", "80"]).args(hosts);
        command.stdout(Stdio::null());
        Self::start(command, dir)
    }

    /// A Neutron and a Keystone on a host, at all its addresses, of which others are to use
    /// `seen_at`, with a network that these addresses have ports in: what it made is in the file
    /// `place` once both answer; what it complains of is in `log` of a folder.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn openstack(
        lab: &Lab,
        host: &str,
        (dir, place): (&Path, &Path),
        seen_at: &str,
        ports: &[&str],
    ) -> Result<Self> {
        let python = binaries()?.join("../openstack/bin/python");
        ensure!(python.exists(), "no Neutron: run `cargo xtask test` once");
        let script = "../crates/vip-cloud/tests/neutron_cloud.py";
        let mut command = on(lab, host);
        command.arg(python).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).arg(place);
        command.args(["0.0.0.0", "9696", "5000"]).args(ports).env("SEEN_AT", seen_at);
        command.stdout(Stdio::null());
        Self::start(command, dir)
    }

    /// A gobgpd on a host, with the `gobgpd.toml` of a folder, that takes commands at the host's
    /// loopback alone; what it complains of is in `log` there.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn gobgpd(lab: &Lab, host: &str, dir: &Path) -> Result<Self> {
        let mut command = on(lab, host);
        command.arg(unpacked("gobgpd", "--version")?.0).arg("-f").arg(dir.join("gobgpd.toml"));
        command.args(["--api-hosts=127.0.0.1:50051", "--pprof-disable"]).stdout(Stdio::null());
        Self::start(command, dir)
    }

    /// A BIRD on a host, with the `bird.conf` of a folder; what it complains of is in `log`
    /// there.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn bird(lab: &Lab, host: &str, dir: &Path) -> Result<Self> {
        let (mut command, (program, libraries)) = (on(lab, host), unpacked("bird", "--version")?);
        command.arg(program).args(["-f", "-c"]).arg(dir.join("bird.conf"));
        command.arg("-s").arg(dir.join("bird.ctl"));
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        Self::start(command, dir)
    }

    fn start(mut command: Command, dir: &Path) -> Result<Self> {
        let log = std::fs::File::create(dir.join("log"))?;
        Ok(Self(command.stdin(Stdio::null()).stderr(log).spawn()?))
    }

    /// Stops it as it is, or lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.0.id().try_into()?), signal)?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Python that has moto.
///
/// # Errors
/// There is none.
pub fn python() -> Result<PathBuf> {
    let python = binaries()?.join("../python/bin/python");
    ensure!(python.exists(), "no moto: run `cargo xtask test` once");
    Ok(python)
}

/// Becomes what follows it, so that the child is the server itself.
fn on(lab: &Lab, host: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace(host)]);
    command
}

/// A program, and where its libraries are: `cargo xtask` unpacks both where it is not
/// installed.
///
/// # Errors
/// There is none.
pub fn unpacked(program: &str, version: &str) -> Result<(PathBuf, Option<PathBuf>)> {
    let place = binaries()?.join("../unpacked/usr");
    let file = ["sbin", "bin"].map(|folder| place.join(folder).join(program));
    let Some(file) = file.into_iter().find(|file| file.exists()) else {
        ensure!(run(program, &[version]).is_ok(), "no {program}: run `cargo xtask test` once");
        return Ok((program.into(), None));
    };
    let of_this_machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    Ok((file, Some(place.join("lib").join(of_this_machine))))
}
