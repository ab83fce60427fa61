# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: what it takes, what it says, how it exits."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pyfailover import __version__, asking, cli, control, report
from pyfailover.errors import (
    BuildError,
    ConfigError,
    NetlinkError,
    PyFailoverError,
    RefusedError,
    StateError,
    UnsupportedError,
)
from pyfailover.model import Policy, Role, Side, TcMode
from pyfailover.report import GroupStatus, Health, SlaveStatus
from tests.support.commands import COMMANDS

Main = Callable[..., tuple[int, str, str]]  # see conftest.py


def group(name: str = "fo0", health: Health = Health.OK) -> GroupStatus:
    """The state of a group of one slave."""
    slave = SlaveStatus(
        slot=0,
        rank=0,
        role=Role.PRIMARY,
        name="eth1",
        ifindex=2,
        up=True,
        carrier=True,
        ready=True,
        active=True,
        approved=True,
        attached=True,
        counters={"tx_packets": 97},
    )
    return GroupStatus(
        name=name,
        health=health,
        side=Side.STACK,
        tc=TcMode.TCX,
        created=True,
        master=name,
        master_attached=True,
        active="eth1",
        generation=1,
        decided_by="user",
        slaves=[slave],
        counters={},
        policy=Policy.ALWAYS,
        pinned=None,
    )


# --- help -----------------------------------------------------------------


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_fits(name: str | None) -> None:
    """No line of any help has more than 80 columns."""
    args = [] if name is None else name.split()
    shown = CliRunner().invoke(cli.cli, [*args, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert [line for line in shown.output.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples(name: str) -> None:
    """The help of every command says what it does and ends with examples."""
    shown = CliRunner().invoke(cli.cli, [*name.split(), "-h"]).output
    _, heading, examples = shown.partition("Example")
    assert heading
    assert f"pyfailover {name}" in examples or f"lab {name}" in examples
    assert COMMANDS[name].help
    assert all(
        option.help
        for option in COMMANDS[name].params
        if isinstance(option, click.Option)
    )


def test_version() -> None:
    """--version says which it is."""
    shown = CliRunner().invoke(cli.cli, ["--version"])
    assert shown.output == f"pyfailover, version {__version__}\n"


# --- usage ----------------------------------------------------------------

USAGE: Mapping[str, tuple[Sequence[str], str]] = {
    "no such command": (["frob"], "No such command 'frob'"),
    "no such option": (["status", "--frob"], "No such option"),
    "detach without a name": (["detach"], "name a MASTER, or give --force"),
    "attach without a name": (["attach"], "Missing argument 'MASTER'"),
    "create without a name": (["create"], "Missing argument 'NAME'"),
    "destroy without a name": (["destroy"], "Missing argument 'NAME'"),
    "switch without a name": (["switch"], "Missing argument 'MASTER'"),
    "switch without a slave": (["switch", "fo0"], "Missing argument 'SLAVE|auto'"),
    "two names": (["status", "fo0", "fo1"], "unexpected extra argument"),
    "events of two": (["events", "fo0", "fo1"], "unexpected extra argument"),
    "a name for run": (["run", "fo0"], "unexpected extra argument"),
    "a name for reload": (["reload", "fo0"], "unexpected extra argument"),
    "a side that is none": (["attach", "fo0", "--side", "left"], "'left'"),
    "a policy for MACs that is none": (["attach", "fo0", "--mac", "steal"], "'steal'"),
    "a policy that is none": (["attach", "fo0", "--policy", "worse"], "'worse'"),
    "a mode that is none": (["attach", "fo0", "--tc", "xdp"], "'xdp'"),
    "a rule that is none": (["attach", "fo0", "--rx", "some"], "'some'"),
    "no number": (["create", "fo0", "--rx-grace", "soon"], "'soon'"),
    "half a millisecond": (["create", "fo0", "--up-delay", "0.5"], "'0.5'"),
    "no events": (["events", "--last", "0"], "0 is not in the range"),
    "a format that is none": (["run", "--log-format", "xml"], "'xml'"),
    "no time at all": (["run", "--reconcile", "0"], "0.0 is not in the range"),
    "no groups at all": (["create", "fo0", "--max-groups", "0"], "0 is not in the"),
    "too many groups": (["create", "fo0", "--max-groups", "4097"], "4097 is not in"),
}


@pytest.mark.parametrize(("args", "message"), USAGE.values(), ids=USAGE)
def test_bad_usage(main: Main, args: Sequence[str], message: str) -> None:
    """What cannot be meant ends with 2, and one line says what is wrong."""
    code, out, err = main(*args)
    assert (code, out) == (2, "")
    *_, last = err.splitlines()
    assert last.startswith("Error: ")
    assert message in last


BAD_GROUPS: Mapping[str, tuple[Sequence[str], str]] = {
    "no slave": (["attach", "fo0"], "'fo0' has no slave"),
    "a slave twice": (
        ["create", "fo0", "--primary", "e", "--standby", "e"],
        "slave 'e' is named twice",
    ),
    "a long name": (["create", "a" * 16, "--primary", "e"], "not an interface name"),
    "nine slaves": (
        ["attach", "fo0", *(f"--standby=e{n}" for n in range(9))],
        "at most 8",
    ),
    "a negative grace": (
        ["attach", "fo0", "--primary", "e", "--rx-grace", "-1"],
        "rx-grace of -1 ms is out of range",
    ),
    "a delay of days": (
        ["attach", "fo0", "--primary", "e", "--down-delay", "3600001"],
        "down-delay of 3600001 ms is out of range: 0 to 3600000",
    ),
    "no window": (
        ["attach", "fo0", "--primary", "e", "--flap-window", "0"],
        "flap-window of 0 s is out of range",
    ),
    "too many announcements": (
        ["attach", "fo0", "--primary", "e", "--announce-count", "256"],
        "announce-count of 256 is out of range",
    ),
    "a rule that is none": (
        ["attach", "fo0", "--primary", "colour=blue"],
        "'colour=blue' is not a rule for a slave",
    ),
    "an address that is none": (
        ["attach", "fo0", "--standby", "mac=02:00"],
        "'02:00' is not a mac in the rule 'mac=02:00'",
    ),
    "a namespace that is none": (
        ["--netns", "pf-no-such-namespace", "status"],
        "there is no network namespace 'pf-no-such-namespace'",
    ),
}


@pytest.mark.parametrize(("args", "message"), BAD_GROUPS.values(), ids=BAD_GROUPS)
def test_bad_group(
    main: Main, monkeypatch: pytest.MonkeyPatch, args: Sequence[str], message: str
) -> None:
    """A group that cannot be is refused before anybody is asked for it."""
    monkeypatch.setattr(control, "ask", failing(AssertionError("asked")))
    code, out, err = main(*args)
    assert (code, out) == (2, "")
    first, *_ = err.splitlines()
    assert first.startswith("Error: ")
    assert message in first


# --- errors ---------------------------------------------------------------


def failing(exc: BaseException) -> Callable[..., Any]:
    """A function that raises."""

    def fail(*_: object) -> object:
        raise exc

    return fail


ERRORS: Sequence[tuple[BaseException, int, str]] = [
    (PyFailoverError("it broke"), 1, "Error: it broke\n"),
    (StateError("not now", hint="later"), 1, "Error: not now\nhint: later\n"),
    (RefusedError("no", hint="why so"), 1, "Error: no\nhint: why so\n"),
    (NetlinkError("cannot"), 1, "Error: cannot\n"),
    (ConfigError("bad", hint="better"), 2, "Error: bad\nhint: better\n"),
    (UnsupportedError("too old"), 3, "Error: too old\n"),
    (BuildError("C", log="a log", hint="see"), 3, "Error: C\nhint: see\n"),
    (
        PermissionError(13, "Permission denied", "/run/x"),
        1,
        "Error: /run/x: Permission denied\nhint: run as root\n",
    ),
    (KeyboardInterrupt(), 130, "\n"),
]


@pytest.mark.parametrize(("exc", "code", "said"), ERRORS, ids=lambda value: repr(value))
def test_errors(
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    exc: BaseException,
    code: int,
    said: str,
) -> None:
    """An error is its message, its hint and its exit code, and no traceback."""
    monkeypatch.setattr(report, "groups", failing(exc))
    assert main("status") == (code, "", said)


def test_debug_shows_all(
    bare_main: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --debug the error itself comes out, after the whole log of a build."""
    monkeypatch.setattr(
        report, "groups", failing(BuildError("C", log="line 1\nline 2"))
    )
    with pytest.raises(BuildError):
        bare_main("--debug", "status")
    assert capsys.readouterr().err == "line 1\nline 2\n"


def test_warnings_are_in_small_letters(
    main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the library warns of is said on stderr as by other tools."""

    def warn(*_: object) -> list[GroupStatus]:
        logging.getLogger("pyfailover.x").warning("'%s' is odd", "fo0")
        return []

    monkeypatch.setattr(report, "groups", warn)
    code, _, err = main("status")
    assert (code, err) == (0, "warning: 'fo0' is odd\n")


# --- status ---------------------------------------------------------------

WARNING = "warning: no controller: nothing will be brought back\n"


@pytest.mark.parametrize(
    ("healths", "code"),
    [
        ([], 0),
        ([Health.OK], 0),
        ([Health.IDLE], 0),
        ([Health.OK, Health.DEGRADED], 1),
        ([Health.DOWN], 2),
        ([Health.DOWN, Health.DEGRADED, Health.OK], 2),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_status(
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    healths: Sequence[Health],
    code: int,
    as_json: bool,
) -> None:
    """The exit code is that of the worst group; every group is shown."""
    found = [group(f"fo{n}", health) for n, health in enumerate(healths)]
    monkeypatch.setattr(report, "groups", lambda *_: found)
    ended, out, err = main("status", *(["--json"] if as_json else []))
    assert ended == code
    if as_json:
        shown = json.loads(out)["groups"]
        assert [(g["name"], g["health"]) for g in shown] == [
            (g.name, g.health) for g in found
        ]
        assert all(g["slaves"][0]["counters"]["tx_packets"] == 97 for g in shown)
        assert err == ""
    elif not found:
        assert (out, err) == ("no groups in this network namespace\n", "")
    else:
        lines = [line for g in found for line in report.table(g)]
        assert (out.splitlines(), err) == (lines, WARNING)


SAID: Mapping[str, Any] = {"pid": 97, "troubles": {}, "groups": {}}


@pytest.mark.parametrize("said", [None, SAID])
def test_status_hands_on_what_the_controller_says(
    main: Main, monkeypatch: pytest.MonkeyPatch, said: Mapping[str, Any] | None
) -> None:
    """What a controller says goes into the report, and there is no warning then."""
    asked: list[tuple[object, ...]] = []

    def groups(_: object, *args: object) -> list[GroupStatus]:
        asked.append(args)
        return [group()]

    monkeypatch.setattr(report, "groups", groups)
    monkeypatch.setattr(asking, "status", lambda _: said)
    assert main("status", "fo0")[2] == ("" if said else WARNING)
    _, out, err = main("status", "--json")
    assert json.loads(out)["controller"] is bool(said)
    assert err == ""
    assert asked == [("fo0", said), (None, said)]


def test_status_as_json_is_all_that_is_known(
    main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every value of a group and of a slave is in the JSON, by its name."""
    monkeypatch.setattr(report, "groups", lambda *_: [group()])
    (shown,) = json.loads(main("status", "--json")[1])["groups"]
    assert shown.keys() == {each.name for each in fields(GroupStatus)}
    assert shown["slaves"][0].keys() == {each.name for each in fields(SlaveStatus)}
    assert (shown["policy"], shown["pinned"]) == ("always", None)


@pytest.mark.parametrize("as_json", [False, True])
def test_watching(main: Main, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """--watch shows how it is again and again, until Ctrl-C."""
    healths = iter([Health.DOWN, Health.DEGRADED, Health.OK])
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(report, "groups", lambda *_: [group(health=next(healths))])
    monkeypatch.setattr("time.sleep", sleep)
    code, out, _ = main("status", "--watch", *(["--json"] if as_json else []))
    assert code == 130
    assert pauses == [1, 1, 1]
    words = ['"down"', '"degraded"', '"ok"'] if as_json else ["down", "degraded", "ok"]
    places = [out.index(word) for word in words]
    assert places == sorted(places)


def test_status_of_nobody(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for a group that is not there, status fails and says what to do."""
    monkeypatch.setattr(report, "groups", lambda *_: [])
    assert main("status", "fo9") == (
        1,
        "",
        "Error: 'fo9' is not attached\nhint: 'pyfailover status' lists groups\n",
    )
