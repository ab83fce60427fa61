# SPDX-License-Identifier: GPL-2.0-or-later
"""Having something done: by the controller if there is one, else by ourselves.

Every function returns what came of it, and whether a controller did it: without
one nothing will be brought back.
"""

from dataclasses import dataclass
from typing import Any

from pyfailover import commands, control, renewal, switching
from pyfailover.commands import Wish
from pyfailover.config import spec_to
from pyfailover.mending import Outcome
from pyfailover.place import Roots
from pyfailover.transaction import locked_namespace, paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Where traffic went, as a person is told."""

    before: str | None
    after: str | None
    took_s: float
    generation: int
    announced: int  # frames sent


def attach(roots: Roots, wish: Wish) -> tuple[Outcome, bool]:
    """Create or attach a group.

    Raises:
        PyFailoverError: refused or failed; nothing is changed.
    """
    reply = _ask(
        roots,
        "attach",
        spec=spec_to(wish.spec),
        create=wish.create,
        patient=wish.patient,
        persist=wish.persist,
        max_groups=wish.max_groups,
        carrier_test=wish.carrier_test,
    )
    if reply is not None:
        return Outcome(reply["outcome"]), True
    with locked_namespace(roots) as namespace:
        return commands.attach(namespace, wish), False


def detach(
    roots: Roots, master: str, *, destroy: bool = False, persist: bool = False
) -> tuple[Outcome, bool]:
    """Detach a group, or destroy it with its master.

    Raises:
        PyFailoverError: refused or failed.
    """
    reply = _ask(roots, "detach", master=master, destroy=destroy, persist=persist)
    if reply is not None:
        return Outcome(reply["outcome"]), True
    with locked_namespace(roots) as namespace:
        done = commands.detach(namespace, master, destroy=destroy, persist=persist)
        return done, False


def switch(roots: Roots, master: str, slave: str | None) -> tuple[Moved | None, bool]:
    """Pin a group's traffic to a slave, or (None) leave it to the policy.

    Raises:
        PyFailoverError: not attached, or the slave is not ready.
    """
    reply = _ask(roots, "switch", master=master, slave=slave)
    if reply is not None:
        change = reply["change"]
        return None if change is None else Moved(**change), True
    with locked_namespace(roots) as namespace:
        done = switching.switch(namespace, master, slave)
    if done is None:
        return None, False
    moved = Moved(
        before=done.before,
        after=done.after,
        took_s=done.took_s,
        generation=done.generation,
        announced=done.announced,
    )
    return moved, False


def reload(roots: Roots) -> dict[str, Any] | None:
    """Have the controller read its files again; None if there is none.

    Raises:
        PyFailoverError: a file has an error; nothing is changed.
    """
    return _ask(roots, "reload")


def replace_programs(roots: Roots, carrier_test: bool | None) -> bool:
    """Have the programs replaced under traffic; whether a controller did it.

    Raises:
        PyFailoverError: see renewal.replace().
    """
    if _ask(roots, "replace", carrier_test=carrier_test) is not None:
        return True
    with locked_namespace(roots) as namespace:
        renewal.replace(namespace, carrier_test=carrier_test)
    return False


def status(roots: Roots) -> dict[str, Any] | None:
    """What the controller knows beside what the kernel does; None: there is none."""
    return _ask(roots, "status")


def _ask(roots: Roots, do: str, **arguments: Any) -> dict[str, Any] | None:
    return control.ask(paths(roots)[1], do, **arguments)
