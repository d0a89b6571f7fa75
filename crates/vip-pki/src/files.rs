//! Files that hold secrets.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file of mode 0600, whole or not at all, and durably.
///
/// # Errors
/// Whatever the file system says; an older file stands then.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Not its extension's place: `a.key` and `a.crt` would share one.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
