# SPDX-License-Identifier: GPL-2.0-or-later
"""How NetworkManager is told: NetworkManager.conf(5), nm-settings-keyfile(5).

Of its ways to say that an interface is not its own the [device] sections are the
strongest; among those that fit one the first counts. They have no «and», and
nothing of the bus: rules that need it go to udev, for NM_UNMANAGED, the weakest.
"""

import uuid
from collections.abc import Iterator
from pathlib import PurePosixPath
from shlex import quote

from pyfailover.model import RuleKey
from pyfailover.netconf import udev
from pyfailover.netconf.files import Configuration, File, Place, stem
from pyfailover.netconf.subject import Dhcp, Slave, Subject, by_present_names, present

_NAME = "networkmanager"
_CONF = Place(
    directory=PurePosixPath("etc/NetworkManager/conf.d"),
    before="90-",
    after=r"\.conf",
)
_PROFILE = Place(
    directory=PurePosixPath("etc/NetworkManager/system-connections"),
    after=r"\.nmconnection",
)
_RULES = Place(  # behind 85-nm-unmanaged.rules
    directory=PurePosixPath("etc/udev/rules.d"),
    before="90-",
    after=r"\.networkmanager\.rules",
)
_PLACES = (_CONF, _PROFILE, _RULES)

# Of our own making: the same profile has the same id wherever it is made.
_FAMILY = uuid.UUID("5c3f2a0e-7d0b-5c1e-9a3c-6f4f2c1d8b77")

# A veth is unmanaged by default (85-nm-unmanaged.rules). A master loses its carrier
# while no slave is usable: the lease is to outlive a moment of that.
_MASTER = """\
[device-{stem}]
match-device={spec}
managed=1
carrier-wait-timeout=10000
"""

_SLAVE = """
[device-{stem}.slave{number}]
match-device={spec}
managed=0
"""

# Not to make a profile by itself, where the operator has his own or none yet.
_NO_DEFAULT = """
[main]
no-auto-default+={spec}
"""

_DHCP = """\
[connection]
id={stem}
uuid={uuid}
type=ethernet
interface-name={name}
autoconnect-retries=0

[ethernet]
cloned-mac-address=preserve

[ipv4]
method={v4}

[ipv6]
method={v6}
"""


def configuration(subject: Subject, dhcp: Dhcp) -> Configuration:
    """The files for a group."""
    master = subject.master
    told = [
        (slave, list(_specs(slave)), _by_udev(slave, master))
        for slave in subject.slaves
    ]
    sections = "".join(
        _SLAVE.format(stem=stem(master), number=number, spec=";".join(specs))
        for number, (_, specs, _) in enumerate(told)
        if specs
    )
    files = [
        File(
            path=_CONF.path(master, ".conf"),
            text=(_about_master(subject, dhcp) + sections).lstrip(),
        )
    ]
    if dhcp is not Dhcp.NO:
        path = _PROFILE.path(master, ".nmconnection")
        files.append(File(path=path, text=_profile(master, dhcp), mode=0o600))
    rules = "".join(line for _, specs, line in told if line and not specs)
    if rules:
        path = _RULES.path(master, ".networkmanager.rules")
        files.append(File(path=path, text=rules))
    return Configuration(
        master=master,
        manager=_NAME,
        places=_PLACES,
        files=tuple(files),
        notes=tuple(
            by_present_names("NetworkManager", slave)
            for slave, _, line in told
            if slave.conditions is not None and not (_exact(slave) or line)
        ),
        reread=tuple(_reread(subject, udev_too=bool(rules))),
        forget=("nmcli general reload", "nmcli connection reload"),
    )


def _about_master(subject: Subject, dhcp: Dhcp) -> str:
    spec = _named(subject.master)
    if subject.somebody_elses:
        return ""
    section = _MASTER.format(stem=stem(subject.master), spec=spec)
    return section + (_NO_DEFAULT.format(spec=spec) if dhcp is Dhcp.NO else "")


def _profile(master: str, dhcp: Dhcp) -> str:
    return _DHCP.format(
        stem=stem(master),
        uuid=uuid.uuid5(_FAMILY, master),
        name=master.replace("\\", "\\\\"),
        v4="auto" if dhcp.v4 else "disabled",
        v6="auto" if dhcp.v6 else "disabled",
    )


def _reread(subject: Subject, *, udev_too: bool) -> Iterator[str]:
    """Commands; it asks its files about an interface once, when that comes."""
    if udev_too:
        yield "udevadm control --reload"
        yield "udevadm trigger --subsystem-match=net"
    yield "nmcli general reload"
    yield "nmcli connection reload"
    for name in map(quote, present(subject)):
        yield f"nmcli device set {name} managed no"
        yield f"ip address flush dev {name}"
    if subject.there and not subject.somebody_elses:
        yield f"nmcli device set {quote(subject.master)} managed yes"


def _specs(slave: Slave) -> Iterator[str]:
    """What stands for a slave in a list of devices, as far as that can say it."""
    spec = _exact(slave)
    if spec is not None:
        yield spec
    elif slave.conditions is None or _by_udev(slave, "") is None:
        yield from map(_named, slave.names)


def _exact(slave: Slave) -> str | None:
    """What stands for a rule in a list of devices; None if nothing does."""
    rule = slave.conditions
    if rule is None or len(rule) != 1:
        return None
    ((key, wanted),) = rule.items()
    if key is RuleKey.NAME and "[" not in wanted and wanted[0] not in "=~":
        return f"interface-name:{_escaped(wanted)}"
    if key is RuleKey.DRIVER and "/" not in wanted:
        return f"driver:{_escaped(wanted)}"
    return f"mac:{wanted}" if key is RuleKey.MAC else None  # the permanent one


def _by_udev(slave: Slave, master: str) -> str | None:
    """The line of a slave that is known by more than a list of devices can say."""
    if slave.conditions is None:
        return None
    events, action = "add|change|move", 'ENV{NM_UNMANAGED}="1"'
    return udev.line(events, master, slave.conditions, action)


def _named(name: str) -> str:
    return f"interface-name:={_escaped(name)}"


def _escaped(text: str) -> str:
    """A text in a list of devices."""
    return "".join(f"\\{each}" if each in "\\;," else each for each in text)
