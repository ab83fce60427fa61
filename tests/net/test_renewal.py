# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs in the place of those that run: no packet is lost for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyfailover import renewal, transaction
from pyfailover.datapath import loading
from pyfailover.errors import LoadError
from pyfailover.lab import Namespace, eventually
from pyfailover.model import TcMode
from pyfailover.traffic import UdpStream, backlog_dropped
from tests.support.daemon import RARELY, controller
from tests.support.snapshot import assert_same, take
from tests.support.streams import damage, deliver
from tests.support.tool import Tool, spec
from tests.support.topology import FAR_V4, HOST_V4, Duo

_RATE = 50_000
_MORE = 5_000

KINDS = pytest.mark.parametrize("before", [True, False], ids=["test", "plain"])
Replace = Callable[[Tool, Namespace, bool], None]


def by_command(tool: Tool, ns: Namespace, test: bool) -> None:
    """`pyfailover reload --programs`."""
    option = "--carrier-test" if test else "--no-carrier-test"
    tool.command(ns, "reload", "--programs", option)


def in_place(tool: Tool, ns: Namespace, test: bool) -> None:
    """The same, in this process."""
    with tool.locked(ns) as namespace:
        renewal.replace(namespace, carrier_test=test)


def programs(tool: Tool, ns: Namespace) -> set[int]:
    """Ids of the programs."""
    with tool.locked(ns) as namespace:
        return namespace.host.ours()


def packets(tool: Tool, ns: Namespace) -> int:
    """What the first slave has carried, both ways."""
    counters = tool.status(ns).slaves[0].counters
    return counters["tx_packets"] + counters["rx_packets"]


@contextmanager
def unharmed(stream: UdpStream) -> Iterator[UdpStream]:
    """A stream for the length of a `with`, after which it has lost nothing for which
    the machine had room."""
    before = backlog_dropped()
    with stream:
        yield stream
        ((lost, duplicated),) = damage(stream)
    assert lost <= backlog_dropped() - before
    assert duplicated == 0


def fails_over(pair: Duo, tool: Tool) -> None:
    """Without a controller: the next packet leaves a link that is lost."""
    pair.cut(1)
    with UdpStream(pair.host, pair.far, HOST_V4, FAR_V4, rate=4_000) as stream:
        deliver(stream)
    assert tool.status(pair.host).active == "eth2"


@KINDS
@pytest.mark.parametrize("after", [True, False], ids=["to test", "to plain"])
def test_replaced_under_traffic(
    pair: Duo, tool: Tool, tc: TcMode, before: bool, after: bool
) -> None:
    """At 50,000 packets a second, out and back, to either kind from either: none is
    lost, none comes twice, what was counted goes on, and afterwards it is as good as
    attached anew."""
    clean = take(tool, pair.host)
    tool.create(pair.host, spec(tc=tc), carrier_test=before)
    pair.address()
    pair.settle()
    old = programs(tool, pair.host)
    for here, there, ends in (
        (pair.host, pair.far, (HOST_V4, FAR_V4)),
        (pair.far, pair.host, (FAR_V4, HOST_V4)),
    ):
        counted = packets(tool, pair.host)
        with unharmed(UdpStream(here, there, *ends, rate=_RATE)) as stream:
            deliver(stream, more=_MORE)
            in_place(tool, pair.host, after)
            deliver(stream, more=_MORE)
        assert packets(tool, pair.host) >= counted + 2 * _MORE
    assert not old & programs(tool, pair.host)
    status = tool.status(pair.host)
    assert (status.carrier_test, status.active) == (after, "eth1")
    assert all(slave.attached for slave in status.slaves)
    if after:
        fails_over(pair, tool)
        pair.mend(1)
    tool.destroy(pair.host)
    assert_same(clean, lambda: take(tool, pair.host), where="destroyed")


def test_replaced_by_the_controller(pair: Duo, tool: Tool) -> None:
    """The controller does it, and goes on with the new ones: a step of theirs is
    heard, and the traffic brought back."""
    tool.create(pair.host, spec(), carrier_test=False)
    pair.address()
    pair.settle()
    stream = UdpStream(pair.host, pair.far, HOST_V4, FAR_V4, rate=_RATE)
    with controller(tool, pair.host, reconcile=RARELY) as daemon:
        with unharmed(stream):
            deliver(stream, more=_MORE)
            by_command(tool, pair.host, True)
            assert tool.status(pair.host).carrier_test
            deliver(stream, more=_MORE)
        fails_over(pair, tool)
        pair.mend(1)
        eventually(lambda: tool.status(pair.host).active == "eth1", what="fail-back")
        assert daemon.running


def test_refused_programs_change_nothing(
    pair: Duo, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that the kernel does not take leave the old ones in their place."""
    tool.create(pair.host, spec(), carrier_test=False)
    there, old = take(tool, pair.host), programs(tool, pair.host)

    def refuse(*_: object) -> None:
        raise LoadError("cannot load the programs: no", log="")

    monkeypatch.setattr(loading, "fill", refuse)
    with pytest.raises(LoadError):
        in_place(tool, pair.host, True)
    assert programs(tool, pair.host) == old
    assert_same(there, lambda: take(tool, pair.host), where="refused")


def test_newer_version_replaces_older_programs(
    pair: Duo, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs made of other sources are replaced when a group is attached, those of
    the same ones are not."""
    tool.create(pair.host, spec())
    old = programs(tool, pair.host)
    tool.create(pair.host, spec())
    assert programs(tool, pair.host) == old
    monkeypatch.setattr(renewal, "sources", lambda: "97" * 32)
    tool.create(pair.host, spec())
    assert not programs(tool, pair.host) & old


@pytest.fixture
def older(pair: Duo, tool: Tool, tc: TcMode) -> Path:
    """A group that another ABI's installation has attached; its pins."""
    tool.create(pair.host, spec(tc=tc))
    pair.address()
    pair.settle()
    pins = tool.pins(pair.host)
    former = pins.parent.parent / "v2" / pins.name
    former.parent.mkdir()
    pins.rename(former)
    pins.parent.rmdir()
    return former


@pytest.mark.parametrize("by", ["attach", "the controller", "reload"])
def test_other_abi(pair: Duo, tool: Tool, older: Path, by: str) -> None:
    """Another ABI's programs are replaced under traffic by whoever comes first, and
    nothing of them stays."""
    with unharmed(
        UdpStream(pair.host, pair.far, HOST_V4, FAR_V4, rate=_RATE)
    ) as stream:
        deliver(stream, more=_MORE)
        assert not tool.status(pair.host).carrier_test  # not known
        if by == "attach":
            tool.create(pair.host, spec(tc=tool.status(pair.host).tc))
        elif by == "reload":
            tool.command(pair.host, "reload", "--programs")
        else:
            with controller(tool, pair.host) as daemon:
                daemon.stop()
        deliver(stream, more=_MORE)
    assert not older.parent.exists()
    assert tool.status(pair.host).active == "eth1"
    fails_over(pair, tool)


def test_detach_of_another_abi(pair: Duo, tool: Tool, older: Path) -> None:
    """It is detached by name as ever, without programs of ours."""
    tool.destroy(pair.host)
    assert not older.parent.exists()
    with pair.host.enter():
        assert not transaction.paths(tool.roots)[0].exists()
    assert not tool.pins(pair.host).exists()
