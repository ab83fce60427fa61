# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be asked of a controller over its socket, and what it answers.

Arguments come from a socket: each is looked at before anything is done.
"""

import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from pyfailover import __version__, commands, switching
from pyfailover.commands import Wish
from pyfailover.config import spec_from
from pyfailover.control import Reply, Request
from pyfailover.controller import Controller
from pyfailover.datapath import cache
from pyfailover.errors import ConfigError
from pyfailover.history import Kind
from pyfailover.model import Decider, Reason
from pyfailover.transaction import Namespace


class Requests:
    """Answers, on behalf of a controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._answers: dict[str, Callable[[Request], Awaitable[Reply]]] = {
            "status": self._status,
            "metrics": self._metrics,
            "attach": self._attach,
            "detach": self._detach,
            "switch": self._switch,
            "reload": self._reload,
            "replace": self._replace,
        }

    async def handle(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            PyFailoverError: refused or failed; nothing is changed.
        """
        answer = self._answers.get(request["do"])
        if answer is None:
            raise ConfigError(
                f"the controller cannot do {request['do']!r}",
                hint=f"it can do {', '.join(self._answers)}, watch",
            )
        return await answer(request)

    async def _status(self, request: Request) -> Reply:
        _arguments(request)
        controller, now = self._controller, time.monotonic()
        kept = controller.kept
        return {
            "pid": os.getpid(),
            "version": __version__,
            "started": controller.started,
            "counts": {
                **controller.counts,
                "repairs": kept.teller.tally.repairs.total(),
            },
            "troubles": {n: exc.message for n, exc in kept.jobs.troubles.items()},
            "groups": {
                name: {
                    **keeper.status(now),
                    "carrier": kept.carrier_of(keeper),
                    "degraded_since": kept.teller.degraded_since(name),
                }
                for name, keeper in kept.keepers.items()
            },
        }

    async def _metrics(self, request: Request) -> Reply:
        """As of `status`, and all that was counted."""
        tally = self._controller.kept.teller.tally.as_data()
        loads = dict(cache.obtained)
        return {**await self._status(request), "tally": tally, "loads": loads}

    async def _attach(self, request: Request) -> Reply:
        found = _arguments(
            request,
            spec=dict,
            create=bool,
            patient=bool,
            persist=bool,
            max_groups=(int, type(None)),
            carrier_test=(bool, type(None)),
        )
        spec = spec_from(found.pop("spec"), "request")
        room = found["max_groups"]
        if room is not None and not 1 <= room <= 4096:
            raise ConfigError("max_groups is a whole number from 1 to 4096")
        wish = Wish(spec=spec, **found)
        outcome = await self._controller.kept.jobs.do(
            lambda namespace: commands.attach(namespace, wish)
        )
        return {"outcome": outcome}

    async def _detach(self, request: Request) -> Reply:
        found = _arguments(request, master=str, destroy=bool, persist=bool)
        outcome = await self._controller.kept.jobs.do(
            lambda namespace: commands.detach(
                namespace,
                found["master"],
                destroy=found["destroy"],
                persist=found["persist"],
            )
        )
        kept = self._controller.kept
        kept.waiting.pop(found["master"], None)  # wanted no more
        kept.jobs.forget(found["master"], "attach")
        return {"outcome": outcome}

    async def _switch(self, request: Request) -> Reply:
        found = _arguments(request, master=str, slave=(str, type(None)))
        kept, master, slave = self._controller.kept, found["master"], found["slave"]
        keeper = kept.find(master)
        if keeper is None:
            raise switching.not_attached(master)
        slot = None
        if slave is not None:
            slot = switching.slot_of(keeper.record, kept.view.links, slave)
        # Written down first: the next controller shall not move it back.
        await kept.jobs.read(partial(_pin, keeper.name, slot))
        keeper.record.pinned = slot
        keeper.pin(slot)
        changes = kept.settle(
            keeper, time.monotonic(), reason=Reason.OPERATOR, by=Decider.USER
        )
        kept.teller.note(keeper.name, Kind.PIN, after=slave, by=Decider.USER)
        return {"change": _shown(changes[-1]) if changes else None}

    async def _replace(self, request: Request) -> Reply:
        found = _arguments(request, carrier_test=(bool, type(None)))
        await self._controller.replace_programs(found["carrier_test"])
        return {}

    async def _reload(self, request: Request) -> Reply:
        _arguments(request)
        done = await self._controller.reload()
        return {
            "done": dict(done.done),
            "detached": done.detached,
            "failed": {name: str(exc) for name, exc in done.failed.items()},
        }


def _pin(name: str, slot: int | None, namespace: Namespace) -> None:
    switching.pin(namespace, name, slot)


def _shown(change: switching.Change) -> Reply:
    return {
        "before": change.before,
        "after": change.after,
        "took_s": change.took_s,
        "generation": change.generation,
        "announced": change.announced,
    }


def _arguments(request: Request, **types: type | tuple[type, ...]) -> dict[str, Any]:
    """The arguments of a request, all there and of their types; no others.

    Raises:
        ConfigError: they are not.
    """
    found = {key: value for key, value in request.items() if key != "do"}
    if found.keys() != types.keys():
        wanted = ", ".join(types) or "none"
        raise ConfigError(f"'{request['do']}' takes these arguments: {wanted}")
    for key, kind in types.items():
        value = found[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(value) not in kinds:
            raise ConfigError(f"'{request['do']}' cannot take {key} = {value!r:.80}")
    return found
