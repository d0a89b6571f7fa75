//! The largest P that this node ever promised: for how long it is bound after a
//! restart.

use super::MemberError;
use std::io;
use std::path::Path;
use std::time::Duration;
use vip_core::Profile;

/// Stores `promise`, if it is the largest, before it is first used. Returns the
/// largest so far; of a file that says nothing, the largest that there is.
pub(super) fn store(dir: &Path, promise: Duration) -> Result<Duration, MemberError> {
    let path = dir.join("longest-promise-ms");
    let file = |source| MemberError::File { path: path.clone(), source };
    let stored = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Duration::from_millis).unwrap_or_else(|_| {
            let path = path.display();
            tracing::warn!(%path, "damaged; waiting for as long as any promise lasts");
            Profile::Wan.timing().promise
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Duration::ZERO,
        Err(e) => return Err(file(e)),
    };
    if stored < promise {
        let text = promise.as_millis().to_string();
        vip_pki::write_secret(&path, text.as_bytes()).map_err(file)?;
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: Duration = Profile::Lan.timing().promise;
    const WAN: Duration = Profile::Wan.timing().promise;

    #[test]
    fn the_largest_stays() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        assert_eq!(store(dir.path(), LAN)?, Duration::ZERO);
        assert_eq!(store(dir.path(), WAN)?, LAN);
        assert_eq!(store(dir.path(), LAN)?, WAN);
        assert_eq!(store(dir.path(), LAN)?, WAN);
        Ok(())
    }

    #[test]
    fn damage_does_not_shorten_what_was_promised() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("longest-promise-ms"), "2\u{0}")?;
        assert_eq!(store(dir.path(), LAN)?, WAN);
        Ok(())
    }
}
