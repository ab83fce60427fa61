# SPDX-License-Identifier: GPL-2.0-or-later
"""The exporter on made-up data: what is seen while something is missing, what becomes
of it, and which addresses and files it takes."""

import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import (
    CollectorRegistry,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pyfailover import control, report
from pyfailover.errors import ConfigError, NetlinkError, PyFailoverError, StateError
from pyfailover.exporter import looking
from pyfailover.exporter.address import parse_address
from pyfailover.exporter.families import families
from pyfailover.exporter.looking import Looker, Seen
from pyfailover.exporter.process import State
from pyfailover.exporter.serving import Server, Tls
from pyfailover.exporter.text import to_text
from pyfailover.history import Event, History, Kind
from pyfailover.model import Decider, Policy, Reason, Role, RxMode, Side, TcMode
from pyfailover.place import Roots
from pyfailover.report import GroupStatus, Health, SlaveStatus
from pyfailover.tally import Tally

SLAVE = SlaveStatus(
    slot=0,
    rank=0,
    role=Role.PRIMARY,
    name="eth1",
    ifindex=7,
    up=True,
    carrier=True,
    ready=True,
    active=True,
    approved=True,
    attached=True,
    counters={"tx_packets": 97, "rx_drop_inactive": 5},
)
GONE = replace(
    SLAVE,
    slot=1,
    rank=1,
    role=Role.STANDBY,
    name="driver=iavf",
    ifindex=None,
    up=False,
    carrier=False,
    ready=False,
    active=False,
    attached=False,
    counters={},
)
GROUP = GroupStatus(
    name="fo0",
    health=Health.OK,
    side=Side.STACK,
    tc=TcMode.TCX,
    created=True,
    master="fo0-low",
    master_attached=True,
    active="eth1",
    generation=97,
    decided_by="kernel",
    slaves=[SLAVE, GONE],
    counters={"tx_drop_no_active": 3},
    policy=Policy.ALWAYS,
    pinned=None,
    carrier_test=True,
    rx=RxMode.ACTIVE,
)
SWITCH = Event(
    time=1795590091.25,
    group="fo0",
    kind=Kind.SWITCH,
    before="eth1",
    after=None,
    reason=Reason.CARRIER_LOST,
    by=Decider.CONTROLLER,
    took_s=0.002,
    generation=7,
)


def told(*events: Event, **more: Any) -> dict[str, Any]:
    """What a controller answers to `metrics`."""
    tally = Tally()
    for event in events:
        tally.happened(event)
    return {
        "pid": 97,
        "started": 1795590000.0,
        "counts": {"events": 11, "overruns": 2, "resyncs": 3, "repairs": 0},
        "troubles": {},
        "groups": {},
        "tally": tally.as_data(),
        "loads": {"cache": 1, "compiler": 0},
        **more,
    }


def values(seen: Seen) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(seen)
        for sample in family.samples
    }


def value(seen: Seen, name: str, **labels: str) -> float | None:
    """One sample; None: it is not there. The label `from_` is `from`."""
    wanted = {key.rstrip("_"): text for key, text in labels.items()}
    return values(seen).get((f"pyfailover_{name}", frozenset(wanted.items())))


# --- metrics ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "labels", "number"),
    [
        ("controller_up", {}, 0),
        ("datapath_up", {}, 1),
        ("groups", {"state": "attached"}, 1),
        ("groups", {"state": "waiting"}, 1),
        ("group_health", {"master": "fo0", "health": "ok"}, 1),
        ("group_health", {"master": "fo0", "health": "down"}, 0),
        ("group_active_rank", {"master": "fo0"}, 0),
        ("group_slaves", {"master": "fo0"}, 2),
        ("group_usable_slaves", {"master": "fo0"}, 1),
        ("group_trouble", {"master": "fo0"}, 0),
        ("group_trouble", {"master": "fo7"}, 1),
        ("group_last_switch_timestamp_seconds", {"master": "fo0"}, 97.5),
        ("group_degraded_since_timestamp_seconds", {"master": "fo0"}, 0),
        (
            "slave_transmit_packets_total",
            {"master": "fo0", "slave": "eth1", "rank": "0"},
            97,
        ),
        (
            "slave_transmit_packets_total",
            {"master": "fo0", "slave": "driver=iavf", "rank": "1"},
            0,
        ),
        ("attachment_present", {"master": "fo0", "interface": "fo0-low"}, 1),
        ("attachment_present", {"master": "fo0", "interface": "driver=iavf"}, 0),
        ("drops_total", {"master": "fo0", "slave": "", "reason": "no_active"}, 3),
        ("drops_total", {"master": "fo0", "slave": "eth1", "reason": "inactive"}, 5),
        ("drops_total", {"master": "fo0", "slave": "eth1", "reason": "link"}, 13),
        ("switches_total", {}, None),
        ("netlink_events_total", {}, None),
    ],
)
def test_without_a_controller(
    name: str, labels: Mapping[str, str], number: float | None
) -> None:
    """State, packets and drops are there, also of a slave that is not."""
    seen = Seen(
        groups=[GROUP], waiting=["fo7"], dropped={7: 13}, last_switch={"fo0": 97.5}
    )
    assert value(seen, name, **labels) == number


def test_with_a_controller() -> None:
    """What it counted comes with it."""
    seen = Seen(groups=[GROUP], controller=told(SWITCH))
    switch = {"master": "fo0", "from_": "eth1", "to": "none"}
    words = {"reason": "carrier_lost", "decider": "controller"}
    assert value(seen, "switches_total", **switch, **words) == 1
    name = "switch_duration_seconds"
    found = [
        value(seen, f"{name}_bucket", decider="controller", le=end)
        for end in ("0.001", "0.0025", "10.0", "+Inf")
    ]
    assert found == [0, 1, 1, 1]
    assert value(seen, f"{name}_count", decider="kernel") == 0
    assert value(seen, f"{name}_sum", decider="controller") == 0.002
    assert value(seen, "announcements_total", master="fo0") == 0
    assert value(seen, "netlink_events_total") == 11
    assert value(seen, "program_loads_total", source="cache") == 1
    assert value(seen, "reloads_total", result="failure") == 0
    assert value(seen, "controller_up") == 1


@pytest.mark.parametrize(
    ("verdict", "ready", "attached", "usable"),
    [
        (None, True, True, 1),
        (None, False, True, 0),
        (None, True, False, 0),
        ("usable", True, True, 1),
        ("usable", True, False, 0),
        ("damped", True, True, 0),
        ("up delay", True, True, 0),
    ],
)
def test_usable(
    verdict: str | None, ready: bool, attached: bool, usable: float
) -> None:
    """What the controller finds counts; without one, what is ready; attached both."""
    slave = replace(SLAVE, verdict=verdict, ready=ready, attached=attached)
    seen = Seen(groups=[replace(GROUP, slaves=[slave])])
    labels = {"master": "fo0", "slave": "eth1", "rank": "0"}
    assert value(seen, "slave_usable", **labels) == usable
    assert value(seen, "group_usable_slaves", master="fo0") == usable
    assert value(seen, "slave_damped", **labels) == (verdict == "damped")


@pytest.mark.parametrize(
    ("groups", "readable", "up"),
    [
        ([], True, 1),
        ([GROUP], True, 1),
        ([replace(GROUP, carrier_test=None, health=Health.DOWN)], True, 0),
        ([replace(GROUP, carrier_test=None, health=Health.IDLE)], True, 1),
        ([], False, 0),
    ],
)
def test_datapath_up(groups: list[GroupStatus], readable: bool, up: float) -> None:
    """It is, unless an attached group has no programs, or nobody can tell."""
    assert value(Seen(groups=groups, readable=readable), "datapath_up") == up


def test_text() -> None:
    """What prometheus_client reads in our text is what it reads in its own, also with
    characters that must be escaped."""
    slave = replace(GONE, name='altname="a\\b"\n')

    class Still(Looker):
        def look(self) -> Seen:
            return Seen(
                groups=[replace(GROUP, slaves=[slave])], controller=told(SWITCH)
            )

    registry = CollectorRegistry()
    registry.register(State(Still(Roots())))
    ProcessCollector(registry=registry)
    collected = list(registry.collect())
    ours, theirs = to_text(collected), generate_latest(Fixed(collected))
    assert families_in(ours) == families_in(theirs)
    assert len(families_in(ours)) == len(collected) > 40
    assert b'slave="altname=\\"a\\\\b\\"\\n"' in ours


class Fixed(Collector):
    """Metrics that were collected already."""

    def __init__(self, found: Sequence[Metric]) -> None:
        self._found = found

    def collect(self) -> Sequence[Metric]:
        """Those."""
        return self._found


def families_in(text: bytes) -> list[Metric]:
    """Metrics, as prometheus_client reads them."""
    return list(text_string_to_metric_families(text.decode()))


# --- looking ------------------------------------------------------------------


@dataclass
class World:
    """What there is; a test changes it between looks."""

    run: Path
    groups: list[GroupStatus] = field(default_factory=lambda: [GROUP])
    controller: Callable[[], dict[str, Any] | None] = lambda: None
    report_fails: PyFailoverError | None = None
    links_fail: PyFailoverError | None = None

    def __post_init__(self) -> None:
        self.looker = Looker(Roots())

    def look(self) -> Seen:
        """Look once."""
        return self.looker.look()

    def last_switch(self) -> float | None:
        """Of the group, at a look."""
        return self.look().last_switch.get("fo0")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with one group, and no controller."""
    made = World(tmp_path)

    def groups(*_: object) -> list[GroupStatus]:
        if made.report_fails is not None:
            raise made.report_fails
        return made.groups

    def links() -> dict[int, int]:
        if made.links_fail is not None:
            raise made.links_fail
        return {7: 13}

    def ask(run: Path, do: str, *, timeout_s: float) -> dict[str, Any] | None:
        assert (run, do, timeout_s) == (tmp_path, "metrics", 2.0)
        return made.controller()

    monkeypatch.setattr(looking, "paths", lambda _: (tmp_path, tmp_path))
    monkeypatch.setattr(report, "groups", groups)
    monkeypatch.setattr(looking, "dropped_on_transmit", links)
    monkeypatch.setattr(control, "ask", ask)
    return made


def test_a_look(world: World) -> None:
    """All of it, where nothing is missing."""
    world.controller = lambda: told(troubles={"fo7": "no 'eth9'"})
    seen = world.look()
    assert (seen.groups, seen.waiting, seen.dropped) == ([GROUP], ["fo7"], {7: 13})
    assert seen.controller is not None
    assert (seen.controller_pid, seen.readable) == (97, True)


def test_what_fails_is_left_out(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A look never fails; what did is said once, and again when it is another."""
    caplog.set_level(logging.WARNING)
    world.report_fails = StateError("cannot read the record '/run/x': format 1")
    world.links_fail = NetlinkError("cannot read counters: no buffer")

    def hang() -> None:
        raise PyFailoverError("the controller does not answer: timed out")

    world.controller = hang
    for _ in range(2):
        seen = world.look()
    assert (seen.groups, seen.dropped, seen.controller) == ([], {}, None)
    assert not seen.readable
    assert sorted(entry.getMessage() for entry in caplog.records) == [
        "cannot read counters: no buffer",
        "cannot read the record '/run/x': format 1",
        "the controller does not answer: timed out",
    ]
    world.report_fails = world.links_fail = None
    assert world.look().readable
    world.links_fail = NetlinkError("cannot read counters: no buffer")
    world.look()
    assert len(caplog.records) == 4


def test_the_last_switch_is_remembered(world: World) -> None:
    """A controller tells it; when that is gone it stays, and its successor, who knows
    nothing yet, does not take it away."""
    assert world.last_switch() is None
    world.controller = lambda: told(SWITCH)
    assert world.last_switch() == SWITCH.time
    world.controller = lambda: None
    assert world.last_switch() == SWITCH.time
    world.controller = told
    assert world.last_switch() == SWITCH.time
    world.controller = lambda: told(replace(SWITCH, time=SWITCH.time + 7))
    assert world.last_switch() == SWITCH.time + 7


def test_the_last_switch_of_the_history(world: World) -> None:
    """Without a controller it is read there, and once more when somebody wrote."""
    History(world.run).append(SWITCH)
    assert world.last_switch() == SWITCH.time
    History(world.run).append(replace(SWITCH, time=SWITCH.time + 7))
    assert world.last_switch() == SWITCH.time + 7


def test_the_last_step_of_a_program(world: World) -> None:
    """A step that no controller told of counts; a little later, be it that the clock
    was corrected, or told of by a controller, it is no other."""
    stepped = SWITCH.time
    for later in (0, 0.001, 0.05):
        world.groups = [replace(GROUP, stepped_at=stepped + later)]
        assert world.last_switch() == stepped
    world.controller = lambda: told(replace(SWITCH, time=stepped + 0.05))
    assert world.last_switch() == stepped
    world.controller = lambda: told(replace(SWITCH, time=stepped + 1))
    assert world.last_switch() == stepped + 1


def test_degraded_since(world: World) -> None:
    """The controller tells; then it is remembered, of the history, or of the look that
    saw it first, until the group is whole."""
    degraded = replace(GROUP, health=Health.DEGRADED)
    world.groups = [replace(degraded, degraded_since=97.0)]
    world.controller = told
    assert world.look().degraded_since == {"fo0": 97.0}
    world.groups, world.controller = [degraded], lambda: None
    assert world.look().degraded_since == {"fo0": 97.0}
    world.groups = [GROUP]
    assert world.look().degraded_since == {}
    world.groups = [degraded]
    first = world.look().degraded_since["fo0"]
    assert first == pytest.approx(time.time(), abs=5)
    assert world.look().degraded_since == {"fo0": first}


def test_degraded_since_of_the_history(world: World) -> None:
    """An exporter that starts when the controller is gone already knows it, too."""
    History(world.run).append(replace(SWITCH, kind=Kind.DEGRADED, took_s=None))
    world.groups = [replace(GROUP, health=Health.DEGRADED)]
    assert world.look().degraded_since == {"fo0": SWITCH.time}


def test_a_group_that_goes_is_forgotten(world: World) -> None:
    """Nothing is kept for it."""
    world.controller = lambda: told(SWITCH)
    world.groups = [replace(GROUP, degraded_since=97.0)]
    world.look()
    world.groups = []
    seen = world.look()
    assert (seen.last_switch, seen.degraded_since) == ({}, {})


# --- serving ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9909", ("127.0.0.1", 9909)),
        ("[::1]:0", ("::1", 0)),
        ("[fe80::1%eth0]:97", ("fe80::1%eth0", 97)),
        ("node.example:65535", ("node.example", 65535)),
    ],
)
def test_address(text: str, expected: tuple[str, int]) -> None:
    """A host and a port; an IPv6 address in brackets."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9909",
        ":9909",
        "h:",
        "h:65536",
        "h:-1",
        "h:1x",
        "::1:97",
        "[h]:97",
        "h:\u0669",
    ],
)
def test_no_address(text: str) -> None:
    """Anything else is refused, and what is one is shown."""
    with pytest.raises(ConfigError, match="is not an address to listen on") as caught:
        parse_address(text)
    assert caught.value.hint == "HOST:PORT, like 127.0.0.1:9909 or [::1]:9909"


def test_a_port_that_is_taken() -> None:
    """One clear line."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(PyFailoverError) as caught:
            Server(address, None, CollectorRegistry())
    assert (
        caught.value.message == f"cannot listen on '{address}': Address already in use"
    )


def test_an_address_of_somebody_else() -> None:
    """An address that this host has not."""
    with pytest.raises(PyFailoverError, match="Cannot assign requested address"):
        Server("192.0.2.97:0", None, CollectorRegistry())


def test_files_that_are_no_good(tmp_path: Path) -> None:
    """It says which, and why."""
    files = Tls(certificate=tmp_path / "c.pem", key=tmp_path / "k.pem")
    with pytest.raises(ConfigError, match=r"cannot use the certificate.*No such file"):
        files.context()
    for path in (files.certificate, files.key):
        path.write_text("nothing\n")
    with pytest.raises(ConfigError, match="cannot use the certificate"):
        files.context()


def test_a_client_ca_that_is_no_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of the CA of clients."""
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda *_: None)
    ca = tmp_path / "ca.pem"
    files = Tls(certificate=ca, key=ca, client_ca=ca)
    with pytest.raises(ConfigError, match=r"cannot use the client CA.*No such file"):
        files.context()
    ca.write_text("nothing\n")
    with pytest.raises(ConfigError, match="cannot use the client CA"):
        files.context()
