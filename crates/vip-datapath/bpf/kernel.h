// SPDX-License-Identifier: Apache-2.0
//
// What the programs use of the kernel: helpers by their stable numbers, none of
// them under the GPL alone, and how maps are declared.

#ifndef VIPD_KERNEL_H
#define VIPD_KERNEL_H

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// A map's parts, as its type information has them.
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, type) __typeof__(type) *name

static void *(*lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*update)(void *map, const void *key, const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;
static __u64 (*boottime)(void) = (void *)BPF_FUNC_ktime_get_boot_ns;
static long (*load)(const void *skb, __u32 offset, void *to, __u32 len) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*store)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len,
		     __u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*replace_l3_sum)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
			      __u64 flags) = (void *)BPF_FUNC_l3_csum_replace;
static long (*replace_l4_sum)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
			      __u64 flags) = (void *)BPF_FUNC_l4_csum_replace;
static __s64 (*difference)(const void *from, __u32 from_size, const void *to, __u32 to_size,
			   __u32 seed) = (void *)BPF_FUNC_csum_diff;
static long (*change_tail)(struct __sk_buff *skb, __u32 len, __u64 flags) =
	(void *)BPF_FUNC_skb_change_tail;
static long (*redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *hop, int len, __u64 flags) =
	(void *)BPF_FUNC_redirect_neigh;

#define NET16(x) __builtin_bswap16(x)
#define NET32(x) __builtin_bswap32(x)

// PASS goes on to the next program.
enum verdict { PASS = -1, DROP = 2 };

// `pkt_type` of a frame whose Ethernet address is this host's.
enum { TO_THIS_HOST = 0 };

enum { INET = 2, INET6 = 10 };

// Of a VLAN's tag: its number.
enum { VID = 0xfff };

#endif
