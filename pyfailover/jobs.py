# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on the locked namespace, one piece after the other, in a thread.

Its secret is how a controller waits for the lock and for the kernel without its
event loop waiting too, and what it does about work that fails.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

from pyfailover.errors import PyFailoverError
from pyfailover.journal import Record
from pyfailover.logs import event as log_event
from pyfailover.place import Roots
from pyfailover.transaction import Namespace, locked_namespace

log = logging.getLogger(__name__)

T = TypeVar("T")
Job = Callable[[Namespace], T]

Records = dict[str, Record | None]  # None: there is no such group (any more)


class Jobs:
    """A queue, and the thread that empties it.

    Args:
        adopt: is handed the records of the groups that a job was about, and
            whether these are all that there are.
    """

    def __init__(self, roots: Roots, adopt: Callable[[Records, bool], None]) -> None:
        self._troubles: dict[tuple[str, str], PyFailoverError] = {}
        self._roots = roots
        self._adopt = adopt
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._again: dict[tuple[str, str], Callable[[], None]] = {}
        self._queue: asyncio.Queue[
            tuple[Job[Any], Collection[str] | None, asyncio.Future[tuple[Any, Records]]]
        ] = asyncio.Queue()

    async def do(self, job: Job[T], *names: str) -> T:
        """Have work done, and adopt what came of it.

        Args:
            names: the groups that it is about; none: all.

        Raises:
            PyFailoverError: of the job.
        """
        result, records = await self._wait(job, names or None)
        self._adopt(records, not names)
        return result

    async def read(self, job: Job[T]) -> T:
        """Have something read; nothing is adopted.

        Raises:
            PyFailoverError: of the job.
        """
        return (await self._wait(job, ()))[0]

    async def _wait(
        self, job: Job[T], names: Collection[str] | None
    ) -> tuple[T, Records]:
        future: asyncio.Future[tuple[T, Records]]
        future = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((job, names, future))
        return await future

    def start(
        self,
        what: str,
        name: str,
        job: Job[T],
        then: Callable[[T], None] = lambda _: None,
    ) -> None:
        """Have work on a group done some time; while the same is under way, once more
        after it, for that may have begun too early."""
        key = (what, name)
        if key in self._under_way:
            self._again[key] = partial(self.start, what, name, job, then)
            return
        self._under_way[key] = asyncio.create_task(self._see_through(key, job, then))

    async def _see_through(
        self, key: tuple[str, str], job: Job[T], then: Callable[[T], None]
    ) -> None:
        what, name = key[0].split()[0], key[1]
        try:
            done = await self.do(job, name)
            self._troubles.pop((what, name), None)
            then(done)
        except PyFailoverError as exc:
            self.trouble(name, exc, what)
        except Exception:  # one group's is not the others'
            log.exception("work on '%s' failed: %s", name, key[0])
        finally:
            del self._under_way[key]
        again = self._again.pop(key, None)
        if again is not None:
            again()

    @property
    def troubles(self) -> dict[str, PyFailoverError]:
        """What is wrong, by group."""
        return {name: exc for (_, name), exc in self._troubles.items()}

    def trouble(self, name: str, exc: PyFailoverError, what: str = "attach") -> None:
        """Tell what is wrong with a group, once; until the same work succeeds."""
        known = self._troubles.get((what, name))
        self._troubles[what, name] = exc
        if known is None or known.message != exc.message:
            log_event(
                log, logging.ERROR, "trouble", master=name, error=exc, hint=exc.hint
            )

    def forget(self, name: str, what: str | None = None) -> None:
        """There is no such group any more, or nobody wants that work on it."""
        for key in list(self._troubles):
            if key[1] == name and what in (None, key[0]):
                del self._troubles[key]

    def drop(self) -> None:
        """Leave undone what has not begun; who waits for it is cancelled."""
        while not self._queue.empty():
            self._queue.get_nowait()[2].cancel()

    async def work(self) -> None:
        """Do what is asked for, for ever."""
        while True:
            job, names, future = await self._queue.get()
            try:
                done = await asyncio.to_thread(self._under_lock, job, names)
            except Exception as exc:  # noqa: BLE001 - it is whoever waits that fails
                if not future.cancelled():
                    future.set_exception(exc)
            else:
                if not future.cancelled():
                    future.set_result(done)

    def _under_lock(
        self, job: Job[T], names: Collection[str] | None
    ) -> tuple[T, Records]:
        with locked_namespace(self._roots) as namespace:
            result = job(namespace)
            if names is not None:
                return result, {name: namespace.journal.get(name) for name in names}
            return result, dict(namespace.journal.all())
