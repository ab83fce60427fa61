# SPDX-License-Identifier: GPL-2.0-or-later
"""Having something done: by the controller if there is one, else by ourselves.

Every function returns what came of it, and whether a controller did it: without
one nothing will be brought back.
"""

from dataclasses import dataclass
from typing import Any

from pyfailover import commands, config, control, renewal, switching
from pyfailover.commands import Wish
from pyfailover.config import Declared, spec_to
from pyfailover.journal import Journal
from pyfailover.mending import Outcome
from pyfailover.netlink.rtnl import Netlink
from pyfailover.place import Roots
from pyfailover.transaction import find_record, locked_namespace, paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Where traffic went, as a person is told."""

    before: str | None
    after: str | None
    took_s: float
    generation: int
    announced: int  # frames sent


def attach(roots: Roots, wish: Wish) -> tuple[Outcome, bool]:
    """Create or attach a group, and write the file of one that is to last: that is
    root's, and no controller's.

    Raises:
        PyFailoverError: refused or failed; nothing is changed.
    """
    if not wish.persist:
        return _attach(roots, wish)
    declared = Declared(
        spec=wish.spec, create=wish.create, netns=roots.netns, path=roots.etc
    )
    with config.saved(roots.etc, declared):
        return _attach(roots, wish)


def _attach(roots: Roots, wish: Wish) -> tuple[Outcome, bool]:
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
    path = None
    if persist:
        name = _name_of(roots, master)
        path = config.find(roots.etc, name, roots.netns)
    reply = _ask(roots, "detach", master=master, destroy=destroy, persist=persist)
    if reply is not None:
        outcome = Outcome(reply["outcome"])
    else:
        with locked_namespace(roots) as namespace:
            outcome = commands.detach(
                namespace, master, destroy=destroy, persist=persist
            )
    if path is not None:
        config.remove(path)
        outcome = Outcome.DONE
    return outcome, reply is not None


def _name_of(roots: Roots, master: str) -> str:
    """Of a group, by its own or by its master's present name."""
    with Netlink() as netlink:
        record = find_record(Journal(paths(roots)[1]), netlink.links, master)
    return master if record is None else record.spec.name


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
