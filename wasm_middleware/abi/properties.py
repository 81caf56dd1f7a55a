"""Property paths and the encoding of their values.

A path is its segments joined by NUL. The C++ SDK adds a NUL after the last one too, so trailing
NULs and empty segments are dropped.

Values follow Envoy's `serializeValue`: text is raw bytes; integers, durations and timestamps
(both in nanoseconds) are 8 bytes, little-endian; doubles likewise; a bool is one byte; a map is
the header-map format, a list a map with empty values. Rust's `u64::from_le_bytes` and C++'s
`getValue<T>` fail on any other size.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wasm_middleware.abi.pairs import Pair, encode

Path = tuple[bytes, ...]
Value = bytes | str | bool | int | float | Sequence[Pair]

_INTEGER = struct.Struct("<q")
_DOUBLE = struct.Struct("<d")


@dataclass(frozen=True, slots=True)
class Nanoseconds:
    """A point in time (since 1970) or a span of it."""

    value: int


def parse_path(raw: bytes) -> Path:
    """Split a raw path into its non-empty segments."""
    return tuple(segment for segment in raw.split(b"\0") if segment)


def encode_value(value: Value | Nanoseconds) -> bytes:
    """Encode one value as Envoy does; integers wrap to 64 bits."""
    match value:
        case bytes():
            return value
        case str():
            return value.encode("utf-8", "surrogateescape")
        case bool():
            return b"\1" if value else b"\0"
        case int():
            return _INTEGER.pack((value + (1 << 63)) % (1 << 64) - (1 << 63))
        case float():
            return _DOUBLE.pack(value)
        case Nanoseconds():
            return _INTEGER.pack(value.value)
        case _:
            return encode(value)


#: `listener_direction`: Envoy's `TrafficDirection.INBOUND`. Requests come to this service.
INBOUND: Final = encode_value(1)
