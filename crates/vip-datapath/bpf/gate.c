// SPDX-License-Identifier: Apache-2.0
//
// The lease gate. Packets that claim an address, or come from or go to it,
// pass only before the address's deadline, so the kernel itself falls silent
// on time, whatever became of agent and guard. A packet that passes goes on to
// the next program (TCX_NEXT, TC_ACT_UNSPEC).
//
//   out: ARP sender, NA target, IP source
//   in:  ARP target, NS target, IP destination
//
// An address that is not in the map is none of ours. Deadlines are
// CLOCK_BOOTTIME nanoseconds; 0 is shut. An address has one of its own, or shares
// that of a slot with all that its host answers for, so that one write renews a
// thousand:
//
//   ENTRIES: address -> {deadline, slot 0}  or  {-, slot} -> SHARED: deadline

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

static void *(*lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*boottime)(void) = (void *)BPF_FUNC_ktime_get_boot_ns;
static long (*load)(const void *skb, __u32 offset, void *to, __u32 len) =
	(void *)BPF_FUNC_skb_load_bytes;

struct map_def {
	__u32 type, key_size, value_size, max_entries, flags;
};

struct address {
	__u32 word[4];
};

// As `layout.rs` has it.
struct entry {
	__u64 deadline; // where the slot is 0
	__u64 slot;
};

// IPv4 addresses are kept IPv4-mapped (RFC 4291 section 2.5.5.2).
SEC("maps") struct map_def ENTRIES = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = sizeof(struct address),
	.value_size = sizeof(struct entry),
	.max_entries = 16384,
};

SEC("maps") struct map_def SHARED = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 16,
};

_Static_assert(sizeof(struct address) == 16, "the key");
_Static_assert(sizeof(struct entry) == 16, "the value");
_Static_assert(__builtin_offsetof(struct entry, slot) == 8, "the slot");

#define NET16(x) __builtin_bswap16(x)
#define NET32(x) __builtin_bswap32(x)

enum { PASS = -1, DROP = 2 };
enum { ETHERNET_LEN = 14, IPV6_LEN = 40, ICMPV6 = 58, NS = 135, NA = 136, TARGET = 8 };

struct arp {
	__u16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__u16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

INLINE int shut(const struct address *address)
{
	const struct entry *entry = lookup(&ENTRIES, address);
	const __u64 *deadline;
	__u32 slot;

	if (!entry)
		return 0;
	deadline = &entry->deadline;
	slot = entry->slot;
	if (slot)
		deadline = lookup(&SHARED, &slot);
	// A slot that is none is shut.
	return !deadline || boottime() >= *(volatile const __u64 *)deadline;
}

INLINE int shut_v4(const void *v4)
{
	struct address address;

	address.word[0] = 0;
	address.word[1] = 0;
	address.word[2] = NET32(0xffff);
	__builtin_memcpy(&address.word[3], v4, 4);
	return shut(&address);
}

INLINE int arp(struct __sk_buff *skb, int out, __u32 at)
{
	struct arp arp;

	if (load(skb, at, &arp, sizeof(arp)))
		return PASS;
	if (arp.hardware_len != 6 || arp.protocol_len != 4)
		return PASS;
	if (out)
		return shut_v4(arp.sender) ? DROP : PASS;
	// An announcement by the holder names the address as its target too; this
	// node must learn from it like any other neighbour.
	if (!__builtin_memcmp(arp.sender, arp.target, 4))
		return PASS;
	return shut_v4(arp.target) ? DROP : PASS;
}

INLINE int v4(struct __sk_buff *skb, int out, __u32 at)
{
	__u32 address;

	if (load(skb, at + (out ? 12 : 16), &address, sizeof(address)))
		return PASS;
	return shut_v4(&address) ? DROP : PASS;
}

INLINE int v6(struct __sk_buff *skb, int out, __u32 at)
{
	struct address address;
	__u8 next, type;

	if (load(skb, at + (out ? 8 : 24), &address, sizeof(address)))
		return PASS;
	if (shut(&address))
		return DROP;
	if (load(skb, at + 6, &next, 1) || next != ICMPV6)
		return PASS;
	if (load(skb, at + IPV6_LEN, &type, 1) || type != (out ? NA : NS))
		return PASS;
	if (load(skb, at + IPV6_LEN + TARGET, &address, sizeof(address)))
		return PASS;
	return shut(&address) ? DROP : PASS;
}

INLINE int gate(struct __sk_buff *skb, int out, __u32 at)
{
	switch (skb->protocol) {
	case NET16(0x0806):
		return arp(skb, out, at);
	case NET16(0x0800):
		return v4(skb, out, at);
	case NET16(0x86dd):
		return v6(skb, out, at);
	}
	return PASS;
}

// For each direction, on devices with an Ethernet header and without. Two of
// each: the kernel takes a program once per hook, and to be first again after
// somebody came before it, the other one is attached before this one leaves.
#define GATE(name, out, at)                                                              \
	SEC("classifier") int vipd_##name##_a(struct __sk_buff *skb) { return gate(skb, out, at); } \
	SEC("classifier") int vipd_##name##_b(struct __sk_buff *skb) { return gate(skb, out, at); }

GATE(in, 0, ETHERNET_LEN)
GATE(out, 1, ETHERNET_LEN)
GATE(in_l3, 0, 0)
GATE(out_l3, 1, 0)

char LICENSE[] SEC("license") = "Apache-2.0";
