# SPDX-License-Identifier: GPL-2.0-or-later
"""The managers that can be told, and what none of them may be told."""

from collections.abc import Callable
from enum import StrEnum

from pyfailover.errors import ConfigError
from pyfailover.netconf import ifupdown, networkd, networkmanager
from pyfailover.netconf.files import Configuration
from pyfailover.netconf.subject import Dhcp, Subject


class Manager(StrEnum):
    """A network manager."""

    NETWORKD = "networkd"
    NETWORKMANAGER = "networkmanager"
    IFUPDOWN = "ifupdown"


_TELL: dict[Manager, Callable[[Subject, Dhcp], Configuration]] = {
    Manager.NETWORKD: networkd.configuration,
    Manager.NETWORKMANAGER: networkmanager.configuration,
    Manager.IFUPDOWN: ifupdown.configuration,
}


def configuration(
    subject: Subject, manager: Manager, dhcp: Dhcp | None = None
) -> Configuration:
    """What keeps a manager off the slaves of a group, and on its master.

    Args:
        dhcp: None: for both families, if this host is who uses the master.

    Raises:
        ConfigError: the manager cannot be told of one of them.
    """
    if subject.somebody_elses:
        if dhcp not in (None, Dhcp.NO):
            raise ConfigError(
                f"cannot have DHCP on '{subject.master}': its addresses are those of "
                "whoever is behind it (side wire)",
                hint="leave --dhcp away",
            )
        dhcp = Dhcp.NO
    for text in (subject.master, *_said(subject)):
        if not text.isprintable():  # it could end a line, and begin another
            raise ConfigError(
                f"cannot write {text!r} into a file of {manager}: not all of it is "
                "printable",
                hint="rename the interface, or use another rule",
            )
    return _TELL[manager](subject, dhcp or Dhcp.YES)


def _said(subject: Subject) -> list[str]:
    return [text for each in subject.slaves for text in (each.rule, *each.present)]
