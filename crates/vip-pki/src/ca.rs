//! The cluster's certificate authorities. The root signs the issuer, once; the
//! issuer, which every voter has, signs nodes and people.

use crate::names::{Identity, node_server_name, user_server_name};
use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::{Duration, OffsetDateTime};
use vip_core::{AdminRole, Name, NodeId, Role};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Life of root and issuer: longer than any cluster should live unattended.
pub const ROOT_DAYS: i64 = 3650;
/// Life of a node's certificate; renewed after half of it.
const NODE_DAYS: i64 = 7;
/// Life of a person's certificate: a working day.
pub const USER_LIFE: Duration = Duration::hours(12);
/// The longest life that a certificate may claim.
pub(crate) fn longest_life(identity: &Identity) -> Duration {
    let life = match identity {
        Identity::Node(_) | Identity::Anonymous => Duration::days(NODE_DAYS),
        Identity::User { .. } => USER_LIFE,
    };
    life + BACKDATE
}

/// Certificates begin this much earlier, for clocks that are behind.
const BACKDATE: Duration = Duration::HOUR;
/// Where a node's certificate says at which log index it was admitted.
pub(crate) const ADMITTED: &str = "admitted-";

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A request or certificate does not parse.
    #[error("not a valid certificate request")]
    Request(#[source] rcgen::Error),
    /// Signing failed.
    #[error("signing failed")]
    Sign(#[source] rcgen::Error),
    /// Not the root's key.
    #[error("this is not the key of this cluster's root CA")]
    OtherRoot,
    /// A CA certificate does not parse.
    #[error("not a valid CA certificate")]
    Certificate,
}

/// SHA-256 as lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub(crate) fn spki_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(sha256_hex(parsed.public_key().raw))
}

/// The hash of the public key (SPKI) in a certificate, DER.
#[must_use]
pub fn spki_of_certificate(certificate: &[u8]) -> Option<String> {
    spki_hash(&CertificateDer::from(certificate))
}

/// The same as bytes, as join tokens have it.
pub(crate) fn spki_pin(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    HEXLOWER.decode(spki_hash(certificate)?.as_bytes()).ok()?.try_into().ok()
}

/// The hash of the public key (SPKI) in a request.
///
/// # Errors
/// [`CaError::Request`].
pub fn spki_of_csr(csr: &[u8]) -> Result<String, CaError> {
    Ok(sha256_hex(&request(csr)?.public_key.subject_public_key_info()))
}

fn request(csr: &[u8]) -> Result<CertificateSigningRequestParams, CaError> {
    let csr = CertificateSigningRequestDer::from(csr);
    CertificateSigningRequestParams::from_der(&csr).map_err(CaError::Request)
}

/// A new root and issuer.
pub struct NewCa {
    /// The root's key, PEM: goes into the recovery file and nowhere else.
    pub root_key: Zeroizing<String>,
    pub issuer: Issuer,
}

/// Makes root and issuer of a new cluster.
///
/// # Errors
/// [`CaError`].
pub fn generate_cluster_ca(cluster: &str) -> Result<NewCa, CaError> {
    let root_key = KeyPair::generate().map_err(CaError::Sign)?;
    let root = ca_params(&format!("vipd root {cluster}"), 1);
    let root = root.self_signed(&root_key).map_err(CaError::Sign)?;
    let root_key = Zeroizing::new(root_key.serialize_pem());
    let issuer = Issuer::below(root.der(), &root_key, cluster)?;
    Ok(NewCa { root_key, issuer })
}

fn key_of(root: &CertificateDer<'_>, pem: &str) -> Result<KeyPair, CaError> {
    let key = KeyPair::from_pem(pem).map_err(|_| CaError::OtherRoot)?;
    let fits = spki_hash(root) == Some(sha256_hex(&key.subject_public_key_info()));
    if fits { Ok(key) } else { Err(CaError::OtherRoot) }
}

/// Checks that a key (PEM) is that of a root.
///
/// # Errors
/// [`CaError::OtherRoot`].
pub fn check_root_key(root: &CertificateDer<'_>, pem: &str) -> Result<(), CaError> {
    key_of(root, pem).map(|_| ())
}

fn ca_params(common_name: &str, path_len: u8) -> CertificateParams {
    let mut params = params(common_name, OffsetDateTime::now_utc(), Duration::days(ROOT_DAYS));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(common_name: &str, now: OffsetDateTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - BACKDATE;
    params.not_after = now + life;
    params
}

/// The CA that signs nodes and people.
pub struct Issuer {
    key: Zeroizing<Vec<u8>>,
    /// Issuer, root.
    chain: Vec<CertificateDer<'static>>,
}

impl Issuer {
    /// From its stored parts.
    #[must_use]
    pub fn new(key: Zeroizing<Vec<u8>>, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { key, chain }
    }

    /// A new one below a root, signed with the root's key (PEM).
    ///
    /// # Errors
    /// [`CaError::OtherRoot`]: the key is not this root's.
    pub fn below(
        root: &CertificateDer<'_>,
        root_key: &str,
        cluster: &str,
    ) -> Result<Self, CaError> {
        let root_key = key_of(root, root_key)?;
        let signer = rcgen::Issuer::from_ca_cert_der(root, root_key).map_err(CaError::Sign)?;
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let certificate = ca_params(&format!("vipd issuer {cluster}"), 0).signed_by(&key, &signer);
        let certificate = certificate.map_err(CaError::Sign)?.der().clone();
        let key = Zeroizing::new(key.serialize_der());
        Ok(Self { key, chain: vec![certificate, root.clone().into_owned()] })
    }

    /// Its key, PKCS#8 DER. For files of mode 0600 and other voters only.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Hash of the public half of its key, whatever its certificate says.
    pub(crate) fn key_spki(&self) -> Result<String, CaError> {
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(&self.key[..]);
        let key = KeyPair::try_from(&key).map_err(CaError::Sign)?;
        Ok(sha256_hex(&key.subject_public_key_info()))
    }

    /// Its certificate, then the root's.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Hash of its public key.
    ///
    /// # Errors
    /// [`CaError::Certificate`].
    pub fn spki(&self) -> Result<String, CaError> {
        self.chain.first().and_then(spki_hash).ok_or(CaError::Certificate)
    }

    /// SHA-256 of the root's public key: what join tokens are pinned to.
    ///
    /// # Errors
    /// [`CaError::Certificate`].
    pub fn root_pin(&self) -> Result<[u8; 32], CaError> {
        self.chain.last().and_then(spki_pin).ok_or(CaError::Certificate)
    }

    /// Signs a node's key, as one of `role`: none of a node that joins. Of the
    /// request nothing but the key is used: names
    /// and extensions in it are the requester's wishes.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn sign_node(
        &self,
        csr: &[u8],
        node: NodeId,
        role: Option<Role>,
        admitted: u64,
        cluster: &str,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let name = node_server_name(node, cluster);
        let life = Duration::days(NODE_DAYS);
        let unit = (DnType::OrganizationalUnitName, format!("{ADMITTED}{admitted}"));
        let role = role.map(|role| (DnType::OrganizationName, role.to_string()));
        self.sign(csr, &name, std::iter::once(unit).chain(role), life)
    }

    /// Signs a person's key.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn sign_user(
        &self,
        csr: &[u8],
        user: &Name,
        role: AdminRole,
        cluster: &str,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        self.sign(csr, &user_server_name(user, role, cluster), [], USER_LIFE)
    }

    pub(crate) fn sign(
        &self,
        csr: &[u8],
        name: &str,
        parts: impl IntoIterator<Item = (DnType, String)>,
        life: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let public_key = request(csr)?.public_key;
        let mut params = params(name, OffsetDateTime::now_utc(), life);
        for (part, text) in parts {
            params.distinguished_name.push(part, text);
        }
        let san = name.try_into().map_err(CaError::Request)?;
        params.subject_alt_names = vec![rcgen::SanType::DnsName(san)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(&self.key[..]);
        let key = KeyPair::try_from(&key).map_err(CaError::Sign)?;
        let certificate = self.chain.first().ok_or(CaError::Certificate)?;
        let issuer = rcgen::Issuer::from_ca_cert_der(certificate, key).map_err(CaError::Sign)?;
        let leaf = params.signed_by(&public_key, &issuer).map_err(CaError::Sign)?;
        Ok(std::iter::once(leaf.der().clone()).chain(self.chain.iter().cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeKey;
    use crate::leaf::{leaf_identity, leaf_role};
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::sync::LazyLock;

    static REQUEST: LazyLock<(NodeKey, Vec<u8>)> = LazyLock::new(|| {
        let key = NodeKey::generate().expect("made");
        let csr = key.csr().expect("a request");
        (key, csr)
    });

    proptest! {
        /// A request is refused, or it is for a key that its sender has: what
        /// is signed is for that key, and for the name that we give.
        #[test]
        fn a_changed_request_is_refused_or_is_the_same_key(
            changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<Index>()),
        ) {
            let (key, csr) = &*REQUEST;
            let mut changed = csr.clone();
            for (at, byte) in changes {
                let at = at.index(changed.len());
                changed[at] = byte;
            }
            if let Some(cut) = cut {
                changed.truncate(cut.index(changed.len()));
            }
            if let Ok(spki) = spki_of_csr(&changed) {
                prop_assert_eq!(spki, key.spki());
            }
            let leaf = CertificateDer::from(changed);
            prop_assert_eq!(leaf_identity(&leaf, "c"), None);
            prop_assert_eq!(leaf_role(&leaf), None);
        }

        #[test]
        fn no_bytes_are_a_certificate(bytes in any::<Vec<u8>>()) {
            prop_assert!(spki_of_csr(&bytes).is_err());
            prop_assert_eq!(leaf_identity(&CertificateDer::from(bytes), "c"), None);
        }
    }
}
