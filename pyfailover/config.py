# SPDX-License-Identifier: GPL-2.0-or-later
"""Groups as data: TOML files and mappings to the model, and back.

The secret is how a group is spelled: its keys and words come from the fields of
GroupSpec, so that a new field is a new key. A file counts only if nobody but
root or ourselves can have written it. Knows neither netlink nor BPF.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import quote

from pyfailover.errors import ConfigError, PyFailoverError
from pyfailover.model import RANGES, GroupSpec

_MAX_BYTES = 1 << 20
_SHOWN = 60  # characters of a text that is not ours, in a message
_MASTER = "master"
_ONE_GROUP = "an interface is master or slave in one group only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A lasting group: what a file declares."""

    spec: GroupSpec
    create: bool  # make the master, a veth pair
    netns: str | None  # name of its namespace; None: the first one
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The groups of a directory, and what is wrong with the files left out."""

    declared: tuple[Declared, ...]
    errors: tuple[ConfigError, ...]


def _kinds(cls: type) -> dict[str, Any]:
    """Types of a dataclass's fields, without the None of those that can be it."""
    return {
        name: next(each for each in get_args(hint) if each is not NoneType)
        if isinstance(hint, UnionType)
        else hint
        for name, hint in get_type_hints(cls).items()
    }


# The keys of a group, and the fields that they stand for.
_FIELDS = {
    _MASTER if each.name == "name" else each.name: each.name
    for each in fields(GroupSpec)
}
_SPEC_KEYS = {key: _kinds(GroupSpec)[name] for key, name in _FIELDS.items()}
_OWN_KEYS = {key: _kinds(Declared)[key] for key in ("create", "netns")}


def spec_from(data: Mapping[str, object], where: str) -> GroupSpec:
    """The group that a mapping describes.

    Args:
        where: what the mapping was read from; every message begins with it.

    Raises:
        ConfigError: a key or value that there is not, or no such group can be.
    """
    _refuse_unknown(data, _SPEC_KEYS, where)
    if _MASTER not in data:
        raise ConfigError(
            f"{where}: there is no key '{_MASTER}'",
            hint=f"'{_MASTER}' is the name of the group's interface, and required",
        )
    values: dict[str, Any] = {
        _FIELDS[key]: _value(key, _SPEC_KEYS[key], value, where)
        for key, value in data.items()
    }
    try:
        return GroupSpec(**values)
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc.message}", hint=exc.hint) from exc


def spec_to(spec: GroupSpec) -> dict[str, object]:
    """A group as plain data: what spec_from() takes."""
    values = {key: getattr(spec, name) for key, name in _FIELDS.items()}
    return {key: _plain(value) for key, value in values.items() if value is not None}


def load(directory: Path, netns: str | None) -> Loaded:
    """The groups that the files of a directory declare for a namespace.

    All files are checked, those for other namespaces too.
    """
    errors: list[ConfigError] = []
    by_netns: dict[str | None, list[Declared]] = {}
    try:
        paths = _files(directory)
    except ConfigError as exc:
        return Loaded(declared=(), errors=(exc,))
    for path in paths:
        try:
            found = _read(path)
        except ConfigError as exc:
            errors.append(exc)
        else:
            by_netns.setdefault(found.netns, []).append(found)
    compatible = {key: _compatible(all_, errors) for key, all_ in by_netns.items()}
    return Loaded(declared=tuple(compatible.get(netns, ())), errors=tuple(errors))


def save(directory: Path, declared: Declared) -> Path:
    """Write the file that declares a group, in place of one that did.

    Its name is that of the master, with @NETNS for a namespace of a name.

    Raises:
        ConfigError: it cannot be told in TOML, the directory is not ours alone,
            or another file has the name.
        PyFailoverError: it cannot be written.
    """
    name = declared.spec.name
    with _writing(directory):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    _files(directory)  # one that we would not read from is not written to
    path = find(directory, name, declared.netns)
    if path is None:
        path = directory / _file_name(name, declared.netns)
        if os.path.lexists(path):
            raise ConfigError(
                f"{_where(path)}: cannot save '{name}' here: the file declares "
                "something else, or has an error",
                hint="mend it, or move it away",
            )
    raw = _encoded(replace(declared, path=path))
    with _writing(path):
        _put(path, raw)
    return path


@contextmanager
def saved(directory: Path, declared: Declared) -> Iterator[None]:
    """save() for the length of a `with`, and for good if that ends well.

    Raises:
        PyFailoverError: see save(); nothing is changed.
    """
    made = not directory.exists()
    before = find(directory, declared.spec.name, declared.netns)
    content = None if before is None else before.read_bytes()
    path = save(directory, declared)
    try:
        yield
    except BaseException:
        if content is None:
            path.unlink(missing_ok=True)
        else:
            _put(path, content)
        if made:
            directory.rmdir()
        raise


def find(directory: Path, master: str, netns: str | None) -> Path | None:
    """The file that declares a master; those with errors declare nothing."""
    with suppress(ConfigError):
        for path in _files(directory):
            with suppress(ConfigError):
                found = _read(path)
                if (found.spec.name, found.netns) == (master, netns):
                    return path
    return None


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        PyFailoverError: it cannot be removed.
    """
    with _writing(path):
        path.unlink(missing_ok=True)


# Values


def _refuse_unknown(
    data: Mapping[str, object], allowed: Collection[str], where: str
) -> None:
    for key in data:
        if key not in allowed:
            close = get_close_matches(key, allowed, n=1)
            meant = f"did you mean '{close[0]}'? " if close else ""
            raise ConfigError(
                f"{where}: unknown key {_short(repr(key))}",
                hint=f"{meant}keys are {', '.join(allowed)}",
            )


def _value(key: str, kind: Any, value: object, where: str) -> Any:
    """A value of a key, as its type has it."""
    made = get_origin(kind) or kind
    good: object
    if made is tuple:
        allowed = "a list of strings"
        good = isinstance(value, list) and all(isinstance(each, str) for each in value)
    elif issubclass(made, StrEnum):
        allowed = f"one of {', '.join(made)}"
        good = value in list(made)
    elif made is int:
        low, high = RANGES[key]
        allowed = f"a whole number from {low} to {high}"
        good = type(value) is int and low <= value <= high  # a bool is none
    else:
        allowed = "true or false" if made is bool else "a string"
        good = isinstance(value, made)
    if not good:
        raise ConfigError(
            f"{where}: '{key}' cannot be {_shown(value)}", hint=f"'{key}' is {allowed}"
        )
    return made(value)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, StrEnum) else value


def _shown(value: object) -> str:
    """What a value is, on one short line: never what is inside of inner ones."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"the string {_short(repr(value))}"
        case int() if value.bit_length() > 64:  # str() refuses the very long
            return f"a number of {value.bit_length()} bits"
        case int() | float():
            return f"the number {value}"
        case list():
            odd = [each for each in value if not isinstance(each, str)]
            if odd and not isinstance(odd[0], list):
                return f"a list with {_shown(odd[0])} in it"
            return "a list with a list in it" if odd else "a list"
        case dict():
            return "a table"
        case None:
            return "nothing"
    return _short(f"the {type(value).__name__} {value}")


def _short(text: str) -> str:
    """A text of any length, cut in the middle."""
    if len(text) <= 2 * _SHOWN:
        return text
    return f"{text[:_SHOWN]}...{text[-_SHOWN:]}"


# Files


def _where(path: Path) -> str:
    """A path on one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _files(directory: Path) -> list[Path]:
    """The files that may declare groups, in order; none without a directory.

    Raises:
        ConfigError: it is not ours alone, or cannot be read.
    """
    where = _where(directory)
    try:
        info = directory.stat()
        if not stat.S_ISDIR(info.st_mode):
            raise ConfigError(
                f"{where}: it is not a directory", hint="it holds one *.toml a group"
            )
        _refuse_untrusted(directory, info)
        # As a shell's glob: editors hide their own files behind a dot.
        names = [
            path
            for path in directory.iterdir()
            if path.name.endswith(".toml") and not path.name.startswith(".")
        ]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise _unreadable(where, exc) from exc
    return sorted(names)


def _read(path: Path) -> Declared:
    where = _where(path)
    try:
        raw = _bytes(path)
    except OSError as exc:
        raise _unreadable(where, exc) from exc
    if len(raw) > _MAX_BYTES:
        raise ConfigError(
            f"{where}: it is too large", hint=f"at most {_MAX_BYTES} bytes"
        )
    try:
        data = tomllib.loads(raw.decode())
    except RecursionError:
        fault = "it is nested too deeply"
    except ValueError as exc:  # bad TOML, bad UTF-8, a number of 5000 digits
        fault = _short(str(exc))
    else:
        return _declared(data, path)
    raise ConfigError(
        f"{where}: not TOML: {fault}", hint=f'lines like {_MASTER} = "fo0"'
    )


def _unreadable(where: str, exc: OSError) -> ConfigError:
    return ConfigError(
        f"{where}: it cannot be read: {exc.strerror}",
        hint="it must be there, and readable for root",
    )


def _bytes(path: Path) -> bytes:
    """A trusted file's content, or one byte more of it than there may be."""
    # Without O_NONBLOCK a named pipe would have us wait.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(
                f"{_where(path)}: it is not a regular file",
                hint="a regular file, or a symbolic link to one",
            )
        _refuse_untrusted(path, info)
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(_MAX_BYTES + 1)
    finally:
        os.close(fd)


def _refuse_untrusted(path: Path, info: os.stat_result) -> None:
    """Refuse what others can have written, or can put another in the place of.

    Args:
        info: of what is read: where `path` is a symbolic link, of its target.
    """
    _refuse_others(path, info)
    if path.is_symlink():
        _refuse_others(path, path.lstat())
        home = path.resolve().parent
        _refuse_others(home, home.stat(), f"{_where(path)}: it leads to {_where(home)}")


def _refuse_others(path: Path, info: os.stat_result, where: str | None = None) -> None:
    where = where or _where(path)
    us = os.geteuid()
    if info.st_uid not in (0, us):
        allowed = "root" if us == 0 else f"root or user {us}"
        raise ConfigError(
            f"{where}: it belongs to user {info.st_uid}",
            hint=f"it must belong to {allowed}: chown root {_where(path)}",
        )
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o022 and not stat.S_ISLNK(info.st_mode):
        raise ConfigError(
            f"{where}: others may write to it (mode {mode:04o})",
            hint=f"only its owner may: chmod go-w {_where(path)}",
        )


def _declared(data: Mapping[str, object], path: Path) -> Declared:
    where = _where(path)
    _refuse_unknown(data, [*_SPEC_KEYS, *_OWN_KEYS], where)
    own: dict[str, Any] = {
        key: _value(key, kind, data[key], where) if key in data else None
        for key, kind in _OWN_KEYS.items()
    }
    netns = own["netns"]
    if netns is not None and not (netns and netns.isprintable()):
        raise ConfigError(
            f"{where}: 'netns' cannot be {_shown(netns)}",
            hint="'netns' is a name that 'ip netns' shows",
        )
    return Declared(
        spec=spec_from({k: v for k, v in data.items() if k in _SPEC_KEYS}, where),
        create=bool(own["create"]),
        netns=netns,
        path=path,
    )


# Files beside each other


def _compatible(found: list[Declared], errors: list[ConfigError]) -> list[Declared]:
    """The groups of one namespace that can be together, in order.

    The earlier of two stays; of a loop none does.
    """
    masters: dict[str, Declared] = {}
    for each in found:
        if earlier := masters.get(each.spec.name):
            errors.append(
                ConfigError(
                    f"{_where(each.path)}: '{_MASTER}' is '{each.spec.name}', as in "
                    f"{_where(earlier.path)}",
                    hint="one file for each master",
                )
            )
        else:
            masters[each.spec.name] = each
    in_loops: set[str] = set()
    for name in masters:
        if name not in in_loops and (loop := _loop(name, masters)):
            in_loops.update(loop)
            errors.append(_loop_error([masters[each] for each in loop]))
    kept: list[Declared] = []
    for each in masters.values():
        if each.spec.name in in_loops:
            continue
        if error := next(filter(None, (_clash(each, other) for other in kept)), None):
            errors.append(error)
        else:
            kept.append(each)
    return kept


def _loop(start: str, masters: Mapping[str, Declared]) -> list[str]:
    """The shortest way from a master over slaves that are masters back to it."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:  # grows meanwhile
        for slave in masters[way[-1]].spec.slaves:
            if slave == start:
                return way
            if slave in masters and slave not in seen:
                seen.add(slave)
                ways.append([*way, slave])
    return []


def _loop_error(loop: list[Declared]) -> ConfigError:
    first, *others = loop
    names = [each.spec.name for each in loop]
    return ConfigError(
        f"{_where(first.path)}: {_key(first, names[1])} is in a loop of masters: "
        f"{' -> '.join([*names, names[0]])}, with "
        + ", ".join(_where(each.path) for each in others),
        hint=_ONE_GROUP,
    )


def _clash(later: Declared, earlier: Declared) -> ConfigError | None:
    """Why two groups cannot be together."""
    shared = [rule for rule in later.spec.slaves if rule in earlier.spec.slaves]
    if shared:
        fault = f"{_key(later, shared[0])} is a slave"
    elif earlier.spec.name in later.spec.slaves:
        fault = f"{_key(later, earlier.spec.name)} is the master"
    elif later.spec.name in earlier.spec.slaves:
        fault = f"'{_MASTER}' '{later.spec.name}' is a slave"
    else:
        return None
    return ConfigError(
        f"{_where(later.path)}: {fault} in {_where(earlier.path)}", hint=_ONE_GROUP
    )


def _key(declared: Declared, slave: str) -> str:
    """A slave and its key."""
    key = "primary" if slave == declared.spec.primary else "standbys"
    return f"'{key}' '{slave}'"


# Writing


def _file_name(master: str, netns: str | None) -> str:
    parts = (master, netns) if netns else (master,)
    text = "@".join(quote(part, safe="", errors="replace") for part in parts)
    return f"{re.sub('^[.]', '%2E', text)}.toml"  # none is hidden


def _encoded(declared: Declared) -> bytes:
    """TOML of the keys that are not at their defaults.

    Raises:
        ConfigError: it would not be read as what it is.
    """
    spec = declared.spec
    defaults = {
        key: _plain(each.default)
        for key, each in zip(_FIELDS, fields(GroupSpec), strict=True)
    }
    data = {k: v for k, v in spec_to(spec).items() if v != defaults[k]}
    if declared.create:
        data["create"] = True
    if declared.netns is not None:
        data["netns"] = declared.netns
    try:
        raw = "".join(map(_line, data, data.values())).encode()
        same = _declared(tomllib.loads(raw.decode()), declared.path) == declared
    except ValueError:  # half a surrogate pair, in a rule
        same = False
    if not same:
        raise ConfigError(
            f"{_where(declared.path)}: {spec.name!r} cannot be written as TOML",
            hint="every name and rule must be plain text",
        )
    return raw


def _line(key: str, value: object) -> str:
    """JSON's strings, numbers and lists are TOML's, but for DEL and surrogates."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{key} = {text}\n"


def _put(path: Path, raw: bytes) -> None:
    """Replace a file: a reader sees the old one or the new one."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o644)  # a controller that is not root reads it
        file.write(raw)
        file.flush()
        os.fsync(fd)
    fresh.replace(path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise PyFailoverError(
            f"cannot write '{path}': {exc.strerror}",
            hint="run as root" if isinstance(exc, PermissionError) else None,
        ) from exc
