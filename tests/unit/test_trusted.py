# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may have written what is believed."""

import os
from pathlib import Path

import pytest

from pyfailover.datapath.trusted import TrustedDirectory
from pyfailover.errors import RefusedError

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
STRANGER = 12345
HALF = f".new-{'0' * 16}"  # a file that is being written


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A trusted directory with a trusted file of a known content."""
    made = tmp_path / "cache"
    made.mkdir()
    made.chmod(0o755)
    (made / "file").write_bytes(b"content")
    (made / "file").chmod(0o644)
    return made


def read(place: Path) -> bytes:
    with TrustedDirectory(place) as files:
        return files.read("file")


def test_ours_is_read(place: Path) -> None:
    """A file of ours that we alone may write is believed."""
    assert read(place) == b"content"


@pytest.mark.parametrize("which", [".", "file"])
@pytest.mark.parametrize("bit", [0o020, 0o002], ids=["group", "others"])
def test_what_others_may_write_is_refused(place: Path, which: str, bit: int) -> None:
    """One bit is enough, of the file or its directory."""
    path = place / which
    path.chmod(path.stat().st_mode & 0o777 | bit)
    with pytest.raises(RefusedError, match=r"others may write to it \(mode 0[67]"):
        read(place)


@ROOT
@pytest.mark.parametrize("which", [".", "file"])
def test_what_others_own_is_refused(place: Path, which: str) -> None:
    """Its owner could make it writable at any time."""
    os.chown(place / which, STRANGER, 0)
    with pytest.raises(RefusedError, match=f"it belongs to user {STRANGER}"):
        read(place)


def test_a_link_in_the_place_of_the_directory_is_refused(place: Path) -> None:
    """Wherever it leads."""
    place.rename(place.with_name("elsewhere"))
    place.symlink_to("elsewhere")
    with pytest.raises(RefusedError, match="it is no directory"):
        TrustedDirectory(place)


def test_a_file_in_the_place_of_the_directory_is_refused(place: Path) -> None:
    """It is said what is amiss."""
    with pytest.raises(RefusedError, match="it is no directory"):
        TrustedDirectory(place / "file")


def test_a_link_in_the_place_of_the_file_is_refused(place: Path) -> None:
    """Also one to a good file."""
    (place / "file").rename(place / "other")
    (place / "file").symlink_to("other")
    with pytest.raises(RefusedError, match="it is a symbolic link"):
        read(place)


def test_a_pipe_in_the_place_of_the_file_is_refused(place: Path) -> None:
    """And is not waited for."""
    (place / "file").unlink()
    os.mkfifo(place / "file")
    with pytest.raises(RefusedError, match="it is no regular file"):
        read(place)


def test_what_is_not_there_is_told(place: Path) -> None:
    """No file and no directory are no matter of trust."""
    with TrustedDirectory(place) as files, pytest.raises(FileNotFoundError):
        files.read("another")
    with pytest.raises(FileNotFoundError):
        TrustedDirectory(place / "another")


def test_made_is_trusted_under_any_umask(place: Path) -> None:
    """The directory and the file are readable by all, writable by us."""
    before = os.umask(0)
    try:
        with TrustedDirectory.made(place / "new") as files:
            files.write("file", b"x")
    finally:
        os.umask(before)
    assert (place / "new").stat().st_mode & 0o777 == 0o755
    assert (place / "new/file").stat().st_mode & 0o777 == 0o644
    assert read(place / "new") == b"x"


def test_written_is_whole_or_old(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old file, and nothing of its own."""

    def fail(*_: object, **__: object) -> None:
        assert any(path.read_bytes() == b"next" for path in place.glob(".new-*"))
        assert (place / "file").read_bytes() == b"content"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with TrustedDirectory(place) as files, pytest.raises(OSError, match="No space"):
        files.write("file", b"next")
    assert [path.name for path in place.iterdir()] == ["file"]
    assert read(place) == b"content"


def test_writing_replaces_a_link_and_not_what_it_leads_to(place: Path) -> None:
    """Nor does removing."""
    other = place.with_name("other")
    other.write_bytes(b"precious")
    for name in ("written", "removed"):
        (place / name).symlink_to(other)
    with TrustedDirectory(place) as files:
        files.write("written", b"next")
        files.remove("removed")
        assert files.read("written") == b"next"
        assert set(files.names()) == {"file", "written"}
    assert other.read_bytes() == b"precious"


def test_leftovers_are_swept(place: Path) -> None:
    """Those of a killed process; not what is being written now, nor others' files."""
    coming = place / HALF
    for path in (coming, place / ".new-thing"):
        path.write_bytes(b"")
    with TrustedDirectory(place) as files:
        assert set(files.names()) == {"file", ".new-thing"}
        files.write("file", b"1")
        assert coming.exists()
        os.utime(coming, (0, 0))
        files.write("file", b"2")
        assert not coming.exists()
    assert {path.name for path in place.iterdir()} == {"file", ".new-thing"}
