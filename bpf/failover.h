/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Layout that the programs share with user space (pyfailover/datapath/abi.py
 * mirrors it and a test compares the two), and the arithmetic of the word.
 *
 * Dialect. BCC compiles the main .c file as text and rewrites map access in it
 * and only in it, so:
 *  - maps are declared in maps.h, and every .lookup() stands literally in a
 *    function of the main .c file: in a header it loads as "unknown opcode
 *    8d", in a macro it does not compile;
 *  - helpers in headers take pointers and return values;
 *  - no globals (no .rodata), no libbpf SEC(".maps");
 *  - only uapi/ structures: the headers at hand belong to some kernel, not to
 *    the one that runs.
 */
#ifndef FO_FAILOVER_H
#define FO_FAILOVER_H

#include <uapi/linux/types.h>

#define FO_ABI_VERSION 3
#define FO_MAX_SLAVES  8
#define FO_NO_SLOT     0xff
#define FO_ENODEV      19

/* Groups of one namespace; the loader sets it (--max-groups). */
#ifndef FO_MAX_GROUPS
#define FO_MAX_GROUPS 64
#endif

/*
 * The ports: an open-addressed table in an array, since looking a u32 up in a
 * BPF_HASH is most of what a packet would cost. Place by multiplicative hash,
 * then the next places; user space is the only writer. At one eighth full (the
 * loader sets FO_PORT_BITS so) 16 places in a row are never all taken, and one
 * look is nearly always enough.
 */
#ifndef FO_PORT_BITS
#define FO_PORT_BITS 13
#endif
#define FO_PORT_PROBES 16
#define FO_PORT_HASH   2654435769U /* 2^32 / golden ratio */

/*
 * The word: one aligned u64 per group, replaced by compare-and-swap alone.
 *
 *   bits  0-31  generation, one more with every change
 *   bits 32-39  active slot, FO_NO_SLOT when there is none
 *   bits 40-47  left: slots the programs stepped away from and which the
 *               controller has not given back
 *   bits 48-55  approved: slots the controller lets the programs step to
 *   bits 56-63  flags
 */
#define FO_WORD_ACTIVE_SHIFT   32
#define FO_WORD_LEFT_SHIFT     40
#define FO_WORD_APPROVED_SHIFT 48
#define FO_WORD_FLAGS_SHIFT    56

#define FO_FLAG_KERNEL 1 /* the last change was made by a program */

/*
 * rx_grace: the slot left last in bits 56-63, and until when its unicast
 * frames are still taken, in units of 1024 ns of bpf_ktime_get_ns().
 */
#define FO_GRACE_SLOT_SHIFT 56
#define FO_GRACE_UNIT_SHIFT 10
#define FO_GRACE_UNTIL_MASK ((1ULL << FO_GRACE_SLOT_SHIFT) - 1)

struct fo_state {
	__u64 word;
	__u64 grace;
	__u64 lost_ns;	  /* when the active slave was first seen without
			     carrier, 0: it has it; for the down-delay */
	__u64 stepped_ns; /* when a program stepped last; bpf_ktime_get_ns() */
	__u64 opened_ns;  /* when the group got its place here */
};

/*
 * A slave in its slot. The kernel's device is known by three marks, all learned
 * by fo_seat: a device in the same memory, or of the same ifindex, has another
 * id; one that was moved is in another network namespace.
 */
struct fo_seat {
	__u64 dev; /* struct net_device *, 0: the programs cannot look at it */
	__u64 net; /* its nd_net.net */
	__u64 id;  /* of its directory in sysfs: the kernel gives none twice */
	__u32 ifindex; /* 0: nothing there */
	__u32 pad;
};

struct fo_group {
	struct fo_seat seat[FO_MAX_SLAVES]; /* by slot */
	__u64 down_delay_ns;
};

/*
 * Kernel functions that the programs call. BCC knows none: the numbers stand in
 * for them until the loader puts BTF ids there.
 */
#define FO_KFUNC_CAST_TO_KERN_CTX 0x70000001
#define FO_KFUNC_RDONLY_CAST	  0x70000002

/* Which frames of a slave reach the master. */
enum fo_rx_rule {
	FO_RX_ACTIVE, /* while the slave is active, and in its grace */
	FO_RX_ALWAYS,
	FO_RX_NO_PRIMARY, /* as ACTIVE, but never while slot 0 is plugged */
};

/* What an interface is to us. */
struct fo_port {
	__u32 ifindex; /* 0: a free place */
	__u32 group;
	__u32 slot;    /* a slave's; a master's is FO_NO_SLOT */
	__u32 master;  /* ifindex that a slave's frames go to */
	__u32 rx_rule; /* enum fo_rx_rule */
};

/*
 * Who transmits through a master: after a change of the active slave each of
 * them is announced by RARP, since a switch learned them on the old one. A CPU
 * that sees the same one again within a while does not look into the map.
 */
#define FO_MAX_SOURCES	   4096
#define FO_RELEARN_JIFFIES 100

struct fo_source {
	__u32 mac_head; /* the MAC address, as in the frame */
	__u16 mac_tail;
	__u16 vlan; /* 0: untagged */
	__u32 group;
	__u32 pad;
};

struct fo_last_source {
	struct fo_source source;
	__u64 jiffies;
};

/* A step of a program, for the controller. */
struct fo_step {
	__u64 ns; /* bpf_ktime_get_ns() */
	__u32 group;
	__u32 generation;
	__u8 before; /* slots; FO_NO_SLOT: nobody */
	__u8 after;
	__u8 pad[6];
};

#define FO_STEPS_PAGES 16 /* of the ring: 2,047 steps, 32 bytes each */

/* What is loaded. */
struct fo_about {
	__u32 carrier_test; /* 0 or 1 */
	__u32 pad;
	__u8 sources[32]; /* digest of the sources */
};

/* Counters of one slave: index into struct fo_slave_stats. */
enum fo_slave_counter {
	FO_SLAVE_TX_PACKETS, /* handed to the slave; GSO counts segments */
	FO_SLAVE_TX_BYTES,   /* as skb->len: headers of a GSO frame once */
	FO_SLAVE_RX_PACKETS, /* handed to the master */
	FO_SLAVE_RX_BYTES,
	FO_SLAVE_RX_GRACE,	   /* of these: packets taken in rx_grace */
	FO_SLAVE_RX_LINK_LOCAL,	   /* left to the slave's own stack */
	FO_SLAVE_RX_DROP_INACTIVE, /* dropped: the slave is not active */
	FO_SLAVE_LEFT,		   /* times a program stepped away from it */
	FO_SLAVE_COUNTERS,
};

/* Counters of one group: index into struct fo_group_stats. */
enum fo_group_counter {
	FO_GROUP_TX_DROP_NO_ACTIVE, /* dropped: no slave that is ready */
	FO_GROUP_TX_LINK_LOCAL,	    /* wire: not carried out of a slave */
	FO_GROUP_COUNTERS,
};

struct fo_slave_stats {
	__u64 counter[FO_SLAVE_COUNTERS];
};

struct fo_group_stats {
	__u64 counter[FO_GROUP_COUNTERS];
};

/* Argument of fo_seat, handed in as the packet, the slave as its device. */
struct fo_seat_request {
	__u64 ethernet[2];
	__u32 group;
	__u32 slot;
	__u32 check; /* only see whether it is seated */
	__u32 pad;
};

/* Its return value. */
enum fo_seat_verdict {
	FO_SEAT_TAKEN = 1,
	FO_SEAT_NO_SUCH = 2,
	FO_SEAT_BAD_REQUEST = 3,
	FO_SEAT_OTHER = 4, /* of a check: it is not */
};

/* What became of the link that a slave is. */
enum fo_link {
	FO_LINK_NONE,	    /* not there, or set down */
	FO_LINK_NO_CARRIER, /* set up, without carrier */
	FO_LINK_READY,
};

/* Argument of fo_look. */
struct fo_look_request {
	__u64 ethernet[2];
	__u32 group;
	__u32 pad;
};

#define FO_LOOK_VALID (1 << 16) /* in what it returns */

/* Argument of fo_cas, handed in as the packet of BPF_PROG_TEST_RUN. The kernel
 * reads a packet's ethertype and refuses a short IP packet: zeros come first.
 */
struct fo_cas_request {
	__u64 ethernet[2];
	__u32 group;
	__u32 grace_slot; /* slot that rx_grace is for; FO_NO_SLOT: none */
	__u64 expected;	  /* word that the caller decided upon */
	__u64 desired;
	__u64 grace_ns; /* duration, from now */
};

/* Its return value. */
enum fo_cas_verdict {
	FO_CAS_SWAPPED = 1,
	FO_CAS_REFUSED = 2, /* somebody was faster: read and decide again */
	FO_CAS_NO_GROUP = 3,
	FO_CAS_BAD_REQUEST = 4,
};

_Static_assert(sizeof(struct fo_state) == 40, "ABI");
_Static_assert(sizeof(struct fo_seat) == 32, "ABI");
_Static_assert(sizeof(struct fo_group) == 264, "ABI");
_Static_assert(sizeof(struct fo_step) == 24, "ABI");
_Static_assert(sizeof(struct fo_about) == 40, "ABI");
_Static_assert(sizeof(struct fo_seat_request) == 32, "ABI");
_Static_assert(sizeof(struct fo_look_request) == 24, "ABI");
_Static_assert(sizeof(struct fo_port) == 20, "ABI");
_Static_assert(sizeof(struct fo_source) == 16, "ABI");
_Static_assert(sizeof(struct fo_last_source) == 24, "ABI");
_Static_assert(sizeof(struct fo_slave_stats) == 64, "ABI");
_Static_assert(sizeof(struct fo_group_stats) == 16, "ABI");
_Static_assert(sizeof(struct fo_cas_request) == 48, "ABI");

static __always_inline __u32 fo_port_place(__u32 ifindex, __u32 probe)
{
	return ((ifindex * FO_PORT_HASH >> (32 - FO_PORT_BITS)) + probe) &
	       ((1U << FO_PORT_BITS) - 1);
}

static __always_inline __u32 fo_word_active(__u64 word)
{
	return word >> FO_WORD_ACTIVE_SHIFT & 0xff;
}

static __always_inline __u32 fo_word_left(__u64 word)
{
	return word >> FO_WORD_LEFT_SHIFT & 0xff;
}

static __always_inline __u32 fo_word_approved(__u64 word)
{
	return word >> FO_WORD_APPROVED_SHIFT & 0xff;
}

static __always_inline int fo_word_by_kernel(__u64 word)
{
	return word >> FO_WORD_FLAGS_SHIFT & FO_FLAG_KERNEL;
}

#endif
