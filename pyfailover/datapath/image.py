# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes out of the compiler: programs that are not bound to any maps yet.

A compiled program refers to maps by the descriptors that they had in the
compiling process, and to kfuncs by magic numbers. Both become relocations here,
so that an image can be loaded by another process, at another time. As bytes it
is a line with a digest, and JSON.
"""

import base64
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

_FORMAT = "pyfailover image 1"

_INSTRUCTION = struct.Struct("=BBhi")  # code, registers, offset, immediate
_LOAD_IMM64, _CALL = 0x18, 0x85  # codes; the former takes two instructions
# Who the source register says is called, or loaded (linux/bpf.h, BPF_PSEUDO_…).
_NUMBER, _HELPER, _MAP_FD, _FUNCTION, _KFUNC = 0, 0, 1, 1, 2
_SOURCE_SHIFT, _SOURCE_MASK = (4, 0xF0) if sys.byteorder == "little" else (0, 0x0F)


class ImageError(ValueError):
    """No image, or a damaged one, or code that cannot be relocated; says why."""


class Kind(StrEnum):
    """What a relocation refers to."""

    MAP = "map"
    KFUNC = "kfunc"


@dataclass(frozen=True, slots=True)
class Relocation:
    """A reference to be filled in; `at` counts instructions."""

    at: int
    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Map:
    """The definition of a map, as BPF_MAP_CREATE takes it; sizes in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Program:
    """Instructions with zeros for references, and which references they are."""

    type: int  # enum bpf_prog_type
    instructions: bytes
    relocations: tuple[Relocation, ...]

    def relocated(self, maps: Mapping[str, int], kfuncs: Mapping[str, int]) -> bytes:
        """The instructions with all references filled in.

        Args:
            maps: descriptors of open maps, by name.
            kfuncs: BTF ids of functions of the running kernel, by name.
        """
        code = bytearray(self.instructions)
        for each in self.relocations:
            if each.kind is Kind.MAP:
                _refer(code, each.at, _MAP_FD, maps[each.name])
            else:
                _refer(code, each.at, _KFUNC, kfuncs[each.name])
        return bytes(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Maps, and programs that refer to them.

    `key` and `release` say what it was made from and where (see cache.py).
    """

    maps: Mapping[str, Map]
    programs: Mapping[str, Program]
    kfuncs: Mapping[str, int] = field(default_factory=dict)  # BTF ids
    key: Mapping[str, str] = field(default_factory=dict)
    release: str = ""

    def to_bytes(self) -> bytes:
        """As it is kept in a file."""
        body = json.dumps(asdict(self), indent=1, default=_text).encode() + b"\n"
        return f"{_FORMAT} {sha256(body).hexdigest()}\n".encode() + body

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Image":
        """What to_bytes() has made.

        Raises:
            ImageError: it is damaged, or of another version's format.
        """
        head, _, body = raw.partition(b"\n")
        form, _, digest = head.rpartition(b" ")
        if form != _FORMAT.encode():
            raise ImageError("it is not an image that this version can read")
        if digest != sha256(body).hexdigest().encode():
            raise ImageError("it is damaged: not what its digest says")
        try:
            return _image(json.loads(body))
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ImageError(f"it is damaged: {exc!r}") from exc


def abstract(
    code: bytes, *, type: int, maps: Mapping[int, str], kfuncs: Mapping[int, str]
) -> Program:
    """The program that is bound to nothing, from one that a compiler has bound.

    Args:
        maps: names by the descriptors that the code has.
        kfuncs: names by the magic numbers that the code calls.

    Raises:
        ImageError: it refers to something else.
    """
    free = bytearray(code)
    found = tuple(_references(code, maps, kfuncs))
    for each in found:
        _refer(free, each.at, _MAP_FD if each.kind is Kind.MAP else _KFUNC, 0)
    return Program(type, bytes(free), found)


def _references(
    code: bytes, maps: Mapping[int, str], kfuncs: Mapping[int, str]
) -> Iterator[Relocation]:
    rest = enumerate(_INSTRUCTION.iter_unpack(code))
    for at, (opcode, registers, _, value) in rest:
        source = (registers & _SOURCE_MASK) >> _SOURCE_SHIFT
        if opcode == _LOAD_IMM64:
            next(rest)  # its upper half
            if source == _MAP_FD and value in maps:
                yield Relocation(at, Kind.MAP, maps[value])
            elif source != _NUMBER:
                raise ImageError(f"instruction {at} loads what is no map of ours")
        elif opcode == _CALL:
            if source == _HELPER and value in kfuncs:
                yield Relocation(at, Kind.KFUNC, kfuncs[value])
            elif source not in (_HELPER, _FUNCTION):
                raise ImageError(f"instruction {at} calls what is no helper")


def _refer(code: bytearray, at: int, source: int, value: int) -> None:
    """Have an instruction refer to a map or a function."""
    where = at * _INSTRUCTION.size
    opcode, registers, _, _ = _INSTRUCTION.unpack_from(code, where)
    registers = registers & ~_SOURCE_MASK | source << _SOURCE_SHIFT
    _INSTRUCTION.pack_into(code, where, opcode, registers, 0, value)


def _text(value: object) -> str:
    """Of the one type that JSON lacks."""
    assert isinstance(value, bytes)
    return base64.b64encode(value).decode()


def _image(data: Mapping[str, Any]) -> Image:
    programs = {
        name: Program(
            each["type"],
            base64.b64decode(each["instructions"], validate=True),
            tuple(map(_relocation, each["relocations"])),
        )
        for name, each in data["programs"].items()
    }
    maps = {name: Map(**each) for name, each in data["maps"].items()}
    return Image(
        maps=maps,
        programs=programs,
        kfuncs=data["kfuncs"],
        key=data["key"],
        release=data["release"],
    )


def _relocation(data: Mapping[str, Any]) -> Relocation:
    return Relocation(data["at"], Kind(data["kind"]), data["name"])
