# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs in the place of those that run, and no packet passes by.

Programs of the same ABI take over the maps, so nothing is forgotten. Another ABI's
maps cannot be read but for the words: the groups are written anew from their
records, and their counters begin at zero. Each hook changes over by itself; until
the last one has, both sets work.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pyfailover.datapath import loading
from pyfailover.datapath.recipe import sources
from pyfailover.errors import PyFailoverError, StateError
from pyfailover.journal import Record
from pyfailover.mending import tune
from pyfailover.steps import Attach, OpenGroup, Seat, from_data
from pyfailover.transaction import Namespace, is_foreign

log = logging.getLogger(__name__)

S = TypeVar("S")


def renew(namespace: Namespace, *, carrier_test: bool | None = None) -> bool:
    """Have the programs that run be of this version, and of a kind.

    Args:
        carrier_test: None: as it is.

    Returns:
        Whether they were others.

    Raises:
        BuildError, UnsupportedError: they cannot be had; the old ones go on.
        PyFailoverError: a hook could not be changed over; the others were.
    """
    if not _attached(namespace):
        return False
    if not is_foreign(namespace.host.pins):
        loaded = namespace.host.programs
        if loaded is None:  # somebody removed the pins
            return False
        same_kind = carrier_test in (None, loaded.carrier_test)
        if same_kind and loaded.made_of == sources():
            return False
    replace(namespace, carrier_test=carrier_test)
    return True


def replace(namespace: Namespace, *, carrier_test: bool | None = None) -> None:
    """Have the programs replaced, be they the same or others.

    Args:
        carrier_test: None: as it is.

    Raises:
        StateError: none are loaded.
        PyFailoverError: see renew().
    """
    records = _attached(namespace)
    if is_foreign(namespace.host.pins) and records:
        return _inherit(namespace, records, carrier_test)
    if namespace.host.programs is None:
        raise StateError(
            "cannot replace the programs: none are loaded in this namespace",
            hint="'pyfailover status' lists groups",
        )
    now = namespace.host.loaded.carrier_test
    kind = now if carrier_test is None else carrier_test
    loading.with_test(kind, lambda test: namespace.reload(carrier_test=test))
    if kind and not now:  # what the slaves are known by was not learned
        for seat in _steps(records, Seat):
            if namespace.netlink.link(seat.ifindex) is not None:
                seat.write(namespace.host)
    _change_over(namespace, records)
    log.info("the programs were replaced")


def _inherit(
    namespace: Namespace, records: list[Record], carrier_test: bool | None
) -> None:
    """Take over from another ABI's programs."""
    host = namespace.host
    former = namespace.move_in()
    try:
        namespace.load(loading.groups_of(former), carrier_test)
    except PyFailoverError:
        host.pins = former
        raise
    for record in records:
        for group in _steps([record], OpenGroup):
            host.loaded.open_group(group.index, loading.word_of(former, group.index))
            host.loaded.set_master(group.index, group.master)
        for seat in _steps([record], Seat):
            if namespace.netlink.link(seat.ifindex) is not None:
                seat.write(host)
        tune(namespace, record)
    _move_links(former, host.pins)
    _change_over(namespace, records)
    loading.unload(former)
    log.info("the programs of another version were replaced")


def _attached(namespace: Namespace) -> list[Record]:
    return [r for r in namespace.journal.all().values() if r.attached]


def _move_links(former: Path, pins: Path) -> None:
    for pin in sorted((former / "links").iterdir()):
        pin.rename(pins / "links" / pin.name)


def _change_over(namespace: Namespace, records: Iterable[Record]) -> None:
    """Attach the new programs where the old ones are."""
    failure: PyFailoverError | None = None
    for step in _steps(records, Attach):
        if namespace.netlink.link(step.ifindex) is None:
            continue
        try:
            step.apply(namespace.host)
        except PyFailoverError as exc:
            failure = failure or exc
    if failure is not None:
        raise failure


def _steps(records: Iterable[Record], kind: type[S]) -> list[S]:
    """The steps of one kind of some groups."""
    found = (from_data(data) for record in records for data in record.steps)
    return [step for step in found if isinstance(step, kind)]
