"""The header-map wire format."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings, strategies as st

from wasm_middleware import limits
from wasm_middleware.abi.pairs import MalformedPairs, decode, encode, encoded_size

PAIRS = st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=8)
EXAMPLE = bytes.fromhex("0200000001000000010000000100000002000000610031006200323200")


def test_the_example_of_the_specification() -> None:
    assert encode([(b"a", b"1"), (b"b", b"22")]) == EXAMPLE
    assert decode(EXAMPLE) == [(b"a", b"1"), (b"b", b"22")]


@given(PAIRS)
def test_what_was_encoded_is_decoded(pairs: list[tuple[bytes, bytes]]) -> None:
    data = encode(pairs)

    assert decode(data) == pairs
    assert encoded_size(pairs) == len(data)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0"])
def test_there_are_three_ways_to_say_nothing(data: bytes) -> None:
    assert decode(data) == []


def test_nothing_is_encoded_as_nothing() -> None:
    assert encode([]) == b""
    assert encoded_size([]) == 0


def test_an_empty_name_and_value_are_a_pair() -> None:
    assert decode(encode([(b"", b"")])) == [(b"", b"")]


@pytest.mark.parametrize("size", range(1, len(EXAMPLE)))
def test_what_is_cut_short_is_malformed(size: int) -> None:
    with pytest.raises(MalformedPairs):
        decode(EXAMPLE[:size])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\1", "shorter than a count"),
        (b"\1\0\0\0", "shorter than its table"),
        (EXAMPLE + b"\0", "bytes after the last pair"),
        (b"\0\0\0\0\0", "bytes after the last pair"),
        (EXAMPLE[:21] + b"0" + EXAMPLE[22:], "a terminator is not zero"),
        (EXAMPLE[:-1] + b"0", "a terminator is not zero"),
        (b"\xff\xff\xff\xff", "pairs, more than"),
        (struct.pack("<III", 1, 0xFFFF_FFFF, 0) + b"\0\0", "beyond the end"),
        (struct.pack("<III", 1, 0, 0xFFFF_FFFF) + b"\0\0", "beyond the end"),
        (struct.pack("<III", 1, 0xFFFF_FFFF, 0xFFFF_FFFF) + b"\0\0", "beyond the end"),
    ],
)
def test_what_is_not_exact_is_malformed(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedPairs, match=reason):
        decode(data)


def test_the_number_of_pairs_has_a_cap() -> None:
    most = [(b"a", b"")] * limits.MAX_PAIRS

    assert decode(encode(most)) == most

    with pytest.raises(MalformedPairs, match="1025 pairs"):
        decode(encode([*most, (b"a", b"")]))


def test_the_size_has_a_cap() -> None:
    room = limits.MAX_PAIRS_BYTES - encoded_size([(b"a", b"")])

    assert decode(encode([(b"a", b"x" * room)])) == [(b"a", b"x" * room)]

    with pytest.raises(MalformedPairs, match="bytes of pairs"):
        decode(encode([(b"a", b"x" * (room + 1))]))


@settings(max_examples=300)
@given(
    PAIRS,
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 300),
)
def test_damage_is_malformed_or_other_pairs(
    pairs: list[tuple[bytes, bytes]], changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(encode(pairs))

    for position, value in changes:
        if position < len(data):
            data[position] = value

    try:
        decoded = decode(bytes(data[:length]))
    except MalformedPairs:
        return

    assert encode(decoded) == bytes(data[:length]) or not decoded


@given(st.binary(max_size=80))
def test_any_bytes_are_pairs_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedPairs):
        decode(data)
