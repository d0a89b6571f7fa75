//! A new cluster of what is left of an old one: of this voter, or of a backup.
//!
//! ```text
//!  build everything in `recovered.tmp` ──> rename to `recovered`: from here on it is done
//!  ──> move its parts into their places, what was there into `before-recovery`
//! ```
//! A crash in between is made up for at the next start.

use super::backup::Backup;
use super::data_dir::{BEFORE, BUILT, DONE, wipe};
use super::formation::{Initialised, advertise, already, keep_root_key, new_cluster_id, start};
use super::seat::Seat;
use crate::errors::{from_refusal, internal};
use crate::node::{KnownMember, Member, Meta};
use crate::wall_clock::wall_clock_ms;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Status;
use vip_core::{Founder, Founding, NodeId, Role, State};
use vip_pki::{Issuer, NodeIdentity, NodeKey, PkiDir, generate_cluster_ca};
use vip_raft::LogEnd;

/// Whoever is there takes a connection within this time.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);
/// A node alone is elected once what it promised is over.
const LEADS_WITHIN: Duration = Duration::from_secs(20);

/// What is replaced.
const PARTS: [&str; 3] = ["raft", "pki", "node.json"];

fn refuse(why: String) -> Status {
    Status::failed_precondition(format!("{why}. Nothing was changed"))
}

/// Makes a new cluster of this voter of one that has lost its majority.
///
/// # Errors
/// It has not, as far as can be seen from here; or this node cannot.
pub(crate) async fn recover(agent: &Arc<Seat>) -> Result<Arc<Member>, Status> {
    let _one = agent.begin_forming().await?;
    let member = agent.member().ok_or_else(crate::errors::not_a_member)?;
    let me = member.meta.node;
    let state = member.log.state();
    if state.nodes.get(&me).is_none_or(|node| node.role != Role::Voter) {
        return Err(refuse("only a voter has all that a cluster needs: run this on one".into()));
    }
    if member.authority.issuer().is_none() {
        return Err(refuse("this voter has no issuing key yet: run this on another one".into()));
    }
    // What it cannot do it says before anything is stopped.
    refounded(agent, &member, &state)?;
    if let Some(leader) = member.leases.leader() {
        let leader = state.node_name(leader).map_or_else(|| "a node".into(), ToString::to_string);
        return Err(refuse(format!("{leader} leads: this cluster has its majority")));
    }
    let answering = answering(&state, me).await;
    if let Some((name, address)) = answering.first() {
        return Err(refuse(format!(
            "{name} answers at {address}: it is not off. With it this cluster may have its \
             majority. If it has not, stop vipd on all others first: `systemctl stop vipd \
             vipd-guard`"
        )));
    }
    let identity = member.authority.identity().map_err(|e| internal("its key", &e))?;
    tracing::warn!("making a new cluster of this node, without the others");
    agent.set_member(None);
    member.shut_down().await;
    let made = rebuild(agent, &member, identity).await;
    drop(member);
    match made {
        Ok(()) => go_on(agent).await,
        Err(status) => {
            // The old membership is as it was, and is started anew.
            tracing::error!(why = status.message(), "no new cluster was made");
            agent.start_over.cancel();
            Err(status)
        }
    }
}

/// The members beside `me` whose port is open.
async fn answering(state: &State, me: NodeId) -> Vec<(String, String)> {
    let others = state.nodes.values().filter(|node| node.id != me);
    let asked = others.map(|node| async {
        let connection = timeout(REACH_TIMEOUT, TcpStream::connect(&node.advertise)).await;
        matches!(connection, Ok(Ok(_))).then(|| (node.name.to_string(), node.advertise.clone()))
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

/// The member is shut down: its log is read to its end, and built anew.
async fn rebuild(agent: &Seat, member: &Member, identity: NodeIdentity) -> Result<(), Status> {
    let dir = &agent.config.node.data_dir;
    let (state, end) = member.raft.everything().map_err(|e| internal("reading the log", &e))?;
    let (state, me, issuer) = refounded(agent, member, &state)?;
    let address = member.meta.advertise.clone();
    let node = First { me, key: identity.key, issuer: &issuer, address };
    build(agent, state, end, node).await?;
    commit(dir).map_err(|e| internal("taking over the new cluster", &e))
}

/// The new cluster's state, its first node, and the CA that goes on signing.
fn refounded(
    agent: &Seat,
    member: &Member,
    state: &State,
) -> Result<(State, NodeId, Arc<Issuer>), Status> {
    // A replacement that was not done may name one whose key is not here.
    let trusted = state.issuers().map(|issuers| issuers.trusted.clone()).unwrap_or_default();
    let issuer = trusted.iter().rev().find_map(|spki| member.authority.issuer_of(spki));
    let issuer = issuer.ok_or_else(|| refuse("no issuing key is here".into()))?;
    let spki = issuer.spki().map_err(|e| internal("its issuer", &e))?;
    let founder = Founder::Survivor { node: member.meta.node, issuer: spki };
    let founding = founding(agent, new_cluster_id()?, founder);
    let (state, me) = state.refounded(&founding).map_err(|e| from_refusal(&e))?;
    Ok((state, me, issuer))
}

fn founding(agent: &Seat, cluster: String, founder: Founder) -> Founding {
    let actor = format!("root@{}", agent.name);
    Founding { cluster, actor, time_ms: wall_clock_ms(), founder }
}

/// The first node of the new cluster.
struct First<'a> {
    me: NodeId,
    key: NodeKey,
    issuer: &'a Issuer,
    address: String,
}

/// All that the new cluster's first node needs on its disk.
async fn build(agent: &Seat, state: State, end: LogEnd, first: First<'_>) -> Result<(), Status> {
    let First { me, key, issuer, address } = first;
    let new = agent.config.node.data_dir.join(BUILT);
    let clear = || match std::fs::remove_dir_all(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().mode(0o700).create(&new)
        }
    };
    clear().map_err(|e| internal(&format!("making {}", new.display()), &e))?;
    let cluster = state.cluster.clone().ok_or_else(|| Status::internal("no cluster"))?;
    let signed =
        key.csr().and_then(|csr| issuer.sign_node(&csr, me, Some(Role::Voter), 0, &cluster.id));
    let chain = signed.map_err(|e| internal("signing", &e))?;
    let (spki, issuer_spki) = (key.spki(), issuer.spki());
    let pki = PkiDir::new(&new);
    pki.store_identity(&NodeIdentity { key, chain })
        .and_then(|()| pki.store_issuer(issuer))
        .map_err(|e| internal("storing keys", &e))?;
    Meta::new(
        (cluster.id.clone(), cluster.name.clone()),
        (me, agent.name.clone()),
        cluster.profile,
        address.clone(),
        &[KnownMember { node: me, spki, address: address.clone() }],
        issuer_spki.map_err(|e| internal("its issuer", &e))?,
    )
    .store(&new)
    .map_err(|e| internal("storing the membership", &e))?;
    let founded = vip_raft::found(&new.join("raft"), Arc::new(state), end, me, address).await;
    founded.map_err(|e| internal("writing the log", &e))?;
    // What is renamed has to be whole, also after a loss of power.
    let synced = ["raft", "pki", ""].map(|part| std::fs::File::open(new.join(part))?.sync_all());
    let synced: io::Result<Vec<()>> = synced.into_iter().collect();
    synced.map(drop).map_err(|e| internal("writing the new cluster", &e))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// From here on the new cluster is what this node is a member of.
fn commit(dir: &Path) -> io::Result<()> {
    remove(&dir.join(BEFORE))?;
    std::fs::rename(dir.join(BUILT), dir.join(DONE))?;
    std::fs::File::open(dir)?.sync_all()?;
    adopt(dir)
}

/// Takes over what [`commit`] left to be taken over, if it did.
///
/// # Errors
/// Whatever the file system says; it is tried again at the next start.
pub(crate) fn adopt(dir: &Path) -> io::Result<()> {
    let (new, before) = (dir.join(DONE), dir.join(BEFORE));
    if !new.exists() {
        return Ok(());
    }
    if !before.exists() {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(&before)?;
    }
    for part in PARTS {
        // Moved already, by a start that did not come to its end.
        if !new.join(part).exists() {
            if !dir.join(part).exists() {
                return Err(io::Error::other(format!("{part} of the new cluster is missing")));
            }
            continue;
        }
        if dir.join(part).exists() {
            std::fs::rename(dir.join(part), before.join(part))?;
        }
        std::fs::rename(new.join(part), dir.join(part))?;
    }
    remove(&new)?;
    tracing::info!(before = %before.display(), "took over the new cluster's data");
    std::fs::File::open(dir)?.sync_all()
}

/// Starts what was taken over, and waits until it leads.
async fn go_on(agent: &Arc<Seat>) -> Result<Arc<Member>, Status> {
    let meta = Meta::load(&agent.config.node.data_dir);
    let meta = meta.map_err(|e| internal("its membership", &e))?;
    let meta = meta.ok_or_else(|| Status::internal("the membership is gone"))?;
    let started = start(agent, meta).await;
    // What is on the disk is good; a new process can try again.
    let member = started.inspect_err(|_| agent.start_over.cancel())?;
    agent.set_member(Some(member.clone()));
    if !member.comes_true(LEADS_WITHIN, || member.leases.leads_applied()).await {
        let text = "the new cluster was made; this node does not lead it yet";
        return Err(Status::deadline_exceeded(text));
    }
    Ok(member)
}

/// Makes a new cluster of this node, which is in none, with what a backup has.
///
/// # Errors
/// It is in one, or the backup is none.
pub(crate) async fn restore(agent: &Arc<Seat>, bytes: &[u8]) -> Result<Initialised, Status> {
    let backup = Backup::read(bytes).map_err(|e| refuse(vip_core::chain(&e)))?;
    let _one = agent.begin_forming().await?;
    if let Some(member) = agent.member() {
        return Err(already(&member));
    }
    let dir = agent.config.node.data_dir.clone();
    let address = advertise(agent)?;
    wipe(&dir)?;
    let cluster = new_cluster_id()?;
    let ca = generate_cluster_ca(&cluster).map_err(|e| internal("making the CA", &e))?;
    let key = NodeKey::generate().map_err(|e| internal("making a key", &e))?;
    let founder = Founder::Stranger {
        name: agent.name.clone(),
        advertise: address.clone(),
        spki: key.spki(),
        issuer: ca.issuer.spki().map_err(|e| internal("making the CA", &e))?,
    };
    let founding = founding(agent, cluster, founder);
    let (state, me) = backup.state.refounded(&founding).map_err(|e| from_refusal(&e))?;
    let end = LogEnd { index: backup.index, term: state.term, longest: Some(Duration::ZERO) };
    build(agent, state, end, First { me, key, issuer: &ca.issuer, address }).await?;
    let recovery_file = keep_root_key(&dir, &ca)?;
    commit(&dir).map_err(|e| internal("taking over the new cluster", &e))?;
    let member = go_on(agent).await.map_err(|status| {
        let (code, file) = (status.code(), recovery_file.display());
        Status::new(code, format!("{}. The key of its root CA is in {file}", status.message()))
    })?;
    Ok(Initialised { member, recovery_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, part: &str, text: &str) {
        let path = dir.join(part);
        if part.contains('.') {
            std::fs::create_dir_all(dir).expect("made");
            std::fs::write(path, text).expect("written");
        } else {
            std::fs::create_dir_all(&path).expect("made");
            std::fs::write(path.join("file"), text).expect("written");
        }
    }

    fn read(dir: &Path, part: &str) -> Option<String> {
        let path = dir.join(part);
        std::fs::read_to_string(if path.is_dir() { path.join("file") } else { path }).ok()
    }

    /// Whatever was done before the crash, a start comes to the end.
    #[test]
    fn a_crash_anywhere_in_between_is_made_up_for() {
        for (part, moved_away, moved_in) in [
            ("", false, false),
            ("raft", true, false),
            ("raft", true, true),
            ("pki", true, false),
            ("node.json", true, false),
            ("node.json", true, true),
        ] {
            let data = tempfile::tempdir().expect("made");
            let (dir, new) = (data.path(), data.path().join(DONE));
            for name in PARTS {
                write(dir, name, "old");
                write(&new, name, "new");
            }
            let before = dir.join(BEFORE);
            std::fs::create_dir_all(&before).expect("made");
            for name in PARTS.iter().take_while(|name| **name != part && !part.is_empty()) {
                std::fs::rename(dir.join(name), before.join(name)).expect("moved");
                std::fs::rename(new.join(name), dir.join(name)).expect("moved");
            }
            if moved_away {
                std::fs::rename(dir.join(part), before.join(part)).expect("moved");
            }
            if moved_in {
                std::fs::rename(new.join(part), dir.join(part)).expect("moved");
            }
            for _ in 0..2 {
                adopt(dir).expect("taken over");
                for name in PARTS {
                    assert_eq!(read(dir, name).as_deref(), Some("new"), "{name} after {part}");
                    assert_eq!(read(&before, name).as_deref(), Some("old"), "{name} after {part}");
                }
                assert!(!new.exists());
            }
        }
    }
}
