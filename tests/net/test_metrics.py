# SPDX-License-Identifier: GPL-2.0-or-later
"""Scrapes of a real exporter: what it says is what happened, whatever else is gone."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyfailover.lab import eventually
from pyfailover.model import TcMode
from tests.support.capture import (
    EXPERIMENTAL,
    announcements,
    capture,
    ethernet,
    send,
)
from tests.support.daemon import RARELY, controller
from tests.support.scraping import Scrape, answers, children, exporter, keys, scrape
from tests.support.tool import Tool, spec
from tests.support.tools import tool as other_tool
from tests.support.topology import MAC, Duo

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
FRAME = ethernet(MAC, MAC, EXPERIMENTAL).ljust(597, b"\0")
METRICS = "--metrics=127.0.0.1:9909"


def wait_for(pair: Duo, good: Callable[[Scrape], bool], what: str) -> Scrape:
    """The first scrape that is as it should be."""
    found: list[Scrape] = []

    def look() -> bool:
        found[:] = [scrape(pair.host)]
        return good(found[0])

    eventually(look, timeout=20, what=what)
    return found[0]


def far_frame(pair: Duo) -> bytes:
    """From the far end to the master."""
    return ethernet(MAC, pair.far.mac("br0"), EXPERIMENTAL).ljust(211, b"\0")


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of each metric, as the document says."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([\w` ]*)\|", DOCUMENT.read_text(), re.MULTILINE
    )
    assert len(rows) > 40
    labels = {name: frozenset(re.findall(r"\w+", words)) for name, _, words in rows}
    return {name: (kind, labels[name]) for name, kind, _ in rows}


def exported(found: Scrape) -> dict[str, tuple[str, frozenset[str]]]:
    """The same of a scrape."""
    made = {}
    for family in found.families:
        suffix = "_total" if family.type == "counter" else ""
        keys = {key for sample in family.samples for key in sample.labels} - {"le"}
        made[family.name + suffix] = (family.type, frozenset(keys))
    return made


def test_a_failover_in_numbers(pair: Duo, tool: Tool) -> None:
    """Packets, drops, states, who decided and why: all as sent and as happened. Every
    metric is documented, every documented one is there, and promtool finds no fault."""
    tool.create(pair.host, spec())
    pair.address()
    pair.settle()
    one, two = ({"slave": "eth1", "rank": "0"}, {"slave": "eth2", "rank": "1"})
    with (
        controller(tool, pair.host, reconcile=RARELY),
        exporter(tool, pair.host),
        capture(pair.far, "p2") as witness,
    ):
        before = scrape(pair.host)
        send(pair.host, "fo0", *[FRAME] * 97)
        send(pair.far, "p1", *[far_frame(pair)] * 89)
        send(pair.far, "p2", *[far_frame(pair)] * 23)
        after = scrape(pair.host)

        def more(name: str, **labels: str) -> float:
            new, old = (s.get(name, master="fo0", **labels) for s in (after, before))
            assert new is not None
            assert old is not None
            return new - old

        assert more("slave_transmit_packets_total", **one) == 97
        assert more("slave_transmit_bytes_total", **one) == 97 * 597
        assert more("slave_receive_packets_total", **one) == 89
        assert more("slave_receive_bytes_total", **one) == 89 * 211
        assert more("drops_total", slave="eth2", reason="inactive") == 23
        assert more("slave_transmit_packets_total", **two) == 0
        assert (after.get("group_usable_slaves"), after.get("controller_up")) == (2, 1)
        assert after.get("group_health", health="ok") == 1
        assert after.get("group_degraded_since_timestamp_seconds") == 0

        pair.far.ip("link set p1 mtu 300")  # what is longer the veth drops
        send(pair.host, "fo0", *[FRAME] * 13)
        pair.far.ip("link set p1 mtu 1500")
        lost = scrape(pair.host).get("drops_total", slave="eth1", reason="link")
        assert (lost, after.get("drops_total", slave="eth1", reason="link")) == (13, 0)

        start = time.time()
        pair.cut(1)
        switched = wait_for(
            pair, lambda s: s.get("group_active_rank") == 1, "the standby is active"
        )
        now = wait_for(pair, lambda s: bool(s.series("switches_total")), "a switch")
        ((words, count),) = now.series("switches_total").items()
        decider, left, master, reason, to = words
        assert (left, master, reason, to) == ("eth1", "fo0", "carrier_lost", "eth2")
        assert decider in ("controller", "kernel")  # an address may have sent something
        assert count == 1
        assert now.get("switch_duration_seconds_count", decider=decider) == 1
        took = now.get("switch_duration_seconds_sum", decider=decider)
        assert took is not None
        assert 0 <= took < 20
        for name in ("last_switch", "degraded_since"):
            moment = now.get(f"group_{name}_timestamp_seconds")
            assert moment is not None
            assert start - 0.1 <= moment <= time.time()
        assert now.get("group_usable_slaves") == 1
        assert now.get("group_health", health="degraded") == 1
        assert switched.get("slave_active", **two) == 1
        assert (now.get("slave_up", **one), now.get("slave_carrier", **one)) == (1, 0)
        assert now.get("slave_ready", **one) == now.get("slave_usable", **one) == 0
        announced = wait_for(
            pair, lambda s: bool(s.get("announcements_total")), "announcements"
        )
        heard = len(announcements(witness.frames()))
        assert announced.get("announcements_total") == heard > 1  # IPv4, IPv6
        assert set(now.series("attachment_present").values()) == {1}
        assert now.get("netlink_events_total")
    assert exported(now) == documented()
    done = subprocess.run(
        [other_tool("promtool"), "check", "metrics"],
        input=now.text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_step_of_the_kernel(pair: Duo, tool: Tool) -> None:
    """With nobody but the programs the switch is seen, and when it was; a controller
    that comes knows who it was, and that is no other switch."""
    tool.create(pair.host, spec())
    with exporter(tool, pair.host):
        idle = scrape(pair.host)
        assert idle.get("group_last_switch_timestamp_seconds") == 0
        start = time.time()
        pair.cut(1)
        send(pair.host, "fo0", *[FRAME] * 23)
        alone = scrape(pair.host)
        moment = alone.get("group_last_switch_timestamp_seconds")
        assert moment is not None
        assert start - 0.1 <= moment <= time.time()
        assert alone.get("slave_left_total", slave="eth1") == 1
        sent = alone.get("slave_transmit_packets_total", slave="eth2")
        assert sent is not None
        assert sent >= 23
        assert alone.get("group_active_rank") == 1
        assert alone.get("controller_up") == 0
        assert alone.series("switches_total") == {}
        with controller(tool, pair.host, reconcile=RARELY):
            told = wait_for(pair, lambda s: bool(s.series("switches_total")), "told")
            assert told.series("switches_total") == {
                ("kernel", "eth1", "fo0", "carrier_lost", "eth2"): 1
            }
            assert told.get("switch_duration_seconds_count", decider="kernel") == 1
            assert told.get("switch_duration_seconds_sum", decider="kernel") == 0
            assert told.get("group_last_switch_timestamp_seconds") == moment


def test_a_controller_that_hangs_or_is_gone(pair: Duo, tool: Tool) -> None:
    """The scrape has its answer soon, says so, and has all else."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host) as daemon, exporter(tool, pair.host):
        assert scrape(pair.host).get("controller_up") == 1
        daemon.signal(signal.SIGSTOP)
        start = time.monotonic()
        hangs = scrape(pair.host)
        assert time.monotonic() - start < 6
        assert hangs.get("controller_up") == 0
        assert hangs.get("controller_process_resident_memory_bytes")
        daemon.signal(signal.SIGCONT)
        wait_for(pair, lambda s: s.get("controller_up") == 1, "a controller again")
        daemon.kill()
        gone = scrape(pair.host)
        assert (gone.get("controller_up"), gone.get("datapath_up")) == (0, 1)
        assert gone.get("controller_process_resident_memory_bytes") is None
        assert gone.get("netlink_events_total") is None
        assert gone.get("group_active_rank") == 0
        pair.cut(2)
        cut = wait_for(
            pair, lambda s: s.get("slave_carrier", slave="eth2") == 0, "no carrier"
        )
        assert cut.get("group_usable_slaves") == 1
        assert cut.get("group_degraded_since_timestamp_seconds")
        shutil.rmtree(tool.pins(pair.host))
        lost = scrape(pair.host)
        assert (lost.get("datapath_up"), lost.get("group_usable_slaves")) == (0, 0)
        assert lost.get("group_health", health="down") == 1


def test_without_a_capability(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """To read pins, records and links, and to ask the controller, takes none."""
    tool.create(pair.host, spec(tc=tc))
    with (
        controller(tool, pair.host),
        exporter(tool, pair.host) as process,
    ):
        found = scrape(pair.host)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert (found.get("controller_up"), found.get("datapath_up")) == (1, 1)
        assert list(found.series("attachment_present").values()) == [1, 1, 1]
        assert found.get("group_health", health="ok") == 1


@contextmanager
def scraping(pair: Duo) -> Iterator[list[Scrape]]:
    """Scrapes all the time; none may fail."""
    found: list[Scrape] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def go_on() -> None:
        try:
            while not stop.is_set():
                found.append(scrape(pair.host))
        except BaseException as exc:
            failed.append(exc)
            raise

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
    assert failed == []


def test_while_all_of_it_changes(pair: Duo, tool: Tool) -> None:
    """Groups that come and go and programs that are replaced fail no scrape; then all
    is there again, and a file that nobody can read is told."""
    pair.lab.veth(pair.host, "eth9", pair.far, "p9")
    tool.create(pair.host, spec())
    with (
        controller(tool, pair.host) as daemon,
        exporter(tool, pair.host),
        scraping(pair) as found,
    ):
        tool.command(pair.host, "create", "fo1", "--standby", "eth9")
        wait_for(pair, lambda s: len(s.series("group_slaves")) == 2, "two groups")
        tool.command(pair.host, "reload", "--programs")
        assert set(scrape(pair.host).series("attachment_present").values()) == {1}
        tool.command(pair.host, "destroy", "fo1")
        tool.command(pair.host, "destroy", "fo0")
        none = scrape(pair.host)
        assert (none.series("group_slaves"), none.get("datapath_up")) == ({}, 1)
        tool.command(pair.host, "create", "fo0", "--standby", "eth1")
        now = wait_for(pair, lambda s: bool(s.series("group_slaves")), "a group")
        assert now.get("group_health", health="ok") == 1
        assert now.get("program_loads_total", source="cache") == 2
        tool.roots.etc.mkdir(exist_ok=True)
        (tool.roots.etc / "bad.toml").write_text("no TOML")
        tool.command(pair.host, "reload", code=None)
        bad = scrape(pair.host)
        assert bad.get("config_last_reload_successful") == 0
        assert bad.get("reloads_total", result="failure") == 1
        assert len(found) > 3
        assert "Traceback" not in daemon.log()


def test_tls(pair: Duo, tool: Tool, tmp_path: Path) -> None:
    """With a CA for clients only those of it are served; somebody who says nothing
    keeps nobody waiting."""
    tool.create(pair.host, spec())
    made = keys(tmp_path, "server", "prometheus", "foreign")
    files = {"tls-cert": "server.pem", "tls-key": "server.key", "client-ca": "ca.pem"}
    options = [f"--{name}={made.file(file)}" for name, file in files.items()]
    with exporter(tool, pair.host, *options), pair.host.enter():
        with socket.create_connection(("127.0.0.1", 9909)):
            good = scrape(pair.host, tls=made.client("prometheus"))
        assert good.get("group_slaves") == 2
        for stranger in (None, "foreign"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                scrape(pair.host, tls=made.client(stranger))
        with pytest.raises((OSError, ssl.SSLError)):
            scrape(pair.host)
        assert scrape(pair.host, tls=made.client("prometheus")).get("group_slaves") == 2


def test_what_cannot_be(pair: Duo, tool: Tool, tmp_path: Path) -> None:
    """Each in one clear line, with a hint."""
    with exporter(tool, pair.host):
        taken = tool.command(pair.host, "export", code=1)
    assert taken.stderr == (
        "Error: cannot listen on '127.0.0.1:9909': Address already in use\n"
        "hint: another --listen HOST:PORT\n"
    )
    none = tool.command(pair.host, "export", "--listen=9909", code=2)
    assert "'9909' is not an address to listen on" in none.stderr
    half = tool.command(pair.host, "export", f"--tls-cert={tmp_path}/c", code=2)
    assert "--tls-cert and --tls-key go together" in half.stderr


def alive(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_child_of_a_controller(pair: Duo, tool: Tool, end: signal.Signals) -> None:
    """It is started, started again when it dies, and ends with the controller."""
    tool.create(pair.host, spec())
    with controller(tool, pair.host, METRICS) as daemon:
        eventually(lambda: answers(pair.host), timeout=20, what="a child that listens")
        (first,) = children(daemon.pid)
        assert scrape(pair.host).get("controller_up") == 1
        os.kill(first, signal.SIGKILL)
        eventually(
            lambda: children(daemon.pid) not in ([], [first]) and answers(pair.host),
            timeout=20,
            what="another child that listens",
        )
        (second,) = children(daemon.pid)
        assert scrape(pair.host).get("controller_up") == 1
        assert "exporter ended code=-9" in daemon.log()
        if end is signal.SIGTERM:
            assert daemon.stop() == 0
        else:
            daemon.kill()
        eventually(lambda: not alive(second), timeout=20, what="the end of the child")
        assert not answers(pair.host)
