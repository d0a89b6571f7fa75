// SPDX-License-Identifier: Apache-2.0
//
// The end of a connection that nobody has any more: what comes for it is answered with a
// reset, as the VIP's.

#ifndef VIPD_RESET_H
#define VIPD_RESET_H

#include "nat.h"

enum { TCP_LEN = 20, TCP_WORDS = 5 << 4, FRESH_HOPS = 64 };

struct segment {
	__u16 source, destination;
	__u32 sequence, acknowledges;
	__u8 words, flags;
	__u16 window, sum, urgent;
};

_Static_assert(sizeof(struct segment) == TCP_LEN, "segment");

// RFC 9293 section 3.1; in the sum an IPv4 address counts as much as its mapped one.
struct pseudo {
	struct address source, destination;
	__u32 len, protocol;
};

INLINE __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

// The Ethernet header, which every packet here has.
INLINE int exchange_macs(struct __sk_buff *skb)
{
	struct mac to, from;

	return load(skb, 0, &to, 6) || load(skb, 6, &from, 6) || store(skb, 0, &from, 6, 0) ||
	       store(skb, 6, &to, 6, 0);
}

// The IP header, back to where the packet came from, with no more than a segment behind it.
INLINE int turn_round(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 at = packet->at, headers = packet->l4 - at;
	__u8 hops = FRESH_HOPS;
	__u16 len, was = 0;

	if (packet->family == INET6) {
		len = NET16(headers - IPV6_LEN + TCP_LEN);
		return store(skb, at + 4, &len, 2, 0) || store(skb, at + 7, &hops, 1, 0) ||
		       store(skb, at + 8, &packet->destination, 16, 0) ||
		       store(skb, at + 24, &packet->source, 16, 0);
	}
	len = NET16(headers + TCP_LEN);
	return load(skb, at + 2, &was, 2) ||
	       replace_l3_sum(skb, at + HEADER4_SUM, was, len, 2) ||
	       store(skb, at + 2, &len, 2, 0) ||
	       replace_l3_sum(skb, at + HEADER4_SUM, NET16(packet->hops << 8),
			      NET16(hops << 8), 2) ||
	       store(skb, at + 8, &hops, 1, 0) ||
	       store(skb, at + 12, &packet->destination.word[3], 4, 0) ||
	       store(skb, at + 16, &packet->source.word[3], 4, 0);
}

// Of a segment that neither opens a connection nor is a reset itself (RFC 9293 section
// 3.10.7.1).
INLINE int reset(struct __sk_buff *skb, const struct packet *packet)
{
	struct pseudo pseudo = {
		.source = packet->destination,
		.destination = packet->source,
		.len = NET32(TCP_LEN),
		.protocol = NET32(TCP),
	};
	struct segment was = {}, reset = {};
	__s64 ahead, whole;

	if (packet->flags & BEGINS || load(skb, packet->l4, &was, sizeof(was)) ||
	    was.flags & TCP_RST || !(was.flags & TCP_ACK))
		return dropped(NO_REAL);
	if (!packet->at)
		return dropped(NO_ETHERNET);
	reset.source = was.destination;
	reset.destination = was.source;
	reset.sequence = was.acknowledges;
	reset.words = TCP_WORDS;
	reset.flags = TCP_RST;
	ahead = difference(0, 0, (const void *)&pseudo, sizeof(pseudo), 0);
	whole = difference(0, 0, (const void *)&reset, sizeof(reset), ahead);
	if (ahead < 0 || whole < 0)
		return dropped(NOT_WRITTEN);
	// Where the sum is left to a device it is that of the pseudo header alone; elsewhere
	// the rest is added, which the kernel knows to leave out there.
	reset.sum = fold(ahead);
	if (change_tail(skb, packet->l4 + TCP_LEN, 0) || exchange_macs(skb) ||
	    turn_round(skb, packet) ||
	    store(skb, packet->l4, &reset, sizeof(reset), 0) ||
	    replace_l4_sum(skb, packet->l4 + TCP_SUM, 0, fold(ahead) + fold(whole), 0))
		return dropped(NOT_WRITTEN);
	// The way it came: a route could lead elsewhere, and ask for neighbours that are none.
	return redirect(skb->ifindex, 0);
}

#endif
