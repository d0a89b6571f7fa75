//! Replacing the issuing CA, as the leader sees it: members take certificates
//! of the new one, and when all that are there have one, the old one ends.

use crate::errors::from_write;
use crate::member::Member;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tonic::Status;
use vip_core::{NodeId, Op, Term};

/// Whose certificates of the newest issuer this node has seen: gone with it,
/// and said again.
#[derive(Debug, Default)]
pub(crate) struct Reissued(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    issuer: String,
    nodes: BTreeSet<NodeId>,
}

impl Reissued {
    /// A node came with a certificate of this issuer.
    pub(crate) fn saw(&self, node: NodeId, issuer: &str, signing: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.issuer != signing {
            *seen = Seen { issuer: signing.to_owned(), nodes: BTreeSet::new() };
        }
        if issuer == signing {
            seen.nodes.insert(node);
        }
    }

    fn with(&self, signing: &str) -> BTreeSet<NodeId> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.issuer == signing { seen.nodes.clone() } else { BTreeSet::new() }
    }
}

/// Who is there and has no certificate of the issuer that signs, as far as this
/// leader has seen.
pub(crate) fn missing(member: &Member) -> Vec<String> {
    let state = member.raft.state();
    let signing = state.issuers().and_then(|issuers| issuers.signing()).unwrap_or_default();
    let (alive, mut seen) = (member.shared.alive(), member.reissued.with(signing));
    if member.own_issuer().as_deref() == Some(signing) {
        seen.insert(member.meta.node);
    }
    state.not_reissued(&alive, &seen).map(|node| node.name.to_string()).collect()
}

/// Ends the old issuers if nobody who is there needs them any more.
///
/// # Errors
/// Not now.
pub(crate) async fn retire_issuers(member: &Member, term: Term) -> Result<(), Status> {
    let state = member.raft.state();
    let Some(issuers) = state.issuers().filter(|issuers| issuers.is_rotating()) else {
        return Ok(());
    };
    if !missing(member).is_empty() {
        return Ok(());
    }
    let keep = issuers.signing().unwrap_or_default().to_owned();
    member.propose(term, Op::RetireIssuers { keep }).await.map_err(|e| from_write(&e))?;
    tracing::info!("the issuing CA is replaced: certificates of the one before are refused");
    Ok(())
}
