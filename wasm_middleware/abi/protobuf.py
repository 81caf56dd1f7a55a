"""Protocol Buffers on the wire, as much of it as a few small messages need.

Envoy takes the arguments of some foreign functions, and the C++ SDK names gRPC services, as
serialized messages. They are flat: numbers, text and bytes; a message in a message is bytes that
are decoded again. So there are no descriptors here: who reads a message asks for its fields by
number, and gets proto3's default where a field is missing or has another wire type (which a
generated parser would file under unknown fields).

Source: "Encoding" in the Protocol Buffers documentation. Groups have been deprecated since 2008 and
are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from wasm_middleware import limits

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
#: 64 bits in groups of seven.
_MAX_VARINT_BYTES = 10
_MAX_U64 = (1 << 64) - 1
#: 2**29 - 1 is the largest.
_FIRST_BAD_NUMBER = 1 << 29


class ProtobufError(ValueError):
    """Bytes that are no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of a message by number; of a field that is there twice the last one counts."""

    numbers: dict[int, int] = field(default_factory=dict)
    octets: dict[int, bytes] = field(default_factory=dict)

    def number(self, field: int) -> int:
        """An unsigned integer, an enum or a bool; 0 if it is missing."""
        return self.numbers.get(field, 0)

    def data(self, field: int) -> bytes:
        """Bytes, or a message that is still encoded; empty if it is missing."""
        return self.octets.get(field, b"")

    def text(self, field: int) -> str:
        """Text; empty if it is missing. Raises `ProtobufError` where it is not UTF-8."""
        try:
            return self.data(field).decode()
        except UnicodeDecodeError as error:
            raise ProtobufError(f"field {field} is not UTF-8") from error


def decode(data: bytes) -> Message:
    """Read a message; raises `ProtobufError`, also for one of more fields than `limits` allows."""
    message = Message()
    position = fields = 0

    while position < len(data):
        fields += 1

        if fields > limits.MAX_PROTOBUF_FIELDS:
            raise ProtobufError(f"it has more than {limits.MAX_PROTOBUF_FIELDS} fields")

        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7

        if not 0 < number < _FIRST_BAD_NUMBER:
            raise ProtobufError(f"there is no field number {number}")

        if wire_type == _VARINT:
            message.numbers[number], position = _varint(data, position)
            continue

        if wire_type == _BYTES:
            size, position = _varint(data, position)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ProtobufError(f"field {number} has the wire type {wire_type}")

        if size > len(data) - position:
            raise ProtobufError(f"field {number} is cut off")

        if wire_type == _BYTES:
            message.octets[number] = data[position : position + size]

        position += size

    return message


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """An integer and where it ends; what is beyond 64 bits is dropped, as other parsers do."""
    value = 0

    for count, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * count

        if byte < 0x80:
            return value & _MAX_U64, position + count + 1

    raise ProtobufError("a number is cut off, or too long")


def encode(fields: Iterable[tuple[int, int | bytes | str]]) -> bytes:
    """Write a message; a field with its default (0, false, empty) is left out, as in proto3.

    Raises `ValueError` for a number that is no unsigned 64-bit one.
    """
    encoded = bytearray()

    for number, value in fields:
        if not value:
            continue

        if isinstance(value, int):
            encoded += _encode_varint(number << 3 | _VARINT) + _encode_varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += _encode_varint(number << 3 | _BYTES) + _encode_varint(len(data)) + data

    return bytes(encoded)


def _encode_varint(value: int) -> bytes:
    if not 0 <= value <= _MAX_U64:
        raise ValueError(f"{value} is no unsigned 64-bit number")

    encoded = bytearray()

    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7

    encoded.append(value)
    return bytes(encoded)
