"""The header-map wire format.

    u32 count; count x (u32 name size, u32 value size); count x (name 0x00 value 0x00)

All numbers are little-endian. An empty map is no bytes at all; a single 0x00 (the specification's
form) and a count of zero are read as empty too. (The specification's own example is wrong: it
prints one-byte numbers.)

Reading is strict, as in proxy-wasm-cpp-host: terminators are checked and the last one must be the
last byte. What a host does with a malformed map is its own affair.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from wasm_middleware import limits

Pair = tuple[bytes, bytes]

_COUNT = struct.Struct("<I")
_SIZES = struct.Struct("<II")


class MalformedPairs(ValueError):
    """The bytes are not a header map, or a larger one than `limits` allows."""


def encoded_size(pairs: Iterable[Pair]) -> int:
    """The number of bytes that `encode` would return."""
    size = 0

    for name, value in pairs:
        size += len(name) + len(value) + 10

    return size + 4 if size else 0


def encode(pairs: Sequence[Pair]) -> bytes:
    """Encode ordered pairs; duplicates and order are kept."""
    if not pairs:
        return b""

    sizes = [_SIZES.pack(len(name), len(value)) for name, value in pairs]
    texts = [b"%b\0%b\0" % pair for pair in pairs]
    return _COUNT.pack(len(pairs)) + b"".join(sizes) + b"".join(texts)


def decode(data: bytes) -> list[Pair]:
    """Decode what `encode` made; raise `MalformedPairs` for anything else."""
    if data in (b"", b"\0"):
        return []

    if len(data) > limits.MAX_PAIRS_BYTES:
        raise MalformedPairs(f"{len(data)} bytes of pairs, more than {limits.MAX_PAIRS_BYTES}")

    if len(data) < _COUNT.size:
        raise MalformedPairs("shorter than a count")

    (count,) = _COUNT.unpack_from(data)

    if count > limits.MAX_PAIRS:
        raise MalformedPairs(f"{count} pairs, more than {limits.MAX_PAIRS}")

    start = _COUNT.size + count * _SIZES.size

    if start > len(data):
        raise MalformedPairs("shorter than its table of sizes")

    pairs = []

    for name_size, value_size in _SIZES.iter_unpack(data[_COUNT.size : start]):
        name_end = start + name_size
        value_end = name_end + 1 + value_size

        if value_end >= len(data):
            raise MalformedPairs("a pair reaches beyond the end")

        if data[name_end] or data[value_end]:
            raise MalformedPairs("a terminator is not zero")

        pairs.append((data[start:name_end], data[name_end + 1 : value_end]))
        start = value_end + 1

    if start != len(data):
        raise MalformedPairs("bytes after the last pair")

    return pairs
