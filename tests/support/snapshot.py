# SPDX-License-Identifier: GPL-2.0-or-later
"""All of a namespace that pyfailover could change, as values to compare.

By iproute2 wherever it can tell, so that it is a witness of its own: links with
all their details, addresses, routes, qdiscs, filters; tcx programs; the pins,
the records, and what the maps say.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pyfailover.datapath import libbpf
from pyfailover.lab import Namespace, eventually
from pyfailover.transaction import open_programs
from tests.support.tool import Tool

Snapshot = dict[str, object]

_QUESTIONS = (
    "ip -d -j link",
    "ip -j addr",
    "tc -j qdisc show",
    "ip -4 -j route show table all",
    "ip -6 -j route show table all",
)

# The qdisc that the kernel chose by itself stays once a device was up.
_VOLATILE = ("qdisc",)


def take(tool: Tool, ns: Namespace) -> Snapshot:
    """What there is now; each key names one thing that can be compared."""
    links, addresses, qdiscs, *routes = map(_decoded, _ask(ns, *_QUESTIONS))
    found: Snapshot = {}
    for link in links:
        kept = {key: value for key, value in link.items() if key not in _VOLATILE}
        found[f"link {link['ifname']}"] = kept
    for link in addresses:
        found[f"addresses of {link['ifname']}"] = link.get("addr_info", [])
    for family, listed in zip(("IPv4", "IPv6"), routes, strict=True):
        found[f"routes of {family}"] = sorted(map(str, listed))
    found |= _qdiscs(ns, [q for q in qdiscs if q["handle"] != "0:"])
    names = {link["ifindex"]: link["ifname"] for link in links}
    return found | _programs(tool, ns, names) | _files(tool)


def _ask(ns: Namespace, *commands: str) -> list[str]:
    """What each command prints, by one shell: this is called very often."""
    if not commands:
        return []
    separator = "\n@@@\n"
    script = "set -e; " + f"; printf '{separator}'; ".join(commands)
    return ns.run("sh", "-c", script).stdout.split(separator)


def _decoded(said: str) -> list[dict[str, Any]]:
    """JSON of `ip` or `tc`; nothing printed is an empty list."""
    listed: list[dict[str, Any]] = json.loads(said) if said.strip() else []
    return listed


def _qdiscs(ns: Namespace, qdiscs: list[dict[str, Any]]) -> Snapshot:
    """Qdiscs by device, and the filters on the hooks that they hold."""
    found: Snapshot = {}
    hooks = []
    for qdisc in qdiscs:
        kept = {key: value for key, value in qdisc.items() if key != "refcnt"}
        found[f"qdisc {qdisc['kind']} of {qdisc['dev']}"] = kept
        if qdisc["kind"] in ("clsact", "ingress"):
            hooks += [(qdisc["dev"], "ingress"), (qdisc["dev"], "egress")]
    shown = _ask(ns, *(f"tc filter show dev {dev} {hook}" for dev, hook in hooks))
    for (dev, hook), said in zip(hooks, shown, strict=True):
        found[f"filters of {dev} {hook}"] = said
    return found


def _programs(tool: Tool, ns: Namespace, names: Mapping[int, str]) -> Snapshot:
    found: Snapshot = {}
    with ns.enter():
        for ifindex, name in names.items():
            for hook, number in (
                ("ingress", libbpf.TCX_INGRESS),
                ("egress", libbpf.TCX_EGRESS),
            ):
                found[f"tcx {hook} of {name}"] = libbpf.tcx_progs(ifindex, number)
    programs = open_programs(tool.pins(ns))
    if programs is None:
        return found
    with programs:
        found["programs"] = programs.program_ids()
        ports = programs.ports()
        found["ports"] = {ifindex: bytes(port) for ifindex, port in ports.items()}
        for index in {port.group for port in ports.values()}:
            found[f"group {index}"] = (programs.slaves(index), programs.word(index))
    return found


def _files(tool: Tool) -> Snapshot:
    """Pins by name, records by name and content; lock and history may stay."""
    pins = sorted(str(path) for path in tool.roots.pins.rglob("*"))
    if tool.roots.pins.exists():
        pins.insert(0, str(tool.roots.pins))
    records = {
        str(path): path.read_text()
        for path in tool.roots.run.rglob("*")
        if path.is_file() and path.name not in ("lock", "events.jsonl")
    }
    return {"pins": pins, "records": records}


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is not the same, a line for each."""
    return [
        f"{key}: {before.get(key)} became {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def assert_same(before: Snapshot, now: Callable[[], Snapshot], *, where: str) -> None:
    """See that things are, within a moment for the kernel, as they were.

    Raises:
        AssertionError: names what is not.
    """
    unlike = differences(before, now())
    try:
        if unlike:  # a carrier is told with a delay
            eventually(lambda: not differences(before, now()), timeout=2)
    except TimeoutError:
        lines = "\n  ".join(differences(before, now()))
        raise AssertionError(f"{where}, not as before:\n  {lines}") from None
