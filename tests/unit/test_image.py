# SPDX-License-Identifier: GPL-2.0-or-later
"""Images as bytes, and code that is bound to nothing and bound again."""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfailover.datapath.image import (
    Image,
    ImageError,
    Kind,
    Map,
    Program,
    Relocation,
    abstract,
)

U32 = st.integers(0, 2**32 - 1)
NAMES = st.text(max_size=15)
MAPS = st.builds(Map, *[U32] * 5)
RELOCATIONS = st.builds(Relocation, U32, st.sampled_from(Kind), NAMES)
PROGRAMS = st.builds(
    Program, U32, st.binary(max_size=64), st.lists(RELOCATIONS, max_size=3).map(tuple)
)
IMAGES = st.builds(
    Image,
    maps=st.dictionaries(NAMES, MAPS, max_size=3),
    programs=st.dictionaries(NAMES, PROGRAMS, max_size=3),
    kfuncs=st.dictionaries(NAMES, U32, max_size=3),
    key=st.dictionaries(NAMES, NAMES, max_size=3),
    release=NAMES,
)

SMALL = Image(
    maps={"fo_states": Map(2, 4, 8, 97, 0)},
    programs={"fo_cas": Program(3, b"\x95" + bytes(7), ())},
    key={"kernel": "k"},
    release="6.18.0",
)

# Codes of instructions, and who is called or loaded.
LOAD, CALL, EXIT = 0x18, 0x85, 0x95
PLAIN, MAP_FD, MAP_VALUE, FUNCTION, KFUNC = 0, 1, 2, 1, 2


def code(opcode: int, source: int = 0, value: int = 0, target: int = 0) -> bytes:
    """One instruction."""
    pair = (source << 4 | target) if sys.byteorder == "little" else target << 4 | source
    return struct.pack("=BBhi", opcode, pair, 0, value)


def load(source: int, value: int) -> bytes:
    """A load of 64 bits: two instructions."""
    return code(LOAD, source, value, target=1) + code(0)


# --- bytes ----------------------------------------------------------------


@given(IMAGES)
def test_bytes_and_back(image: Image) -> None:
    """An image is what its bytes say, whatever it has."""
    assert Image.from_bytes(image.to_bytes()) == image


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_every_damaged_byte_is_noticed(bit: int) -> None:
    """No byte can change without the image being refused."""
    whole = SMALL.to_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= bit
        with pytest.raises(ImageError):
            Image.from_bytes(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    """No end can be missing, and nothing be appended."""
    whole = SMALL.to_bytes()
    for length in range(len(whole)):
        with pytest.raises(ImageError):
            Image.from_bytes(whole[:length])
    with pytest.raises(ImageError, match="damaged"):
        Image.from_bytes(whole + b"\n")


@given(st.binary(max_size=200))
def test_what_is_no_image_is_told(raw: bytes) -> None:
    """Any bytes give the one error."""
    with pytest.raises(ImageError):
        Image.from_bytes(raw)


# --- relocation -----------------------------------------------------------

BOUND = (
    load(MAP_FD, 5)
    + code(CALL, PLAIN, 1)  # a helper
    + load(PLAIN, 5)  # a number that looks like the map
    + code(CALL, PLAIN, 9000)  # a kfunc's magic number
    + code(CALL, FUNCTION, 2)  # of the program itself
    + load(MAP_FD, 6)
    + code(EXIT)
)
FREE = (
    load(MAP_FD, 0)
    + code(CALL, PLAIN, 1)
    + load(PLAIN, 5)
    + code(CALL, KFUNC, 0)
    + code(CALL, FUNCTION, 2)
    + load(MAP_FD, 0)
    + code(EXIT)
)
REFERENCES = (
    Relocation(0, Kind.MAP, "ports"),
    Relocation(5, Kind.KFUNC, "cast"),
    Relocation(7, Kind.MAP, "groups"),
)


def free(bound: bytes) -> Program:
    """BOUND's maps and functions taken out of code."""
    return abstract(
        bound, type=3, maps={5: "ports", 6: "groups"}, kfuncs={9000: "cast"}
    )


def test_references_become_relocations() -> None:
    """Maps and kfuncs, and neither numbers, helpers nor functions of its own."""
    assert free(BOUND) == Program(3, FREE, REFERENCES)


def test_relocations_become_references() -> None:
    """Each place gets its own number, and all else stays."""
    code_now = free(BOUND).relocated({"ports": 50, "groups": 60}, {"cast": 70})
    assert code_now == (
        load(MAP_FD, 50)
        + code(CALL, PLAIN, 1)
        + load(PLAIN, 5)
        + code(CALL, KFUNC, 70)
        + code(CALL, FUNCTION, 2)
        + load(MAP_FD, 60)
        + code(EXIT)
    )


@given(U32.filter(lambda n: n < 2**31), U32.filter(lambda n: n < 2**31))
def test_the_same_descriptors_give_the_same_code(ports: int, groups: int) -> None:
    """Whatever the compiler's descriptors were, the result depends on ours alone."""
    names = {ports: "ports"} if ports == groups else {ports: "ports", groups: "groups"}
    bound = load(MAP_FD, ports) + load(MAP_FD, groups) + code(EXIT)
    program = abstract(bound, type=3, maps=names, kfuncs={})
    fds = {name: fd for fd, name in names.items()}
    assert program.relocated(fds, {}) == bound
    assert program.instructions == load(MAP_FD, 0) * 2 + code(EXIT)


@pytest.mark.parametrize(
    ("bound", "why"),
    [
        (load(MAP_FD, 7), "instruction 0 loads"),
        (load(MAP_VALUE, 5), "instruction 0 loads"),
        (code(EXIT) + load(FUNCTION + 3, 5), "instruction 1 loads"),
        (load(PLAIN, 0) + code(CALL, KFUNC, 9000), "instruction 2 calls"),
    ],
    ids=["unknown map", "value of a map", "address of a function", "resolved kfunc"],
)
def test_other_references_are_refused(bound: bytes, why: str) -> None:
    """What another process could not make good is not kept."""
    with pytest.raises(ImageError, match=why):
        free(bound)


@pytest.mark.parametrize("lacking", ["ports", "cast"])
def test_nothing_stays_unbound(lacking: str) -> None:
    """A map or a function that is not given is an error, not a zero."""
    maps = {"ports": 1, "groups": 2}
    kfuncs = {"cast": 3}
    with pytest.raises(KeyError, match=lacking):
        free(BOUND).relocated(
            {name: fd for name, fd in maps.items() if name != lacking},
            {name: id_ for name, id_ in kfuncs.items() if name != lacking},
        )
