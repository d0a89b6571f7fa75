//! Whether members reach each other, for whoever asks.

use crate::errors::from_call;
use crate::node::Member;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;
use vip_core::NodeId;
use vip_proto::v1;
use vip_proto::v1::cluster_client::ClusterClient;

/// How long another member may take to answer, the connection included.
const ANSWER: Duration = Duration::from_secs(3);

/// Whether a member answers.
///
/// # Errors
/// Why not, in words.
pub(crate) async fn reached(client: &mut ClusterClient<Channel>) -> Result<(), String> {
    let mut request = tonic::Request::new(v1::IdentifyRequest::default());
    request.set_timeout(ANSWER);
    match client.identify(request).await {
        Ok(_) => Ok(()),
        Err(status) if status.message() == "Timeout expired" => {
            Err(format!("no answer within {} s", ANSWER.as_secs()))
        }
        Err(status) => Err(from_call(status).message().to_owned()),
    }
}

/// Another member asks whether it is reached from here, where the log says that
/// it is.
///
/// # Errors
/// It is not, and why.
pub(crate) async fn look_back(member: &Member, node: NodeId) -> Result<(), Status> {
    let state = member.log.state();
    let node = state.nodes.get(&node).ok_or_else(|| Status::not_found("not a member"))?;
    let own = &member.meta.name;
    let mut client = ClusterClient::new(member.peers.patient_channel(node.id, &node.advertise));
    reached(&mut client).await.map_err(|why| {
        let place = &node.advertise;
        Status::failed_precondition(format!("{own} does not reach this node at {place}: {why}"))
    })
}
