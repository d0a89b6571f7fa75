//! What a certificate says of whom it is for.

use crate::ca::{ADMITTED, longest_life};
use crate::names::{self, Identity};
use rustls_pki_types::CertificateDer;
use vip_core::Role;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Who a leaf says it is: its only DNS name, read for `cluster`.
pub(crate) fn leaf_identity(leaf: &CertificateDer<'_>, cluster: &str) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    match names.value.general_names[..] {
        [GeneralName::DNSName(name)] => names::parse(name, cluster),
        _ => None,
    }
}

/// What a member's leaf says that it is.
pub(crate) fn leaf_role(leaf: &CertificateDer<'_>) -> Option<Role> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    parsed.subject().iter_organization().next()?.as_str().ok()?.parse().ok()
}

/// Whether a certificate claims no longer life than this cluster gives.
pub(crate) fn lives_as_signed(leaf: &X509Certificate<'_>, identity: &Identity) -> bool {
    let (from, until) = (leaf.validity().not_before, leaf.validity().not_after);
    until.timestamp() - from.timestamp() <= longest_life(identity).whole_seconds()
}

/// The log index of its admission.
pub(crate) fn admitted_index(leaf: &X509Certificate<'_>) -> u64 {
    let units = leaf.subject().iter_organizational_unit();
    let index = units.filter_map(|unit| unit.as_str().ok()?.strip_prefix(ADMITTED)?.parse().ok());
    index.max().unwrap_or(0)
}
