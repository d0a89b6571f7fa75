//! What a member knows before it has read its log.

use super::MemberError;
use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use vip_core::{Name, NodeId, Profile};

/// The layout of the data directory. What grows within it has levels, in the log;
/// the layouts before 3 had none, and are not read.
pub(super) const DATA_VERSION: u32 = 4;
/// Its vote is in the log. Marked as 4 before the vote moves, so that a version which
/// would look for it there does not start on what it cannot know.
const VOTE_IN_LOG: u32 = 3;

/// What is stored beside the log: `node.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) version: u32,
    pub(crate) cluster: String,
    pub(crate) cluster_name: Name,
    pub(crate) node: NodeId,
    pub(crate) name: Name,
    pub(crate) profile: Profile,
    pub(crate) advertise: String,
    /// Keys of members, for the time before the log is here.
    pub(crate) members: BTreeMap<NodeId, String>,
    /// Where they were reached, for the time before Raft knows.
    #[serde(default)]
    pub(crate) addresses: BTreeMap<NodeId, String>,
    pub(crate) issuer: String,
}

/// What a node that joins is told of a member.
pub(crate) struct KnownMember {
    pub(crate) node: NodeId,
    /// Hash of its key (SPKI).
    pub(crate) spki: String,
    pub(crate) address: String,
}

impl Meta {
    fn path(dir: &Path) -> PathBuf {
        dir.join("node.json")
    }

    /// What is stored, in the layout of now from here on.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, MemberError> {
        let path = Self::path(dir);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MemberError::File { path, source }),
            Ok(text) => text,
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let bad =
            |e: serde_json::Error| MemberError::Meta { path: path.clone(), why: e.to_string() };
        let found = serde_json::from_str::<Version>(&text).map_err(bad)?.version;
        match found.cmp(&DATA_VERSION) {
            Ordering::Greater => Err(MemberError::Newer { path: dir.to_owned(), found }),
            Ordering::Less if found == VOTE_IN_LOG => {
                let mut meta: Self = serde_json::from_str(&text).map_err(bad)?;
                meta.version = DATA_VERSION;
                meta.store(dir)?;
                Ok(Some(meta))
            }
            Ordering::Less => Err(MemberError::Older { path: dir.to_owned(), found }),
            Ordering::Equal => serde_json::from_str(&text).map_err(bad).map(Some),
        }
    }

    pub(crate) fn store(&self, dir: &Path) -> Result<(), MemberError> {
        let path = Self::path(dir);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| MemberError::Meta { path: path.clone(), why: e.to_string() })?;
        vip_pki::write_secret(&path, text.as_bytes())
            .map_err(|source| MemberError::File { path, source })
    }

    /// A data directory that was copied to another host must not run there.
    pub(super) fn check_address(&self, config: &Config) -> Result<(), MemberError> {
        let ours = match (&config.node.advertise, self.advertise.parse::<SocketAddr>()) {
            (Some(ours), _) if *ours != self.advertise => ours.clone(),
            // Not configured: any address of this host may be meant. One that
            // cannot be bound is not this host's.
            (None, Ok(theirs)) if UdpSocket::bind((theirs.ip(), 0)).is_err() => {
                config.advertise().unwrap_or_else(|_| "another one".into())
            }
            _ => return Ok(()),
        };
        let (name, theirs) = (self.name.clone(), self.advertise.clone());
        Err(MemberError::Elsewhere { name, theirs, ours })
    }

    pub(crate) fn new(
        cluster: (String, Name),
        node: (NodeId, Name),
        profile: Profile,
        advertise: String,
        members: &[KnownMember],
        issuer: String,
    ) -> Self {
        let ((cluster, cluster_name), (node, name)) = (cluster, node);
        Self {
            version: DATA_VERSION,
            cluster,
            cluster_name,
            node,
            name,
            profile,
            advertise,
            members: members.iter().map(|m| (m.node, m.spki.clone())).collect(),
            addresses: members.iter().map(|m| (m.node, m.address.clone())).collect(),
            issuer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored for layout `version`, read.
    fn loaded(version: u32) -> (tempfile::TempDir, Result<Option<Meta>, MemberError>) {
        let dir = tempfile::tempdir().expect("a directory");
        let name = || "n1".parse::<Name>().expect("a name");
        let of = |text: &str| text.to_owned();
        let node = (NodeId(1), name());
        let meta = Meta::new((of("c"), name()), node, Profile::Lan, of("h:1"), &[], of("i"));
        Meta { version, ..meta }.store(dir.path()).expect("stored");
        let loaded = Meta::load(dir.path());
        (dir, loaded)
    }

    /// A version that knows layout 3 alone must not start on it afterwards.
    #[test]
    fn the_layout_whose_vote_is_in_the_log_becomes_the_present_one_at_once() {
        let (dir, first) = loaded(VOTE_IN_LOG);
        assert_eq!(first.expect("taken").expect("there").version, DATA_VERSION);
        let text = std::fs::read_to_string(Meta::path(dir.path())).expect("there");
        assert!(text.contains(&format!("\"version\": {DATA_VERSION}")), "{text}");
    }

    #[test]
    fn other_layouts_are_refused() {
        let older = loaded(VOTE_IN_LOG - 1).1;
        assert!(matches!(older, Err(MemberError::Older { found: 2, .. })));
        let newer = loaded(DATA_VERSION + 1).1;
        assert!(matches!(newer, Err(MemberError::Newer { .. })));
    }
}
