// SPDX-License-Identifier: Apache-2.0
//
// Errors about packets of virtual servers. Each quotes the packet that it is about,
// and by that finds its way.
//
//   to the VIP, about what a real server sent      -> that real server
//   about what the holder sent to a real server    -> the client, as about the VIP
//
// What is quoted is rewritten as the packet was. Its own L4 sum is left alone: nobody
// can check it, since most of what it covers is not quoted.

#ifndef VIPD_ICMP_H
#define VIPD_ICMP_H

#include "forward.h"

enum { QUOTED_AT = 8, UNREACHABLE = 3, TIME_EXCEEDED = 11, PARAMETER = 12, V6_ERRORS = 4 };

INLINE int is_error(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 type = 0;

	if (packet->flags & CONTINUES || load(skb, packet->l4, &type, 1))
		return 0;
	if (packet->protocol == ICMP && packet->family == INET)
		return type == UNREACHABLE || type == TIME_EXCEEDED || type == PARAMETER;
	return packet->protocol == ICMPV6 && packet->family == INET6 && type >= 1 &&
	       type <= V6_ERRORS;
}

// What an error is about, with its ports. Eight bytes of it are there at least
// (RFC 792), and none of more is read.
INLINE int parse_quoted(struct __sk_buff *skb, const struct packet *packet,
			struct packet *quoted)
{
	__u32 at = packet->l4 + QUOTED_AT;
	__u16 ports[2] = {};

	if (packet->family == INET ? parse4(skb, quoted, at) : parse6(skb, quoted, at))
		return -1;
	if (!has_ports(quoted) || quoted->flags & CONTINUES ||
	    load(skb, quoted->l4, ports, sizeof(ports)))
		return -1;
	quoted->source_port = ports[0];
	quoted->destination_port = ports[1];
	return 0;
}

INLINE int replace_icmp_sum(struct __sk_buff *skb, const struct packet *packet, __u64 from,
			    __u64 to, __u64 flags)
{
	return replace_l4_sum(skb, packet->l4 + ICMP_SUM, from, to, flags);
}

// The quoted address and port. An IPv4 header's own sum makes up for its address, so
// that the port alone counts for the error's.
INLINE int rewrite_quoted(struct __sk_buff *skb, const struct packet *packet,
			  const struct packet *quoted, enum side side,
			  const struct address *to, __u16 port)
{
	__u16 was = side == SOURCE ? quoted->source_port : quoted->destination_port;
	const struct address *from = side == SOURCE ? &quoted->source : &quoted->destination;

	if (was != port) {
		if (replace_icmp_sum(skb, packet, was, port, 2) ||
		    store(skb, quoted->l4 + (side == SOURCE ? 0 : 2), &port, 2, 0))
			return -1;
	}
	if (packet->family == INET6) {
		__s64 by = difference(from->word, 16, to->word, 16, 0);

		if (by < 0 || replace_icmp_sum(skb, packet, 0, by, 0))
			return -1;
	}
	return rewrite_ip(skb, quoted, side, from, to, 0);
}

// The outer address. ICMPv6 counts it (RFC 4443 section 2.3), ICMP does not.
INLINE int rewrite_outer(struct __sk_buff *skb, const struct packet *packet, enum side side,
			 const struct address *to)
{
	const struct address *from = side == SOURCE ? &packet->source : &packet->destination;

	if (packet->family == INET6) {
		__s64 by = difference(from->word, 16, to->word, 16, 0);

		if (by < 0 || replace_icmp_sum(skb, packet, 0, by,
					       BPF_F_PSEUDO_HDR | BPF_F_SUM_IPV6))
			return -1;
	}
	return rewrite_ip(skb, packet, side, from, to, 0);
}

// An error to a VIP that answers here.
INLINE int forward_error(struct __sk_buff *skb, struct packet *packet, __u64 flags)
{
	struct packet quoted = {};
	struct service service;
	struct real real;
	const __u32 *id;
	__u32 index;
	__u16 port;

	if (!is_error(skb, packet) || parse_quoted(skb, packet, &quoted) ||
	    !same(&quoted.source, &packet->destination))
		return PASS;
	id = service_at(&quoted.source, quoted.protocol, quoted.source_port, flags);
	if (!id || !*id)
		return PASS;
	if (service_of(*id, &service))
		return dropped(NO_REAL);
	if (skb->pkt_type != TO_THIS_HOST)
		return dropped(NOT_FOR_US);
	index = choose(&service, &quoted, &quoted.destination, quoted.destination_port,
		       quoted.source_port, 0);
	if (real_of(index, service.id, &real))
		return dropped(NO_REAL);
	port = real.port ? real.port : quoted.source_port;
	if (real.flags & LOCAL) {
		if (service.flags & NAT &&
		    rewrite_quoted(skb, packet, &quoted, SOURCE, &quoted.source, port))
			return dropped(NOT_WRITTEN);
		return PASS;
	}
	if (goes_on(skb, packet, real.ifindex) == DROP)
		return DROP;
	if (service.flags & NAT &&
	    (rewrite_quoted(skb, packet, &quoted, SOURCE, &real.ip, port) ||
	     rewrite_outer(skb, packet, DESTINATION_SIDE, &real.ip)))
		return dropped(NOT_WRITTEN);
	return deliver(&real, packet);
}

// An error to anywhere else, where some real server is behind NAT.
INLINE int forward_error_back(struct __sk_buff *skb, struct packet *packet, __u64 flags)
{
	struct packet quoted = {};
	const struct reply *reply;
	struct address vip;
	__u32 ifindex;
	__u16 port;

	if (!is_error(skb, packet) || parse_quoted(skb, packet, &quoted) ||
	    !same(&quoted.source, &packet->destination))
		return PASS;
	reply = reply_from(&quoted.destination, quoted.protocol, quoted.destination_port, flags);
	if (!reply || reply->flags & LOCAL || standing(&reply->vip) != OPEN)
		return PASS;
	if (skb->pkt_type != TO_THIS_HOST || lookup(&OWN, &packet->destination))
		return PASS;
	vip = reply->vip;
	ifindex = reply->ifindex;
	port = reply->port ? reply->port : quoted.destination_port;
	if (goes_on(skb, packet, ifindex) == DROP)
		return DROP;
	if (rewrite_quoted(skb, packet, &quoted, DESTINATION_SIDE, &vip, port))
		return dropped(NOT_WRITTEN);
	// A router's address stays its own.
	if (same(&packet->source, &quoted.destination) &&
	    rewrite_outer(skb, packet, SOURCE, &vip))
		return dropped(NOT_WRITTEN);
	return redirect_neigh(ifindex, 0, 0, 0);
}

#endif
