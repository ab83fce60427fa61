# SPDX-License-Identifier: GPL-2.0-or-later
"""Who else sets interfaces up: network managers, and how to keep each away."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote

from pyfailover.doctor.findings import Finding, Level
from pyfailover.doctor.system import HOST, System, text, value
from pyfailover.model import Link

_MANAGERS = {  # by /proc/PID/comm, which has 15 bytes
    "NetworkManager": "NetworkManager",
    "systemd-network": "systemd-networkd",
    "dhclient": "dhclient",
    "dhcpcd": "dhcpcd",
    "connmand": "connmand",
    "wickedd": "wickedd",
}
# Those that do not show which interfaces are theirs, and where that is said.
_OPAQUE = {
    "dhcpcd": "denyinterfaces in /etc/dhcpcd.conf",
    "connmand": "NetworkInterfaceBlacklist in /etc/connman/main.conf",
    "wickedd": "STARTMODE='off' in /etc/sysconfig/network/ifcfg-IF",
}
# Those that `pyfailover netconf` tells of all slaves at once, by its words for them.
_TOLD = {"systemd-networkd": "networkd", "NetworkManager": "networkmanager"}


def managers(system: System = HOST) -> dict[str, list[str]]:
    """Network managers of this network namespace, with the words of their
    command lines."""
    found: dict[str, list[str]] = {}
    here = _namespace(system.proc / "thread-self")
    for comm in system.proc.glob("[0-9]*/comm"):
        with suppress(OSError):  # it ended meanwhile
            name = _MANAGERS.get(text(comm).strip())
            if name is not None and _namespace(comm.parent) == here:
                words = text(comm.parent / "cmdline").split("\0")
                found.setdefault(name, []).extend(words)
    return found


def _namespace(process: Path) -> int | None:
    """A number of the network namespace of a process; ns/net would need more rights."""
    try:
        return (process / "net/dev").stat().st_ino
    except OSError:
        return None  # it ended meanwhile


def opaque_managers(running: Mapping[str, object]) -> Finding:
    """Whether one runs that may or may not set slaves up."""
    found = ", ".join(sorted(running)) or "none runs"
    look = Finding(what="managers", found=found)
    opaque = sorted(_OPAQUE.keys() & running.keys())
    if not opaque:
        return look
    return replace(
        look,
        level=Level.COST,
        cost=f"{' and '.join(opaque)} may give slaves addresses; whether, is not shown",
        mend="except the slaves: " + "; ".join(_OPAQUE[name] for name in opaque),
    )


def claims(
    link: Link,
    running: Mapping[str, Sequence[str]],
    system: System = HOST,
    *,
    master: str | None = None,
) -> Iterator[tuple[str, str]]:
    """Who would set up an interface, and how to keep him from it.

    Args:
        master: of the group that it is a slave of; None: of none yet.
    """
    for who, mend in _claims(link, running, system):
        manager = _TOLD.get(who)
        if master is not None and manager is not None:
            mend = f"pyfailover netconf {quote(master)} --for {manager} --install"
        yield who, mend


def _claims(
    link: Link, running: Mapping[str, Sequence[str]], system: System
) -> Iterator[tuple[str, str]]:
    name, index = link.name, str(link.ifindex)
    if "systemd-networkd" in running:
        state = value(system.networkd / index, "ADMIN_STATE")
        if state not in (None, "unmanaged"):
            yield (
                "systemd-networkd",
                rf"printf '[Match]\nName={name}\n[Link]\nUnmanaged=yes\n' > "
                f"/etc/systemd/network/05-{name}.network; networkctl reload",
            )
    if (
        "NetworkManager" in running
        and value(system.networkmanager / index, "managed") == "true"
    ):
        yield "NetworkManager", f"nmcli device set {name} managed no"
    if name in running.get("dhclient", ()):
        yield "dhclient", f"dhclient -r {name}"
    # ifupdown has no process; it is about the namespace that was booted.
    if _namespace(system.proc / "1") == _namespace(system.proc / "thread-self"):
        for path in (
            system.ifupdown / "interfaces",
            *sorted(system.ifupdown.glob("interfaces.d/*")),
            *sorted(system.ifupdown_made.glob("*")),
        ):
            if name in _configured(path):
                yield "ifupdown", f"remove the stanza of {name} from {path}"


def _configured(path: Path) -> set[str]:
    """Interfaces that a file of interfaces(5) configures; `manual` does not."""
    try:
        lines = [line.split() for line in text(path).splitlines()]
    except OSError:
        return set()
    return {
        words[1]
        for words in lines
        if len(words) > 3 and words[0] == "iface" and words[3] != "manual"
    }
