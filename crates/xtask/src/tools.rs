//! Programs that come from outside, built once into a place of their own.

use crate::shell::{root, run as call};
use anyhow::Result;

const TOOLS: &str = "target/tools";

/// One of them. A newer one may find more: it is raised on purpose, not by a
/// release.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// Where it is; built if it is not there.
pub(crate) fn program(tool: &Tool) -> Result<String> {
    let program = root().join(TOOLS).join("bin").join(tool.name);
    if !program.is_file() {
        let build = format!("{TOOLS}/build");
        // They run for seconds; unoptimised, they are built in a third of the time.
        let arguments = ["install", tool.name, "--version", tool.version, "--locked", "--debug"];
        let places = ["--root", TOOLS, "--target-dir", &build];
        call("cargo", &[&arguments[..], &places].concat())?;
    }
    Ok(program.display().to_string())
}
