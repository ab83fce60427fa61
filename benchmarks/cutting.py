# SPDX-License-Identifier: GPL-2.0-or-later
"""A group over two links, one of which is cut at its far end.

    fo0 --- eth1 ---------- p1
    192.0.2.1               192.0.2.2
        `-- eth2 ---------- p2
                            192.0.2.2
            other --------- other

The far end is one host with one address and one MAC on both ports: it takes what
comes in by either. It is no bridge, which would need up to a second to use a port
that is back, and would choose a port by what it learns. A cut sets p1 down.

The links are to behave like NICs in two more ways. Both ends have the same ifindex,
so that the kernel tells of a lost carrier late, if another link event was not long
ago. And the ports receive by NAPI, which a veth does for UDP if it has GRO and its
peer no TSO: without it a port that is being set down drops what comes in for some
microseconds in which the peer still has a carrier (1 to 3 packets at 200,000 a
second). So a cut link loses nothing that it took: what is lost was sent into a link
without a carrier.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyfailover import lifecycle
from pyfailover.datapath.programs import ProgramSet
from pyfailover.lab import Lab, Namespace, Switches, eventually, scratch_roots
from pyfailover.model import GroupSpec, Word
from pyfailover.place import Roots
from pyfailover.transaction import locked_namespace, paths

HOST, FAR = "192.0.2.1", "192.0.2.2"
FAR_LINKS = ("p1", "p2")
_MAC, _FAR_MAC = "02:00:5e:10:00:01", "02:00:5e:10:00:02"
_WITHIN_S = 15.0
_BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")
_ROOM = 100_000  # packets: half a second of the highest rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The two ends of the picture above."""

    host: Namespace
    far: Namespace
    roots: Roots
    programs: ProgramSet
    hand: Switches  # on the far end's links

    def disturb(self) -> None:
        """Cause a link event that has nothing to do with the group."""
        self.hand.set("other", False)

    def cut(self) -> None:
        """Take the carrier from eth1; it is gone when this returns."""
        self.hand.set("p1", False)

    def mend(self) -> None:
        """Undo both."""
        self.hand.set("other", True)
        self.hand.set("p1", True)

    def wait_for(self, *, approved: int) -> None:
        """Wait until eth1 carries the traffic and just these slots may carry it."""
        eventually(
            partial(self._calm, approved), timeout=_WITHIN_S, what="eth1 to be active"
        )

    def _calm(self, approved: int) -> bool:
        word = self.programs.word(0)
        return (word.active, word.left, word.approved) == (0, 0, approved)

    def give_back(self) -> None:
        """Do what a controller does: eth1 carries the traffic, both slots may."""
        self.programs.change(0, partial(carried_by, 0, approved=0b11))


def carried_by(slot: int, word: Word, *, approved: int) -> Word:
    """The word by which a slot has the traffic, and no slot was left."""
    return Word(
        generation=word.generation + 1 & 0xFFFFFFFF, active=slot, approved=approved
    )


@contextmanager
def site(*, carrier_test: bool) -> Iterator[Site]:
    """Make it, with programs that test the carrier or with plain ones."""
    with Lab() as lab, scratch_roots() as roots:
        host, far = lab.namespace("host"), lab.namespace("far")
        for number, port in enumerate(FAR_LINKS, 1):
            _link(lab, host, far, number, port)
        lab.veth(host, "other", far, "other")
        spec = GroupSpec(name="fo0", primary="eth1", standbys=("eth2",), flap_changes=0)
        with host.enter():
            with locked_namespace(roots) as namespace:
                lifecycle.create(namespace, spec, carrier_test=carrier_test)
            pins = paths(roots)[0]
        lab.address(host, "fo0", f"{HOST}/24")
        # It has never been asked for by way of p2 when the far end moves there.
        far.ip(f"neigh add {HOST} lladdr {_MAC} dev p2")
        with closing(Switches(far)) as hand, ProgramSet(pins) as programs:
            yield Site(host=host, far=far, roots=roots, programs=programs, hand=hand)


def _link(lab: Lab, host: Namespace, far: Namespace, number: int, port: str) -> None:
    """Make a slave and the far end's port."""
    slave, index = f"eth{number}", 100 + number
    lab.veth(
        host, slave, far, port,
        mac_a=_MAC, mac_b=_FAR_MAC, index_a=index, index_b=index,
    )  # fmt: skip
    far.run("ethtool", "-K", port, "gro", "on")
    host.run("ethtool", "-K", slave, "tso", "off")
    with far.enter():  # /proc/sys/net is that of the thread that looks
        # Some hosts take nothing by p2 while their route is by p1.
        for conf in ("all", port):
            Path(f"/proc/sys/net/ipv4/conf/{conf}/rp_filter").write_text("0")
    lab.address(far, port, f"{FAR}/24")


@contextmanager
def roomy_backlog() -> Iterator[None]:
    """Give every CPU's backlog more room for the length of a `with`.

    All packets of a veth pass it; a CPU that is busy for some milliseconds would
    drop them there, whatever the programs do.
    """
    before = _BACKLOG.read_text()
    _BACKLOG.write_text(str(_ROOM))
    try:
        yield
    finally:
        _BACKLOG.write_text(before)
