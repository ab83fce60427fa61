# SPDX-License-Identifier: GPL-2.0-or-later
"""Files for a network manager as values: where, what, and by what they are ours.

A file is ours if its first line says so, for the same master and manager; a name
alone makes none ours.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory, and which names in it are for files of ours."""

    directory: PurePosixPath  # from the root
    before: str = ""  # the part of a name before that of the master
    after: str = ""  # and behind it, a regular expression

    def named(self, master: str) -> re.Pattern[str]:
        """What the whole name of a file for a master is like."""
        return re.compile(f"{re.escape(self.before + stem(master))}{self.after}")

    def path(self, master: str, after: str = "") -> PurePosixPath:
        """A file for a master."""
        return self.directory / f"{self.before}{stem(master)}{after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that is to be there, without the lines that mark it."""

    path: PurePosixPath  # from the root
    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that is said to one manager of one master."""

    master: str
    manager: str
    places: tuple[Place, ...]  # where files of ours may be, now or from before
    files: tuple[File, ...] = ()
    notes: tuple[str, ...] = ()  # what these files cannot do
    reread: tuple[str, ...] = ()  # commands that have the manager read them
    forget: tuple[str, ...] = ()  # the same once they are gone

    @property
    def mark(self) -> str:
        """The first line of every file."""
        return f"# Written by pyfailover netconf: {self.master}, {self.manager}."

    def content(self, file: File) -> str:
        """All of a file."""
        command = f"pyfailover netconf {shlex.quote(self.master)}"
        return (
            f"{self.mark}\n"
            f"# '{command} --for {self.manager} --remove' takes it away.\n\n{file.text}"
        )


def stem(master: str) -> str:
    """What the names of all files for a master have in common, and no other's.

    Of letters, digits, - and _ alone: interfaces(5) looks at no others.
    """
    plain = re.sub(
        r"[^A-Za-z0-9-]",
        lambda found: "".join(f"_{byte:02x}" for byte in found[0].encode()),
        master,
    )
    return f"pyfailover-{plain}"
