//! What tests and demo need beside cargo, from Debian's or Ubuntu's packages.

use crate::shell::{has, root, run};
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
/// For a guest with another kernel.
pub(crate) const QEMU: Need = Need { program: "qemu-system-x86_64", package: "qemu-system-x86" };
/// For its modules.
pub(crate) const KMOD: Need = Need { program: "depmod", package: "kmod" };
/// For requests in great number.
pub(crate) const WRK: Need = Need { program: "wrk", package: "wrk" };
/// For the worked example.
pub(crate) const NGINX: Need = Need { program: "nginx", package: "nginx" };
/// A load balancer that asks nodes.
pub(crate) const HAPROXY: Need = Need { program: "haproxy", package: "haproxy" };
/// A BGP speaker of a node's, and a router that listens to it.
pub(crate) const GOBGPD: Need = Need { program: "gobgpd", package: "gobgpd" };
pub(crate) const BIRD: Need = Need { program: "bird", package: "bird2" };
/// For the worked example of a server of names; the package has no service.
pub(crate) const DNSMASQ: Need = Need { program: "dnsmasq", package: "dnsmasq-base" };
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

/// Has a program that would run as a service of this machine, were it installed:
/// unpacked below `target/` alone.
pub(crate) fn unpack(need: &Need) -> Result<()> {
    let place = root().join("target/unpacked");
    let is_here = |folder| place.join(folder).join(need.program).exists();
    if has(need.program) || ["usr/sbin", "usr/bin"].into_iter().any(is_here) {
        return Ok(());
    }
    if !has("apt-get") {
        bail!("please install: {}", need.package);
    }
    eprintln!("unpacking what is missing: {}", need.package);
    std::fs::create_dir_all(&place)?;
    run("apt-get", &["update", "-q"])?;
    // With the libraries that this machine lacks.
    let here = format!("Dir::Cache::archives={}", place.display());
    let download = ["install", "-y", "-q", "--no-install-recommends", "--download-only"];
    run("apt-get", &[&download[..], &["-o", &here, need.package]].concat())?;
    for archive in std::fs::read_dir(&place)? {
        let archive = archive?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            let [archive, place] = [&archive, &place].map(|path| path.display().to_string());
            run("dpkg-deb", &["-x", &archive, &place])?;
        }
    }
    Ok(())
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
