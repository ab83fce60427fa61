# SPDX-License-Identifier: GPL-2.0-or-later
"""Accounts by name and number; whose a directory's files become."""

import os
from pathlib import Path

import pytest

from pyfailover.errors import ConfigError
from pyfailover.place import give
from pyfailover.privileges import Account, account


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("root", Account(0, 0)),
        ("64023", Account(64023, 64023)),
        ("64023:64024", Account(64023, 64024)),
        ("64023:", Account(64023, 64023)),
        ("nobody-of-that-name", None),
        ("", None),
    ],
)
def test_account(name: str, wanted: Account | None) -> None:
    """By name, or by number whether there is one or not."""
    assert account(name) == wanted


@pytest.mark.parametrize("name", ["1x", "1:x", "1:2:3", "1:-2", "4294967295"])
def test_no_account(name: str) -> None:
    """A number with something else in it; -1, which stands for nobody."""
    with pytest.raises(ConfigError, match="is not a user"):
        account(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away")
def test_give(tmp_path: Path) -> None:
    """All that is in a directory; not what links lead to, nor what has other names."""
    mine, given = tmp_path / "mine", tmp_path / "given"
    (given / "deep").mkdir(parents=True)
    mine.mkdir()
    for path in (mine / "secret", mine / "named-twice", given / "deep/file"):
        path.touch()
    (given / "to-file").symlink_to(mine / "secret")
    (given / "to-directory").symlink_to(mine)
    (given / "twin").hardlink_to(mine / "named-twice")
    give(given, 64023, 64024)
    for path in (given, given / "deep", given / "deep/file"):
        assert (path.stat().st_uid, path.stat().st_gid) == (64023, 64024)
    for path in (mine, mine / "secret", mine / "named-twice"):
        assert path.stat().st_uid == 0
