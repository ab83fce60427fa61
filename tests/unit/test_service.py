# SPDX-License-Identifier: GPL-2.0-or-later
"""What a service manager hears, over a real datagram socket."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from pyfailover.service import Service


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[socket.socket, Service]]:
    """A service manager's socket, and the service that it started."""
    address = f"@{uuid4()}" if request.param == "abstract" else f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address.replace("@", "\0", 1))
        heard.settimeout(10)
        yield heard, Service({"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("tell", "pattern"),
    [
        (Service.ready, r"READY=1"),
        (Service.reloading, r"RELOADING=1\nMONOTONIC_USEC=[1-9]\d*"),
        (Service.stopping, r"STOPPING=1"),
        (Service.alive, r"WATCHDOG=1"),
        (lambda service: service.status("2 groups, é"), r"STATUS=2 groups, é"),
        (lambda service: service.status("a\nREADY=1\n"), r"STATUS=a READY=1"),
        (lambda service: service.status("\ud800"), r"STATUS=\?"),
    ],
)
def test_what_is_heard(
    manager: tuple[socket.socket, Service],
    tell: Callable[[Service], None],
    pattern: str,
) -> None:
    """Each call is one datagram of sd_notify(3), and a status stays one line."""
    heard, service = manager
    tell(service)
    assert re.fullmatch(pattern, heard.recv(4096).decode())


def test_the_time_of_a_reload_is_the_monotonic_clock(
    manager: tuple[socket.socket, Service],
) -> None:
    """Reloads are told apart by CLOCK_MONOTONIC in microseconds."""
    heard, service = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    service.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    told = int(heard.recv(4096).rpartition(b"=")[2])
    assert before // 1000 <= told <= after // 1000


def tell_all(service: Service) -> None:
    """Call everything."""
    service.ready()
    service.reloading()
    service.status("x")
    service.alive()
    service.stopping()


def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a service manager no socket is even made."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket, "socket", None)
    for service in (Service(), Service({}), Service({"NOTIFY_SOCKET": "vsock:2:1"})):
        tell_all(service)
        assert service.watchdog_s is None


def test_a_manager_that_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A datagram that cannot be sent is worth a debug line, not an error."""
    caplog.set_level("DEBUG")
    tell_all(Service({"NOTIFY_SOCKET": f"{tmp_path}/gone"}))
    tell_all(Service({"NOTIFY_SOCKET": f"/{'x' * 200}"}))
    assert [record.levelname for record in caplog.records] == ["DEBUG"] * 10


def test_a_manager_that_does_not_read(tmp_path: Path) -> None:
    """A full queue does not hold the caller up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"{tmp_path}/notify")
        service = Service({"NOTIFY_SOCKET": f"{tmp_path}/notify"})
        limit = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
        for _ in range(limit + 97):
            service.alive()
        heard.setblocking(False)
        assert heard.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "1"}, 5e-7),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog(environ: dict[str, str], watchdog_s: float | None) -> None:
    """The watchdog is fed twice in its time, if it watches this very process."""
    assert Service(environ).watchdog_s == watchdog_s
