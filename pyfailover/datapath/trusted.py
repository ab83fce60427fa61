# SPDX-License-Identifier: GPL-2.0-or-later
"""A directory whose files are believed: nobody but root and us can write them.

What others own or may write to is refused, links are not followed. Files come
whole: written beside their place, then renamed.
"""

import errno
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path

from pyfailover.errors import RefusedError

_COMING = re.compile(r"\.new-[0-9a-f]{16}")
_WRITTEN_WITHIN_S = 60  # what is older was left by a process that was killed
_NOT_THIS = {
    errno.ELOOP: "it is a symbolic link",
    errno.ENOTDIR: "it is no directory",  # nor is a link to one
}


class TrustedDirectory:
    """An open directory; a context manager closes it.

    Raises:
        FileNotFoundError: from the constructor, where there is none.
        RefusedError: from the constructor, if it is not to be trusted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = _open(path, path, os.O_DIRECTORY)
        try:
            _refuse_others(path, os.fstat(self._fd))
        except BaseException:
            os.close(self._fd)
            raise

    @classmethod
    def made(cls, path: Path) -> "TrustedDirectory":
        """The directory, made if it is not there."""
        try:
            path.mkdir(mode=0o755, parents=True)
            path.chmod(0o755)
        except (FileExistsError, NotADirectoryError):
            pass  # if it is not what it should be, that is said
        return cls(path)

    def __enter__(self) -> "TrustedDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def names(self) -> list[str]:
        """Of all that is in it, without what is being written."""
        return [name for name in self._all() if not _COMING.fullmatch(name)]

    def info(self, name: str) -> os.stat_result:
        """Size and age of a file, also of one that would be refused."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

    def read(self, name: str) -> bytes:
        """All of a file.

        Raises:
            FileNotFoundError: there is none.
            RefusedError: it is not to be trusted.
        """
        path = self.path / name
        fd = _open(path, name, os.O_NONBLOCK, dir_fd=self._fd)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise RefusedError(f"'{path}': it is no regular file")
            _refuse_others(path, info)
            return os.read(fd, info.st_size)
        finally:
            os.close(fd)

    def write(self, name: str, content: bytes) -> None:
        """Have a file that is whole, in the place of what had its name."""
        self.sweep(_WRITTEN_WITHIN_S)
        coming = f".new-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(coming, flags, 0o644, dir_fd=self._fd)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, 0o644)
                file.write(content)
            os.rename(coming, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            self.remove(coming)
            raise

    def remove(self, name: str) -> None:
        """Have no file of a name; of a link, it goes and not what it leads to."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def sweep(self, older_s: float = 0) -> None:
        """Remove what was half written so long ago."""
        for name in filter(_COMING.fullmatch, self._all()):
            with suppress(FileNotFoundError):
                if time.time() - self.info(name).st_mtime >= older_s:
                    self.remove(name)

    def _all(self) -> list[str]:
        with os.scandir(self._fd) as found:
            return [entry.name for entry in found]


def _open(
    path: Path, name: str | Path, flags: int, *, dir_fd: int | None = None
) -> int:
    try:
        flags |= os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, dir_fd=dir_fd)
    except OSError as exc:
        reason = _NOT_THIS.get(exc.errno or 0)
        if reason is None:
            raise
        raise RefusedError(f"'{path}': {reason}") from exc


def _refuse_others(path: Path, info: os.stat_result) -> None:
    if info.st_uid not in (0, os.geteuid()):
        raise RefusedError(f"'{path}': it belongs to user {info.st_uid}")
    if info.st_mode & 0o022:
        mode = stat.S_IMODE(info.st_mode)
        raise RefusedError(f"'{path}': others may write to it (mode {mode:04o})")
