# SPDX-License-Identifier: GPL-2.0-or-later
"""How udev is asked whether an interface is a slave: udev(7).

For managers that know interfaces by their names alone. What is asked for is there
once 80-net-setup-link.rules was read.
"""

from pyfailover.model import Rule, RuleKey

# What stands for other things inside of a value.
_UNSAID = str.maketrans({'"': "?", "|": "?", "\\": "?"})


def line(events: str, master: str, rule: Rule, action: str) -> str | None:
    """What udev is to do with a slave; None if it does not know of what a rule asks.

    Args:
        events: as `add|change`.
        master: is none of them, whatever the rule.
    """
    terms = ['SUBSYSTEM=="net"', f'ACTION=="{events}"', f'NAME!="{_literal(master)}"']
    for key, wanted in rule.items():
        match key:
            case RuleKey.NAME:
                # The one that it will have; ENV{INTERFACE} is the kernel's.
                terms.append(f'NAME=="{wanted.translate(_UNSAID)}"')
            case RuleKey.DRIVER:
                terms.append(f'ENV{{ID_NET_DRIVER}}=="{_literal(wanted)}"')
            case RuleKey.PCI:
                terms.append(f'ENV{{ID_PATH}}=="pci-{wanted}"')
            case RuleKey.MAC:
                terms.append(f'ATTR{{address}}=="{wanted}"')
            case RuleKey.ALTNAME:
                return None
    return ", ".join((*terms, action)) + "\n"


def _literal(text: str) -> str:
    plain = text.translate(_UNSAID)
    return "".join("?" if each in "*[]" else each for each in plain)
