# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket: a real server in a thread, good clients and bad ones."""

import asyncio
import errno
import json
import os
import select
import socket
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyfailover import control
from pyfailover.control import Reply, Request, ask, serve, watch
from pyfailover.errors import (
    BuildError,
    ConfigError,
    PyFailoverError,
    StateError,
    UnsupportedError,
)
from pyfailover.lab import eventually

LINE_MAX = 256 * 1024
CLIENTS_MAX = 64
TIMEOUT_S = 30.0


@dataclass
class Server:
    """A controller that does nothing but answer."""

    run: Path
    queues: list[asyncio.Queue[Reply]] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    serving: threading.Event = field(default_factory=threading.Event)
    loop: asyncio.AbstractEventLoop = field(init=False)
    ended: asyncio.Event = field(init=False)
    opened: asyncio.Event = field(init=False)

    async def main(self) -> None:
        """Serve until told to end."""
        self.loop = asyncio.get_running_loop()
        self.ended, self.opened = asyncio.Event(), asyncio.Event()
        async with serve(self.run, self.handle, self.subscribe):
            self.serving.set()
            await self.ended.wait()

    async def handle(self, request: Request) -> Reply:
        """Do what the test asks for."""
        self.asked.append(request)
        match request["do"]:
            case "echo":
                return {"request": request}
            case "config":
                raise ConfigError("bad 'x'", hint="say y")
            case "state":
                raise StateError("not attached")
            case "build":
                raise BuildError("does not compile", log="…", hint="install it")
            case "bug":
                raise ZeroDivisionError("of the controller")
            case "odd":
                return {"reply": object()}
            case "infinite":
                return {"reply": float("inf")}
            case "large":
                return {"reply": "x" * request["size"]}
            case "wait":
                await self.opened.wait()
                return {}
        raise ConfigError(f"cannot {request['do']!r}")

    @contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[Reply]]:
        """A queue for a watcher."""
        queue: asyncio.Queue[Reply] = asyncio.Queue(97)
        self.queues.append(queue)
        try:
            yield queue
        finally:
            self.queues.remove(queue)

    def within(self, call: Callable[[], object]) -> None:
        """Have the server's thread do something, and wait until it did."""

        async def do() -> None:
            call()

        asyncio.run_coroutine_threadsafe(do(), self.loop).result(TIMEOUT_S)

    def tell(self, said: Reply) -> None:
        """Tell all watchers."""

        def put() -> None:
            for queue in self.queues:
                queue.put_nowait(said)

        self.within(put)


@contextmanager
def running(run: Path) -> Iterator[Server]:
    """A server, for the length of a `with`."""
    server = Server(run)
    thread = threading.Thread(target=lambda: asyncio.run(server.main()))
    thread.start()
    try:
        assert server.serving.wait(TIMEOUT_S)
        yield server
    finally:
        with suppress(RuntimeError):  # it ended already
            server.loop.call_soon_threadsafe(server.ended.set)
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server in a directory of this test."""
    with running(tmp_path / "run") as made:
        yield made


@contextmanager
def client(server: Server) -> Iterator[socket.socket]:
    """A client that need not stick to any rule."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.settimeout(TIMEOUT_S)
        made.connect(str(server.run / "control.sock"))
        yield made


def sent(data: bytes, server: Server) -> list[dict[str, Any]]:
    """Send bytes and nothing more; what comes back until the server closes."""
    with client(server) as raw:
        with suppress(BrokenPipeError):
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
        return [json.loads(line) for line in received(raw).splitlines()]


def received(raw: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = bytearray()
    with suppress(ConnectionResetError):
        while chunk := raw.recv(1 << 16):
            found += chunk
    return bytes(found)


def lives(server: Server) -> bool:
    """Whether a good request is answered."""
    answer = ask(server.run, "echo", number=97)
    return answer == {"request": {"do": "echo", "number": 97}}


def test_question_and_answer(server: Server) -> None:
    """What is asked arrives as it was said, and what is answered too."""
    arguments: dict[str, Any] = {
        "text": "é\n🦆",
        "number": 97,
        "none": None,
        "list": [{"a": 0.5}],
    }
    answer = ask(server.run, "echo", **arguments)
    assert answer == {"request": {"do": "echo", **arguments}}


def test_large_answer(server: Server) -> None:
    """An answer may be as long as it must be."""
    assert ask(server.run, "large", size=5 << 20) == {"reply": "x" * (5 << 20)}


@pytest.mark.parametrize(
    ("do", "kind", "message", "hint"),
    [
        ("config", ConfigError, "bad 'x'", "say y"),
        ("state", PyFailoverError, "not attached", None),
        ("build", UnsupportedError, "does not compile", "install it"),
        ("bug", PyFailoverError, "the controller failed: see its log", None),
        ("odd", PyFailoverError, "the controller failed: see its log", None),
        ("infinite", PyFailoverError, "the controller failed: see its log", None),
    ],
)
def test_errors_come_across(
    server: Server,
    do: str,
    kind: type[PyFailoverError],
    message: str,
    hint: str | None,
) -> None:
    """An error of the handler is raised at the client, by its exit code; a bug of it
    costs nobody the server."""
    with pytest.raises(PyFailoverError) as failed:
        ask(server.run, do)
    assert type(failed.value) is kind
    assert (failed.value.message, failed.value.hint) == (message, hint)
    assert lives(server)


def test_a_bug_is_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """What the handler did not mean to raise is in the log with its traceback."""
    with pytest.raises(PyFailoverError):
        ask(server.run, "bug")
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "ZeroDivisionError: of the controller" in caplog.text


GOOD = b'{"do": "echo"}\n'
ECHOED = {"ok": {"request": {"do": "echo"}}}
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Expecting value"),
    "no JSON": (b"status", "Expecting value"),
    "a list": (b"[]", "not an object"),
    "a text": (b'"do"', "not an object"),
    "null": (b"null", "not an object"),
    "no do": (b"{}", "no string 'do'"),
    "do is a number": (b'{"do": 1}', "no string 'do'"),
    "do is null": (b'{"do": null}', "no string 'do'"),
    "no UTF-8": (b'{"do": "\xff"}', "can't decode byte"),
    "UTF-16": ('{"do": "echo"}'.encode("utf-16-le"), "Expecting property name"),
    "NUL": (b"\0", "Expecting value"),
    "deep list": (b'{"do": ' + b"[" * 100_000, "nested too deeply"),
    "deep object": (b'{"do":' * 30_000, "nested too deeply"),
    "NaN": (b'{"do": "echo", "x": NaN}', "NaN is not a number"),
    "infinity": (b'{"do": "echo", "x": -Infinity}', "-Infinity is not a number"),
    "overflow": (b'{"do": "echo", "x": 1e999}', "1e999 is not a number"),
    "many digits": (b'{"do": "echo", "x": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    "two in a line": (b'{"do": "echo"}{"do": "echo"}', "Extra data"),
    "cut short": (b'{"do": "echo"', "delimiter"),
}


@pytest.mark.parametrize(("line", "cause"), BAD.values(), ids=BAD)
def test_bad_line(server: Server, line: bytes, cause: str) -> None:
    """A line that is no request gets an error, and the next one its answer."""
    first, bad, last = sent(GOOD + line + b"\n" + GOOD, server)
    assert first == last == ECHOED
    assert bad["error"]["exit_code"] == 2
    assert bad["error"]["hint"] is None
    assert bad["error"]["message"].startswith("cannot read a request: ")
    assert cause in bad["error"]["message"]


def request_of(size: int) -> bytes:
    """A request whose line has so many bytes, the newline not counted."""
    frame = b'{"do": "echo", "x": "%s"}'
    return frame % (b"x" * (size - len(frame) + 2)) + b"\n"


def test_the_longest_line(server: Server) -> None:
    """A line of 256 KiB is a request."""
    (answer,) = sent(request_of(LINE_MAX), server)
    assert answer["ok"]["request"]["do"] == "echo"


@pytest.mark.parametrize(
    "line",
    [request_of(LINE_MAX + 1), request_of(3 * LINE_MAX), b"x" * 3 * LINE_MAX],
    ids=["by one byte", "by far", "without an end"],
)
def test_too_long(server: Server, line: bytes) -> None:
    """A longer line gets an error, and nothing after it is read."""
    first, bad = sent(GOOD + line + GOOD, server)
    assert first == ECHOED
    assert bad["error"]["message"] == f"a request of more than {LINE_MAX} bytes"
    assert server.asked == [{"do": "echo"}]
    assert lives(server)


def test_too_long_by_ask(server: Server) -> None:
    """Who asks by the rules and too much learns why it is refused."""
    with pytest.raises(ConfigError, match="a request of more than"):
        ask(server.run, "echo", x="x" * 4 * LINE_MAX)


def test_half_a_line(server: Server) -> None:
    """A request whose end never came is not carried out."""
    assert sent(GOOD + GOOD.rstrip(), server) == [ECHOED]
    assert server.asked == [{"do": "echo"}]


def test_in_order(server: Server) -> None:
    """Requests sent in one go are answered one by one, in their order."""
    lines = b"".join(b'{"do": "echo", "n": %d}\n' % n for n in range(997))
    answers = sent(lines, server)
    assert [a["ok"]["request"]["n"] for a in answers] == list(range(997))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=9,
)
DO = st.sampled_from(["echo", "config", "bug", "odd", "watch"]) | JSON
LINES = st.one_of(
    st.binary(),
    JSON.map(lambda data: json.dumps(data).encode()),
    st.builds(
        lambda do, more: json.dumps({**more, "do": do}).encode(),
        DO,
        st.dictionaries(st.text(), JSON),
    ),
)


def test_any_bytes(server: Server) -> None:
    """After whatever bytes the server answers the next client, and each line that it
    answered at all was answered by ok or error."""

    @settings(max_examples=100)
    @given(st.lists(LINES), st.sampled_from([b"\n", b"\r\n", b""]))
    @example([b"\n" * 999], b"")
    @example([b'{"do": "watch"}', b"\xff"], b"\n")
    def try_it(lines: list[bytes], end: bytes) -> None:
        data = b"".join(line + end for line in lines)
        for answer in sent(data, server):
            assert answer.keys() in ({"ok"}, {"error"})
        assert lives(server)

    try_it()


def test_private_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has mode 0600 from the moment that it is there, whatever the umask."""
    modes = []
    bind = socket.socket.bind

    def look(self: socket.socket, address: str) -> None:
        bind(self, address)
        modes.append(stat.S_IMODE(Path(address).stat().st_mode))

    monkeypatch.setattr(socket.socket, "bind", look)
    old = os.umask(0)
    try:
        with running(tmp_path) as server:
            modes.append(stat.S_IMODE((server.run / "control.sock").stat().st_mode))
            assert [path.name for path in server.run.iterdir()] == ["control.sock"]
    finally:
        os.umask(old)
    assert modes == [0o600, 0o600]


def test_the_file_goes_with_the_server(tmp_path: Path) -> None:
    """A server removes its socket at its end, and nobody answers."""
    with running(tmp_path) as server:
        assert lives(server)
    assert list(tmp_path.iterdir()) == []
    assert ask(tmp_path, "echo") is None


def test_only_its_own_file_goes(tmp_path: Path) -> None:
    """A socket that another server put in its place is left alone."""
    path = tmp_path / "control.sock"
    with running(tmp_path):
        path.rename(tmp_path / "aside")
        stale(path)
    assert path.is_socket()


def stale(path: Path) -> None:
    """What a killed server leaves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
        left.listen()


@pytest.mark.parametrize("name", ["control.sock", "control.new"])
def test_stale_socket(tmp_path: Path, name: str) -> None:
    """What a killed server left is nobody that answers, and is replaced."""
    stale(tmp_path / name)
    assert ask(tmp_path, "echo") is None
    with running(tmp_path) as server:
        assert lives(server)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "x" * 150], ids=["no directory", "too long"])
def test_cannot_listen(tmp_path: Path, place: str) -> None:
    """Where no socket can be the server says so, and leaves nothing open."""
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"cannot listen on '.*control.sock': "):
        asyncio.run(Server(tmp_path / place).main())


def test_wrong_peer(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is neither root nor the server's user is told so, and heard no further."""
    monkeypatch.setattr(control, "_peer_uid", lambda _: 4711)
    with pytest.raises(PyFailoverError, match="uid 4711 may not ask") as refused:
        ask(server.run, "echo")
    assert refused.value.hint == "run as root"
    with pytest.raises(PyFailoverError, match="uid 4711 may not ask"):
        watch(server.run)
    assert server.asked == []
    assert server.queues == []
    assert caplog.messages == ["uid 4711 is refused at the control socket"] * 2


@pytest.mark.parametrize("uid", [0, 4711])
def test_right_peer(server: Server, monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """Root is heard, and the server's user if he asks for what reads."""
    monkeypatch.setattr(control, "_peer_uid", lambda _: uid)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    if uid == 0:
        assert lives(server)
        return
    with pytest.raises(PyFailoverError, match="only root may ask to echo"):
        ask(server.run, "echo", number=97)
    assert server.asked == []
    monkeypatch.setattr(control, "READING", ("echo",))
    assert lives(server)


def test_peer_is_read_from_the_socket() -> None:
    """The credentials are those of the process at the other end."""
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert control._peer_uid(one) == os.getuid()


def test_idle_clients_do_not_block(server: Server) -> None:
    """While others say nothing, half a line, or wait for an answer, one is answered."""
    with client(server) as idle, client(server) as half, client(server) as waiting:
        half.sendall(GOOD[:5])
        waiting.sendall(b'{"do": "wait"}\n')
        eventually(lambda: {"do": "wait"} in server.asked)
        assert lives(server)
        half.sendall(GOOD[5:])
        assert json.loads(half.recv(4096)) == ECHOED
        server.within(server.opened.set)
        assert json.loads(waiting.recv(4096)) == {"ok": {}}
        idle.sendall(GOOD)
        assert json.loads(idle.recv(4096)) == ECHOED


def answered(server: Server) -> bool:
    """Whether there is room for a client."""
    with suppress(PyFailoverError):
        return lives(server)
    return False


def test_many_clients(server: Server) -> None:
    """As many clients as are allowed are served at once, the next is told to go, and
    when one leaves there is room again."""
    with ExitStack() as stack:
        clients = [stack.enter_context(client(server)) for _ in range(CLIENTS_MAX)]
        for raw in clients:
            raw.sendall(GOOD)
        for raw in clients:
            assert json.loads(raw.recv(4096)) == ECHOED
        with pytest.raises(PyFailoverError, match=f"has {CLIENTS_MAX} clients"):
            ask(server.run, "echo")
        clients[0].close()
        eventually(lambda: answered(server))


def test_many_at_once(server: Server) -> None:
    """Clients that ask at the same time each get their own answer."""
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda n: ask(server.run, "echo", n=n), range(997))
    assert [a and a["request"]["n"] for a in answers] == list(range(997))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits for nobody."""
    monkeypatch.setattr(control, "_PATIENCE_S", 0.05)


@pytest.mark.usefixtures("impatient")
def test_a_request_that_does_not_end(server: Server) -> None:
    """Who begins a line and does not end it is dropped; who begins none may stay."""
    with client(server) as idle, client(server) as slow:
        slow.sendall(GOOD + GOOD[:1])
        assert json.loads(received(slow)) == ECHOED
        idle.sendall(GOOD)
        assert json.loads(idle.recv(4096)) == ECHOED


@pytest.mark.usefixtures("impatient")
def test_answers_that_nobody_reads(server: Server) -> None:
    """Who asks and asks and never reads is dropped; its further requests are lost."""
    with client(server) as greedy:
        for _ in range(9):
            greedy.sendall(b'{"do": "large", "size": 1000000}\n')
        assert lives(server)
        eventually(lambda: hung_up(greedy))
    assert len(server.asked) < 9


def hung_up(raw: socket.socket) -> bool:
    """Whether the other side is gone."""
    poll = select.poll()
    poll.register(raw, select.POLLHUP)
    return bool(poll.poll(0))


def test_a_client_that_leaves_is_forgotten(server: Server) -> None:
    """Who leaves while its request is carried out leaves nothing broken."""
    with client(server) as raw:
        raw.sendall(b'{"do": "wait"}\n')
        eventually(lambda: server.asked)
    server.within(server.opened.set)
    assert lives(server)


def test_the_end_comes_to_all(tmp_path: Path) -> None:
    """A server that ends waits neither for idle clients nor for its own handler."""
    with running(tmp_path) as server, client(server) as idle, client(server) as waiting:
        waiting.sendall(b'{"do": "wait"}\n')
        eventually(lambda: server.asked)
        server.within(server.ended.set)
        assert received(idle) == received(waiting) == b""


def test_watch(server: Server) -> None:
    """A watcher gets what is told, in order, until it leaves."""
    told = [{"n": n, "text": "é\n"} for n in range(997)]
    watcher, other = watching(server), watching(server)
    for one in told:
        server.tell(one)
    assert list(islice(watcher, len(told))) == told
    watcher.close()
    eventually(lambda: len(server.queues) == 1)
    server.tell({"n": 997})
    assert list(islice(other, len(told) + 1)) == [*told, {"n": 997}]
    other.close()
    eventually(lambda: not server.queues)


def watching(server: Server) -> Generator[dict[str, Any], None, None]:
    """A watcher that the server knows of, before anything is read."""
    known = len(server.queues)
    watcher = watch(server.run)
    assert len(server.queues) == known + 1
    assert isinstance(watcher, Generator)
    return watcher


def test_watching_begins_with_a_reply(server: Server) -> None:
    """First of all a watcher is told that it is one; what is told then it gets."""
    with client(server) as raw, raw.makefile("rb") as lines:
        raw.sendall(b'{"do": "watch"}\n')
        assert json.loads(lines.readline()) == {"ok": {}}
        server.tell({"n": 1})
        assert json.loads(lines.readline()) == {"n": 1}


def test_a_watcher_may_talk(server: Server) -> None:
    """What a watcher says is not answered and breaks nothing."""
    with client(server) as raw, raw.makefile("rb") as lines:
        raw.sendall(b'{"do": "watch"}\n' + GOOD)
        assert json.loads(lines.readline()) == {"ok": {}}
        raw.sendall(b"\xff" * 5 * LINE_MAX)
        server.tell({"n": 1})
        assert json.loads(lines.readline()) == {"n": 1}
    assert server.asked == []


def test_a_watcher_that_leaves_unread(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Who leaves without reading what it was told is nothing to complain of."""
    with client(server) as raw:
        raw.sendall(b'{"do": "watch"}\n')
        eventually(lambda: server.queues)
        server.tell({"n": 1})
        assert raw.recv(1) == b"{"
    eventually(lambda: not server.queues)
    assert lives(server)
    assert caplog.messages == []


def test_the_end_of_watching(tmp_path: Path) -> None:
    """When the server ends its watchers come to an end, without an error."""
    with running(tmp_path) as server:
        watcher = watching(server)
        server.tell({"n": 1})
        server.within(server.ended.set)
        assert list(watcher) == [{"n": 1}]


def test_a_slow_watcher(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A watcher that does not read is dropped, and others miss nothing by it."""
    quick = watching(server)
    with client(server) as slow:
        slow.sendall(b'{"do": "watch"}\n')
        eventually(lambda: len(server.queues) == 2)
        for n in range(97):
            server.tell({"n": n, "text": "x" * 50_000})
            assert next(quick)["n"] == n
        eventually(lambda: len(server.queues) == 1)
        assert len(received(slow)) < 97 * 50_000
    assert caplog.messages == ["a watcher that does not read is dropped"]
    quick.close()


def test_what_cannot_be_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in what is told ends that watching, with an error, and nothing else."""
    watcher = watching(server)
    server.tell({"object": object()})
    with pytest.raises(PyFailoverError, match="the controller failed"):
        next(watcher)
    assert "TypeError" in caplog.text
    assert lives(server)


def test_nobody_to_watch(tmp_path: Path) -> None:
    """Watching wants a controller."""
    with pytest.raises(StateError, match="no controller"):
        watch(tmp_path / "never")


def test_nobody_to_ask(tmp_path: Path) -> None:
    """Without a directory, a socket or a server there is no answer, and no error."""
    assert ask(tmp_path / "never", "echo") is None
    assert ask(tmp_path, "echo") is None
    stale(tmp_path / "control.sock")
    assert ask(tmp_path, "echo") is None


def test_not_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not connect is told to be root."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for tried in (partial(ask, tmp_path, "echo"), partial(watch, tmp_path)):
        with pytest.raises(PyFailoverError, match="Permission denied") as refused:
            tried()
        assert refused.value.hint == "run as root"


@contextmanager
def saying(
    run: Path, said: bytes, *, reads: bool = True, closes: bool = True
) -> Iterator[None]:
    """A server that says the same to its one client whatever that asks."""

    def serve_one() -> None:
        raw, _ = listener.accept()
        with raw:
            asked = raw.recv(4096, 0 if reads else socket.MSG_PEEK)
            assert asked.endswith(b"\n")
            raw.sendall(said)
            if not closes:
                raw.recv(4096)  # until the client leaves

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(run / "control.sock"))
        listener.listen()
        thread = threading.Thread(target=serve_one)
        thread.start()
        yield
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


BROKEN = {
    "nothing": b"",
    "half a line": b'{"ok": {}}',
    "no JSON": b"ok\n",
    "no UTF-8": b"\xff\n",
    "a list": b"[]\n",
    "deep": b"[" * 100_000 + b"\n",
    "neither ok nor error": b"{}\n",
    "ok is no object": b'{"ok": 1}\n',
    "error is no object": b'{"error": "x"}\n',
    "error without a message": b'{"error": {"hint": null, "exit_code": 1}}\n',
    "error with a strange code": (
        b'{"error": {"message": "x", "hint": null, "exit_code": []}}\n'
    ),
    "error with a strange hint": (
        b'{"error": {"message": "x", "hint": 1, "exit_code": 1}}\n'
    ),
}


Client = Callable[[Path], object]
BOTH: dict[str, Client] = {"ask": lambda run: ask(run, "echo"), "watch": watch}


@pytest.mark.parametrize("tried", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN)
def test_broken_answer(tmp_path: Path, tried: Client, said: bytes) -> None:
    """An answer that is none is an error of ours, which says so."""
    with (
        saying(tmp_path, said),
        pytest.raises(PyFailoverError, match=r"^the controller does not answer: "),
    ):
        tried(tmp_path)


@pytest.mark.parametrize("tried", BOTH.values(), ids=BOTH)
def test_killed_before_it_answers(tmp_path: Path, tried: Client) -> None:
    """A controller that is killed with our request unread did not answer."""
    with (
        saying(tmp_path, b"", reads=False),
        pytest.raises(PyFailoverError, match="does not answer: Connection reset"),
    ):
        tried(tmp_path)


@pytest.mark.parametrize("tried", BOTH.values(), ids=BOTH)
def test_no_such_socket_can_be(tmp_path: Path, tried: Client) -> None:
    """A path that is too long for a socket is an error of ours as well."""
    with pytest.raises(PyFailoverError, match="does not answer: AF_UNIX path too long"):
        tried(tmp_path / ("x" * 150))


LISTENS = b'{"ok": {}}\n'  # what a watcher is told first


@pytest.mark.parametrize("reads", [True, False], ids=["ended", "killed"])
def test_a_controller_that_ends(tmp_path: Path, reads: bool) -> None:
    """When the controller ends, or is killed with our request unread, watching comes
    to its end; half a line is not told."""
    with saying(tmp_path, LISTENS + b'{"n": 1}\n{"n": 2', reads=reads):
        assert list(watch(tmp_path)) == [{"n": 1}]


@pytest.mark.parametrize("said", [b"ok\n", b"[]\n", b'{"error": 1}\n'])
def test_broken_news(tmp_path: Path, said: bytes) -> None:
    """What was told before something that is no news is news all the same."""
    with saying(tmp_path, LISTENS + b'{"n": 1}\n' + said):
        watcher = watch(tmp_path)
        assert next(watcher) == {"n": 1}
        with pytest.raises(PyFailoverError, match="does not answer: "):
            next(watcher)


@pytest.mark.parametrize("said", [b"", b'{"ok": '], ids=["nothing", "half a line"])
def test_no_answer_in_time(tmp_path: Path, said: bytes) -> None:
    """A controller that is stopped is not waited for longer than asked."""
    with (
        saying(tmp_path, said, closes=False),
        pytest.raises(PyFailoverError, match="does not answer: timed out"),
    ):
        ask(tmp_path, "echo", timeout_s=0.05)


def test_no_time_to_connect(tmp_path: Path) -> None:
    """A controller whose queue of connections is full is as one that is silent."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        ExitStack() as s,
    ):
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen(0)
        waiting = s.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        waiting.connect(str(tmp_path / "control.sock"))
        with pytest.raises(PyFailoverError, match="does not answer: timed out"):
            ask(tmp_path, "echo", timeout_s=0.05)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, PyFailoverError),
        (2, ConfigError),
        (3, UnsupportedError),
        (97, PyFailoverError),
    ],
)
def test_exit_codes(tmp_path: Path, code: int, kind: type[PyFailoverError]) -> None:
    """The class of an error is that of its exit code, of a later version's too."""
    error = {"message": "x", "hint": "y", "exit_code": code}
    said = json.dumps({"error": error}).encode() + b"\n"
    with saying(tmp_path, said), pytest.raises(PyFailoverError, match="x") as failed:
        ask(tmp_path, "echo")
    assert (type(failed.value), failed.value.hint) == (kind, "y")
