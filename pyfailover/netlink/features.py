# SPDX-License-Identifier: GPL-2.0-or-later
"""What XDP can do on the interfaces of one network namespace (linux/netdev.h)."""

import errno
import os
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError as _KernelError
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket

from pyfailover.errors import NetlinkError

_FAMILY = "netdev"
_DEV_GET = 1

# enum netdev_xdp_act, by bit.
_ACTS = (
    "basic",
    "redirect",
    "ndo_xmit",
    "xsk_zerocopy",
    "hw_offload",
    "rx_sg",
    "ndo_xmit_sg",
)


class _Device(genlmsg):  # type: ignore[misc]
    """NETDEV_CMD_DEV_GET and its answer."""

    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


class _Asynchronous(AsyncGenericNetlinkSocket):  # type: ignore[misc]
    module_err_level = "debug"  # that there is no such family is no error


class _Socket(GenericNetlinkSocket):  # type: ignore[misc]
    async_class = _Asynchronous


def xdp_features() -> dict[int, frozenset[str]] | None:
    """What XDP can do by ifindex; None before Linux 6.3, which does not tell.

    Raises:
        NetlinkError: the kernel refuses.
    """
    sock = _Socket()
    try:
        sock.bind(_FAMILY, _Device)
        return dict(_dump(sock))
    except _KernelError as exc:
        if exc.code == errno.ENOENT:
            return None
        raise NetlinkError(
            f"cannot list XDP features: {os.strerror(exc.code)}"
        ) from exc
    finally:
        sock.close()


def _dump(sock: Any) -> Iterator[tuple[int, frozenset[str]]]:
    request = _Device()
    request["cmd"] = _DEV_GET
    request["version"] = 1
    for answer in sock.nlm_request(
        request, msg_type=sock.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP
    ):
        mask = answer.get_attr("NETDEV_A_DEV_XDP_FEATURES") or 0
        yield (
            answer.get_attr("NETDEV_A_DEV_IFINDEX"),
            frozenset(act for bit, act in enumerate(_ACTS) if mask >> bit & 1),
        )
