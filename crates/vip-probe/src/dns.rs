//! Whether a server of names answers (RFC 1035), by UDP.

use crate::udp;
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::net::SocketAddr;
use vip_core::{DnsCheck, Failure};

pub(crate) async fn probe(at: SocketAddr, check: &DnsCheck) -> Result<(), Failure> {
    let here = |error: &dyn std::error::Error| Failure::Here(error.to_string());
    let mut name = Name::from_ascii(&check.name).map_err(|e| here(&e))?;
    name.set_fqdn(true);
    let record: RecordType = check
        .record
        .as_str()
        .parse()
        .map_err(|_| Failure::Here(format!("no type of DNS record {}", check.record)))?;
    let mut question = Message::query();
    question.metadata.id = fastrand::u16(..);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, record));
    let sent = question.to_vec().map_err(|e| here(&e))?;
    let socket = udp::connected(at).await?;
    udp::send(&socket, &sent).await?;
    loop {
        let reply = udp::receive(&socket).await?;
        // What belongs to no question of ours is somebody else's.
        let Ok(reply) = Message::from_vec(&reply) else { continue };
        let is_ours = reply.metadata.id == question.metadata.id
            && reply.metadata.message_type == MessageType::Response;
        if is_ours {
            return judge(&reply, record, check);
        }
    }
}

fn judge(reply: &Message, record: RecordType, check: &DnsCheck) -> Result<(), Failure> {
    let no = |why: String| Err(Failure::There(why));
    let DnsCheck { name, record: wanted, expect } = check;
    let code = reply.metadata.response_code;
    if code != ResponseCode::NoError {
        return no(format!("it answers {code} for {name}"));
    }
    let answers = reply.answers.iter().filter(|answer| answer.record_type() == record);
    let answers: Vec<_> = answers.map(|answer| answer.data.to_string()).collect();
    let Some(first) = answers.first() else {
        return no(format!("it has no {wanted} for {name}"));
    };
    match expect {
        Some(expect) if !answers.iter().any(|answer| is_same(record, answer, expect)) => {
            no(format!("{first} for {name}, expected {expect}"))
        }
        _ => Ok(()),
    }
}

/// Names are the same in any case, and with or without a dot at their end. Texts are no names.
fn is_same(record: RecordType, answer: &str, expect: &str) -> bool {
    if record == RecordType::TXT {
        return answer.trim_matches('"') == expect;
    }
    let bare = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
    bare(answer) == bare(expect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LONG, said, text};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{RData, Record};
    use tokio::net::UdpSocket;
    use vip_core::CheckWords;

    /// Knows one name, and answers first what nobody asked.
    async fn server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let at = socket.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..len]).expect("a question");
                let mut reply = question.clone().into_response();
                reply.metadata.id = question.metadata.id.wrapping_add(1);
                let stray = reply.to_vec().expect("a message");
                socket.send_to(&stray, from).await.expect("sent");
                reply.metadata.id = question.metadata.id;
                let name = question.queries[0].name().clone();
                if name.to_string() == "shop.example." {
                    let data = RData::A(A::new(192, 0, 2, 7));
                    reply.add_answer(Record::from_rdata(name, 60, data));
                } else {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                }
                let reply = reply.to_vec().expect("a message");
                socket.send_to(&reply, from).await.expect("sent");
            }
        });
        at
    }

    #[tokio::test]
    async fn a_name_has_the_record_that_is_wanted() {
        let at = server().await;
        let ask = |kind: &str, expect: Option<String>| {
            said(at, CheckWords { expect, ..CheckWords::of(kind) }, LONG)
        };
        assert_eq!(ask("dns:shop.example/A", None).await, None);
        assert_eq!(ask("dns:Shop.Example./A", text("192.0.2.7")).await, None);
        let other = ask("dns:shop.example/A", text("192.0.2.8")).await;
        assert_eq!(other.as_deref(), Some("192.0.2.7 for shop.example, expected 192.0.2.8"));
        let none = ask("dns:shop.example/AAAA", None).await;
        assert_eq!(none.as_deref(), Some("it has no AAAA for shop.example"));
        let unknown = ask("dns:nobody.example/A", None).await.expect("not well");
        assert!(unknown.ends_with("for nobody.example"), "{unknown}");
    }
}
