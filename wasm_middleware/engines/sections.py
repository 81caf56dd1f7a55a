"""A module's sections, taken apart and put together: what rewriting one needs.

`module_info` has the reader and its checks.
"""

from __future__ import annotations

from collections.abc import Iterable

from wasm_middleware.engines.module_info import Reader

HEADER = 8
#: The custom section with the names of functions, and the part of it that has them.
NAMES, FUNCTION_NAMES = b"\x04name", 1
CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL = range(7)
EXPORT, START, ELEMENT, CODE, DATA, DATA_COUNT, TAG = range(7, 14)
#: The order of sections by their numbers is not quite that of the file.
_FIRST = (TYPE, IMPORT, FUNCTION, TABLE, MEMORY, TAG, GLOBAL)
ORDER = (*_FIRST, EXPORT, START, ELEMENT, DATA_COUNT, CODE, DATA)


def read_sections(wasm: bytes) -> list[tuple[int, bytes]]:
    """Each section's number and body; raises `IndexError` where the file is cut short."""
    reader = Reader(wasm, HEADER, len(wasm))
    sections = []

    while reader.position < reader.end:
        number = reader.byte()
        part = reader.part()
        sections.append((number, wasm[part.position : part.end]))

    return sections


def join_sections(wasm: bytes, sections: Iterable[tuple[int, bytes]]) -> bytes:
    """A module of these sections, with the header of `wasm`."""
    return wasm[:HEADER] + b"".join(bytes([number]) + sized(body) for number, body in sections)


def sized(body: bytes) -> bytes:
    """The bytes, after how many they are: a section's body, a function's code or a name."""
    return unsigned(len(body)) + body


def unsigned(value: int) -> bytes:
    """An unsigned LEB128 number."""
    encoded = bytearray()

    while True:
        value, low = value >> 7, value & 0x7F
        encoded.append(low | 0x80 if value else low)

        if not value:
            return bytes(encoded)


def signed(value: int) -> bytes:
    """A signed LEB128 number."""
    encoded = bytearray()

    while True:
        value, low = value >> 7, value & 0x7F

        if value == (-1 if low & 0x40 else 0):
            encoded.append(low)
            return bytes(encoded)

        encoded.append(low | 0x80)
