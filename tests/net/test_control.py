# SPDX-License-Identifier: GPL-2.0-or-later
"""The socket of a real controller: whatever is said to it, nothing is half done, and
whoever says nothing keeps nobody waiting."""

import json
import os
import random
import signal
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyfailover import asking, control
from pyfailover.config import spec_to
from pyfailover.errors import PyFailoverError
from pyfailover.lab import Lab, Namespace, eventually
from pyfailover.model import RANGES, Policy
from pyfailover.transaction import paths
from tests.support.daemon import Daemon, controller
from tests.support.declared import declare, records
from tests.support.snapshot import Snapshot, assert_same, take
from tests.support.specs import specs
from tests.support.tool import Tool, spec
from tests.support.topology import Duo, duo

fuzz = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
NOBODY = 65534


def run_dir(tool: Tool, ns: Namespace) -> Path:
    """Where the socket is."""
    with ns.enter():
        return paths(tool.roots)[1]


def connect(tool: Tool, ns: Namespace) -> socket.socket:
    """A client of the controller."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(30)
    client.connect(str(run_dir(tool, ns) / "control.sock"))
    return client


def say(tool: Tool, ns: Namespace, raw: bytes) -> list[dict[str, Any]]:
    """Say something and no more; all that is answered to it."""
    with connect(tool, ns) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    return [json.loads(line) for line in answer.splitlines()]


def ask(tool: Tool, ns: Namespace, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request."""
    (answer,) = say(tool, ns, json.dumps(request).encode() + b"\n")
    return answer


@contextmanager
def attached(tool: Tool, pair: Duo) -> Iterator[Daemon]:
    """A controller with a group."""
    tool.create(pair.host, spec())
    pair.address()
    with controller(tool, pair.host) as daemon:
        yield daemon


def is_error(answer: dict[str, Any]) -> bool:
    """Whether a request was refused, with all that a refusal says."""
    if answer.keys() == {"ok"}:
        return False
    assert answer.keys() == {"error"}, answer
    said = answer["error"]
    assert said.keys() == {"message", "hint", "exit_code"}, answer
    assert said["message"]
    assert said["exit_code"] in (1, 2, 3)
    return True


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_no_bytes_and_no_json_disturb_it(pair: Duo, tool: Tool) -> None:
    """Bytes at random, broken lines, objects that are no request: each line gets an
    error, the controller lives and nothing is changed."""
    with attached(tool, pair) as daemon:
        before = take(tool, pair.host)

        @settings(fuzz, max_examples=200)
        @given(
            raw=st.binary(max_size=300)
            | JSON.map(lambda value: json.dumps(value).encode() + b"\n")
            | st.dictionaries(st.sampled_from(["do", "ok", "master"]), JSON).map(
                lambda value: json.dumps(value).encode() + b"\n"
            )
        )
        def check(raw: bytes) -> None:
            assert all(is_error(answer) for answer in say(tool, pair.host, raw))

        check()
        for raw in (
            b"[" * 100_000 + b"\n",
            b'{"do": ' * 20_000 + b"\n",
            b'{"do": "status", "x": ' + b"9" * 5_000 + b"}\n",
            b'{"do": "status", "x": 1e999}\n',
            b'{"do": "status", "x": "' + b"y" * (300 << 10) + b'"}\n',
            b'{"do": "\\ud800"}\n',
            b"\n\n\n",
        ):
            answers = say(tool, pair.host, raw)
            assert answers
            assert all(map(is_error, answers))
        assert daemon.status()["groups"].keys() == {"fo0"}
        assert_same(before, lambda: take(tool, pair.host), where="after all that")
        assert "Traceback" not in daemon.log()


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
FLAGS = st.booleans() | SCALARS
GROUPS = specs().map(spec_to)
ARGUMENTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "attach": {
        "spec": GROUPS
        | JSON
        | st.tuples(GROUPS, st.dictionaries(st.sampled_from(sorted(RANGES)), JSON)).map(
            lambda both: both[0] | both[1]
        ),
        "create": FLAGS,
        "patient": FLAGS,
        "persist": FLAGS,
        "max_groups": st.none() | SCALARS,
        "carrier_test": FLAGS,
    },
    "detach": {"master": SCALARS, "destroy": FLAGS, "persist": FLAGS},
    "switch": {"master": st.just("fo0") | SCALARS, "slave": st.text() | SCALARS},
    "status": {"master": SCALARS},
    "reload": {"master": SCALARS},
    "run": {},
}


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Requests of every kind, about groups and slaves that there are not."""
    return st.one_of(
        [
            st.fixed_dictionaries(found).map(lambda args, do=do: {**args, "do": do})  # type: ignore[misc]
            for do, found in ARGUMENTS.items()
        ]
    )


def test_no_arguments_disturb_it(pair: Duo, tool: Tool) -> None:
    """Arguments at random to all that can be asked for: the answer is an error, and
    nothing whatever is changed, or there was nothing to be done."""
    with attached(tool, pair) as daemon:
        before = settled(tool, pair.host)

        @settings(fuzz, max_examples=200)
        @given(request=requests())
        def check(request: dict[str, Any]) -> None:
            answer = ask(tool, pair.host, request)
            nothing = [{"ok": {"outcome": "unchanged"}}, {"ok": {"change": None}}]
            assert is_error(answer) or answer in nothing
            assert daemon.status()["groups"].keys() == {"fo0"}
            assert records(tool, pair.host) == kept

        kept = records(tool, pair.host)
        check()
        assert_same(before, lambda: settled(tool, pair.host), where="after all that")
        assert "Traceback" not in daemon.log()


class Walk:
    """Requests one after the other that make sense, more or less, where there are
    slaves eth1 to eth4, and groups come and go."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self) -> dict[str, Any]:
        """The next one."""
        kinds = (self._attach, self._attach, self._detach, self._switch)
        return self._random.choice(kinds)()

    def _attach(self) -> dict[str, Any]:
        some, chance = self._random, self._chance
        odd = ["name=eth*", "driver=x", "eth9", "fo0", "fo0-low", "name=\ud800", "lo"]
        slaves = some.sample(["eth1", "eth2", "eth3"], some.randint(1, 2))
        if chance(5):
            slaves.append(some.choice(["eth4", *odd]))
        spec: dict[str, Any] = {
            "master": some.choice(["fo0", "fo0", "fo1", "m0"]),
            "standbys": slaves,
        }
        if chance(2):
            spec["primary"] = slaves.pop(0)
        settings: list[tuple[str, list[Any]]] = [
            ("mac", ["clone", "match"]),
            ("side", ["wire", "stack"]),
            ("tc", ["clsact", "auto"]),
            ("policy", [*Policy, "none"]),
            ("up_delay_ms", [0, 1, -1]),
            ("announce_count", [0, 1, 2]),
        ]
        for key, values in settings:
            if chance(5):
                spec[key] = some.choice(values)
        return {
            "do": "attach",
            "spec": spec,
            "create": spec["master"] != "m0" or chance(4),
            "patient": chance(2),
            "persist": chance(3),
            "max_groups": 63 if chance(20) else None,
            "carrier_test": None,
        }

    def _detach(self) -> dict[str, Any]:
        return {
            "do": "detach",
            "master": self._random.choice(["fo0", "fo1", "m0", "eth1"]),
            "destroy": self._chance(2),
            "persist": self._chance(2),
        }

    def _switch(self) -> dict[str, Any]:
        return {
            "do": "switch",
            "master": self._random.choice(["fo0", "fo1", "m0"]),
            "slave": self._random.choice(["eth1", "eth2", "eth3", "lo", None]),
        }

    def _chance(self, one_of: int) -> bool:
        return self._random.randrange(one_of) == 0


def test_no_request_is_carried_out_by_half(lab: Lab, tool: Tool) -> None:
    """Of a long row of requests each that is refused has changed nothing at all, each
    that is not leaves all that is recorded committed and kept by the controller, and
    after the last one nothing remains but what was there before the first."""
    quad, walk = duo(lab, slaves=4), Walk(997)
    host = quad.host
    lab.veth(host, "m0", quad.far, "m0-far", mtu=1400)
    quad.host.ip("addr add 203.0.113.1/24 dev eth4")
    first = settled(tool, host)
    outcomes = {True: 0, False: 0}
    with controller(tool, host, reconcile=3600) as daemon:
        for number in range(100):
            request = walk.request()
            before = take(tool, host) | files(tool)
            refused = is_error(ask(tool, host, request))
            outcomes[refused] += 1
            if refused:
                assert_same(
                    before,
                    lambda: take(tool, host) | files(tool),
                    where=f"{number}: refused {request}",
                )
            kept = records(tool, host)
            assert all(len(r.steps) == r.committed for r in kept.values())
            shown = daemon.status()["groups"].keys()
            assert shown == {name for name, r in kept.items() if r.attached}
        for name, record in records(tool, host).items():
            word = "destroy" if record.created else "detach"
            tool.command(host, word, name, "--persist")
        assert "Traceback" not in daemon.log()
    assert min(outcomes.values()) > 20, outcomes
    assert_same(first, lambda: settled(tool, host), where="after all that")


def settled(tool: Tool, ns: Namespace) -> Snapshot:
    """What there is but for our books and pins."""
    return {
        key: value
        for key, value in take(tool, ns).items()
        if key.startswith(("link ", "addresses ", "routes ", "qdisc ", "tcx "))
    }


def files(tool: Tool) -> dict[str, object]:
    """The files that declare groups."""
    return {"files": {p.name: p.read_text() for p in tool.roots.etc.rglob("*.toml")}}


def test_socket_is_roots_alone(pair: Duo, tool: Tool) -> None:
    """Nobody but root may connect, by the mode of the socket and its directory."""
    with attached(tool, pair):
        run = run_dir(tool, pair.host)
        mode = (run / "control.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert stat.S_IMODE(run.stat().st_mode) == 0o700


def as_nobody(run: Path) -> str:
    """What another user is told who asks for the status."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "it was answered"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            control.ask(run, "status", timeout_s=10)
        except PyFailoverError as exc:
            said = str(exc)
        finally:
            os.write(there, said.encode())
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


def test_another_user_is_refused(pair: Duo, tool: Tool) -> None:
    """By the kernel, and if somebody opened the socket to all, by the controller."""
    with attached(tool, pair) as daemon:
        run = run_dir(tool, pair.host)
        assert as_nobody(run) == "cannot ask the controller: Permission denied"
        for path in (run, *run.parents[:2]):
            path.chmod(0o755)
        (run / "control.sock").chmod(0o666)
        assert as_nobody(run) == f"uid {NOBODY} may not ask"
        assert f"uid {NOBODY} is refused" in daemon.log()


def test_idle_clients_keep_nobody_waiting(pair: Duo, tool: Tool) -> None:
    """Beside many clients that say nothing, half a line, or read nothing of what they
    watch, a switch is made; one too many is told so at once."""
    with attached(tool, pair) as daemon, ExitStack() as stack:
        clients = [stack.enter_context(connect(tool, pair.host)) for _ in range(63)]
        clients[0].sendall(b'{"do": "watch"}\n')
        clients[1].sendall(b'{"do": "sta')
        # It asks for much, and reads nothing of it.
        clients[2].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        clients[2].sendall(b'{"do": "status"}\n' * 200)
        for slave in ("eth2", "eth1") * 10:
            tool.command(pair.host, "switch", "fo0", slave)
            assert tool.status(pair.host).active == slave
        stack.enter_context(connect(tool, pair.host))
        done = tool.command(pair.host, "switch", "fo0", "eth2", code=1)
        assert "the controller has 64 clients already" in done.stderr
        assert tool.status(pair.host).active == "eth1"
        assert len(daemon.switches()) == 20


def test_client_that_leaves_at_once_has_its_switch(pair: Duo, tool: Tool) -> None:
    """What was asked for is done, also if nobody waits for the answer; a reset takes
    nobody along."""
    with attached(tool, pair) as daemon:
        with connect(tool, pair.host) as client:
            client.sendall(b'{"do": "switch", "master": "fo0", "slave": "eth2"}\n')
            client.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        eventually(lambda: tool.status(pair.host).active == "eth2", what="the switch")
        assert daemon.group()["pinned"] == "eth2"
        assert daemon.running


def test_controller_that_hangs(pair: Duo, tool: Tool) -> None:
    """Who asks one that hangs is told that it does not answer; once it is killed
    commands act by themselves again."""
    with attached(tool, pair) as daemon:
        daemon.signal(signal.SIGSTOP)
        with pytest.raises(PyFailoverError, match="does not answer: timed out") as told:
            control.ask(run_dir(tool, pair.host), "status", timeout_s=0.2)
        assert told.value.hint == "see its log, or restart it"
        daemon.kill()
        with pair.host.enter():
            assert asking.status(tool.roots) is None
        done = tool.command(pair.host, "switch", "fo0", "eth2")
        assert "warning: no controller" in done.stderr
        tool.command(pair.host, "detach", "fo0")
    assert tool.status(pair.host).health == "idle"


def test_socket_of_a_dead_controller_is_replaced(pair: Duo, tool: Tool) -> None:
    """What a killed one left keeps neither a command nor the next one waiting; one
    that ended in order leaves nothing."""
    declare(tool, pair.host)
    path = run_dir(tool, pair.host) / "control.sock"
    with controller(tool, pair.host) as daemon:
        daemon.kill()
        assert path.is_socket()
        tool.command(pair.host, "switch", "fo0", "eth2")
    with controller(tool, pair.host) as daemon:
        assert daemon.group()["pinned"] == "eth2"
        assert daemon.stop() == 0
        assert not path.exists()
