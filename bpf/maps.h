/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps: one set per network namespace, shared by all its groups. The
 * loader pins each under its name; what is here outlives every process.
 */
#ifndef FO_MAPS_H
#define FO_MAPS_H

#include "failover.h"

/* fo_port_place(ifindex, 0…) -> what the interface is to us. */
BPF_ARRAY(fo_ports, struct fo_port, 1 << FO_PORT_BITS);

/* group -> slaves; written by fo_seat, and emptied by user space. */
BPF_ARRAY(fo_groups, struct fo_group, FO_MAX_GROUPS);

/* group -> word and grace. Apart from fo_groups because the word is never
 * stored to, only swapped, once the group carries traffic. */
BPF_ARRAY(fo_states, struct fo_state, FO_MAX_GROUPS);

/* group * FO_MAX_SLAVES + slot -> counters. Per CPU: no atomics needed. */
BPF_PERCPU_ARRAY(fo_slave_stats, struct fo_slave_stats,
		 FO_MAX_GROUPS *FO_MAX_SLAVES);
BPF_PERCPU_ARRAY(fo_group_stats, struct fo_group_stats, FO_MAX_GROUPS);

/* Who transmits through which master -> when it was seen last. The one that was
 * silent the longest makes room. */
BPF_TABLE("lru_hash", struct fo_source, __u64, fo_sources, FO_MAX_SOURCES);

/* group -> who transmitted last. Per CPU. */
BPF_PERCPU_ARRAY(fo_last_source, struct fo_last_source, FO_MAX_GROUPS);

/* Steps of the programs, in order; the controller takes them out. */
BPF_RINGBUF_OUTPUT(fo_steps, FO_STEPS_PAGES);

/* 0 -> what is loaded. */
BPF_ARRAY(fo_about, struct fo_about, 1);

#endif
