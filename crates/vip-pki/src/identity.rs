//! What a node keeps on disk to be itself: `<data_dir>/pki/`.

use crate::ca::{CaError, Issuer, sha256_hex, spki_hash, spki_pin};
use crate::files::write_secret;
use crate::leaf::leaf_role;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::path::{Path, PathBuf};
use vip_core::Role;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Why an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "{path} is damaged; restore it, or remove this node from the cluster, wipe its data directory and join again"
    )]
    Damaged { path: PathBuf },
    /// A key or request could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// A private key that asks for a certificate.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new one (ECDSA P-256).
    ///
    /// # Errors
    /// [`CaError::Sign`].
    pub fn generate() -> Result<Self, CaError> {
        Ok(Self(KeyPair::generate().map_err(CaError::Sign)?))
    }

    /// Hash of its public half.
    #[must_use]
    pub fn spki(&self) -> String {
        sha256_hex(&self.0.subject_public_key_info())
    }

    /// A request for a certificate, DER.
    ///
    /// # Errors
    /// [`CaError::Sign`].
    pub fn csr(&self) -> Result<Vec<u8>, CaError> {
        let request = CertificateParams::default().serialize_request(&self.0);
        Ok(request.map_err(CaError::Sign)?.der().to_vec())
    }

    /// PEM, for a file of mode 0600.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

/// Key and certificates of this node, or of a person.
pub struct NodeIdentity {
    pub key: NodeKey,
    /// Leaf, issuer, root.
    pub chain: Vec<CertificateDer<'static>>,
}

impl NodeIdentity {
    /// Key and chain, read from PEM.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn from_pem(key: &str, chain: &[u8]) -> Result<Self, CaError> {
        let key = NodeKey(KeyPair::from_pem(key).map_err(CaError::Sign)?);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.ok().filter(|c| c.len() >= 3).ok_or(CaError::Certificate)?;
        Ok(Self { key, chain })
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.0.serialize_der()))
    }

    /// The root certificate.
    #[must_use]
    pub fn root(&self) -> Option<&CertificateDer<'static>> {
        self.chain.last()
    }

    /// SHA-256 of the root's public key (SPKI), as join tokens have it.
    #[must_use]
    pub fn root_pin(&self) -> Option<[u8; 32]> {
        spki_pin(self.root()?)
    }

    /// What the leaf says that the node is; nothing while it joins.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        leaf_role(self.chain.first()?)
    }

    /// The key (SPKI hash) of the CA that signed the leaf.
    #[must_use]
    pub fn issuer(&self) -> Option<String> {
        spki_hash(self.chain.get(1)?)
    }

    /// When the leaf was valid from and until, seconds since 1970.
    #[must_use]
    pub fn validity(&self) -> Option<(i64, i64)> {
        let (_, leaf) = X509Certificate::from_der(self.chain.first()?).ok()?;
        let validity = leaf.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    }
}

/// The directory of a node's keys.
#[derive(Clone, Debug)]
pub struct PkiDir(PathBuf);

fn pem(label: &str, der: &[u8]) -> String {
    let body = data_encoding::BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// Certificates as PEM, one after the other.
#[must_use]
pub fn chain_pem(chain: &[impl AsRef<[u8]>]) -> String {
    chain.iter().map(|c| pem("CERTIFICATE", c.as_ref())).collect()
}

impl PkiDir {
    /// In this data directory.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("pki"))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), IdentityError> {
        let path = self.0.join(name);
        let file = |source| IdentityError::File { path: path.clone(), source };
        std::fs::create_dir_all(&self.0).map_err(file)?;
        write_secret(&path, text.as_bytes()).map_err(file)
    }

    fn read(&self, name: &str) -> Result<Zeroizing<String>, IdentityError> {
        let path = self.0.join(name);
        let text = std::fs::read_to_string(&path);
        Ok(Zeroizing::new(text.map_err(|source| IdentityError::File { path, source })?))
    }

    /// Stores the node's key and chain.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn store_identity(&self, identity: &NodeIdentity) -> Result<(), IdentityError> {
        self.write("node.key", &identity.key.pem())?;
        self.write("node.crt", &chain_pem(&identity.chain))
    }

    /// Reads them back.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_identity(&self) -> Result<NodeIdentity, IdentityError> {
        let (key, chain) = (self.read("node.key")?, self.read("node.crt")?);
        let damaged = |_| IdentityError::Damaged { path: self.0.join("node.crt") };
        NodeIdentity::from_pem(&key, chain.as_bytes()).map_err(damaged)
    }

    /// Stores the issuer: on voters.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn store_issuer(&self, issuer: &Issuer) -> Result<(), IdentityError> {
        self.write_issuer("issuer", issuer)
    }

    /// Stores an issuer that the log does not name yet, beside the one there is.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn store_next_issuer(&self, issuer: &Issuer) -> Result<(), IdentityError> {
        self.write_issuer("next-issuer", issuer)
    }

    /// Removes it: it is the one in use now.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn forget_next_issuer(&self) -> Result<(), IdentityError> {
        for name in ["next-issuer.key", "next-issuer.crt"] {
            let path = self.0.join(name);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(IdentityError::File { path, source: e });
                }
                _ => {}
            }
        }
        Ok(())
    }

    // The key first: a key without its certificate is never used.
    fn write_issuer(&self, name: &str, issuer: &Issuer) -> Result<(), IdentityError> {
        self.write(&format!("{name}.key"), &pem("PRIVATE KEY", issuer.key()))?;
        self.write(&format!("{name}.crt"), &chain_pem(issuer.chain()))
    }

    /// Reads the issuer, if this node has it.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_issuer(&self) -> Result<Option<Issuer>, IdentityError> {
        self.read_issuer("issuer")
    }

    /// Reads the one that the log did not name yet, if there is one.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_next_issuer(&self) -> Result<Option<Issuer>, IdentityError> {
        self.read_issuer("next-issuer")
    }

    fn read_issuer(&self, name: &str) -> Result<Option<Issuer>, IdentityError> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let there = |name: &str| self.0.join(name).exists();
        if !there(&key) || !there(&certificate) {
            return Ok(None);
        }
        let damaged = || IdentityError::Damaged { path: self.0.join(&key) };
        let (key, chain) = (self.read(&key)?, self.read(&certificate)?);
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(|_| damaged())?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.ok().filter(|c| c.len() >= 2).ok_or_else(damaged)?;
        let issuer = Issuer::new(Zeroizing::new(key.secret_pkcs8_der().to_vec()), chain);
        // Stored one after the other: after a crash in between there is none, and
        // others have it.
        let fits = issuer.key_spki().ok() == issuer.spki().ok();
        Ok(Some(issuer).filter(|_| fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::generate_cluster_ca;

    /// A crash between the two files: with the wrong key everything that is
    /// signed would be refused.
    #[test]
    fn a_key_that_does_not_fit_its_certificate_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = PkiDir::new(dir.path());
        let [old, new] = ["c", "c"].map(|id| generate_cluster_ca(id).expect("made").issuer);
        pki.store_issuer(&old).expect("stored");
        assert!(pki.load_issuer().expect("read").is_some());
        pki.write("issuer.key", &pem("PRIVATE KEY", new.key())).expect("stored");
        assert!(pki.load_issuer().expect("read").is_none());
    }
}
