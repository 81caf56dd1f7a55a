"""Instructions as bytes: where each one ends, and what it does to the operand stack.

All that this package knows is listed; a module with any other instruction is refused. So a compiler
that is newer than this list, or one that reads it otherwise, can't be shown code that is not
counted. Numbers have to be as short as their types allow (LEB128 of at most 5 or 10 bytes), and the
second byte of an instruction of two has one form.

Source: core specification 2.0, "Instructions" of the binary format, and its index of instructions.
"""

from __future__ import annotations

import re
from typing import Final

BLOCK, LOOP, IF, ELSE, END = 0x02, 0x03, 0x04, 0x05, 0x0B
BR, BR_TABLE, RETURN, CALL, CALL_INDIRECT = 0x0C, 0x0E, 0x0F, 0x10, 0x11
SELECT_TYPED = 0x1C
#: `local.set` and `local.tee`.
LOCAL_SETS = (0x21, 0x22)
MEMORY_GROW, REF_FUNC, WIDE = 0x40, 0xD2, 0xFC
#: Of two bytes, the first of which is `WIDE`.
MEMORY_INIT, DATA_DROP, MEMORY_COPY, MEMORY_FILL = 8, 9, 10, 11
TABLE_INIT, ELEM_DROP, TABLE_COPY, TABLE_GROW, TABLE_SIZE, TABLE_FILL = range(12, 18)

_U32 = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_S64 = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_MEMARG = _U32 + _U32

#: Instructions that only compute, load or store, or jump to where no loop begins unseen.
_PLAIN = (
    rb"[\x20-\x26\x0c\x0d\x41]" + _U32,
    rb"[\x28-\x3e]" + _MEMARG,
    rb"[\x00\x01\x1a\x1b\x45-\xc4\xd1]",
    rb"\x42" + _S64,
    rb"\x43.{4}",
    rb"\x44.{8}",
    rb"\x3f\x00",
    rb"\x1c\x01[\x6f\x70\x7c-\x7f]",
    rb"\xd0[\x6f\x70]",
    rb"\xfc[\x00-\x07]",
)
_ONE = rb"|".join(_PLAIN)
#: One such instruction, and as many as there are, or as are taken apart at once.
PLAIN: Final = re.compile(_ONE, re.DOTALL)
PLAIN_RUN: Final = re.compile(rb"(?:" + _ONE + rb"){1,4096}", re.DOTALL)

VECTOR: Final = 0x7B
VALUE_TYPES: Final = frozenset((0x6F, 0x70, 0x7C, 0x7D, 0x7E, 0x7F))
EMPTY_BLOCK: Final = 0x40


def _heights() -> list[int]:
    """By how much a plain instruction raises the operand stack, by its first byte."""
    heights = [0] * 256

    for codes, change in (
        # local.get, global.get, memory.size, constants, ref.null
        ((0x20, 0x23, 0x3F, 0x41, 0x42, 0x43, 0x44, 0xD0), 1),
        # br_if, drop, local.set, global.set
        ((0x0D, 0x1A, 0x21, 0x24), -1),
        # select, table.set, stores
        ((0x1B, 0x1C, 0x26, *range(0x36, 0x3F)), -2),
        # Comparisons and whatever else takes two
        ((*range(0x46, 0x50), *range(0x51, 0x67)), -1),
        ((*range(0x6A, 0x79), *range(0x7C, 0x8B)), -1),
        ((*range(0x92, 0x99), *range(0xA0, 0xA7)), -1),
    ):
        for code in codes:
            heights[code] = change

    return heights


HEIGHT: Final = _heights()


def _values() -> list[int]:
    """How many values a plain instruction may leave to be kept, by its first byte.

    A compiler that finds an expression twice computes it once, and keeps it from the first to the
    second: so each that is computed may need a place of its own. An access to memory computes the
    address, a division by a constant is some multiplications and shifts.
    """
    values = [0] * 256

    for codes, count in (
        ((0x1B, 0x1C, *range(0x45, 0xC5), 0xD1, WIDE), 1),
        ((*range(0x23, 0x27), *range(0x28, 0x40)), 2),
        ((*range(0x6D, 0x71), *range(0x7F, 0x83)), 4),
    ):
        for code in codes:
            values[code] = count

    return values


VALUES: Final = _values()

#: Of proposals that this list has nothing of, by the first byte.
PROPOSALS: Final = {
    **dict.fromkeys((0x06, 0x07, 0x08, 0x09, 0x0A, 0x18, 0x19, 0x1F), "exceptions"),
    **dict.fromkeys((0x12, 0x13), "tail calls"),
    **dict.fromkeys((0x14, 0x15, 0xD3, 0xD4, 0xD5, 0xD6), "typed references"),
    0xFB: "garbage collection",
    # The compiler of 2022 chooses the wrong lanes in a `select` of them, and knows not all.
    0xFD: "vectors",
    0xFE: "threads",
}
