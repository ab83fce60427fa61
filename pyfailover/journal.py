# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of groups on disk: what was asked for, and what was done so far.

Write-ahead: a step is in the record before it is taken, with all that is
needed to take it back. So any later process can finish or undo what a killed
one began. One JSON file per group, replaced atomically; /run forgets them at
boot together with everything they speak of.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pyfailover.config import spec_from, spec_to
from pyfailover.errors import ConfigError, StateError
from pyfailover.model import GroupSpec, TcMode, check_ifname

_FORMAT = 2
# Each piece of work reads all records, of which hardly one is new.
_REMEMBERED = 512
# What else there may be beside the records: the lock and the controller's things.
_OTHERS = (
    "lock",
    "controller",
    "control.new",
    "control.sock",
    "events.jsonl",
    "events.jsonl.1",
)

StepData = dict[str, Any]  # of pyfailover.steps: "step" names the class


@dataclass(slots=True, kw_only=True)
class Record:
    """A group on disk.

    `steps` beyond `committed` belong to a change that has not ended well (yet).
    What is where follows from the steps; it is not written twice.
    """

    spec: GroupSpec
    index: int  # in the maps
    tc: TcMode  # as resolved: never AUTO
    steps: list[StepData] = field(default_factory=list)
    committed: int = 0
    pinned: int | None = None  # slot that the operator holds the traffic on
    lasting: bool = False  # declared by a file

    @property
    def attached(self) -> bool:
        """Whether anything but the making of the master is recorded."""
        return len(self.steps) > self.kept_by_detach

    @property
    def kept_by_detach(self) -> int:
        """Steps that `detach` leaves: those that made the master."""
        return len(self.of("MakeVeth"))

    @property
    def created(self) -> bool:
        """Whether the master is a veth pair of ours."""
        return bool(self.of("MakeVeth"))

    @property
    def carrier_taken(self) -> bool:
        """Whether the master's carrier follows the slaves'."""
        return bool(self.of("TakeCarrier"))

    @property
    def low_mac(self) -> str | None:
        """Address of the lower end of a master of ours."""
        made = self.of("MakeVeth")
        return made[0]["low_mac"] if made else None

    @property
    def master(self) -> int | None:
        """ifindex of the interface that is attached to on the user's side."""
        opened = self.of("OpenGroup")
        return opened[-1]["master"] if opened else None

    @property
    def slaves(self) -> dict[int, int]:
        """ifindex by slot."""
        return {step["slot"]: step["ifindex"] for step in self.of("Seat")}

    def of(self, kind: str) -> list[StepData]:
        """Its steps of a kind, by the name of their class."""
        return [step for step in self.steps if step["step"] == kind]


class Journal:
    """The records of one namespace; callers hold its lock to write."""

    def __init__(self, run: Path) -> None:
        self._groups = run / "groups"

    def all(self) -> dict[str, Record]:
        """Every record by group name.

        Raises:
            StateError: a record cannot be read.
        """
        if not self._groups.is_dir():
            return {}
        found = {}
        for path in sorted(self._groups.glob("*.json")):
            with suppress(FileNotFoundError):  # who looks on holds no lock
                found[path.name.removesuffix(".json")] = _read(path)
        return found

    def get(self, name: str) -> Record | None:
        """The record of a group, or None."""
        try:
            check_ifname(name)  # it may be whatever somebody typed
        except ConfigError:
            return None
        path = self._path(name)
        return _read(path) if path.is_file() else None

    def put(self, record: Record) -> None:
        """Write a record; a reader sees the old one or the new one."""
        self._groups.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(record.spec.name)
        fresh = path.with_suffix(".new")
        data = {**asdict(record), "spec": spec_to(record.spec)}
        fresh.unlink(missing_ok=True)
        with fresh.open("x") as file:  # root writes where another user may put links
            file.write(json.dumps({"format": _FORMAT, **data}))
        fresh.replace(path)

    def drop(self, name: str) -> None:
        """Forget a group."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._groups / f"{name}.json"


def _read(path: Path) -> Record:
    """A record; one that is as it was the last time is not parsed again."""
    where = f"cannot read the record '{path}'"
    try:
        found = _parsed(path.read_text(), where)
        return replace(found, steps=list(found.steps))
    except (ConfigError, KeyError, TypeError, ValueError) as exc:
        raise StateError(
            exc.message if isinstance(exc, ConfigError) else f"{where}: {exc}",
            hint="move it away; 'pyfailover detach --force' then cleans up",
        ) from exc


@lru_cache(_REMEMBERED)
def _parsed(text: str, where: str) -> Record:
    data: Mapping[str, Any] = json.loads(text)
    if data["format"] != _FORMAT:
        raise ValueError(f"format {data['format']}")
    return Record(
        spec=spec_from(data["spec"], where),
        index=data["index"],
        tc=TcMode(data["tc"]),
        steps=data["steps"],
        committed=data["committed"],
        pinned=data["pinned"],
        lasting=data["lasting"],
    )


def forget_namespace(run: Path) -> None:
    """Remove what is kept of a namespace that is no more, and nothing else."""
    groups = run / "groups"
    others = (run / name for name in _OTHERS)
    for path in (*groups.glob("*.json"), *groups.glob("*.new"), *others):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or something of somebody else in it
        groups.rmdir()
    with suppress(OSError):
        run.rmdir()
