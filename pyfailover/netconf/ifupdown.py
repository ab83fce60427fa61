# SPDX-License-Identifier: GPL-2.0-or-later
"""How ifupdown is told: interfaces(5). And Debian's cloud images, which add to it.

Their udev rule runs cloud-ifupdown-helper for each interface that comes; it writes
a stanza with DHCP for those that have none. So slaves have one that does nothing.
ifupdown knows interfaces by their names alone: for slaves that are known by
something else udev is to run nothing of that.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from shlex import quote

from pyfailover.errors import ConfigError
from pyfailover.netconf import udev
from pyfailover.netconf.files import Configuration, File, Place
from pyfailover.netconf.subject import Dhcp, Subject, by_present_names, present

_NAME = "ifupdown"
_STANZAS = Place(directory=PurePosixPath("etc/network/interfaces.d"))
_RULES = Place(  # behind 75-cloud-ifupdown.rules and 80-ifupdown.rules
    directory=PurePosixPath("etc/udev/rules.d"),
    before="81-",
    after=r"\.ifupdown\.rules",
)
_PLACES = (_STANZAS, _RULES)

# At boot; and whenever it is made, by `create` or a controller that starts late.
_MASTER = """\
auto {name}
allow-hotplug {name}
"""


def configuration(subject: Subject, dhcp: Dhcp) -> Configuration:
    """The files for a group.

    Raises:
        ConfigError: a name that means something else in interfaces(5).
    """
    master = subject.master
    names: list[str] = []
    rules: list[str] = []
    notes: list[str] = []
    for slave in subject.slaves:
        names += slave.names
        if slave.conditions is not None:
            line = udev.line("add", master, slave.conditions, 'RUN="/bin/true"')
            rules += [line] if line else []
            notes += [] if line else [by_present_names("ifupdown", slave)]
    stanzas = [f"iface {_checked(name)} inet manual\n" for name in names]
    if dhcp is not Dhcp.NO:
        stanzas.insert(0, _master(_checked(master), dhcp))
    files = [File(path=_STANZAS.path(master), text="".join(stanzas))]
    if rules:
        path = _RULES.path(master, ".ifupdown.rules")
        files.append(File(path=path, text="".join(rules)))
    return Configuration(
        master=master,
        manager=_NAME,
        places=_PLACES,
        files=tuple(files),
        notes=tuple(notes),
        reread=tuple(_reread(subject, dhcp, udev_too=bool(rules))),
    )


def _reread(subject: Subject, dhcp: Dhcp, *, udev_too: bool) -> Iterator[str]:
    """Commands that undo what was done to the slaves, and set the master up."""
    if udev_too:
        yield "udevadm control --reload"
    for name in map(quote, present(subject)):
        yield f"ifdown --force {name}"
        yield f"rm -f /run/network/interfaces.d/{name}"
        yield f"ip link set {name} up"  # it may be in the group already
    if subject.there and dhcp is not Dhcp.NO:
        yield f"ifup {quote(subject.master)}"


def _master(name: str, dhcp: Dhcp) -> str:
    v4 = f"iface {name} inet dhcp\n" if dhcp.v4 else ""
    # With dhcp ifup would wait for as long as no server answers.
    v6 = f"iface {name} inet6 {'auto' if dhcp.v4 else 'dhcp'}\n" if dhcp.v6 else ""
    return f"{_MASTER.format(name=name)}{v4}{v6}\n"


def _checked(name: str) -> str:
    if "=" in name or "\\" in name:
        raise ConfigError(
            f"cannot tell ifupdown of {name!r}: it takes = and \\ for something else",
            hint="rename the interface",
        )
    return name
