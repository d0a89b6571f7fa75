//! The layers of the workspace, proved from what cargo says.

use crate::shell::output;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// Which of our crates each may use. vip-core uses none.
const ALLOWED: &[(&str, &[&str])] = &[
    ("vip-core", &[]),
    ("vip-proto", &["vip-core"]),
    ("vip-sim", &["vip-core"]),
    ("vip-pki", &["vip-core"]),
    ("vip-datapath", &["vip-core"]),
    ("vip-guard", &["vip-core", "vip-datapath"]),
    ("vip-probe", &["vip-core"]),
    ("vip-raft", &["vip-core", "vip-proto", "vip-pki"]),
    ("vip-cloud", &["vip-core"]),
    (
        "vip-agent",
        &["vip-core", "vip-proto", "vip-raft", "vip-pki", "vip-guard", "vip-probe", "vip-cloud"],
    ),
    ("vipd", &["vip-agent", "vip-guard", "vip-probe"]),
    // vip-pki: remote contexts are TLS client certificates.
    ("vipctl", &["vip-core", "vip-proto", "vip-pki"]),
    ("chaos-tests", &[]),
    ("xtask", &["chaos-tests"]),
];

/// What a pure crate must not even reach.
const IMPURE: &[&str] = &["tokio", "tonic", "openraft", "rand", "socket2", "nix", "mio"];

/// What one crate alone names, so that it can be replaced.
const CONSENSUS: &str = "openraft";
const CONSENSUS_FACE: &str = "vip-raft";

pub(crate) fn check() -> Result<()> {
    let metadata = output("cargo", &["metadata", "--format-version=1", "--no-deps", "--locked"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for package in packages {
        let name = package["name"].as_str().context("no name")?;
        let Some(allowed) = allowed.get(name) else {
            bail!("{name} has no place among the layers; give it one in xtask's arrows.rs");
        };
        let dependencies = package["dependencies"].as_array().context("no dependencies")?;
        for dependency in dependencies.iter().filter(|d| d["kind"].is_null()) {
            let used = dependency["name"].as_str().context("no name")?;
            let ours = packages.iter().any(|p| p["name"] == used);
            if ours && !allowed.contains(&used) {
                bail!("{name} must not use {used}");
            }
            if used == CONSENSUS && name != CONSENSUS_FACE {
                bail!("{name} must not use {used}: {CONSENSUS_FACE} alone does");
            }
        }
    }
    let tree = output("cargo", &["tree", "-p", "vip-core", "-e", "normal", "--prefix=none"])?;
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if IMPURE.contains(&name) {
            bail!("vip-core decides, and must not reach {name}");
        }
    }
    Ok(())
}
