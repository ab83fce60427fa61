# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with network managers, none of which runs yet, and with udev."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyfailover.lab import Namespace
from tests.support import machine
from tests.support.machine import Machine

_PACKAGES = (
    *machine.PACKAGES,
    "dnsmasq-base",
    "ifupdown",
    "iputils-ping",
    "isc-dhcp-client",
    "libpam-systemd",  # network-manager cannot be configured without
    "network-manager",
    "udev",
)

# The hostname service cannot start there, which NetworkManager would wait for. And
# the first process takes udev for absent if its socket is not there yet.
_PREPARE = """
for unit in NetworkManager NetworkManager-wait-online networking systemd-hostnamed \
    systemd-networkd systemd-networkd-wait-online; do
  ln -sf /dev/null /etc/systemd/system/$unit.service
done
mkdir /run/udev
touch /run/udev/control
"""


def root() -> Path:
    """The Debian that is booted; made at the first call, which takes minutes."""
    return machine.root(_PACKAGES)


@contextmanager
def booted(ns: Namespace) -> Iterator[Machine]:
    """Boot it in a network namespace; gone at the end."""
    with Machine(ns, base=root(), prepare=_PREPARE) as made:
        # Of all devices of the kernel those of this namespace alone.
        made.run("udevadm", "trigger", "--subsystem-match=net", "--action=add")
        made.run("udevadm", "settle")
        yield made
