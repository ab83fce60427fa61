# SPDX-License-Identifier: GPL-2.0-or-later
"""One network namespace under its lock, and changes to it that are all or nothing.

A change is a sequence of steps; each is journalled before it is taken, and on
any failure the steps of this change are taken back. What a killed process
began is taken back by whoever comes next.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pyfailover.datapath import abi, loading, programs, readings
from pyfailover.errors import PyFailoverError, StateError
from pyfailover.ethtool import Ethtool
from pyfailover.journal import Journal, Record, StepData, forget_namespace
from pyfailover.model import Link
from pyfailover.netlink.rtnl import Netlink
from pyfailover.place import (
    Roots,
    ensure_bpffs,
    give,
    live_cookies,
    locked,
    netns_cookie,
)
from pyfailover.steps import Host, Step, from_data, made_ends, to_data

log = logging.getLogger(__name__)

T = TypeVar("T")
Checkpoint = Callable[[str], None]

_VERSION = f"v{abi.ABI_VERSION}"


def paths(roots: Roots) -> tuple[Path, Path]:
    """Directories of this namespace: pins, and run-time files.

    While there are pins of another ABI they are the pins: see renewal.
    """
    cookie = str(netns_cookie())
    ours = roots.pins / _VERSION / cookie
    others = sorted({*roots.pins.glob(f"v[0-9]*/{cookie}")} - {ours})
    return (others[-1] if others else ours), roots.run / cookie


def is_foreign(pins: Path) -> bool:
    """Whether pins are another ABI's: only their words can be read."""
    return pins.parent.name != _VERSION


def open_programs(pins: Path) -> programs.ProgramSet | None:
    """The programs of a namespace, if they are loaded and we know their maps."""
    return _if_loaded(pins, programs.ProgramSet)


def read_programs(pins: Path, groups: int) -> readings.Readings | None:
    """What the programs of a namespace say, if they are loaded and we know their maps.

    Args:
        groups: one more than the highest index that will be asked for.
    """
    return _if_loaded(pins, lambda place: readings.read(place, groups))


def _if_loaded(pins: Path, use: Callable[[Path], T]) -> T | None:
    if is_foreign(pins):
        return None
    try:
        return use(pins)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise PyFailoverError(
            f"cannot open the programs under '{pins}': {exc.strerror}",
            hint="run as root",
        ) from exc


def find_record(
    journal: Journal, look: Callable[[], Mapping[int, Link]], name: str
) -> Record | None:
    """A group's record, by its name or by the present name of its master.

    Args:
        look: has all interfaces by ifindex.
    """
    record = journal.get(name)
    if record is not None:
        return record
    links = look()
    for other in journal.all().values():
        ends = made_ends(links, other.low_mac)
        master = ends.top if ends is not None else links.get(other.master or 0)
        if master is not None and master.name == name:
            return other
    return None


def sweep(roots: Roots) -> None:
    """Remove pins and records of namespaces that are no more.

    Their devices went with them, so nothing is attached; only memory is held.
    """
    pins, _ = paths(roots)
    found = (*pins.parent.glob("*"), *roots.run.glob("*"))
    left = {path.name for path in found if path.name.isdecimal() and path.is_dir()}
    idle = {name for name in left if not loading.in_use(pins.with_name(name))}
    if not idle - {pins.name}:
        return
    live = live_cookies()
    if live is None:
        return  # root's to do, and not ours
    for name in idle - {str(cookie) for cookie in live}:
        with suppress(StateError), locked(roots.run / name, wait_s=0):
            loading.unload(pins.with_name(name))
            forget_namespace(roots.run / name)


@contextmanager
def locked_namespace(
    roots: Roots, *, checkpoint: Checkpoint = lambda _: None
) -> Iterator["Namespace"]:
    """This namespace, for a change: locked, and what was left half done undone.

    Args:
        checkpoint: called with a label before and after every single change;
            tests fail or kill the process from it.
    """
    pins, run = paths(roots)
    with locked(run) as lock_fd, Netlink() as netlink, Ethtool() as ethtool:
        host = Host(netlink, ethtool, pins, open_programs(pins))
        namespace = Namespace(host, Journal(run), roots, lock_fd, checkpoint)
        try:
            namespace.recover()
            yield namespace
        except BaseException:
            namespace.settle()  # programs loaded for a group that did not come
            raise
        finally:
            if host.programs is not None:
                host.programs.close()
            if os.geteuid() == 0:
                _leave_to_owners(roots)


def _leave_to_owners(roots: Roots) -> None:
    """Have what root made in somebody's directories be his: a controller that runs
    as another user goes on with it."""
    for directory in (roots.pins, roots.run):
        with suppress(FileNotFoundError):
            owner = directory.stat()
            if owner.st_uid != 0:
                give(directory, owner.st_uid, owner.st_gid)


class Namespace:
    """A namespace that locked_namespace() has locked."""

    def __init__(
        self,
        host: Host,
        journal: Journal,
        roots: Roots,
        lock_fd: int,
        checkpoint: Checkpoint,
    ) -> None:
        self.host = host
        self.netlink = host.netlink
        self.journal = journal
        self.roots = roots
        self.run = paths(roots)[1]
        self._scratch = self.run / "headers"
        self._lock_fd = lock_fd
        self._checkpoint = checkpoint

    def recover(self) -> None:
        """Take back what a killed process began.

        What cannot be taken back is told, and does not keep other groups waiting.
        """
        for record in self.journal.all().values():
            if len(record.steps) > record.committed:
                try:
                    self.undo(record, record.committed)
                except PyFailoverError as exc:
                    log.warning("%s", exc)
        self.settle()

    def load(self, max_groups: int | None, carrier_test: bool | None) -> None:
        """Have the programs loaded.

        Args:
            max_groups: that there is to be room for; None: as it is, or as usual.
            carrier_test: whether they are to look at the slaves' carrier; None: as
                it is, or as the roots say.

        Raises:
            StateError: they are loaded, and are not like that.
        """
        ensure_bpffs(self.roots.pins)
        if self.host.programs is None:
            sweep(self.roots)
        if self.host.programs is None and carrier_test is None:
            carrier_test = self.roots.carrier_test
        self._checkpoint("before load")
        loading.load(
            self.host.pins,
            max_groups,
            carrier_test,
            store=self.roots.cache,
            lock_fd=self._lock_fd,
            scratch=self._scratch,
        )
        self._checkpoint("after load")
        if self.host.programs is None:
            self.host.programs = open_programs(self.host.pins)

    def keep_image(self) -> None:
        """Have a file with the programs that load() would load; see
        loading.keep_image()."""
        loading.keep_image(
            None,
            self.roots.carrier_test,
            store=self.roots.cache,
            scratch=self._scratch,
        )

    def reload(self, *, carrier_test: bool) -> None:
        """Have other programs pinned over the same maps; see loading.replace()."""
        loading.replace(
            self.host.pins,
            carrier_test=carrier_test,
            store=self.roots.cache,
            lock_fd=self._lock_fd,
            scratch=self._scratch,
        )
        if self.host.programs is not None:
            self.host.programs.close()
        self.host.programs = open_programs(self.host.pins)

    def move_in(self) -> Path:
        """Have our own pins in the place of another ABI's; where those are."""
        former = self.host.pins
        self.host.pins = former.parent.parent / _VERSION / former.name
        return former

    def record(self, name: str) -> Record | None:
        """A group's record, by its name or by the present name of its master."""
        return find_record(self.journal, self.netlink.links, name)

    def carry_out(self, record: Record, steps: Iterable[Step]) -> None:
        """Take the steps, or none of them."""
        start = len(record.steps)
        try:
            for step in steps:
                label = type(step).__name__
                record.steps.append(to_data(step))
                self.journal.put(record)
                self._checkpoint(f"before {label}")
                step.apply(self.host)
                self._checkpoint(f"after {label}")
            self._checkpoint("before commit")
            record.committed = len(record.steps)
            self.journal.put(record)
        except BaseException:
            record.committed = start
            self.undo(record, start)
            raise
        self._checkpoint("after commit")

    def retreat(self, record: Record, keep: int) -> None:
        """Undo all steps but the first `keep`, also if we are killed midway."""
        record.committed = keep
        self.journal.put(record)
        self.undo(record, keep)
        self.settle()

    def take_back(self, record: Record, kind: type[Step]) -> bool:
        """Undo the steps of one kind alone; True if there were any."""
        mine = [d for d in record.steps if d["step"] == kind.__name__]
        for data in reversed(mine):
            from_data(data).revert(self.host)
            record.steps.remove(data)
        record.committed = len(record.steps)
        if mine:
            self.journal.put(record)
        return bool(mine)

    def undo(self, record: Record, keep: int) -> None:
        """Take back the steps beyond the first `keep`, last one first.

        A step that cannot be taken back stays in the record, and the others are
        taken back all the same.

        Raises:
            PyFailoverError: the first such failure, after all were tried.
        """
        stuck: list[StepData] = []
        failure: PyFailoverError | None = None
        for data in reversed(record.steps[keep:]):
            try:
                self._checkpoint(f"before undoing {data['step']}")
                from_data(data).revert(self.host)
            except PyFailoverError as exc:
                stuck.insert(0, data)
                failure = failure or exc
        record.steps[keep:] = stuck
        if record.steps:
            self.journal.put(record)
        else:
            self.journal.drop(record.spec.name)
        if failure is not None:
            raise PyFailoverError(
                f"cannot undo all of '{record.spec.name}': {failure}",
                hint=f"mend that, then: pyfailover detach {record.spec.name}",
            ) from failure

    def settle(self) -> None:
        """Take the programs away with the last group."""
        if any(record.attached for record in self.journal.all().values()):
            return
        if self.host.programs is not None:
            if self.host.programs.ports():
                return  # their record was lost; they carry traffic all the same
            self.host.programs.close()
            self.host.programs = None
        if not loading.in_use(self.host.pins):
            loading.unload(self.host.pins)
        shutil.rmtree(self._scratch, ignore_errors=True)
