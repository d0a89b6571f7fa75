//! TLS to a real server, and what is wrong with its certificate, in words.

use crate::fresh::Fresh;
use crate::words;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vip_core::{Digest, Failure, Tls, Trust};

const NO_ROOT: &str = "this host trusts no root: install ca-certificates, or use --check-tls";

/// Files of this host's own certificate and key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

type Signs = Arc<SingleCertAndKey>;

/// What this host has for TLS: whom it trusts, and who it is where a server wants to know.
pub(crate) struct HostTls {
    roots: Fresh<Arc<WebPkiServerVerifier>>,
    identity: Option<Fresh<Signs>>,
}

impl HostTls {
    pub(crate) fn new(identity: Option<Identity>) -> Self {
        let read = |files: Identity| Fresh::new("its certificate", move || read_identity(&files));
        Self { roots: Fresh::new("its roots", read_roots), identity: identity.map(read) }
    }

    #[cfg(test)]
    pub(crate) fn trusting(roots: RootCertStore) -> Self {
        let roots = Fresh::new("its roots", move || verifier_of(roots.clone()));
        Self { roots, identity: None }
    }
}

fn read_roots() -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    verifier_of(roots)
}

/// None by no root.
fn verifier_of(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, String> {
    let provider = Arc::new(default_provider());
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|_| NO_ROOT.to_owned())
}

fn read_identity(Identity { certificate, key }: &Identity) -> Result<Signs, String> {
    let bad = |path: &Path, why: &dyn fmt::Display| {
        format!("this host's own certificate cannot be shown: {}: {why}", path.display())
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|error| bad(certificate, &error))?;
    let read = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error))?;
    let signs = CertifiedKey::from_der(chain, read, &default_provider());
    Ok(Arc::new(signs.map_err(|error| bad(key, &error))?.into()))
}

/// Any certificate, or some: what their issuers say is not looked at. That the server has the
/// key is.
#[derive(Debug)]
struct Own {
    pinned: Option<Vec<Digest>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own = digest(&SHA256, end_entity);
        match &self.pinned {
            Some(pins) if !pins.iter().any(|pin| pin == own.as_ref()) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

async fn verifier(
    host: &HostTls,
    trust: &Trust,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    let pinned = match trust {
        Trust::Roots => return Ok(host.roots.get().await?),
        Trust::Anyone => None,
        Trust::Pinned(pins) => Some(pins.clone()),
    };
    Ok(Arc::new(Own { pinned, provider }))
}

/// Speaks TLS on a connection to a real server, for one of these protocols. `host`: who was
/// asked for.
pub(crate) async fn begin(
    stream: TcpStream,
    (own, tls): (&HostTls, &Tls),
    (host, at): (Option<&str>, SocketAddr),
    protocols: &[&[u8]],
) -> Result<TlsStream<TcpStream>, Failure> {
    let provider = Arc::new(default_provider());
    let verifier = verifier(own, &tls.trust, provider.clone()).await?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::Here(e.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &own.identity {
        Some(identity) => config.with_client_cert_resolver(identity.get().await?),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Each probe is to see the certificate.
    config.resumption = Resumption::disabled();
    let name = tls.name.as_deref().or(host).map(without_port);
    let name = match name {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| Failure::Here(format!("{name:?} is no name for TLS: --check-sni")))?,
        None => ServerName::from(at.ip()),
    };
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name.clone(), stream).await.map_err(|error| match inner(&error) {
        Some(inner) => Failure::There(in_words(inner, &name)),
        None => words::failure(&error),
    })
}

fn inner(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

/// What the other side said of TLS when it was begun already: whose certificate it wants, it
/// says then (RFC 8446, section 4.4.2.4).
pub(crate) fn refused(error: &io::Error) -> Option<String> {
    match inner(error)? {
        Error::AlertReceived(alert) => Some(format!("it refused TLS: {alert:?}")),
        other => Some(format!("TLS failed: {other}")),
    }
}

/// A host's name as it stands in a certificate.
fn without_port(host: &str) -> &str {
    let bare = host.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(ip, _)| ip);
    let is_ip = || host.parse::<IpAddr>().is_ok();
    bare.unwrap_or_else(|| match host.rsplit_once(':') {
        Some((name, _)) if !is_ip() => name,
        _ => host,
    })
}

fn in_words(error: &Error, name: &ServerName<'_>) -> String {
    use CertificateError as C;
    let ago = |now: UnixTime, then: UnixTime| days(now.as_secs().abs_diff(then.as_secs()));
    match error {
        Error::InvalidCertificate(bad) => match bad {
            C::ExpiredContext { time, not_after } => {
                format!("certificate expired {} ago", ago(*time, *not_after))
            }
            C::NotValidYetContext { time, not_before } => {
                format!("certificate is not good for another {}", ago(*time, *not_before))
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                format!("certificate is not of {}", name.to_str())
            }
            C::UnknownIssuer => "certificate is of an issuer that this host does not trust".into(),
            C::ApplicationVerificationFailure => "certificate is none of the pinned ones".into(),
            C::Revoked => "certificate is revoked".into(),
            other => format!("certificate is not good: {other}"),
        },
        Error::InvalidMessage(_) => "it does not speak TLS".into(),
        Error::PeerIncompatible(why) => format!("it has no TLS in common with this host: {why:?}"),
        Error::AlertReceived(alert) => format!("it refused TLS: {alert:?}"),
        Error::NoApplicationProtocol => "it does not speak HTTP/2 by TLS".into(),
        other => format!("TLS failed: {other}"),
    }
}

/// A span as a person says it.
fn days(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let (count, what) = match (minutes, hours, days) {
        (0, ..) => (seconds, "second"),
        (_, 0, _) => (minutes, "minute"),
        (.., 0) => (hours, "hour"),
        _ => (days, "day"),
    };
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_name_is_what_stands_in_a_certificate() {
        for (host, name) in [
            ("shop.example", "shop.example"),
            ("shop.example:8443", "shop.example"),
            ("[fd00::1]:443", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("10.0.0.1:80", "10.0.0.1"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn spans_are_said_in_one_unit() {
        let spoken = [0, 1, 59, 60, 7199, 86_399, 86_400, 3 * 86_400].map(days);
        let wanted = [
            "0 seconds",
            "1 second",
            "59 seconds",
            "1 minute",
            "1 hour",
            "23 hours",
            "1 day",
            "3 days",
        ];
        assert_eq!(spoken, wanted);
    }
}
