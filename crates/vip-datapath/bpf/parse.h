// SPDX-License-Identifier: Apache-2.0
//
// What a packet is: where from, where to, and whether it is whole.

#ifndef VIPD_PARSE_H
#define VIPD_PARSE_H

#include "maps.h"

enum { ETHERNET_LEN = 14, IPV6_LEN = 40 };
enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58 };
enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION = 60 };
// So many are parsed; more are not forwarded.
enum { EXTENSIONS = 4 };

enum { MORE_FRAGMENTS = 0x2000, FRAGMENT_OFFSET = 0x1fff };
enum { TCP_FLAGS_AT = 13, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

struct header4 {
	__u8 version_len, service;
	__u16 len, id, fragment;
	__u8 hops, protocol;
	__u16 sum;
	__u32 source, destination;
};

struct header6 {
	__u32 version_flow;
	__u16 len;
	__u8 next, hops;
	struct address source, destination;
};

enum { BEGINS = 1, CONTINUES = 2, OPENS = 4 };

struct packet {
	struct address source, destination;
	__u32 at, l4; // where its headers begin
	__u32 id;
	__u16 source_port, destination_port;
	__u8 family, protocol, hops, flags;
};

INLINE void mapped(struct address *to, __u32 v4)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = NET32(0xffff);
	to->word[3] = v4;
}

INLINE int same(const struct address *one, const struct address *other)
{
	return one->word[0] == other->word[0] && one->word[1] == other->word[1] &&
	       one->word[2] == other->word[2] && one->word[3] == other->word[3];
}

INLINE int parse4(struct __sk_buff *skb, struct packet *packet, __u32 at)
{
	struct header4 header = {};
	__u32 len;
	__u16 fragment;

	if (load(skb, at, &header, sizeof(header)))
		return -1;
	len = (header.version_len & 15) * 4;
	if (header.version_len >> 4 != 4 || len < sizeof(header))
		return -1;
	mapped(&packet->source, header.source);
	mapped(&packet->destination, header.destination);
	packet->family = INET;
	packet->protocol = header.protocol;
	packet->hops = header.hops;
	packet->id = header.id;
	packet->at = at;
	packet->l4 = at + len;
	fragment = NET16(header.fragment);
	if (fragment & FRAGMENT_OFFSET)
		packet->flags |= CONTINUES;
	else if (fragment & MORE_FRAGMENTS)
		packet->flags |= BEGINS;
	return 0;
}

// -1: no packet; 1: more extension headers than are parsed.
INLINE int parse6(struct __sk_buff *skb, struct packet *packet, __u32 at)
{
	struct header6 header = {};
	struct {
		__u8 next, len;
		__u16 fragment;
		__u32 id;
	} extension = {};
	__u32 l4 = at + IPV6_LEN;
	__u8 next;
	int i;

	if (load(skb, at, &header, sizeof(header)))
		return -1;
	packet->source = header.source;
	packet->destination = header.destination;
	packet->family = INET6;
	packet->hops = header.hops;
	packet->at = at;
	next = header.next;
#pragma unroll
	for (i = 0; i < EXTENSIONS; i++) {
		if (next != HOP_BY_HOP && next != ROUTING && next != FRAGMENT &&
		    next != DESTINATION)
			break;
		if (load(skb, l4, &extension, sizeof(extension)))
			return -1;
		if (next == FRAGMENT) {
			__u16 fragment = NET16(extension.fragment);

			packet->id = extension.id;
			l4 += 8;
			if (fragment >> 3) {
				packet->flags |= CONTINUES;
				next = extension.next;
				break;
			}
			// With nothing to follow it is whole (RFC 6946).
			if (fragment & 1)
				packet->flags |= BEGINS;
		} else {
			l4 += (extension.len + 1) * 8;
		}
		next = extension.next;
	}
	packet->protocol = next;
	packet->l4 = l4;
	return !(packet->flags & CONTINUES) && (next == HOP_BY_HOP || next == ROUTING ||
						next == FRAGMENT || next == DESTINATION);
}

INLINE int has_ports(const struct packet *packet)
{
	return packet->protocol == TCP || packet->protocol == UDP;
}

// The ports, of a packet that has them and is not the rest of another.
INLINE int parse_ports(struct __sk_buff *skb, struct packet *packet)
{
	__u16 ports[2] = {};
	__u8 flags = 0;

	if (load(skb, packet->l4, ports, sizeof(ports)))
		return -1;
	packet->source_port = ports[0];
	packet->destination_port = ports[1];
	if (packet->protocol != TCP)
		return 0;
	if (load(skb, packet->l4 + TCP_FLAGS_AT, &flags, 1))
		return -1;
	if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		packet->flags |= OPENS;
	return 0;
}

#endif
