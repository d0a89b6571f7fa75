//! Where the addresses of a VIP are, as AWS says and as a token has it: one word for each.

use std::net::IpAddr;
use vip_core::CloudReply;

/// In a token: nowhere.
pub(super) const NOWHERE: &str = "none";
/// In a token: neither that nor an id.
const ODD: &str = "something-else";
const BETWEEN: &str = " ";
/// Longest that AWS gives.
const LONGEST_ID: usize = 64;

/// What is said of a VIP whose addresses are there, in their order.
pub(super) fn seen(places: &[Option<String>], own: &str) -> CloudReply {
    if places.iter().all(|place| place.as_deref() == Some(own)) {
        return CloudReply::Here;
    }
    let words: Vec<_> = places.iter().map(|p| p.as_deref().unwrap_or(NOWHERE)).collect();
    CloudReply::Elsewhere(words.join(BETWEEN))
}

/// The addresses, each with where it was.
pub(super) fn of_each(ips: Vec<IpAddr>, token: &str) -> impl Iterator<Item = (IpAddr, &str)> {
    ips.into_iter().zip(token.split(BETWEEN))
}

/// An id as AWS gives them, and nothing else that an endpoint may say: it goes to the log.
pub(super) fn plain(id: &str) -> String {
    let is_plain =
        id.len() <= LONGEST_ID && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if is_plain { id.to_owned() } else { ODD.to_owned() }
}

/// What goes elsewhere than to an id.
pub(super) fn odd() -> String {
    ODD.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_of_each_address_where_it_is() {
        let at = |id: &str| Some(id.to_owned());
        assert_eq!(seen(&[at("eni-1"), at("eni-1")], "eni-1"), CloudReply::Here);
        let CloudReply::Elsewhere(token) = seen(&[at("eni-1"), None, at("eni-2")], "eni-1") else {
            panic!("not all of it is here")
        };
        let ips: Vec<IpAddr> = (1..4).map(|last| [10, 0, 0, last].into()).collect();
        let told: Vec<_> = of_each(ips.clone(), &token).collect();
        assert_eq!(told, [(ips[0], "eni-1"), (ips[1], NOWHERE), (ips[2], "eni-2")]);
    }

    #[test]
    fn what_is_no_id_reaches_no_log() {
        assert_eq!(plain("eni-0123456789abcdef0"), "eni-0123456789abcdef0");
        for bad in ["eni 1", "eni-1\n", &"e".repeat(65)] {
            assert_eq!(plain(bad), odd());
        }
    }
}
