//! The last resorts: a new cluster of a survivor, a backup, a new cluster of it.

use super::call::{AdminService, Call};
use super::membership::founded;
use crate::errors::{internal, invalid};
use crate::membership::{BEFORE, recover, restore};
use crate::membership::{Backup, LONGEST};
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};
use vip_proto::v1;

/// Of one part of a backup: well below what a message may have.
const PART: usize = 256 << 10;

/// The parts of a backup.
pub(super) type Parts = Pin<Box<dyn Stream<Item = Result<v1::BackupPart, Status>> + Send>>;

impl AdminService {
    pub(super) async fn do_recover(
        &self,
        request: v1::RecoverRequest,
    ) -> Result<v1::RecoverReply, Status> {
        if !request.others_are_off {
            return Err(invalid("say that the others are off, and see to it that they are"));
        }
        let member = recover(&self.agent).await?;
        let lost = member.raft.state().cut_off_nodes();
        let before = self.agent.config.node.data_dir.join(BEFORE);
        Ok(v1::RecoverReply {
            cluster: member.meta.cluster_name.to_string(),
            node: member.meta.name.to_string(),
            before: before.display().to_string(),
            lost,
        })
    }

    pub(super) async fn do_restore(
        &self,
        mut parts: Streaming<v1::BackupPart>,
    ) -> Result<v1::InitReply, Status> {
        let mut bytes = vec![];
        while let Some(part) = parts.next().await {
            bytes.extend_from_slice(&part?.data);
            if bytes.len() > LONGEST {
                return Err(invalid(format!("a backup has at most {} MB", LONGEST >> 20)));
            }
        }
        let made = restore(&self.agent, &bytes).await?;
        founded(made).await
    }
}

/// What the log says, as this node knows it.
pub(super) fn backup(call: &Call) -> Result<Parts, Status> {
    let applied = call.member.raft.applied.borrow().clone();
    let fresh = call.member.shared.leads_applied();
    let backup = Backup { state: (*applied.state).clone(), index: applied.index };
    let bytes = backup.write().map_err(|e| internal("the backup", &e))?;
    let parts = bytes.chunks(PART).map(|part| Ok(v1::BackupPart { data: part.to_vec(), fresh }));
    let parts: Vec<_> = parts.collect();
    Ok(Box::pin(tokio_stream::iter(parts)))
}
