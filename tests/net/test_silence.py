# SPDX-License-Identifier: GPL-2.0-or-later
"""Not one frame leaves by a slave that is not active (C5, S0)."""

import time

import pytest

from pyfailover.lab import eventually
from pyfailover.model import Side, TcMode
from pyfailover.traffic import UdpStream
from tests.support.capture import capture, received
from tests.support.streams import deliver, exchange
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import FAR_V6, HOST_V6, Duo, guest, make_talkative

# Longer than the kernel waits with anything it repeats after an address came or
# went; how long is looked, not waited for.
OBSERVED_S = 0.5


@pytest.fixture
def loud(pair: Duo) -> Duo:
    """The pair, with a kernel on the host that talks as it does by default."""
    make_talkative(pair.host, *pair.slaves)
    return pair


def test_idle_slave_of_a_loud_host_talks(loud: Duo) -> None:
    """Control: a slave that is merely set up sends frames of the kernel's own."""
    loud.host.ip("link set eth2 up")
    eventually(lambda: received(loud.far, "p2") >= 2, what="frames of the kernel")


@WAYS
def test_inactive_slave_sends_nothing(
    loud: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """With traffic both ways the slave that is not active sends exactly nothing,
    from its being set up on, and the one that was left nothing from a switch on."""
    tool.create(loud.host, spec(tc=tc, side=side))
    loud.address()
    with exchange(loud.host, loud.far) as streams:
        deliver(*streams)
        assert received(loud.far, "p2") == 0
        assert received(loud.far, "p1") > 2 * 199
        tool.switch(loud.host, "eth2")
        left, taken = received(loud.far, "p1"), received(loud.far, "p2")
        deliver(*streams)
        assert received(loud.far, "p1") == left
        assert received(loud.far, "p2") > taken + 2 * 199


def test_inactive_slave_of_a_guest_sends_nothing(
    loud: Duo, tool: Tool, tc: TcMode
) -> None:
    """Behind a foreign wire master it is the same, the slaves' own stack included."""
    behind = guest(loud)
    tool.attach(loud.host, spec("tap0", side=Side.WIRE, tc=tc))
    with UdpStream(behind, loud.far, HOST_V6, FAR_V6, rate=4_000) as stream:
        deliver(stream)
        assert received(loud.far, "p2") == 0
        tool.switch(loud.host, "eth2", "tap0")
        left = received(loud.far, "p1")
        deliver(stream)
        assert received(loud.far, "p1") == left
        assert received(loud.far, "p2") >= 199


def test_slave_that_talked_before_is_silent_after(loud: Duo, tool: Tool) -> None:
    """A slave that was up, with a link-local address of the kernel's, sends
    nothing more from attach on: the far bridge would learn the MAC there."""
    loud.host.ip("link set eth2 up")
    eventually(
        lambda: (
            "fe80:" in (shown := loud.host.ip("addr show dev eth2"))
            and "tentative" not in shown
        ),
        what="a link-local address",
    )
    with capture(loud.far, "p2") as seen:
        tool.create(loud.host, spec())
        said = len(seen.frames())
        time.sleep(OBSERVED_S)
        assert [frame.hex() for frame in seen.frames()[said:]] == []
    assert "fe80:" not in loud.host.ip("addr show dev eth2")
