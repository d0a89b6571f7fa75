//! Tokens and keys: from a file, standard input or the environment, never from the
//! command line.

use crate::Failure;
use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

/// Environment variable with a join token.
const TOKEN_VARIABLE: &str = "VIPD_JOIN_TOKEN";
/// No token or key on standard input is longer.
const MAX_SECRET: u64 = 4096;

/// A secret from a file, or from standard input.
pub(crate) fn secret(path: &Path) -> Result<String, Failure> {
    if path.as_os_str() == "-" {
        return from_standard_input().map_err(|e| Failure::Usage(format!("standard input: {e}")));
    }
    std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// All of it; of a terminal what is pasted up to the end of the line.
fn from_standard_input() -> std::io::Result<String> {
    let (mut text, input) = (String::new(), std::io::stdin());
    if input.is_terminal() {
        input.lock().take(MAX_SECRET).read_line(&mut text)?;
    } else {
        input.lock().take(MAX_SECRET).read_to_string(&mut text)?;
    }
    Ok(text)
}

pub(crate) fn token(file: Option<PathBuf>) -> Result<String, Failure> {
    let text = match file {
        Some(path) => secret(&path)?,
        None => std::env::var(TOKEN_VARIABLE).map_err(|_| {
            Failure::Usage(format!(
                "no token: give --token-file FILE (or -), or set {TOKEN_VARIABLE}"
            ))
        })?,
    };
    let text = text.trim().to_owned();
    if text.is_empty() {
        return Err(Failure::Usage("no token was given; nothing was changed".into()));
    }
    Ok(text)
}
