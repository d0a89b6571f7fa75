//! What tests and demo need beside cargo, from Debian's or Ubuntu's packages.

use crate::shell::{has, run};
use anyhow::{Result, bail};

/// A program and the package that brings it.
pub(crate) struct Need {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// For network namespaces.
pub(crate) const IP: Need = Need { program: "ip", package: "iproute2" };
/// For reaching a VIP from behind a router.
pub(crate) const PING: Need = Need { program: "ping", package: "iputils-ping" };
/// For partitions and loss between nodes.
pub(crate) const NFT: Need = Need { program: "nft", package: "nftables" };
/// For what a failed run leaves.
pub(crate) const TCPDUMP: Need = Need { program: "tcpdump", package: "tcpdump" };
/// To measure against.
pub(crate) const KEEPALIVED: Need = Need { program: "keepalived", package: "keepalived" };
/// For watching system calls.
pub(crate) const STRACE: Need = Need { program: "strace", package: "strace" };
/// For the test of the units.
pub(crate) const SYSTEMD: Need = Need { program: "systemd-analyze", package: "systemd" };
/// For dropping capabilities.
pub(crate) const SETPRIV: Need = Need { program: "setpriv", package: "util-linux" };
/// For the client of the admin API.
pub(crate) const PYTHON3: Need = Need { program: "python3", package: "python3" };
/// A C compiler, for the TLS library.
pub(crate) const CC: Need = Need { program: "cc", package: "gcc" };

/// Installs what is missing, and says so.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|n| !has(n.program)).map(|n| n.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has("apt-get") {
        bail!("please install: {}", missing.join(", "));
    }
    install_packages(&missing)
}

/// Installs packages by name.
pub(crate) fn install_packages(missing: &[&str]) -> Result<()> {
    eprintln!("installing what is missing: {}", missing.join(", "));
    run("apt-get", &["update", "-q"])?;
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(missing);
    let mut command = crate::shell::command("apt-get", &arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    crate::shell::execute(&mut command)
}
