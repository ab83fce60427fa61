# SPDX-License-Identifier: GPL-2.0-or-later
"""Putting a configuration in place, and taking it away: all of it or nothing.

What is not ours is never touched: a foreign file of the name ends it before
anything is done. A manager that reads meanwhile sees each file old or new.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from pyfailover.errors import ConfigError, PyFailoverError, RefusedError
from pyfailover.netconf.files import Configuration


class Done(StrEnum):
    """What became of a file."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class _Wanted:
    content: bytes
    mode: int


def install(root: Path, configuration: Configuration) -> dict[PurePosixPath, Done]:
    """Have the files of a configuration, and no others of ours for the same.

    Args:
        root: / or that of an image.

    Raises:
        RefusedError: one that is not ours has the name of one.
        PyFailoverError: one cannot be written; nothing is changed.
    """
    wanted = {
        file.path: _Wanted(configuration.content(file).encode(), file.mode)
        for file in configuration.files
    }
    return _bring_about(root, configuration, wanted)


def remove(root: Path, configuration: Configuration) -> dict[PurePosixPath, Done]:
    """Have no file of ours for a master and a manager.

    Raises:
        RefusedError: one that is not ours has the name of one.
        PyFailoverError: one cannot be removed; nothing is changed.
    """
    return _bring_about(root, configuration, {})


def _bring_about(
    root: Path, configuration: Configuration, wanted: dict[PurePosixPath, _Wanted]
) -> dict[PurePosixPath, Done]:
    if not root.is_dir():
        raise ConfigError(f"there is no directory '{root}'")
    with _telling(), ExitStack() as undo:
        there = list(_named_as_ours(root, configuration))
        for each in there:
            _refuse_foreign(root / each, configuration)
        same = {each for each in there if _is(root / each, wanted.get(each))}
        gone = [each for each in there if each not in wanted]
        coming = {
            root / each: _written_beside(root / each, file, undo)
            for each, file in wanted.items()
            if each not in same
        }
        kept = [
            _kept(path, undo) for path in (*coming, *(root / each for each in gone))
        ]
        for path, fresh in coming.items():
            fresh.replace(path)
        for each in gone:
            (root / each).unlink()
        undo.pop_all()
        for former in filter(None, kept):
            former.unlink()
    done = {each: Done.UNCHANGED if each in same else Done.WRITTEN for each in wanted}
    return done | dict.fromkeys(gone, Done.REMOVED)


def _named_as_ours(root: Path, configuration: Configuration) -> Iterator[PurePosixPath]:
    """Files that by their names are ours."""
    for place in configuration.places:
        directory = root / place.directory
        if directory.is_dir():
            named = place.named(configuration.master)
            for path in sorted(directory.iterdir()):
                if named.fullmatch(path.name):
                    yield place.directory / path.name


def _refuse_foreign(path: Path, configuration: Configuration) -> None:
    """Refuse a file whose first line does not make it ours."""
    mark = configuration.mark.encode() + b"\n"
    if (
        path.is_symlink()
        or not path.is_file()
        or not path.read_bytes().startswith(mark)
    ):
        raise RefusedError(
            f"'{path}' is not a file that this command wrote for "
            f"'{configuration.master}'",
            hint="look at it, and move it away",
        )


def _is(path: Path, file: _Wanted | None) -> bool:
    found = _Wanted(path.read_bytes(), path.stat().st_mode & 0o7777)
    return found == file


def _written_beside(path: Path, file: _Wanted, undo: ExitStack) -> Path:
    """A file that is whole, and can take the place of another."""
    _have_directory(path.parent, undo)
    fresh = _beside(path)
    undo.callback(fresh.unlink, missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(fresh, flags, 0o600)  # never more than the mode, if for a moment
    with os.fdopen(fd, "wb") as stream:
        stream.write(file.content)
        stream.flush()
        os.fchmod(fd, file.mode)
        os.fsync(fd)
    return fresh


def _kept(path: Path, undo: ExitStack) -> Path | None:
    """A file under another name, until it is sure that it is no longer needed."""
    if not path.exists():
        undo.callback(path.unlink, missing_ok=True)
        return None
    former = _beside(path)
    undo.callback(former.unlink, missing_ok=True)
    former.hardlink_to(path)
    undo.callback(former.replace, path)
    return former


def _beside(path: Path) -> Path:
    """A name that no manager reads: each leaves hidden files alone."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _have_directory(path: Path, undo: ExitStack) -> None:
    for each in (*reversed(path.parents), path):
        if not each.is_dir():
            each.mkdir(mode=0o755)
            undo.callback(each.rmdir)


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise PyFailoverError(
            f"cannot write '{exc.filename}': {exc.strerror}; nothing is changed",
            hint="run as root" if isinstance(exc, PermissionError) else None,
        ) from exc
