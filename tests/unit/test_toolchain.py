# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel headers on made-up trees, and what a failed compilation is told as."""

import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pyfailover.datapath import build, toolchain
from pyfailover.datapath.image import Image, Map
from pyfailover.datapath.toolchain import bpf_dir, find_headers, merge_headers
from pyfailover.errors import BuildError, UnsupportedError

RUNNING = "6.18.0-1-amd64"
CONFIG = "include/generated/autoconf.h"


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Stands for /lib/modules."""
    made = tmp_path / "modules"
    made.mkdir()
    return made


def grow(directory: Path, *files: str) -> Path:
    """Make files, each with its own path in it."""
    for name in files:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return directory


def tree(modules: Path, release: str) -> Path:
    """Headers of a release, all in one."""
    return grow(modules / release / "build", CONFIG)


# --- find_headers ---------------------------------------------------------


def test_own_headers_come_first(modules: Path) -> None:
    """The running kernel's headers are taken, newer ones or not."""
    own = tree(modules, RUNNING)
    tree(modules, "7.1.0-1-amd64")
    assert find_headers(RUNNING, modules) == (own, own)


@pytest.mark.parametrize(
    ("others", "newest"),
    [
        (["6.1.0-44-amd64"], "6.1.0-44-amd64"),
        (["6.1.0-44-amd64", "6.12.3-1-amd64", "5.10.0-1-amd64"], "6.12.3-1-amd64"),
        (["6.1.0-9-amd64", "6.1.0-44-amd64", "6.1.0-10-amd64"], "6.1.0-44-amd64"),
        (["6.9.0-1-amd64", "6.10.0-1-amd64"], "6.10.0-1-amd64"),
    ],
)
def test_newest_of_the_others(
    modules: Path, others: Sequence[str], newest: str
) -> None:
    """Without headers of its own the kernel gets the newest, by number."""
    (modules / RUNNING).mkdir()
    for release in others:
        tree(modules, release)
    found = modules / newest / "build"
    assert find_headers(RUNNING, modules) == (found, found)


def test_a_tree_without_its_configuration_is_none(modules: Path) -> None:
    """Headers that were never prepared, or whose target is gone, are passed over."""
    grow(modules / RUNNING / "build", "include/linux/types.h")
    dangling = modules / "7.1.0-1-amd64"
    dangling.mkdir()
    (dangling / "build").symlink_to("/nowhere")
    good = tree(modules, "6.1.0-44-amd64")
    assert find_headers(RUNNING, modules) == (good, good)


def test_links_are_followed(modules: Path, tmp_path: Path) -> None:
    """Debian's two links lead to the tree of the flavour and the common one."""
    flavour = grow(tmp_path / "linux-headers-amd64", CONFIG)
    common = grow(tmp_path / "linux-headers-common", "include/linux/types.h")
    (modules / RUNNING).mkdir()
    (modules / RUNNING / "build").symlink_to(flavour)
    (modules / RUNNING / "source").symlink_to(common)
    assert find_headers(RUNNING, modules) == (flavour, common)


@pytest.mark.parametrize("there", [True, False])
def test_no_headers(modules: Path, there: bool) -> None:
    """No headers at all is said with the command that installs them, and a code of
    its own."""
    where = modules if there else modules / "nowhere"
    with pytest.raises(UnsupportedError, match="no kernel headers") as missing:
        find_headers(RUNNING, where)
    assert missing.value.hint is not None
    assert "apt install linux-headers-" in missing.value.hint
    assert missing.value.exit_code == 3


# --- merge_headers --------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86"), ("aarch64", "arm64"), ("riscv64", "riscv64")],
)
def test_split_trees_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, arch: str
) -> None:
    """One tree has what both have; where both have it, the flavour's holds."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    include = f"arch/{arch}/include"
    flavour = grow(tmp_path / "a", CONFIG, f"{include}/generated/asm.h")
    common = grow(
        tmp_path / "b",
        "include/linux/types.h",
        "include/generated/older.h",
        f"{include}/asm/page.h",
        f"{include}/uapi/asm/types.h",
        "arch/other/include/asm/page.h",
        "Makefile",
    )
    merged = tmp_path / "merged"
    merge_headers(flavour, common, merged)
    assert {str(path.relative_to(merged)) for path in files(merged)} == {
        CONFIG,
        "include/linux/types.h",
        f"{include}/generated/asm.h",
        f"{include}/asm/page.h",
        f"{include}/uapi/asm/types.h",
    }
    for path in files(merged):
        assert path.read_text() == str(path.relative_to(merged))


def files(directory: Path) -> Iterator[Path]:
    """All files below a directory, through links."""
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from files(entry)
        else:
            yield entry


def test_one_tree_is_merged_with_itself(tmp_path: Path) -> None:
    """A tree that has all in one comes out as it is."""
    whole = grow(tmp_path / "a", CONFIG, "include/linux/types.h")
    merge_headers(whole, whole, tmp_path / "merged")
    assert (tmp_path / "merged" / CONFIG).read_text() == CONFIG
    assert (tmp_path / "merged/include/linux/types.h").is_file()


# --- bpf_dir --------------------------------------------------------------


def test_bpf_dir() -> None:
    """The sources are found, with all that they include."""
    assert {"failover_tc.c", "failover.h", "maps.h", "packet.h"} <= {
        path.name for path in bpf_dir().iterdir()
    }


def test_packaged_sources_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package has its sources inside; a checkout has them beside."""
    module = grow(tmp_path, "pyfailover/datapath/toolchain.py", "bpf/a.c")
    monkeypatch.setattr(
        toolchain, "__file__", str(module / "pyfailover/datapath/toolchain.py")
    )
    assert bpf_dir() == tmp_path / "bpf"
    grow(tmp_path, "pyfailover/bpf/a.c")
    assert bpf_dir() == tmp_path / "pyfailover" / "bpf"


# --- build ----------------------------------------------------------------

CHILD = 'Traceback (most recent call last):\n  File "build.py", line 1, in <module>\n'
LOGS: Mapping[str, tuple[str, Sequence[str], str]] = {
    "bcc is missing": (
        f"{CHILD}    from bcc import BPF\nModuleNotFoundError: No module named 'bcc'\n",
        ["the Python module bcc is missing"],
        "apt install python3-bpfcc",
    ),
    "the compiler's errors": (
        "In file included from bpf/failover_tc.c:19:\n"
        "bpf/maps.h:12:1: error: unknown type name 'BPF_ARRAY'\n"
        "BPF_ARRAY(fo_ports);\n^\n"
        "bpf/failover_tc.c:31:2: error: expected ';'\n2 errors generated.\n"
        f"{CHILD}Exception: Failed to compile BPF module <text>\n",
        [
            "bpf/maps.h:12:1: error: unknown type name 'BPF_ARRAY'",
            "bpf/failover_tc.c:31:2: error: expected ';'",
            "lines omitted",
        ],
        "--debug",
    ),
    "many errors": (
        "".join(f"a.c:{n}:1: error: number {n}\n" for n in range(1, 98)),
        ["number 1 ", "number 2 ", "number 3 ", "(94 lines omitted)"],
        "--debug",
    ),
    "anything else": (
        f"{CHILD}OSError: [Errno 28] No space left on device\n",
        ["No space left on device"],
        "--debug",
    ),
    "nothing": ("", ["cannot compile the programs"], "--debug"),
}


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the compiling process does; `log` and `error` are to be set."""
    told: dict[str, Any] = {"log": "", "code": 1, "error": None, "image": b""}

    def run(argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        told.update(argv=argv, options=options)
        if told["error"]:
            raise told["error"]
        log = told["log"].encode()
        return subprocess.CompletedProcess(argv, told["code"], told["image"], log)

    monkeypatch.setattr(build, "find_headers", lambda _: (tmp_path, tmp_path))
    monkeypatch.setattr(build, "merge_headers", lambda *_: None)
    monkeypatch.setattr(subprocess, "run", run)
    return told


@pytest.mark.parametrize(("log", "parts", "hint"), LOGS.values(), ids=LOGS)
def test_build_error(
    child: dict[str, Any], tmp_path: Path, log: str, parts: Sequence[str], hint: str
) -> None:
    """Of what the compiling process said, one line tells what is wrong."""
    child["log"] = log
    with pytest.raises(BuildError) as failed:
        build.build(["-DA=1"], lock_fd=0, scratch=tmp_path / "headers")
    assert [part for part in parts if part not in failed.value.message] == []
    assert failed.value.message.startswith("cannot compile the programs: ")
    assert "\n" not in failed.value.message
    assert failed.value.log == log
    assert hint in (failed.value.hint or "")
    assert failed.value.exit_code == 3


def test_build_that_never_ends(child: dict[str, Any], tmp_path: Path) -> None:
    """A compiler that hangs is a failed build, not a traceback."""
    child["error"] = subprocess.TimeoutExpired("python", 300)
    with pytest.raises(BuildError):
        build.build(["-DA=1"], lock_fd=0, scratch=tmp_path / "headers")


def test_the_compiling_process(child: dict[str, Any], tmp_path: Path) -> None:
    """It is this interpreter with the flags, and its output is the image; it holds
    the lock, and cannot outlast all patience."""
    image = Image(maps={"a": Map(1, 2, 3, 4, 5)}, programs={})
    child.update(code=0, image=image.to_bytes())
    flags = ["-DA=1", "-DB=2"]
    assert build.build(flags, lock_fd=7, scratch=tmp_path / "headers") == image
    python, *args = child["argv"]
    assert python == sys.executable
    assert args == ["-m", "pyfailover.datapath.build", *flags]
    assert child["options"]["pass_fds"] == (7,)
    assert child["options"]["timeout"] > 90
    assert "BCC_KERNEL_SOURCE" in child["options"]["env"]
