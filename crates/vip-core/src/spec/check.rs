//! How real servers are checked, as a person says it.

mod datagrams;
mod error;
mod exec;
mod http;
mod otherwise;
mod tls;
mod words;

pub use datagrams::{DnsCheck, RecordType, Reply, UdpCheck};
pub use error::CheckKindError;
pub use exec::ExecCheck;
pub(super) use exec::is_file_name;
pub use http::{Body, GrpcCheck, Header, HttpCheck, Method, Statuses};
pub use otherwise::{MAX_OTHERWISE, RealCheck};
pub use tls::{Digest, Tls, Trust};
pub use words::CheckWords;

use super::timing::ms;
use crate::{CheckTiming, Level, Name, excerpt};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CheckWords", into = "CheckWords")]
pub enum CheckKind {
    /// Opens a connection, and ends it.
    Tcp,
    /// Asks for a page.
    Http(HttpCheck),
    /// Asks a gRPC server how it is.
    Grpc(GrpcCheck),
    /// Asks a server of names.
    Dns(DnsCheck),
    /// Sends a datagram.
    Udp(UdpCheck),
    /// Asks for an echo (RFC 792, RFC 4443).
    Icmp,
    /// Runs a program.
    Exec(ExecCheck),
}

impl TryFrom<CheckWords> for CheckKind {
    type Error = CheckKindError;

    fn try_from(mut words: CheckWords) -> Result<Self, CheckKindError> {
        let text = words.kind.clone();
        let (word, rest) = match text.split_once(':') {
            Some((word, rest)) => (word, Some(rest)),
            None => (text.as_str(), None),
        };
        let kind = match (word, rest) {
            ("tcp", None) => Self::Tcp,
            ("icmp", None) => Self::Icmp,
            ("http", Some(path)) => Self::Http(HttpCheck::take(path, false, &mut words)?),
            ("https", Some(path)) => Self::Http(HttpCheck::take(path, true, &mut words)?),
            ("grpc", service) => {
                Self::Grpc(GrpcCheck::take(service.unwrap_or_default(), &mut words)?)
            }
            ("dns", Some(question)) => Self::Dns(DnsCheck::take(question, &mut words)?),
            ("udp", Some(datagram)) => Self::Udp(UdpCheck::take(datagram, &mut words)?),
            ("exec", Some(file)) => Self::Exec(ExecCheck::take(file)?),
            _ => return Err(CheckKindError::Unknown(excerpt(&text))),
        };
        words.end()?;
        Ok(kind)
    }
}

impl From<&CheckKind> for CheckWords {
    fn from(kind: &CheckKind) -> Self {
        let mut words = Self::default();
        match kind {
            CheckKind::Tcp => words.kind = "tcp".to_owned(),
            CheckKind::Icmp => words.kind = "icmp".to_owned(),
            CheckKind::Http(check) => check.say(&mut words),
            CheckKind::Grpc(check) => check.say(&mut words),
            CheckKind::Dns(check) => check.say(&mut words),
            CheckKind::Udp(check) => check.say(&mut words),
            CheckKind::Exec(check) => words.kind = check.to_string(),
        }
        words
    }
}

impl From<CheckKind> for CheckWords {
    fn from(kind: CheckKind) -> Self {
        Self::from(&kind)
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&CheckWords::from(self).kind)
    }
}

impl CheckKind {
    /// Whether it says something of who listens by UDP as well.
    #[must_use]
    pub const fn is_of_udp(&self) -> bool {
        matches!(self, Self::Dns(_) | Self::Udp(_) | Self::Icmp | Self::Exec(_))
    }

    /// Whether it needs a port to ask.
    #[must_use]
    pub const fn has_port(&self) -> bool {
        !matches!(self, Self::Icmp | Self::Exec(_))
    }
}

/// How the real servers of a virtual one are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    #[serde(flatten)]
    pub kind: Arc<CheckKind>,
    #[serde(flatten)]
    pub timing: CheckTiming,
    /// `None`: where connections go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The nodes that may observe; empty: all active ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observers: Vec<Name>,
    /// Who is back, or new beside others, gets its whole share after so long, in steps.
    #[serde(
        rename = "slow_start_ms",
        with = "ms",
        default,
        skip_serializing_if = "Duration::is_zero"
    )]
    pub slow_start: Duration,
    /// Real servers that are checked otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<RealCheck>,
}

impl CheckSpec {
    /// Since when there is such a check.
    #[must_use]
    pub fn since(&self) -> Level {
        let Self { timing, slow_start, otherwise, .. } = self;
        if !otherwise.is_empty() || !slow_start.is_zero() || !timing.grace.is_zero() {
            return Level::PROGRAMS;
        }
        match *self.kind {
            CheckKind::Tcp => Level::CHECKS,
            CheckKind::Exec(_) => Level::PROGRAMS,
            _ => Level::KINDS,
        }
    }

    /// How the real server is checked that connections go to there, and at which port if not
    /// that one.
    #[must_use]
    pub fn of(&self, ip: IpAddr, port: Option<u16>) -> (&Arc<CheckKind>, Option<u16>) {
        let own = self.otherwise.iter().find(|one| one.is_of(ip, port));
        let kind = own.and_then(|own| own.check.as_ref()).unwrap_or(&self.kind);
        (kind, own.and_then(|own| own.check_port).or(self.port))
    }
}

impl From<CheckKind> for CheckSpec {
    fn from(kind: CheckKind) -> Self {
        let kind = Arc::new(kind);
        let (timing, slow_start) = (CheckTiming::default(), Duration::ZERO);
        Self { kind, timing, port: None, observers: vec![], slow_start, otherwise: vec![] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &CheckWords) -> Result<CheckKind, CheckKindError> {
        words.clone().try_into()
    }

    /// Every kind, with all that it may have.
    fn all() -> Vec<CheckWords> {
        let text = |text: &str| Some(text.to_owned());
        let pins = format!("sha256:{0},{0}", "ab".repeat(32));
        let http = CheckWords {
            expect: text("200-299,304"),
            method: text("POST"),
            host: text("shop.example:8443"),
            headers: vec!["x-from: a check".to_owned()],
            ..CheckWords::of("https:/ready?deep=1")
        };
        vec![
            CheckWords::of("tcp"),
            CheckWords::of("icmp"),
            CheckWords::of("http:/"),
            CheckWords { method: text("HEAD"), ..CheckWords::of("http:/") },
            CheckWords { tls: Some(pins), body: text("all is \"well\""), ..http.clone() },
            CheckWords { sni: text("a.example"), digest: Some("0f".repeat(32)), ..http },
            CheckWords::of("grpc"),
            CheckWords { tls: text("verify"), ..CheckWords::of("grpc:api.v1.Shop") },
            CheckWords { tls: text("skip"), sni: text("a"), ..CheckWords::of("grpc") },
            CheckWords::of("dns:example.com/AAAA"),
            CheckWords { expect: text("10 mail.example."), ..CheckWords::of("dns:a/MX") },
            CheckWords::of("udp:00ff"),
            CheckWords { expect: text("0a"), ..CheckWords::of("udp:00") },
            CheckWords { expect: text("none"), ..CheckWords::of("udp:00") },
            CheckWords::of("exec:check-shop.sh"),
            CheckWords::of("exec:check_2,--deep,a b,'$(id)'"),
        ]
    }

    #[test]
    fn a_kind_is_written_as_it_is_read() {
        for words in all() {
            let kind = read(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
            assert_eq!(CheckWords::from(&kind), words);
            assert_eq!(kind.to_string(), words.kind);
            let spec = CheckSpec::from(kind);
            let text = serde_json::to_string(&spec).expect("written");
            assert_eq!(serde_json::from_str::<CheckSpec>(&text).expect("read"), spec);
        }
    }

    #[test]
    fn what_is_none_is_refused_and_says_what_would_be_one() {
        let text = |text: &str| Some(text.to_owned());
        let http = || CheckWords::of("http:/");
        let long = format!("http:/{}", "x".repeat(1024));
        for (bad, says) in [
            (CheckWords::of("exec"), "no kind of check"),
            (CheckWords::of("exec:"), "exec_dir"),
            (CheckWords::of("exec:../bin/sh,-c"), "exec_dir"),
            (CheckWords::of("exec:/bin/sh"), "exec_dir"),
            (CheckWords::of("exec:.."), "exec_dir"),
            (CheckWords::of("exec:-x"), "exec_dir"),
            (CheckWords::of("exec:a b"), "exec_dir"),
            (CheckWords::of("exec:a,"), "no argument"),
            (CheckWords::of("exec:a,b\nc"), "no argument"),
            (CheckWords::of(&format!("exec:a{}", ",b".repeat(17))), "at most 16"),
            (CheckWords { expect: text("0"), ..CheckWords::of("exec:a") }, "no expect"),
            (CheckWords::of(""), "no kind of check"),
            (CheckWords::of("TCP"), "no kind of check"),
            (CheckWords::of("tcp:80"), "no kind of check"),
            (CheckWords::of("http"), "http:/PATH"),
            (CheckWords::of("http:ready"), "/ready"),
            (CheckWords::of("http:/a b"), "/ready"),
            (CheckWords::of("http:/a\r\nx"), "/ready"),
            (CheckWords::of(&long), "no path"),
            (CheckWords::of("dns:example.com"), "NAME/TYPE"),
            (CheckWords::of("dns:example.com/ANY"), "type of DNS record"),
            (CheckWords::of("dns:a..b/A"), "NAME/TYPE"),
            (CheckWords::of("dns:-a/A"), "NAME/TYPE"),
            (CheckWords::of("http:/a<b"), "/ready"),
            (CheckWords { host: text(":"), ..http() }, "no host"),
            (CheckWords { host: text("a:0"), ..http() }, "no host"),
            (CheckWords { sni: text("a:80"), ..CheckWords::of("https:/") }, "no sni"),
            (CheckWords { headers: vec!["X-Api-Key: b".to_owned()], ..http() }, "secret"),
            (CheckWords::of("udp:0"), "hex"),
            (CheckWords::of("udp:"), "hex"),
            (CheckWords::of("grpc:a b"), "no service"),
            (CheckWords { expect: text("200-100"), ..http() }, "no status"),
            (CheckWords { expect: text("20"), ..http() }, "no status"),
            (CheckWords { expect: text("200,"), ..http() }, "no status"),
            (CheckWords { method: text("DELETE"), ..http() }, "no method"),
            (CheckWords { host: text("a\nb"), ..http() }, "no host"),
            (CheckWords { headers: vec!["x".to_owned()], ..http() }, "NAME: VALUE"),
            (CheckWords { headers: vec!["a: b\r\nc: d".to_owned()], ..http() }, "NAME: VALUE"),
            (CheckWords { headers: vec!["Host: b".to_owned()], ..http() }, "--check-host"),
            (CheckWords { headers: vec!["Authorization: b".to_owned()], ..http() }, "secret"),
            (CheckWords { headers: vec!["a: b".to_owned(); 9], ..http() }, "at most 8"),
            (CheckWords { digest: text("00"), ..http() }, "SHA-256"),
            (CheckWords { body: text(""), ..http() }, "no body"),
            (CheckWords { body: text("a"), method: text("HEAD"), ..http() }, "HEAD"),
            (CheckWords { body: text("a"), digest: text(&"00".repeat(32)), ..http() }, "take"),
            (CheckWords { tls: text("skip"), ..http() }, "no tls"),
            (CheckWords { tls: text("trust me"), ..CheckWords::of("https:/") }, "verify, skip"),
            (CheckWords { expect: text("200"), ..CheckWords::of("tcp") }, "no expect"),
            (CheckWords { sni: text("a"), ..CheckWords::of("icmp") }, "no sni"),
        ] {
            let error = read(&bad).expect_err(&bad.kind).to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
            assert!(error.len() < 300, "{error}");
        }
    }

    #[test]
    fn statuses_are_what_they_say() {
        let CheckKind::Http(check) = read(&CheckWords {
            expect: Some("200-299,304".to_owned()),
            ..CheckWords::of("http:/")
        })
        .expect("read") else {
            panic!("by HTTP");
        };
        let contained = [199, 200, 299, 300, 303, 304, 305].map(|one| check.expect.contain(one));
        assert_eq!(contained, [false, true, true, false, false, true, false]);
    }

    #[test]
    fn each_check_is_refused_where_a_member_does_not_know_of_it() {
        let of = |kind: &str| CheckSpec::from(read(&CheckWords::of(kind)).expect("a kind"));
        let tcp = of("tcp");
        let slow_start = Duration::from_secs(1);
        let one = RealCheck::as_others([10, 0, 0, 1].into(), None);
        let timing = CheckTiming { grace: Duration::from_secs(1), ..tcp.timing };
        for (check, since) in [
            (tcp.clone(), Level::CHECKS),
            (of("icmp"), Level::KINDS),
            (of("exec:a"), Level::PROGRAMS),
            (CheckSpec { slow_start, ..tcp.clone() }, Level::PROGRAMS),
            (CheckSpec { otherwise: vec![one], ..tcp.clone() }, Level::PROGRAMS),
            (CheckSpec { timing, ..tcp }, Level::PROGRAMS),
        ] {
            assert_eq!(check.since(), since, "{check:?}");
        }
    }

    /// As the log has it: a version of later reads it, and what nobody said is not there.
    #[test]
    fn what_the_log_keeps_of_a_check() {
        let slow = CheckSpec { slow_start: Duration::from_secs(40), ..CheckKind::Tcp.into() };
        let text = serde_json::to_string(&slow).expect("written");
        assert!(text.ends_with(r#""slow_start_ms":40000}"#), "{text}");
        assert_eq!(serde_json::from_str::<CheckSpec>(&text).expect("read"), slow);
        let check = CheckSpec::from(CheckKind::Tcp);
        let text = serde_json::to_string(&check).expect("written");
        assert_eq!(
            text,
            r#"{"kind":"tcp","interval_ms":2000,"timeout_ms":1000,"rise":1,"fall":3}"#
        );
        assert_eq!(serde_json::from_str::<CheckSpec>(&text).expect("read"), check);
    }
}
