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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyfailover.errors import ConfigError, StateError
from pyfailover.model import GroupSpec, MacPolicy, RxMode, Side, TcMode

_FORMAT = 1

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

    @property
    def attached(self) -> bool:
        """Whether anything but the making of the master is recorded."""
        return len(self.steps) > self.kept_by_detach

    @property
    def kept_by_detach(self) -> int:
        """Steps that `detach` leaves: those that made the master."""
        return len(self._of("MakeVeth"))

    @property
    def created(self) -> bool:
        """Whether the master is a veth pair of ours."""
        return bool(self._of("MakeVeth"))

    @property
    def low_mac(self) -> str | None:
        """Address of the lower end of a master of ours."""
        made = self._of("MakeVeth")
        return made[0]["low_mac"] if made else None

    @property
    def master(self) -> int | None:
        """ifindex of the interface that is attached to on the user's side."""
        opened = self._of("OpenGroup")
        return opened[-1]["master"] if opened else None

    @property
    def slaves(self) -> dict[int, int]:
        """ifindex by slot."""
        return {step["slot"]: step["ifindex"] for step in self._of("Seat")}

    def _of(self, kind: str) -> list[StepData]:
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
        paths = sorted(self._groups.glob("*.json"))
        return {path.name.removesuffix(".json"): _read(path) for path in paths}

    def get(self, name: str) -> Record | None:
        """The record of a group, or None."""
        path = self._path(name)
        return _read(path) if path.is_file() else None

    def put(self, record: Record) -> None:
        """Write a record; a reader sees the old one or the new one."""
        self._groups.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(record.spec.name)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"format": _FORMAT, **asdict(record)}))
        fresh.replace(path)

    def drop(self, name: str) -> None:
        """Forget a group."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._groups / f"{name}.json"


def _read(path: Path) -> Record:
    try:
        data: Mapping[str, Any] = json.loads(path.read_text())
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']}")
        spec = data["spec"]
        return Record(
            spec=GroupSpec(
                name=spec["name"],
                primary=spec["primary"],
                standbys=tuple(spec["standbys"]),
                side=Side(spec["side"]),
                mac=MacPolicy(spec["mac"]),
                tc=TcMode(spec["tc"]),
                rx=RxMode(spec["rx"]),
                rx_grace_ms=spec["rx_grace_ms"],
                bypass_filters=spec["bypass_filters"],
            ),
            index=data["index"],
            tc=TcMode(data["tc"]),
            steps=data["steps"],
            committed=data["committed"],
        )
    except (ConfigError, KeyError, TypeError, ValueError) as exc:
        raise StateError(
            f"cannot read the record '{path}': {exc}",
            hint="move it away; 'pyfailover detach --force' then cleans up",
        ) from exc


def forget_namespace(run: Path) -> None:
    """Remove records and lock of a namespace that is no more, and nothing else."""
    groups = run / "groups"
    for path in (*groups.glob("*.json"), *groups.glob("*.new"), run / "lock"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or something of somebody else in it
        groups.rmdir()
    with suppress(OSError):
        run.rmdir()
