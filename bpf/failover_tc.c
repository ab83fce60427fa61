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
#include "link.h"
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

static __always_inline enum fo_link fo_link_at(const struct fo_group *group,
					       __u32 slot)
{
	return slot < FO_MAX_SLAVES ? fo_link(&group->seat[slot])
				    : FO_LINK_NONE;
}

/* Whether the active slot's link is ready; then a loss of carrier is over. */
static __always_inline int fo_active_is_ready(struct fo_state *state,
					      const struct fo_group *group,
					      __u32 active)
{
	if (fo_link_at(group, active) != FO_LINK_READY)
		return 0;
	if (state->lost_ns)
		state->lost_ns = 0;
	return 1;
}

/*
 * Whether a carrier that is lost may still come back in time. The clock is read
 * after the time of the loss, which another CPU may have set just now.
 */
static __always_inline int fo_waits(struct fo_state *state,
				    const struct fo_group *group)
{
	__u64 lost = *(volatile __u64 *)&state->lost_ns;
	__u64 now = bpf_ktime_get_ns();

	if (!lost)
		state->lost_ns = lost = now;
	return now - lost < group->down_delay_ns;
}

/* The lowest of at most 8 bits, one of which is set; without a branch. */
static __always_inline __u32 fo_lowest(__u64 bits)
{
	__u64 below = (bits & -bits) - 1; /* as many ones as its number */

	below -= below >> 1 & 0x55;
	below = (below & 0x33) + (below >> 2 & 0x33);
	return (below + (below >> 4)) & 0xf;
}

/*
 * Leave the active slot, which is not ready, for the best one by rank (slots
 * are in that order) that is: of those that the controller approved and that
 * were not left. Where the programs can look at links and there is none of
 * these, any that is ready: better one that should wait than none, and the
 * controller may be dead.
 *
 * One compare-and-swap: whoever loses it takes the winner's word, so a burst on
 * many CPUs makes one change. Returns the word now in force.
 */
static __always_inline __u64 fo_step(struct fo_state *state,
				     const struct fo_group *group,
				     __u32 group_id, __u64 seen)
{
	__u32 active = fo_word_active(seen);
	__u32 left = fo_word_left(seen);
	__u64 ready = 0, choice;
	struct fo_step step = {.group = group_id};
	struct fo_slave_stats *stats;
	__u32 key, slot, next;
	__u64 word, found;

	if (active < FO_MAX_SLAVES) {
		if (group->down_delay_ns &&
		    fo_link_at(group, active) == FO_LINK_NO_CARRIER &&
		    fo_waits(state, group))
			return seen;
		left |= 1U << active;
	}
	/*
	 * Atomic on the stack, so that the verifier does not know the sum: it
	 * would check all that follows for every set of ready slots.
	 */
#pragma unroll
	for (slot = 0; slot < FO_MAX_SLAVES; slot++)
		if (slot != active &&
		    fo_link(&group->seat[slot]) == FO_LINK_READY)
			__sync_fetch_and_add(&ready, 1ULL << slot);
	ready = *(volatile __u64 *)&ready;
	choice = ready & fo_word_approved(seen) & ~left;
#ifdef FO_CARRIER_TEST
	if (!choice)
		choice = ready;
#endif
	if (!choice)
		return seen;
	next = fo_lowest(choice);
	if (next >= FO_MAX_SLAVES)
		return seen;

	word = (__u32)(seen + 1);
	word |= (__u64)next << FO_WORD_ACTIVE_SHIFT;
	word |= (__u64)(left & ~(1U << next)) << FO_WORD_LEFT_SHIFT;
	word |= (__u64)fo_word_approved(seen) << FO_WORD_APPROVED_SHIFT;
	word |= (__u64)FO_FLAG_KERNEL << FO_WORD_FLAGS_SHIFT;
	found = __sync_val_compare_and_swap(&state->word, seen, word);
	if (found != seen)
		return found;

	step.ns = bpf_ktime_get_ns();
	step.generation = word;
	step.before = active;
	step.after = next;
	state->stepped_ns = step.ns;
	state->lost_ns = 0;
	fo_steps.ringbuf_output(&step, sizeof(step), 0);
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
	__u32 id, key, slot;
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
	if (!fo_active_is_ready(state, group, slot)) {
		word = fo_step(state, group, id, word);
		slot = fo_word_active(word);
		if (fo_link_at(group, slot) != FO_LINK_READY)
			slot = FO_NO_SLOT;
	}
	if (slot >= FO_MAX_SLAVES) {
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
	return bpf_redirect(group->seat[slot].ifindex, 0);
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
	if (!accept || state->lost_ns) {
		/* A host that only receives fails over too. */
		group = fo_groups.lookup(&id);
		if (group &&
		    !fo_active_is_ready(state, group, fo_word_active(word)) &&
		    !accept) {
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
		accept = !group || !fo_is_plugged(skb, group->seat[0].ifindex);
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
 * Put a slave in its slot, run by BPF_PROG_TEST_RUN on the slave with a struct
 * fo_seat_request as the packet. The ifindex is written last: until then
 * nothing is there. A slave that is seated already is left alone: packets
 * follow what is written here.
 */
int fo_seat(struct __sk_buff *skb)
{
	struct fo_seat_request *request = (void *)(long)skb->data;
	struct fo_group *group;
	struct fo_seat found = {}, *seat;
	__u32 id, slot;

	if ((void *)(request + 1) > (void *)(long)skb->data_end)
		return FO_SEAT_BAD_REQUEST;
	id = request->group;
	slot = request->slot;
	group = fo_groups.lookup(&id);
	if (!group || slot >= FO_MAX_SLAVES)
		return FO_SEAT_NO_SUCH;
	seat = &group->seat[slot];
	fo_learn_device(skb, &found);
	if (seat->ifindex == skb->ifindex && seat->dev == found.dev &&
	    seat->net == found.net && seat->id == found.id)
		return FO_SEAT_TAKEN;
	if (request->check)
		return FO_SEAT_OTHER;
	if (seat->ifindex != skb->ifindex)
		*(volatile __u32 *)&seat->ifindex = 0;
	*(volatile __u64 *)&seat->dev = found.dev;
	*(volatile __u64 *)&seat->net = found.net;
	*(volatile __u64 *)&seat->id = found.id;
	*(volatile __u32 *)&seat->ifindex = skb->ifindex;
	return FO_SEAT_TAKEN;
}

/*
 * What the programs see of a group's links, run by BPF_PROG_TEST_RUN with a
 * struct fo_look_request as the packet: enum fo_link in two bits for each slot.
 */
int fo_look(struct __sk_buff *skb)
{
	struct fo_look_request *request = (void *)(long)skb->data;
	const struct fo_group *group;
	__u32 id, slot, found = FO_LOOK_VALID;

	if ((void *)(request + 1) > (void *)(long)skb->data_end)
		return 0;
	id = request->group;
	group = fo_groups.lookup(&id);
	if (!group)
		return 0;
#pragma unroll
	for (slot = 0; slot < FO_MAX_SLAVES; slot++)
		found |= fo_link(&group->seat[slot]) << 2 * slot;
	return found;
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
	if (fo_word_active(request->expected) !=
	    fo_word_active(request->desired))
		state->lost_ns = 0;
	return FO_CAS_SWAPPED;
}
