// SPDX-License-Identifier: Apache-2.0
//
// The lease gate. Packets that claim an address, or come from or go to it,
// pass only before the address's deadline, so the kernel itself falls silent
// on time, whatever became of agent and guard.
//
//   out: ARP sender, NA target, IP source
//   in:  ARP target, NS target, IP destination
//
// Where this host is a direct-routing real server of the address, packets that a member
// sent, and those of containers behind it, are its own server's also while the gate is
// shut; it stays silent on ARP and NA. Whether the sender holds the address is no question:
// a host whose lease is over forwards nothing.
//
// An address that is not in the map is none of ours. Deadlines are
// CLOCK_BOOTTIME nanoseconds; 0 is shut. An address has one of its own, or shares
// that of a slot with all that its host answers for, so that one write renews a
// thousand.

#ifndef VIPD_GATE_H
#define VIPD_GATE_H

#include "parse.h"

enum { NS = 135, NA = 136, TARGET = 8 };

struct arp {
	__u16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__u16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

enum standing { FOREIGN, OPEN, CLOSED };

INLINE enum standing standing(const struct address *address)
{
	const struct entry *entry = lookup(&ENTRIES, address);
	const __u64 *deadline;
	__u32 slot;

	if (!entry)
		return FOREIGN;
	deadline = &entry->deadline;
	slot = entry->slot;
	if (slot)
		deadline = lookup(&SHARED, &slot);
	// A slot that is none is shut.
	return !deadline || boottime() >= *(volatile const __u64 *)deadline ? CLOSED : OPEN;
}

INLINE int shut(const struct address *address)
{
	return standing(address) == CLOSED;
}

INLINE int shut4(const void *v4)
{
	struct address address;
	__u32 word;

	__builtin_memcpy(&word, v4, 4);
	mapped(&address, word);
	return shut(&address);
}

INLINE int is_served(const struct address *address)
{
	const struct entry *entry = lookup(&ENTRIES, address);

	return entry && boottime() < *(volatile const __u64 *)&entry->served;
}

// Whether a real server on this host takes a packet for a shut address.
INLINE int takes(struct __sk_buff *skb, const struct address *address, __u32 at)
{
	__u32 ifindex = skb->ifindex;
	struct mac from = {};

	if (!is_served(address))
		return 0;
	if (lookup(&BEHIND, &ifindex))
		return 1;
	if (at != ETHERNET_LEN || load(skb, 6, &from, 6))
		return 0;
	return lookup(&MEMBERS, &from) != 0;
}

INLINE int gate_arp(struct __sk_buff *skb, int out, __u32 at)
{
	struct arp arp;

	if (load(skb, at, &arp, sizeof(arp)))
		return PASS;
	if (arp.hardware_len != 6 || arp.protocol_len != 4)
		return PASS;
	if (out)
		return shut4(arp.sender) ? dropped(SHUT) : PASS;
	// An announcement by the holder names the address as its target too; this
	// node must learn from it like any other neighbour.
	if (!__builtin_memcmp(arp.sender, arp.target, 4))
		return PASS;
	return shut4(arp.target) ? dropped(SHUT) : PASS;
}

// Of a packet whose outer address passes: one that claims another, or asks for it.
INLINE int gate_neighbour(struct __sk_buff *skb, int out, __u32 at)
{
	struct address target;
	__u8 next, type;

	if (load(skb, at + 6, &next, 1) || next != ICMPV6)
		return PASS;
	if (load(skb, at + IPV6_LEN, &type, 1) || type != (out ? NA : NS))
		return PASS;
	if (load(skb, at + IPV6_LEN + TARGET, &target, sizeof(target)))
		return PASS;
	return shut(&target) ? dropped(SHUT) : PASS;
}

// It asks in the name of a shut address, and whoever hears it would send there.
INLINE int asks(struct __sk_buff *skb, __u32 at)
{
	__u8 next, type;

	if (load(skb, at + 6, &next, 1) || next != ICMPV6)
		return 0;
	return !load(skb, at + IPV6_LEN, &type, 1) && (type == NS || type == NA);
}

#endif
