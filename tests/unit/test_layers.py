# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may import whom: one table, by which every module of the package is judged.

A module without a row fails. Imports inside functions and for type checkers
count like all others.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import pyfailover

PACKAGE = Path(pyfailover.__file__).parent
ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"
PURE = frozenset({"asyncio", "os", "socket", "subprocess", "time", "threading"})


@dataclass(frozen=True)
class Row:
    """What a module may import."""

    ours: str = ""  # further modules of ours, besides errors and model; one that
    # ends in a dot stands for all below it, the dot alone for the package itself
    libraries: str = ""
    banned: frozenset[str] = frozenset()  # of the standard library
    values: str = "errors model"
    prints: bool = False

    @property
    def allowed(self) -> set[str]:
        """Modules of ours."""
        return set(self.ours.split()) | set(self.values.split())


TABLE = {
    # what all may import
    "": Row(values=""),
    "errors": Row(values="", banned=PURE),
    "model": Row(values="errors", banned=PURE),
    # pure decisions, and groups as files have them
    "core": Row(banned=PURE),
    "admission": Row(banned=PURE),
    "rules": Row(banned=PURE),
    "config": Row(banned=PURE - {"os"}),
    "journal": Row("config", banned=PURE),
    # each hides one thing of the world, and knows of no other
    "netlink": Row(values=""),
    "netlink.decode": Row("netlink."),
    "netlink.dump": Row("netlink."),
    "netlink.events": Row("netlink.", libraries="pyroute2"),
    "netlink.features": Row("netlink.", libraries="pyroute2"),
    "netlink.rtnl": Row("netlink.", libraries="pyroute2"),
    "ethtool": Row(),
    "announce": Row(),
    "place": Row(),
    "privileges": Row(),
    "confinement": Row("privileges"),
    "logs": Row(values=""),
    "history": Row(),
    "control": Row(),
    "service": Row(values=""),
    "datapath": Row(values=""),
    "datapath.abi": Row("datapath."),
    "datapath.libbpf": Row("datapath."),
    "datapath.toolchain": Row("datapath."),
    "datapath.build": Row("datapath. privileges", libraries="bcc"),
    "datapath.image": Row("datapath.", values="", banned=PURE),
    "datapath.btf": Row("datapath."),
    "datapath.kernel_steps": Row("datapath."),
    "datapath.recipe": Row("datapath."),
    "datapath.trusted": Row(),
    "datapath.cache": Row("datapath."),
    "datapath.loading": Row("datapath."),
    "datapath.programs": Row("datapath."),
    "datapath.readings": Row("datapath."),
    "datapath.ring": Row(values=""),
    "datapath.hooks": Row("datapath."),
    # what joins them, on a locked namespace
    "steps": Row("core datapath. ethtool journal netlink.rtnl"),
    "plan": Row("admission datapath. journal rules steps"),
    "transaction": Row("datapath. ethtool journal netlink.rtnl place steps"),
    "switching": Row("announce core history journal plan transaction"),
    "mending": Row("admission journal plan steps switching transaction"),
    "renewal": Row("datapath. journal mending steps transaction"),
    "lifecycle": Row(
        "admission datapath. journal mending plan renewal steps switching transaction"
    ),
    "commands": Row("config datapath. journal lifecycle mending transaction"),
    "upkeep": Row("journal lifecycle mending plan steps transaction"),
    # the controller
    "keeper": Row("announce core datapath. ethtool journal plan switching"),
    "poll": Row("ethtool keeper"),
    "tally": Row("history", banned=PURE),
    "telling": Row("history logs tally"),
    "jobs": Row("journal logs place transaction"),
    "kept": Row(
        "announce commands config datapath. ethtool history jobs journal keeper logs "
        "mending place poll rules switching telling transaction upkeep"
    ),
    "exporting": Row("logs place"),
    "controller": Row(
        "commands config control ethtool exporting kept logs netlink.events "
        "place poll privileges renewal service transaction upkeep"
    ),
    "requests": Row(
        ". commands config control controller datapath. history switching transaction"
    ),
    # asking it, and looking on
    "asking": Row(
        "commands config control journal mending netlink.rtnl place renewal switching "
        "transaction"
    ),
    "report": Row("datapath. journal netlink.dump place steps transaction"),
    "doctor": Row("doctor.", values=""),
    "doctor.findings": Row("doctor."),
    "doctor.system": Row("doctor."),
    "doctor.host": Row("datapath. doctor. place privileges"),
    "doctor.claimants": Row("doctor."),
    "doctor.groups": Row("doctor. report"),
    "doctor.interfaces": Row(
        "admission datapath. doctor. journal netlink.features place plan report steps"
    ),
    "doctor.examination": Row(
        "doctor. ethtool journal netlink.rtnl place steps transaction"
    ),
    "exporter": Row(values=""),
    "exporter.address": Row(),
    "exporter.looking": Row("control history netlink.dump place report transaction"),
    "exporter.families": Row(
        ". datapath. exporter. report tally", libraries="prometheus_client"
    ),
    "exporter.serving": Row("exporter.", libraries="prometheus_client"),
    "exporter.text": Row(libraries="prometheus_client"),
    "exporter.process": Row(
        "confinement exporter. logs place privileges", libraries="prometheus_client"
    ),
    # telling network managers
    "netconf": Row("netconf.", values=""),
    "netconf.files": Row("netconf.", values="", banned=PURE),
    "netconf.subject": Row("rules", banned=PURE),
    "netconf.udev": Row("netconf.", banned=PURE),
    "netconf.networkd": Row("netconf.", banned=PURE),
    "netconf.networkmanager": Row("netconf.", banned=PURE),
    "netconf.ifupdown": Row("netconf.", banned=PURE),
    "netconf.managers": Row("netconf.", banned=PURE),
    "netconf.installing": Row("netconf."),
    "netconf.finding": Row(
        "config ethtool journal netconf. netlink.rtnl place plan steps transaction"
    ),
    # what shows it
    "demo": Row(
        "asking commands control history lab place report traffic. transaction",
        prints=True,
    ),
    "cli": Row("cli.", values=""),
    "cli.app": Row(". cli. logs place", libraries="click"),
    "cli.caching": Row("cli. datapath. place", libraries="click"),
    "cli.groups": Row(
        "asking cli. commands lifecycle mending place transaction", libraries="click"
    ),
    "cli.completing": Row("cli. place", libraries="click"),
    "cli.manual": Row("cli.", libraries="click"),
    "cli.managing": Row("cli. netconf. netconf place", libraries="click"),
    "cli.running": Row(
        "asking cli. controller demo exporter. logs place privileges requests",
        libraries="click",
    ),
    "cli.showing": Row(
        "asking cli. control doctor. history place report transaction",
        libraries="click",
    ),
    "__main__": Row("cli"),
    # sandbox: nothing of the product's own netlink and BPF
    "lab": Row("place"),
    "traffic": Row("traffic."),
    "traffic.accounting": Row(),
    "traffic.mmsg": Row(),
    "traffic.pace": Row(),
    "traffic.process": Row("lab traffic."),
    "traffic.tcp": Row("lab traffic."),
    "traffic.udp": Row("lab traffic."),
}

# Who may wait in an event loop; all others are called from it, or are plain.
IN_THE_LOOP = {"control", "controller", "exporting", "jobs", "kept", "telling"}


def dotted(path: Path) -> str:
    """`datapath.abi` for its file; `datapath` and "" for packages."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def modules() -> Mapping[str, ast.Module]:
    """The package's modules, parsed."""
    return {dotted(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def imported(tree: ast.Module, known: Mapping[str, object]) -> Iterator[str]:
    """Full names of all modules that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                # A name of a package may be one of its modules or in itself.
                yield name if name.partition(".")[2] in known else node.module or ""


def coarse(name: str) -> str:
    """The box of the graph that a module is in."""
    return name.partition(".")[0]


def arrows() -> set[tuple[str, str]]:
    """From box to box: who imports whom."""
    found = {
        (coarse(name), coarse(rest))
        for name, tree in modules().items()
        for full in imported(tree, modules())
        for top, _, rest in [full.partition(".")]
        if top == "pyfailover" and rest
    }
    return {(a, b) for a, b in found if a != b}


def faults(name: str, tree: ast.Module, row: Row) -> Iterator[str]:
    """What a module imports or does against its row."""
    for full in imported(tree, modules()):
        top, _, rest = full.partition(".")
        if top == "pyfailover":
            if row.allowed.isdisjoint((rest or ".", f"{coarse(rest)}.")):
                yield f"{name} imports {full}"
        elif top in row.banned:
            yield f"{name} imports {full}, which is not pure"
        elif top not in sys.stdlib_module_names | set(row.libraries.split()):
            yield f"{name} imports {full}"
    if not row.prints:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "print":
                yield f"{name} prints"


def test_every_module_has_its_row() -> None:
    """The table names every module of the package, and no other."""
    assert modules().keys() == TABLE.keys()


@pytest.mark.parametrize("name", TABLE)
def test_imports(name: str) -> None:
    """A module imports what its row allows, and prints only if it may."""
    assert list(faults(name, modules()[name], TABLE[name])) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import bcc", "core imports bcc"),
        ("from bcc import BPF", "core imports bcc"),
        ("from pyfailover import cli", "core imports pyfailover.cli"),
        ("from pyfailover.cli import main", "core imports pyfailover.cli"),
        ("import pyfailover.datapath.abi", "core imports pyfailover.datapath.abi"),
        ("from pyfailover import __version__", "core imports pyfailover"),
        ("import os.path", "core imports os.path, which is not pure"),
        ("def f():\n    import time", "core imports time, which is not pure"),
        (
            "if 0:\n    from socket import AF_INET",
            "core imports socket, which is not pure",
        ),
        ("print(1)", "core prints"),
        ("say = print", "core prints"),
    ],
)
def test_a_fault_is_seen(source: str, fault: str) -> None:
    """What a module must not do is found, wherever in it."""
    assert list(faults("core", ast.parse(source), TABLE["core"])) == [fault]


@pytest.mark.parametrize(
    ("library", "home"),
    {
        "bcc": ["datapath.build"],
        "pyroute2": ["netlink.events", "netlink.features", "netlink.rtnl"],
        "click": [
            "cli.app",
            "cli.caching",
            "cli.groups",
            "cli.completing",
            "cli.manual",
            "cli.managing",
            "cli.running",
            "cli.showing",
        ],
        "prometheus_client": [
            "exporter.families",
            "exporter.serving",
            "exporter.text",
            "exporter.process",
        ],
    }.items(),
)
def test_each_library_has_one_home(library: str, home: list[str]) -> None:
    """A library is allowed in one module or package of the table."""
    found = [name for name, row in TABLE.items() if library in row.libraries.split()]
    assert found == home


@pytest.mark.parametrize(
    ("name", "above"),
    {
        "__main__": set(),
        "cli": {"__main__"},
        "demo": {"cli"},
        "doctor": {"cli"},
        "netconf": {"cli"},
        "requests": {"cli"},
        "controller": {"cli", "requests"},
        "asking": {"cli", "demo"},
    }.items(),
)
def test_nobody_imports_what_is_above_it(name: str, above: set[str]) -> None:
    """What a person sees, and what runs for long, is known above it alone."""
    assert {a for a, b in arrows() if b == name} == above


def test_who_waits_in_an_event_loop() -> None:
    """asyncio is in the controller's modules alone."""
    found = {
        name
        for name, tree in modules().items()
        for full in imported(tree, modules())
        if full.partition(".")[0] == "asyncio"
    }
    assert found == IN_THE_LOOP


def test_the_graph_of_the_documentation_is_true() -> None:
    """Every arrow of docs/architecture.md is an import, and every import goes
    along its arrows, over model and errors too."""
    graph = ARCHITECTURE.read_text().partition("```mermaid")[2].partition("```")[0]
    drawn = set(re.findall(r"(\w+) --> (\w+)", graph))
    assert len(drawn) > 10
    actual = {(a, b) for a, b in arrows() if a != "__main__"}
    actual = {(a, b) for a, b in actual if b not in ("model", "errors")}
    assert drawn - actual == set(), "drawn, but not so"
    reach = set(drawn)
    while more := {(a, d) for a, b in reach for c, d in reach if b == c} - reach:
        reach |= more
    assert actual - reach == set(), "so, but not drawn"
    assert not {a for a, b in reach if a == b}, "a circle"


def test_the_documentation_has_every_module() -> None:
    """Its table of modules has every box of the graph, and none that there is not."""
    section = ARCHITECTURE.read_text().partition("## Modules")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"\w+", cell)}
    boxes = {coarse(name) for name in TABLE} - {"", "__main__"}
    assert boxes - named == set()
    assert named - {part for name in TABLE for part in name.split(".")} == set()
