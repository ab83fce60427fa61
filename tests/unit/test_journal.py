# SPDX-License-Identifier: GPL-2.0-or-later
"""Records on disk, and the steps in them: what is read is what was written."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover.datapath.abi import RxRule
from pyfailover.errors import StateError
from pyfailover.journal import Journal, Record, StepData, forget_namespace
from pyfailover.model import GroupSpec, Hook, TcMode
from pyfailover.steps import (
    Attach,
    Device,
    DropLinkLocal,
    MakeClsact,
    MakeVeth,
    OpenGroup,
    Seat,
    SetLink,
    Setting,
    Step,
    TakeCarrier,
    concerns,
    from_data,
    to_data,
)
from tests.support.specs import specs

DEVICE = Device(ifindex=7, name="eth1", macs=("02:00:5e:10:00:01", ""))
STEPS: Sequence[Step] = (
    MakeVeth(
        name="fo0", low="fo0-low", mac="02::1", low_mac="02::2", mtu=9000, queues=2
    ),
    *(
        SetLink(device=DEVICE, setting=setting, old=0, new=1)
        for setting in Setting
        if setting is not Setting.MAC
    ),
    SetLink(device=DEVICE, setting=Setting.MAC, old="02::1", new="02::2"),
    DropLinkLocal(device=DEVICE, address="fe80::1", prefixlen=64),
    MakeClsact(device=DEVICE),
    *(TakeCarrier(device=DEVICE, lower=lower) for lower in (False, True)),
    OpenGroup(index=63, master=2**31 - 1),
    *(Seat(index=0, slot=7, ifindex=7, master=8, rule=rule) for rule in RxRule),
    *(
        Attach(ifindex=9, hook=hook, tc=tc, program="fo_stack_tx")
        for hook in Hook
        for tc in TcMode
    ),
)


def record(name: str = "fo0", steps: Sequence[Step] = (), **changes: Any) -> Record:
    """A record of a group."""
    spec = GroupSpec(name=name, primary="eth1", standbys=("eth2",))
    values = {"index": 0, "tc": TcMode.TCX, "steps": [as_read(s) for s in steps]}
    return Record(spec=spec, **{**values, **changes})


def as_read(step: Step) -> StepData:
    """A step as it comes out of a file: lists for tuples, texts for enums."""
    data: StepData = json.loads(json.dumps(to_data(step)))
    return data


@given(
    specs(),
    st.integers(0, 4095),
    st.sampled_from([TcMode.TCX, TcMode.CLSACT]),
    st.lists(st.sampled_from(STEPS), max_size=5),
    st.integers(0, 5),
    st.none() | st.integers(0, 7),
    st.booleans(),
)
def test_round_trip(
    spec: GroupSpec,
    index: int,
    tc: TcMode,
    steps: list[Step],
    committed: int,
    pinned: int | None,
    lasting: bool,
) -> None:
    """Whatever was put is got by its name, and is all there is."""
    put = Record(
        spec=spec,
        index=index,
        tc=tc,
        committed=committed,
        pinned=pinned,
        lasting=lasting,
    )
    read = replace(put, steps=[as_read(step) for step in steps])
    put.steps.extend(map(to_data, steps))
    with TemporaryDirectory() as directory:
        journal = Journal(Path(directory) / "run")
        journal.put(put)
        assert journal.get(spec.name) == read
        assert journal.all() == {spec.name: read}
        journal.drop(spec.name)
        assert journal.get(spec.name) is None
        assert journal.all() == {}


@pytest.mark.parametrize(
    "name", ["", ".", "fo1", "a" * 300, "\0", "\ud800", "../groups/fo0", "/etc/passwd"]
)
def test_names_of_no_group(tmp_path: Path, name: str) -> None:
    """Whatever somebody typed for a name, it is no error not to know it."""
    journal = Journal(tmp_path)
    journal.put(record())
    assert journal.get(name) is None


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_step_through_json(step: Step) -> None:
    """A step is the same after a way through JSON, its enums and tuples too."""
    back = from_data(as_read(step))
    assert back == step
    assert repr(back) == repr(step)


def test_every_kind_of_step_is_tried() -> None:
    """The steps above are of all kinds that there are."""
    assert {type(step) for step in STEPS} == set(get_args(Step))


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_concerns(step: Step) -> None:
    """A step on an interface concerns that one; one of the group as a whole none."""
    match step:
        case SetLink() | DropLinkLocal() | MakeClsact() | TakeCarrier() | Seat():
            mine = 7
        case Attach():
            mine = 9
        case MakeVeth() | OpenGroup():
            mine = 0
    found = [ifindex for ifindex in range(1, 100) if concerns(step, ifindex)]
    assert found == ([mine] if mine else [])


@pytest.mark.parametrize(
    "name", ["eth0.97", "a.json", "x.new", ".x", "é", "🦆", "a*b", "a$b"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    """Names with dots, stars and other letters have records of their own."""
    journal = Journal(tmp_path)
    journal.put(record(name))
    journal.put(record("eth0"))
    assert journal.all().keys() == {name, "eth0"}
    journal.drop("eth0")
    assert journal.all() == {name: record(name)}


def test_nothing_yet(tmp_path: Path) -> None:
    """Where no record ever was, there is none, and dropping it is fine."""
    journal = Journal(tmp_path / "never")
    assert journal.all() == {}
    assert journal.get("fo0") is None
    journal.drop("fo0")
    assert not (tmp_path / "never").exists()


def test_a_record_that_goes_meanwhile(tmp_path: Path) -> None:
    """One that is listed, and gone when it is to be read, is none."""
    journal = Journal(tmp_path)
    journal.put(record())
    (tmp_path / "groups" / "fo1.json").symlink_to("gone")
    assert journal.all().keys() == {"fo0"}


def test_half_a_file_is_not_read(tmp_path: Path) -> None:
    """What a killed writer left beside the record is ignored, then overwritten."""
    journal = Journal(tmp_path)
    journal.put(record(index=1))
    (tmp_path / "groups" / "fo0.new").write_text('{"format": 1, "spec": {"na')
    (tmp_path / "groups" / "fo1.new").write_text("")
    assert journal.all() == {"fo0": record(index=1)}
    assert journal.get("fo1") is None
    journal.put(record(index=2))
    assert journal.all() == {"fo0": record(index=2)}


def test_a_writer_that_is_killed_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the last moment of writing a reader sees the old record, whole."""
    journal = Journal(tmp_path)
    journal.put(record(index=1))
    seen = []

    def killed(self: Path, _: object) -> Path:
        seen.append(journal.all())
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            journal.put(record(index=2))
    assert seen == [{"fo0": record(index=1)}]
    assert journal.all() == {"fo0": record(index=1)}


def whole() -> dict[str, Any]:
    """A good record as data."""
    with TemporaryDirectory() as directory:
        Journal(Path(directory)).put(record())
        text = (Path(directory) / "groups" / "fo0.json").read_text()
    data: dict[str, Any] = json.loads(text)
    return data


def test_the_whole_record_is_read(tmp_path: Path) -> None:
    """The data that the tests below damage are good as they are."""
    path = tmp_path / "groups" / "fo0.json"
    path.parent.mkdir()
    path.write_text(json.dumps(whole()))
    assert Journal(tmp_path).get("fo0") == record()


DAMAGE: dict[str, str | bytes] = {
    "empty": "",
    "cut short": json.dumps(whole())[:-9],
    "not JSON": "pyfailover",
    "a list": "[]",
    "nothing in it": "{}",
    "of the format before": json.dumps({**whole(), "format": 1}),
    "without its group": json.dumps({k: v for k, v in whole().items() if k != "spec"}),
    "with a group that is none": json.dumps({**whole(), "spec": 7}),
    "without its pin": json.dumps({k: v for k, v in whole().items() if k != "pinned"}),
    "without its steps": json.dumps({k: v for k, v in whole().items() if k != "steps"}),
    "with an unknown word": json.dumps({**whole(), "tc": "xdp"}),
    "with a group of no slave": json.dumps(
        {**whole(), "spec": {"master": "fo0", "standbys": []}}
    ),
    "no text at all": b"\xff\xfe\0",
}


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE)
def test_damaged_record(tmp_path: Path, text: str | bytes) -> None:
    """A record that is not whole is an error that names it and what to do."""
    path = tmp_path / "groups" / "fo0.json"
    path.parent.mkdir()
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    for read in (Journal(tmp_path).all, lambda: Journal(tmp_path).get("fo0")):
        with pytest.raises(StateError, match="cannot read the record") as damaged:
            read()
        assert damaged.value.message.count(f"'{path}'") == 1
        assert damaged.value.hint is not None
        assert "detach --force" in damaged.value.hint


@pytest.mark.parametrize(
    ("steps", "attached", "created", "kept", "low_mac", "master", "slaves"),
    [
        ((), False, False, 0, None, None, {}),
        (STEPS[:1], False, True, 1, "02::2", None, {}),
        (STEPS[1:2], True, False, 0, None, None, {}),
        (
            (
                STEPS[0],
                OpenGroup(index=0, master=4),
                Seat(index=0, slot=0, ifindex=5, master=4, rule=RxRule.ACTIVE),
                Seat(index=0, slot=1, ifindex=6, master=4, rule=RxRule.ACTIVE),
                Seat(index=0, slot=0, ifindex=7, master=4, rule=RxRule.ACTIVE),
            ),
            True,
            True,
            1,
            "02::2",
            4,
            {0: 7, 1: 6},
        ),
    ],
    ids=["nothing done", "a master made", "a setting changed", "all of it"],
)
def test_what_follows_from_the_steps(
    steps: Sequence[Step],
    attached: bool,
    created: bool,
    kept: int,
    low_mac: str | None,
    master: int | None,
    slaves: dict[int, int],
) -> None:
    """What is where is read from the steps: the last one on a slot counts."""
    found = record(steps=steps)
    assert (found.attached, found.created, found.kept_by_detach) == (
        attached,
        created,
        kept,
    )
    assert (found.low_mac, found.master, found.slaves) == (low_mac, master, slaves)


def test_a_bad_group_is_named_by_its_key(tmp_path: Path) -> None:
    """Of a record whose group has a wrong value the error names key and value."""
    path = tmp_path / "groups" / "fo0.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**whole(), "spec": {**whole()["spec"], "rx": "no"}}))
    with pytest.raises(StateError) as damaged:
        Journal(tmp_path).get("fo0")
    assert damaged.value.message == (
        f"cannot read the record '{path}': 'rx' cannot be the string 'no'"
    )


def test_carrier_taken() -> None:
    """The master's carrier is taken if the step that takes it is recorded."""
    others = [step for step in STEPS if not isinstance(step, TakeCarrier)]
    assert not record(steps=others).carrier_taken
    assert record(steps=STEPS).carrier_taken


OURS = (
    "lock",
    "controller",
    "control.sock",
    "events.jsonl",
    "events.jsonl.1",
    "groups/fo0.json",
    "groups/fo1.new",
)


@pytest.mark.parametrize(
    "foreign", [(), ("note.txt",), ("groups/note.txt",), ("events.jsonl.bak",)], ids=str
)
def test_forget_namespace(tmp_path: Path, foreign: tuple[str, ...]) -> None:
    """All that is kept of a namespace goes, and what is not ours stays."""
    run = tmp_path / "run"
    (run / "groups").mkdir(parents=True)
    for name in OURS + foreign:
        (run / name).touch()
    forget_namespace(run)
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert left == set(foreign)
    assert run.exists() == bool(foreign)
    forget_namespace(run)


def test_what_was_read_is_the_readers_own(tmp_path: Path) -> None:
    """A reader that changes a record, and does not put it, changes it for nobody; one
    that somebody else put meanwhile is read anew."""
    journal = Journal(tmp_path)
    journal.put(record(steps=[STEPS[0]]))
    mine = journal.all()["fo0"]
    mine.steps.append(as_read(STEPS[1]))
    mine.pinned = 1
    for found in (journal.get("fo0"), Journal(tmp_path).all()["fo0"]):
        assert found == record(steps=[STEPS[0]])
    Journal(tmp_path).put(record(steps=[STEPS[1]], pinned=0))
    assert journal.get("fo0") == record(steps=[STEPS[1]], pinned=0)
