# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests over the control socket: what is asked of the controller for each, that
nothing is for one that is not as it should be, and that who asks asks for that.

The controller is a fake that notes what it is asked for.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyfailover import __version__, asking, commands, control, switching
from pyfailover.asking import Moved
from pyfailover.commands import Reloaded, Wish
from pyfailover.config import spec_to
from pyfailover.control import Reply
from pyfailover.controller import Controller
from pyfailover.core import Verdict
from pyfailover.datapath import cache
from pyfailover.errors import ConfigError, PyFailoverError, RefusedError, StateError
from pyfailover.history import Kind
from pyfailover.journal import Record
from pyfailover.mending import Outcome
from pyfailover.model import Decider, GroupSpec, Link, Policy, Reason, TcMode
from pyfailover.place import Roots
from pyfailover.requests import Requests
from pyfailover.switching import Change
from pyfailover.tally import Tally
from tests.support.specs import specs

SPEC = GroupSpec(name="fo0", primary="eth1", standbys=("eth2",))
GOOD = Link(ifindex=7, name="eth1", mac="02::1", mtu=1500, up=True, carrier=True)
SEATS = [{"step": "Seat", "slot": n, "ifindex": n + 7} for n in range(2)]
NAMESPACE = object()  # that a job is done on
CHANGE = Change(
    group="fo0",
    before="eth2",
    after="eth1",
    reason=Reason.OPERATOR,
    by=Decider.USER,
    generation=97,
    took_s=0.00025,
    announced=2,
)


class FakeKeeper:
    """The group fo0, with slaves eth1 and eth2."""

    name = "fo0"

    def __init__(self, asked: list[object]) -> None:
        self._asked = asked
        self.record = Record(
            spec=SPEC, index=0, tc=TcMode.TCX, steps=SEATS, committed=2
        )

    def pin(self, slot: int | None) -> None:
        """The operator pinned the traffic, or unpinned it."""
        self._asked.append(("pin", slot, self.record.pinned))

    def status(self, _: float) -> dict[str, object]:
        """As a real one's."""
        slave = {"verdict": Verdict.UP_DELAY, "left_s": 0.5, "damped": 0}
        return {
            "decided_by": Decider.KERNEL,
            "policy": Policy.ALWAYS,
            "pinned": None,
            "usable": 1,
            "slaves": [slave],
        }


class FakeController:
    """A controller that has fo0; its parts and itself in one."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.counts = Counter(events=3, overruns=2, resyncs=1)
        self.started = 1795590091.5
        self.kept = self.jobs = self.teller = self
        self.troubles = {"fo7": StateError("there is no 'eth9'", hint="plug it")}
        self.tally = Tally()
        self.tally.repairs["fo0"] = 5
        self.keepers = {"fo0": FakeKeeper(self.asked)}
        self.view = SimpleNamespace(
            links={7: GOOD, 8: replace(GOOD, ifindex=8, name="eth2")}
        )
        self.changes = [replace(CHANGE, after="eth9"), CHANGE]
        self.reloaded = Reloaded()
        self.waiting: dict[str, object] = {}
        self.forgotten: list[tuple[str, str]] = []

    async def do(self, job: Callable[[object], object], *names: str) -> object:
        """Do a job, on no namespace at all."""
        self.asked.append(("job", names))
        return job(NAMESPACE)

    async def read(self, job: Callable[[object], object]) -> object:
        """Do a job after which nothing is adopted."""
        self.asked.append("read")
        return job(NAMESPACE)

    def forget(self, name: str, what: str) -> None:
        """Some work on a group is not wanted any more."""
        self.forgotten.append((name, what))

    async def reload(self) -> Reloaded:
        """Read no files."""
        self.asked.append("reload")
        return self.reloaded

    async def replace_programs(self, carrier_test: bool | None) -> None:
        """Replace no programs."""
        self.asked.append(("replace", carrier_test))

    def find(self, name: str) -> FakeKeeper | None:
        """Its group, by the name of its master too."""
        return self.keepers["fo0"] if name in ("fo0", "renamed") else None

    def settle(
        self, keeper: FakeKeeper, _: float, *, reason: Reason, by: Decider
    ) -> list[Change]:
        """Change what the test says."""
        self.asked.append(("settle", keeper.name, reason, by))
        return self.changes

    def note(self, group: str, kind: Kind, *, after: str | None, by: Decider) -> None:
        """Something happened."""
        self.asked.append(("note", group, kind, after, by))

    def carrier_of(self, _: FakeKeeper) -> str:
        """What becomes of the master's carrier."""
        return "follows"

    def degraded_since(self, _: str) -> float:
        """When it lost its redundancy."""
        return 1795590000.5


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> FakeController:
    """A controller; jobs note what they would do, and on what."""
    made = FakeController()

    def noting(what: str, says: object) -> Callable[..., object]:
        def act(namespace: object, *args: object, **options: object) -> object:
            assert namespace is NAMESPACE
            made.asked.append((what, *args, options) if options else (what, *args))
            if isinstance(says, Exception):
                raise says
            return says

        return act

    monkeypatch.setattr(commands, "attach", noting("attach", Outcome.MENDED))
    monkeypatch.setattr(commands, "detach", noting("detach", Outcome.DONE))
    monkeypatch.setattr(switching, "pin", noting("write pin", None))
    return made


def handle(controller: FakeController, request: Mapping[str, Any]) -> Reply:
    """The reply to a request, as it comes out of the socket."""
    requests = Requests(cast(Controller, controller))
    reply = asyncio.run(requests.handle(request))
    return cast(Reply, json.loads(json.dumps(reply, allow_nan=False)))


# --- what they do ---------------------------------------------------------


def test_status(controller: FakeController) -> None:
    """All that only the controller knows, as plain data."""
    assert handle(controller, {"do": "status"}) == {
        "pid": os.getpid(),
        "version": __version__,
        "started": 1795590091.5,
        "counts": {"events": 3, "overruns": 2, "resyncs": 1, "repairs": 5},
        "troubles": {"fo7": "there is no 'eth9'"},
        "groups": {
            "fo0": {
                "decided_by": "kernel",
                "policy": "always",
                "pinned": None,
                "usable": 1,
                "slaves": [{"verdict": "up delay", "left_s": 0.5, "damped": 0}],
                "carrier": "follows",
                "degraded_since": 1795590000.5,
            }
        },
    }
    assert controller.asked == []


def test_metrics(controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of `status`, and what was counted."""
    monkeypatch.setattr(cache, "obtained", Counter(cache=2, compiler=1))
    found = handle(controller, {"do": "metrics"})
    tally = controller.tally.as_data()
    assert found["tally"]["repairs"] == tally["repairs"] == {"fo0": 5}
    assert found["tally"].keys() == tally.keys()
    assert found["loads"] == {"cache": 2, "compiler": 1}
    rest = {k: v for k, v in found.items() if k not in ("tally", "loads")}
    assert rest == handle(controller, {"do": "status"})


@given(
    specs(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(1, 4096),
    st.none() | st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attach(
    controller: FakeController,
    spec: GroupSpec,
    create: bool,
    patient: bool,
    persist: bool,
    max_groups: int | None,
    carrier_test: bool | None,
) -> None:
    """Any group that there can be is attached as it was asked for."""
    controller.asked.clear()
    wish = Wish(
        spec=spec,
        create=create,
        patient=patient,
        persist=persist,
        max_groups=max_groups,
        carrier_test=carrier_test,
    )
    request = {
        "do": "attach",
        "spec": json.loads(json.dumps(spec_to(spec))),
        "create": create,
        "patient": patient,
        "persist": persist,
        "max_groups": max_groups,
        "carrier_test": carrier_test,
    }
    assert handle(controller, request) == {"outcome": "mended"}
    assert controller.asked == [("job", ()), ("attach", wish)]


@pytest.mark.parametrize("destroy", [False, True])
@pytest.mark.parametrize("persist", [False, True])
def test_detach(controller: FakeController, destroy: bool, persist: bool) -> None:
    """A group is detached, destroyed, undeclared, as it was asked for."""
    request = {"do": "detach", "master": "fo0", "destroy": destroy, "persist": persist}
    assert handle(controller, request) == {"outcome": "done"}
    asked = {"destroy": destroy, "persist": persist}
    assert controller.asked == [("job", ()), ("detach", "fo0", asked)]


def test_detached_group_waits_no_more(controller: FakeController) -> None:
    """A declared group that could not be attached yet is not, once it is detached, and
    why is trouble no more; unless that is refused, and others are all the same."""
    controller.waiting = {"fo0": "a file", "fo1": "another"}
    with pytest.raises(ConfigError):
        handle(controller, {"do": "detach", "master": "fo0"})
    assert controller.waiting.keys() == {"fo0", "fo1"}
    assert controller.forgotten == []
    handle(controller, {"do": "detach", **GOOD_ARGUMENTS["detach"], "persist": True})
    assert controller.waiting == {"fo1": "another"}
    assert controller.forgotten == [("fo0", "attach")]


@pytest.mark.parametrize("master", ["fo0", "renamed"])
@pytest.mark.parametrize(
    ("slave", "slot"), [("eth1", 0), ("eth2", 1), (None, None)], ids=str
)
def test_switch(
    controller: FakeController, master: str, slave: str | None, slot: int | None
) -> None:
    """The pin is written first, so that the next controller knows of it whatever
    happens to this one; then the group has it, the word follows, and its story."""
    reply = handle(controller, {"do": "switch", "master": master, "slave": slave})
    assert reply["change"] == {
        "before": "eth2",
        "after": "eth1",
        "took_s": 0.00025,
        "generation": 97,
        "announced": 2,
    }
    assert controller.asked == [
        "read",
        ("write pin", "fo0", slot),
        ("pin", slot, slot),
        ("settle", "fo0", Reason.OPERATOR, Decider.USER),
        ("note", "fo0", Kind.PIN, slave, Decider.USER),
    ]


def test_pin_that_cannot_be_written(
    controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the pin cannot be written nothing is moved: it would be moved back."""

    def fail(*_: object) -> None:
        raise StateError("no space left")

    monkeypatch.setattr(switching, "pin", fail)
    with pytest.raises(StateError, match="no space left"):
        handle(controller, {"do": "switch", "master": "fo0", "slave": "eth2"})
    assert controller.asked == ["read"]
    assert controller.keepers["fo0"].record.pinned is None


def test_switch_to_where_it_is(controller: FakeController) -> None:
    """Where nothing changes there is no change, and the pin is written all the same."""
    controller.changes = []
    request = {"do": "switch", "master": "fo0", "slave": "eth1"}
    assert handle(controller, request) == {"change": None}
    assert ("write pin", "fo0", 0) in controller.asked


def test_reload(controller: FakeController) -> None:
    """What the files came to, in words."""
    controller.reloaded = Reloaded(
        done={"fo0": Outcome.DONE, "fo1": Outcome.RETUNED},
        detached=["fo2"],
        failed={"fo3": RefusedError("it has an address", hint="see to it")},
    )
    assert handle(controller, {"do": "reload"}) == {
        "done": {"fo0": "done", "fo1": "retuned"},
        "detached": ["fo2"],
        "failed": {"fo3": "it has an address"},
    }
    assert controller.asked == ["reload"]


def test_what_fails_is_the_askers(
    controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of what was asked for goes to whoever asked for it."""

    def refuse(*_: object) -> None:
        raise RefusedError("it has an address")

    monkeypatch.setattr(commands, "attach", refuse)
    with pytest.raises(RefusedError, match="it has an address"):
        handle(controller, {"do": "attach", **GOOD_ARGUMENTS["attach"]})


# --- who asks -------------------------------------------------------------

MOVED = Moved(before="eth2", after="eth1", took_s=0.00025, generation=97, announced=2)
WISH = Wish(
    spec=SPEC,
    create=True,
    patient=True,
    persist=True,
    max_groups=97,
    carrier_test=False,
)


@dataclass(frozen=True, kw_only=True)
class Asking:
    """A call of `asking`, what it says, what is done for it under the lock, and what
    a controller is asked for first."""

    call: Callable[[Roots], object]
    says: object
    done: Sequence[object]
    first: Sequence[object] = (("job", ()),)


ASKING = {
    "attach": Asking(
        call=lambda roots: asking.attach(roots, WISH),
        says=Outcome.MENDED,
        done=[("attach", WISH)],
    ),
    "detach": Asking(
        call=lambda roots: asking.detach(roots, "fo0", persist=True),
        says=Outcome.DONE,
        done=[("detach", "fo0", {"destroy": False, "persist": True})],
    ),
    "destroy": Asking(
        call=lambda roots: asking.detach(roots, "fo0", destroy=True),
        says=Outcome.DONE,
        done=[("detach", "fo0", {"destroy": True, "persist": False})],
    ),
    "switch": Asking(
        call=lambda roots: asking.switch(roots, "fo0", "eth1"),
        says=MOVED,
        done=[("switch", "fo0", "eth1")],
        first=["read", ("write pin", "fo0", 0)],
    ),
    "auto": Asking(
        call=lambda roots: asking.switch(roots, "fo0", None),
        says=MOVED,
        done=[("switch", "fo0", None)],
        first=["read", ("write pin", "fo0", None)],
    ),
}


@pytest.fixture
def answering(controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """Have the controller answer."""

    def ask(_: object, do: str, **arguments: object) -> Reply:
        return handle(controller, {"do": do, **arguments})

    monkeypatch.setattr(control, "ask", ask)
    return Roots()


@pytest.fixture
def alone(controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """Have no controller; what is done under the lock is noted."""

    def switch(namespace: object, *args: object) -> Change:
        assert namespace is NAMESPACE
        controller.asked.append(("switch", *args))
        return CHANGE

    monkeypatch.setattr(control, "ask", lambda *_, **__: None)
    monkeypatch.setattr(asking, "locked_namespace", lambda _: nullcontext(NAMESPACE))
    monkeypatch.setattr(switching, "switch", switch)
    return Roots()


@pytest.mark.parametrize("case", ASKING.values(), ids=ASKING)
def test_a_controller_is_asked(
    controller: FakeController, answering: Roots, case: Asking
) -> None:
    """What is asked of a controller is what it takes; its answer is as if the command
    had done it."""
    assert case.call(answering) == (case.says, True)
    begun = len(case.first)
    assert controller.asked[:begun] == [*case.first]
    if "read" not in case.first:
        assert controller.asked[begun:] == case.done


@pytest.mark.parametrize("case", ASKING.values(), ids=ASKING)
def test_without_a_controller(
    controller: FakeController, alone: Roots, case: Asking
) -> None:
    """Without one the command does it itself, under the lock."""
    assert case.call(alone) == (case.says, False)
    assert controller.asked == case.done


def test_switch_that_changes_nothing(
    controller: FakeController, answering: Roots
) -> None:
    """Where nothing changes a controller says so as well."""
    controller.changes = []
    assert asking.switch(answering, "fo0", "eth1") == (None, True)


def test_status_and_reload(controller: FakeController, answering: Roots) -> None:
    """A controller's answers go out as they are."""
    said = asking.status(answering)
    assert said is not None
    assert said["groups"].keys() == {"fo0"}
    assert asking.reload(answering) == {"done": {}, "detached": [], "failed": {}}


def test_status_and_reload_of_nobody(alone: Roots) -> None:
    """What only a controller knows and does is nothing without one."""
    assert asking.status(alone) is None
    assert asking.reload(alone) is None


# --- what they refuse -----------------------------------------------------

GOOD_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "status": {},
    "attach": {
        "spec": spec_to(SPEC),
        "create": False,
        "patient": False,
        "persist": False,
        "max_groups": None,
        "carrier_test": None,
    },
    "detach": {"master": "fo0", "destroy": False, "persist": False},
    "switch": {"master": "fo0", "slave": "eth1"},
    "reload": {},
    "replace": {"carrier_test": None},
}
EACH = [(do, key) for do, given in GOOD_ARGUMENTS.items() for key in given]


def refused(controller: FakeController, request: Mapping[str, Any]) -> PyFailoverError:
    """The error that a request ends with; nothing was asked for."""
    with pytest.raises(PyFailoverError) as caught:
        handle(controller, request)
    assert controller.asked == []
    assert caught.value.message.isprintable()
    return caught.value


@pytest.mark.parametrize("do", GOOD_ARGUMENTS)
def test_good_arguments(controller: FakeController, do: str) -> None:
    """What the tests below spoil would be taken."""
    handle(controller, {"do": do, **GOOD_ARGUMENTS[do]})


@pytest.mark.parametrize(("do", "key"), EACH)
def test_missing_argument(controller: FakeController, do: str, key: str) -> None:
    """Every argument must be there; the error names all of them."""
    arguments = {k: v for k, v in GOOD_ARGUMENTS[do].items() if k != key}
    exc = refused(controller, {"do": do, **arguments})
    assert isinstance(exc, ConfigError)
    wanted = ", ".join(GOOD_ARGUMENTS[do])
    assert exc.message == f"'{do}' takes these arguments: {wanted}"


@pytest.mark.parametrize("do", GOOD_ARGUMENTS)
def test_extra_argument(controller: FakeController, do: str) -> None:
    """No other argument may be there: it would be a wish that is not granted."""
    exc = refused(controller, {"do": do, **GOOD_ARGUMENTS[do], "force": True})
    assert isinstance(exc, ConfigError)
    assert exc.message.startswith(f"'{do}' takes these arguments: ")


WRONG: Mapping[str, list[Any]] = {
    "spec": [None, "fo0", [], [["master", "fo0"]], True],
    "create": [None, 0, 1, "true", [], {}],
    "patient": [None, 0, 1, "", [True]],
    "persist": [None, 0, 1, "no", {}],
    "destroy": [None, 0, 1, 1.0, "yes"],
    "max_groups": [True, False, "97", 97.0, [97], {}],
    "carrier_test": [0, 1, "no", 1.0, [True], {}],
    "master": [None, 0, True, ["fo0"], {"name": "fo0"}],
    "slave": [0, 1, False, ["eth1"], {}],
}


@pytest.mark.parametrize(("do", "key"), EACH)
def test_wrong_type(controller: FakeController, do: str, key: str) -> None:
    """An argument of another type is refused, and shown: a number is no yes or no."""
    for value in WRONG[key]:
        exc = refused(controller, {"do": do, **GOOD_ARGUMENTS[do], key: value})
        assert isinstance(exc, ConfigError)
        assert exc.message == f"'{do}' cannot take {key} = {value!r}"


def test_long_value(controller: FakeController) -> None:
    """Of a value that is endless the beginning is shown."""
    request = {"do": "switch", "master": ["x" * 100_000], "slave": None}
    assert len(refused(controller, request).message) < 150


@pytest.mark.parametrize("room", [0, -1, 4097, 2**70])
def test_room(controller: FakeController, room: int) -> None:
    """The number of groups has its bounds, as on the command line."""
    arguments = {**GOOD_ARGUMENTS["attach"], "max_groups": room}
    exc = refused(controller, {"do": "attach", **arguments})
    assert "1 to 4096" in exc.message


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group that cannot be."""

    description: str
    spec: Mapping[str, Any]
    says: str


GROUPS = [
    Group(description="nothing at all", spec={}, says="no key 'master'"),
    Group(description="no slave", spec={"master": "fo0"}, says="'fo0' has no slave"),
    Group(
        description="an unknown key",
        spec={"master": "fo0", "primary": "eth1", "colour": "blue"},
        says="unknown key 'colour'",
    ),
    Group(
        description="a path for a name",
        spec={"master": "../../etc/x", "primary": "eth1"},
        says="'../../etc/x' is not an interface name",
    ),
    Group(
        description="its own slave",
        spec={"master": "fo0", "primary": "fo0"},
        says="'fo0' cannot be its own slave",
    ),
    Group(
        description="a number beyond its bounds",
        spec={"master": "fo0", "primary": "eth1", "up_delay_ms": -1},
        says="'up_delay_ms' cannot be the number -1",
    ),
    Group(
        description="no rule",
        spec={"master": "fo0", "standbys": ["pci=3"]},
        says="'3' is not a pci in the rule",
    ),
]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.description)
def test_bad_group(controller: FakeController, group: Group) -> None:
    """A group that cannot be is refused before the namespace is locked for it."""
    arguments = {**GOOD_ARGUMENTS["attach"], "spec": group.spec}
    exc = refused(controller, {"do": "attach", **arguments})
    assert isinstance(exc, ConfigError)
    assert exc.message.startswith("request: ")
    assert group.says in exc.message


@pytest.mark.parametrize(
    ("master", "slave", "says"),
    [
        ("fo9", "eth1", "'fo9' is not attached"),
        ("fo9", None, "'fo9' is not attached"),
        ("", None, "'' is not attached"),
        ("fo\n9", None, "'fo\\n9' is not attached"),
        ("fo0", "\x1b", "cannot switch 'fo0' to '\\x1b': it is not one of its slaves"),
        ("fo0", "eth3", "cannot switch 'fo0' to 'eth3': it is not one of its slaves"),
        ("fo0", "auto", "cannot switch 'fo0' to 'auto': it is not one of its slaves"),
    ],
)
def test_switch_to_what_is_not_there(
    controller: FakeController, master: str, slave: str | None, says: str
) -> None:
    """A group or slave that is not there cannot be switched to, nor pinned."""
    exc = refused(controller, {"do": "switch", "master": master, "slave": slave})
    assert (type(exc), exc.message) == (StateError, says)


@pytest.mark.parametrize(
    ("link", "says"),
    [
        (None, "it was unplugged"),
        (replace(GOOD, up=False, carrier=False), "it is down"),
        (replace(GOOD, carrier=False), "it has no carrier"),
    ],
)
def test_switch_to_a_slave_that_is_not_ready(
    controller: FakeController, link: Link | None, says: str
) -> None:
    """Traffic is not moved to a slave that cannot carry it, nor is it pinned there."""
    controller.view.links = {} if link is None else {7: link}
    exc = refused(controller, {"do": "switch", "master": "fo0", "slave": "eth1"})
    assert says in exc.message


@pytest.mark.parametrize("do", ["", "frob", "watch", "__init__", "_status", "x" * 999])
def test_unknown_request(controller: FakeController, do: str) -> None:
    """What it cannot do it says, and what it can."""
    exc = refused(controller, {"do": do})
    assert isinstance(exc, ConfigError)
    assert (
        exc.hint
        == "it can do status, metrics, attach, detach, switch, reload, replace, watch"
    )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["fo0", "eth1", "", "../x", "a" * 300]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text() | st.sampled_from(sorted(spec_to(SPEC))), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """A request with whatever in the place of its arguments."""
    do = draw(st.sampled_from(sorted(GOOD_ARGUMENTS)) | st.text())
    good = GOOD_ARGUMENTS.get(do, {})
    arguments = {
        key: draw(JSON) if draw(st.booleans()) else value
        for key, value in good.items()
        if draw(st.integers(0, 9))
    }
    if "spec" in arguments and draw(st.booleans()):
        changes = draw(st.dictionaries(st.sampled_from(sorted(spec_to(SPEC))), JSON))
        arguments["spec"] = {**spec_to(SPEC), **changes}
    if not draw(st.integers(0, 9)):
        arguments[draw(st.text())] = draw(JSON)
    return {**arguments, "do": do}


def asked_for(request: Mapping[str, Any]) -> Iterator[bool]:
    """What must be so of the arguments of a request that is carried out."""
    yield request.keys() - {"do"} == GOOD_ARGUMENTS[request["do"]].keys()
    for key in ("create", "patient", "persist", "destroy"):
        yield type(request.get(key, True)) is bool
    yield type(request.get("carrier_test")) in (bool, type(None))
    yield type(request.get("master", "")) is str
    yield request.get("slave") in (None, "eth1")
    room = request.get("max_groups")
    yield room is None or (type(room) is int and 1 <= room <= 4096)
    yield type(request.get("spec", {})) is dict


@pytest.mark.parametrize("test", [None, True, False])
def test_replace(controller: FakeController, test: bool | None) -> None:
    """The programs are replaced by those of the kind that was asked for."""
    assert handle(controller, {"do": "replace", "carrier_test": test}) == {}
    assert controller.asked == [("replace", test)]


@given(spoilt())
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_for(
    controller: FakeController, sent: dict[str, Any]
) -> None:
    """A request is either as it should be and carried out, or ends with an error of
    one line, and then nothing was asked of anybody."""
    controller.asked.clear()
    error = None
    try:
        handle(controller, sent)
    except PyFailoverError as exc:
        error = exc
    if error is None:
        assert all(asked_for(sent))
    else:
        assert controller.asked == []
        assert error.message.isprintable()
