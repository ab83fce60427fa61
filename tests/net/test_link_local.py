# SPDX-License-Identifier: GPL-2.0-or-later
"""Control frames of one link stay on that link (C8, S3).

A Linux bridge does not forward them, so they leave the far ports directly.
Sockets bound to their very type see what the programs left to the slave.
"""

from contextlib import ExitStack

from pyfailover.lab import eventually
from pyfailover.model import Side, TcMode
from tests.support.capture import (
    BROADCAST,
    EXPERIMENTAL,
    LLC,
    Capture,
    capture,
    ethernet,
    send,
)
from tests.support.tool import WAYS, Tool, spec
from tests.support.topology import Duo, guest

NEAREST_BRIDGE = "01:80:c2:00:00:00"
LAST_RESERVED = "01:80:c2:00:00:0f"
FIRST_FREE = "01:80:c2:00:00:10"
LLDP, PAE, SLOW = 0x88CC, 0x888E, 0x8809

# (name, destination, type field, type to listen for)
CONTROL = [
    ("lldp", "01:80:c2:00:00:0e", LLDP, LLDP),
    ("802.1x", "01:80:c2:00:00:03", PAE, PAE),
    ("lacp", "01:80:c2:00:00:02", SLOW, SLOW),
    ("stp", NEAREST_BRIDGE, 38, LLC),
    ("reserved", LAST_RESERVED, EXPERIMENTAL, EXPERIMENTAL),
    ("lldp to all", BROADCAST, LLDP, LLDP),
]
TYPES = sorted({listen for *_, listen in CONTROL})


def frames_from(mac: str) -> dict[str, bytes]:
    """A control frame of each sort."""
    return {
        name: ethernet(dst, mac, proto, name.encode())
        for name, dst, proto, _ in CONTROL
    }


def listen(stack: ExitStack, pair: Duo, dev: str) -> list[Capture]:
    """Sockets of all the types on a device of the host."""
    return [stack.enter_context(capture(pair.host, dev, proto)) for proto in TYPES]


def caught(captures: list[Capture], frame: bytes) -> int:
    """How often a frame was heard by any of some sockets."""
    return sum(each.count(frame) for each in captures)


def wait_until_caught(captures: list[Capture], frame: bytes, times: int = 1) -> None:
    """Wait until a frame was heard so often."""
    what = f"{frame.hex()} on {captures[0].dev}"
    eventually(lambda: caught(captures, frame) == times, what=what)


def ordinary(pair: Duo, text: str) -> bytes:
    """A frame just past the reserved addresses: no control frame any more."""
    return ethernet(FIRST_FREE, pair.far.mac("br0"), EXPERIMENTAL, text.encode())


@WAYS
def test_control_frame_stays_on_its_slave(
    pair: Duo, tool: Tool, tc: TcMode, side: Side
) -> None:
    """Each reaches a socket on the slave that it came by, active or not, and
    neither the master nor the other slave; an ordinary frame reaches the master."""
    tool.create(pair.host, spec(tc=tc, side=side))
    pair.settle()
    with ExitStack() as stack:
        on = {
            dev: listen(stack, pair, dev) for dev in ("eth1", "eth2", "fo0", "fo0-low")
        }
        for active in ("eth1", "eth2"):
            tool.switch(pair.host, active)
            for port, slave, other in (("p1", "eth1", "eth2"), ("p2", "eth2", "eth1")):
                for frame in frames_from(pair.far.mac(port)).values():
                    before = caught(on[slave], frame)
                    send(pair.far, port, frame)
                    wait_until_caught(on[slave], frame, before + 1)
                    for dev in (other, "fo0", "fo0-low"):
                        assert caught(on[dev], frame) == 0, frame.hex()
            sample = ordinary(pair, f"by {active}")
            send(pair.far, "br0", sample)
            wait_until_caught(on["fo0"], sample)
            for slave in ("eth1", "eth2"):
                assert caught(on[slave], sample) == 0
    slaves = tool.status(pair.host).slaves
    assert [s.counters["rx_link_local"] for s in slaves] == [2 * len(CONTROL)] * 2


def test_control_frame_of_a_guest_is_not_carried_out(
    pair: Duo, tool: Tool, tc: TcMode
) -> None:
    """From a wire side a control frame goes no further than the master itself."""
    behind = guest(pair)
    tool.attach(pair.host, spec("tap0", side=Side.WIRE, tc=tc))
    pair.settle()
    with ExitStack() as stack:
        out = [stack.enter_context(capture(pair.far, p)) for p in ("p1", "p2")]
        on_master = listen(stack, pair, "tap0")
        for frame in frames_from(behind.mac("eth0")).values():
            send(behind, "eth0", frame)
            wait_until_caught(on_master, frame)
        sample = ordinary(pair, "carried")
        send(behind, "eth0", sample)
        out[0].wait_for(sample)
        for frame in frames_from(behind.mac("eth0")).values():
            assert [port.count(frame) for port in out] == [0, 0], frame.hex()
    counters = tool.status(pair.host, "tap0").counters
    assert counters["tx_link_local"] == len(CONTROL)


def test_control_frame_of_a_slave_never_reaches_a_guest(
    pair: Duo, tool: Tool, tc: TcMode
) -> None:
    """Towards a guest they are not carried either, by whichever slave they come."""
    behind = guest(pair)
    tool.attach(pair.host, spec("tap0", side=Side.WIRE, tc=tc))
    pair.settle()
    with capture(behind, "eth0") as seen:
        for port in ("p1", "p2"):
            send(pair.far, port, *frames_from(pair.far.mac(port)).values())
        sample = ordinary(pair, "carried")
        send(pair.far, "br0", sample)
        seen.wait_for(sample)
        for port in ("p1", "p2"):
            for frame in frames_from(pair.far.mac(port)).values():
                assert seen.count(frame) == 0
    slaves = tool.status(pair.host, "tap0").slaves
    assert [s.counters["rx_link_local"] for s in slaves] == [len(CONTROL)] * 2
