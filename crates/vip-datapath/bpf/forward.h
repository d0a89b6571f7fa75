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
#include "reset.h"

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

INLINE int service_of(__u32 id, struct service *service)
{
	const struct service *known = lookup(&SERVICES, &id);

	if (!known)
		return -1;
	*service = *known;
	return service->id == id ? 0 : -1;
}

INLINE int real_of(__u32 index, __u32 service, struct real *real)
{
	const struct real *known = lookup(&REALS, &index);

	if (!known)
		return -1;
	*real = *known;
	return real->service == service ? 0 : -1;
}

INLINE int is_real_of(__u32 index, __u32 service)
{
	const struct real *known = lookup(&REALS, &index);

	return known && known->service == service;
}

// Whether some service is behind the address; port 0 is in no range.
INLINE int serves(const struct address *vip)
{
	return service_at(vip, TCP, 0, HAS_RANGES) || service_at(vip, UDP, 0, HAS_RANGES);
}

// Somebody goes by the table before.
INLINE void speaks(__u32 service)
{
	__u64 *spoke = lookup(&SPOKE, &service);

	if (spoke)
		*spoke = boottime();
}

// Which real server a packet goes to. `client` and `port` are where it comes from, or
// where the packet came from that it is about.
INLINE __u32 choose(const struct service *service, const struct packet *packet,
		    const struct address *client, __u16 port, __u16 vip_port, int remembers)
{
	__u32 id = service->id;
	struct flow flow = { .client = *client, .service = id, .port = port, .vip_port = vip_port };
	__u32 slot = slot_of(service, client, port);
	__u32 real = real_in(service->table, slot);
	__u32 before = real, moved;
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
	if (known) {
		moved = *known;
		if (is_real_of(moved, id)) {
			if (remembers && moved == before && before != real)
				speaks(id);
			return moved;
		}
	}
	if (before == real)
		return real;
	// Where that one is gone it may come back: those who have others by then keep them.
	if (is_real_of(before, id) &&
	    (packet->protocol != UDP || boottime() < service->settles)) {
		real = before;
		if (remembers)
			speaks(id);
	}
	// A flow that has begun since: the next change is none of its business.
	if (remembers)
		update(&MOVED, &flow, &real, BPF_ANY);
	return real;
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

// One hop further by this interface, if there is one to go.
INLINE int goes_on(struct __sk_buff *skb, const struct packet *packet, __u32 ifindex)
{
	// The kernel redirects what has an Ethernet header alone.
	if (!packet->at)
		return dropped(NO_ETHERNET);
	if (packet->hops <= 1)
		return dropped(HOPS);
	if (!ifindex)
		return dropped(NO_WAY);
	return rewrite_hops(skb, packet) ? dropped(NOT_WRITTEN) : PASS;
}

INLINE int deliver(const struct real *real, const struct packet *packet)
{
	struct bpf_redir_neigh hop = {};
	int is_v4 = !real->hop.word[0] && !real->hop.word[1] && real->hop.word[2] == NET32(0xffff);

	if (is_v4 != (packet->family == INET))
		return dropped(NO_WAY);
	hop.nh_family = packet->family;
	if (packet->family == INET)
		hop.ipv4_nh = real->hop.word[3];
	else
		__builtin_memcpy(hop.ipv6_nh, real->hop.word, 16);
	return redirect_neigh(real->ifindex, &hop, sizeof(hop), 0);
}

// Sends a packet of a service to a real server. `whole`: it has its ports.
INLINE int send(struct __sk_buff *skb, struct packet *packet, const struct service *service,
		__u32 index, int whole)
{
	struct real real;
	__u16 port;

	if (real_of(index, service->id, &real)) {
		// Nobody can have it any more: who opens one is told nothing.
		if (whole && service->flags & RESETS && packet->protocol == TCP &&
		    !(packet->flags & OPENS))
			return reset(skb, packet);
		return dropped(NO_REAL);
	}
	port = real.port ? real.port : packet->destination_port;
	count(skb, index, packet->flags & OPENS ? 1 : 0, 0);
	if (real.flags & LOCAL) {
		// The address stays, so that what others send here without the VIP is
		// told apart on the way back.
		if (service->flags & NAT && whole &&
		    rewrite_port(skb, packet, DESTINATION_SIDE, packet->destination_port, port))
			return dropped(NOT_WRITTEN);
		return PASS;
	}
	if (goes_on(skb, packet, real.ifindex) == DROP)
		return DROP;
	if (service->flags & NAT) {
		if (whole &&
		    rewrite_port(skb, packet, DESTINATION_SIDE, packet->destination_port, port))
			return dropped(NOT_WRITTEN);
		if (rewrite_ip(skb, packet, DESTINATION_SIDE, &packet->destination, &real.ip, whole))
			return dropped(NOT_WRITTEN);
	}
	return deliver(&real, packet);
}

INLINE struct fragment fragment_of(const struct packet *packet)
{
	struct fragment fragment = {
		.source = packet->source,
		.destination = packet->destination,
		.id = packet->id,
		.protocol = packet->family == INET ? packet->protocol : 0,
	};

	return fragment;
}

INLINE void remember_rest(const struct packet *packet, enum rest rest, __u32 service, __u32 real)
{
	struct fragment fragment = fragment_of(packet);
	struct datagram datagram = {
		.seen = boottime(),
		.service = service,
		.real = real,
		.port = packet->source_port,
		.rest = rest,
		.protocol = packet->protocol,
	};

	update(&FRAGMENTS, &fragment, &datagram, BPF_ANY);
}

// What is known of the datagram that a packet is the rest of. Its number comes again in
// time, for another one.
INLINE const struct datagram *datagram_of(const struct packet *packet)
{
	struct fragment fragment = fragment_of(packet);
	const struct datagram *known = lookup(&FRAGMENTS, &fragment);

	return known && boottime() - known->seen < REST_LASTS ? known : 0;
}

// Later parts name what follows the fragment header: ports, or options before them.
INLINE int may_have_ports(const struct packet *packet)
{
	return has_ports(packet) ||
	       (packet->family == INET6 &&
		(packet->protocol == DESTINATION || packet->protocol == ROUTING));
}

// The rest of a datagram follows its first part, or is not forwarded.
INLINE int forward_rest(struct __sk_buff *skb, struct packet *packet)
{
	const struct datagram *known = datagram_of(packet);
	struct service service;

	if (!known)
		return serves(&packet->destination) ? dropped(NO_FIRST) : PASS;
	if (known->rest != TO_A_REAL)
		return PASS;
	if (skb->pkt_type != TO_THIS_HOST)
		return dropped(NOT_FOR_US);
	if (service_of(known->service, &service))
		return dropped(NO_REAL);
	return send(skb, packet, &service, known->real, 0);
}

// A packet to a VIP that answers here.
INLINE int forward(struct __sk_buff *skb, struct packet *packet, __u64 flags)
{
	struct service service;
	const __u32 *id;
	__u32 real;

	if (packet->flags & CONTINUES)
		return may_have_ports(packet) ? forward_rest(skb, packet) : PASS;
	if (!has_ports(packet))
		return PASS;
	// A first part too short for its flags is nobody's honest one (RFC 1858).
	if (parse_ports(skb, packet))
		return packet->flags & BEGINS ? dropped(TRUNCATED) : PASS;
	id = service_at(&packet->destination, packet->protocol, packet->destination_port, flags);
	if (!id || !*id) {
		if (packet->flags & BEGINS && serves(&packet->destination))
			remember_rest(packet, TO_THE_HOST, 0, 0);
		return PASS;
	}
	if (service_of(*id, &service))
		return dropped(NO_REAL);
	// A switch floods what it has forgotten: another node may be the one that is meant.
	if (skb->pkt_type != TO_THIS_HOST)
		return dropped(NOT_FOR_US);
	real = choose(&service, packet, &packet->source, packet->source_port,
		      packet->destination_port, 1);
	if (packet->flags & BEGINS)
		remember_rest(packet, TO_A_REAL, service.id, real);
	return send(skb, packet, &service, real, 1);
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

	if (goes_on(skb, packet, ifindex) == DROP)
		return DROP;
	count(skb, reply->real, 0, 1);
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

	if (packet->flags & CONTINUES) {
		const struct datagram *known = datagram_of(packet);

		if (!known || known->rest != FROM_A_REAL)
			return PASS;
		reply = reply_from(&packet->source, known->protocol, known->port, flags);
		if (!reply || standing(&reply->vip) != OPEN)
			return PASS;
		if (skb->pkt_type != TO_THIS_HOST || lookup(&OWN, &packet->destination))
			return PASS;
		return send_reply(skb, packet, reply, 0);
	}
	if (!has_ports(packet))
		return PASS;
	if (parse_ports(skb, packet))
		return PASS;
	reply = reply_from(&packet->source, packet->protocol, packet->source_port, flags);
	// Where the VIP is another node's, this may be its way there.
	if (!reply || standing(&reply->vip) != OPEN)
		return PASS;
	if (skb->pkt_type != TO_THIS_HOST || lookup(&OWN, &packet->destination))
		return PASS;
	// By its protocol and port the rest finds the VIP.
	if (packet->flags & BEGINS)
		remember_rest(packet, FROM_A_REAL, 0, 0);
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
