# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands given twice, differently, by another name, or at the same time (S14)."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from pyfailover import place
from pyfailover.errors import RefusedError, StateError
from pyfailover.mending import Outcome
from pyfailover.model import MacPolicy, Policy, RxMode, Side, TcMode
from pyfailover.report import Health
from tests.support.scenes import KEEPER, keep_programs
from tests.support.snapshot import assert_same, take
from tests.support.streams import damage, deliver, exchange
from tests.support.tool import Tool, spec
from tests.support.topology import Duo, guest


def test_everything_twice(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """The second create, attach, switch, detach and destroy change nothing."""
    keep_programs(pair, tool, tc)
    idle = take(tool, pair.host)
    steps: list[tuple[Callable[[], object], object]] = [
        (lambda: tool.create(pair.host, spec(tc=tc)), Outcome.UNCHANGED),
        (lambda: tool.attach(pair.host, spec(tc=tc)), Outcome.UNCHANGED),
        (lambda: tool.switch(pair.host, "eth2"), None),
        (lambda: tool.detach(pair.host), Outcome.UNCHANGED),
        (lambda: tool.attach(pair.host, spec(tc=tc)), Outcome.UNCHANGED),
        (lambda: tool.create(pair.host, spec(tc=tc)), Outcome.UNCHANGED),
        (lambda: tool.destroy(pair.host), Outcome.UNCHANGED),
        (lambda: tool.detach(pair.host), Outcome.UNCHANGED),
    ]
    for number, (act, second) in enumerate(steps):
        act()
        before = take(tool, pair.host)
        assert act() == second, number
        assert_same(before, lambda: take(tool, pair.host), where=f"step {number}")
    assert_same(idle, lambda: take(tool, pair.host), where="in the end")


def test_foreign_master_twice(pair: Duo, tool: Tool) -> None:
    """The same for a master that somebody else made, which stays."""
    guest(pair)
    idle = take(tool, pair.host)
    wanted = spec("tap0", side=Side.WIRE)
    assert tool.attach(pair.host, wanted) is Outcome.DONE
    assert tool.attach(pair.host, wanted) is Outcome.UNCHANGED
    with pytest.raises(RefusedError, match="pyfailover did not make it"):
        tool.destroy(pair.host, "tap0")
    assert tool.detach(pair.host, "tap0") is Outcome.DONE
    assert tool.detach(pair.host, "tap0") is Outcome.UNCHANGED
    assert_same(idle, lambda: take(tool, pair.host), where="in the end")


def test_what_may_change_under_traffic_is_changed(pair: Duo, tool: Tool) -> None:
    """Policy, delays and the like are taken from the command that attaches again,
    and nothing that carries traffic is touched."""
    given = spec()
    tool.create(pair.host, given)
    before = take(tool, pair.host)
    wanted = replace(given, rx_grace_ms=7, policy=Policy.FAILURE, up_delay_ms=97)
    assert tool.create(pair.host, wanted) is Outcome.RETUNED
    after = take(tool, pair.host)
    assert before.pop("records") != after.pop("records")
    assert after == before
    assert tool.create(pair.host, wanted) is Outcome.UNCHANGED
    with tool.locked(pair.host) as locked:
        record = locked.record("fo0")
        assert record is not None
        assert record.spec == wanted


def test_attached_otherwise_is_refused(pair: Duo, tool: Tool) -> None:
    """Other options than those in force are refused, and the difference named."""
    given = spec(tc=TcMode.CLSACT)
    tool.create(pair.host, given)
    before = take(tool, pair.host)
    for wanted, said in [
        (replace(given, primary="eth2", standbys=("eth1",)), "primary eth1 .* eth2"),
        (replace(given, primary=None), "primary eth1 .* None"),
        (replace(given, standbys=()), "standbys eth2 instead of"),
        (replace(given, side=Side.WIRE), "side stack instead of wire"),
        (replace(given, mac=MacPolicy.CLONE), "mac match instead of clone"),
        (replace(given, tc=TcMode.TCX), "tc clsact instead of tcx"),
        (replace(given, rx=RxMode.ALL), "rx active instead of all"),
        (replace(given, bypass_filters=True), "bypass_filters False .* True"),
    ]:
        for act in (tool.attach, tool.create):
            with pytest.raises(StateError, match=said) as caught:
                act(pair.host, wanted)
            assert caught.value.hint == "pyfailover detach fo0 first"
    assert_same(before, lambda: take(tool, pair.host), where="refused")


def test_more_groups_than_loaded_for_is_refused(pair: Duo, tool: Tool) -> None:
    """--max-groups counts at the first attach; another number later is refused."""
    tool.create(pair.host, spec(standbys=()), max_groups=3)
    before = take(tool, pair.host)
    wanted = spec("fo1", None, ("eth2",))
    with pytest.raises(StateError, match="loaded for 3 groups"):
        tool.create(pair.host, wanted, max_groups=4)
    assert_same(before, lambda: take(tool, pair.host), where="refused")
    assert tool.create(pair.host, wanted, max_groups=3) is Outcome.DONE


def test_attach_after_the_pins_were_removed(pair: Duo, tool: Tool, tc: TcMode) -> None:
    """With all pins gone the same attach begins anew, and detach restores what was
    before the first one."""
    idle = take(tool, pair.host)
    tool.create(pair.host, spec(tc=tc))
    shutil.rmtree(tool.roots.pins)
    assert tool.status(pair.host).health is Health.DOWN
    assert tool.create(pair.host, spec(tc=tc)) is Outcome.DONE
    assert tool.status(pair.host).health is Health.OK
    pair.address()
    with exchange(pair.host, pair.far) as streams:
        tool.switch(pair.host, "eth2")
        deliver(*streams)
        assert damage(*streams) == [(0, 0)] * 4
    tool.destroy(pair.host)
    assert_same(idle, lambda: take(tool, pair.host), where="in the end")


@pytest.mark.parametrize(
    ("tc", "what"),
    [(TcMode.TCX, "progs"), (TcMode.CLSACT, "maps/fo_states")],
)
def test_attach_after_some_pins_were_removed(
    pair: Duo, tool: Tool, tc: TcMode, what: str
) -> None:
    """With some pins gone it is the same, unless another group uses them: then the
    error names what is missing, and its hint is the way out."""
    idle = take(tool, pair.host)
    tool.create(pair.host, spec(tc=tc))
    path = tool.pins(pair.host) / what
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert tool.create(pair.host, spec(tc=tc)) is Outcome.DONE
    keep_programs(pair, tool, tc)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StateError, match=re.escape(str(path))) as caught:
        tool.create(pair.host, spec(tc=tc))
    assert "pyfailover detach --force" in str(caught.value.hint)
    tool.destroy(pair.host, KEEPER)
    tool.command(pair.host, "detach", "--force")
    assert tool.create(pair.host, spec(tc=tc)) is Outcome.DONE
    assert tool.status(pair.host).health is Health.OK
    tool.destroy(pair.host)
    pair.host.ip("link del eth9")
    assert_same(idle, lambda: take(tool, pair.host), where="in the end")


def test_detach_after_the_pins_were_removed(pair: Duo, tool: Tool) -> None:
    """With all pins gone detach still restores every setting."""
    pair.host.ip("link set eth1 mtu 1400")
    idle = take(tool, pair.host)
    tool.create(pair.host, spec(tc=TcMode.CLSACT))
    shutil.rmtree(tool.roots.pins)
    assert tool.destroy(pair.host) is Outcome.DONE
    assert_same(idle, lambda: take(tool, pair.host), where="in the end")


def test_master_deleted_by_hand(pair: Duo, tool: Tool) -> None:
    """With the master gone status says so, and destroy and create both go on."""
    keep_programs(pair, tool, TcMode.AUTO)
    idle = take(tool, pair.host)
    for end in ("fo0", "fo0-low"):
        tool.create(pair.host, spec())
        pair.host.ip(f"link del {end}")
        assert tool.status(pair.host).master is None
        assert tool.status(pair.host).health is Health.DOWN
        assert tool.create(pair.host, spec()) is Outcome.DONE
        assert tool.status(pair.host).health is Health.OK
        pair.host.ip(f"link del {end}")
        tool.destroy(pair.host)
        assert_same(idle, lambda: take(tool, pair.host), where=f"{end} deleted")


def test_renamed_interfaces(pair: Duo, tool: Tool) -> None:
    """A renamed master is known by its first and its present name, a renamed slave
    by its present one; detach knows them all again."""
    keep_programs(pair, tool, TcMode.AUTO)
    idle = take(tool, pair.host)
    for name in ("fo0", "uplink9"):
        tool.create(pair.host, spec())
        pair.host.batch("link set fo0 name uplink9", "link set eth2 name lan9")
        assert tool.switch(pair.host, "lan9", name) is not None
        assert tool.status(pair.host).active == "lan9"
        assert tool.detach(pair.host, name) is Outcome.DONE
        assert tool.destroy(pair.host) is Outcome.DONE
        pair.host.ip("link set lan9 name eth2")
        assert_same(idle, lambda: take(tool, pair.host), where=f"by {name}")


def test_idle_master_that_was_renamed(pair: Duo, tool: Tool) -> None:
    """A master of ours that is not attached is destroyed by its present name."""
    tool.create(pair.host, spec())
    pair.host.ip("link set fo0 name uplink9")
    tool.detach(pair.host, "uplink9")
    assert tool.destroy(pair.host, "uplink9") is Outcome.DONE
    assert "uplink9" not in pair.host.ip("link")


def test_status_of_a_renamed_master(pair: Duo, tool: Tool) -> None:
    """Status knows a renamed master by both names, as the other commands do."""
    tool.create(pair.host, spec())
    pair.host.ip("link set fo0 name uplink9")
    for name in ("fo0", "uplink9"):
        done = tool.command(pair.host, "status", name)
        assert "active eth1" in done.stdout


def test_two_changes_at_once(
    pair: Duo, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one process changes attachments another is told which one does."""
    monkeypatch.setattr(place, "_LOCK_WAIT_S", 0.05)
    tool.create(pair.host, spec())
    before = take(tool, pair.host)
    with tool.locked(pair.host):
        for act in (
            lambda: tool.detach(pair.host),
            lambda: tool.attach(pair.host, spec()),
            lambda: tool.switch(pair.host, "eth2"),
        ):
            with pytest.raises(StateError, match=f"process {os.getpid()} is doing so"):
                act()
        assert tool.status(pair.host).health is Health.OK
    assert_same(before, lambda: take(tool, pair.host), where="while locked")
    assert tool.detach(pair.host) is Outcome.DONE
