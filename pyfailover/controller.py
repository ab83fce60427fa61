# SPDX-License-Identifier: GPL-2.0-or-later
"""The controller of one network namespace: its life, and what it listens to.

Level-triggered: every link event, poll, timer and command ends in the same
decision about a group's state. What must not wait (the word) is done in the
event loop; what takes the lock or waits for the kernel is a job. Traffic goes on
without any of it.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial

from pyfailover import commands, config, control, renewal, upkeep
from pyfailover.errors import PyFailoverError
from pyfailover.exporting import command, keep_exporting
from pyfailover.kept import Kept
from pyfailover.logs import event as log_event
from pyfailover.model import Link
from pyfailover.netlink.events import (
    AddressGone,
    AddressSeen,
    Event,
    Events,
    LinkGone,
    LinkSeen,
    Overrun,
)
from pyfailover.place import Roots, ensure_bpffs, give, held, sole_controller
from pyfailover.poll import POLL_S, News
from pyfailover.privileges import CONTROLLER, Account, can_become_another, drop
from pyfailover.service import Service
from pyfailover.transaction import Namespace, locked_namespace, paths

log = logging.getLogger(__name__)

RECONCILE_S = 10.0
_RECONCILE_SHARE = 0.01  # of a CPU, at most
_NICE = -20


class Controller:
    """Follows the links of a namespace and keeps its groups on their best slaves.

    Args:
        reconcile_s: how often everything is compared with what should be.
        poll_s: how often slaves are asked for their carrier.
        user: whom to be after the start; None: stay who we are.
        export: options of an exporter that is kept running, too; None: none is.
    """

    kept: Kept  # from ready to end
    _held: tuple[int, ...]  # descriptors of the directories

    def __init__(
        self,
        roots: Roots,
        *,
        reconcile_s: float = RECONCILE_S,
        poll_s: float = POLL_S,
        user: Account | None = None,
        export: Sequence[str] | None = None,
    ) -> None:
        self.counts = Counter(events=0, overruns=0, resyncs=0)
        self.started = time.time()
        self._roots = roots
        self._run = paths(roots)[1]
        self._reconcile_s = reconcile_s
        self._poll_s = poll_s
        self._user = user
        self._export = export
        self._service = Service()
        self._begun = commands.Reloaded()
        self._files_good = True
        self._resync_cost_s = 0.0

    # --- its life ---------------------------------------------------------

    def run(self, handle: control.Handler) -> None:
        """Be the controller until SIGTERM or SIGINT.

        Args:
            handle: what answers the control socket.

        Raises:
            StateError: another one runs here.
        """
        sys.setswitchinterval(0.0005)  # the loop shall not wait for the thread
        with suppress(OSError):  # nor for what else the host does: CAP_SYS_NICE
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        with sole_controller(self._run):
            with locked_namespace(self._roots) as namespace:
                self._begin(namespace)
                self._compile(namespace)
                self._give_up_rights()
            asyncio.run(self._live(handle))

    def _begin(self, namespace: Namespace) -> None:
        """Have the groups attached, before anything can happen to them."""
        try:
            renewal.renew(namespace, carrier_test=self._roots.carrier_test)
        except PyFailoverError as exc:  # those that run go on
            log_event(log, logging.ERROR, "old programs", error=exc, hint=exc.hint)
        upkeep.give_back_carriers(namespace)
        loaded = config.load(self._roots.etc, self._roots.netns)
        for error in loaded.errors:
            log_event(log, logging.ERROR, "bad file", error=error, hint=error.hint)
        self._files_good = sure = not loaded.errors
        done = commands.bring_about(namespace, loaded.declared, sure=sure)
        self._begun = done
        done.failed |= upkeep.mend_all(namespace, done.done)

    def _compile(self, namespace: Namespace) -> None:
        """Have the programs at hand for a first group to come: later we may not write
        where they are kept."""
        if namespace.host.programs is not None:
            return
        try:
            namespace.keep_image()
        except (PyFailoverError, OSError) as exc:  # it is not needed yet
            log_event(log, logging.WARNING, "programs not compiled", error=exc)

    def _give_up_rights(self) -> None:
        """Be the user of the controller, who has the pins and the run-time files, and
        no more rights than its work takes."""
        ensure_bpffs(self._roots.pins)
        self._roots.pins.mkdir(mode=0o700, parents=True, exist_ok=True)
        if can_become_another():
            owner = self._user or Account(0, 0)  # they may have been another user's
            for directory in (self._roots.pins, self._roots.run):
                directory.chmod(0o700)
                give(directory, owner.uid, owner.gid)
        (pins, pins_fd), (run, run_fd) = held(self._roots.pins), held(self._roots.run)
        self._held = (pins_fd, run_fd)
        self._roots = replace(self._roots, pins=pins, run=run)
        self._run = paths(self._roots)[1]
        drop(self._user, CONTROLLER)

    async def _live(self, handle: control.Handler) -> None:
        loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._doubt = asyncio.Event()  # something was missed
        self.kept = kept = Kept(self._roots, self._poll_s)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with AsyncExitStack() as stack:
            # Subscribed first, dumped then: nothing can happen in between.
            events = await stack.enter_async_context(Events())
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            forever = [tasks.create_task(kept.jobs.work())]
            await self._resync()
            kept.note(self._begun)
            kept.teller.tally.loaded(self.started, ok=self._files_good)
            serving = control.serve(self._run, handle, kept.teller.watching)
            await stack.enter_async_context(serving)
            forever += [
                tasks.create_task(work)
                for work in (
                    self._listen(events),
                    self._poll(),
                    self._reconcile(),
                    self._feed(),
                )
            ]
            if self._export is not None:
                exporter = keep_exporting(
                    command(self._roots, self._export), self._held
                )
                forever.append(tasks.create_task(exporter))
            loop.add_signal_handler(
                signal.SIGHUP, lambda: tasks.create_task(self._hang_up())
            )
            # What stays is not looked through again: that takes 50 ms for 300 groups.
            gc.collect()
            gc.freeze()
            self._service.ready()
            log_event(log, logging.INFO, "ready", groups=len(kept.keepers))
            await self._stop.wait()
            self._service.stopping()
            kept.jobs.drop()
            try:
                await kept.jobs.do(upkeep.give_back_carriers)
            except PyFailoverError as exc:  # the next controller's start does it
                log_event(log, logging.ERROR, "carriers not given back", error=exc)
            for keeper in kept.keepers.values():
                keeper.leave()
            for task in forever:
                task.cancel()
        log_event(log, logging.INFO, "stopped", groups=len(kept.keepers))

    async def replace_programs(self, carrier_test: bool | None) -> None:
        """Have the programs of this namespace replaced under traffic.

        Raises:
            PyFailoverError: see renewal.replace().
        """
        await self.kept.jobs.do(partial(renewal.replace, carrier_test=carrier_test))

    async def reload(self) -> commands.Reloaded:
        """Bring the namespace to what the files declare.

        Raises:
            PyFailoverError: a file has an error; nothing is changed.
        """
        self._service.reloading()
        ok = False
        try:
            done = await self.kept.jobs.do(commands.reload)
            ok = True
        finally:
            self.kept.teller.tally.reloaded(time.time(), ok=ok)
            self._service.ready()
        self.kept.note(done)
        log_event(log, logging.INFO, "reloaded", groups=len(done.done))
        return done

    async def _hang_up(self) -> None:
        """SIGHUP: read the files again."""
        try:
            await self.reload()
        except PyFailoverError as exc:
            log_event(log, logging.ERROR, "reload failed", error=exc, hint=exc.hint)
        except Exception:  # not the end of the controller
            log.exception("reload failed")

    async def _feed(self) -> None:
        """The service manager's watchdog."""
        while (pause := self._service.watchdog_s) is not None:
            self._service.alive()
            await asyncio.sleep(pause)

    # --- events -----------------------------------------------------------

    async def _listen(self, events: Events) -> None:
        async for event, read_at in events.stream():
            self.counts["events"] += 1
            self._on_event(event, read_at)
            await asyncio.sleep(0)  # others have their turn in a storm, too

    def _on_event(self, event: Event, read_at: float) -> None:
        kept, view = self.kept, self.kept.view
        match event:
            case LinkSeen(link):
                self._on_link(link, read_at)
            case LinkGone(ifindex):
                self._on_link_gone(ifindex, read_at)
            case AddressSeen(address):
                view.addresses[address.ifindex, address.address] = address
                return kept.prepare_above(address.ifindex)
            case AddressGone(address):
                view.addresses.pop((address.ifindex, address.address), None)
                return kept.prepare_above(address.ifindex)
            case Overrun():
                self.counts["overruns"] += 1
                self._doubt.set()
        kept.poll.heat()

    def _on_link(self, link: Link, read_at: float) -> None:
        kept, view = self.kept, self.kept.view
        old = view.links.get(link.ifindex)
        view.links[link.ifindex] = link
        view.touched[link.ifindex] = read_at
        if link.ifindex in kept.slaves:
            keeper, slot = kept.slaves[link.ifindex]
            keeper.see(slot, read_at)
            kept.settle(keeper, read_at)
            if old is not None and old.name != link.name:
                kept.renamed(keeper, old, link)
            return
        if link.ifindex in kept.masters:
            kept.follow_mtu(kept.masters[link.ifindex])
        else:
            kept.consider(link)
        if old is None or (old.name, old.mac, old.up) != (link.name, link.mac, link.up):
            kept.prepare_above(link.ifindex)

    def _on_link_gone(self, ifindex: int, read_at: float) -> None:
        kept, view = self.kept, self.kept.view
        kept.prepare_above(ifindex)
        view.links.pop(ifindex, None)
        view.touched[ifindex] = read_at
        for key in [key for key in view.addresses if key[0] == ifindex]:
            del view.addresses[key]
        if ifindex in kept.slaves:
            kept.lose_slave(ifindex, read_at)
        elif ifindex in kept.masters:
            kept.lose_master(ifindex)

    # --- what is asked for ------------------------------------------------

    async def _poll(self) -> None:
        loop, stop, kept = asyncio.get_running_loop(), threading.Event(), self.kept

        def tell(news: News, since: float) -> None:
            loop.call_soon_threadsafe(kept.see_polled, news, since)

        kept.poll.tell = tell
        try:
            await asyncio.to_thread(kept.poll.run, stop)
        finally:
            stop.set()

    async def _reconcile(self) -> None:
        """Now and then, and at once when something was missed."""
        while True:
            pause = max(self._reconcile_s, self._resync_cost_s / _RECONCILE_SHARE)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._doubt.wait()
            self._doubt.clear()
            await self._resync()

    async def _resync(self) -> None:
        """Compare everything with what should be, and mend."""
        try:
            found = await self.kept.jobs.read(upkeep.dump)
        except PyFailoverError as exc:
            log_event(log, logging.ERROR, "cannot read the namespace", error=exc)
            return
        self.counts["resyncs"] += 1
        self._resync_cost_s = found.cost_s
        try:
            await self.kept.compare(found)
        except PyFailoverError as exc:  # the next time, then
            log_event(log, logging.ERROR, "cannot compare the groups", error=exc)
