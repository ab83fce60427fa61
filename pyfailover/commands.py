# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be asked for: groups until reboot, and lasting ones with their files.

Done under the namespace's lock, by the controller if there is one, else by the
command itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pyfailover import config, lifecycle
from pyfailover.config import Declared
from pyfailover.datapath.loading import DEFAULT_MAX_GROUPS
from pyfailover.errors import ConfigError, PyFailoverError, StateError
from pyfailover.mending import Outcome, refuse_change
from pyfailover.model import GroupSpec
from pyfailover.transaction import Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A group that somebody wants."""

    spec: GroupSpec
    create: bool = False  # make the master
    patient: bool = False  # slaves that are not there yet join later
    persist: bool = False  # there is a file that declares it
    max_groups: int | None = None
    carrier_test: bool | None = None  # of the programs; None: if this kernel can


def attach(namespace: Namespace, wish: Wish) -> Outcome:
    """Create or attach a group; its file, if it is to last, is who asks's to write.

    Raises:
        PyFailoverError: refused or failed; nothing is changed.
    """
    act = lifecycle.create if wish.create else lifecycle.attach
    outcome = act(
        namespace,
        wish.spec,
        max_groups=wish.max_groups,
        carrier_test=wish.carrier_test,
        patient=wish.patient,
    )
    if wish.persist:
        _mark(namespace, wish.spec.name, lasting=True)
    return outcome


def _mark(namespace: Namespace, name: str, *, lasting: bool) -> None:
    record = namespace.journal.get(name)
    if record is not None and record.lasting is not lasting:
        record.lasting = lasting
        namespace.journal.put(record)


def _undo(namespace: Namespace, name: str) -> None:
    """Take a group away, with the master if that is ours."""
    record = namespace.journal.get(name)
    if record is not None and record.created:
        lifecycle.destroy(namespace, name)
    else:
        lifecycle.detach(namespace, name)


def detach(
    namespace: Namespace, name: str, *, destroy: bool = False, persist: bool = False
) -> Outcome:
    """Detach a group, or destroy it with its master.

    Args:
        persist: the file that declares it is to be removed by who asks.

    Raises:
        StateError: it is declared by a file, which would bring it back.
    """
    record = namespace.record(name)
    known = name if record is None else record.spec.name
    path = config.find(namespace.roots.etc, known, namespace.roots.netns)
    if path is not None and not persist:
        raise StateError(
            f"cannot detach '{known}' for good: '{path}' declares it",
            hint="--persist removes that file too",
        )
    act = lifecycle.destroy if destroy else lifecycle.detach
    outcome = act(namespace, name)
    _mark(namespace, known, lasting=False)  # an idle master of ours stays
    return outcome


@dataclass(slots=True, kw_only=True)
class Reloaded:
    """What the files came to."""

    done: dict[str, Outcome] = field(default_factory=dict)
    detached: list[str] = field(default_factory=list)
    failed: dict[str, PyFailoverError] = field(default_factory=dict)
    waiting: dict[str, Declared] = field(default_factory=dict)  # of the failed


def reload(namespace: Namespace) -> Reloaded:
    """Bring the namespace to what the files declare.

    Raises:
        PyFailoverError: a file has an error, or wants what cannot be changed under
            traffic; nothing is changed.
    """
    loaded = config.load(namespace.roots.etc, namespace.roots.netns)
    if loaded.errors:
        first, *others = loaded.errors
        more = f" (and {len(others)} more)" if others else ""
        raise ConfigError(f"{first.message}{more}", hint=first.hint)
    for declared in loaded.declared:
        record = namespace.journal.get(declared.spec.name)
        if record is not None and record.attached:
            refuse_change(record.spec, declared.spec)
    return bring_about(namespace, loaded.declared)


def bring_about(
    namespace: Namespace, declared: Iterable[Declared], *, sure: bool = True
) -> Reloaded:
    """Attach what is declared, change what is declared otherwise, detach what no
    longer is. One that fails keeps no other waiting.

    Args:
        sure: whether what is missing is not wanted; it may be in a file with an
            error.
    """
    done = Reloaded()
    wanted = {each.spec.name: each for each in declared}
    for name, record in namespace.journal.all().items():
        if sure and record.lasting and name not in wanted:
            try:
                _undo(namespace, name)
                done.detached.append(name)
            except PyFailoverError as exc:
                done.failed[name] = exc
    for name, each in wanted.items():
        try:
            done.done[name] = attach_declared(namespace, each)
        except PyFailoverError as exc:
            done.failed[name] = exc
            done.waiting[name] = each
    return done


def attach_declared(namespace: Namespace, declared: Declared) -> Outcome:
    """Attach what a file declares, without the slaves that are not there yet.

    Raises:
        PyFailoverError: refused or failed; nothing is changed.
    """
    wish = Wish(
        spec=declared.spec,
        create=declared.create,
        patient=True,
        max_groups=_room(namespace),
    )
    outcome = attach(namespace, wish)
    _mark(namespace, declared.spec.name, lasting=True)
    return outcome


def _room(namespace: Namespace) -> int | None:
    """Groups that the programs are to be loaded for: all that are declared, half as
    many as usual beside, and a multiple of that, for which there may be a file.
    None: they are loaded."""
    if namespace.host.programs is not None:
        return None
    declared = config.load(namespace.roots.etc, namespace.roots.netns).declared
    wanted = len(declared) + DEFAULT_MAX_GROUPS // 2
    return -(-wanted // DEFAULT_MAX_GROUPS) * DEFAULT_MAX_GROUPS
