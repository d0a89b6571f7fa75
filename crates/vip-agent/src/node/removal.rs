//! Finding out that this node was removed while it was off.
//!
//! Nobody tells it: its certificate is refused everywhere, and no leader calls.
//! So a node without a leader asks the members that it knows, as anybody may.

use super::Member;
use futures_util::future::join_all;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::Status;
use vip_core::{NodeId, Removal, moment};
use vip_proto::v1;
use vip_proto::v1::cluster_client::ClusterClient;

/// How long one member may take to answer, connecting included.
const ANSWER: Duration = Duration::from_secs(3);
/// Longest text about who removed it that is taken from another node.
const LONGEST_ACTOR: usize = 200;

/// What is known of it. A node that hears a leader is a member.
#[derive(Debug, Default)]
pub(super) struct KnownRemoval(Mutex<Option<Removal>>);

impl KnownRemoval {
    fn get(&self) -> Option<Removal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, removal: Option<Removal>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = known.is_some() != removal.is_some();
        *known = removal;
        is_news
    }
}

/// What one member says of a node.
enum Word {
    Member,
    Removed(Removal),
}

impl Member {
    /// That this node was removed, as the end of a sentence and what to do.
    pub(crate) fn removal(&self) -> Option<String> {
        // Whoever leads does not call those that are none of its own.
        let removal = self.removal.get().filter(|_| self.leases.leader().is_none());
        let Removal { time_ms, actor } = removal?;
        Some(format!(
            "this node was removed from cluster {} on {} by {actor}: `vipctl leave --force`, then \
             join again",
            self.meta.cluster_name,
            moment(time_ms)
        ))
    }

    /// The same, of a command that only a member can carry out.
    pub(crate) fn refuse_if_removed(&self) -> Result<(), Status> {
        match self.removal() {
            Some(text) => Err(Status::failed_precondition(format!("{text}. Nothing was done"))),
            None => Ok(()),
        }
    }

    /// There is a leader.
    pub(super) fn is_led(&self) {
        self.know(None);
    }

    fn know(&self, removal: Option<Removal>) {
        self.shared.set_removed(removal.is_some());
        if self.removal.set(removal)
            && let Some(text) = self.removal()
        {
            tracing::warn!("{text}. It asks for no votes any more");
        }
    }

    /// Asks all voters that it knows. That it was removed is believed if one says so
    /// and none that it is a member, of those that have a leader: one that lies
    /// silences nobody who reaches another, and those that were removed with it
    /// know of nothing.
    pub(super) async fn ask_whether_removed(&self) {
        let Ok(identity) = self.authority.identity() else { return };
        let (spki, state) = (identity.key.spki(), self.log.state());
        let others = self
            .peers
            .all()
            .into_iter()
            .filter(|(node, _)| state.nodes.get(node).is_none_or(|known| known.role.votes()));
        let asked = others.map(|(node, address)| self.word_of(node, address, &spki));
        let words: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let removal = words.iter().find_map(|word| match word {
            Word::Removed(removal) => Some(removal.clone()),
            Word::Member => None,
        });
        let is_member = words.iter().any(|word| matches!(word, Word::Member));
        if !words.is_empty() {
            self.know(removal.filter(|_| !is_member));
        }
    }

    async fn word_of(&self, other: NodeId, address: String, spki: &str) -> Option<Word> {
        let mut client = ClusterClient::new(self.peers.asking_channel(other, &address));
        let about = v1::identify_request::About { node: self.meta.node.0, spki: spki.to_owned() };
        let mut request = tonic::Request::new(v1::IdentifyRequest { about: Some(about) });
        request.set_timeout(ANSWER);
        let reply = client.identify(request).await.inspect_err(|status| {
            tracing::debug!(%other, why = status.message(), "it does not answer");
        });
        let reply = reply.ok()?.into_inner();
        // A new cluster that was made of this one has the same root.
        if reply.cluster != self.meta.cluster {
            return None;
        }
        let v1::IdentifyReply { is_member, removed, .. } = reply;
        let removal = |v1::identify_reply::Removal { time_ms, actor }| {
            let actor = actor.chars().filter(|c| !c.is_control()).take(LONGEST_ACTOR).collect();
            Word::Removed(Removal { time_ms, actor })
        };
        if is_member { Some(Word::Member) } else { removed.map(removal) }
    }
}
