//! The last resorts: a new cluster of a survivor, a new cluster of a backup.

use super::founded;
use crate::errors::invalid;
use crate::membership::{self, BEFORE, LONGEST, Seat};
use std::sync::Arc;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};
use vip_proto::v1;

pub(super) async fn recover(
    agent: &Arc<Seat>,
    request: &v1::RecoverRequest,
) -> Result<v1::RecoverReply, Status> {
    if !request.others_are_off {
        return Err(invalid("say that the others are off, and see to it that they are"));
    }
    let member = membership::recover(agent).await?;
    let lost = member.log.state().cut_off_nodes();
    let before = agent.config.node.data_dir.join(BEFORE);
    Ok(v1::RecoverReply {
        cluster: member.meta.cluster_name.to_string(),
        node: member.meta.name.to_string(),
        before: before.display().to_string(),
        lost,
    })
}

pub(super) async fn restore(
    agent: &Arc<Seat>,
    mut parts: Streaming<v1::BackupPart>,
) -> Result<v1::InitReply, Status> {
    let mut bytes = vec![];
    while let Some(part) = parts.next().await {
        bytes.extend_from_slice(&part?.data);
        if bytes.len() > LONGEST {
            return Err(invalid(format!("a backup has at most {} MB", LONGEST >> 20)));
        }
    }
    let made = membership::restore(agent, &bytes).await?;
    founded(made).await
}
