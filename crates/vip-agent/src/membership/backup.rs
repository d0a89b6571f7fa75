//! A backup: what the log says, without anybody's private key. Two lines: what it
//! is, and the state.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use vip_core::{Level, Name, State};
use vip_pki::sha256_hex;

/// Of the format.
const VERSION: u32 = 2;
/// No log is longer.
const FURTHEST: u64 = 1 << 48;
/// No backup is longer; a state of a thousand VIPs has about one MB.
pub(crate) const LONGEST: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Head {
    vipd_backup: u32,
    cluster: String,
    name: Name,
    /// When, ms since 1970, by the log.
    made_ms: u64,
    /// Index of the last entry that is in it.
    index: u64,
    /// What has to be understood to read it.
    needs: Level,
    /// Of index, level and the second line, without its end.
    sha256: String,
}

fn sum(index: u64, needs: Level, state: &[u8]) -> String {
    sha256_hex(&[format!("{index} {needs} ").as_bytes(), state].concat())
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Backup {
    pub(crate) state: State,
    pub(crate) index: u64,
}

/// Why a text is no backup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("this is no backup of vipd")]
    Other,
    #[error("this backup was made by a newer vipd (format {0}, this one knows {VERSION})")]
    Newer(u32),
    #[error(
        "this backup was made by an earlier vipd (format {0}, this one knows {VERSION}): recover it \
         with the version that made it"
    )]
    Older(u32),
    #[error(
        "this backup was made by a newer vipd: it takes one that understands level {0}, and this \
         one understands {here}",
        here = Level::HERE
    )]
    Beyond(Level),
    #[error("the backup is damaged: its checksum is wrong")]
    Damaged,
    #[error("the backup cannot be read")]
    State(#[source] serde_json::Error),
    #[error("there is no cluster to back up")]
    Empty,
}

impl Backup {
    pub(crate) fn write(&self) -> Result<Vec<u8>, BackupError> {
        let cluster = self.state.cluster.as_ref().ok_or(BackupError::Empty)?;
        let state = serde_json::to_vec(&self.state).map_err(BackupError::State)?;
        let head = Head {
            vipd_backup: VERSION,
            cluster: cluster.id.clone(),
            name: cluster.name.clone(),
            made_ms: self.state.time_ms,
            index: self.index,
            needs: self.state.needs,
            sha256: sum(self.index, self.state.needs, &state),
        };
        let head = serde_json::to_vec(&head).map_err(BackupError::State)?;
        Ok([&head[..], b"\n", &state, b"\n"].concat())
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Version {
            vipd_backup: u32,
        }
        let at = bytes.iter().position(|byte| *byte == b'\n').ok_or(BackupError::Other)?;
        let (head, rest) = bytes.split_at(at);
        let version: Version = serde_json::from_slice(head).map_err(|_| BackupError::Other)?;
        match version.vipd_backup.cmp(&VERSION) {
            Ordering::Greater => return Err(BackupError::Newer(version.vipd_backup)),
            Ordering::Less => return Err(BackupError::Older(version.vipd_backup)),
            Ordering::Equal => {}
        }
        let head: Head = serde_json::from_slice(head).map_err(|_| BackupError::Other)?;
        let state = rest.trim_ascii();
        if sum(head.index, head.needs, state) != head.sha256 || head.index > FURTHEST {
            return Err(BackupError::Damaged);
        }
        if head.needs > Level::HERE {
            return Err(BackupError::Beyond(head.needs));
        }
        let state: State = serde_json::from_slice(state).map_err(BackupError::State)?;
        if state.cluster.is_none() {
            return Err(BackupError::Empty);
        }
        Ok(Self { state, index: head.index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backup() -> Backup {
        let mut state = State::default();
        let op = vip_core::ClusterOp::Bootstrap {
            cluster: "c".into(),
            name: "lab".parse().expect("a name"),
            profile: vip_core::Profile::Lan,
            node: "n1".parse().expect("a name"),
            advertise: "192.0.2.1:7400".into(),
            spki: "s".into(),
            issuer: "i".into(),
            runs: vip_core::Runs::here(),
        };
        let actor = vip_core::Actor("root@n1".into());
        state.apply(1, &vip_core::Command { time_ms: 1, actor, term: None, op: op.into() });
        Backup { state, index: 7 }
    }

    #[test]
    fn what_was_written_is_read() {
        let made = backup();
        let read = Backup::read(&made.write().expect("written")).expect("read");
        assert_eq!((read.state, read.index), (made.state, 7));
    }

    #[test]
    fn of_another_format_it_says_so() {
        let text = String::from_utf8(backup().write().expect("written")).expect("text");
        let of = |format| text.replace("\"vipd_backup\":2", &format!("\"vipd_backup\":{format}"));
        assert!(matches!(Backup::read(of(3).as_bytes()), Err(BackupError::Newer(3))));
        assert!(matches!(Backup::read(of(1).as_bytes()), Err(BackupError::Older(1))));
        let mut later = backup();
        later.state.needs = Level(Level::HERE.0 + 1);
        let read = Backup::read(&later.write().expect("written"));
        assert!(matches!(read, Err(BackupError::Beyond(level)) if level == later.state.needs));
        for other in ["", "\n", "{}\n{}\n", "vipd\n"] {
            assert!(matches!(Backup::read(other.as_bytes()), Err(BackupError::Other)), "{other}");
        }
        let other = text.replace("\"index\":7", "\"index\":8");
        assert!(matches!(Backup::read(other.as_bytes()), Err(BackupError::Damaged)));
        let nothing = Backup { state: State::default(), index: 0 };
        assert!(nothing.write().is_err());
    }

    proptest! {
        /// One byte of it is another: of the state that is always seen.
        #[test]
        fn a_change_of_the_state_is_noticed(at in any::<prop::sample::Index>(), by in 1..=255_u8) {
            let mut bytes = backup().write().expect("written");
            let state = bytes.iter().position(|byte| *byte == b'\n').expect("two lines") + 1;
            let at = state + at.index(bytes.len() - state - 1);
            bytes[at] ^= by;
            prop_assert!(Backup::read(&bytes).is_err());
        }
    }
}
