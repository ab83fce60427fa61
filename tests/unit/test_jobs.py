# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs on the locked namespace: in order, one at a time, and none spoils the next.

The lock is a fake; the loop, the queue and the thread are real.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest

from pyfailover import jobs as jobs_module
from pyfailover.errors import PyFailoverError, RefusedError, StateError
from pyfailover.jobs import Job, Jobs, Records
from pyfailover.journal import Record
from pyfailover.model import GroupSpec, TcMode
from pyfailover.place import Roots
from pyfailover.transaction import Namespace


def record(name: str) -> Record:
    """A record of a group."""
    spec = GroupSpec(name=name, primary="eth1", standbys=())
    return Record(spec=spec, index=0, tc=TcMode.TCX)


class FakeNamespace:
    """A locked namespace; its own journal."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self.journal = self
        self._records = records

    def get(self, name: str) -> Record | None:
        """The record of a group, or None."""
        return self._records.get(name)

    def all(self) -> Mapping[str, Record]:
        """Every record by group name."""
        return self._records


@dataclass
class Place:
    """What happens to the lock, and what is on disk."""

    records: dict[str, Record] = field(
        default_factory=lambda: {name: record(name) for name in ("fo0", "fo1")}
    )
    held: list[int] = field(default_factory=list)  # threads that had the lock
    holders: int = 0
    refuses: PyFailoverError | None = None
    adopted: list[tuple[Records, bool]] = field(default_factory=list)

    @contextmanager
    def locked(self, _: Roots) -> Iterator[FakeNamespace]:
        """Hold the lock, which nobody else may then."""
        if self.refuses is not None:
            raise self.refuses
        self.holders += 1
        assert self.holders == 1
        self.held.append(threading.get_ident())
        try:
            yield FakeNamespace(self.records)
        finally:
            self.holders -= 1

    def adopt(self, records: Records, complete: bool) -> None:
        """Note what is to be taken over; the event loop does that."""
        asyncio.get_running_loop()
        self.adopted.append((records, complete))


Scene = Callable[[Jobs], Awaitable[None]]
Play = Callable[[Scene], None]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where jobs are done."""
    made = Place()
    monkeypatch.setattr(jobs_module, "locked_namespace", made.locked)
    return made


@pytest.fixture
def play(place: Place) -> Play:
    """Let a test act while jobs are done, in an event loop; whatever hangs fails."""

    async def act(scene: Scene) -> None:
        jobs = Jobs(Roots(), place.adopt)
        async with asyncio.timeout(30):
            worker = asyncio.create_task(jobs.work())
            await scene(jobs)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    return lambda scene: asyncio.run(act(scene))


def says(value: object, *, after: Callable[[], object] = lambda: None) -> Job[Any]:
    """A job that comes to a value; an error is raised."""

    def job(_: Namespace) -> object:
        after()
        if isinstance(value, Exception):
            raise value
        return value

    return job


async def settled(jobs: Jobs) -> None:
    """Until all that was started, on whatever group, has come to its end."""
    while jobs._under_way:
        await asyncio.gather(*jobs._under_way.values())


# --- having something done ------------------------------------------------


@pytest.mark.parametrize(
    ("names", "known", "complete"),
    [
        (["fo0"], ["fo0"], False),
        (["fo1", "fo0"], ["fo1", "fo0"], False),
        (["fo0", "fo9"], ["fo0", "fo9"], False),
        ([], ["fo0", "fo1"], True),
    ],
)
def test_do(
    place: Place, play: Play, names: list[str], known: list[str], complete: bool
) -> None:
    """A job's result goes back, and the records of its groups as they are then; of all
    groups if it names none. One that there is not (any more) has none."""

    async def scene(jobs: Jobs) -> None:
        assert await jobs.do(says("done"), *names) == "done"

    play(scene)
    assert place.adopted == [({n: place.records.get(n) for n in known}, complete)]


def test_what_a_job_leaves_is_adopted(place: Place, play: Play) -> None:
    """The records are those after the job, not those before."""

    async def scene(jobs: Jobs) -> None:
        await jobs.do(says(None, after=lambda: place.records.pop("fo0")), "fo0")

    play(scene)
    assert place.adopted == [({"fo0": None}, False)]


def test_read(place: Place, play: Play) -> None:
    """Of what only reads nothing is adopted."""

    async def scene(jobs: Jobs) -> None:
        assert await jobs.read(says(97)) == 97

    play(scene)
    assert place.adopted == []
    assert len(place.held) == 1


def test_jobs_have_the_namespace(play: Play) -> None:
    """A job is handed the namespace that is locked for it."""

    async def scene(jobs: Jobs) -> None:
        found = await jobs.read(lambda namespace: namespace)
        assert isinstance(cast(object, found), FakeNamespace)

    play(scene)


def test_the_loop_does_not_wait(place: Place, play: Play) -> None:
    """While a job waits the event loop goes on; it is another thread that waits."""
    go = threading.Event()

    async def scene(jobs: Jobs) -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def wait() -> None:
            loop.call_soon_threadsafe(begun.set)
            go.wait(30)

        waits = asyncio.create_task(jobs.do(says("done", after=wait)))
        await begun.wait()
        assert not waits.done()
        go.set()
        assert await waits == "done"

    play(scene)
    assert threading.get_ident() not in place.held


def test_one_after_the_other(place: Place, play: Play) -> None:
    """Jobs are done in the order in which they were asked for, never two at once."""
    order: list[int] = []

    async def scene(jobs: Jobs) -> None:
        many = (jobs.do(says(n, after=partial(order.append, n))) for n in range(23))
        assert await asyncio.gather(*many) == list(range(23))

    play(scene)
    assert order == list(range(23))
    assert len(place.held) == 23


@pytest.mark.parametrize(
    "error", [RefusedError("it is in the way"), ZeroDivisionError("a bug")]
)
def test_failing_job(place: Place, play: Play, error: Exception) -> None:
    """Whoever waits for a job that fails has its error, nothing is adopted, and the
    next one is done."""

    async def scene(jobs: Jobs) -> None:
        with pytest.raises(type(error)) as caught:
            await jobs.do(says(error), "fo0")
        assert caught.value is error
        assert place.adopted == []
        assert await jobs.do(says("next")) == "next"

    play(scene)


def test_namespace_that_cannot_be_locked(place: Place, play: Play) -> None:
    """If somebody else has the lock for too long, that is the error; later it goes."""

    async def scene(jobs: Jobs) -> None:
        place.refuses = StateError("cannot change attachments: process 97 is doing so")
        with pytest.raises(StateError, match="process 97"):
            await jobs.do(says("done"))
        place.refuses = None
        assert await jobs.do(says("done")) == "done"

    play(scene)


def test_who_waits_may_leave(place: Place, play: Play) -> None:
    """A job whose asker left is done, and so is the next."""
    go = threading.Event()
    done: list[str] = []

    def note(what: str) -> None:
        go.wait(30)
        done.append(what)

    async def scene(jobs: Jobs) -> None:
        for value in ("x", StateError("no")):
            job = says(value, after=partial(note, str(value)))
            leaves = asyncio.create_task(jobs.do(job, "fo0"))
            await asyncio.sleep(0)
            leaves.cancel()
        go.set()
        assert await jobs.do(says("next")) == "next"

    play(scene)
    assert done == ["x", "no"]


# --- starting something ---------------------------------------------------


def troubles(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Group and error of each trouble in the log."""
    told = [r for r in caplog.records if r.getMessage() == "trouble"]
    assert {r.levelno for r in told} <= {logging.ERROR}
    fields = [vars(record)["fields"] for record in told]
    return [(each["master"], str(each["error"])) for each in fields]


def test_start(place: Place, play: Play) -> None:
    """What is started is done some time, adopted, and then its result is used."""
    found: list[object] = []

    async def scene(jobs: Jobs) -> None:
        jobs.start(
            "mend", "fo0", says("mended"), lambda done: found.append((done, adopted()))
        )
        assert found == []
        await settled(jobs)

    def adopted() -> int:
        return len(place.adopted)

    play(scene)
    assert found == [("mended", 1)]
    assert place.adopted == [({"fo0": place.records["fo0"]}, False)]


def test_the_same_is_not_queued_twice(play: Play) -> None:
    """While something is under way for a group it is not begun beside that, but once
    more after it, as it was asked for last; something else is, and the same for
    another group."""
    go = threading.Event()
    done: list[str] = []

    def note(what: str) -> None:
        go.wait(30)
        done.append(what)

    async def scene(jobs: Jobs) -> None:
        for number, (what, name) in enumerate(
            [
                ("mend", "fo0"),
                ("mend", "fo0"),
                ("carrier", "fo0"),
                ("mend", "fo1"),
                ("mend", "fo0"),
            ]
        ):
            job = says(None, after=partial(note, f"{what} {name} {number}"))
            jobs.start(what, name, job)
            await asyncio.sleep(0)
        go.set()
        await settled(jobs)

    play(scene)
    assert done == ["mend fo0 0", "carrier fo0 2", "mend fo1 3", "mend fo0 4"]


def test_the_same_later(play: Play) -> None:
    """What came to its end is done once more if it is asked for once more."""
    done: list[int] = []

    async def scene(jobs: Jobs) -> None:
        for number in range(3):
            jobs.start("mend", "fo0", says(number), done.append)
            await settled(jobs)

    play(scene)
    assert done == [0, 1, 2]


@pytest.mark.parametrize(
    "error", [RefusedError("it is in the way"), ZeroDivisionError("a bug")]
)
def test_once_more_after_a_failure(play: Play, error: Exception) -> None:
    """That it failed is no reason not to do once more what was asked for meanwhile."""
    done: list[str] = []

    async def scene(jobs: Jobs) -> None:
        jobs.start("mend", "fo0", says(error))
        jobs.start("mend", "fo0", says("mended"), done.append)
        await settled(jobs)
        assert jobs.troubles == {}

    play(scene)
    assert done == ["mended"]


def test_trouble_is_told_once(
    place: Place, play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that fails is trouble of its group, told once however often it fails; the
    next job is done all the same."""
    used: list[object] = []

    async def scene(jobs: Jobs) -> None:
        for _ in range(3):
            error = RefusedError("'eth2' has an address", hint="away with it")
            jobs.start("mend", "fo0", says(error), used.append)
            await settled(jobs)
        assert [(n, str(e)) for n, e in jobs.troubles.items()] == [
            ("fo0", "'eth2' has an address")
        ]
        jobs.start("mend", "fo1", says("mended"), used.append)
        await settled(jobs)

    play(scene)
    assert troubles(caplog) == [("fo0", "'eth2' has an address")]
    assert used == ["mended"]
    (record_,) = caplog.records
    assert vars(record_)["fields"]["hint"] == "away with it"


def test_other_trouble_is_told(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """Another trouble, or the same once it was over or of another group, is told."""

    async def scene(jobs: Jobs) -> None:
        for name, value in [
            ("fo0", StateError("one")),
            ("fo1", StateError("one")),
            ("fo0", StateError("two")),
            ("fo0", "all is well"),
            ("fo0", StateError("two")),
        ]:
            jobs.start("mend", name, says(value))
            await settled(jobs)

    play(scene)
    assert troubles(caplog) == [
        ("fo0", "one"),
        ("fo1", "one"),
        ("fo0", "two"),
        ("fo0", "two"),
    ]


def test_success_ends_the_trouble(play: Play) -> None:
    """A group whose work goes well has no trouble with it any more, whatever the work
    was about; another keeps its own."""

    async def scene(jobs: Jobs) -> None:
        for name in ("fo0", "fo1"):
            jobs.start("mend [7]", name, says(StateError("it was so")))
        await settled(jobs)
        assert jobs.troubles.keys() == {"fo0", "fo1"}
        jobs.start("mend [7, 8]", "fo0", says("mended"))
        await settled(jobs)
        assert list(jobs.troubles) == ["fo1"]

    play(scene)


def test_other_work_that_goes_well(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """That something else goes well ends no trouble, nor is that told again then."""

    async def scene(jobs: Jobs) -> None:
        for value in (StateError("no luck"), "taken", StateError("no luck")):
            what = "carrier" if value == "taken" else "mend"
            jobs.start(what, "fo0", says(value))
            await settled(jobs)
            assert str(jobs.troubles["fo0"]) == "no luck"

    play(scene)
    assert troubles(caplog) == [("fo0", "no luck")]


def test_trouble_that_is_not_of_work(play: Play) -> None:
    """What is wrong with a group's file is so until it is attached, by default."""

    async def scene(jobs: Jobs) -> None:
        jobs.trouble("fo0", StateError("its slave is lo"))
        jobs.start("mend", "fo0", says("mended"))
        await settled(jobs)
        assert str(jobs.troubles["fo0"]) == "its slave is lo"
        jobs.start("attach", "fo0", says("attached"))
        await settled(jobs)
        assert jobs.troubles == {}

    play(scene)


def test_work_that_nobody_wants(play: Play) -> None:
    """Of work that is not wanted any more there is no trouble; of other work there
    is."""

    async def scene(jobs: Jobs) -> None:
        for what, name in [("mend", "fo0"), ("attach", "fo0"), ("attach", "fo1")]:
            jobs.trouble(name, StateError(f"cannot {what}"), what)
        jobs.forget("fo0", "attach")
        found = {name: str(exc) for name, exc in jobs.troubles.items()}
        assert found == {"fo0": "cannot mend", "fo1": "cannot attach"}

    play(scene)


def test_group_that_is_no_more(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """Who is forgotten has no trouble of any kind, and is told of anew if it comes
    back; another keeps its own."""

    async def scene(jobs: Jobs) -> None:
        for what, name in [("mend", "fo0"), ("attach", "fo0"), ("mend", "fo1")]:
            jobs.trouble(name, StateError(f"cannot {what}"), what)
        jobs.forget("fo0")
        jobs.forget("fo9")
        assert list(jobs.troubles) == ["fo1"]
        jobs.trouble("fo0", StateError("cannot mend"), "mend")

    play(scene)
    assert [name for name, _ in troubles(caplog)] == ["fo0", "fo0", "fo1", "fo0"]


@pytest.mark.parametrize("where", ["job", "then"])
def test_bug(play: Play, caplog: pytest.LogCaptureFixture, where: str) -> None:
    """A bug in one group's work is logged with its traceback, and is not the others',
    nor the end of that group's."""

    def fail(_: object) -> None:
        raise ZeroDivisionError("of ours")

    async def scene(jobs: Jobs) -> None:
        if where == "job":
            jobs.start("mend", "fo0", fail)
        else:
            jobs.start("mend", "fo0", says("mended"), fail)
        await settled(jobs)
        for name in ("fo0", "fo1"):
            done: list[object] = []
            jobs.start("mend", name, says(name), done.append)
            await settled(jobs)
            assert done == [name]

    play(scene)
    (record_,) = caplog.records
    assert record_.levelno == logging.ERROR
    assert record_.getMessage() == "work on 'fo0' failed: mend"
    assert record_.exc_info is not None
    assert "of ours" in str(record_.exc_info[1])


def test_what_has_not_begun_is_dropped(place: Place, play: Play) -> None:
    """At the end only the work that is under way is waited for; who waits for other
    work is cancelled, and what is asked for afterwards is done."""
    begun, go_on = threading.Event(), threading.Event()

    def first(_: Namespace) -> str:
        begun.set()
        assert go_on.wait(30)
        return "done"

    async def scene(jobs: Jobs) -> None:
        running = asyncio.create_task(jobs.do(first))
        await asyncio.to_thread(begun.wait, 30)
        waiting = asyncio.create_task(jobs.do(says("never")))
        await asyncio.sleep(0)
        jobs.start("mend", "fo0", says("never"))
        await asyncio.sleep(0)
        jobs.drop()
        go_on.set()
        assert await running == "done"
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert await jobs.do(says("last")) == "last"

    play(scene)
    assert len(place.held) == 2
