//! Checks by what goes in single datagrams: DNS (RFC 1035), and UDP of any sort.

use super::error::CheckKindError;
use super::words::{CheckWords, bytes, hex, is_name, visible};
use crate::words::words;

/// What is asked for of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    /// An IPv4 address (RFC 1035).
    A,
    /// An IPv6 address (RFC 3596).
    Aaaa,
    /// Another name.
    Cname,
    /// Who takes mail.
    Mx,
    /// Who knows of it.
    Ns,
    /// The name of an address.
    Ptr,
    /// Where a zone begins.
    Soa,
    /// Where a service is (RFC 2782).
    Srv,
    /// A text.
    Txt,
}

words!(RecordType, "type of DNS record of a check" {
    A => "A", Aaaa => "AAAA", Cname => "CNAME", Mx => "MX", Ns => "NS", Ptr => "PTR",
    Soa => "SOA", Srv => "SRV", Txt => "TXT",
});

/// A question to a server of names, by UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCheck {
    pub name: String,
    pub record: RecordType,
    /// One of the answers has to be this; `None`: there has to be one.
    pub expect: Option<String>,
}

impl DnsCheck {
    pub(super) fn take(text: &str, words: &mut CheckWords) -> Result<Self, CheckKindError> {
        let instead = "NAME/TYPE, such as example.com/A";
        let bad = || CheckKindError::bad("question", text, instead);
        let (name, record) = text.rsplit_once('/').ok_or_else(bad)?;
        if !is_name(name) {
            return Err(bad());
        }
        let expect = words.expect.take().map(|answer| {
            visible("answer", answer, |letter| !letter.is_control(), "what stands in the record")
        });
        Ok(Self {
            name: name.to_ascii_lowercase(),
            record: record.to_ascii_uppercase().parse()?,
            expect: expect.transpose()?,
        })
    }

    pub(super) fn say(&self, words: &mut CheckWords) {
        words.kind = format!("dns:{}/{}", self.name, self.record);
        words.expect.clone_from(&self.expect);
    }
}

/// What has to come back by UDP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// Something.
    #[default]
    Any,
    /// Something that begins so.
    Begins(Vec<u8>),
    /// Nothing has to: who is there and says nothing is well, and who is not is told of by
    /// his host (ICMP). A host that is gone is not noticed.
    None,
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpCheck {
    pub sends: Vec<u8>,
    pub expect: Reply,
}

impl UdpCheck {
    pub(super) fn take(text: &str, words: &mut CheckWords) -> Result<Self, CheckKindError> {
        let expect = match words.expect.take().as_deref() {
            None | Some("any") => Reply::Any,
            Some("none") => Reply::None,
            Some(text) => Reply::Begins(bytes("reply", text)?),
        };
        Ok(Self { sends: bytes("datagram", text)?, expect })
    }

    pub(super) fn say(&self, words: &mut CheckWords) {
        words.kind = format!("udp:{}", hex(&self.sends));
        words.expect = match &self.expect {
            Reply::Any => None,
            Reply::None => Some("none".to_owned()),
            Reply::Begins(bytes) => Some(hex(bytes)),
        };
    }
}
