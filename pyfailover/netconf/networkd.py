# SPDX-License-Identifier: GPL-2.0-or-later
"""How systemd-networkd is told: systemd.network(5).

The first file that fits an interface counts, so the masters' come first: a rule
like `driver=veth` may fit one.
"""

import re
from pathlib import PurePosixPath

from pyfailover.errors import ConfigError
from pyfailover.model import Rule, RuleKey
from pyfailover.netconf.files import Configuration, File, Place
from pyfailover.netconf.subject import Dhcp, Slave, Subject

_NAME = "networkd"
_DIRECTORY = PurePosixPath("etc/systemd/network")
_MASTER = Place(directory=_DIRECTORY, before="05-", after=r"\.network")
_SLAVE = Place(directory=_DIRECTORY, before="06-", after=r"\.slave\d+\.network")
_PLACES = (_MASTER, _SLAVE)

_ASKS = {Dhcp.YES: "yes", Dhcp.IPV4: "ipv4", Dhcp.IPV6: "ipv6"}

_OFF = """
[Link]
Unmanaged=yes
RequiredForOnline=no
"""

# A master loses its carrier while no slave is usable; networkd would give up its
# addresses at once, and at its own restart too.
_ON = """
[Link]
RequiredForOnline=yes

[Network]
DHCP={asks}
IgnoreCarrierLoss=10s
KeepConfiguration=dhcp-on-stop
"""


def configuration(subject: Subject, dhcp: Dhcp) -> Configuration:
    """The files for a group.

    Raises:
        ConfigError: networkd cannot be asked for a name, or for such a rule.
    """
    files = [
        File(
            path=_SLAVE.path(subject.master, f".slave{number}.network"),
            text=f"[Match]\n{_match(slave)}{_OFF}",
        )
        for number, slave in enumerate(subject.slaves)
    ]
    if dhcp is not Dhcp.NO:
        text = f"[Match]\nName={_literal(subject.master)}\n" + _ON
        files.insert(
            0,
            File(
                path=_MASTER.path(subject.master, ".network"),
                text=text.format(asks=_ASKS[dhcp]),
            ),
        )
    return Configuration(
        master=subject.master,
        manager=_NAME,
        places=_PLACES,
        files=tuple(files),
        reread=("networkctl reload",),
        forget=("networkctl reload",),
    )


def _match(slave: Slave) -> str:
    rule = slave.conditions
    if rule is None:
        return f"Name={' '.join(map(_literal, slave.names))}\n"
    return "".join(f"{line}\n" for line in _conditions(rule, slave.rule))


def _conditions(rule: Rule, text: str) -> list[str]:
    if RuleKey.NAME in rule and RuleKey.ALTNAME in rule:
        raise ConfigError(
            f"cannot tell networkd of the rule {text!r}: one of the two names would "
            "do for it",
            hint="leave name= or altname= away",
        )
    lines = []
    for key, wanted in rule.items():
        match key:
            case RuleKey.NAME | RuleKey.ALTNAME:  # it looks at both
                lines.append(f"Name={_pattern(wanted)}")
            case RuleKey.MAC:
                # MACAddress= is the present one, which may be the master's too.
                lines.append(f"PermanentMACAddress={wanted}")
            case RuleKey.PCI:
                lines.append(f"Path=pci-{wanted}")
            case RuleKey.DRIVER:
                lines.append(f"Driver={_driver(wanted)}")
    return lines


def _literal(text: str) -> str:
    """A word that stands for this text alone, in a list of globs."""
    if text.isdigit():  # networkd would take it for an ifindex
        return f"[{text[0]}]{text[1:]}"
    escapes = {"\\": "\\\\"} | {each: f"[{each}]" for each in "*?["}
    return _word("".join(escapes.get(each, each) for each in text))


def _pattern(glob: str) -> str:
    """A glob of ours, which has no escapes, as a word in a list."""
    return _word(glob.replace("\\", "\\\\"))


def _word(glob: str) -> str:
    """A glob as one word; a leading ! would negate the list.

    Raises:
        ConfigError: networkd ignores what is not ASCII.
    """
    if not glob.isascii():
        raise ConfigError(
            f"cannot tell networkd of {glob!r}: it takes ASCII alone",
            hint="rename the interface, or name it by driver=, pci= or mac=",
        )
    escaped = re.sub(r"""([\\"' ])""", r"\\\1", glob)
    return f"\\{escaped}" if glob.startswith("!") else escaped


def _driver(text: str) -> str:
    """A driver's name; its list has other rules for backslashes, so none is used."""
    return re.sub(r"""[*?[\\"' ]""", "?", text)
