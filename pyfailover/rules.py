# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interface is meant by the rule that names a slave.

Pure: links are arguments, and so is the way to ask for a device's driver. A
slave that was unplugged comes back under another name and ifindex, so what is
asked for is what stays: its address, its slot on the bus, its driver.
"""

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Protocol

from pyfailover.errors import ConfigError
from pyfailover.model import Link, Rule, RuleKey, parse_rule


class Device(Protocol):
    """Driver of an interface and its place on a bus, as `ethtool -i` says."""

    @property
    def name(self) -> str:
        """The driver's name."""

    @property
    def bus(self) -> str:
        """For a PCI device, and a virtio one on it: 0000:03:00.1."""


Identify = Callable[[str], Device | None]  # by interface name


def pick(
    text: str,
    links: Mapping[int, Link],
    taken: Collection[int],
    identify: Identify,
) -> Link | None:
    """The interface that a rule names, None if it is not there.

    Args:
        taken: ifindexes that are out of the question: other slaves, masters.

    Raises:
        ConfigError: several fit; names them.
    """
    free = [link for link in links.values() if link.ifindex not in taken]
    found = [link for link in free if link.name == text] or [
        link for link in free if fits(text, link, identify)
    ]
    if len(found) > 1:
        shown = ", ".join(_described(link, identify) for link in found)
        raise ConfigError(
            f"cannot tell which interface is '{text}': {shown} fit",
            hint="add a condition that only one of them meets, like pci=… or name=…",
        )
    return found[0] if found else None


def fits(text: str, link: Link, identify: Identify) -> bool:
    """Whether an interface is what a rule asks for."""
    rule = parse_rule(text)
    if rule is None:
        return text == link.name or text in link.altnames
    return _meets(link, rule, identify)


def _meets(link: Link, rule: Rule, identify: Identify) -> bool:
    if link.loopback:
        return False
    for key, wanted in rule.items():
        match key:
            case RuleKey.NAME:
                fits = fnmatchcase(link.name, wanted)
            case RuleKey.ALTNAME:
                fits = any(fnmatchcase(name, wanted) for name in link.altnames)
            case RuleKey.MAC:
                # The address it was made with, where it has one: the present
                # one may be the master's.
                fits = wanted == (link.perm_mac or link.mac)
            case RuleKey.PCI | RuleKey.DRIVER:
                device = identify(link.name)
                got = None if device is None else device.bus
                if key is RuleKey.DRIVER:
                    got = None if device is None else device.name
                fits = wanted == got
        if not fits:
            return False
    return True


def _described(link: Link, identify: Identify) -> str:
    device = identify(link.name)
    known = [link.mac]
    if device is not None:
        known += [text for text in (device.name, device.bus) if text]
    return f"'{link.name}' ({', '.join(known)})"
