// SPDX-License-Identifier: GPL-2.0-only
/*
 * The datapath, as tc programs (tcx link or clsact filter: TC_ACT_UNSPEC lets
 * a frame go on in both).
 *
 *   stack  fo_stack_tx on the master's egress, fo_stack_rx on each slave's
 *          ingress: this host's own stack talks through the master.
 *   wire   fo_wire_tx on the master's ingress, fo_wire_rx on each slave's
 *          ingress: somebody behind the master does (a VM, a container).
 *
 * All of them follow the word of the group. Unsure (an interface that is in no
 * map: somebody attached by hand, or we are half detached) they let the frame
 * go on, as if they were not there.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_packet.h>
#include <uapi/linux/pkt_cls.h>

#include "failover.h"
#include "maps.h"
#include "packet.h"

static __always_inline struct fo_port *fo_find_port(__u32 ifindex)
{
	struct fo_port *port;
	__u32 probe, key;

#pragma unroll
	for (probe = 0; probe < FO_PORT_PROBES; probe++) {
		key = fo_port_place(ifindex, probe);
		port = fo_ports.lookup(&key);
		if (port && port->ifindex == ifindex)
			return port;
	}
	return 0;
}

static __always_inline __u32 fo_slave_at(const struct fo_group *group,
					 __u32 slot)
{
	return slot < FO_MAX_SLAVES ? group->slave[slot] : 0;
}

/*
 * Leave the active slot for the best approved one that is there; slots are in
 * order of rank. One compare-and-swap: whoever loses it takes the winner's
 * word, so a burst on many CPUs makes one change. A slot that was left is not
 * taken again until the controller says so. Returns the word now in force.
 */
static __always_inline __u64 fo_step(struct fo_state *state,
				     const struct fo_group *group,
				     __u32 group_id, __u64 seen)
{
	__u32 active = fo_word_active(seen);
	__u32 left = fo_word_left(seen);
	__u32 next = FO_NO_SLOT;
	struct fo_slave_stats *stats;
	__u64 word, found;
	__u32 key, slot, usable;

	if (active < FO_MAX_SLAVES)
		left |= 1U << active;
	usable = fo_word_approved(seen) & ~left;
#pragma unroll
	for (slot = 0; slot < FO_MAX_SLAVES; slot++)
		if (next == FO_NO_SLOT && usable & 1U << slot &&
		    group->slave[slot])
			next = slot;
	if (next == FO_NO_SLOT)
		return seen;

	word = (__u32)(seen + 1);
	word |= (__u64)next << FO_WORD_ACTIVE_SHIFT;
	word |= (__u64)left << FO_WORD_LEFT_SHIFT;
	word |= (__u64)fo_word_approved(seen) << FO_WORD_APPROVED_SHIFT;
	word |= (__u64)FO_FLAG_KERNEL << FO_WORD_FLAGS_SHIFT;
	found = __sync_val_compare_and_swap(&state->word, seen, word);
	if (found != seen)
		return found;

	if (active < FO_MAX_SLAVES) {
		key = group_id * FO_MAX_SLAVES + active;
		stats = fo_slave_stats.lookup(&key);
		if (stats)
			stats->counter[FO_SLAVE_LEFT]++;
	}
	return word;
}

/* Packets that a frame stands for: a GSO frame leaves as its segments. */
static __always_inline __u32 fo_packets(const struct __sk_buff *skb)
{
	return skb->gso_segs ? skb->gso_segs : 1;
}

/* Remember who transmits, to announce him when his way changes. */
static __always_inline void fo_learn(struct __sk_buff *skb, __u32 group_id)
{
	struct fo_last_source *last = fo_last_source.lookup(&group_id);
	const struct ethhdr *eth = (void *)(long)skb->data;
	struct fo_source source = {.group = group_id};
	__u64 jiffies, seen_ns;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end || !last ||
	    eth->h_source[0] & 1)
		return;
	source.mac_head = *(const __u32 *)eth->h_source;
	source.mac_tail = *(const __u16 *)(eth->h_source + 4);
	if (skb->vlan_present)
		source.vlan = skb->vlan_tci & 0xfff;
	jiffies = bpf_jiffies64();
	if (last->source.mac_head == source.mac_head &&
	    last->source.mac_tail == source.mac_tail &&
	    last->source.vlan == source.vlan &&
	    jiffies - last->jiffies < FO_RELEARN_JIFFIES)
		return;
	last->source = source;
	last->jiffies = jiffies;
	seen_ns = bpf_ktime_get_coarse_ns();
	fo_sources.update(&source, &seen_ns);
}

/* Master to active slave, or nowhere, counted. */
static __always_inline int fo_transmit(struct __sk_buff *skb, int wire)
{
	struct fo_group_stats *group_stats;
	struct fo_slave_stats *stats;
	const struct fo_group *group;
	struct fo_state *state;
	struct fo_port *port;
	__u32 id, key, slot, slave;
	__u64 word;

	port = fo_find_port(skb->ifindex);
	if (!port)
		return TC_ACT_UNSPEC;
	id = port->group;
	group = fo_groups.lookup(&id);
	state = fo_states.lookup(&id);
	if (!group || !state)
		return TC_ACT_UNSPEC;

	if (wire && (fo_proto_is_link_local(skb->protocol) ||
		     fo_dest_is_link_local((void *)(long)skb->data,
					   (void *)(long)skb->data_end))) {
		group_stats = fo_group_stats.lookup(&id);
		if (group_stats)
			group_stats->counter[FO_GROUP_TX_LINK_LOCAL]++;
		return TC_ACT_UNSPEC;
	}

	word = *(volatile __u64 *)&state->word;
	slot = fo_word_active(word);
	slave = fo_slave_at(group, slot);
	if (!slave) {
		word = fo_step(state, group, id, word);
		slot = fo_word_active(word);
		slave = fo_slave_at(group, slot);
	}
	if (!slave) {
		group_stats = fo_group_stats.lookup(&id);
		if (group_stats)
			group_stats->counter[FO_GROUP_TX_DROP_NO_ACTIVE] +=
				fo_packets(skb);
		return TC_ACT_SHOT;
	}

	key = id * FO_MAX_SLAVES + slot;
	stats = fo_slave_stats.lookup(&key);
	if (stats) {
		stats->counter[FO_SLAVE_TX_PACKETS] += fo_packets(skb);
		stats->counter[FO_SLAVE_TX_BYTES] += skb->len;
	}
	fo_learn(skb, id);
	return bpf_redirect(slave, 0);
}

/*
 * Is this a unicast frame from the slave that the controller moved traffic
 * away from a moment ago? The far end learns of a change only from our
 * announcement; what it sent before is on its way here. Flooded frames arrive
 * on the new slave too, so they are not taken twice. After a step of a program
 * the slave was dead: nothing good is on its way.
 */
static __always_inline int fo_in_grace(const struct __sk_buff *skb, int wire,
				       const struct fo_state *state, __u64 word,
				       __u32 slot)
{
	__u64 grace = *(volatile __u64 *)&state->grace;

	if (grace >> FO_GRACE_SLOT_SHIFT != slot || fo_word_by_kernel(word))
		return 0;
	if (skb->pkt_type != PACKET_HOST &&
	    !(wire && skb->pkt_type == PACKET_OTHERHOST))
		return 0;
	return bpf_ktime_get_ns() >> FO_GRACE_UNIT_SHIFT <
	       (grace & FO_GRACE_UNTIL_MASK);
}

/* Whether an interface is there: the helper looks it up. */
static __always_inline int fo_is_plugged(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 mtu = 0;

	return ifindex && bpf_check_mtu(skb, ifindex, &mtu, 0, 0) != -FO_ENODEV;
}

/* Slave to master, if the slave is the one to listen to. */
static __always_inline int fo_receive(struct __sk_buff *skb, int wire)
{
	const struct fo_group *group;
	struct fo_slave_stats *stats;
	struct fo_state *state;
	struct fo_port *port;
	__u32 id, key, slot;
	int accept, grace = 0;
	__u64 word;

	port = fo_find_port(skb->ifindex);
	if (!port)
		return TC_ACT_UNSPEC;
	id = port->group;
	slot = port->slot;
	key = id * FO_MAX_SLAVES + slot;
	state = fo_states.lookup(&id);
	stats = fo_slave_stats.lookup(&key);
	if (!state || !stats)
		return TC_ACT_UNSPEC;

	/* Link-local addresses are multicast: unicast skips the comparison. */
	if (fo_proto_is_link_local(skb->protocol) ||
	    (skb->pkt_type != PACKET_HOST &&
	     fo_dest_is_link_local((void *)(long)skb->data,
				   (void *)(long)skb->data_end))) {
		stats->counter[FO_SLAVE_RX_LINK_LOCAL]++;
		return TC_ACT_UNSPEC;
	}

	word = *(volatile __u64 *)&state->word;
	accept = fo_word_active(word) == slot;
	if (!accept) {
		/* A host that only receives fails over too. */
		group = fo_groups.lookup(&id);
		if (group && !fo_slave_at(group, fo_word_active(word))) {
			word = fo_step(state, group, id, word);
			accept = fo_word_active(word) == slot;
		}
	}
	if (!accept) {
		grace = fo_in_grace(skb, wire, state, word, slot);
		accept = grace;
	}
	if (port->rx_rule == FO_RX_ALWAYS) {
		accept = 1;
		grace = 0;
	} else if (accept && port->rx_rule == FO_RX_NO_PRIMARY) {
		group = fo_groups.lookup(&id);
		accept = !group || !fo_is_plugged(skb, group->slave[0]);
	}
	if (!accept) {
		stats->counter[FO_SLAVE_RX_DROP_INACTIVE] += fo_packets(skb);
		return TC_ACT_SHOT;
	}

	stats->counter[FO_SLAVE_RX_PACKETS] += fo_packets(skb);
	stats->counter[FO_SLAVE_RX_BYTES] += skb->len;
	if (grace)
		stats->counter[FO_SLAVE_RX_GRACE] += fo_packets(skb);
	return bpf_redirect(port->master, wire ? 0 : BPF_F_INGRESS);
}

int fo_stack_tx(struct __sk_buff *skb)
{
	return fo_transmit(skb, 0);
}

int fo_stack_rx(struct __sk_buff *skb)
{
	return fo_receive(skb, 0);
}

int fo_wire_tx(struct __sk_buff *skb)
{
	return fo_transmit(skb, 1);
}

int fo_wire_rx(struct __sk_buff *skb)
{
	return fo_receive(skb, 1);
}

/*
 * The controller's hand on the word, run by BPF_PROG_TEST_RUN with a struct
 * fo_cas_request as the packet: a map update would be a plain store and would
 * undo a step that a program made meanwhile. The grace is set first: until the
 * swap it concerns the slave that is active anyway, and so no frame falls
 * between the two.
 */
int fo_cas(struct __sk_buff *skb)
{
	struct fo_cas_request *request = (void *)(long)skb->data;
	struct fo_state *state;
	__u64 until;
	__u32 id;

	if ((void *)(request + 1) > (void *)(long)skb->data_end)
		return FO_CAS_BAD_REQUEST;
	id = request->group;
	state = fo_states.lookup(&id);
	if (!state)
		return FO_CAS_NO_GROUP;

	if (request->grace_slot < FO_MAX_SLAVES) {
		until = (bpf_ktime_get_ns() + request->grace_ns) >>
			FO_GRACE_UNIT_SHIFT;
		state->grace = (__u64)request->grace_slot
				       << FO_GRACE_SLOT_SHIFT |
			       (until & FO_GRACE_UNTIL_MASK);
	}
	if (__sync_val_compare_and_swap(&state->word, request->expected,
					request->desired) != request->expected)
		return FO_CAS_REFUSED;
	return FO_CAS_SWAPPED;
}
