//! What comes in from outside: `cargo deny`, by `.cargo/deny.toml`.

use crate::shell::{execute, run as call};
use crate::tools::{Tool, program};
use anyhow::Result;

const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

/// Licences, duplicates, bans and sources; advisories where their database can
/// be had.
pub(crate) fn check() -> Result<()> {
    let program = program(&CARGO_DENY)?;
    call(&program, &["deny", "--locked", "check", "bans", "licenses", "sources"])?;
    let mut fetch = crate::shell::command(&program, &["deny", "fetch", "db"]);
    if execute(&mut fetch).is_err() {
        eprintln!("no database of advisories can be had; they are not checked");
        return Ok(());
    }
    call(&program, &["deny", "--locked", "check", "--disable-fetch", "advisories"])
}
