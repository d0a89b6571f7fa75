//! Checks by a program of the operator's own.

use super::error::CheckKindError;
use super::words::visible;
use std::fmt;

/// A file of the folder that each node has for them, and what it is called with.
///
/// The log names a file and never a command: whoever may change virtual servers chooses among
/// what root put on the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecCheck {
    /// A file's name, without a folder.
    pub file: String,
    pub arguments: Vec<String>,
}

/// Longest name of a file that Linux knows (`NAME_MAX`).
const MAX_NAME: usize = 255;
/// Most arguments.
const MAX_ARGUMENTS: usize = 16;

impl ExecCheck {
    pub(super) fn take(text: &str) -> Result<Self, CheckKindError> {
        let mut parts = text.split(',').map(str::to_owned);
        let file = parts.next().unwrap_or_default();
        if !is_file_name(&file) {
            return Err(CheckKindError::bad("file", &file, INSTEAD));
        }
        let arguments: Vec<String> = parts
            .map(|one| visible("argument", one, |letter| !letter.is_control(), "a plain text"))
            .collect::<Result<_, _>>()?;
        if arguments.len() > MAX_ARGUMENTS {
            let (what, count, most) = ("arguments of a check", arguments.len(), MAX_ARGUMENTS);
            return Err(CheckKindError::TooMany { what, count, most });
        }
        Ok(Self { file, arguments })
    }
}

const INSTEAD: &str =
    "exec:NAME,ARGUMENT,.. with the name of a file in the nodes' [probe] exec_dir";

/// Whether it names a file of a folder, and nothing above it, nor one that hides.
pub(in crate::spec) fn is_file_name(text: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(letter)
        && !text.starts_with(['.', '-'])
}

impl fmt::Display for ExecCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exec:{}", self.file)?;
        self.arguments.iter().try_for_each(|one| write!(f, ",{one}"))
    }
}
