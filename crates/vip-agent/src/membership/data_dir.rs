//! What is in the data directory, beside what a running member has there.

use crate::errors::internal;
use std::path::Path;
use tonic::Status;

/// A new cluster that is being built.
pub(crate) const BUILT: &str = "recovered.tmp";
/// One that is to take the place of what is there.
pub(crate) const DONE: &str = "recovered";
/// What was there before, until the next time.
pub(crate) const BEFORE: &str = "before-recovery";
/// Removes what a formation that did not finish left. A finished one has a
/// `node.json`.
pub(crate) fn wipe(dir: &Path) -> Result<(), Status> {
    let recovery = [BUILT, DONE, BEFORE];
    for name in ["node.json", "raft", "pki"].iter().chain(&recovery) {
        let path = dir.join(name);
        let result = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match result {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(internal(&format!("clearing {}", path.display()), &e));
            }
            _ => {}
        }
    }
    Ok(())
}
