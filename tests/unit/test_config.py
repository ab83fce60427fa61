# SPDX-License-Identifier: GPL-2.0-or-later
"""Groups in files: what is read, what is refused and in what words."""

import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import date, datetime, time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover.config import (
    Declared,
    Loaded,
    find,
    load,
    remove,
    save,
    spec_from,
    spec_to,
)
from pyfailover.errors import ConfigError, PyFailoverError
from pyfailover.model import GroupSpec, MacPolicy, Policy, RxMode, Side, TcMode
from tests.support.specs import specs

GOOD = 'master = "fo0"\nprimary = "eth1"\n'
DECLARED = Declared(
    spec=GroupSpec(name="fo0", primary="eth1"), create=False, netns=None, path=Path()
)
KEYS = (
    "keys are master, primary, standbys, side, mac, tc, rx, rx_grace_ms, "
    "bypass_filters, policy, up_delay_ms, down_delay_ms, announce_count, "
    "announce_interval_ms, flap_changes, flap_window_s, flap_hold_s, flap_hold_max_s"
)


@pytest.fixture(scope="module", autouse=True)
def umask() -> Iterator[None]:
    """The usual one: what a test writes is its own alone."""
    old = os.umask(0o022)
    yield
    os.umask(old)


def write(directory: Path, **files: str) -> None:
    """Files of a directory by their names without .toml."""
    for name, text in files.items():
        (directory / f"{name}.toml").write_text(text)


def group(master: str, *slaves: str, **more: object) -> str:
    """A file's text: standbys only, and further keys."""
    data = {"master": master, "standbys": list(slaves), **more}
    return "".join(f"{key} = {toml(value)}\n" for key, value in data.items())


def toml(value: object) -> str:
    """A value in TOML, written otherwise than the product does."""
    match value:
        case dict():
            inner = (f"{toml(key)} = {toml(each)}" for key, each in value.items())
            return f"{{{', '.join(inner)}}}"
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case str():
            return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
        case bool():
            return "true" if value else "false"
        case datetime() | date() | time():
            return value.isoformat()
    return repr(value)


def errors_of(loaded: Loaded) -> list[tuple[str, str | None]]:
    """Messages and hints."""
    return [(error.message, error.hint) for error in loaded.errors]


def masters_of(loaded: Loaded) -> list[str]:
    """Masters of the groups that count."""
    return [each.spec.name for each in loaded.declared]


# Mappings


def test_least_group() -> None:
    """What a mapping does not say is at its default."""
    found = spec_from({"master": "fo0", "primary": "eth1"}, "here")
    assert found == GroupSpec(name="fo0", primary="eth1")


def test_whole_group() -> None:
    """Every key of a mapping is taken, words as enums and lists as tuples."""
    data = {
        "master": "fo0",
        "primary": "eth1",
        "standbys": ["eth2", "driver=tap"],
        "side": "wire",
        "mac": "clone",
        "tc": "clsact",
        "rx": "all",
        "rx_grace_ms": 1,
        "bypass_filters": True,
        "policy": "manual",
        "up_delay_ms": 2,
        "down_delay_ms": 3,
        "announce_count": 4,
        "announce_interval_ms": 5,
        "flap_changes": 6,
        "flap_window_s": 7,
        "flap_hold_s": 8,
        "flap_hold_max_s": 9,
    }
    assert len(data) == len(fields(GroupSpec)), "a key is missing here"
    expected = GroupSpec(
        name="fo0",
        primary="eth1",
        standbys=("eth2", "driver=tap"),
        side=Side.WIRE,
        mac=MacPolicy.CLONE,
        tc=TcMode.CLSACT,
        rx=RxMode.ALL,
        rx_grace_ms=1,
        bypass_filters=True,
        policy=Policy.MANUAL,
        up_delay_ms=2,
        down_delay_ms=3,
        announce_count=4,
        announce_interval_ms=5,
        flap_changes=6,
        flap_window_s=7,
        flap_hold_s=8,
        flap_hold_max_s=9,
    )
    found = spec_from(data, "here")
    assert (found, repr(found)) == (expected, repr(expected))
    assert spec_to(found) == data


def test_what_is_none_is_left_out() -> None:
    """A group without a primary has no such key, and all others."""
    data = spec_to(GroupSpec(name="fo0", standbys=("eth1",)))
    assert "primary" not in data
    assert len(data) == len(fields(GroupSpec)) - 1


@given(specs())
def test_mapping_round_trip(spec: GroupSpec) -> None:
    """A group is the same after a way through plain data and JSON."""
    data = spec_to(spec)
    assert all(type(value) in (str, int, bool, list) for value in data.values())
    back = spec_from(json.loads(json.dumps(data)), "here")
    assert (back, repr(back)) == (spec, repr(spec))


# Each: what is changed in a good mapping, message, hint.
WRONG: dict[str, tuple[dict[str, object], str, str | None]] = {
    "an unknown key": ({"speed": 1}, "unknown key 'speed'", KEYS),
    "a key that is nearly one": (
        {"primry": "eth1"},
        "unknown key 'primry'",
        f"did you mean 'primary'? {KEYS}",
    ),
    "the field's name for the key": ({"name": "fo0"}, "unknown key 'name'", KEYS),
    "an endless key": (
        {"x" * 5000: 1},
        f"unknown key '{'x' * 59}...{'x' * 59}'",
        KEYS,
    ),
    "a number for a string": (
        {"primary": 7},
        "'primary' cannot be the number 7",
        "'primary' is a string",
    ),
    "nothing for a string": (
        {"primary": None},
        "'primary' cannot be nothing",
        "'primary' is a string",
    ),
    "a list for a string": (
        {"master": ["fo0"]},
        "'master' cannot be a list",
        "'master' is a string",
    ),
    "a string for a list": (
        {"standbys": "eth2"},
        "'standbys' cannot be the string 'eth2'",
        "'standbys' is a list of strings",
    ),
    "a number in a list": (
        {"standbys": ["eth2", 7]},
        "'standbys' cannot be a list with the number 7 in it",
        "'standbys' is a list of strings",
    ),
    "a list in a list": (
        {"standbys": [["eth2"]]},
        "'standbys' cannot be a list with a list in it",
        "'standbys' is a list of strings",
    ),
    "a table for a list": (
        {"standbys": {"eth2": 1}},
        "'standbys' cannot be a table",
        "'standbys' is a list of strings",
    ),
    "an unknown word": (
        {"side": "bridge"},
        "'side' cannot be the string 'bridge'",
        "'side' is one of stack, wire",
    ),
    "a word in capitals": (
        {"policy": "ALWAYS"},
        "'policy' cannot be the string 'ALWAYS'",
        "'policy' is one of always, better, failure, manual",
    ),
    "a list for a word": (
        {"tc": ["tcx"]},
        "'tc' cannot be a list",
        "'tc' is one of auto, tcx, clsact",
    ),
    "an endless word": (
        {"rx": "x" * 5000},
        f"'rx' cannot be the string '{'x' * 59}...{'x' * 59}'",
        "'rx' is one of active, kernel, all",
    ),
    "a word over two lines": (
        {"mac": "match\nclone"},
        "'mac' cannot be the string 'match\\nclone'",
        "'mac' is one of match, clone",
    ),
    "a string for a number": (
        {"rx_grace_ms": "100"},
        "'rx_grace_ms' cannot be the string '100'",
        "'rx_grace_ms' is a whole number from 0 to 60000",
    ),
    "a bool for a number": (
        {"rx_grace_ms": True},
        "'rx_grace_ms' cannot be true",
        "'rx_grace_ms' is a whole number from 0 to 60000",
    ),
    "a fraction for a whole number": (
        {"up_delay_ms": 1.0},
        "'up_delay_ms' cannot be the number 1.0",
        "'up_delay_ms' is a whole number from 0 to 3600000",
    ),
    "a date for a number": (
        {"flap_hold_s": date(2024, 2, 29)},
        "'flap_hold_s' cannot be the date 2024-02-29",
        "'flap_hold_s' is a whole number from 1 to 86400",
    ),
    "too small a number": (
        {"flap_window_s": 0},
        "'flap_window_s' cannot be the number 0",
        "'flap_window_s' is a whole number from 1 to 86400",
    ),
    "too large a number": (
        {"announce_count": 256},
        "'announce_count' cannot be the number 256",
        "'announce_count' is a whole number from 0 to 255",
    ),
    "a number that Python does not print": (
        {"announce_count": 1 << 40_000},
        "'announce_count' cannot be a number of 40001 bits",
        "'announce_count' is a whole number from 0 to 255",
    ),
    "a number for a bool": (
        {"bypass_filters": 1},
        "'bypass_filters' cannot be the number 1",
        "'bypass_filters' is true or false",
    ),
    "a string for a bool": (
        {"bypass_filters": "yes"},
        "'bypass_filters' cannot be the string 'yes'",
        "'bypass_filters' is true or false",
    ),
    "its own slave": (
        {"standbys": ["fo0"]},
        "'fo0' cannot be its own slave",
        None,
    ),
    "no rule": (
        {"standbys": ["speed=1000"]},
        "'speed=1000' is not a rule for a slave",
        "an interface name, or name, altname, mac, pci, driver as KEY=VALUE, "
        "joined by commas",
    ),
}


@pytest.mark.parametrize(("changes", "message", "hint"), WRONG.values(), ids=WRONG)
def test_wrong_mapping(
    changes: dict[str, object], message: str, hint: str | None
) -> None:
    """What is wrong is named after where it is, with what is allowed."""
    with pytest.raises(ConfigError) as refused:
        spec_from({"master": "fo0", "primary": "eth1", **changes}, "the request")
    assert (refused.value.message, refused.value.hint) == (
        f"the request: {message}",
        hint,
    )


def test_no_master() -> None:
    """A group without a master is none."""
    with pytest.raises(ConfigError) as refused:
        spec_from({"primary": "eth1"}, "the request")
    assert refused.value.message == "the request: there is no key 'master'"
    assert refused.value.hint is not None
    assert "name of the group's interface" in refused.value.hint


# Files


def test_no_directory(tmp_path: Path) -> None:
    """Where there is no directory nothing is declared, and nothing wrong."""
    assert load(tmp_path / "never", None) == Loaded(declared=(), errors=())
    assert find(tmp_path / "never", "fo0", None) is None


def test_files_in_order(tmp_path: Path) -> None:
    """Every *.toml of a directory declares a group, in the order of their names."""
    write(tmp_path, b=group("fo1", "eth3", create=True), a=group("fo0", "eth1"))
    write(tmp_path, c=group("fo2", "mac=02:00:5e:10:00:01", policy="manual"))
    assert load(tmp_path, None) == Loaded(
        declared=(
            Declared(
                spec=GroupSpec(name="fo0", standbys=("eth1",)),
                create=False,
                netns=None,
                path=tmp_path / "a.toml",
            ),
            Declared(
                spec=GroupSpec(name="fo1", standbys=("eth3",)),
                create=True,
                netns=None,
                path=tmp_path / "b.toml",
            ),
            Declared(
                spec=GroupSpec(
                    name="fo2",
                    standbys=("mac=02:00:5e:10:00:01",),
                    policy=Policy.MANUAL,
                ),
                create=False,
                netns=None,
                path=tmp_path / "c.toml",
            ),
        ),
        errors=(),
    )


@pytest.mark.parametrize(
    "name", [".fo0.toml", ".#fo0.toml", "fo0.toml~", "fo0.toml.new", "fo0", "toml"]
)
def test_other_files(tmp_path: Path, name: str) -> None:
    """What an editor or a killed writer leaves is not looked at."""
    (tmp_path / name).write_text("no TOML")
    assert load(tmp_path, None) == Loaded(declared=(), errors=())


def test_namespaces(tmp_path: Path) -> None:
    """Groups are those of the namespace asked for; all files are checked; equal
    masters and slaves of two namespaces are different ones."""
    write(
        tmp_path,
        a=group("fo0", "eth1"),
        b=group("fo0", "eth1", netns="blue"),
        c=group("fo1", "fo0", netns="red"),
        d=group("fo2", "eth2", netns="red", side="bridge"),
    )
    assert masters_of(load(tmp_path, None)) == ["fo0"]
    assert load(tmp_path, None).declared[0].path.name == "a.toml"
    assert load(tmp_path, "blue").declared[0].path.name == "b.toml"
    assert masters_of(load(tmp_path, "red")) == ["fo1"]
    assert masters_of(load(tmp_path, "green")) == []
    for netns in (None, "blue", "red", "green"):
        (message, _), *others = errors_of(load(tmp_path, netns))
        assert message.startswith(f"{tmp_path / 'd.toml'}: 'side' cannot be")
        assert others == []


# Each: the whole file, message, hint as regular expressions.
WRONG_FILES: dict[str, tuple[str | bytes, str, str]] = {
    "empty": ("", "there is no key 'master'", "required"),
    "no TOML": (
        'master = "fo0"\nprimary eth1\n',
        r"not TOML: .*\(at line 2, column 9\)",
        'lines like master = "fo0"',
    ),
    "a key twice": (
        GOOD + 'master = "fo1"\n',
        r"not TOML: Cannot overwrite a value \(at line 3, column 15\)",
        "lines like",
    ),
    "a text without its end": (
        'master = "fo0',
        r"not TOML: .*\(at end of document\)",
        "lines like",
    ),
    "bytes that are no text": (
        b'master = "\xff"',
        r"not TOML: 'utf-8' codec can't decode byte 0xff in position 10",
        "lines like",
    ),
    "a number without end": (
        GOOD + "rx_grace_ms = " + "9" * 5000,
        "not TOML: Exceeds the limit",
        "lines like",
    ),
    "a hexadecimal number without end": (
        GOOD + "rx_grace_ms = 0x" + "f" * 5000,
        "'rx_grace_ms' cannot be a number of 20000 bits",
        "a whole number from 0 to 60000",
    ),
    "nested too deeply": (
        "master = " + "[" * 50_000,
        "not TOML: it is nested too deeply",
        "lines like",
    ),
    "a very long name for a key": (
        f"[{'k' * 9000}]\n[{'k' * 9000}]",
        r"not TOML: Cannot declare \('k+\.\.\.k+',\) twice \(at line 2, column",
        "lines like",
    ),
    "a table for a group": (
        '[fo0]\nmaster = "fo0"\n',
        "unknown key 'fo0'",
        "keys are master, .*, create, netns$",
    ),
    "a key of ours that is nearly one": (
        GOOD + "creat = true",
        "unknown key 'creat'",
        r"did you mean 'create'\? keys are",
    ),
    "a word for create": (
        GOOD + 'create = "yes"',
        "'create' cannot be the string 'yes'",
        "'create' is true or false",
    ),
    "a number for create": (
        GOOD + "create = 0",
        "'create' cannot be the number 0",
        "'create' is true or false",
    ),
    "a number for netns": (
        GOOD + "netns = 1",
        "'netns' cannot be the number 1",
        "'netns' is a string",
    ),
    "an empty netns": (
        GOOD + 'netns = ""',
        "'netns' cannot be the string ''",
        "'ip netns' shows",
    ),
    "a netns that is no path": (
        GOOD + 'netns = "a\\u0000b"',
        r"'netns' cannot be the string 'a\\x00b'",
        "'ip netns' shows",
    ),
    "a wrong word": (
        GOOD + 'rx = "none"',
        "'rx' cannot be the string 'none'",
        "'rx' is one of active, kernel, all",
    ),
    "a time": (
        GOOD + "up_delay_ms = 00:01:00",
        "'up_delay_ms' cannot be the time 00:01:00",
        "a whole number from 0 to 3600000",
    ),
    "no slave": ('master = "fo0"', "'fo0' has no slave", "--standby"),
    "too large": (
        GOOD + "#" * (1 << 20),
        "it is too large",
        "at most 1048576 bytes",
    ),
}


@pytest.mark.parametrize(
    ("text", "message", "hint"), WRONG_FILES.values(), ids=WRONG_FILES
)
def test_wrong_file(tmp_path: Path, text: str | bytes, message: str, hint: str) -> None:
    """Of a wrong file the error names path, key, what is wrong, what is allowed;
    the other files count."""
    path = tmp_path / "a.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    write(tmp_path, b=GOOD)
    found = load(tmp_path, None)
    assert [each.path.name for each in found.declared] == ["b.toml"]
    [(said, hinted)] = errors_of(found)
    assert re.match(f"{re.escape(str(path))}: {message}", said)
    assert "\n" not in said
    assert len(said) < len(str(path)) + 200
    assert re.search(hint, hinted or "")


def test_largest_file(tmp_path: Path) -> None:
    """A file of 1 MiB is read."""
    write(tmp_path, a=GOOD + "#" * ((1 << 20) - len(GOOD)))
    assert masters_of(load(tmp_path, None)) == ["fo0"]


def test_a_name_over_two_lines(tmp_path: Path) -> None:
    """The error about a file of an odd name is one line that can be printed."""
    (tmp_path / "a\n\udcff.toml").write_text("")
    [(message, _)] = errors_of(load(tmp_path, None))
    assert message.isprintable()
    assert "a\\n\\udcff.toml': there is no key" in message


# Owners, modes, kinds of files

Own = Callable[[Path, int], None]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Own:
    """Have a file belong to somebody, as far as stat() tells: no root needed.

    What others see of it is as it was; all the rest belongs to us, user 1000.
    """
    owners: dict[tuple[int, int], int] = {}
    real: dict[str, Callable[..., os.stat_result]]
    real = {"stat": os.stat, "fstat": os.fstat}

    def told(name: str) -> Callable[..., os.stat_result]:
        def call(*args: Any, **kwargs: Any) -> os.stat_result:
            info = real[name](*args, **kwargs)
            uid = owners.get((info.st_dev, info.st_ino), 1000)
            return os.stat_result([*info[:4], uid, *info[5:10]])

        return call

    def give(path: Path, uid: int) -> None:
        info = real["stat"](path, follow_symlinks=False)
        owners[info.st_dev, info.st_ino] = uid

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in real:
        monkeypatch.setattr(os, name, told(name))
    return give


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("what", [".", "fo0.toml"])
def test_our_own_files(tmp_path: Path, own: Own, what: str, uid: int) -> None:
    """Root's files and directories count, and our own."""
    write(tmp_path, fo0=GOOD)
    own(tmp_path / what, uid)
    assert load(tmp_path, None).errors == ()
    assert masters_of(load(tmp_path, None)) == ["fo0"]


def test_somebody_elses_file(tmp_path: Path, own: Own) -> None:
    """A file of somebody else's does not count; those beside it do."""
    write(tmp_path, a=GOOD, b=group("fo1", "eth2"))
    path = tmp_path / "a.toml"
    own(path, 1001)
    found = load(tmp_path, None)
    assert masters_of(found) == ["fo1"]
    assert errors_of(found) == [
        (
            f"{path}: it belongs to user 1001",
            f"it must belong to root or user 1000: chown root {path}",
        )
    ]


def test_as_root_only_roots_files_count(
    tmp_path: Path, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To root a user's directory is somebody else's."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    write(tmp_path, a=GOOD)
    found = load(tmp_path, None)
    assert found.declared == ()
    assert errors_of(found) == [
        (
            f"{tmp_path}: it belongs to user 1000",
            f"it must belong to root: chown root {tmp_path}",
        )
    ]
    own(tmp_path, 0)
    [(message, _)] = errors_of(load(tmp_path, None))
    assert message == f"{tmp_path / 'a.toml'}: it belongs to user 1000"
    own(tmp_path / "a.toml", 0)
    assert masters_of(load(tmp_path, None)) == ["fo0"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_file_that_others_may_write_to(tmp_path: Path, mode: int) -> None:
    """A file that the group or everybody can write to does not count."""
    write(tmp_path, a=GOOD, b=group("fo1", "eth2"))
    path = tmp_path / "a.toml"
    path.chmod(mode)
    found = load(tmp_path, None)
    assert masters_of(found) == ["fo1"]
    assert errors_of(found) == [
        (
            f"{path}: others may write to it (mode {mode:04o})",
            f"only its owner may: chmod go-w {path}",
        )
    ]
    assert find(tmp_path, "fo0", None) is None


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o755])
def test_a_file_that_others_may_read(tmp_path: Path, mode: int) -> None:
    """Who may read a file does not matter."""
    write(tmp_path, a=GOOD)
    (tmp_path / "a.toml").chmod(mode)
    assert load(tmp_path, None).errors == ()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_may_write_to(tmp_path: Path, mode: int) -> None:
    """Of a directory that others can write to nothing counts, and nothing is
    written to it."""
    directory = tmp_path / "d"
    directory.mkdir()
    write(directory, a=GOOD, b="no TOML")
    directory.chmod(mode)
    found = load(directory, None)
    assert found.declared == ()
    assert errors_of(found) == [
        (
            f"{directory}: others may write to it (mode {mode:04o})",
            f"only its owner may: chmod go-w {directory}",
        )
    ]
    assert find(directory, "fo0", None) is None
    with pytest.raises(ConfigError, match="others may write to it"):
        save(directory, DECLARED)
    assert sorted(path.name for path in directory.iterdir()) == ["a.toml", "b.toml"]


def test_somebody_elses_directory(tmp_path: Path, own: Own) -> None:
    """Of a directory of somebody else's nothing counts."""
    write(tmp_path, a=GOOD)
    own(tmp_path, 1001)
    found = load(tmp_path, None)
    assert found.declared == ()
    [(message, _)] = errors_of(found)
    assert message == f"{tmp_path}: it belongs to user 1001"


def test_a_file_for_a_directory(tmp_path: Path) -> None:
    """What is no directory is refused as one."""
    write(tmp_path, a=GOOD)
    found = load(tmp_path / "a.toml", None)
    assert found.declared == ()
    [(message, hint)] = errors_of(found)
    assert message == f"{tmp_path / 'a.toml'}: it is not a directory"
    assert hint == "it holds one *.toml a group"


def test_what_is_not_a_file(tmp_path: Path) -> None:
    """Directories, pipes, sockets and dangling links do not count, nor make wait."""
    (tmp_path / "a.toml").mkdir()
    os.mkfifo(tmp_path / "b.toml", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tmp_path, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/c.toml")  # paths of sockets are short
        os.close(here)
    (tmp_path / "d.toml").symlink_to("nowhere")
    (tmp_path / "e.toml").symlink_to("e.toml")
    found = load(tmp_path, None)
    assert found.declared == ()
    assert [
        message.removeprefix(f"{tmp_path}/") for message, _ in errors_of(found)
    ] == [
        "a.toml: it is not a regular file",
        "b.toml: it is not a regular file",
        "c.toml: it cannot be read: No such device or address",
        "d.toml: it cannot be read: No such file or directory",
        "e.toml: it cannot be read: Too many levels of symbolic links",
    ]
    assert all(hint for _, hint in errors_of(found))


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A directory with a.toml that leads to elsewhere/real."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real").write_text(GOOD)
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / "a.toml").symlink_to("../elsewhere/real")
    return directory


def test_link(linked: Path) -> None:
    """A symbolic link to a good file counts."""
    assert load(linked, None).errors == ()
    assert [each.path for each in load(linked, None).declared] == [linked / "a.toml"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("d/a.toml", "a.toml: it belongs to user 1001"),
        ("elsewhere/real", "a.toml: it belongs to user 1001"),
        ("elsewhere", "a.toml: it leads to {}/elsewhere: it belongs to user 1001"),
    ],
)
def test_link_of_somebody_else(linked: Path, own: Own, what: str, message: str) -> None:
    """A link counts only if itself, its target, and what that is in are ours."""
    own(linked.parent / what, 1001)
    found = load(linked, None)
    assert found.declared == ()
    [(said, _)] = errors_of(found)
    assert said == f"{linked}/{message.format(linked.parent)}"


@pytest.mark.parametrize("what", ["elsewhere", "elsewhere/real"])
def test_link_to_what_others_may_write_to(linked: Path, what: str) -> None:
    """A link to what others can change does not count."""
    (linked.parent / what).chmod(0o777)
    found = load(linked, None)
    assert found.declared == ()
    [(message, _)] = errors_of(found)
    assert message.startswith(f"{linked / 'a.toml'}: ")
    assert message.endswith("others may write to it (mode 0777)")


def test_linked_directory(linked: Path, own: Own) -> None:
    """A directory may be a link; then the link must be ours, too."""
    alias = linked.parent / "alias"
    alias.symlink_to("d")
    assert masters_of(load(alias, None)) == ["fo0"]
    own(alias, 1001)
    assert load(alias, None).declared == ()
    [(message, _)] = errors_of(load(alias, None))
    assert message == f"{alias}: it belongs to user 1001"


# Files beside each other

ONE_GROUP = "an interface is master or slave in one group only"

# Each: files, masters that count, messages after the path of the directory, with
# DIR for that path, hints.
BESIDE: dict[str, tuple[dict[str, str], list[str], list[tuple[str, str]]]] = {
    "one master twice": (
        {"a": group("fo0", "eth1"), "b": group("fo0", "eth2")},
        ["fo0"],
        [("b.toml: 'master' is 'fo0', as in DIR/a.toml", "one file for each master")],
    ),
    "one master three times": (
        {
            "a": group("fo0", "eth1"),
            "b": group("fo0", "eth2"),
            "c": group("fo0", "eth3"),
        },
        ["fo0"],
        [
            ("b.toml: 'master' is 'fo0', as in DIR/a.toml", "one file for each master"),
            ("c.toml: 'master' is 'fo0', as in DIR/a.toml", "one file for each master"),
        ],
    ),
    "one slave in two groups": (
        {"a": group("fo0", "eth1", "eth2"), "b": group("fo1", "eth3", "eth2")},
        ["fo0"],
        [("b.toml: 'standbys' 'eth2' is a slave in DIR/a.toml", ONE_GROUP)],
    ),
    "one rule in two groups": (
        {
            "a": group("fo0", "driver=tap"),
            "b": group("fo1", "eth3", primary="driver=tap"),
        },
        ["fo0"],
        [("b.toml: 'primary' 'driver=tap' is a slave in DIR/a.toml", ONE_GROUP)],
    ),
    "a group beside one that is left out": (
        {
            "a": group("fo0", "eth1"),
            "b": group("fo1", "eth1", "eth2"),
            "c": group("fo2", "eth2"),
        },
        ["fo0", "fo2"],
        [("b.toml: 'standbys' 'eth1' is a slave in DIR/a.toml", ONE_GROUP)],
    ),
    "a slave that is an earlier master": (
        {"a": group("fo0", "eth1"), "b": group("fo1", "fo0")},
        ["fo0"],
        [("b.toml: 'standbys' 'fo0' is the master in DIR/a.toml", ONE_GROUP)],
    ),
    "a master that is an earlier slave": (
        {"a": group("fo0", "fo1"), "b": group("fo1", "eth1")},
        ["fo0"],
        [("b.toml: 'master' 'fo1' is a slave in DIR/a.toml", ONE_GROUP)],
    ),
    "a loop of two": (
        {"a": group("fo0", "fo1"), "b": group("fo1", "fo0"), "c": group("fo2", "eth1")},
        ["fo2"],
        [
            (
                "a.toml: 'standbys' 'fo1' is in a loop of masters: "
                "fo0 -> fo1 -> fo0, with DIR/b.toml",
                ONE_GROUP,
            )
        ],
    ),
    "a loop of three": (
        {
            "a": group("fo0", "eth1", "fo2"),
            "b": group("fo1", "eth2", primary="fo0"),
            "c": group("fo2", "fo1"),
        },
        [],
        [
            (
                "a.toml: 'standbys' 'fo2' is in a loop of masters: "
                "fo0 -> fo2 -> fo1 -> fo0, with DIR/c.toml, DIR/b.toml",
                ONE_GROUP,
            )
        ],
    ),
    "a way into a loop": (
        {"a": group("fo0", "fo1"), "b": group("fo1", "fo2"), "c": group("fo2", "fo1")},
        ["fo0"],
        [
            (
                "b.toml: 'standbys' 'fo2' is in a loop of masters: "
                "fo1 -> fo2 -> fo1, with DIR/c.toml",
                ONE_GROUP,
            )
        ],
    ),
    "two loops with a master in common": (
        {
            "a": group("fo0", "fo1"),
            "b": group("fo1", "fo0", "fo2"),
            "c": group("fo2", "fo1"),
        },
        [],
        [
            (
                "a.toml: 'standbys' 'fo1' is in a loop of masters: "
                "fo0 -> fo1 -> fo0, with DIR/b.toml",
                ONE_GROUP,
            ),
            (
                "c.toml: 'standbys' 'fo1' is in a loop of masters: "
                "fo2 -> fo1 -> fo2, with DIR/b.toml",
                ONE_GROUP,
            ),
        ],
    ),
    "a loop in another namespace": (
        {
            "a": group("fo0", "fo1", netns="blue"),
            "b": group("fo1", "fo0", netns="blue"),
            "c": group("fo0", "fo1"),
        },
        ["fo0"],
        [
            (
                "a.toml: 'standbys' 'fo1' is in a loop of masters: "
                "fo0 -> fo1 -> fo0, with DIR/b.toml",
                ONE_GROUP,
            )
        ],
    ),
}


@pytest.mark.parametrize(("files", "masters", "expected"), BESIDE.values(), ids=BESIDE)
def test_files_beside_each_other(
    tmp_path: Path,
    files: dict[str, str],
    masters: list[str],
    expected: Sequence[tuple[str, str]],
) -> None:
    """Of two files that cannot be together the earlier counts, of a loop none."""
    write(tmp_path, **files)
    found = load(tmp_path, None)
    assert masters_of(found) == masters
    assert errors_of(found) == [
        (f"{tmp_path}/{message.replace('DIR', str(tmp_path))}", hint)
        for message, hint in expected
    ]


def test_many_files(tmp_path: Path) -> None:
    """A loop through 300 files is found, and named whole."""
    for number in range(300):
        write(
            tmp_path, **{f"{number:03}": group(f"m{number}", f"m{(number + 1) % 300}")}
        )
    found = load(tmp_path, None)
    assert found.declared == ()
    [(message, _)] = errors_of(found)
    assert " -> ".join(f"m{number % 300}" for number in range(301)) in message


# Writing

NETNS = st.none() | st.text(min_size=1, max_size=40).filter(str.isprintable)


@given(specs(), st.booleans(), NETNS)
def test_file_round_trip(spec: GroupSpec, create: bool, netns: str | None) -> None:
    """What was saved is loaded, and found by its master."""
    with TemporaryDirectory() as home:
        directory = Path(home) / "new"
        put = Declared(spec=spec, create=create, netns=netns, path=Path())
        path = save(directory, put)
        expected = Loaded(declared=(replace(put, path=path),), errors=())
        assert load(directory, netns) == expected
        assert find(directory, spec.name, netns) == path
        assert [each.name for each in directory.iterdir()] == [path.name]
        assert save(directory, put) == path
        remove(path)
        assert load(directory, netns) == Loaded(declared=(), errors=())
        remove(path)


def test_what_is_written(tmp_path: Path) -> None:
    """A file has the master and what is not at its default, for us alone to write."""
    directory = tmp_path / "etc" / "pyfailover"
    path = save(directory, DECLARED)
    assert path == directory / "fo0.toml"
    assert path.read_text() == GOOD
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(directory.stat().st_mode) & 0o022 == 0
    spec = replace(DECLARED.spec, standbys=("é", "name=a\\\x7f"), rx=RxMode.ALL)
    save(directory, replace(DECLARED, spec=spec, create=True))
    assert path.read_text() == GOOD + (
        'standbys = ["é", "name=a\\\\\\u007f"]\nrx = "all"\ncreate = true\n'
    )


@pytest.mark.parametrize(
    ("master", "netns", "name"),
    [
        ("eth0.97", None, "eth0.97.toml"),
        (".hidden", None, "%2Ehidden.toml"),
        ("é$", None, "%C3%A9%24.toml"),
        ("fo0@x", None, "fo0%40x.toml"),
        ("fo0", "x", "fo0@x.toml"),
        ("fo0", "../x", "fo0@..%2Fx.toml"),
    ],
)
def test_file_names(tmp_path: Path, master: str, netns: str | None, name: str) -> None:
    """A file is called after its master and namespace, in harmless letters."""
    spec = replace(DECLARED.spec, name=master)
    path = save(tmp_path, replace(DECLARED, spec=spec, netns=netns))
    assert path == tmp_path / name
    assert masters_of(load(tmp_path, netns)) == [master]


def test_one_master_in_two_namespaces(tmp_path: Path) -> None:
    """Groups of one name in two namespaces have files of their own."""
    paths = {save(tmp_path, replace(DECLARED, netns=n)) for n in (None, "blue")}
    assert len(paths) == 2
    for netns in (None, "blue"):
        assert len(load(tmp_path, netns).declared) == 1
        assert find(tmp_path, "fo0", netns) in paths


def test_a_file_of_another_name_is_replaced(tmp_path: Path) -> None:
    """A group stays in the file that declares it, whatever that is called."""
    write(tmp_path, uplink=GOOD, fo1=group("fo1", "eth5"))
    spec = replace(DECLARED.spec, primary="eth7")
    assert save(tmp_path, replace(DECLARED, spec=spec)) == tmp_path / "uplink.toml"
    assert {
        each.spec.name: each.spec.slaves for each in load(tmp_path, None).declared
    } == {
        "fo0": ("eth7",),
        "fo1": ("eth5",),
    }


@pytest.mark.parametrize("text", ["no TOML", group("fo9", "eth1")])
def test_another_file_is_not_overwritten(tmp_path: Path, text: str) -> None:
    """What declares something else, or is not understood, is left as it is."""
    write(tmp_path, fo0=text)
    with pytest.raises(ConfigError) as refused:
        save(tmp_path, DECLARED)
    assert refused.value.message == (
        f"{tmp_path / 'fo0.toml'}: cannot save 'fo0' here: the file declares "
        "something else, or has an error"
    )
    assert refused.value.hint == "mend it, or move it away"
    assert (tmp_path / "fo0.toml").read_text() == text


@pytest.mark.parametrize(
    "declared",
    [
        replace(DECLARED, spec=GroupSpec(name="fo0", primary="name=\udcff")),
        replace(DECLARED, netns="\udcff"),
        replace(DECLARED, netns=""),
    ],
    ids=["a rule that is no text", "a namespace that is no text", "an empty namespace"],
)
def test_what_cannot_be_written(tmp_path: Path, declared: Declared) -> None:
    """What would not be read as what it is is not written."""
    with pytest.raises(ConfigError):
        save(tmp_path, declared)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_killed_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the last moment of writing a reader sees the old file, whole; what the
    writer left does not disturb the next one."""
    path = save(tmp_path, DECLARED)
    changed = replace(DECLARED, create=True)

    def killed(self: Path, _: object) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, changed)
    assert load(tmp_path, None).declared == (replace(DECLARED, path=path),)
    left = tmp_path / "fo0.toml.new"
    left.chmod(0o666)
    save(tmp_path, changed)
    assert load(tmp_path, None).declared == (replace(changed, path=path),)
    assert not left.exists()


def test_disk_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system refuses is an error that names the file, and root."""
    path = save(tmp_path, DECLARED)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    for act in (lambda: remove(path), lambda: save(tmp_path, DECLARED)):
        with pytest.raises(PyFailoverError) as refused:
            act()
        assert refused.value.message == f"cannot write '{path}': Permission denied"
        assert refused.value.hint == "run as root"


# Anything at all

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.sampled_from(["fo0", "eth1", "name=*", "wire", "tcx", 1 << 70]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
ALL_KEYS = ["create", "netns", *spec_to(DECLARED.spec), "primary"]
MAPPINGS = st.dictionaries(
    st.sampled_from(ALL_KEYS) | st.text(max_size=10), VALUES, max_size=6
)
LEAST: Mapping[str, object] = {"master": "fo0", "primary": "eth1"}


def tellable(value: object) -> bool:
    """Whether TOML can say it, in the words of this file."""
    match value:
        case dict():
            return all(map(tellable, value.values()))
        case list():
            return all(map(tellable, value))
    return value is not None


def judged(data: Mapping[str, object]) -> GroupSpec | None:
    """A group, or None for a refusal in proper form."""
    try:
        return spec_from(data, "here")
    except ConfigError as exc:
        message = exc.message
    assert message.startswith("here: ")
    assert message.isprintable()
    return None


@given(MAPPINGS)
def test_any_mapping(data: dict[str, object]) -> None:
    """Any mapping is a group or refused; what is taken says so again."""
    for each in (data, {**LEAST, **data}):
        if spec := judged(each):
            assert each.items() <= spec_to(spec).items()


def loaded_from(raw: bytes) -> Loaded:
    """What is loaded of one file."""
    with TemporaryDirectory() as home:
        (Path(home) / "a.toml").write_bytes(raw)
        return load(Path(home), None)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes(raw: bytes) -> None:
    """Any file is loaded or is one error, also behind a good beginning."""
    for each in (raw, GOOD.encode() + raw):
        found = loaded_from(each)
        assert len(found.declared) + len(found.errors) <= 1
        assert found.errors or found.declared or b"netns" in raw


@given(MAPPINGS.filter(tellable))
def test_any_toml(data: dict[str, object]) -> None:
    """A file is judged as the mapping that it is."""
    both = {**LEAST, **data}
    raw = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in both.items())
    found = loaded_from(raw.encode())
    assert not any("not TOML" in error.message for error in found.errors)
    expected = judged({k: v for k, v in both.items() if k not in ("create", "netns")})
    if expected is None or not isinstance(both.get("create", False), bool):
        assert (len(found.declared), len(found.errors)) == (0, 1)
    elif "netns" not in both:
        assert [each.spec for each in found.declared] == [expected]
