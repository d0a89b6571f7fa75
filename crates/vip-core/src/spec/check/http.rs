//! Checks by HTTP (RFC 9110), and by gRPC's own protocol of health, which goes over it.

use super::error::CheckKindError;
use super::tls::{Digest, Tls, digest};
use super::words::{CheckWords, hex, host, visible};
use crate::words::words;
use std::fmt;

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// RFC 9110, section 9.3.1.
    #[default]
    Get,
    /// RFC 9110, section 9.3.2.
    Head,
    /// RFC 9110, section 9.3.7.
    Options,
    /// RFC 9110, section 9.3.3; with nothing.
    Post,
}

words!(Method, "method of a check" {
    Get => "GET", Head => "HEAD", Options => "OPTIONS", Post => "POST",
});

/// The statuses of a server that is well, as ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Default for Statuses {
    fn default() -> Self {
        Self(vec![(200, 299)])
    }
}

impl Statuses {
    /// Whether this is one of them.
    #[must_use]
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    fn read(text: &str) -> Result<Self, CheckKindError> {
        let bad = || CheckKindError::bad("status", text, "some such as 200-299,304");
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let [first, last] = [first, last].map(|one| one.parse::<u16>().ok());
            let range = first.zip(last)?;
            (100 <= range.0 && range.0 <= range.1 && range.1 <= 599).then_some(range)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        let ranges = ranges.ok_or_else(bad)?;
        if ranges.len() > MAX_RANGES {
            let (what, count, most) = ("ranges of statuses", ranges.len(), MAX_RANGES);
            return Err(CheckKindError::TooMany { what, count, most });
        }
        Ok(Self(ranges))
    }
}

const MAX_RANGES: usize = 16;

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |(first, last): &(u16, u16)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        f.write_str(&self.0.iter().map(range).collect::<Vec<_>>().join(","))
    }
}

/// What a body has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// It contains this.
    Contains(String),
    /// Its SHA-256.
    Is(Digest),
}

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Lower case.
    pub name: String,
    pub value: String,
}

const MAX_HEADERS: usize = 8;
/// What stands in the names of headers that whoever reads the log could go on with.
const SECRET: [&str; 5] = ["auth", "cookie", "key", "secret", "token"];
/// The check's own.
const OWN: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "upgrade"];

impl Header {
    fn read(text: &str) -> Result<Self, CheckKindError> {
        let bad = || CheckKindError::bad("header", text, "NAME: VALUE");
        let (name, value) = text.split_once(':').ok_or_else(bad)?;
        let name = name.to_ascii_lowercase();
        let is_token = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        let name = visible("header", name, is_token, "NAME: VALUE")?;
        if SECRET.iter().any(|part| name.contains(part)) {
            return Err(CheckKindError::Secret(name));
        }
        if OWN.contains(&name.as_str()) {
            let instead = "another: that one is said by the check itself (--check-host)";
            return Err(CheckKindError::bad("header", text, instead));
        }
        let value = value.trim().to_owned();
        let value =
            visible("header", value, |letter| (' '..='~').contains(&letter), "NAME: VALUE")?;
        Ok(Self { name, value })
    }
}

/// By HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub path: String,
    pub method: Method,
    /// Whom is asked for; `None`: the real server's own address.
    pub host: Option<String>,
    pub headers: Vec<Header>,
    pub expect: Statuses,
    pub body: Option<Body>,
    /// `None`: not by TLS.
    pub tls: Option<Tls>,
}

impl HttpCheck {
    pub(super) fn take(
        path: &str,
        by_tls: bool,
        words: &mut CheckWords,
    ) -> Result<Self, CheckKindError> {
        // As RFC 3986 has it.
        let is_good = |letter: char| {
            letter.is_ascii_alphanumeric() || "-._~:/?@!$&'()*+,;=%".contains(letter)
        };
        let instead = "one such as /ready";
        let path = visible("path", path.to_owned(), is_good, instead)?;
        if !path.starts_with('/') {
            return Err(CheckKindError::bad("path", &path, instead));
        }
        let method: Option<Method> =
            words.method.take().map(|method| method.parse()).transpose()?;
        let headers = std::mem::take(&mut words.headers);
        if headers.len() > MAX_HEADERS {
            let (what, count, most) = ("headers", headers.len(), MAX_HEADERS);
            return Err(CheckKindError::TooMany { what, count, most });
        }
        let contains = words.body.take().map(|text| {
            let is_good = |letter: char| !letter.is_control();
            visible("body", text, is_good, "a text in one line").map(Body::Contains)
        });
        let is = words.digest.take().map(|text| digest("digest", &text).map(Body::Is));
        if is.is_some() && contains.is_some() {
            return Err(CheckKindError::BodyAndDigest);
        }
        let method = method.unwrap_or_default();
        let body = contains.or(is).transpose()?;
        if body.is_some() && method == Method::Head {
            return Err(CheckKindError::NoBody);
        }
        let expect = words.expect.take().map(|text| Statuses::read(&text)).transpose()?;
        Ok(Self {
            path,
            method,
            host: words.host.take().map(|name| host("host", name, true)).transpose()?,
            headers: headers.iter().map(|one| Header::read(one)).collect::<Result<_, _>>()?,
            expect: expect.unwrap_or_default(),
            body,
            tls: by_tls.then(|| Tls::take(words)).transpose()?,
        })
    }

    pub(super) fn say(&self, words: &mut CheckWords) {
        let Self { path, method, host, headers, expect, body, tls } = self;
        let scheme = if tls.is_some() { "https" } else { "http" };
        words.kind = format!("{scheme}:{path}");
        words.method = (*method != Method::Get).then(|| method.to_string());
        words.host.clone_from(host);
        let header = |header: &Header| format!("{}: {}", header.name, header.value);
        words.headers = headers.iter().map(header).collect();
        words.expect = (*expect != Statuses::default()).then(|| expect.to_string());
        match body {
            Some(Body::Contains(text)) => words.body = Some(text.clone()),
            Some(Body::Is(digest)) => words.digest = Some(hex(digest)),
            None => {}
        }
        if let Some(tls) = tls {
            tls.say(words);
        }
    }
}

/// By gRPC's own protocol of health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCheck {
    /// Empty: the server as a whole.
    pub service: String,
    /// `None`: not by TLS.
    pub tls: Option<Tls>,
}

impl GrpcCheck {
    pub(super) fn take(service: &str, words: &mut CheckWords) -> Result<Self, CheckKindError> {
        let service = if service.is_empty() {
            String::new()
        } else {
            let is_good = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
            visible("service", service.to_owned(), is_good, "one such as api.v1.Shop")?
        };
        let by_tls = words.tls.is_some() || words.sni.is_some();
        Ok(Self { service, tls: by_tls.then(|| Tls::take(words)).transpose()? })
    }

    pub(super) fn say(&self, words: &mut CheckWords) {
        let Self { service, tls } = self;
        words.kind = if service.is_empty() { "grpc".to_owned() } else { format!("grpc:{service}") };
        if let Some(tls) = tls {
            tls.say(words);
            // A word of it says that there is TLS at all.
            words.tls = Some(tls.trust.to_string());
        }
    }
}
