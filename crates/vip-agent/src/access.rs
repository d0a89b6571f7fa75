//! Who may call which RPC. What is not listed is denied to everybody.

use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::server::UdsConnectInfo;
use vip_core::{AdminRole, Standing, excerpt};
use vip_pki::{Identity, PeerInfo};
use vip_raft::RaftNode;

/// Where a server is reached.
#[derive(Clone)]
pub(crate) enum Face {
    /// The unix socket.
    Local,
    /// The port, behind mutual TLS; of nodes, this log knows how far they are
    /// members.
    Network(RaftNode),
}

/// The least that a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Anybody, even without a certificate.
    Anybody,
    /// Nodes that stand so high.
    Nodes(Standing),
    /// Root on the local socket.
    LocalRoot,
    /// The same, also passed on by a voter.
    RootOfVoter,
    /// Local root, or a person of at least this role, or a member that relays
    /// for its own local root: what changes something, voters alone.
    Person(AdminRole),
    /// Local root, any person, any member.
    Known,
}

/// Every RPC there is.
const RULES: &[(&str, Rule)] = &[
    ("/vip.v1.Raft/Append", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Raft/Vote", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Raft/PreVote", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Raft/InstallSnapshot", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Raft/TransferLeader", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Lease/Renew", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Lease/Grant", Rule::Nodes(Standing::Member)),
    ("/vip.v1.Lease/Report", Rule::Nodes(Standing::Member)),
    ("/vip.v1.Lease/Abdicate", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Cluster/Identify", Rule::Anybody),
    ("/vip.v1.Cluster/Join", Rule::Anybody),
    ("/vip.v1.Cluster/Activate", Rule::Nodes(Standing::Joining)),
    ("/vip.v1.Cluster/RenewCertificate", Rule::Nodes(Standing::Joining)),
    ("/vip.v1.Cluster/Reissued", Rule::Nodes(Standing::Member)),
    ("/vip.v1.Cluster/RotateIssuer", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Cluster/LookBack", Rule::Nodes(Standing::Member)),
    ("/vip.v1.Cluster/FetchIssuer", Rule::Nodes(Standing::Voter)),
    ("/vip.v1.Admin/Init", Rule::LocalRoot),
    ("/vip.v1.Admin/Join", Rule::LocalRoot),
    ("/vip.v1.Admin/Leave", Rule::LocalRoot),
    ("/vip.v1.Admin/RotateCa", Rule::LocalRoot),
    ("/vip.v1.Admin/Recover", Rule::LocalRoot),
    ("/vip.v1.Admin/Restore", Rule::LocalRoot),
    ("/vip.v1.Admin/Backup", Rule::Person(AdminRole::Admin)),
    ("/vip.v1.Admin/Login", Rule::RootOfVoter),
    ("/vip.v1.Admin/ListLogins", Rule::Person(AdminRole::Viewer)),
    ("/vip.v1.Admin/RevokeLogin", Rule::Person(AdminRole::Admin)),
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
    ("/vip.v1.Admin/SetVip", Rule::Person(AdminRole::Operator)),
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
fn caller(face: &Face, extensions: &tonic::codegen::http::Extensions) -> Option<Caller> {
    match face {
        Face::Local => {
            let peer = extensions.get::<UdsConnectInfo>()?.peer_cred?;
            (peer.uid() == 0).then_some(Caller::LocalRoot)
        }
        Face::Network(_) => {
            let peer = extensions.get::<PeerInfo>()?;
            Some(Caller::Peer(peer.identity.clone()))
        }
    }
}

/// How far a node that calls is a member.
fn standing(face: &Face, extensions: &tonic::codegen::http::Extensions) -> Standing {
    match (face, extensions.get::<PeerInfo>().and_then(PeerInfo::speaker)) {
        (Face::Network(raft), Some(speaker)) => vip_core::standing(&raft.state(), speaker),
        _ => Standing::Joining,
    }
}

/// Whether the caller may make this call. `standing` is that of a node.
fn allowed(path: &str, caller: &Caller, standing: Standing) -> bool {
    let Some((_, rule)) = RULES.iter().find(|(known, _)| *known == path) else { return false };
    match (rule, caller) {
        (Rule::Anybody, _) => true,
        (Rule::Nodes(least), Caller::Peer(Identity::Node(_))) => standing >= *least,
        (Rule::RootOfVoter, Caller::Peer(Identity::Node(_))) => standing >= Standing::Voter,
        (
            Rule::LocalRoot | Rule::RootOfVoter | Rule::Person(_) | Rule::Known,
            Caller::LocalRoot,
        ) => true,
        (Rule::Person(least), Caller::Peer(Identity::User { role, .. })) => role >= least,
        // Everybody may go: `RemoveNode` looks at whom.
        (Rule::Person(_), Caller::Peer(Identity::Node(_))) => standing >= Standing::Member,
        (Rule::Known, Caller::Peer(identity)) => *identity != Identity::Anonymous,
        (Rule::Nodes(_) | Rule::LocalRoot | Rule::RootOfVoter | Rule::Person(_), _) => false,
    }
}

/// Denies by default, in front of every service.
#[derive(Clone)]
pub(crate) struct AccessLayer(pub(crate) Face);

impl<S> tower::Layer<S> for AccessLayer {
    type Service = Access<S>;
    fn layer(&self, inner: S) -> Access<S> {
        Access { face: self.0.clone(), inner }
    }
}

/// See [`AccessLayer`].
#[derive(Clone)]
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
        let caller = caller(&self.face, request.extensions());
        let standing = standing(&self.face, request.extensions());
        let path = request.uri().path();
        match caller.filter(|caller| allowed(path, caller, standing)) {
            Some(caller) => {
                request.extensions_mut().insert(caller);
                let ready = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, ready);
                Box::pin(async move { inner.call(request).await })
            }
            None => {
                let status = Status::permission_denied(format!(
                    "{} is not allowed for this caller. Nothing was changed",
                    excerpt(path)
                ));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Everybody who may come, from nobody to local root.
    fn callers() -> Vec<(&'static str, Caller, Standing)> {
        let user = |role| {
            let name = "eve".parse().expect("valid");
            Caller::Peer(Identity::User { name, role })
        };
        let node = Caller::Peer(Identity::Node(vip_core::NodeId(7)));
        let none = Standing::Joining;
        vec![
            ("nobody", Caller::Peer(Identity::Anonymous), none),
            ("viewer", user(AdminRole::Viewer), none),
            ("operator", user(AdminRole::Operator), none),
            ("admin", user(AdminRole::Admin), none),
            ("joining", node.clone(), Standing::Joining),
            ("member", node.clone(), Standing::Member),
            ("voter", node, Standing::Voter),
            ("root", Caller::LocalRoot, none),
        ]
    }

    /// What somebody may call, without what everybody may.
    fn may(who: &str) -> BTreeSet<&'static str> {
        let (_, caller, standing) =
            callers().into_iter().find(|(name, ..)| *name == who).expect("a caller");
        let paths = RULES.iter().map(|(path, _)| *path);
        paths
            .filter(|path| allowed(path, &caller, standing))
            .filter(|path| !["/vip.v1.Cluster/Identify", "/vip.v1.Cluster/Join"].contains(path))
            .collect()
    }

    #[test]
    fn what_is_not_listed_is_denied_to_everybody() {
        for (who, caller, standing) in callers() {
            for path in ["/vip.v1.Admin/Nothing", "", "/vip.v1.Admin/Status/"] {
                assert!(!allowed(path, &caller, standing), "{who}: {path}");
            }
            // What everybody may, everybody may.
            assert!(allowed("/vip.v1.Cluster/Join", &caller, standing), "{who}");
        }
    }

    #[test]
    fn without_a_certificate_one_can_only_ask_to_join() {
        assert_eq!(may("nobody"), BTreeSet::new());
    }

    #[test]
    fn a_role_may_do_what_lesser_ones_may_and_nothing_of_nodes() {
        let (viewer, operator, admin) = (may("viewer"), may("operator"), may("admin"));
        assert!(viewer.is_subset(&operator) && operator.is_subset(&admin));
        assert!(!viewer.contains("/vip.v1.Admin/AddVip"));
        assert!(!operator.contains("/vip.v1.Admin/CreateToken"));
        for internal in ["Raft", "Lease", "Cluster"] {
            let of_nodes = |path: &&str| path.starts_with(&format!("/vip.v1.{internal}/"));
            assert!(!admin.iter().any(of_nodes), "{internal}");
            assert!(!may("root").iter().any(of_nodes), "{internal}");
        }
        for local in ["Init", "Join", "Leave", "Login", "RotateCa"] {
            assert!(!admin.contains(format!("/vip.v1.Admin/{local}").as_str()));
        }
    }

    #[test]
    fn a_node_that_joins_may_join_and_only_voters_lead() {
        let (joining, member, voter) = (may("joining"), may("member"), may("voter"));
        let of_our_own = |path: &&&str| path.starts_with("/vip.v1.");
        let own: Vec<_> = joining.iter().filter(of_our_own).collect();
        assert_eq!(own, [&"/vip.v1.Cluster/Activate", &"/vip.v1.Cluster/RenewCertificate"]);
        assert!(joining.is_subset(&member) && member.is_subset(&voter));
        assert!(!member.iter().any(|path| path.starts_with("/vip.v1.Raft/")));
        assert!(!member.contains("/vip.v1.Lease/Renew"));
        assert!(!member.contains("/vip.v1.Cluster/FetchIssuer"));
        assert!(!member.contains("/vip.v1.Admin/Login"));
        for local in ["Init", "Join", "Leave", "RotateCa"] {
            assert!(!voter.contains(format!("/vip.v1.Admin/{local}").as_str()));
        }
    }

    #[test]
    fn every_rpc_of_our_files_has_a_rule_and_every_rule_an_rpc() {
        use prost::Message;
        let files = prost_types::FileDescriptorSet::decode(vip_proto::DESCRIPTOR).expect("ours");
        let mut there = BTreeSet::new();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    let (service, method) = (service.name(), method.name());
                    there.insert(format!("/{}.{service}/{method}", file.package()));
                }
            }
        }
        let rules = RULES.iter().map(|(path, _)| (*path).to_owned());
        let ruled: BTreeSet<_> = rules.filter(|path| path.starts_with("/vip.v1.")).collect();
        assert_eq!(ruled, there);
    }
}
