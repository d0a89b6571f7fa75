//! A route to a VIP, as it is announced.

use super::api::{
    CommunitiesAttribute, ExtendedCommunitiesAttribute, Family, IpAddressPrefix,
    MpReachNlriAttribute, MultiExitDiscAttribute, NextHopAttribute, OriginAttribute, Path,
    UnknownExtended, family,
};
use prost::Name;
use prost_types::Any;
use std::net::IpAddr;

/// What says of a route that it is of ours, in every speaker: an extended community of a kind
/// for experiments that stays within the autonomous system (RFC 4360, section 2 and 7), and
/// the rest of its eight octets.
const MARK: (u32, &[u8; 7]) = (0xc0, b"vipd.io");
/// It comes from within the autonomous system (RFC 4271, section 5.1.1).
const ORIGIN_IGP: u32 = 0;

/// A route of ours that a speaker has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) rank: u64,
    pub(super) path: Path,
}

/// A rank as it can be announced.
pub(super) fn announced(rank: u64) -> u64 {
    rank.min(u32::MAX.into())
}

/// A later announcement has a lower one, which routers prefer (RFC 4271, section 9.1.2.2 c).
fn med(rank: u64) -> u32 {
    u32::MAX - u32::try_from(rank).unwrap_or(u32::MAX)
}

/// The address of a prefix that has no other.
pub(super) fn address(prefix: &str) -> Option<IpAddr> {
    let (ip, bits) = prefix.split_once('/')?;
    let ip = ip.parse().ok()?;
    (bits.parse() == Ok(length(ip))).then_some(ip)
}

pub(super) fn family(ip: IpAddr) -> Family {
    let afi = if ip.is_ipv4() { family::Afi::Ip } else { family::Afi::Ip6 };
    Family { afi: afi.into(), safi: family::Safi::Unicast.into() }
}

pub(super) fn prefix(ip: IpAddr) -> String {
    format!("{ip}/{}", length(ip))
}

const fn length(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The route to an address. `next_hop`: `None` is the address that each session has.
pub(super) fn to(
    ip: IpAddr,
    rank: u64,
    community: Option<u32>,
    next_hop: Option<IpAddr>,
) -> Option<Path> {
    let unspecified = if ip.is_ipv4() { "0.0.0.0" } else { "::" };
    let next_hop = next_hop.map_or_else(|| unspecified.to_owned(), |ip| ip.to_string());
    let nlri = any(&IpAddressPrefix { prefix_len: length(ip), prefix: ip.to_string() })?;
    let leads = if ip.is_ipv4() {
        any(&NextHopAttribute { next_hop })
    } else {
        let (family, nlris) = (Some(family(ip)), vec![nlri.clone()]);
        any(&MpReachNlriAttribute { family, next_hops: vec![next_hop], nlris })
    };
    let mark = any(&UnknownExtended { r#type: MARK.0, value: MARK.1.to_vec() })?;
    let mut pattrs = vec![
        any(&OriginAttribute { origin: ORIGIN_IGP })?,
        leads?,
        any(&MultiExitDiscAttribute { med: med(rank) })?,
        any(&ExtendedCommunitiesAttribute { communities: vec![mark] })?,
    ];
    let communities = community.map(|community| vec![community]);
    pattrs.extend(communities.and_then(|communities| any(&CommunitiesAttribute { communities })));
    Some(Path { nlri: Some(nlri), pattrs, family: Some(family(ip)), neighbor_ip: String::new() })
}

/// What a speaker has, if it is of ours and of this host.
pub(super) fn known(path: &Path) -> Option<Known> {
    let marked = |all: ExtendedCommunitiesAttribute| {
        let mut each = all.communities.iter().filter_map(read::<UnknownExtended>);
        each.any(|one| one.r#type == MARK.0 && one.value == MARK.1)
    };
    let is_ours = path.pattrs.iter().filter_map(read).any(marked);
    // Another node's, that a neighbour passed on.
    let was_heard = path.neighbor_ip.parse::<IpAddr>().is_ok();
    if !is_ours || was_heard {
        return None;
    }
    let MultiExitDiscAttribute { med } = path.pattrs.iter().find_map(read)?;
    Some(Known { rank: u64::from(u32::MAX - med), path: path.clone() })
}

fn any<M: Name>(message: &M) -> Option<Any> {
    Any::from_msg(message).ok()
}

fn read<M: Name + Default>(any: &Any) -> Option<M> {
    any.to_msg().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_announcement_is_preferred_for_as_long_as_there_are_numbers() {
        let meds: Vec<_> = [0, 1, 2, u64::from(u32::MAX), u64::MAX].map(med).into();
        assert_eq!(meds, [u32::MAX, u32::MAX - 1, u32::MAX - 2, 0, 0]);
    }

    #[test]
    fn what_is_announced_is_known_again_and_nothing_else_is() {
        for ip in ["192.0.2.10", "2001:db8::10"] {
            let ip: IpAddr = ip.parse().expect("an address");
            let mut path = to(ip, 7, Some(0xfde8_000a), None).expect("a route");
            for nobody in ["", "<nil>", "invalid IP"] {
                path.neighbor_ip = nobody.to_owned();
                assert_eq!(known(&path), Some(Known { rank: 7, path: path.clone() }));
            }
            path.neighbor_ip = "192.0.2.1".to_owned();
            assert_eq!(known(&path), None, "it came from a neighbour");
            path.neighbor_ip.clear();
            path.pattrs.retain(|one| read::<ExtendedCommunitiesAttribute>(one).is_none());
            assert_eq!(known(&path), None, "somebody else's");
        }
    }
}
