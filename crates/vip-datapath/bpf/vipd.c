// SPDX-License-Identifier: Apache-2.0
//
// What the kernel does with each packet of a VIP: the lease gate first, on both ways,
// and behind it the forwarder. A packet that passes goes on to the next program
// (TCX_NEXT, TC_ACT_UNSPEC).

#include "icmp.h"

INLINE int behind_the_gate(struct __sk_buff *skb, __u32 at, enum standing standing,
			   __u64 flags)
{
	struct packet packet = {};
	int is_icmp, odd;

	odd = skb->protocol == NET16(0x0800) ? parse4(skb, &packet, at)
					     : parse6(skb, &packet, at);
	if (odd < 0)
		return PASS;
	if (odd)
		return standing == OPEN && serves(&packet.destination) ? dropped(HEADERS) : PASS;
	is_icmp = !(packet.flags & CONTINUES) &&
		  (packet.protocol == ICMP || packet.protocol == ICMPV6);
	if (standing == OPEN)
		return is_icmp ? forward_error(skb, &packet, flags)
			       : forward(skb, &packet, flags);
	return is_icmp ? forward_error_back(skb, &packet, flags)
		       : forward_reply(skb, &packet, flags);
}

// A frame of a VLAN comes by its parent first, without its tag. It is its own device's to
// forward: from here it would leave with that tag. VID 0 is a priority alone.
INLINE int is_of_a_vlan(struct __sk_buff *skb)
{
	return skb->vlan_present && skb->vlan_tci & VID;
}

INLINE int in(struct __sk_buff *skb, __u32 at)
{
	struct address destination;
	enum standing found;
	__u64 flags;
	__u32 v4;

	switch (skb->protocol) {
	case NET16(0x0806):
		return gate_arp(skb, 0, at);
	case NET16(0x0800):
		if (load(skb, at + 16, &v4, sizeof(v4)))
			return PASS;
		mapped(&destination, v4);
		break;
	case NET16(0x86dd):
		if (load(skb, at + 24, &destination, sizeof(destination)))
			return PASS;
		break;
	default:
		return PASS;
	}
	found = standing(&destination);
	if (found == CLOSED && !takes(skb, &destination, at))
		return dropped(SHUT);
	if (skb->protocol == NET16(0x86dd) && gate_neighbour(skb, 0, at) == DROP)
		return DROP;
	if (found == CLOSED)
		return PASS;
	flags = settings();
	if (!(flags & FORWARDS) || (found == FOREIGN && !(flags & HAS_NAT)))
		return PASS;
	if (is_of_a_vlan(skb))
		return PASS;
	return behind_the_gate(skb, at, found, flags);
}

INLINE int out(struct __sk_buff *skb, __u32 at)
{
	struct packet packet = {};
	struct address source;
	enum standing found;
	__u64 flags;
	__u32 v4;

	switch (skb->protocol) {
	case NET16(0x0806):
		return gate_arp(skb, 1, at);
	case NET16(0x0800):
		if (load(skb, at + 12, &v4, sizeof(v4)))
			return PASS;
		mapped(&source, v4);
		break;
	case NET16(0x86dd):
		if (load(skb, at + 8, &source, sizeof(source)))
			return PASS;
		break;
	default:
		return PASS;
	}
	found = standing(&source);
	if (found == CLOSED && !is_served(&source))
		return dropped(SHUT);
	if (found == CLOSED && skb->protocol == NET16(0x86dd) && asks(skb, at))
		return dropped(SHUT);
	if (skb->protocol == NET16(0x86dd) && gate_neighbour(skb, 1, at) == DROP)
		return DROP;
	flags = settings();
	if (found != OPEN || !(flags & HAS_OWN_NAT) || is_of_a_vlan(skb))
		return PASS;
	if (skb->protocol == NET16(0x0800) ? parse4(skb, &packet, at) : parse6(skb, &packet, at))
		return PASS;
	return own_reply(skb, &packet, flags);
}

// For each direction, on devices with an Ethernet header and without. Two of
// each: the kernel takes a program once per hook, and to be first again after
// somebody came before it, the other one is attached before this one leaves.
#define BOTH(direction, name, at)                                                        \
	SEC("classifier") int vipd_##name##_a(struct __sk_buff *skb)                     \
	{                                                                                \
		return direction(skb, at);                                               \
	}                                                                                \
	SEC("classifier") int vipd_##name##_b(struct __sk_buff *skb)                     \
	{                                                                                \
		return direction(skb, at);                                               \
	}

BOTH(in, in, ETHERNET_LEN)
BOTH(out, out, ETHERNET_LEN)
BOTH(in, in_l3, 0)
BOTH(out, out_l3, 0)

char LICENSE[] SEC("license") = "Apache-2.0";
