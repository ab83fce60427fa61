# SPDX-License-Identifier: GPL-2.0-or-later
"""`cache build`, `show` and `clear`: what they print, and their exit codes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pyfailover.cli import caching
from pyfailover.datapath import btf, cache
from pyfailover.datapath.image import Image, Map, Program
from pyfailover.errors import BuildError
from pyfailover.place import Roots

Main = Callable[..., tuple[int, str, str]]  # see conftest.py


def compiled(flags: Sequence[str], **_: object) -> Image:
    """Stands for bcc."""
    (groups,) = (flag for flag in flags if flag.startswith("-DFO_MAX_GROUPS="))
    size = int(groups.partition("=")[2])
    return Image(
        maps={"fo_states": Map(2, 4, 16, size, 0)},
        programs={name: Program(3, b"", ()) for name in ("fo_seat", "fo_cas")},
    )


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One without the carrier test, and a compiler that is none; its BTF."""
    types = tmp_path / "vmlinux"
    types.write_bytes(b"types")
    monkeypatch.setattr(btf, "VMLINUX", types)
    monkeypatch.setattr(btf, "lack", lambda: "no BTF")
    monkeypatch.setattr(cache, "build", compiled)
    return types


def built(main: Main, scratch: Roots, *options: str) -> Path:
    """Have a file; where it is."""
    code, out, err = main("cache", "build", *options)
    assert (code, err) == (0, "")
    path, _, said = out.strip().partition(": ")
    assert said == "built"
    assert Path(path).parent == scratch.cache
    return Path(path)


def test_build_builds_once(main: Main, scratch: Roots) -> None:
    """Then it says that there is one."""
    path = built(main, scratch)
    assert main("cache", "build") == (0, f"{path}: fits this kernel already\n", "")
    assert built(main, scratch, "--max-groups=97") != path


def test_build_of_what_the_kernel_cannot(main: Main, scratch: Roots) -> None:
    """An error if it was asked for."""
    code, out, err = main("cache", "build", "--carrier-test")
    assert (code, out) == (3, "")
    assert "this kernel has no BTF" in err
    assert not scratch.cache.exists()


@pytest.mark.parametrize("option", ["--carrier-test", "--no-carrier-test", None])
def test_build_asks_for_the_kind(
    main: Main, monkeypatch: pytest.MonkeyPatch, option: str | None
) -> None:
    """With it if the kernel can, unless told."""
    monkeypatch.setattr(btf, "lack", lambda: None)
    monkeypatch.setattr(btf, "resolve", btf.Resolved)
    asked = []

    def noted(flags: Sequence[str], **options: object) -> Image:
        asked.append("-DFO_CARRIER_TEST" in flags)
        return compiled(flags, **options)

    monkeypatch.setattr(cache, "build", noted)
    assert main("cache", "build", *([option] if option else []))[0] == 0
    assert asked == [option != "--no-carrier-test"]


def test_build_in_an_untrusted_directory(main: Main, scratch: Roots) -> None:
    """Is refused, with the reason."""
    scratch.cache.mkdir()
    scratch.cache.chmod(0o777)
    code, out, err = main("cache", "build")
    assert (code, out) == (1, "")
    assert f"'{scratch.cache}': others may write to it (mode 0777)" in err


def test_build_where_nothing_can_be_written(main: Main, scratch: Roots) -> None:
    """Says what and why."""
    scratch.cache.symlink_to("/proc/none")
    code, out, err = main("cache", "build")
    assert (code, out) == (1, "")
    assert f"'{scratch.cache}': it is no directory" in err


def test_build_that_does_not_compile(
    main: Main, scratch: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is an error as when attaching."""

    def fail(*_: object, **__: object) -> Image:
        raise BuildError("cannot compile the programs: no", log="")

    monkeypatch.setattr(cache, "build", fail)
    code, out, err = main("cache", "build")
    assert (code, out) == (3, "")
    assert "cannot compile the programs: no" in err


def test_show_nothing(main: Main, scratch: Roots) -> None:
    """None fits: exit code 1."""
    assert main("cache", "show") == (1, f"nothing in '{scratch.cache}'\n", "")


def test_show_what_fits(main: Main, scratch: Roots) -> None:
    """Name, fit, groups, programs."""
    path = built(main, scratch, "--max-groups=97")
    code, out, err = main("cache", "show")
    first, second, third = out.splitlines()
    assert (code, err) == (0, "")
    assert first == f"{path.name}: fits this kernel"
    assert second.startswith(" 97 groups, ")
    assert third == " fo_seat, fo_cas"


@pytest.mark.parametrize("what", ["other kernel", "refused"])
def test_show_what_does_not_fit(
    main: Main, scratch: Roots, kernel: Path, what: str
) -> None:
    """Says so; exit code 1."""
    path = built(main, scratch)
    if what == "refused":
        path.chmod(0o666)
        what = "refused: others may write to it (mode 0666)"
    else:
        kernel.write_bytes(b"other types")
    code, out, err = main("cache", "show")
    assert (code, err) == (1, "")
    assert out.splitlines()[0] == f"{path.name}: {what}"


def test_show_json(main: Main, scratch: Roots) -> None:
    """The same for machines, and the key."""
    path = built(main, scratch, "--max-groups=97")
    code, out, _ = main("cache", "show", "--json")
    data = json.loads(out)
    (file,) = data["files"]
    assert (code, data["directory"]) == (0, str(scratch.cache))
    assert file["name"] == path.name
    assert (file["fit"], file["why"]) == ("fits this kernel", "")
    assert (file["max_groups"], file["size"]) == (97, path.stat().st_size)
    assert file["programs"] == ["fo_seat", "fo_cas"]
    assert set(file["key"]) == {"sources", "architecture", "kernel", "flags"}


def test_clear(main: Main, scratch: Roots) -> None:
    """Each file is named; the second time there is none."""
    path = built(main, scratch)
    assert main("cache", "clear") == (0, f"removed {path}\n", "")
    assert main("cache", "clear") == (0, "", "")
    assert not list(scratch.cache.iterdir())


@pytest.mark.parametrize("verb", ["show", "clear"])
def test_what_cannot_be_read_is_told(
    main: Main, scratch: Roots, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """With what would help."""

    def forbidden(_: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "entries" if verb == "show" else "clear", forbidden)
    code, out, err = main("cache", verb)
    verb = "read" if verb == "show" else verb
    assert (code, out) == (1, "")
    assert f"cannot {verb} '{scratch.cache}': Permission denied" in err
    assert "run as root" in err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_ages(seconds: float, text: str) -> None:
    """In the largest unit that is not more than it."""
    assert caching._age(seconds) == text
