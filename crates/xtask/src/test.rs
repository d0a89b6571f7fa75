//! `cargo xtask test`.

use crate::mutants;
use crate::packages::{
    BIRD, CC, DNSMASQ, GOBGPD, HAPROXY, IP, NFT, NGINX, PING, PYTHON3, SETPRIV, STRACE, SYSTEMD,
    TCPDUMP, install, install_packages, unpack,
};
use crate::shell::{become_root, root, run as call};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Of each build and run: with fewer packages or targets cargo would build what they
/// share once more, with fewer features.
const WHOLE: [&str; 2] = ["--workspace", "--locked"];

fn cargo(command: &str, arguments: &[&str]) -> Result<()> {
    call("cargo", &[&[command], &WHOLE[..], arguments].concat())
}

/// vipd with one operation more, beside the one of this version: some tests roll
/// one over a cluster of the other. What only it has is tested here.
fn build_next_version() -> Result<()> {
    let next = ["--features", "vipd/next-version"];
    cargo("build", &[&["--all-targets"], &next[..]].concat())?;
    let built = root().join("target/debug");
    std::fs::create_dir_all(built.join("next-version"))?;
    std::fs::copy(built.join("vipd"), built.join("next-version/vipd"))?;
    cargo("test", &[&["--lib"], &next[..]].concat())
}

/// `--test NAME` for each test of a package.
fn tests_of(package: &Path) -> Result<Vec<String>> {
    let Ok(tests) = std::fs::read_dir(package.join("tests")) else { return Ok(vec![]) };
    let mut named = vec![];
    for path in tests.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()? {
        let is_test = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists();
        let name = path.file_stem().filter(|_| is_test);
        named.extend(name.map(|name| name.to_string_lossy().into_owned()));
    }
    named.sort();
    Ok(named.into_iter().flat_map(|name| ["--test".into(), name]).collect())
}

fn run_all() -> Result<()> {
    build_next_version()?;
    cargo("build", &["--all-targets"])?;
    // Unit tests first: they are fast and say more precisely what is wrong.
    let mut units = vec![];
    for packages in ["crates", "cmd"] {
        for package in std::fs::read_dir(root().join(packages))? {
            units.extend(tests_of(&package?.path())?);
        }
    }
    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    cargo("test", &[&["--lib", "--bins"], &units[..]].concat())?;
    cargo("test", &["--doc"])?;
    // One at a time: each has three hosts, and time matters to them.
    let chaos = tests_of(&root().join("chaos-tests"))?;
    let chaos: Vec<&str> = chaos.iter().map(String::as_str).collect();
    if let Some(twice) = chaos.iter().find(|name| **name != "--test" && units.contains(name)) {
        bail!("two packages have a test {twice}: one of them would run as the other does");
    }
    cargo("test", &[&chaos[..], &["--", "--test-threads=1"]].concat())
}

/// Runs the simulator with these arguments.
pub(crate) fn simulate(args: &[String]) -> Result<()> {
    let own = ["run", "--quiet", "--release", "--locked", "-p", "vip-sim", "--"];
    let all: Vec<&str> = own.into_iter().chain(args.iter().map(String::as_str)).collect();
    call("cargo", &all)
}

/// The client that drives the admin API comes from stock tools, in a place of
/// its own.
const PYTHON: &str = "target/python";
const GRPC_TOOLS: &str = "grpcio-tools==1.85.1";
/// And AWS's API, for those who call it.
const MOTO: &str = "moto[ec2,iam,server]==5.2.5";

/// OpenStack's network and identity services, in a place of their own: what they need is theirs.
const OPENSTACK: &str = "target/openstack";
const SERVICES: [&str; 4] = ["-c", "crates/vip-cloud/tests/constraints.txt", "neutron", "keystone"];

fn make_python(place: &str, packages: &[&str]) -> Result<()> {
    if call("python3", &["-m", "venv", place]).is_err() {
        // Debian has the module in a package of its own.
        install_packages(&["python3-venv"])?;
        call("python3", &["-m", "venv", place])?;
    }
    // Not the pip script: it has its place written into it, and a checkout may move.
    let python = root().join(place).join("bin/python").display().to_string();
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    call(&python, &[&install[..], packages].concat())
}

pub(crate) fn run() -> Result<()> {
    become_root()?;
    install(&[CC, DNSMASQ, IP, NFT, PING, SETPRIV, STRACE, SYSTEMD, PYTHON3, TCPDUMP])?;
    unpack(&NGINX)?;
    unpack(&HAPROXY)?;
    unpack(&GOBGPD)?;
    unpack(&BIRD)?;
    make_python(PYTHON, &[GRPC_TOOLS, MOTO])?;
    make_python(OPENSTACK, &SERVICES)?;
    run_all()?;
    mutants::sample()
}
