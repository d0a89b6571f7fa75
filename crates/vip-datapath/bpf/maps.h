// SPDX-License-Identifier: Apache-2.0
//
// What the programs read, as `layout.rs` has it. The guard is the only writer,
// but for MOVED and FRAGMENTS, which the programs fill, SPOKE, and the counters.
//
//   ENTRIES:  address -> deadline, or the slot of SHARED that has it; and whether this host
//             takes it as a real server, of whoever holds it
//   MEMBERS:  Ethernet addresses of those that may hold
//   BEHIND:   interfaces that lead to containers of this host
//   PORTS:    address, protocol, port -> service         (one port)
//   RANGES:   the same by prefixes of the port           (some in a row, all)
//   SERVICES: service -> seed and size of its tables, and which two they are
//   TABLES:   table -> for each slot a real server
//   REALS:    real server -> address, port, how to get there
//   SPOKE:    service -> when somebody last went by its table before
//   MOVED:    connections of slots that a change moved -> their real server
//   REPLIES:  a real server's address and port -> the VIP that its replies are of

#ifndef VIPD_MAPS_H
#define VIPD_MAPS_H

#include "kernel.h"

// In network order; IPv4 mapped (RFC 4291 section 2.5.5.2).
struct address {
	__u32 word[4];
};

struct entry {
	__u64 deadline; // CLOCK_BOOTTIME, ns; where the slot is 0
	__u64 slot;
	__u64 served; // until when a real server on this host takes it; 0: it does not
};

struct mac {
	__u8 byte[6];
	__u16 zero;
};

// One side of packets: where they go to, or come from. Ports in network order.
struct place {
	struct address ip;
	__u16 port;
	__u8 protocol;
	__u8 zero;
};

// The protocol before the port, so that a prefix can leave some of the port open.
struct range {
	__u32 prefix;
	struct address ip;
	__u8 zero;
	__u8 protocol;
	__u16 port;
};

enum { BY_ADDRESS = 1, NAT = 2, REMEMBERS = 4, RESETS = 8 };

// An update puts another element in its place in one step. The old one's memory may be
// another key's at once, so who reads one copies it first, and looks whose it is.
struct service {
	__u64 seed;
	__u64 settles; // until when a UDP flow that is not known goes by the table before
	__u32 table;
	__u32 before; // the same, where no table is older
	__u32 slots;
	__u32 flags;
	__u32 id;
	__u32 zero;
};

enum { LOCAL = 1 };

struct real {
	struct address ip;
	struct address hop;
	__u32 ifindex; // 0: there is no way to it
	__u16 port; // network order; 0: as the client named it
	__u16 flags;
	// Numbers are given out again: who remembers one has to mean this service's.
	__u32 service;
	__u32 zero;
};

struct reply {
	struct address vip;
	__u32 ifindex; // of the VIP
	__u32 real;
	__u16 port; // network order; 0: as the real server has it
	__u16 flags;
	__u32 zero;
};

struct flow {
	struct address client;
	__u32 service;
	__u16 port, vip_port;
};

struct fragment {
	struct address source, destination;
	__u32 id;
	__u32 protocol; // IPv6: 0, since later parts may name another (RFC 8200 section 4.5)
};

// Where the rest of a datagram goes.
enum rest {
	TO_THE_HOST, // its first part was no service's
	TO_A_REAL,
	FROM_A_REAL,
};

struct datagram {
	__u64 seen; // its first part, CLOCK_BOOTTIME, ns
	__u32 service, real;
	__u16 port; // of the real server that it is from
	__u16 rest;
	__u32 protocol;
};

struct counter {
	__u64 packets, bytes, connections, replies;
};

// Why a packet was dropped.
enum reason {
	SHUT,
	NOT_FOR_US,
	HEADERS,
	NO_FIRST,
	HOPS,
	NO_REAL,
	NO_WAY,
	NO_ETHERNET,
	NOT_WRITTEN,
	TRUNCATED,
	REASONS,
};

enum {
	ADDRESSES = 16384,
	SERVICES_MOST = 4096,
	RANGES_MOST = 131072,
	REALS_MOST = 16384,
	TABLES_MOST = 16384,
	MOVED_MOST = 65536,
	FRAGMENTS_MOST = 8192,
	OWN_MOST = 16384,
	MEMBERS_MOST = 16384,
	BEHIND_MOST = 16384,
};

// A table's slots lie in elements of 128 bytes: one each would cost four times the
// memory and seventy times as long to fill (measured).
enum { SLOTS_IN_ELEMENT = 64, SETTINGS_ONE = 0 };

struct slots {
	__u16 real[SLOTS_IN_ELEMENT];
};

// A receiver waits for the rest of a datagram for 30 s (Linux), or 60 (RFC 8200 section 4.5).
#define REST_LASTS 30000000000ULL

enum { FORWARDS = 1, HAS_NAT = 2, HAS_RANGES = 4, HAS_REPLY_RANGES = 8, HAS_OWN_NAT = 16 };

_Static_assert(sizeof(struct address) == 16, "address");
_Static_assert(sizeof(struct entry) == 24, "entry");
_Static_assert(sizeof(struct mac) == 8, "mac");
_Static_assert(__builtin_offsetof(struct entry, slot) == 8, "slot");
_Static_assert(__builtin_offsetof(struct entry, served) == 16, "served");
_Static_assert(sizeof(struct place) == 20, "place");
_Static_assert(sizeof(struct range) == 24, "range");
_Static_assert(sizeof(struct service) == 40, "service");
_Static_assert(sizeof(struct real) == 48, "real");
_Static_assert(sizeof(struct reply) == 32, "reply");
_Static_assert(sizeof(struct flow) == 24, "flow");
_Static_assert(sizeof(struct fragment) == 40, "fragment");
_Static_assert(sizeof(struct datagram) == 24, "datagram");
_Static_assert(sizeof(struct counter) == 32, "counter");
_Static_assert(sizeof(struct slots) == 128, "slots");

#define MAP(name, kind, key_type, value_type, most, how)                                 \
	struct {                                                                         \
		NUMBER(type, kind);                                                      \
		TYPE(key, key_type);                                                     \
		TYPE(value, value_type);                                                 \
		NUMBER(max_entries, most);                                               \
		NUMBER(map_flags, how);                                                  \
	} name SEC(".maps")

MAP(ENTRIES, BPF_MAP_TYPE_HASH, struct address, struct entry, ADDRESSES, 0);
MAP(MEMBERS, BPF_MAP_TYPE_HASH, struct mac, __u32, MEMBERS_MOST, BPF_F_NO_PREALLOC);
MAP(BEHIND, BPF_MAP_TYPE_HASH, __u32, __u32, BEHIND_MOST, BPF_F_NO_PREALLOC);
MAP(SHARED, BPF_MAP_TYPE_ARRAY, __u32, __u64, 16, 0);
MAP(SETTINGS, BPF_MAP_TYPE_ARRAY, __u32, __u64, 1, 0);
MAP(PORTS, BPF_MAP_TYPE_HASH, struct place, __u32, SERVICES_MOST, BPF_F_NO_PREALLOC);
MAP(RANGES, BPF_MAP_TYPE_LPM_TRIE, struct range, __u32, RANGES_MOST, BPF_F_NO_PREALLOC);
MAP(SERVICES, BPF_MAP_TYPE_HASH, __u32, struct service, SERVICES_MOST, BPF_F_NO_PREALLOC);
MAP(SPOKE, BPF_MAP_TYPE_HASH, __u32, __u64, SERVICES_MOST, BPF_F_NO_PREALLOC);
MAP(REALS, BPF_MAP_TYPE_HASH, __u32, struct real, REALS_MOST, BPF_F_NO_PREALLOC);
MAP(REPLIES, BPF_MAP_TYPE_HASH, struct place, struct reply, REALS_MOST, BPF_F_NO_PREALLOC);
MAP(REPLY_RANGES, BPF_MAP_TYPE_LPM_TRIE, struct range, struct reply, RANGES_MOST,
    BPF_F_NO_PREALLOC);
// The host's own addresses: what real servers send there is for the host itself.
MAP(OWN, BPF_MAP_TYPE_HASH, struct address, __u32, OWN_MOST, BPF_F_NO_PREALLOC);
MAP(MOVED, BPF_MAP_TYPE_LRU_HASH, struct flow, __u32, MOVED_MOST, 0);
MAP(FRAGMENTS, BPF_MAP_TYPE_LRU_HASH, struct fragment, struct datagram, FRAGMENTS_MOST, 0);
MAP(COUNTERS, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct counter, REALS_MOST, 0);
MAP(DROPPED, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, REASONS, 0);

struct table {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	TYPE(key, __u32);
	TYPE(value, struct slots);
	NUMBER(max_entries, 1);
	// Each service has its own size.
	NUMBER(map_flags, BPF_F_INNER_MAP);
};

// clang 14 leaves the type out of the object unless there is a map of it.
struct table EMPTY SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	TYPE(key, __u32);
	NUMBER(max_entries, TABLES_MOST);
	struct table *values[0];
} TABLES SEC(".maps");

INLINE int dropped(__u32 reason)
{
	__u64 *count = lookup(&DROPPED, &reason);

	if (count)
		*count += 1;
	return DROP;
}

#endif
