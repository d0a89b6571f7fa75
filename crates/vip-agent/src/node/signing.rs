//! Certificates that this node signs for members.

use super::Member;
use crate::errors::{from_write, internal, invalid, no_issuer};
use tonic::Status;
use vip_core::{NodeId, NodeState, Role, Term};
use vip_pki::spki_of_csr;
use vip_raft::WriteError;

impl Member {
    /// The term that this node leads. A change of membership is decided in it, and
    /// good in it alone.
    ///
    /// # Errors
    /// It does not lead, or the state here may lack what earlier leaders decided.
    pub(crate) fn own_term(&self) -> Result<Term, Status> {
        let vote = self.shared.own_leadership().filter(|_| self.shared.leads_applied());
        vote.map(|vote| vote.term).ok_or_else(|| from_write(&WriteError::OtherTerm))
    }

    /// A new certificate for a member's key, the one that the log knows: of its
    /// role, once it has joined.
    pub(crate) fn renewed(&self, node: NodeId, csr: &[u8]) -> Result<Vec<Vec<u8>>, Status> {
        let state = self.raft.state();
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
        self.may_date()?;
        let issuer = self.issuer().ok_or_else(no_issuer)?;
        let state = self.raft.state();
        let known = state.nodes.get(&node).map(|n| n.spki.clone());
        if known != Some(spki_of_csr(csr).map_err(invalid)?) {
            return Err(Status::permission_denied("not the key that was admitted"));
        }
        let index = self.raft.applied.borrow().index;
        let chain = issuer
            .sign_node(csr, node, role, index, &self.meta.cluster)
            .map_err(|e| internal("signing", &e))?;
        Ok(chain.iter().map(|c| c.to_vec()).collect())
    }
}
