//! `cargo xtask verify` looks, `cargo xtask fix` mends.

use crate::packages::{CC, install};
use crate::shell::{has, root, run as call};
use crate::{arrows, dependencies, docs, rooms};
use anyhow::{Result, bail};
use std::fs;

/// Fixed top level of the repository, beside dotfiles.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "proto",
    "crates",
    "cmd",
    "deploy",
    "chaos-tests",
    "target",
];
const LINTS: &[&str] =
    &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];

pub(crate) fn run() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        install(&[CC])?;
    }
    top_level()?;
    call("cargo", &["fmt", "--all", "--check"])?;
    arrows::check()?;
    rooms::check()?;
    docs::check()?;
    call("cargo", LINTS)?;
    let mut docs = crate::shell::command("cargo", &["doc", "--workspace", "--no-deps", "--locked"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    crate::shell::execute(&mut docs)?;
    program_is_fresh()?;
    dependencies::check()?;
    eprintln!("verify: all well");
    Ok(())
}

pub(crate) fn fix() -> Result<()> {
    call("cargo", &["fmt", "--all"])?;
    call("cargo", &["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty"])?;
    if has("clang") {
        let directory = root().join("crates/vip-datapath/bpf");
        let mut build = crate::shell::command("./build", &["vipd.c", "vipd.o"]);
        crate::shell::execute(build.current_dir(directory))?;
    }
    Ok(())
}

fn top_level() -> Result<()> {
    for entry in fs::read_dir(root())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) {
            bail!("{name} does not belong at the top level");
        }
    }
    Ok(())
}

/// The committed object is what clang makes of the source. Only the same major
/// version of clang gives the same bytes, so another one is not asked.
fn program_is_fresh() -> Result<()> {
    const CLANG: &str = "version 14.";
    let can_build = has("clang") && has("llvm-strip");
    let version =
        if can_build { crate::shell::output("clang", &["--version"])? } else { String::new() };
    if !version.contains(CLANG) {
        eprintln!("without clang 14 and llvm-strip vipd.o is not compared with its source");
        return Ok(());
    }
    let directory = root().join("crates/vip-datapath/bpf");
    let fresh = std::env::temp_dir().join(format!("vipd-program-{}.o", std::process::id()));
    let text = fresh.display().to_string();
    let mut build = crate::shell::command("./build", &["vipd.c", &text]);
    crate::shell::execute(build.current_dir(&directory))?;
    let same = fs::read(&fresh)? == fs::read(directory.join("vipd.o"))?;
    fs::remove_file(&fresh)?;
    if !same {
        bail!("vipd.o is not what clang makes of vipd.c; run `cargo xtask fix`");
    }
    Ok(())
}
