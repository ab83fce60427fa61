# SPDX-License-Identifier: GPL-2.0-or-later
"""Groups whose attaching changes all there is to change, for fault injection."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pyfailover import lifecycle
from pyfailover.lab import Lab, eventually
from pyfailover.model import GroupSpec, MacPolicy, Side, TcMode
from tests.support.faults import Checkpoint
from tests.support.snapshot import Snapshot, assert_same, take
from tests.support.tool import Tool, spec
from tests.support.topology import Duo, duo, guest

KEEPER = "keep0"


def keep_programs(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """A second group, so that nothing is compiled again and again, and so that
    there is one which must not be disturbed."""
    pair.lab.veth(pair.host, "eth9", pair.far, "p9")
    tool.create(pair.host, spec(KEEPER, None, ("eth9",), tc=tc))


class Kind(StrEnum):
    """What is attached."""

    STACK = "stack"  # a foreign master, MAC addresses cloned
    WIRE = "wire"  # a foreign master with a guest behind it, slaves promiscuous
    CREATE = "create"  # a master of ours


# Every kind, and every way to attach.
SCENES = [
    (Kind.STACK, TcMode.CLSACT),
    (Kind.WIRE, TcMode.CLSACT),
    (Kind.CREATE, TcMode.TCX),
]


@dataclass(frozen=True)
class Scene:
    """A namespace in which a group can be attached.

    eth1 is down, has another MTU and another MAC address than the master; eth2
    is up with a link-local address of the kernel's.
    """

    pair: Duo
    tool: Tool
    kind: Kind
    wanted: GroupSpec

    def attach(self, checkpoint: Checkpoint = lambda _: None) -> None:
        """Attach the group, or mend it."""
        act = lifecycle.create if self.kind is Kind.CREATE else lifecycle.attach
        with self.tool.locked(self.pair.host, checkpoint) as locked:
            act(locked, self.wanted)

    def detach(self, checkpoint: Checkpoint = lambda _: None) -> None:
        """Detach it; a master of ours is destroyed."""
        undo: Callable[..., object] = lifecycle.detach
        if self.kind is Kind.CREATE:
            undo = lifecycle.destroy
        with self.tool.locked(self.pair.host, checkpoint) as locked:
            undo(locked, self.wanted.name)

    def now(self) -> Snapshot:
        """The namespace as it is."""
        return take(self.tool, self.pair.host)

    def assert_as(self, before: Snapshot, where: str) -> None:
        """See that it is as it was."""
        assert_same(before, self.now, where=f"{self.kind}, {where}")


def scene(lab: Lab, tool: Tool, kind: Kind, tc: TcMode) -> Scene:
    """Make one."""
    pair = duo(lab)
    pair.host.ip("link set eth1 mtu 1400")
    pair.host.ip("link set eth2 up")
    name, side, mac = "m0", Side.STACK, MacPolicy.CLONE
    match kind:
        case Kind.STACK:
            pair.host.ip("link set eth1 address 02:00:5e:10:00:99")
            lab.veth(pair.host, name, pair.far, "m0-far", mtu=1450)
        case Kind.WIRE:
            name, side, mac = "tap0", Side.WIRE, MacPolicy.MATCH
            guest(pair)
        case Kind.CREATE:
            pair.host.ip("link set eth1 address 02:00:5e:10:00:99")
            name = "fo0"
    eventually(
        lambda: "fe80:" in pair.host.ip("addr show dev eth2"),
        what="a link-local address of eth2",
    )
    return Scene(pair, tool, kind, spec(name, side=side, mac=mac, tc=tc))
