# SPDX-License-Identifier: GPL-2.0-or-later
"""What each command asks for, and how it tells what came of it."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pyfailover import (
    asking,
    control,
    controller,
    doctor,
    lifecycle,
    place,
    requests,
)
from pyfailover.asking import Moved
from pyfailover.cli import app, groups, running
from pyfailover.commands import Wish
from pyfailover.doctor import Finding, Level
from pyfailover.errors import ConfigError, RefusedError, StateError
from pyfailover.history import Event, History, Kind, table, to_data
from pyfailover.mending import Outcome
from pyfailover.model import (
    Decider,
    GroupSpec,
    MacPolicy,
    Policy,
    Reason,
    RxMode,
    Side,
    TcMode,
)
from pyfailover.place import Roots
from pyfailover.privileges import Account
from pyfailover.transaction import paths

Main = Callable[..., tuple[int, str, str]]  # see conftest.py
WARNING = "warning: no controller: nothing will be brought back\n"

SERVED, ALONE = True, False


class Stub:
    """Takes a call and says what it is told to."""

    def __init__(self, says: object) -> None:
        self.says = says
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, _: object, *args: object, **options: object) -> object:
        self.calls.append((*args, options) if options else args)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


Place = Callable[[Any, str, object], Stub]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Place:
    """Put a stub in the place of a function."""

    def place(module: Any, name: str, says: object) -> Stub:
        made = Stub(says)
        monkeypatch.setattr(module, name, made)
        return made

    return place


# --- groups ---------------------------------------------------------------

ALL_OPTIONS = [
    *("--primary=driver=iavf", "--standby=eth2", "--standby=mac=02:00:5E:10:00:01"),
    *("--side=wire", "--mac=clone", "--tc=clsact", "--rx=kernel", "--rx-grace=7"),
    *("--bypass-filters", "--policy=failure", "--up-delay=1000", "--down-delay=97"),
    *("--announce-count=5", "--announce-interval=50", "--flap-changes=4"),
    *("--flap-window=30", "--flap-hold=20", "--flap-hold-max=600"),
    *("--allow-missing", "--persist", "--max-groups=97", "--no-carrier-test"),
]
DEFAULT = GroupSpec(name="fo0", primary="eth1", standbys=())
FULL = GroupSpec(
    name="fo0",
    primary="driver=iavf",
    standbys=("eth2", "mac=02:00:5E:10:00:01"),
    side=Side.WIRE,
    mac=MacPolicy.CLONE,
    tc=TcMode.CLSACT,
    rx=RxMode.KERNEL,
    rx_grace_ms=7,
    bypass_filters=True,
    policy=Policy.FAILURE,
    up_delay_ms=1000,
    down_delay_ms=97,
    announce_count=5,
    announce_interval_ms=50,
    flap_changes=4,
    flap_window_s=30,
    flap_hold_s=20,
    flap_hold_max_s=600,
)


def test_every_setting_has_an_option() -> None:
    """The test below has an option for whatever a group can be asked to be."""
    assert [
        each.name
        for each in fields(GroupSpec)
        if getattr(FULL, each.name) == getattr(DEFAULT, each.name)
    ] == ["name"]


@pytest.mark.parametrize(
    ("options", "wish"),
    [
        (["--primary=eth1"], Wish(spec=DEFAULT)),
        (["--primary=eth1", "--carrier-test"], Wish(spec=DEFAULT, carrier_test=True)),
        (
            ALL_OPTIONS,
            Wish(
                spec=FULL,
                patient=True,
                persist=True,
                max_groups=97,
                carrier_test=False,
            ),
        ),
    ],
)
@pytest.mark.parametrize("command", ["create", "attach"])
def test_options_of_a_group(
    main: Main, stub: Place, command: str, options: Sequence[str], wish: Wish
) -> None:
    """What was asked for on the command line is what is asked for."""
    called = stub(asking, "attach", (Outcome.DONE, SERVED))
    done = {"create": "created and attached", "attach": "attached"}[command]
    assert main(command, "fo0", *options) == (0, f"fo0: {done}\n", "")
    assert called.calls == [(replace(wish, create=command == "create"),)]


@pytest.mark.parametrize("served", [SERVED, ALONE])
@pytest.mark.parametrize(
    ("command", "outcome", "said"),
    [
        ("create", Outcome.DONE, "created and attached"),
        ("create", Outcome.UNCHANGED, "attached already"),
        ("create", Outcome.MENDED, "was attached, mended"),
        ("attach", Outcome.DONE, "attached"),
        ("attach", Outcome.UNCHANGED, "attached already"),
        ("attach", Outcome.MENDED, "was attached, mended"),
        ("attach", Outcome.RETUNED, "was attached, its settings are changed"),
        ("detach", Outcome.DONE, "detached"),
        ("detach", Outcome.UNCHANGED, "nothing is attached"),
        ("destroy", Outcome.DONE, "destroyed"),
        ("destroy", Outcome.UNCHANGED, "there is no such master"),
    ],
)
def test_outcomes(
    main: Main, stub: Place, command: str, outcome: Outcome, said: str, served: bool
) -> None:
    """Every outcome has its words, and is no failure; whoever attaches is told if
    there is no controller."""
    attaches = command in ("create", "attach")
    stub(asking, "attach" if attaches else "detach", (outcome, served))
    options = ["--primary=eth1"] if attaches else []
    warning = WARNING if attaches and not served else ""
    assert main(command, "fo0", *options) == (0, f"fo0: {said}\n", warning)


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        (["detach", "fo0"], {"persist": False}),
        (["detach", "fo0", "--persist"], {"persist": True}),
        (["destroy", "fo0"], {"destroy": True, "persist": False}),
        (["destroy", "fo0", "--persist"], {"destroy": True, "persist": True}),
    ],
)
def test_taking_away(
    main: Main, stub: Place, args: Sequence[str], asked: Mapping[str, bool]
) -> None:
    """The file that declares a group goes with --persist only, the master with
    `destroy` only."""
    called = stub(asking, "detach", (Outcome.DONE, SERVED))
    assert main(*args)[0] == 0
    assert called.calls == [("fo0", asked)]


@pytest.mark.parametrize("command", ["create", "attach", "detach", "switch"])
def test_refusals(main: Main, stub: Place, command: str) -> None:
    """What is refused ends with its message and hint, with nothing said before."""
    for name in ("attach", "detach", "switch"):
        stub(asking, name, RefusedError("it is in the way", hint="away with it"))
    args = {"detach": [], "switch": ["eth1"]}.get(command, ["--primary=eth1"])
    said = "Error: it is in the way\nhint: away with it\n"
    assert main(command, "fo0", *args) == (1, "", said)


@pytest.mark.parametrize("name", [[], ["fo0"]])
def test_force(
    main: Main, stub: Place, monkeypatch: pytest.MonkeyPatch, name: Sequence[str]
) -> None:
    """`detach --force` needs no name and names what it removed."""
    monkeypatch.setattr(groups, "locked_namespace", nullcontext)
    detached = stub(asking, "detach", (Outcome.DONE, SERVED))
    stub(lifecycle, "purge", ["a thing", "another"])
    lines = [f"{n}: detached" for n in name] + ["removed a thing", "removed another"]
    assert main("detach", "--force", *name) == (0, "\n".join(lines) + "\n", "")
    assert [call[0] for call in detached.calls] == name


# --- switch ---------------------------------------------------------------

PINNED = (
    "fo0: pinned to eth2: if that dies the best other slave carries until it is "
    "back; 'pyfailover switch fo0 auto' unpins\n"
)
MOVED = Moved(before="eth1", after="eth2", generation=7, announced=2, took_s=0.00025)


@pytest.mark.parametrize("served", [SERVED, ALONE])
@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (
            MOVED,
            "fo0: eth1 -> eth2 in 0.25 ms, generation 7, 2 addresses announced\n",
        ),
        (
            replace(MOVED, before=None, announced=1),
            "fo0: nobody -> eth2 in 0.25 ms, generation 7, 1 address announced\n",
        ),
        (
            replace(MOVED, announced=0),
            "fo0: eth1 -> eth2 in 0.25 ms, generation 7, 0 addresses announced\n",
        ),
        (None, "fo0: eth2 is active already\n"),
    ],
)
def test_switch(
    main: Main, stub: Place, moved: Moved | None, said: str, served: bool
) -> None:
    """A switch says from where to where, what it took, and what the pin means."""
    called = stub(asking, "switch", (moved, served))
    warning = "" if served else WARNING
    assert main("switch", "fo0", "eth2") == (0, said + PINNED, warning)
    assert called.calls == [("fo0", "eth2")]


@pytest.mark.parametrize("moved", [None, replace(MOVED, after="eth3")])
def test_switch_to_auto(main: Main, stub: Place, moved: Moved | None) -> None:
    """`auto` unpins: where the traffic goes then is the policy's to say."""
    called = stub(asking, "switch", (moved, SERVED))
    code, out, err = main("switch", "fo0", "auto")
    assert (code, err) == (0, "")
    *lines, last = out.splitlines()
    assert [line.partition(" in ")[0] for line in lines] == (
        ["fo0: eth1 -> eth3"] if moved else []
    )
    assert last == "fo0: not pinned, its policy decides"
    assert called.calls == [("fo0", None)]


# --- run, reload ----------------------------------------------------------


class FakeController:
    """Notes how it was made and run."""

    made: Sequence["FakeController"] = ()

    def __init__(self, roots: Roots, **options: object) -> None:
        self.roots = roots
        self.options = options
        self.level = -1
        FakeController.made = [self]

    def handle(self) -> None:
        """What answers its requests."""

    def run(self, handle: object) -> None:
        """Be the controller, for no time at all."""
        assert handle == self.handle
        self.level = logging.getLogger().level
        logging.getLogger("pyfailover").info("it runs")


USER = Account(97, 98)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """With a fake controller: the namespaces that its process joined for good."""
    seen: list[Path] = []
    monkeypatch.setattr(FakeController, "made", [])
    monkeypatch.setattr(controller, "Controller", FakeController)
    monkeypatch.setattr(requests, "Requests", lambda made: made)
    monkeypatch.setattr(place, "join_namespace", seen.append)
    monkeypatch.setattr(running, "account", {"pyfailover": USER}.get)
    monkeypatch.setattr(running, "can_become_another", lambda: True)
    monkeypatch.setattr(app, "in_named_namespace", nullcontext)
    return seen


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ([], {"reconcile_s": 10.0, "poll_s": 0.005, "export": None}),
        (
            ["--reconcile=0.5", "--poll=20"],
            {"reconcile_s": 0.5, "poll_s": 0.02, "export": None},
        ),
        (
            ["--metrics=[::1]:97"],
            {"reconcile_s": 10.0, "poll_s": 0.005, "export": ["--listen=[::1]:97"]},
        ),
        (
            [
                *("--metrics=[::1]:97", "--tls-cert=/c.pem", "--tls-key=/k.pem"),
                "--client-ca=/a.pem",
            ],
            {
                "reconcile_s": 10.0,
                "poll_s": 0.005,
                "export": [
                    *("--listen=[::1]:97", "--tls-cert=/c.pem", "--tls-key=/k.pem"),
                    "--client-ca=/a.pem",
                ],
            },
        ),
    ],
)
def test_run(
    main: Main,
    joined: list[Path],
    scratch: Roots,
    args: Sequence[str],
    options: Mapping[str, object],
) -> None:
    """The controller has its roots and times, and logs on stderr from info on."""
    code, out, err = main("run", *args)
    assert (code, out) == (0, "")
    assert err.rstrip().endswith("Z info it runs")
    (made,) = FakeController.made
    options = {**options, "user": USER}
    assert (made.roots, made.options, made.level) == (scratch, options, logging.INFO)
    assert joined == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--metrics=9909"], "'9909' is not an address to listen on"),
        (["--tls-cert=c", "--tls-key=k"], "--tls-cert goes with --metrics"),
        (["--metrics=h:1", "--tls-key=k"], "--tls-cert and --tls-key go together"),
        (["--metrics=h:1", "--client-ca=a"], "--client-ca goes with --tls-cert"),
    ],
)
def test_run_with_bad_metrics(
    main: Main, joined: list[Path], args: Sequence[str], said: str
) -> None:
    """What an exporter could not do is refused before anything is begun."""
    code, _, err = main("run", *args)
    assert (code, FakeController.made) == (2, [])
    assert said in err


def test_run_logs_json(main: Main, joined: list[Path]) -> None:
    """As JSON a line is an object."""
    _, _, err = main("run", "--log-format", "json")
    assert json.loads(err)["what"] == "it runs"


def test_run_as_a_user_that_there_is_not(main: Main, joined: list[Path]) -> None:
    """It is said, and the controller stays root's."""
    _, _, err = main("run", "--user=nobody-of-that-name")
    assert "there is no user 'nobody-of-that-name'" in err
    assert [made.options["user"] for made in FakeController.made] == [None]


def test_run_debug(main: Main, joined: list[Path]) -> None:
    """With --debug a controller logs everything."""
    main("--debug", "run")
    assert [made.level for made in FakeController.made] == [logging.DEBUG]


@pytest.mark.parametrize(
    ("name", "path"),
    [("lab", "/run/netns/lab"), ("/proc/97/ns/net", "/proc/97/ns/net")],
)
def test_run_in_a_namespace(
    main: Main, joined: list[Path], name: str, path: str
) -> None:
    """The whole process of a controller is in its namespace: threads to come too."""
    assert main("--netns", name, "run")[0] == 0
    assert joined == [Path(path)]
    assert [made.roots.netns for made in FakeController.made] == [name]


def test_reload(main: Main, stub: Place) -> None:
    """Each group has a line on what came of it."""
    done = {"done": {"fo0": "done", "fo1": "unchanged"}, "detached": ["fo2"]}
    stub(asking, "reload", {**done, "failed": {}})
    assert main("reload") == (0, "fo0: done\nfo1: unchanged\nfo2: detached\n", "")


def test_reload_in_part(main: Main, stub: Place) -> None:
    """A group that could not be attached is told on stderr, and makes it fail."""
    failed = {"fo1": "there is no interface 'eth9'"}
    stub(asking, "reload", {"done": {"fo0": "done"}, "detached": [], "failed": failed})
    code, out, err = main("reload")
    assert (code, out) == (1, "fo0: done\n")
    assert err.splitlines() == [
        "fo1: there is no interface 'eth9'",
        "Error: 1 of 2 groups could not be brought about",
    ]


def test_reload_without_a_controller(main: Main, stub: Place) -> None:
    """Without a controller there is nobody who would read the files."""
    stub(asking, "reload", None)
    said = "Error: no controller runs here\nhint: pyfailover run\n"
    assert main("reload") == (1, "", said)


@pytest.mark.parametrize("served", [SERVED, ALONE])
@pytest.mark.parametrize(
    ("options", "test"),
    [([], None), (["--carrier-test"], True), (["--no-carrier-test"], False)],
)
def test_reload_of_programs(
    main: Main, stub: Place, options: Sequence[str], test: bool | None, served: bool
) -> None:
    """Programs of the kind that is wanted; without a controller that is said."""
    called = stub(asking, "replace_programs", served)
    code, out, err = main("reload", "--programs", *options)
    assert (code, out) == (0, "the programs are replaced\n")
    assert bool(err) is not served
    assert called.calls == [(test,)]


def test_kind_without_programs(main: Main, stub: Place) -> None:
    """The kind is of the programs: it says nothing about the files."""
    called = stub(asking, "reload", None)
    code, _, err = main("reload", "--no-carrier-test")
    assert code == 2
    assert "goes with --programs" in err
    assert called.calls == []


def test_reload_of_a_bad_file(main: Main, stub: Place) -> None:
    """A file with an error is an error of configuration."""
    stub(asking, "reload", ConfigError("/etc/x.toml: unknown key 'x'", hint="no"))
    said = "Error: /etc/x.toml: unknown key 'x'\nhint: no\n"
    assert main("reload") == (2, "", said)


# --- events ---------------------------------------------------------------

EVENTS = [
    Event(
        time=1795590091.25 + number,
        group=f"fo{number % 2}",
        kind=Kind.SWITCH,
        before="eth1",
        after="eth2",
        reason=Reason.CARRIER_LOST,
        by=Decider.CONTROLLER,
        took_s=0.0003,
        generation=number,
    )
    for number in range(5)
]


@pytest.fixture
def past(scratch: Roots) -> None:
    """Events that are written down."""
    history = History(paths(scratch)[1])
    for event in EVENTS:
        history.append(event)


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ([], EVENTS),
        (["fo1"], EVENTS[1::2]),
        (["--last", "2"], EVENTS[3:]),
        (["fo0", "--last", "2"], [EVENTS[2], EVENTS[4]]),
        (["fo9"], []),
    ],
)
def test_events(main: Main, args: Sequence[str], shown: Sequence[Event]) -> None:
    """Events are shown oldest first, as a table or as a JSON object a line; that
    needs no controller."""
    lines = list(table(shown))
    assert main("events", *args) == (0, "".join(f"{line}\n" for line in lines), "")
    code, out, err = main("events", *args, "--json")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [*map(to_data, shown)]


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize(("args", "shown"), [([], EVENTS), (["fo1"], EVENTS[1::2])])
@pytest.mark.parametrize("as_json", [False, True])
def test_following_events(
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    args: Sequence[str],
    shown: Sequence[Event],
    as_json: bool,
) -> None:
    """--follow goes on with what the controller tells, of the group that was asked
    for, until the controller ends."""
    later = [replace(event, time=event.time + 97) for event in EVENTS]
    monkeypatch.setattr(control, "watch", lambda _: map(to_data, later))
    options = ["--follow", *(["--json"] if as_json else [])]
    code, out, err = main("events", *args, *options)
    assert (code, err) == (0, "")
    found = [*shown, *(event for event in later if not args or event.group in args)]
    if as_json:
        assert [json.loads(line) for line in out.splitlines()] == [*map(to_data, found)]
    else:
        assert out.splitlines() == list(table(found))


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize(
    ("args", "shown"),
    [([], EVENTS), (["fo1"], EVENTS[1::2]), (["--last", "1"], EVENTS[4:])],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_no_event_is_lost_or_shown_twice(
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    scratch: Roots,
    args: Sequence[str],
    shown: Sequence[Event],
    as_json: bool,
) -> None:
    """What happens between subscribing and reading is in the history and comes by the
    controller: it is shown once, and so is what comes later, even with an earlier time
    because somebody set the clock back."""
    between = replace(EVENTS[1], time=EVENTS[4].time + 0.5, generation=97)
    later = [replace(event, time=event.time - 3600) for event in EVENTS]

    def subscribe(run: Path) -> Iterator[dict[str, object]]:
        History(run).append(between)
        return map(to_data, [*EVENTS[3:], between, *later])

    monkeypatch.setattr(control, "watch", subscribe)
    options = ["--follow", *(["--json"] if as_json else [])]
    code, out, err = main("events", *args, *options)
    assert (code, err) == (0, "")
    found = [*shown, between] if args != ["--last", "1"] else [between]
    found += [event for event in later if args != ["fo1"] or event.group == "fo1"]
    if as_json:
        assert [json.loads(line) for line in out.splitlines()] == [*map(to_data, found)]
    else:
        assert out.splitlines() == list(table(found))


@pytest.mark.usefixtures("past")
def test_following_nobody(main: Main) -> None:
    """Without a controller --follow fails at once."""
    code, out, err = main("events", "--follow")
    assert (code, out) == (1, "")
    assert err == "Error: no controller runs here\nhint: pyfailover run\n"


# --- doctor ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "code"), [(Level.OK, 0), (Level.COST, 0), (Level.FATAL, 1)]
)
def test_doctor(main: Main, stub: Place, level: Level, code: int) -> None:
    """The doctor fails if failover would, whatever else there is to say."""
    found = [
        Finding(what="kernel", found="6.18"),
        Finding(level=level, what="x", found="y"),
    ]
    called = stub(doctor, "examine", found)
    lines = [f"{line}\n" for line in doctor.table(found)]
    assert main("doctor") == (code, "".join(lines), "")
    assert main("doctor", "eth2", "eth1")[0] == code
    assert called.calls == [((),), (("eth2", "eth1"),)]


def test_doctor_as_json(main: Main, stub: Place) -> None:
    """As JSON every finding is an object."""
    bad = Finding(
        level=Level.FATAL, subject="eth1", what="x", found="y", cost="all", mend="it"
    )
    stub(doctor, "examine", [Finding(what="kernel", found="6.18"), bad])
    code, out, err = main("doctor", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out) == [
        {
            "level": "ok",
            "subject": "host",
            "what": "kernel",
            "found": "6.18",
            "cost": "",
            "mend": "",
        },
        {
            "level": "fatal",
            "subject": "eth1",
            "what": "x",
            "found": "y",
            "cost": "all",
            "mend": "it",
        },
    ]


# --- and all of them ------------------------------------------------------


def test_environment(main: Main, monkeypatch: pytest.MonkeyPatch, stub: Place) -> None:
    """An option may come from PYFAILOVER_… as well."""
    monkeypatch.setenv("PYFAILOVER_ATTACH_PRIMARY", "eth1")
    monkeypatch.setenv("PYFAILOVER_ATTACH_UP_DELAY", "97")
    called = stub(asking, "attach", (Outcome.DONE, SERVED))
    assert main("attach", "fo0")[0] == 0
    assert called.calls == [(Wish(spec=replace(DEFAULT, up_delay_ms=97)),)]


def test_controller_that_hangs(main: Main, stub: Place) -> None:
    """One that does not answer makes a command fail, not act behind its back."""
    stub(control, "ask", StateError("the controller does not answer: timed out"))
    for args in (["switch", "fo0", "eth1"], ["detach", "fo0"], ["status"]):
        code, out, err = main(*args)
        assert (code, out) == (1, "")
        assert err == "Error: the controller does not answer: timed out\n"
