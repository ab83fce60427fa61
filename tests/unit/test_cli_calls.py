# SPDX-License-Identifier: GPL-2.0-or-later
"""What each command asks the library for, and how it tells what came of it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pyfailover import cli, lifecycle, switching
from pyfailover.lifecycle import Outcome
from pyfailover.model import GroupSpec, MacPolicy, RxMode, Side, TcMode

Main = Callable[..., tuple[int, str, str]]  # see conftest.py
WARNING = "warning: no controller: nothing will be brought back\n"


class Stub:
    """Takes a call and says what it is told to."""

    def __init__(self, says: object) -> None:
        self.says = says
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, _: object, *args: object, **options: object) -> object:
        self.calls.append((*args, options) if options else args)
        return self.says


class NoNamespace:
    """Stands for the locked namespace."""

    def __init__(self, _: object) -> None:
        pass

    def __enter__(self) -> "NoNamespace":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, object], Stub]:
    """Put a stub in the place of a function of the library."""
    monkeypatch.setattr(cli, "locked_namespace", NoNamespace)

    def place(module: Any, name: str, says: object) -> Stub:
        made = Stub(says)
        monkeypatch.setattr(module, name, made)
        return made

    return place


ALL_OPTIONS = [
    *("--primary=eth1", "--standby=eth2", "--standby=eth3", "--side=wire"),
    *("--mac=clone", "--tc=clsact", "--rx=kernel", "--rx-grace=7"),
    *("--bypass-filters", "--max-groups=97"),
]
DEFAULT = GroupSpec(name="fo0", primary="eth1", standbys=())
FULL = GroupSpec(
    name="fo0",
    primary="eth1",
    standbys=("eth2", "eth3"),
    side=Side.WIRE,
    mac=MacPolicy.CLONE,
    tc=TcMode.CLSACT,
    rx=RxMode.KERNEL,
    rx_grace_ms=7,
    bypass_filters=True,
)


@pytest.mark.parametrize(
    ("options", "spec", "max_groups"),
    [(["--primary=eth1"], DEFAULT, None), (ALL_OPTIONS, FULL, 97)],
)
@pytest.mark.parametrize("command", ["create", "attach"])
def test_options_of_a_group(
    main: Main,
    stub: Callable[[Any, str, object], Stub],
    command: str,
    options: Sequence[str],
    spec: GroupSpec,
    max_groups: int | None,
) -> None:
    """What was asked for on the command line is what the library is asked for."""
    called = stub(lifecycle, command, Outcome.DONE)
    done = {"create": "created and attached", "attach": "attached"}[command]
    assert main(command, "fo0", *options) == (0, f"fo0: {done}\n", WARNING)
    assert called.calls == [(spec, {"max_groups": max_groups})]


@pytest.mark.parametrize(
    ("command", "outcome", "said"),
    [
        ("create", Outcome.UNCHANGED, "attached already"),
        ("attach", Outcome.UNCHANGED, "attached already"),
        ("attach", Outcome.MENDED, "was attached, mended"),
        ("detach", Outcome.DONE, "detached"),
        ("detach", Outcome.UNCHANGED, "nothing is attached"),
        ("destroy", Outcome.DONE, "destroyed"),
        ("destroy", Outcome.UNCHANGED, "there is no such master"),
    ],
)
def test_outcomes(
    main: Main,
    stub: Callable[[Any, str, object], Stub],
    command: str,
    outcome: Outcome,
    said: str,
) -> None:
    """Every outcome has its words, and is no failure."""
    stub(lifecycle, command, outcome)
    options = ["--primary=eth1"] if command in ("create", "attach") else []
    code, out, _ = main(command, "fo0", *options)
    assert (code, out) == (0, f"fo0: {said}\n")


def test_force(main: Main, stub: Callable[[Any, str, object], Stub]) -> None:
    """`detach --force` needs no name and names what it removed."""
    stub(lifecycle, "purge", ["a thing", "another"])
    assert main("detach", "--force") == (0, "removed a thing\nremoved another\n", "")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("eth1", "fo0: eth1 -> eth2 in 0.25 ms, generation 7, 2 addresses announced\n"),
        (None, "fo0: nobody -> eth2 in 0.25 ms, generation 7, 2 addresses announced\n"),
    ],
)
def test_switch(
    main: Main,
    stub: Callable[[Any, str, object], Stub],
    before: str | None,
    said: str,
) -> None:
    """A switch says from where to where, and what it took."""
    done = switching.Switch(
        before=before, after="eth2", generation=7, announced=2, took_s=0.00025
    )
    called = stub(switching, "switch", done)
    assert main("switch", "fo0", "eth2") == (0, said, "")
    assert called.calls == [("fo0", "eth2")]


def test_switch_to_where_it_is(
    main: Main, stub: Callable[[Any, str, object], Stub]
) -> None:
    """A switch to the active slave is no failure and no change."""
    stub(switching, "switch", None)
    assert main("switch", "fo0", "eth2") == (0, "fo0: eth2 is active already\n", "")


def test_environment(
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    stub: Callable[[Any, str, object], Stub],
) -> None:
    """An option may come from PYFAILOVER_… as well."""
    monkeypatch.setenv("PYFAILOVER_ATTACH_PRIMARY", "eth1")
    called = stub(lifecycle, "attach", Outcome.DONE)
    assert main("attach", "fo0")[0] == 0
    assert called.calls == [(DEFAULT, {"max_groups": None})]
