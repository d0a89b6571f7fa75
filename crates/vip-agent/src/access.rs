//! Who may call which RPC. What is not listed is denied to everybody.

use crate::refusals::Refusals;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::USER_AGENT;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::server::UdsConnectInfo;
use vip_core::{AdminRole, Foreign, Protocols, Standing, excerpt};
use vip_pki::{Identity, PeerInfo};
use vip_proto::v1;
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

impl Rule {
    /// By what an rpc says in its .proto file. `None`: nothing, and nobody may.
    fn of(access: v1::Access) -> Option<Self> {
        use v1::Access as A;
        match access {
            A::Unspecified => None,
            A::Anybody => Some(Self::Anybody),
            A::Joining => Some(Self::Nodes(Standing::Joining)),
            A::Member => Some(Self::Nodes(Standing::Member)),
            A::Voter => Some(Self::Nodes(Standing::Voter)),
            A::LocalRoot => Some(Self::LocalRoot),
            A::RootOfVoter => Some(Self::RootOfVoter),
            A::Viewer => Some(Self::Person(AdminRole::Viewer)),
            A::Operator => Some(Self::Person(AdminRole::Operator)),
            A::Admin => Some(Self::Person(AdminRole::Admin)),
        }
    }
}

/// RPCs of other projects' files.
const OTHERS: [&str; 3] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// Every RPC there is.
static RULES: LazyLock<HashMap<&str, Rule>> = LazyLock::new(|| {
    let ours = vip_proto::rpcs().filter_map(|(path, access)| Some((path, Rule::of(access)?)));
    ours.chain(OTHERS.map(|path| (path, Rule::Known))).collect()
});

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
    let Some(rule) = RULES.get(path) else { return false };
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

/// Whether a node that calls speaks what is spoken here. People's programs are not
/// asked: what they are served only grows.
fn understood(caller: &Caller, headers: &HeaderMap) -> Result<(), Foreign> {
    let said = headers.get(USER_AGENT).and_then(|said| said.to_str().ok());
    match caller {
        Caller::Peer(Identity::Node(_) | Identity::Anonymous) => Protocols::check(said),
        Caller::Peer(Identity::User { .. }) | Caller::LocalRoot => Ok(()),
    }
}

/// Denies by default, in front of every service.
#[derive(Clone)]
pub(crate) struct AccessLayer(Face, Arc<Refusals>);

impl AccessLayer {
    pub(crate) fn of(face: Face) -> Self {
        Self(face, Arc::default())
    }
}

impl<S> tower::Layer<S> for AccessLayer {
    type Service = Access<S>;
    fn layer(&self, inner: S) -> Access<S> {
        Access { face: self.0.clone(), foreign: self.1.clone(), inner }
    }
}

/// See [`AccessLayer`].
#[derive(Clone)]
pub(crate) struct Access<S> {
    face: Face,
    /// Nodes of versions that are no neighbours.
    foreign: Arc<Refusals>,
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
            Some(caller) if let Err(why) = understood(&caller, request.headers()) => {
                let status = Status::failed_precondition(format!("{why}. Nothing was changed"));
                self.foreign.say(|others| {
                    let from = request.extensions().get::<PeerInfo>().map(|p| p.address.ip());
                    tracing::warn!(?from, %why, others, "a node was refused");
                });
                Box::pin(async move { Ok(status.into_http()) })
            }
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
        let paths = RULES.keys().copied();
        paths
            .filter(|path| allowed(path, &caller, standing))
            .filter(|path| !["/vip.v1.Cluster/Identify", "/vip.v1.Cluster/Join"].contains(path))
            .collect()
    }

    #[test]
    fn a_node_of_another_time_is_told_so_and_people_are_not_asked() {
        let node = Caller::Peer(Identity::Node(vip_core::NodeId(7)));
        let stranger = Caller::Peer(Identity::Anonymous);
        let of = |said: &str| HeaderMap::from_iter([(USER_AGENT, said.parse().expect("a header"))]);
        let (ours, theirs) = (of(&Protocols::user_agent()), of("vipd/9 protocol/8-9"));
        assert!(understood(&node, &ours).is_ok() && understood(&stranger, &ours).is_ok());
        assert!(understood(&node, &theirs).is_err() && understood(&stranger, &theirs).is_err());
        for (who, caller, _) in callers() {
            if !matches!(caller, Caller::Peer(Identity::Node(_) | Identity::Anonymous)) {
                assert_eq!(understood(&caller, &theirs), Ok(()), "{who}");
            }
        }
    }

    #[test]
    fn what_is_not_listed_is_denied_to_everybody() {
        for (who, caller, standing) in callers() {
            for path in ["/vip.v1.Vips/Nothing", "", "/vip.v1.Overview/Status/"] {
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
        assert!(!viewer.contains("/vip.v1.Vips/AddVip"));
        assert!(!operator.contains("/vip.v1.Tokens/CreateToken"));
        for internal in ["Raft", "Lease", "Cluster"] {
            let of_nodes = |path: &&str| path.starts_with(&format!("/vip.v1.{internal}/"));
            assert!(!admin.iter().any(of_nodes), "{internal}");
            assert!(!may("root").iter().any(of_nodes), "{internal}");
        }
        for local in ["Host/Init", "Host/Join", "Host/Leave", "Logins/Login", "Host/RotateCa"] {
            assert!(may("root").contains(format!("/vip.v1.{local}").as_str()), "{local}");
            assert!(!admin.contains(format!("/vip.v1.{local}").as_str()), "{local}");
        }
    }

    #[test]
    fn a_node_that_joins_may_join_and_only_voters_lead() {
        let (joining, member, voter) = (may("joining"), may("member"), may("voter"));
        let of_our_own = |path: &&&str| path.starts_with("/vip.v1.");
        let own: Vec<_> = joining.iter().filter(of_our_own).collect();
        let names = ["Activate", "HowFar", "RenewCertificate"];
        assert_eq!(own, names.map(|name| format!("/vip.v1.Cluster/{name}")).each_ref());
        assert!(joining.is_subset(&member) && member.is_subset(&voter));
        assert!(!member.iter().any(|path| path.starts_with("/vip.v1.Raft/")));
        assert!(!member.contains("/vip.v1.Lease/Renew"));
        assert!(!member.contains("/vip.v1.Cluster/FetchIssuer"));
        assert!(!member.contains("/vip.v1.Logins/Login"));
        for local in ["Init", "Join", "Leave", "RotateCa"] {
            assert!(!voter.contains(format!("/vip.v1.Host/{local}").as_str()), "{local}");
        }
    }

    /// One that says nothing is not even built; here are the others.
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
        let rules = RULES.keys().map(|path| (*path).to_owned());
        let ruled: BTreeSet<_> = rules.filter(|path| path.starts_with("/vip.v1.")).collect();
        assert_eq!(ruled, there);
        assert_eq!(Rule::of(v1::Access::Unspecified), None);
    }

    /// What is worth most, named here too: a slip in a .proto file shows.
    #[test]
    fn who_may_what_is_as_it_was_meant() {
        let rule = |path: &str| RULES.get(format!("/vip.v1.{path}").as_str()).copied();
        for (path, meant) in [
            ("Raft/Append", Rule::Nodes(Standing::Voter)),
            ("Lease/Renew", Rule::Nodes(Standing::Voter)),
            ("Lease/Report", Rule::Nodes(Standing::Member)),
            ("Cluster/Join", Rule::Anybody),
            ("Cluster/FetchIssuer", Rule::Nodes(Standing::Voter)),
            ("Host/RotateCa", Rule::LocalRoot),
            ("Logins/Login", Rule::RootOfVoter),
            ("Tokens/CreateToken", Rule::Person(AdminRole::Admin)),
            ("Vips/AddVip", Rule::Person(AdminRole::Operator)),
            ("Overview/Status", Rule::Person(AdminRole::Viewer)),
        ] {
            assert_eq!(rule(path), Some(meant), "{path}");
        }
    }
}
