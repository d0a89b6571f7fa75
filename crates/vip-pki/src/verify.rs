//! TLS configurations: 1.3 only, no resumption, both sides checked against
//! the roster.
//!
//! Resumption is off because a resumed handshake would skip the check.

use crate::bad_chain::BadChain;
use crate::ca::spki_hash;
use crate::identity::NodeIdentity;
use crate::leaf::{admitted_index, leaf_identity, lives_as_signed};
use crate::names::{self, Identity};
use crate::roster::{Denied, Roster, SharedRoster};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature,
};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

fn general(text: &'static str) -> Error {
    Error::General(text.to_owned())
}

/// What is wrong with a chain, in words.
fn bad_chain(error: webpki::Error) -> Error {
    bad(BadChain::from(error))
}

fn bad(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Checks a chain down to the root, then against the roster.
#[derive(Debug)]
struct Verifier {
    root: TrustAnchor<'static>,
    root_spki: String,
    roster: SharedRoster,
    algorithms: WebPkiSupportedAlgorithms,
    /// Whether a known key may come with a certificate of an issuer that is not
    /// trusted here: whoever was off while that was replaced, on either side,
    /// has one. It is good for a renewal and nothing else.
    outdated: bool,
}

impl Verifier {
    fn new(root: &CertificateDer<'_>, roster: SharedRoster, outdated: bool) -> Result<Self, Error> {
        let no_ca = || general("the root is no CA");
        let root_spki = spki_hash(root).ok_or_else(no_ca)?;
        let root = anchor_from_trusted_cert(root).map_err(|_| no_ca())?.to_owned();
        Ok(Self { root, root_spki, roster, algorithms: algorithms(), outdated })
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: impl Fn() -> KeyUsage,
    ) -> Result<Identity, Error> {
        let roster = self.roster.load();
        let result = self.check_chain(leaf, intermediates, now, usage());
        let identity = leaf_identity(leaf, roster.cluster())
            .ok_or_else(|| general("the certificate is not of this cluster"))?;
        // Still the key that the log knows: checked as of the nearest second in
        // which it is valid, so that neither expiry nor a clock stops a failover.
        let nearest = match result {
            Err(webpki::Error::CertExpired { not_after, .. }) => Some(not_after),
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => Some(not_before),
            _ => None,
        };
        match nearest.filter(|_| is_known_key(&roster, &identity, leaf)) {
            Some(at) => {
                let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs()));
                self.check_chain(leaf, intermediates, at, usage()).map_err(bad_chain)?;
            }
            None => result.map_err(bad_chain)?,
        }
        self.authorise(&roster, &identity, leaf, intermediates)?;
        Ok(identity)
    }

    /// What a genuine chain may still not do, by what the log says. Whoever steals
    /// an issuing key or has an old one signs what it likes: one issuer stands
    /// between leaf and root, it is listed, and no life is longer than it signs.
    fn authorise(
        &self,
        roster: &Roster,
        identity: &Identity,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let issuers = intermediates.iter().map(|c| spki_hash(c).unwrap_or_default());
        let issuers: Vec<String> = issuers.filter(|spki| *spki != self.root_spki).collect();
        let [issuer] = issuers.as_slice() else { return Err(bad(Denied::Issuer)) };
        let outdated = || self.outdated && is_known_key(roster, identity, leaf);
        if !roster.trusts_issuer(issuer) && !outdated() {
            return Err(bad(Denied::Issuer));
        }
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|_| general("the certificate is damaged"))?;
        if !lives_as_signed(&parsed, identity) {
            return Err(bad(Denied::Life));
        }
        let spki = spki_hash(leaf).unwrap_or_default();
        match identity {
            Identity::Node(node) => {
                roster.admits(*node, &spki, admitted_index(&parsed)).map_err(bad)?;
                roster.saw(*node, parsed.validity().not_after.timestamp());
                Ok(())
            }
            Identity::User { name, role } if !roster.lists(&spki, name, *role) => {
                Err(bad(Denied::Login(name.clone())))
            }
            Identity::User { .. } | Identity::Anonymous => Ok(()),
        }
    }

    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), webpki::Error> {
        let anchors = std::slice::from_ref(&self.root);
        EndEntityCert::try_from(leaf)?
            .verify_for_usage(self.algorithms.all, anchors, intermediates, now, usage, None, None)
            .map(|_| ())
    }
}

fn is_known_key(roster: &Roster, identity: &Identity, leaf: &CertificateDer<'_>) -> bool {
    match (identity, spki_hash(leaf)) {
        (Identity::Node(node), Some(spki)) => roster.knows(*node, &spki),
        _ => false,
    }
}

macro_rules! tls13_signatures_only {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(general("TLS 1.2 is off"))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

/// A member looks at who connects.
#[derive(Debug)]
struct Clients(Verifier);

impl ClientCertVerifier for Clients {
    // Joiners have no certificate; what they may call is decided per call.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.check(leaf, intermediates, now, KeyUsage::client_auth)?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures_only!();
}

/// A member looks at whom it reached.
#[derive(Debug)]
struct Servers(Verifier);

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let identity = self.0.check(leaf, intermediates, now, KeyUsage::server_auth)?;
        let roster = self.0.roster.load();
        let wanted = names::parse(&server_name.to_str(), roster.cluster());
        if !matches!(identity, Identity::Node(_)) || wanted != Some(identity) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures_only!();
}

/// Somebody outside the cluster looks at whom it reached: any node whose chain
/// ends in a root with the pinned key.
#[derive(Debug)]
struct Pinned {
    pin: String,
    /// The only issuer that will do, if one is known. A person logs in again
    /// when it is replaced, and so is not taken in by whoever kept its key.
    issuer: Option<String>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned = |c: &&CertificateDer<'_>| spki_hash(c).as_ref() == Some(&self.pin);
        let root = intermediates.iter().find(is_pinned).ok_or_else(|| bad(WrongPin))?;
        if let Some(issuer) = &self.issuer {
            let issuers = intermediates.iter().filter(|c| !is_pinned(c));
            if !issuers.map(spki_hash).eq([Some(issuer.clone())]) {
                return Err(bad(Denied::Issuer));
            }
        }
        // The pinned certificate is the sole anchor; that it is merely present
        // says nothing about the leaf.
        let anchor = anchor_from_trusted_cert(root).map_err(bad)?;
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                leaf.verify_for_usage(
                    algorithms().all,
                    &[anchor],
                    intermediates,
                    now,
                    KeyUsage::server_auth(),
                    None,
                    None,
                )
                .map(|_| ())
            })
            .map_err(bad_chain)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(bad)?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let node = names.is_some_and(|names| match names.value.general_names[..] {
            [GeneralName::DNSName(name)] => name.split('.').nth(1) == Some("node"),
            _ => false,
        });
        if !node {
            return Err(CertificateError::NotValidForName.into());
        }
        if !lives_as_signed(&parsed, &Identity::Anonymous) {
            return Err(bad(Denied::Life));
        }
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures_only!();
}

#[derive(Debug, thiserror::Error)]
#[error("the server does not belong to the cluster that the token is for")]
struct WrongPin;

fn client_builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

fn finished(mut config: ClientConfig, alpn: &[u8]) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// For a member's port.
///
/// # Errors
/// The identity's key and certificate do not fit.
pub fn server_config(
    identity: &NodeIdentity,
    roster: SharedRoster,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let root = identity.root().ok_or_else(|| general("no root certificate"))?;
    let verifier = Clients(Verifier::new(root, roster, true)?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain.clone(), identity.private_key())?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

/// For a member that connects to another.
///
/// # Errors
/// The identity's key and certificate do not fit.
pub fn client_config(
    identity: &NodeIdentity,
    roster: SharedRoster,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, Error> {
    member_config(identity, roster, alpn, false)
}

/// For a member that asks for a new certificate, and may have missed that the
/// issuer was replaced: it knows the key of whom it asks.
///
/// # Errors
/// The identity's key and certificate do not fit.
pub fn renewal_config(
    identity: &NodeIdentity,
    roster: SharedRoster,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, Error> {
    member_config(identity, roster, alpn, true)
}

/// For a member that may be none any more: it shows no certificate, which nobody
/// would take, and takes what a member that it knows has, by its key.
///
/// # Errors
/// The root is damaged.
pub fn asking_config(
    identity: &NodeIdentity,
    roster: SharedRoster,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, Error> {
    let root = identity.root().ok_or_else(|| general("no root certificate"))?;
    let verifier = Arc::new(Servers(Verifier::new(root, roster, true)?));
    Ok(finished(client_builder(verifier)?.with_no_client_auth(), alpn))
}

fn member_config(
    identity: &NodeIdentity,
    roster: SharedRoster,
    alpn: &[u8],
    outdated: bool,
) -> Result<Arc<ClientConfig>, Error> {
    let root = identity.root().ok_or_else(|| general("no root certificate"))?;
    let verifier = Arc::new(Servers(Verifier::new(root, roster, outdated)?));
    let config = client_builder(verifier)?
        .with_client_auth_cert(identity.chain.clone(), identity.private_key())?;
    Ok(finished(config, alpn))
}

/// For a person with a certificate of `vipctl login`.
///
/// # Errors
/// The identity's key and certificate do not fit.
pub fn user_config(identity: &NodeIdentity, alpn: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    let root = identity.root().ok_or_else(|| general("no root certificate"))?;
    let pin = spki_hash(root).ok_or_else(|| general("the root is damaged"))?;
    let config = client_builder(Arc::new(Pinned { pin, issuer: identity.issuer() }))?
        .with_client_auth_cert(identity.chain.clone(), identity.private_key())?;
    Ok(finished(config, alpn))
}

/// For a joiner: no certificate of its own, and nothing is sent before the
/// other side proved to have one that ends in the pinned root.
///
/// # Errors
/// Never for valid pins.
pub fn pinned_config(pin: &[u8; 32], alpn: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    let pin = data_encoding::HEXLOWER.encode(pin);
    let config = client_builder(Arc::new(Pinned { pin, issuer: None }))?.with_no_client_auth();
    Ok(finished(config, alpn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Issuer, NewCa, generate_cluster_ca};
    use crate::identity::NodeKey;
    use arc_swap::ArcSwap;
    use vip_core::NodeId;

    const NODE: NodeId = NodeId(7);

    /// A verifier that knows one node, by its key.
    fn verifier(ca: &NewCa, key: &NodeKey) -> Verifier {
        let issuer = ca.issuer.spki().expect("a key");
        let roster = Roster::of_join("c".into(), issuer, [(NODE, key.spki())]);
        let root = &ca.issuer.chain()[1];
        Verifier::new(root, Arc::new(ArcSwap::from_pointee(roster)), false).expect("a root")
    }

    fn check(verifier: &Verifier, chain: &[CertificateDer<'_>]) -> Result<Identity, Error> {
        verifier.check(&chain[0], &chain[1..], UnixTime::now(), KeyUsage::client_auth)
    }

    /// Another issuer below the same root, as before a rotation.
    fn unlisted(ca: &NewCa) -> Issuer {
        Issuer::below(&ca.issuer.chain()[1], &ca.root_key, "c").expect("made")
    }

    #[test]
    fn an_issuer_is_made_with_the_key_of_its_root_alone() {
        let (ca, other) = (generate_cluster_ca("c").expect("made"), generate_cluster_ca("c"));
        let (root, other) = (&ca.issuer.chain()[1], other.expect("made"));
        let key = NodeKey::generate().expect("made");
        for wrong in [&other.root_key, &key.pem(), &zeroize::Zeroizing::new("no key".into())] {
            let made = Issuer::below(root, wrong, "c");
            assert!(matches!(made, Err(crate::CaError::OtherRoot)));
        }
    }

    /// A removed node may answer a person with what it kept.
    #[test]
    fn a_person_takes_no_server_of_another_issuer() {
        let (ca, key) = (generate_cluster_ca("c").expect("made"), NodeKey::generate());
        let (key, name) = (key.expect("made"), ServerName::try_from("x.invalid").expect("a name"));
        let check = |pinned: &Pinned, issuer: &Issuer| {
            let csr = key.csr().expect("a request");
            let chain = issuer.sign_node(&csr, NODE, None, 1, "c").expect("signed");
            pinned.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).is_ok()
        };
        let pin = spki_hash(&ca.issuer.chain()[1]).expect("a key");
        let person = Pinned { pin: pin.clone(), issuer: ca.issuer.spki().ok() };
        let joiner = Pinned { pin, issuer: None };
        let old = unlisted(&ca);
        assert!(check(&person, &ca.issuer) && check(&joiner, &ca.issuer));
        assert!(!check(&person, &old) && check(&joiner, &old));
    }

    /// Whoever was off while the issuer was replaced is known by its key; a
    /// stolen old issuing key makes nobody.
    #[test]
    fn an_issuer_that_is_not_trusted_is_good_for_a_known_key_that_renews() {
        let (ca, key) = (generate_cluster_ca("c").expect("made"), NodeKey::generate());
        let key = key.expect("made");
        let strict = verifier(&ca, &key);
        let lenient = Verifier { outdated: true, ..verifier(&ca, &key) };
        let old = unlisted(&ca);
        let sign = |key: &NodeKey, node| {
            let csr = key.csr().expect("a request");
            old.sign_node(&csr, node, None, 1, "c").expect("signed")
        };
        let known = sign(&key, NODE);
        assert!(check(&strict, &known).is_err());
        assert_eq!(check(&lenient, &known), Ok(Identity::Node(NODE)));
        let other = NodeKey::generate().expect("made");
        for (key, node) in [(&other, NODE), (&other, NodeId(8)), (&key, NodeId(8))] {
            assert!(check(&lenient, &sign(key, node)).is_err());
        }
        let eve = "eve".parse().expect("a name");
        let csr = key.csr().expect("a request");
        let person = old.sign_user(&csr, &eve, vip_core::AdminRole::Admin, "c");
        assert!(check(&lenient, &person.expect("signed")).is_err());
    }

    #[test]
    fn the_one_issuer_of_a_chain_is_a_listed_one() {
        let (ca, key) = (generate_cluster_ca("c").expect("made"), NodeKey::generate());
        let key = key.expect("made");
        let (verifier, csr) = (verifier(&ca, &key), key.csr().expect("a request"));
        let good = ca.issuer.sign_node(&csr, NODE, None, 1, "c").expect("signed");
        assert_eq!(check(&verifier, &good), Ok(Identity::Node(NODE)));
        assert_eq!(check(&verifier, &good[..2]), Ok(Identity::Node(NODE)), "without its root");

        let bad = unlisted(&ca).sign_node(&csr, NODE, None, 1, "c").expect("signed");
        assert!(check(&verifier, &bad).is_err());
        // A listed one beside the one that signed.
        let mixed = [bad[0].clone(), good[1].clone(), bad[1].clone(), good[2].clone()];
        assert!(check(&verifier, &mixed).is_err());
    }

    /// A clock that is hours behind, or a month ahead.
    #[test]
    fn a_known_key_is_let_in_whatever_the_clock_says_and_no_other() {
        let (ca, key) = (generate_cluster_ca("c").expect("made"), NodeKey::generate());
        let key = key.expect("made");
        let (verifier, csr) = (verifier(&ca, &key), key.csr().expect("a request"));
        let known = ca.issuer.sign_node(&csr, NODE, None, 1, "c").expect("signed");
        let other = NodeKey::generate().expect("made").csr().expect("a request");
        let other = ca.issuer.sign_node(&other, NodeId(8), None, 1, "c").expect("signed");
        let now = UnixTime::now().as_secs();
        for at in [now - 3 * 3600, now + 30 * 86_400] {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            let check = |chain: &[CertificateDer<'_>]| {
                verifier.check(&chain[0], &chain[1..], at, KeyUsage::client_auth)
            };
            assert_eq!(check(&known), Ok(Identity::Node(NODE)));
            assert!(check(&other).is_err());
        }
    }

    #[test]
    fn no_certificate_lives_longer_than_the_issuer_signs() {
        let (ca, key) = (generate_cluster_ca("c").expect("made"), NodeKey::generate());
        let key = key.expect("made");
        let (verifier, csr) = (verifier(&ca, &key), key.csr().expect("a request"));
        let long = time::Duration::days(3000);
        for name in ["7.node.c", "eve.admin.admin.c"] {
            let chain = ca.issuer.sign(&csr, name, [], long).expect("signed");
            assert!(check(&verifier, &chain).is_err(), "{name}");
        }
        let pinned = Pinned { pin: spki_hash(&ca.issuer.chain()[1]).expect("a key"), issuer: None };
        let taken = |life| {
            let chain = ca.issuer.sign(&csr, "7.node.c", [], life).expect("signed");
            let name = ServerName::try_from("x.invalid").expect("a name");
            pinned.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).is_ok()
        };
        assert!(taken(time::Duration::days(7)) && !taken(long), "of a joiner's or a person's");
        let week = ca.issuer.sign(&csr, "eve.admin.admin.c", [], time::Duration::days(7));
        assert!(check(&verifier, &week.expect("signed")).is_err(), "a person's is a day's");
    }
}
