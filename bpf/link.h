/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a slave's link is ready, by its struct net_device: what the kernel's
 * own net_failover looks at for every packet (netif_running, netif_carrier_ok).
 *
 * With FO_CARRIER_TEST (Linux 6.2, see datapath/btf.py for the numbers of the
 * running kernel). bpf_rdonly_cast makes a pointer that is safe to read through
 * whatever is there: memory that was freed reads as something, or as zero.
 * Without it a slave is ready while its slot is taken.
 */
#ifndef FO_LINK_H
#define FO_LINK_H

#include "failover.h"

#ifdef FO_CARRIER_TEST

#define FO_STATE_START	   (1 << 0) /* __LINK_STATE_START */
#define FO_STATE_NOCARRIER (1 << 2) /* __LINK_STATE_NOCARRIER */

static void *(*bpf_cast_to_kern_ctx)(void *) = (void *)
	FO_KFUNC_CAST_TO_KERN_CTX;
static void *(*bpf_rdonly_cast)(const void *,
				__u32) = (void *)FO_KFUNC_RDONLY_CAST;

#define FO_MEMBER(type, base, offset)                                          \
	(*(type volatile *)((char *)(base) + (offset)))

static __always_inline __u64 fo_device_net(void *dev)
{
	return FO_MEMBER(__u64, dev, FO_NET_DEVICE_NET);
}

static __always_inline __u64 fo_device_id(void *dev)
{
	return FO_MEMBER(__u64, FO_MEMBER(void *, dev, FO_NET_DEVICE_SD),
			 FO_KERNFS_NODE_ID);
}

static __always_inline enum fo_link fo_link(const struct fo_seat *seat)
{
	void *dev;
	__u64 state;

	if (!seat->ifindex)
		return FO_LINK_NONE;
	dev = bpf_rdonly_cast((void *)seat->dev, FO_NET_DEVICE);
	state = FO_MEMBER(__u64, dev, FO_NET_DEVICE_STATE);
	if (!(state & FO_STATE_START) ||
	    FO_MEMBER(__u32, dev, FO_NET_DEVICE_IFINDEX) != seat->ifindex ||
	    fo_device_net(dev) != seat->net || fo_device_id(dev) != seat->id)
		return FO_LINK_NONE;
	return state & FO_STATE_NOCARRIER ? FO_LINK_NO_CARRIER : FO_LINK_READY;
}

/* Learn the device that a program runs on: that of BPF_PROG_TEST_RUN's context.
 */
static __always_inline void fo_learn_device(struct __sk_buff *skb,
					    struct fo_seat *seat)
{
	void *dev =
		FO_MEMBER(void *, bpf_cast_to_kern_ctx(skb), FO_SK_BUFF_DEV);

	seat->dev = (__u64)dev;
	seat->net = fo_device_net(dev);
	seat->id = fo_device_id(dev);
}

#else

static __always_inline enum fo_link fo_link(const struct fo_seat *seat)
{
	return seat->ifindex ? FO_LINK_READY : FO_LINK_NONE;
}

static __always_inline void fo_learn_device(struct __sk_buff *skb,
					    struct fo_seat *seat)
{
	seat->dev = seat->net = seat->id = 0;
}

#endif

#endif
