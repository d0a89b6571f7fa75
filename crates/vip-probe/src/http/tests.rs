//! Against servers that answer as they are told to, however badly.

use crate::testing::{LONG, said, text};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use vip_core::CheckWords;

/// A server that reads a request and then does this. What was asked comes back.
fn server(
    answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static,
) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let at = listener.local_addr().expect("an address");
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = vec![];
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                request.push(byte[0]);
            }
            if tell.send(String::from_utf8_lossy(&request).into_owned()).is_err() {
                return;
            }
            // Who had enough is no fault of the server.
            let _ = answer(&mut stream);
        }
    });
    (at, asked)
}

fn saying(response: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    server(move |stream| stream.write_all(response.as_bytes()))
}

fn http() -> CheckWords {
    CheckWords::of("http:/ready?deep=1")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well";

#[tokio::test]
async fn what_is_asked_is_what_was_said_and_no_more() {
    let (at, asked) = saying(OK);
    assert_eq!(said(at, http(), LONG).await, None);
    let first = asked.recv().expect("asked");
    let lines: Vec<_> = first.trim_end().split("\r\n").collect();
    assert_eq!(lines[0], "GET /ready?deep=1 HTTP/1.1");
    assert!(lines.contains(&format!("host: {at}").as_str()), "{first}");
    assert!(lines.contains(&"connection: close"), "{first}");
    let own = CheckWords {
        method: text("OPTIONS"),
        host: text("shop.example"),
        headers: vec!["X-From: a check".to_owned()],
        ..http()
    };
    assert_eq!(said(at, own, LONG).await, None);
    let second = asked.recv().expect("asked");
    assert!(second.starts_with("OPTIONS /ready"), "{second}");
    assert!(second.contains("\r\nhost: shop.example\r\n"), "{second}");
    assert!(second.contains("\r\nx-from: a check\r\n"), "{second}");
}

#[tokio::test]
async fn the_answer_is_as_it_should_be_or_says_what_is_wrong() {
    let (at, _asked) = saying("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(said(at, http(), LONG).await.as_deref(), Some("status 503, expected 200-299"));
    let expect = CheckWords { expect: text("200,503"), ..http() };
    assert_eq!(said(at, expect, LONG).await, None);
    let (at, _asked) = saying(OK);
    let body = |body: &str| CheckWords { body: text(body), ..http() };
    assert_eq!(said(at, body("is well"), LONG).await, None);
    let why = said(at, body("is ill"), LONG).await;
    assert_eq!(why.as_deref(), Some("its answer does not contain \"is ill\""));
    let digest = |hex: &str| CheckWords { digest: text(hex), ..http() };
    let why = said(at, digest(&"00".repeat(32)), LONG).await;
    assert!(why.is_some_and(|why| why.contains("digest")));
    let of_it = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"all is well");
    let of_it: String = of_it.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(said(at, digest(&of_it), LONG).await, None);
    let head = CheckWords { method: text("HEAD"), ..http() };
    assert_eq!(said(at, head, LONG).await, None);
}

#[tokio::test]
async fn who_is_not_well_in_another_way_is_told_of_in_words() {
    for (response, why) in [
        ("", "it ended the connection before its answer"),
        ("HTTP/1.1 200", "it ended the connection before its answer"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "what answers there does not speak HTTP"),
        ("HTTP/1.1 200 OK\r\nno header\r\n\r\n", "what answers there does not speak HTTP"),
    ] {
        let (at, _asked) = saying(response);
        assert_eq!(said(at, http(), LONG).await.as_deref(), Some(why), "{response:?}");
    }
    let (at, _asked) = server(|stream| {
        let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(100_000));
        stream.write_all(head.as_bytes())
    });
    let why = said(at, http(), LONG).await;
    assert!(
        why.as_ref().is_some_and(|why| why.contains("HTTP") || why.contains("too long")),
        "{why:?}"
    );
}

/// A byte a second keeps nobody for longer than the timeout.
#[tokio::test]
async fn who_answers_a_byte_at_a_time_is_late() {
    let (at, _asked) = server(|stream| {
        for byte in OK.as_bytes() {
            stream.write_all(&[*byte])?;
            std::thread::park_timeout(Duration::from_millis(100));
        }
        Ok(())
    });
    let begun = Instant::now();
    let why = said(at, http(), 400).await;
    assert_eq!(why.as_deref(), Some("no answer within 400 ms"));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// Of a body without an end the first 64 KiB are looked at, and the rest is not even read.
#[tokio::test]
async fn who_sends_without_an_end_is_read_no_further_than_it_takes() {
    let (tell, sent) = mpsc::channel();
    let (at, _asked) = server(move |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\nhere")?;
        let mut bytes = 0;
        let ended = loop {
            match stream.write(&[b'x'; 64 * 1024]) {
                Ok(count) => bytes += count,
                Err(error) => break error,
            }
        };
        let _ = tell.send(bytes);
        Err(ended)
    });
    let body = |body: &str| CheckWords { body: text(body), ..http() };
    assert_eq!(said(at, http(), LONG).await, None, "the status says all");
    assert_eq!(said(at, body("here"), LONG).await, None);
    let why = said(at, body("there"), LONG).await;
    assert_eq!(why.as_deref(), Some("its answer does not contain \"there\""));
    let digest = CheckWords { digest: text(&"00".repeat(32)), ..http() };
    let why = said(at, digest, LONG).await;
    assert_eq!(why.as_deref(), Some("its answer is longer than 65536 bytes"));
    for _ in 0..4 {
        let bytes = sent.recv_timeout(Duration::from_secs(20)).expect("each was cut off");
        // The kernel's buffers on both sides have room for some MB of it.
        assert!(bytes < 16 << 20, "{bytes}");
    }
}

#[tokio::test]
async fn who_resets_is_told_of() {
    let (at, _asked) =
        server(|stream| socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)));
    let why = said(at, http(), LONG).await;
    assert_eq!(why.as_deref(), Some("connection reset"));
}

mod by_tls {
    use super::*;
    use crate::testing::target;
    use crate::tls::HostTls;
    use crate::{Identity, Prober};
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use std::sync::Arc;
    use time::OffsetDateTime;
    use vip_core::Failure;

    /// A server with a certificate of its own, good until so many days from now.
    fn server_until(days: i64) -> (SocketAddr, CertificateDer<'static>) {
        server_for(days, None)
    }

    /// That answers nobody but who has a certificate by this root, if there is one.
    fn server_for(
        days: i64,
        root: Option<CertificateDer<'static>>,
    ) -> (SocketAddr, CertificateDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).expect("a name");
        let now = OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(30);
        params.not_after = now + time::Duration::days(days);
        let cert = params.self_signed(&key).expect("signed").der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(default_provider());
        let clients = root.map(|root| {
            let mut roots = RootCertStore::empty();
            roots.add(root).expect("a root");
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build()
        });
        let clients = clients.map_or_else(WebPkiClientVerifier::no_client_auth, |verifier| {
            verifier.expect("a verifier")
        });
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![cert.clone()], key)
            .expect("a configuration");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let at = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let Ok(tls) = rustls::ServerConnection::new(config.clone()) else { return };
                let mut stream = rustls::StreamOwned::new(tls, stream);
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok_and(|count| count > 0) {
                    let _ = stream.write_all(OK.as_bytes());
                    let _ = stream.flush();
                }
            }
        });
        (at, cert)
    }

    fn https(tls: &str) -> CheckWords {
        let tls = Some(tls.to_owned()).filter(|tls| !tls.is_empty());
        CheckWords { tls, host: text("shop.example"), ..CheckWords::of("https:/") }
    }

    fn pin(cert: &CertificateDer<'_>) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, cert);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[tokio::test]
    async fn a_certificate_is_good_as_it_was_said() {
        let (at, cert) = server_until(30);
        assert_eq!(said(at, https("skip"), LONG).await, None);
        assert_eq!(said(at, https(&format!("sha256:{}", pin(&cert))), LONG).await, None);
        let (_, other) = server_until(30);
        let why = said(at, https(&format!("sha256:{}", pin(&other))), LONG).await;
        assert_eq!(why.as_deref(), Some("certificate is none of the pinned ones"));
        let why = said(at, https(""), LONG).await;
        let issuer = "certificate is of an issuer that this host does not trust";
        assert_eq!(why.as_deref(), Some(issuer));
    }

    /// By a root that this host trusts.
    #[tokio::test]
    async fn a_certificate_that_is_over_or_another_hosts_is_told_of() {
        let ask = async |days, host: &str| {
            let (at, cert) = server_until(days);
            let mut roots = RootCertStore::empty();
            roots.add(cert).expect("a root");
            let prober = Prober { tls: HostTls::trusting(roots), programs: None };
            let words = CheckWords { host: text(host), ..https("") };
            prober.probe(&target(at, words, LONG)).await
        };
        let no = |why: &str| Err(Failure::There(why.to_owned()));
        assert_eq!(ask(30, "shop.example:8443").await, Ok(()));
        assert_eq!(ask(30, "other.example").await, no("certificate is not of other.example"));
        assert_eq!(ask(-3, "shop.example").await, no("certificate expired 3 days ago"));
    }

    /// As an API server that answers nobody whom it does not know.
    #[tokio::test]
    async fn who_wants_to_know_who_asks_is_shown_this_hosts_certificate() {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = |name: &str| {
            let path = |ending| dir.path().join(format!("{name}.{ending}"));
            Identity { certificate: path("crt"), key: path("key") }
        };
        let root_of = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![]).expect("no names");
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let root = params.self_signed(&key).expect("signed").der().clone();
            let issuer = rcgen::Issuer::new(params, key);
            let key = KeyPair::generate().expect("a key");
            let leaf = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            let leaf = leaf.signed_by(&key, &issuer).expect("signed");
            let Identity { certificate, key: key_file } = identity(name);
            std::fs::write(certificate, leaf.pem()).expect("written");
            std::fs::write(key_file, key.serialize_pem()).expect("written");
            root
        };
        let (known, _stranger) = (root_of("known"), root_of("stranger"));
        let (at, _) = server_for(30, Some(known));
        let ask = async |identity| {
            let words = https("skip");
            Prober::new(None, identity).probe(&target(at, words, LONG)).await
        };
        let refused = |answer: &Result<(), Failure>| matches!(answer, Err(Failure::There(why)) if why.contains("it refused TLS"));
        assert_eq!(ask(Some(identity("known"))).await, Ok(()));
        for other in [None, Some(identity("stranger"))] {
            let answer = ask(other).await;
            assert!(refused(&answer), "{answer:?}");
        }
        let mixed = Identity { key: identity("stranger").key, ..identity("known") };
        for bad in [identity("nobody"), mixed] {
            let answer = ask(Some(bad)).await;
            let is_here = |why: &str| why.contains("own certificate cannot be shown");
            assert!(matches!(&answer, Err(Failure::Here(why)) if is_here(why)), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn who_does_not_speak_tls_is_told_of() {
        let (at, _asked) = saying("HTTP/1.1 400 Bad Request\r\n\r\n");
        // It waits for the end of a request that never comes, so it is told one.
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let plain = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a probe");
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
            let _ = stream.read(&mut [0; 4096]);
        });
        assert_eq!(
            said(plain, https("skip"), LONG).await.as_deref(),
            Some("it does not speak TLS")
        );
        assert_eq!(said(at, https("skip"), 200).await.as_deref(), Some("no answer within 200 ms"));
    }
}
