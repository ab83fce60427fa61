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
from contextlib import AsyncExitStack, suppress
from functools import partial

from pyfailover import commands, config, control, upkeep
from pyfailover.errors import PyFailoverError
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
from pyfailover.place import Roots, sole_controller
from pyfailover.poll import POLL_S, News
from pyfailover.renewal import renew, replace
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
    """

    kept: Kept  # from ready to end

    def __init__(
        self,
        roots: Roots,
        *,
        reconcile_s: float = RECONCILE_S,
        poll_s: float = POLL_S,
    ) -> None:
        self.counts = Counter(events=0, overruns=0, resyncs=0)
        self.started = time.time()
        self._roots = roots
        self._run = paths(roots)[1]
        self._reconcile_s = reconcile_s
        self._poll_s = poll_s
        self._service = Service()
        self._begun = commands.Reloaded()
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
            asyncio.run(self._live(handle))

    def _begin(self, namespace: Namespace) -> None:
        """Have the groups attached, before anything can happen to them."""
        try:
            renew(namespace, carrier_test=self._roots.carrier_test)
        except PyFailoverError as exc:  # those that run go on
            log_event(log, logging.ERROR, "old programs", error=exc, hint=exc.hint)
        upkeep.give_back_carriers(namespace)
        loaded = config.load(self._roots.etc, self._roots.netns)
        for error in loaded.errors:
            log_event(log, logging.ERROR, "bad file", error=error, hint=error.hint)
        sure = not loaded.errors
        done = commands.bring_about(namespace, loaded.declared, sure=sure)
        self._begun = done
        done.failed |= upkeep.mend_all(namespace, done.done)

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
        await self.kept.jobs.do(partial(replace, carrier_test=carrier_test))

    async def reload(self) -> commands.Reloaded:
        """Bring the namespace to what the files declare.

        Raises:
            PyFailoverError: a file has an error; nothing is changed.
        """
        self._service.reloading()
        try:
            done = await self.kept.jobs.do(commands.reload)
        finally:
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
