// SPDX-License-Identifier: Apache-2.0
//
// The forwarder: packets to a virtual server of a VIP that answers here go to one of
// its real servers, and what a real server behind NAT replies goes on as the VIP's.
//
//   to the VIP    SYN                      the table
//                 known to have moved      as remembered
//                 of a slot that moved     the table before, and is remembered
//                 else                     the table, which both agree on
//   from a real server by NAT              the VIP's address and port, whose deadline
//                                          is asked on the way out
//
// The host's own firewall and connection tracking see none of it.

#ifndef VIPD_FORWARD_H
#define VIPD_FORWARD_H

#include "gate.h"
#include "nat.h"

INLINE __u64 settings(void)
{
	__u32 one = SETTINGS_ONE;
	const __u64 *flags = lookup(&SETTINGS, &one);

	return flags ? *flags : 0;
}

// `Flow::slot` of vip-core: the same mixing, word by word.
INLINE __u64 mix(__u64 state, __u64 word)
{
	__u64 z = state ^ word;

	z += 0x9e3779b97f4a7c15ULL;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

INLINE __u32 slot_of(const struct service *service, const struct address *client, __u16 port)
{
	__u64 upper = (__u64)client->word[1] << 32 | client->word[0];
	__u64 lower = (__u64)client->word[3] << 32 | client->word[2];
	__u64 mixed = mix(mix(service->seed, upper), lower);

	mixed = mix(mixed, service->flags & BY_ADDRESS ? 0 : NET16(port));
	return (mixed >> 32) * service->slots >> 32;
}

// The real server of a slot, or none.
INLINE __u32 real_in(__u32 table, __u32 slot)
{
	__u32 element = slot / SLOTS_IN_ELEMENT;
	void *slots = lookup(&TABLES, &table);
	const struct slots *found;

	if (!slots)
		return REALS_MOST;
	found = lookup(slots, &element);
	if (!found)
		return REALS_MOST;
	return found->real[slot % SLOTS_IN_ELEMENT];
}

INLINE const __u32 *service_at(const struct address *ip, __u8 protocol, __u16 port, __u64 flags)
{
	struct place place = { .ip = *ip, .port = port, .protocol = protocol };
	struct range range = { .prefix = 160, .ip = *ip, .protocol = protocol, .port = port };
	const __u32 *service = lookup(&PORTS, &place);

	if (!service && flags & HAS_RANGES)
		service = lookup(&RANGES, &range);
	return service;
}

INLINE const struct real *real_of(__u32 index, __u32 service)
{
	const struct real *real = lookup(&REALS, &index);

	return real && real->service == service ? real : 0;
}

// Which real server a packet goes to. `client` and `port` are where it comes from, or
// where the packet came from that it is about.
INLINE __u32 choose(const struct service *service, __u32 id, const struct packet *packet,
		    const struct address *client, __u16 port, __u16 vip_port, int remembers)
{
	struct flow flow = { .client = *client, .service = id, .port = port, .vip_port = vip_port };
	__u32 slot = slot_of(service, client, port);
	__u32 real = real_in(service->table, slot);
	__u32 before = real;
	const __u32 *known = 0;

	if (!(service->flags & REMEMBERS))
		return real;
	if (service->before != service->table)
		before = real_in(service->before, slot);
	known = lookup(&MOVED, &flow);
	if (packet->flags & OPENS) {
		// The same ports may have been another connection's.
		if (remembers && (known || before != real))
			update(&MOVED, &flow, &real, BPF_ANY);
		return real;
	}
	// One that is gone leaves no trace but here.
	if (known && real_of(*known, id))
		return *known;
	if (before == real)
		return real;
	if (packet->protocol == UDP && boottime() >= service->settles)
		return real;
	if (!real_of(before, id))
		return real;
	if (remembers)
		update(&MOVED, &flow, &before, BPF_ANY);
	return before;
}

INLINE void count(struct __sk_buff *skb, __u32 real, int opens, int is_reply)
{
	struct counter *counter = lookup(&COUNTERS, &real);

	if (!counter)
		return;
	if (is_reply) {
		counter->replies += 1;
		return;
	}
	counter->packets += 1;
	counter->bytes += skb->len;
	counter->connections += opens;
}

INLINE int deliver(const struct real *real, const struct packet *packet)
{
	struct bpf_redir_neigh hop = {};

	hop.nh_family = packet->family;
	if (packet->family == INET)
		hop.ipv4_nh = real->hop.word[3];
	else
		__builtin_memcpy(hop.ipv6_nh, real->hop.word, 16);
	return redirect_neigh(real->ifindex, &hop, sizeof(hop), 0);
}

// Sends a packet of a service to a real server. `whole`: it has its ports.
INLINE int send(struct __sk_buff *skb, struct packet *packet, const struct service *service,
		__u32 id, __u32 index, int whole)
{
	const struct real *real = real_of(index, id);
	__u16 port;

	if (!real)
		return dropped(NO_REAL);
	port = real->port ? real->port : packet->destination_port;
	count(skb, index, packet->flags & OPENS ? 1 : 0, 0);
	if (real->flags & LOCAL) {
		// The address stays, so that what others send here without the VIP is
		// told apart on the way back.
		if (service->flags & NAT && whole &&
		    rewrite_port(skb, packet, DESTINATION_SIDE, packet->destination_port, port))
			return dropped(NOT_WRITTEN);
		return PASS;
	}
	if (!packet->at)
		return dropped(NO_ETHERNET);
	if (packet->hops <= 1)
		return dropped(HOPS);
	if (!real->ifindex)
		return dropped(NO_WAY);
	if (rewrite_hops(skb, packet))
		return dropped(NOT_WRITTEN);
	if (service->flags & NAT) {
		if (whole &&
		    rewrite_port(skb, packet, DESTINATION_SIDE, packet->destination_port, port))
			return dropped(NOT_WRITTEN);
		if (rewrite_ip(skb, packet, DESTINATION_SIDE, &packet->destination, &real->ip, whole))
			return dropped(NOT_WRITTEN);
	}
	return deliver(real, packet);
}

INLINE struct fragment fragment_of(const struct packet *packet)
{
	struct fragment fragment = {
		.source = packet->source,
		.destination = packet->destination,
		.id = packet->id,
		.protocol = packet->protocol,
	};

	return fragment;
}

// The rest of a datagram follows its first part, or is not forwarded.
INLINE int forward_rest(struct __sk_buff *skb, struct packet *packet, __u64 flags)
{
	struct fragment fragment = fragment_of(packet);
	const struct datagram *known = lookup(&FRAGMENTS, &fragment);
	const struct service *service;

	if (known && !known->is_reply) {
		if (skb->pkt_type != TO_THIS_HOST)
			return dropped(NOT_FOR_US);
		service = lookup(&SERVICES, &known->service);
		return service ? send(skb, packet, service, known->service, known->real, 0) : dropped(NO_REAL);
	}
	// Port 0 is in no range: what is found says that the address has services.
	return service_at(&packet->destination, packet->protocol, 0, flags | HAS_RANGES)
		       ? dropped(NO_FIRST)
		       : PASS;
}

// A packet to a VIP that answers here.
INLINE int forward(struct __sk_buff *skb, struct packet *packet, __u64 flags)
{
	const struct service *service;
	const __u32 *id;
	__u32 real;

	if (!has_ports(packet))
		return PASS;
	if (packet->flags & CONTINUES)
		return forward_rest(skb, packet, flags);
	// A first part too short for its flags is nobody's honest one (RFC 1858).
	if (parse_ports(skb, packet))
		return packet->flags & BEGINS ? dropped(TRUNCATED) : PASS;
	id = service_at(&packet->destination, packet->protocol, packet->destination_port, flags);
	if (!id || !*id)
		return PASS;
	service = lookup(&SERVICES, id);
	if (!service)
		return dropped(NO_REAL);
	// A switch floods what it has forgotten: another node may be the one that is meant.
	if (skb->pkt_type != TO_THIS_HOST)
		return dropped(NOT_FOR_US);
	real = choose(service, *id, packet, &packet->source, packet->source_port,
		      packet->destination_port, 1);
	if (packet->flags & BEGINS) {
		struct fragment fragment = fragment_of(packet);
		struct datagram datagram = { .service = *id, .real = real };

		update(&FRAGMENTS, &fragment, &datagram, BPF_ANY);
	}
	return send(skb, packet, service, *id, real, 1);
}

INLINE const struct reply *reply_from(const struct address *ip, __u8 protocol, __u16 port,
				      __u64 flags)
{
	struct place place = { .ip = *ip, .port = port, .protocol = protocol };
	struct range range = { .prefix = 160, .ip = *ip, .protocol = protocol, .port = port };
	const struct reply *reply = lookup(&REPLIES, &place);

	if (!reply && flags & HAS_REPLY_RANGES)
		reply = lookup(&REPLY_RANGES, &range);
	return reply;
}

// Sends on as the VIP's what a real server replied.
INLINE int send_reply(struct __sk_buff *skb, struct packet *packet, const struct reply *reply,
		      int whole)
{
	__u16 port = reply->port ? reply->port : packet->source_port;
	struct address vip = reply->vip;
	__u32 ifindex = reply->ifindex;

	if (packet->hops <= 1)
		return dropped(HOPS);
	if (!ifindex)
		return dropped(NO_WAY);
	count(skb, reply->real, 0, 1);
	if (rewrite_hops(skb, packet))
		return dropped(NOT_WRITTEN);
	if (whole && rewrite_port(skb, packet, SOURCE, packet->source_port, port))
		return dropped(NOT_WRITTEN);
	if (rewrite_ip(skb, packet, SOURCE, &packet->source, &vip, whole))
		return dropped(NOT_WRITTEN);
	// By the kernel's own route, and through the gate on the way out.
	return redirect_neigh(ifindex, 0, 0, 0);
}

// A packet to anywhere else, where some real server is behind NAT.
INLINE int forward_reply(struct __sk_buff *skb, struct packet *packet, __u64 flags)
{
	const struct reply *reply;

	if (!has_ports(packet))
		return PASS;
	if (packet->flags & CONTINUES) {
		struct fragment fragment = fragment_of(packet);
		const struct datagram *known = lookup(&FRAGMENTS, &fragment);

		if (!known || !known->is_reply)
			return PASS;
		reply = reply_from(&packet->source, packet->protocol, known->real, flags);
		if (!reply || standing(&reply->vip) != OPEN)
			return PASS;
		return send_reply(skb, packet, reply, 0);
	}
	if (parse_ports(skb, packet))
		return PASS;
	reply = reply_from(&packet->source, packet->protocol, packet->source_port, flags);
	// Where the VIP is another node's, this may be its way there.
	if (!reply || standing(&reply->vip) != OPEN)
		return PASS;
	if (skb->pkt_type != TO_THIS_HOST || lookup(&OWN, &packet->destination))
		return PASS;
	if (packet->flags & BEGINS) {
		struct fragment fragment = fragment_of(packet);
		// By its port the rest finds the VIP.
		struct datagram datagram = { .real = packet->source_port, .is_reply = 1 };

		update(&FRAGMENTS, &fragment, &datagram, BPF_ANY);
	}
	return send_reply(skb, packet, reply, 1);
}

// On the way out, from a VIP that answers here: a real server on this host has its own
// port by NAT, and its replies the VIP's.
INLINE int own_reply(struct __sk_buff *skb, struct packet *packet, __u64 flags)
{
	const struct reply *reply;

	if (!has_ports(packet) || packet->flags & CONTINUES || parse_ports(skb, packet))
		return PASS;
	reply = reply_from(&packet->source, packet->protocol, packet->source_port, flags);
	if (!reply || !(reply->flags & LOCAL) || !reply->port)
		return PASS;
	count(skb, reply->real, 0, 1);
	return rewrite_port(skb, packet, SOURCE, packet->source_port, reply->port)
		       ? dropped(NOT_WRITTEN)
		       : PASS;
}

#endif
