//! The cluster as a whole: what `init` fixed.

use super::State;
use crate::{Issuers, Level, Name, NodeId, Outcome, Profile, Refusal, Runs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What `init` fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Random id; part of every certificate.
    pub id: String,
    /// Name for people.
    pub name: Name,
    /// Timings for all nodes.
    pub profile: Profile,
    /// The CAs that may sign certificates.
    pub issuers: Issuers,
}

/// A change of the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterOp {
    /// First entry of a cluster.
    Bootstrap {
        /// Random id; part of every certificate.
        cluster: String,
        /// Name for people.
        name: Name,
        /// Timings for all nodes.
        profile: Profile,
        /// Name of the first node.
        node: Name,
        /// Where it is reached.
        advertise: String,
        /// Its key (SHA-256 of the SPKI), hex.
        spki: String,
        /// The issuing CA's key (SHA-256 of the SPKI), hex.
        issuer: String,
        runs: Runs,
    },
    /// A new CA signs from here on.
    RotateIssuer {
        /// Its key (SHA-256 of the SPKI), hex.
        issuer: String,
        /// Who made it and has its private key.
        made_by: NodeId,
    },
    /// Every other CA is trusted no more.
    RetireIssuers {
        /// The one that signs, as far as the proposer knows.
        keep: String,
    },
}

/// What happened to the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterEvent {
    /// `init`.
    Created { name: Name },
    /// A new cluster was made of what was left of another one.
    Refounded {
        /// The id of that one.
        from: String,
        /// The node that it was made of.
        node: NodeId,
    },
    /// A new CA signs; the one before is trusted for the moment.
    IssuerRotated,
    /// Only the new CA is trusted.
    IssuersRetired,
}

impl ClusterOp {
    /// Since when there is such an operation.
    #[must_use]
    pub const fn since(&self) -> Level {
        match self {
            Self::Bootstrap { .. } | Self::RotateIssuer { .. } | Self::RetireIssuers { .. } => {
                Level::FIRST
            }
        }
    }
}

impl State {
    pub(super) fn apply_to_cluster(
        &mut self,
        actor: &str,
        op: &ClusterOp,
    ) -> Result<Outcome, Refusal> {
        match op {
            ClusterOp::Bootstrap {
                cluster,
                name,
                profile,
                node,
                advertise,
                spki,
                issuer,
                runs,
            } => {
                if let Some(there) = &self.cluster {
                    return Err(Refusal::ClusterExists { name: there.name.clone() });
                }
                self.cluster = Some(Arc::new(Cluster {
                    id: cluster.clone(),
                    name: name.clone(),
                    profile: *profile,
                    issuers: Issuers::first(issuer),
                }));
                self.record(actor, ClusterEvent::Created { name: name.clone() });
                Ok(self.first_node(actor, node, (advertise, spki), runs))
            }
            ClusterOp::RotateIssuer { issuer, made_by } => {
                self.rotate_issuer(actor, issuer, *made_by)
            }
            ClusterOp::RetireIssuers { keep } => Ok(self.retire_issuers(actor, keep)),
        }
    }
}
