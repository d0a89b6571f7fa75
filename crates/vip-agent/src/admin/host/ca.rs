//! Replacing the issuing CA, on the node where the root's key is shown.

use crate::admin::call::{Call, Look, Route};
use crate::errors::{from_call, internal, no_quorum};
use crate::node::reissue::missing;
use tonic::Status;
use vip_core::{ClusterOp, Role, State, chain};
use vip_pki::{Issuer, check_root_key};
use vip_proto::v1;
use vip_proto::v1::cluster_client::ClusterClient;

/// Makes a new issuer here and has it sign from now on; answers when the old
/// one is refused everywhere.
///
/// # Errors
/// Not the root's key, no voter, no quorum; or what is still missing.
pub(super) async fn rotate(call: &Call, root_key: &str) -> Result<v1::RotateCaReply, Status> {
    let member = &call.member;
    let refuse = |why: String| Status::failed_precondition(format!("{why}. Nothing was changed"));
    let me = member.log.state().nodes.get(&member.meta.node).map(|n| n.role);
    if me != Some(Role::Voter) {
        return Err(refuse("only voters keep the issuing key: run this on a voter".into()));
    }
    member.log.may_date()?;
    // Only the leader hears everybody; this node hears the leader.
    if member.leases.leader() != Some(member.meta.node)
        && let Some((_, differs)) = member.leases.clock_differences().first()
    {
        return Err(refuse(format!(
            "the leader's wall clock is {differs}: a CA would have dates that others do not \
             believe. Set the clock"
        )));
    }
    let identity = member.authority.identity().map_err(|e| internal("its key", &e))?;
    let root = identity.root().ok_or_else(|| Status::internal("the certificate is damaged"))?;
    check_root_key(root, root_key).map_err(|e| refuse(chain(&e)))?;
    let issuer =
        member.authority.next_issuer(|| Issuer::below(root, root_key, &member.meta.cluster))?;
    let spki = issuer.spki().map_err(|e| internal("making an issuer", &e))?;
    match call.route().await? {
        Route::Here => {
            let made_by = member.meta.node;
            call.propose(ClusterOp::RotateIssuer { issuer: spki.clone(), made_by }).await?;
        }
        Route::There(_) => {
            let leader = member.leases.leader().and_then(|leader| member.peers.channel(leader));
            let leader = leader.ok_or_else(|| no_quorum("the leader changed meanwhile"))?;
            let certificate = issuer.chain().first().map(|c| c.to_vec()).unwrap_or_default();
            let request = call.relay(v1::RotateIssuerRequest { certificate });
            ClusterClient::new(leader).rotate_issuer(request).await.map_err(from_call)?;
        }
    }
    let done = |state: &State| {
        state.issuers().is_some_and(|issuers| {
            let alone = issuers.signing() == Some(&spki) && !issuers.is_rotating();
            // Somebody else replaced it already.
            alone || issuers.retired.contains(&spki)
        })
    };
    call.wait(|state| {
        if done(state) {
            return Look::Found(());
        }
        let names = missing(member);
        let names = if names.is_empty() { "a member".into() } else { names.join(", ") };
        Look::Missing(format!(
            "the new CA signs, and the old one is trusted until {names} took a certificate"
        ))
    })
    .await?;
    Ok(v1::RotateCaReply {})
}
