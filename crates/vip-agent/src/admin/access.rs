//! Who may call which RPC. What is not listed is denied to everybody.

use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::server::UdsConnectInfo;
use vip_pki::{AdminRole, Identity, PeerInfo};

/// Where a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// The unix socket.
    Local,
    /// The port, behind mutual TLS.
    Network,
}

/// The least that a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Anybody, even without a certificate.
    Anybody,
    /// Members.
    Members,
    /// Root on the local socket.
    LocalRoot,
    /// Local root, or a person of at least this role, or a member that relays
    /// for its own local root.
    Person(AdminRole),
    /// Local root, any person, any member.
    Known,
}

/// Every RPC there is.
const RULES: &[(&str, Rule)] = &[
    ("/vip.v1.Raft/Append", Rule::Members),
    ("/vip.v1.Raft/Vote", Rule::Members),
    ("/vip.v1.Raft/PreVote", Rule::Members),
    ("/vip.v1.Raft/InstallSnapshot", Rule::Members),
    ("/vip.v1.Raft/TransferLeader", Rule::Members),
    ("/vip.v1.Lease/Renew", Rule::Members),
    ("/vip.v1.Lease/Grant", Rule::Members),
    ("/vip.v1.Lease/Abdicate", Rule::Members),
    ("/vip.v1.Cluster/Identify", Rule::Anybody),
    ("/vip.v1.Cluster/Join", Rule::Anybody),
    ("/vip.v1.Cluster/Activate", Rule::Members),
    ("/vip.v1.Cluster/RenewCertificate", Rule::Members),
    ("/vip.v1.Cluster/FetchIssuer", Rule::Members),
    ("/vip.v1.Admin/Init", Rule::LocalRoot),
    ("/vip.v1.Admin/Join", Rule::LocalRoot),
    ("/vip.v1.Admin/Leave", Rule::LocalRoot),
    ("/vip.v1.Admin/Login", Rule::LocalRoot),
    ("/vip.v1.Admin/CreateToken", Rule::Person(AdminRole::Admin)),
    ("/vip.v1.Admin/ListTokens", Rule::Person(AdminRole::Viewer)),
    ("/vip.v1.Admin/RevokeToken", Rule::Person(AdminRole::Admin)),
    ("/vip.v1.Admin/Status", Rule::Person(AdminRole::Viewer)),
    ("/vip.v1.Admin/ListNodes", Rule::Person(AdminRole::Viewer)),
    ("/vip.v1.Admin/DrainNode", Rule::Person(AdminRole::Operator)),
    ("/vip.v1.Admin/RemoveNode", Rule::Person(AdminRole::Admin)),
    ("/vip.v1.Admin/AddVip", Rule::Person(AdminRole::Operator)),
    ("/vip.v1.Admin/ListVips", Rule::Person(AdminRole::Viewer)),
    ("/vip.v1.Admin/MoveVip", Rule::Person(AdminRole::Operator)),
    ("/vip.v1.Admin/RemoveVip", Rule::Person(AdminRole::Operator)),
    ("/vip.v1.Admin/Events", Rule::Person(AdminRole::Viewer)),
    ("/vip.v1.Admin/Doctor", Rule::Person(AdminRole::Viewer)),
    ("/grpc.health.v1.Health/Check", Rule::Known),
    ("/grpc.health.v1.Health/Watch", Rule::Known),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Rule::Known),
];

/// Whoever calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    LocalRoot,
    Peer(Identity),
}

/// Who made a request, by what its connection proved.
pub(crate) fn caller(face: Face, extensions: &tonic::codegen::http::Extensions) -> Option<Caller> {
    match face {
        Face::Local => {
            let peer = extensions.get::<UdsConnectInfo>()?.peer_cred?;
            (peer.uid() == 0).then_some(Caller::LocalRoot)
        }
        Face::Network => {
            let peer = extensions.get::<PeerInfo>()?;
            Some(Caller::Peer(peer.identity.clone()))
        }
    }
}

/// Whether the caller may make this call. A member's relayed calls are looked
/// at again where its role is known.
fn allowed(path: &str, caller: &Caller) -> bool {
    let Some((_, rule)) = RULES.iter().find(|(known, _)| *known == path) else { return false };
    match (rule, caller) {
        (Rule::Anybody, _) => true,
        (Rule::Members, Caller::Peer(Identity::Node(_))) => true,
        (Rule::LocalRoot | Rule::Person(_) | Rule::Known, Caller::LocalRoot) => true,
        (Rule::Person(least), Caller::Peer(Identity::User { role, .. })) => role >= least,
        (Rule::Person(_), Caller::Peer(Identity::Node(_))) => true,
        (Rule::Known, Caller::Peer(identity)) => *identity != Identity::Anonymous,
        (Rule::Members | Rule::LocalRoot | Rule::Person(_), _) => false,
    }
}

/// Denies by default, in front of every service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessLayer(pub(crate) Face);

impl<S> tower::Layer<S> for AccessLayer {
    type Service = Access<S>;
    fn layer(&self, inner: S) -> Access<S> {
        Access { face: self.0, inner }
    }
}

/// See [`AccessLayer`].
#[derive(Clone, Debug)]
pub(crate) struct Access<S> {
    face: Face,
    inner: S,
}

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Response<Body>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let caller = caller(self.face, request.extensions());
        let path = request.uri().path();
        match caller.filter(|caller| allowed(path, caller)) {
            Some(caller) => {
                request.extensions_mut().insert(caller);
                let ready = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, ready);
                Box::pin(async move { inner.call(request).await })
            }
            None => {
                let status = Status::permission_denied(format!(
                    "{path} is not allowed for this caller. Nothing was changed"
                ));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(role: AdminRole) -> Caller {
        let name = "eve".parse().expect("valid");
        Caller::Peer(Identity::User { name, role })
    }

    #[test]
    fn what_is_not_listed_is_denied_to_root_too() {
        assert!(!allowed("/vip.v1.Admin/Nothing", &Caller::LocalRoot));
        assert!(!allowed("", &Caller::LocalRoot));
    }

    #[test]
    fn without_a_certificate_one_can_only_ask_to_join() {
        let open: Vec<_> = RULES
            .iter()
            .map(|(path, _)| *path)
            .filter(|path| allowed(path, &Caller::Peer(Identity::Anonymous)))
            .collect();
        assert_eq!(open, ["/vip.v1.Cluster/Identify", "/vip.v1.Cluster/Join"]);
    }

    #[test]
    fn a_role_may_do_what_lesser_ones_may_and_nothing_of_members() {
        let may = |role| {
            let paths = RULES.iter().map(|(path, _)| *path);
            paths.filter(|path| allowed(path, &user(role))).collect::<Vec<_>>()
        };
        let (viewer, operator, admin) =
            (may(AdminRole::Viewer), may(AdminRole::Operator), may(AdminRole::Admin));
        assert!(viewer.iter().all(|p| operator.contains(p)));
        assert!(operator.iter().all(|p| admin.contains(p)));
        assert!(!viewer.contains(&"/vip.v1.Admin/AddVip"));
        assert!(!operator.contains(&"/vip.v1.Admin/CreateToken"));
        assert!(!admin.iter().any(|p| p.contains("Raft") || p.contains("Lease")));
        for local in ["Init", "Join", "Leave", "Login"] {
            assert!(!admin.contains(&format!("/vip.v1.Admin/{local}").as_str()));
        }
    }

    #[test]
    fn every_rpc_of_our_files_is_listed() {
        let pool = vip_proto::DESCRIPTOR;
        for (path, _) in RULES.iter().filter(|(path, _)| path.starts_with("/vip.v1.")) {
            let method = path.rsplit('/').next().expect("a path");
            let there = pool.windows(method.len()).any(|w| w == method.as_bytes());
            assert!(there, "{path} is no RPC");
        }
    }
}
