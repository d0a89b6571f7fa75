//! `cargo xtask test`.

use crate::packages::{
    CC, IP, NFT, PING, PYTHON3, SETPRIV, STRACE, SYSTEMD, TCPDUMP, install, install_packages,
};
use crate::shell::{become_root, root, run as call};
use anyhow::Result;

/// vipd with one operation more, beside the one of this version: some tests roll
/// one over a cluster of the other.
fn build_next_version() -> Result<()> {
    let features = ["--features", "vipd/next-version"];
    call("cargo", &[&["build", "--workspace", "--locked"][..], &features].concat())?;
    let built = root().join("target/debug");
    std::fs::create_dir_all(built.join("next-version"))?;
    std::fs::copy(built.join("vipd"), built.join("next-version/vipd"))?;
    Ok(())
}

fn run_all() -> Result<()> {
    build_next_version()?;
    call("cargo", &["build", "--workspace", "--locked"])?;
    // What only the next version has.
    let next = ["--features", "vip-raft/next-version", "--lib"];
    call(
        "cargo",
        &[&["test", "--locked", "-p", "vip-core", "-p", "vip-raft"][..], &next].concat(),
    )?;
    // Unit tests first: they are fast and say more precisely what is wrong.
    call("cargo", &["test", "--workspace", "--locked", "--exclude", "chaos-tests"])?;
    // One at a time: each has three hosts, and time matters to them.
    let chaos = ["test", "--locked", "-p", "chaos-tests", "--", "--test-threads=1"];
    call("cargo", &chaos)
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

fn make_python() -> Result<()> {
    if call("python3", &["-m", "venv", PYTHON]).is_err() {
        // Debian has the module in a package of its own.
        install_packages(&["python3-venv"])?;
        call("python3", &["-m", "venv", PYTHON])?;
    }
    // Not the pip script: it has its place written into it, and a checkout may move.
    let python = root().join(PYTHON).join("bin/python").display().to_string();
    call(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", GRPC_TOOLS])
}

pub(crate) fn run() -> Result<()> {
    become_root()?;
    install(&[CC, IP, NFT, PING, SETPRIV, STRACE, SYSTEMD, PYTHON3, TCPDUMP])?;
    make_python()?;
    run_all()
}
