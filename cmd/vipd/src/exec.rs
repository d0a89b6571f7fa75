//! The process that runs the programs of checks, and those that move VIPs.

use crate::parent::end_with_parent;
use crate::supervised::{asked_to_stop, ready};
use anyhow::Context;
use nix::unistd::{User, geteuid, setgid, setgroups, setsid, setuid};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use vip_agent::{Config, ConfigError};
use vip_probe::exec::Folders;

/// Whom root becomes, if there is such a user; else the other.
const USERS: [&str; 2] = ["vipd-exec", "nobody"];

/// Its standard input is the socket where it listens: whoever starts it made it, since its
/// user may make none that the agent alone can reach.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    let owned = |folder: Option<&Path>| folder.map(ToOwned::to_owned);
    let (checks, movers) = (config.probe.programs(), config.cloud.exec.programs());
    if checks.or(movers).is_none() {
        let why = "neither it nor cloud.exec.dir is set, so there is nothing to run".to_owned();
        return Err(ConfigError::Value { key: "probe.exec_dir", why }.into());
    }
    let folders = Folders { checks: owned(checks), movers: owned(movers) };
    if geteuid().is_root() {
        become_nobody()?;
    }
    is_nobody(&config)?;
    // No terminal of whoever started it; it is a leader already where systemd did.
    let _ = setsid();
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let stop = asked_to_stop()?;
        ready();
        Ok(vip_probe::exec::serve(listener, folders, stop).await?)
    })
}

/// Whoever it is has nothing that a program must not have.
fn is_nobody(config: &Config) -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("its capabilities")?;
    for set in ["CapPrm:", "CapAmb:"] {
        let has = status.lines().find_map(|line| line.strip_prefix(set)).unwrap_or_default();
        anyhow::ensure!(
            has.trim().chars().all(|digit| digit == '0'),
            "this user has capabilities ({set} {}), and runs no programs",
            has.trim()
        );
    }
    let owns = |path: &Path| path.metadata().is_ok_and(|seen| seen.uid() == geteuid().as_raw());
    let data = &config.node.data_dir;
    anyhow::ensure!(!owns(data), "{} is this user's, who runs no programs", data.display());
    Ok(())
}

/// For good: all identities and groups, and with them all capabilities.
fn become_nobody() -> anyhow::Result<()> {
    let user = USERS.iter().find_map(|name| User::from_name(name).ok().flatten());
    let user = user.with_context(|| format!("this host has no user {}", USERS.join(" or ")))?;
    let why = || format!("root may not become {} here, and runs no programs", user.name);
    setgroups(&[]).with_context(why)?;
    setgid(user.gid).with_context(why)?;
    setuid(user.uid).with_context(why)?;
    anyhow::ensure!(setuid(0.into()).is_err(), "{} may become root again", user.name);
    // The kernel forgets it with the identity.
    end_with_parent();
    Ok(())
}
