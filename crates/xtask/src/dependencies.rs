//! What comes in from outside: `cargo deny`, by `.cargo/deny.toml`.

use crate::shell::{execute, root, run as call};
use anyhow::Result;

/// A newer one may find more: it is raised on purpose, not by a release.
const VERSION: &str = "0.20.2";
const TOOLS: &str = "target/tools";

/// Licences, duplicates, bans and sources; advisories where their database can
/// be had.
pub(crate) fn check() -> Result<()> {
    let program = root().join(TOOLS).join("bin/cargo-deny");
    if !program.is_file() {
        let build = format!("{TOOLS}/build");
        // It runs for two seconds; unoptimised, it is built in a third of the
        // time.
        let arguments = ["install", "cargo-deny", "--version", VERSION, "--locked", "--debug"];
        let places = ["--root", TOOLS, "--target-dir", &build];
        call("cargo", &[&arguments[..], &places].concat())?;
    }
    let program = program.display().to_string();
    call(&program, &["deny", "--locked", "check", "bans", "licenses", "sources"])?;
    let mut fetch = crate::shell::command(&program, &["deny", "fetch", "db"]);
    if execute(&mut fetch).is_err() {
        eprintln!("no database of advisories can be had; they are not checked");
        return Ok(());
    }
    call(&program, &["deny", "--locked", "check", "--disable-fetch", "advisories"])
}
