# SPDX-License-Identifier: GPL-2.0-or-later
"""The groups in a controller's care, and what follows from a decision on one.

Its secret is what must be done beside the word: who is told, when to decide or
announce again, whose carrier and MTU must follow. Lives in the event loop's
thread; what takes the lock is a job.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial

from pyfailover import commands, config, upkeep
from pyfailover.announce import Announcer, Source
from pyfailover.commands import Reloaded
from pyfailover.config import Declared
from pyfailover.datapath.kernel_steps import KernelSteps
from pyfailover.ethtool import Ethtool
from pyfailover.history import Kind
from pyfailover.jobs import Jobs, Records
from pyfailover.journal import Record
from pyfailover.keeper import Keeper, View
from pyfailover.logs import event as log_event
from pyfailover.mending import Mended
from pyfailover.model import Decider, Link, Reason, Side
from pyfailover.place import Roots
from pyfailover.poll import News, Poll
from pyfailover.rules import fits
from pyfailover.switching import Change
from pyfailover.telling import Teller
from pyfailover.transaction import Namespace, open_programs, paths

log = logging.getLogger(__name__)

_AT_ONCE = 8  # groups that are announced
_TELL_AFTER_S = 0.002


class Kept:
    """All groups of a namespace."""

    def __init__(self, roots: Roots, poll_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._pins, run = paths(roots)
        self._pins_inode = 0
        self.keepers: dict[str, Keeper] = {}
        self.slaves: dict[int, tuple[Keeper, int]] = {}  # by ifindex
        self.masters: dict[int, Keeper] = {}  # by ifindex
        self._incomplete: dict[str, Keeper] = {}  # waits for a slave, or its master
        self.view = View(Ethtool(), Announcer())
        self._steps: KernelSteps | None = None
        self.jobs = Jobs(roots, self.adopt)
        self.teller = Teller(run, partial(loop.call_later, _TELL_AFTER_S))
        self.poll = Poll(self.see_polled, poll_s)
        self.waiting: dict[str, Declared] = {}  # declared, and not to be had yet
        self._loop = loop
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._to_announce: dict[str, tuple[Keeper, int]] = {}
        self._sources: Mapping[int, Sequence[Source]] | None = None  # of a burst
        self._can_follow: dict[str, bool] = {}  # whether a master's carrier does
        self._last_mtu: dict[str, int] = {}  # of a master, that was tried

    def note(self, done: Reloaded) -> None:
        """What the files came to: who waits, and what is wrong."""
        self.waiting = done.waiting
        for name in self.jobs.troubles.keys() - done.failed.keys():
            self.jobs.forget(name, "attach")  # it is, or its file is gone
        for name, exc in done.failed.items():
            self.jobs.trouble(name, exc)
        for name in done.detached:
            log_event(log, logging.WARNING, "detached", master=name, reason="no file")

    def find(self, name: str) -> Keeper | None:
        """A group by its name, or by the present name of its master."""
        if name in self.keepers:
            return self.keepers[name]
        for keeper in self.keepers.values():
            face = keeper.face()
            if face is not None and face.name == name:
                return keeper
        return None

    def adopt(self, records: Records, complete: bool) -> None:
        """Take over groups as their records are now.

        Args:
            complete: there are no others.
        """
        self._reopen()
        now = time.monotonic()
        if complete:
            records = dict.fromkeys(self.keepers) | records
        for name, record in records.items():
            keeper = self.keepers.get(name)
            if keeper is not None:
                self._release(keeper)
            if record is None or not record.attached or self.view.programs is None:
                if keeper is not None:
                    self._drop(keeper)
            elif keeper is not None and keeper.record.index == record.index:
                keeper.take(record, now)
                self._hold(keeper)
                self.settle(keeper, now)
            else:
                self._begin_keeping(record, now)
        if not self.keepers:
            self._close()  # else they would stay loaded
        self._poll_these()

    def _begin_keeping(self, record: Record, now: float) -> None:
        keeper = Keeper(record, self.view, now)
        self.keepers[keeper.name] = keeper
        self.teller.take_up(keeper.name)
        self._hold(keeper)
        keeper.prepare()
        self.settle(keeper, now)
        if keeper.group.word.by_kernel:  # nobody announced that
            self._announce(keeper, record.spec.announce_count)
        name = keeper.name
        if record.created:  # known without a look
            self._learn_carrier(name, record.spec.side is Side.STACK)
            return
        self.jobs.start(
            "carrier?",
            name,
            lambda namespace: upkeep.can_take_carrier(namespace, name),
            partial(self._learn_carrier, name),
        )

    def _reopen(self) -> None:
        """Have the programs open that are pinned now. If somebody removed the pins
        those that run still obey, until all is attached anew."""
        try:
            inode = (self._pins / "maps" / "fo_about").stat().st_ino
        except FileNotFoundError:
            return
        if inode != self._pins_inode or self.view.programs is None:
            self._close()
            self.view.programs = open_programs(self._pins)
            self._pins_inode = inode
            if self.view.programs is not None:
                self._steps = KernelSteps(self.view.programs.steps)
                self._loop.add_reader(self._steps.fd, self._hear)

    def _close(self) -> None:
        if self._steps is not None:
            self._loop.remove_reader(self._steps.fd)
            self._steps.close()
            self._steps = None
        if self.view.programs is not None:
            self.view.programs.close()
        self.view.programs = None

    def _hold(self, keeper: Keeper) -> None:
        """Have the events of its interfaces come to a group."""
        for slot, ifindex in keeper.record.slaves.items():
            self.slaves[ifindex] = (keeper, slot)
        face = keeper.face()
        if face is not None:
            self.masters[face.ifindex] = keeper
        if keeper.record.master is not None:
            self.masters[keeper.record.master] = keeper
        if face is None or keeper.vacant():
            self._incomplete[keeper.name] = keeper

    def _release(self, keeper: Keeper) -> None:
        self.slaves = {i: at for i, at in self.slaves.items() if at[0] is not keeper}
        self.masters = {i: k for i, k in self.masters.items() if k is not keeper}
        self._incomplete.pop(keeper.name, None)

    def _poll_these(self) -> None:
        """Have the slaves polled that are there now, by their present names."""
        self.poll.polled = [keeper.polled() for keeper in self.keepers.values()]

    def see_polled(self, news: News, since: float) -> None:
        """Slaves are not as they were thought to be."""
        for polled, slot, ready in news:
            # The poll says it again and again until it is taken in.
            if polled.knows(slot) is ready:
                continue
            if self.keepers.get(polled.keeper.name) is polled.keeper:
                polled.keeper.see_ready(slot, ready, since)
                self.settle(polled.keeper, since)

    def _hear(self) -> None:
        """Programs stepped."""
        steps = [] if self._steps is None else self._steps.take()
        keepers = {keeper.record.index: keeper for keeper in self.keepers.values()}
        for step in steps:
            past = keepers[step.group].hear(step) if step.group in keepers else None
            if past is not None:
                self.teller.tell(past.as_event())
        now = time.monotonic()
        for index in dict.fromkeys(step.group for step in steps):
            if index in keepers:
                self.settle(keepers[index], now)

    def lose_slave(self, ifindex: int, since: float) -> None:
        """An interface is gone that was a slave."""
        keeper, slot = self.slaves.pop(ifindex)
        self._incomplete[keeper.name] = keeper
        keeper.lost.add(ifindex)
        self._poll_these()
        keeper.see(slot, since)
        self.settle(keeper, since)
        self.mend(keeper)

    def lose_master(self, ifindex: int) -> None:
        """An interface is gone that was a master."""
        keeper = self.masters.pop(ifindex)
        self._incomplete[keeper.name] = keeper
        log_event(log, logging.ERROR, "master gone", master=keeper.name)

    def _drop(self, keeper: Keeper) -> None:
        del self.keepers[keeper.name]
        self.teller.forget(keeper.name)
        self.jobs.forget(keeper.name)
        self._can_follow.pop(keeper.name, None)
        self._last_mtu.pop(keeper.name, None)
        for key in [key for key in self._timers if key[1] == keeper.name]:
            self._timers.pop(key).cancel()

    def settle(
        self,
        keeper: Keeper,
        since: float,
        *,
        reason: Reason | None = None,
        by: Decider = Decider.CONTROLLER,
    ) -> list[Change]:
        """Have a group's word be what it should, and see to what follows from it."""
        now = time.monotonic()
        changes = keeper.settle(now, since, reason=reason, by=by)
        for change in changes:
            self.teller.tell(change.as_event())
        if changes and changes[-1].after is not None:
            self._announce(keeper, keeper.record.spec.announce_count)
        for name, hold_s in keeper.newly_damped(now).items():
            detail = f"out for {hold_s:.0f} s"
            self.teller.note(keeper.name, Kind.DAMPED, after=name, detail=detail)
        slaves = len(keeper.group.slots)
        self.teller.redundancy(keeper.name, keeper.usable, slaves)
        self._arm("wake", keeper, keeper.wake_at)
        self._see_to_carrier(keeper)
        return changes

    def _arm(self, what: str, keeper: Keeper, moment: float | None) -> None:
        """Decide again at a moment of time.monotonic(), the loop's clock."""
        key = (what, keeper.name)
        if key in self._timers:
            self._timers.pop(key).cancel()
        if moment is not None:
            self._timers[key] = self._loop.call_at(moment, self.settle, keeper, moment)

    def _announce(self, keeper: Keeper, times: int) -> None:
        """Announce so many times: first once every group has its word."""
        key = ("announce", keeper.name)
        if key in self._timers:
            self._timers.pop(key).cancel()
        if times > 0:
            if not self._to_announce:
                self._loop.call_soon(self._announce_now)
            self._to_announce[keeper.name] = (keeper, times)

    def _announce_now(self) -> None:
        """A few at a time: in a storm the words of the others go first."""
        if self.view.programs is None:
            self._to_announce, self._sources = {}, None
            return
        if self._sources is None:
            self._sources = self.view.programs.sources()
        for name in list(self._to_announce)[:_AT_ONCE]:
            keeper, times = self._to_announce.pop(name)
            sent = keeper.announce(self._sources.get(keeper.record.index, ()))
            self.teller.tally.announced(keeper.name, sent)
            if times > 1:
                pause = keeper.record.spec.announce_interval_ms / 1000
                self._timers["announce", keeper.name] = self._loop.call_later(
                    pause, self._announce, keeper, times - 1
                )
        if self._to_announce:
            self._loop.call_soon(self._announce_now)
        else:
            self._sources = None

    def carrier_of(self, keeper: Keeper) -> str:
        """What becomes of the master's carrier, in words."""
        if keeper.record.carrier_taken:
            return "taken"
        follows = self._can_follow.get(keeper.name)
        return "follows" if follows else "not available"

    def _learn_carrier(self, name: str, can_follow: bool) -> None:
        """Whether the master's carrier can be made to follow."""
        self._can_follow[name] = can_follow
        if name in self.keepers:
            self._see_to_carrier(self.keepers[name])

    def _see_to_carrier(self, keeper: Keeper) -> None:
        """Have the master's carrier follow the slaves' (design S10)."""
        on, name = keeper.carrier_wanted, keeper.name
        if self._can_follow.get(name) and on is keeper.record.carrier_taken:
            self.jobs.start(
                "carrier",
                name,
                lambda namespace: upkeep.set_carrier(namespace, name, on=on),
                partial(self._tell_carrier, name, on),
            )

    def _tell_carrier(self, name: str, on: bool, done: bool) -> None:
        if done:
            detail = "given back" if on else "taken"
            self.teller.note(name, Kind.CARRIER, detail=detail)

    def follow_mtu(self, keeper: Keeper) -> None:
        """Have the slaves' MTU follow the master's (design S6)."""
        face, name = keeper.face(), keeper.name
        if face is None:
            return
        known = [keeper.link(slot) for slot in keeper.names]
        if all(link is None or link.mtu == face.mtu for link in known):
            self._last_mtu.pop(name, None)
        elif self._last_mtu.get(name) != face.mtu:
            self._last_mtu[name] = face.mtu  # once for each
            self.jobs.start(
                "mtu", name, lambda namespace: upkeep.follow_mtu(namespace, name)
            )

    def mend(self, keeper: Keeper) -> None:
        """Have a group made whole, as far as can be."""
        name, lost = keeper.name, frozenset(keeper.lost)
        self.jobs.start(
            f"mend {sorted(lost)}",
            name,
            lambda namespace: upkeep.mend(namespace, name, lost),
            partial(self._tell_mended, name),
        )

    def consider(self, link: Link) -> None:
        """Have groups that wait for an interface like this one take it."""
        for keeper in list(self._incomplete.values()):
            if self._waits_for(keeper, link):
                self.mend(keeper)
        for name, declared in self.waiting.items():
            rules = declared.spec.slaves
            driver = self.view.ethtool.driver
            if link.name == name or any(fits(rule, link, driver) for rule in rules):
                self._try_again(name)

    def _try_again(self, name: str) -> None:
        """Attach a declared group that could not be."""
        declared = self.waiting[name]
        self.jobs.start(
            "attach",
            name,
            partial(_attach, declared),
            lambda _: self._no_longer_waits(name),
        )

    def _no_longer_waits(self, name: str) -> None:
        self.waiting.pop(name, None)

    def _waits_for(self, keeper: Keeper, link: Link) -> bool:
        if not keeper.record.created and keeper.face() is None:
            return link.name == keeper.name  # its master came back
        driver = self.view.ethtool.driver
        return any(fits(rule, link, driver) for rule in keeper.vacant())

    def seek(self, keeper: Keeper) -> None:
        """See whether what a group waits for is there already."""
        for link in list(self.view.links.values()):
            free = link.ifindex not in self.slaves and link.ifindex not in (
                self.masters
            )
            if free and self._waits_for(keeper, link):
                self.mend(keeper)
                return

    def prepare_above(self, ifindex: int) -> None:
        """An interface that stands on a master is another now, or has other
        addresses: so have the announcements."""
        below: int | None = ifindex
        while below is not None and below not in self.masters:
            link = self.view.links.get(below)
            below = None if link is None else link.lower
        if below is not None:
            self._loop.call_soon(self.masters[below].prepare)

    def _tell_mended(self, name: str, done: Mended) -> None:
        for ifindex in sorted(done.gone):
            self.teller.note(name, Kind.LEAVE, detail=f"interface {ifindex}")
        for link in done.joined.values():
            detail = f"interface {link.ifindex}"
            self.teller.note(name, Kind.JOIN, after=link.name, detail=detail)
        for what in done.repaired:
            self.teller.note(name, Kind.REPAIR, detail=what)
        if done.gone and name in self.keepers:
            self.seek(self.keepers[name])  # it may have come back meanwhile

    def renamed(self, keeper: Keeper, old: Link, link: Link) -> None:
        """A slave has another name; it is set up once more (design S0)."""
        self._poll_these()
        log_event(
            log,
            logging.INFO,
            "renamed",
            master=keeper.name,
            slave=old.name,
            to=link.name,
        )
        self.jobs.start(
            f"rename {link.ifindex}",
            keeper.name,
            lambda namespace: upkeep.set_up_again(namespace, link.ifindex),
        )

    async def compare(self, found: upkeep.Dump) -> None:
        """Take a dump for the truth, but for what happened since it was begun."""
        news = self._take_dump(found)
        changed: Records = dict.fromkeys(self.keepers.keys() - found.records.keys())
        for name, record in found.records.items():
            if name not in self.keepers or record != self.keepers[name].record:
                changed[name] = record
        self.adopt(changed, False)
        for keeper in list(self.keepers.values()):
            await asyncio.sleep(0)  # what happens meanwhile goes first
            if self.keepers.get(keeper.name) is keeper:
                self._look_over(keeper, news, broken=keeper.name in found.broken)
        for name in self.waiting:
            self._try_again(name)

    def _take_dump(self, found: upkeep.Dump) -> bool:
        """Have the view as a dump says; whether it was not."""
        view, touched = self.view, self.view.touched

        def older(ifindex: int) -> bool:
            return touched.get(ifindex, float("-inf")) < found.started

        links = {i: link for i, link in view.links.items() if not older(i)}
        links |= {i: link for i, link in found.links.items() if older(i)}
        addresses = {(a.ifindex, a.address): a for a in found.addresses}
        news = (links, addresses) != (view.links, view.addresses)
        view.links, view.addresses = links, addresses
        view.touched = {i: t for i, t in touched.items() if not older(i)}
        self._poll_these()
        return news

    def _look_over(self, keeper: Keeper, news: bool, *, broken: bool) -> None:
        """See whether a group is as it should be, and have it mended if not."""
        now = time.monotonic()
        if news:
            for slot in keeper.names:
                keeper.see(slot, now)
            keeper.prepare()
        self.settle(keeper, now)
        self.follow_mtu(keeper)
        if broken or keeper.lost:
            self.mend(keeper)
        elif keeper.name in self._incomplete:
            self.seek(keeper)


def _attach(declared: Declared, namespace: Namespace) -> None:
    name, roots = declared.spec.name, namespace.roots
    if config.find(roots.etc, name, roots.netns) is not None:  # still
        commands.attach_declared(namespace, declared)
