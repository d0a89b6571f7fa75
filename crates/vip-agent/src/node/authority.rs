//! What this node is by certificate, and what it signs for others.

use super::log::Log;
use super::tls::{Configs, Tls};
use super::{MemberError, issuers::IssuerKeys};
use crate::errors::{internal, invalid, no_issuer};
use std::sync::Arc;
use tokio::sync::watch;
use tonic::Status;
use vip_core::{NodeId, NodeState, Role, chain};
use vip_pki::{IdentityError, Issuer, NodeIdentity, PkiDir, Roster, SharedRoster, spki_of_csr};
use vip_raft::PeerChannels;

/// See the module.
pub(crate) struct Authority {
    pub(super) me: NodeId,
    pub(super) cluster: String,
    pub(super) log: Log,
    pub(super) pki: PkiDir,
    pub(super) issuers: IssuerKeys,
    pub(super) roster: SharedRoster,
    pub(super) tls: Tls,
    /// Connections by an earlier certificate.
    pub(super) channels: PeerChannels,
    /// Tells who keeps connections of its own.
    pub(super) redial: watch::Sender<()>,
    /// `activate` and renewals one after the other: each replaces the certificate.
    pub(super) replacing: tokio::sync::Mutex<()>,
}

impl Authority {
    /// Who may connect, by the log.
    pub(crate) fn roster(&self) -> &SharedRoster {
        &self.roster
    }

    /// This node's key and certificate.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn identity(&self) -> Result<NodeIdentity, IdentityError> {
        self.pki.load_identity()
    }

    /// The key (SPKI hash) of the CA that signed this node's certificate.
    pub(crate) fn own_issuer(&self) -> Option<String> {
        self.tls.now().issuer.clone()
    }

    /// From when until when its certificate is valid, seconds since 1970.
    pub(super) fn validity(&self) -> Option<(i64, i64)> {
        self.tls.now().validity
    }

    /// A request for a certificate of this node's key.
    pub(super) fn csr(&self) -> Result<Vec<u8>, String> {
        let identity = self.identity().map_err(|e| chain(&e))?;
        identity.key.csr().map_err(|e| chain(&e))
    }

    /// Uses a certificate that a member sent, if it is one for this node.
    pub(super) async fn take_certificate(&self, certificates: Vec<Vec<u8>>) -> Result<(), String> {
        // Whoever replaces it at the same time writes the same files.
        let _one = self.replacing.lock().await;
        let identity = self.identity().map_err(|e| chain(&e))?;
        let certificates: Vec<_> = certificates.into_iter().map(Into::into).collect();
        let root = identity.root_pin().ok_or("the certificate is damaged")?;
        let (key, node, cluster) = (&identity.key, self.me, &self.cluster);
        let expected = vip_pki::Expected { root, key, node, cluster };
        expected.check(&certificates).map_err(|e| chain(&e))?;
        let issuer = certificates.get(1).and_then(|c| vip_pki::spki_of_certificate(c));
        let state = self.log.state();
        let retired = state.issuers().map_or(&[][..], |issuers| &issuers.retired);
        if issuer.is_none_or(|issuer| retired.contains(&issuer)) {
            return Err("its issuer was replaced".into());
        }
        let renewed = NodeIdentity { key: identity.key, chain: certificates };
        self.use_identity(&renewed).map_err(|e| chain(&e))
    }

    /// Uses a new certificate from now on, also for connections to come.
    fn use_identity(&self, identity: &NodeIdentity) -> Result<(), MemberError> {
        self.pki.store_identity(identity)?;
        let own = identity.issuer().unwrap_or_default();
        self.roster.rcu(|roster| Roster::clone(roster).signed_by(own.clone()));
        self.tls.set(Configs::of(identity, &self.roster)?);
        self.channels.clear();
        self.redial.send_replace(());
        Ok(())
    }

    /// The issuing CA that signs, on a voter that has its key.
    pub(crate) fn issuer(&self) -> Option<Arc<Issuer>> {
        self.issuers.of(self.log.state().signing_issuer()?)
    }

    /// The CA with this key (SPKI hash), if its private key is here.
    pub(crate) fn issuer_of(&self, spki: &str) -> Option<Arc<Issuer>> {
        self.issuers.of(spki)
    }

    /// The issuer that this node has made and the log does not name yet, or a new
    /// one: of two tries the first may have got through, and without its key
    /// nobody could sign.
    ///
    /// # Errors
    /// It cannot be made, or stored.
    pub(crate) fn next_issuer(
        &self,
        make: impl FnOnce() -> Result<Issuer, vip_pki::CaError>,
    ) -> Result<Arc<Issuer>, Status> {
        let state = self.log.state();
        let named = |issuer: &Arc<Issuer>| {
            let spki = issuer.spki().unwrap_or_default();
            state.issuers().is_some_and(|issuers| issuers.knows(&spki))
        };
        if let Some(next) = self.issuers.next().filter(|next| !named(next)) {
            return Ok(next);
        }
        let issuer = make().map_err(|e| internal("making an issuer", &e))?;
        let stored = self.pki.store_next_issuer(&issuer);
        stored.map_err(|e| internal("storing the new key", &e))?;
        Ok(self.issuers.set_next(issuer))
    }

    /// Puts the key that signs, which this node made, in its place.
    pub(super) fn settle_issuer(&self, issuer: Arc<Issuer>) -> Result<(), IdentityError> {
        if !self.issuers.is_current(&issuer) {
            self.pki.store_issuer(&issuer)?;
            self.issuers.set_current(issuer);
            self.pki.forget_next_issuer()?;
        }
        Ok(())
    }

    /// Takes the key that signs, which another node sent, if it is the one that the log
    /// names.
    pub(super) fn take_issuer(&self, issuer: Issuer) -> Result<(), String> {
        let state = self.log.state();
        let named = state.signing_issuer().map(ToOwned::to_owned);
        let identity = self.identity().map_err(|e| chain(&e))?;
        let root = identity.root().ok_or("the certificate is damaged")?;
        issuer.check(root, named.as_slice()).map_err(|e| chain(&e))?;
        self.pki.store_issuer(&issuer).map_err(|e| chain(&e))?;
        self.issuers.set_current(Arc::new(issuer));
        Ok(())
    }

    /// A new certificate for a member's key, the one that the log knows: of its
    /// role, once it has joined.
    pub(crate) fn renewed(&self, node: NodeId, csr: &[u8]) -> Result<Vec<Vec<u8>>, Status> {
        let state = self.log.state();
        let joined = state.nodes.get(&node).filter(|n| n.state != NodeState::Joining);
        self.sign(node, joined.map(|n| n.role), csr)
    }

    /// A certificate for a member's key, the one that the log knows.
    pub(crate) fn sign(
        &self,
        node: NodeId,
        role: Option<Role>,
        csr: &[u8],
    ) -> Result<Vec<Vec<u8>>, Status> {
        self.log.may_date()?;
        let issuer = self.issuer().ok_or_else(no_issuer)?;
        let state = self.log.state();
        let known = state.nodes.get(&node).map(|n| n.spki.clone());
        if known != Some(spki_of_csr(csr).map_err(invalid)?) {
            return Err(Status::permission_denied("not the key that was admitted"));
        }
        let chain = issuer
            .sign_node(csr, node, role, self.log.index(), &self.cluster)
            .map_err(|e| internal("signing", &e))?;
        Ok(chain.iter().map(|c| c.to_vec()).collect())
    }
}
