/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What has to be known of a frame: whether it is link-local control traffic
 * that belongs to the one link it came over. Pure: no maps, no context.
 */
#ifndef FO_PACKET_H
#define FO_PACKET_H

#include <uapi/linux/if_ether.h>

#ifndef ETH_P_SLOW
#define ETH_P_SLOW 0x8809
#endif
#ifndef ETH_P_LLDP
#define ETH_P_LLDP 0x88cc
#endif

/* LACP and marker, LLDP, 802.1X, whatever address they are sent to. */
static __always_inline int fo_proto_is_link_local(__be16 proto)
{
	return proto == bpf_htons(ETH_P_SLOW) ||
	       proto == bpf_htons(ETH_P_LLDP) || proto == bpf_htons(ETH_P_PAE);
}

/* 01:80:c2:00:00:00 to 0f (IEEE 802.1Q table 8-1; is_link_local_ether_addr).
 * A frame too short to tell is not one. */
static __always_inline int fo_dest_is_link_local(const void *data,
						 const void *data_end)
{
	const struct ethhdr *eth = data;

	if ((const void *)(eth + 1) > data_end)
		return 0;
	return eth->h_dest[0] == 0x01 && eth->h_dest[1] == 0x80 &&
	       eth->h_dest[2] == 0xc2 && eth->h_dest[3] == 0 &&
	       eth->h_dest[4] == 0 && (eth->h_dest[5] & 0xf0) == 0;
}

#endif
