//! Certificates that the cluster answers with. Whoever answers is a member, and
//! a member may lie: what is stored leads to the root that is known already.

use crate::bad_chain::BadChain;
use crate::ca::{Issuer, spki_hash, spki_pin};
use crate::identity::NodeKey;
use crate::leaf::{leaf_identity, lives_as_signed};
use crate::names::Identity;
use crate::verify::algorithms;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, UnixTime};
use vip_core::NodeId;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why an answer is not believed. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum NotIssued {
    /// Not leaf, issuer and root.
    #[error("it has {0} certificates where 3 belong")]
    Length(usize),
    /// Another cluster's.
    #[error("its root is another one")]
    Root,
    /// Not signed, not now, not for this.
    #[error(transparent)]
    Chain(BadChain),
    /// Somebody else's.
    #[error("its certificate is for another key")]
    Key,
    /// Another node's, or another cluster's.
    #[error("its certificate is not for node {node} of this cluster")]
    Name {
        /// The node that it was to be for.
        node: NodeId,
    },
    /// Longer than this cluster signs.
    #[error("its certificate is valid for longer than this cluster's are")]
    Life,
    /// The log knows no such issuer.
    #[error("its issuing key is not one that the log names and the root signed")]
    Issuer,
}

/// What a node's certificate must be.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// SHA-256 of the root's public key (SPKI), as tokens have it.
    pub root: [u8; 32],
    /// The node's own key.
    pub key: &'a NodeKey,
    /// Its id.
    pub node: NodeId,
    /// The cluster's id.
    pub cluster: &'a str,
}

impl Expected<'_> {
    /// Checks leaf, issuer and root.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), NotIssued> {
        let [leaf, issuer, root] = chain else { return Err(NotIssued::Length(chain.len())) };
        if spki_pin(root) != Some(self.root) {
            return Err(NotIssued::Root);
        }
        let verified = |usage: KeyUsage| {
            let anchors = [anchor_from_trusted_cert(root)?];
            let issuers = std::slice::from_ref(issuer);
            EndEntityCert::try_from(leaf)?
                .verify_for_usage(
                    algorithms().all,
                    &anchors,
                    issuers,
                    UnixTime::now(),
                    usage,
                    None,
                    None,
                )
                .map(|_| ())
        };
        verified(KeyUsage::server_auth()).map_err(|e| NotIssued::Chain(e.into()))?;
        verified(KeyUsage::client_auth()).map_err(|e| NotIssued::Chain(e.into()))?;
        if spki_hash(leaf).as_ref() != Some(&self.key.spki()) {
            return Err(NotIssued::Key);
        }
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| NotIssued::Key)?;
        if !lives_as_signed(&parsed, &Identity::Node(self.node)) {
            return Err(NotIssued::Life);
        }
        if leaf_identity(leaf, self.cluster) != Some(Identity::Node(self.node)) {
            return Err(NotIssued::Name { node: self.node });
        }
        Ok(())
    }
}

/// Checks the certificate of a new issuer: a CA that signs leaves alone, now, and
/// that the root signed. Returns its key (SPKI hash).
///
/// # Errors
/// [`NotIssued::Issuer`].
pub fn check_issuer(
    certificate: &CertificateDer<'_>,
    root: &CertificateDer<'_>,
) -> Result<String, NotIssued> {
    let check = || {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let (_, root) = X509Certificate::from_der(root).ok()?;
        let constraints = parsed.basic_constraints().ok()??.value;
        if !constraints.ca || constraints.path_len_constraint != Some(0) {
            return None;
        }
        if !parsed.validity().is_valid() {
            return None;
        }
        // Every root of ours is ECDSA on P-256 (RFC 5758 section 3.2).
        let key = &root.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data)
            .ok()?;
        spki_hash(certificate)
    };
    check().ok_or(NotIssued::Issuer)
}

impl Issuer {
    /// Checks an issuing key that a member sent: one that the log names, below
    /// this root, and the key to it.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn check(&self, root: &CertificateDer<'_>, named: &[String]) -> Result<(), NotIssued> {
        let [certificate, own_root] = self.chain() else {
            return Err(NotIssued::Length(self.chain().len() + 1));
        };
        if own_root != root {
            return Err(NotIssued::Root);
        }
        let spki = check_issuer(certificate, root)?;
        let fits = self.key_spki().is_ok_and(|own| own == spki);
        if !fits || !named.contains(&spki) {
            return Err(NotIssued::Issuer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{NewCa, generate_cluster_ca};

    const NODE: NodeId = NodeId(7);

    fn root_of(ca: &NewCa) -> [u8; 32] {
        ca.issuer.root_pin().expect("a root")
    }

    fn signed(
        ca: &NewCa,
        key: &NodeKey,
        node: NodeId,
        cluster: &str,
    ) -> Vec<CertificateDer<'static>> {
        let csr = key.csr().expect("a request");
        ca.issuer.sign_node(&csr, node, None, 3, cluster).expect("signed")
    }

    #[test]
    fn only_what_leads_to_the_known_root_is_believed() {
        let (ca, other) = (generate_cluster_ca("c").expect("made"), generate_cluster_ca("c"));
        let (other, key) = (other.expect("made"), NodeKey::generate().expect("made"));
        let expected = Expected { root: root_of(&ca), key: &key, node: NODE, cluster: "c" };
        let good = signed(&ca, &key, NODE, "c");
        assert!(expected.check(&good).is_ok());

        assert!(matches!(expected.check(&good[..2]), Err(NotIssued::Length(2))));
        let foreign = signed(&other, &key, NODE, "c");
        assert!(matches!(expected.check(&foreign), Err(NotIssued::Root)));
        // The right root beside a chain that does not lead to it.
        let mixed = [foreign[0].clone(), foreign[1].clone(), good[2].clone()];
        assert!(matches!(expected.check(&mixed), Err(NotIssued::Chain(_))));
        let mixed = [foreign[0].clone(), good[1].clone(), good[2].clone()];
        assert!(matches!(expected.check(&mixed), Err(NotIssued::Chain(_))));
        let csr = key.csr().expect("a request");
        let long = ca.issuer.sign(&csr, "7.node.c", [], time::Duration::days(3000));
        let long = expected.check(&long.expect("signed"));
        assert!(matches!(long, Err(NotIssued::Life)));
        let theirs = signed(&ca, &NodeKey::generate().expect("made"), NODE, "c");
        assert!(matches!(expected.check(&theirs), Err(NotIssued::Key)));
        for (node, cluster) in [(NodeId(8), "c"), (NODE, "d")] {
            let chain = signed(&ca, &key, node, cluster);
            assert!(matches!(expected.check(&chain), Err(NotIssued::Name { .. })));
        }
    }

    #[test]
    fn a_new_issuer_is_a_ca_that_the_root_signed() {
        let (ca, other) = (generate_cluster_ca("c").expect("made"), generate_cluster_ca("c"));
        let (root, other) = (&ca.issuer.chain()[1], other.expect("made"));
        let new = Issuer::below(root, &ca.root_key, "c").expect("made");
        assert_eq!(check_issuer(&new.chain()[0], root).expect("good"), new.spki().expect("a key"));
        let leaf = signed(&ca, &NodeKey::generate().expect("made"), NODE, "c");
        for bad in [&other.issuer.chain()[0], &leaf[0], root, &CertificateDer::from(vec![1])] {
            assert!(matches!(check_issuer(bad, root), Err(NotIssued::Issuer)));
        }
    }

    #[test]
    fn an_issuing_key_is_one_that_the_log_names_and_fits() {
        let (ca, other) = (generate_cluster_ca("c").expect("made"), generate_cluster_ca("c"));
        let other = other.expect("made");
        let root = ca.issuer.chain()[1].clone();
        let named = [ca.issuer.spki().expect("a key")];
        assert!(ca.issuer.check(&root, &named).is_ok());
        assert!(matches!(other.issuer.check(&root, &named), Err(NotIssued::Root)));
        assert!(matches!(ca.issuer.check(&root, &[]), Err(NotIssued::Issuer)));
        let chain = ca.issuer.chain().to_vec();
        let wrong_key = Issuer::new(other.issuer.key().to_vec().into(), chain);
        assert!(matches!(wrong_key.check(&root, &named), Err(NotIssued::Issuer)));
    }
}
