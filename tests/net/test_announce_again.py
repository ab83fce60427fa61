# SPDX-License-Identifier: GPL-2.0-or-later
"""Announcements are repeated as often as asked for, of what the master has at that
moment, by the new slave and by no other (S5)."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from pyfailover.lab import eventually
from tests.support.capture import (
    BROADCAST,
    EXPERIMENTAL,
    Capture,
    announcements,
    capture,
    ethernet,
    send,
)
from tests.support.daemon import Daemon, controller
from tests.support.tool import Tool, spec
from tests.support.topology import HOST_V4, HOST_V6, MAC, Duo

LINK_LOCAL = "fe80::5eff:fe10:1"  # the kernel's, of MAC
OWN = [HOST_V4, HOST_V6, LINK_LOCAL]
OTHER_MAC = "02:00:5e:10:00:77"
OTHER_LINK_LOCAL = "fe80::5eff:fe10:77"


class Ports:
    """What arrives at the far ends of both slaves."""

    def __init__(self, pair: Duo, captures: list[Capture]) -> None:
        self._pair = pair
        self._captures = captures

    def told(self, number: int) -> Counter[tuple[str, str]]:
        """Announcements that came over a slave since the last forget()."""
        return Counter(announcements(self._captures[number - 1].frames()))

    def quiet(self, number: int) -> Counter[tuple[str, str]]:
        """The same once nothing is under way any more: a frame that was sent by the
        slave itself, after them, is there."""
        end = ethernet(BROADCAST, "02:00:00:00:00:99", EXPERIMENTAL, b"end")
        send(self._pair.host, f"eth{number}", end)
        self._captures[number - 1].wait_for(end)
        return self.told(number)

    def forget(self) -> None:
        """Begin anew."""
        for each in self._captures:
            each.forget()


@contextmanager
def far_ports(pair: Duo) -> Iterator[Ports]:
    """What arrives there from now on."""
    with capture(pair.far, "p1") as one, capture(pair.far, "p2") as two:
        yield Ports(pair, [one, two])


def expected(times: int, *addresses: str, mac: str = MAC) -> Counter[tuple[str, str]]:
    """Each address so often."""
    return Counter({(address, mac): times for address in addresses if times})


def heard(ports: Ports, over: int, wanted: Counter[tuple[str, str]]) -> None:
    """See that this is announced over one slave and no more up to now, and nothing
    over the other one; then begin anew."""
    total = wanted.total()
    eventually(
        lambda: ports.told(over).total() >= total, what=f"{total} over eth{over}"
    )
    assert ports.quiet(over) == wanted
    assert ports.told(3 - over) == Counter()
    ports.forget()


def pass_by(daemon: Daemon) -> None:
    """Let the time for another announcement pass, by the controller's own clock."""
    done = daemon.status()["counts"]["resyncs"]
    eventually(
        lambda: daemon.status()["counts"]["resyncs"] >= done + 2, what="two reconciles"
    )


def create(tool: Tool, pair: Duo, count: int) -> None:
    """A group that announces so often, every 50 ms."""
    wanted = replace(spec(), announce_count=count, announce_interval_ms=50)
    tool.create(pair.host, wanted)
    pair.address()


def test_every_change_is_announced_so_often(pair: Duo, tool: Tool) -> None:
    """Failover, fail-back and switch: three gratuitous ARPs for each IPv4 and three
    advertisements for each IPv6 address by the new slave, no fourth, and none by the
    old one."""
    create(tool, pair, 3)
    thrice = expected(3, *OWN)
    with far_ports(pair) as ports, controller(tool, pair.host, reconcile=0.1) as daemon:
        pass_by(daemon)
        assert [ports.quiet(number) for number in (1, 2)] == [Counter()] * 2
        pair.host.ip("link set eth1 down")
        eventually(lambda: ports.told(2) == thrice, what="the failover announced")
        pass_by(daemon)
        assert (ports.quiet(2), ports.told(1)) == (thrice, Counter())
        ports.forget()
        pair.host.ip("link set eth1 up")
        for slave, over in ((None, 1), ("eth2", 2), ("eth1", 1), ("eth2", 2)):
            if slave is not None:
                tool.command(pair.host, "switch", "fo0", slave)
            eventually(
                lambda over=over: ports.told(over) == thrice,  # type: ignore[misc]
                what=f"three over eth{over}",
            )
            pass_by(daemon)
            heard(ports, over, thrice)


def test_switch_without_a_controller(pair: Duo, tool: Tool) -> None:
    """The command repeats them itself, and says how many addresses it announced."""
    create(tool, pair, 3)
    with far_ports(pair) as ports:
        for slave, over in (("eth2", 2), ("eth1", 1)):
            done = tool.command(pair.host, "switch", "fo0", slave)
            assert " 3 addresses announced\n" in done.stdout
            heard(ports, over, expected(3, *OWN))


def test_next_change_ends_the_repetition(pair: Duo, tool: Tool) -> None:
    """What is left of the announcements of a change is not sent once traffic moved
    on: the last ones are those by the last slave, in full."""
    wanted = replace(spec(), announce_count=3, announce_interval_ms=60_000)
    tool.create(pair.host, wanted)
    pair.address()
    with far_ports(pair) as ports, controller(tool, pair.host):
        for slave, over in (("eth2", 2), ("eth1", 1)) * 3:
            tool.command(pair.host, "switch", "fo0", slave)
            heard(ports, over, expected(1, *OWN))


@pytest.mark.parametrize("served", [True, False], ids=["served", "alone"])
def test_nothing_is_announced_where_that_is_asked_for(
    pair: Duo, tool: Tool, *, served: bool
) -> None:
    """With a count of 0 no change is announced, attach included, and none is claimed
    to have been."""
    with far_ports(pair) as ports, ExitStack() as stack:
        create(tool, pair, 0)
        tool.detach(pair.host)
        if served:
            daemon = stack.enter_context(controller(tool, pair.host, reconcile=0.1))
        asked = ("attach", "fo0", "--primary=eth1", "--standby=eth2")
        tool.command(pair.host, *asked, "--announce-count=0")
        for slave in ("eth2", "eth1"):
            done = tool.command(pair.host, "switch", "fo0", slave)
            assert " 0 addresses announced\n" in done.stdout
        if served:
            pair.host.ip("link set eth1 down")
            eventually(lambda: tool.status(pair.host).active == "eth2", what="failover")
            pair.host.ip("link set eth1 up")
            eventually(
                lambda: tool.status(pair.host).active == "eth1", what="fail-back"
            )
            pass_by(daemon)
        assert [ports.quiet(number) for number in (1, 2)] == [Counter()] * 2


def test_addresses_that_came_and_went(pair: Duo, tool: Tool) -> None:
    """An address that was given to the master after the attach is announced at the
    next change, one that was taken off is not any more."""
    create(tool, pair, 2)
    with far_ports(pair) as ports, controller(tool, pair.host):
        pair.lab.address(pair.host, "fo0", "192.0.2.9/24", "2001:db8::9/64")
        tool.command(pair.host, "switch", "fo0", "eth2")
        heard(ports, 2, expected(2, *OWN, "192.0.2.9", "2001:db8::9"))
        pair.host.batch(
            f"addr del {HOST_V4}/24 dev fo0",
            "addr add 192.0.2.9/24 dev fo0",
            "addr del 2001:db8::9/64 dev fo0",
        )
        tool.command(pair.host, "switch", "fo0", "eth1")
        heard(ports, 1, expected(2, HOST_V6, LINK_LOCAL, "192.0.2.9"))


@pytest.mark.parametrize("served", [True, False], ids=["served", "alone"])
def test_macvlan_on_the_master(pair: Duo, tool: Tool, *, served: bool) -> None:
    """A macvlan on the master is announced with its own addresses and its own MAC
    address, from the moment that it is there, also with another one, until it is
    down or gone."""
    create(tool, pair, 2)
    with far_ports(pair) as ports, ExitStack() as stack:
        if served:
            stack.enter_context(controller(tool, pair.host))
        own = expected(2, *OWN)
        pair.host.ip(f"link add mv0 link fo0 address {OTHER_MAC} type macvlan")
        pair.host.ip("link set mv0 up")
        pair.lab.address(pair.host, "mv0", "198.51.100.1/24", "2001:db8:1::1/64")
        fixed = ("198.51.100.1", "2001:db8:1::1")
        eventually(lambda: "fe80:" in pair.host.ip("addr show mv0"), what="link-local")
        ports.forget()
        tool.command(pair.host, "switch", "fo0", "eth2")
        its = expected(2, *fixed, OTHER_LINK_LOCAL, mac=OTHER_MAC)
        heard(ports, 2, own + its)
        another = "02:00:5e:10:00:78"
        pair.host.ip(f"link set mv0 address {another}")
        tool.command(pair.host, "switch", "fo0", "eth1")
        heard(ports, 1, own + expected(2, *fixed, OTHER_LINK_LOCAL, mac=another))
        pair.host.ip("link set mv0 down")
        tool.command(pair.host, "switch", "fo0", "eth2")
        heard(ports, 2, own)
        pair.host.ip("link set mv0 up")
        pair.host.ip("link del mv0")
        tool.command(pair.host, "switch", "fo0", "eth1")
        heard(ports, 1, own)
