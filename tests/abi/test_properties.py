"""Property paths and the encoding of values."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, strategies as st

from wasm_middleware.abi.pairs import decode
from wasm_middleware.abi.properties import Nanoseconds, encode_value, parse_path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"", ()),
        (b"\0", ()),
        (b"plugin_name", (b"plugin_name",)),
        (b"request\0path", (b"request", b"path")),
        (b"request\0path\0", (b"request", b"path")),
        (b"\0request\0\0path\0\0", (b"request", b"path")),
        (b"a.b\0c", (b"a.b", b"c")),
    ],
)
def test_paths(raw: bytes, path: tuple[bytes, ...]) -> None:
    assert parse_path(raw) == path


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (b"\xff\0", b"\xff\0"),
        ("naïve", "naïve".encode()),
        ("\udcff", b"\xff"),
        (True, b"\1"),
        (False, b"\0"),
        (0, bytes(8)),
        (200, b"\xc8" + bytes(7)),
        (-1, b"\xff" * 8),
        ((1 << 64) - 1, b"\xff" * 8),
        (1 << 64, bytes(8)),
        (1.5, struct.pack("<d", 1.5)),
        (Nanoseconds(1_700_000_000_000_000_000), struct.pack("<q", 1_700_000_000_000_000_000)),
        ([], b""),
    ],
)
def test_values_have_the_sizes_that_sdks_expect(value: object, encoded: bytes) -> None:
    assert encode_value(value) == encoded  # type: ignore[arg-type]


def test_a_map_is_pairs() -> None:
    assert decode(encode_value([(b"a", b"1"), (b"b", b"2")])) == [(b"a", b"1"), (b"b", b"2")]


@given(st.integers())
def test_every_integer_is_eight_bytes(value: int) -> None:
    assert int.from_bytes(encode_value(value), "little") == value % (1 << 64)
