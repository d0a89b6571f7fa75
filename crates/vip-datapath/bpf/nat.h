// SPDX-License-Identifier: Apache-2.0
//
// Rewriting a packet: hops, an address, a port, and the sums over them. Nothing is
// remembered of it: what is rewritten on the way back follows from the tables.

#ifndef VIPD_NAT_H
#define VIPD_NAT_H

#include "parse.h"

// Linux 6.16, and 6.12.35: with a sum over the whole packet from the hardware, an
// IPv6 address is not made up for by a header's own sum.
#define BPF_F_SUM_IPV6 (1ULL << 7)

enum side { SOURCE, DESTINATION_SIDE };

enum { TCP_SUM = 16, UDP_SUM = 6, ICMP_SUM = 2, HEADER4_SUM = 10 };

INLINE __u32 sum_of(const struct packet *packet)
{
	return packet->l4 + (packet->protocol == TCP ? TCP_SUM : UDP_SUM);
}

INLINE __u64 sum_flags(const struct packet *packet)
{
	// A sum of 0 says that there is none (RFC 768).
	return packet->protocol == UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

// One hop less. The header's sum has the hops in the upper half of a word.
INLINE int rewrite_hops(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 hops = packet->hops - 1;

	if (packet->family == INET6)
		return store(skb, packet->at + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM);
	if (replace_l3_sum(skb, packet->at + HEADER4_SUM, NET16(packet->hops << 8),
			   NET16(hops << 8), 2))
		return -1;
	return store(skb, packet->at + 8, &hops, 1, 0);
}

// The address alone, with the sum of what is behind it where `has_sum`.
INLINE int rewrite_ip(struct __sk_buff *skb, const struct packet *packet, enum side side,
		      const struct address *from, const struct address *to, int has_sum)
{
	if (packet->family == INET) {
		__u32 at = packet->at + (side == SOURCE ? 12 : 16);

		if (replace_l3_sum(skb, packet->at + HEADER4_SUM, from->word[3], to->word[3], 4))
			return -1;
		if (has_sum && replace_l4_sum(skb, sum_of(packet), from->word[3], to->word[3],
					      BPF_F_PSEUDO_HDR | 4 | sum_flags(packet)))
			return -1;
		return store(skb, at, &to->word[3], 4, 0);
	} else {
		__u32 at = packet->at + (side == SOURCE ? 8 : 24);
		__s64 by = difference(from->word, 16, to->word, 16, 0);

		if (by < 0)
			return -1;
		if (has_sum && replace_l4_sum(skb, sum_of(packet), 0, by,
					      BPF_F_PSEUDO_HDR | BPF_F_SUM_IPV6 | sum_flags(packet)))
			return -1;
		return store(skb, at, to->word, 16, 0);
	}
}

INLINE int rewrite_port(struct __sk_buff *skb, const struct packet *packet, enum side side,
			__u16 from, __u16 to)
{
	if (from == to)
		return 0;
	if (replace_l4_sum(skb, sum_of(packet), from, to, 2 | sum_flags(packet)))
		return -1;
	return store(skb, packet->l4 + (side == SOURCE ? 0 : 2), &to, 2, 0);
}

#endif
