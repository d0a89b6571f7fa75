//! Disks that fail.

use anyhow::Result;
use chaos_tests::{Cluster, Options, run, wait_for};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

/// A file system of 16 MiB, gone with the value.
struct SmallDisk(String);

impl SmallDisk {
    fn on(path: &str) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        run("mount", &["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", path])?.ok()?;
        Ok(Self(path.to_owned()))
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let filler = std::path::Path::new(&self.0).join("filler");
        // Ends with the error that is wanted.
        let _ = std::fs::write(filler, vec![1u8; 32 << 20]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.0]);
    }
}

#[test]
fn a_full_disk_costs_the_holder_its_vip_and_nobody_else_anything() -> Result<()> {
    let mut cluster = Cluster::bare(&Options::default())?;
    cluster.host_mut("n1").stop()?;
    let data = cluster.host("n1").dir().join("data").display().to_string();
    let disk = SmallDisk::on(&data)?;
    cluster.host_mut("n1").start()?;
    cluster.form()?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    disk.fill();
    // Any command that has to be stored shows it.
    let token = cluster.host("n2").ctl(&["--timeout", "5s", "token", "create", "-q"])?;
    assert!(matches!(token.code, Some(0 | 1 | 3)), "{}", token.stderr);
    let holder = wait_for("another holder", SOON, || {
        let json = cluster.host("n2").ctl_json(&["vip", "show", "web"]).ok()?;
        let holder = json["holder"].as_str()?.to_owned();
        (json["answers"].as_bool()? && holder != "n1").then_some(holder)
    })?;
    assert!(["n2", "n3"].contains(&holder.as_str()));
    wait_for("n1 says why", SOON, || {
        cluster.host("n1").log().contains("the log failed").then_some(())
    })?;
    assert!(!cluster.lab.has_address("n1", "10.77.0.100")?);
    // With room again it comes back by itself.
    std::fs::remove_file(std::path::Path::new(&data).join("filler"))?;
    cluster.wait_for_status("n1", "n1 follows", |s| s.quorum.then_some(()))?;
    cluster.hosts.clear();
    drop(disk);
    Ok(())
}
