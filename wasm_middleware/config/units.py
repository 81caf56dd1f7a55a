"""Sizes and durations, as people write them: `16MB`, `50ms`.

MB means MiB, as in Loom, whose files we read: a memory is made of 64 KiB pages, and 16,000,000
bytes are not a whole number of them. So `MB` and `MiB` are two spellings of one unit.

A number without a unit is refused in both: `timeout: 50` is 50 ms to one reader and 50 s to the
next, and neither finds out before the incident.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from wasm_middleware.config.problems import Mistake, Problem, expected
from wasm_middleware.limits import GIB, KIB, MIB

__all__ = [
    "DURATION_PATTERN",
    "MAX_DURATION",
    "SIZE_PATTERN",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_size",
]

#: One day. Everything that waits here waits while a client does.
MAX_DURATION: Final = 86_400.0

#: The same rules for an editor, in a JSON schema.
SIZE_PATTERN: Final = r"^[0-9]+(\.[0-9]+)? ?([KkMmGg][Ii]?)?[Bb]$"
DURATION_PATTERN: Final = r"^[0-9]+(\.[0-9]+)? ?(us|ms|s|m|h)$"

_SIZES: Final = {"B": 1, "KB": KIB, "MB": MIB, "GB": GIB, "KIB": KIB, "MIB": MIB, "GIB": GIB}
_DURATIONS: Final = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_NO_LIMIT: Final = "write none for no limit"
# Bounded, so that no number takes long to read.
_QUANTITY: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")


def parse_size(value: object, *, least: int, most: int) -> int:
    """Read a size in bytes between `least` and `most`; raise `Mistake` with what to write."""
    number, unit = _split(value, "a size such as 16MB", "write 16MB; the units are B, KB, MB, GB")
    factor = _SIZES.get(unit.upper())

    if factor is None:
        raise _unknown_unit(value, "B, KB, MB, GB, KiB, MiB, GiB")

    size = number * factor

    if size != int(size):
        raise Mistake(Problem("{seen} is not a whole number of bytes", "", value))

    if not least <= size <= most:
        bounds = f"{format_size(least)} to {format_size(most)}"
        raise Mistake(Problem(f"{{seen}} is out of bounds, expected {bounds}", "", value))

    return int(size)


def parse_duration(value: object, *, none: bool = False) -> float:
    """Read a duration in seconds, more than nothing; raise `Mistake` with what to write.

    With `none`, that is the word for whoever means no limit; it is the caller's to read.
    """
    hint = "write 50ms; the units are us, ms, s, m, h"

    if none and value in (None, 0, "0"):
        hint = _NO_LIMIT

    number, unit = _split(value, "a duration such as 50ms", hint)
    factor = _DURATIONS.get(unit)

    if factor is None:
        raise _unknown_unit(value, "us, ms, s, m, h")

    seconds = float(number * factor)

    if not 0 < seconds <= MAX_DURATION:
        bounds = f"more than 0 and at most {format_duration(MAX_DURATION)}"
        hint = _NO_LIMIT if none else ""
        raise Mistake(Problem(f"{{seen}} is out of bounds, expected {bounds}", hint, value))

    return seconds


def format_size(size: int) -> str:
    """Write a size the way `parse_size` reads it, in the largest unit that keeps it exact."""
    for unit, factor in (("GB", GIB), ("MB", MIB), ("KB", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"

    return f"{size}B"


def format_duration(seconds: float) -> str:
    """Write a duration the way `parse_duration` reads it; below microseconds it is rounded."""
    microseconds = round(seconds * 1_000_000)
    factors = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000}

    for unit, factor in factors.items():
        if microseconds and microseconds % factor == 0:
            return f"{microseconds // factor}{unit}"

    return f"{microseconds}us"


def _split(value: object, what: str, hint: str) -> tuple[Decimal, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise Mistake(Problem("{seen} has no unit", hint, value))

    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None

    if match is None:
        raise expected(what, value, hint)

    if not match[2]:
        raise Mistake(Problem("{seen} has no unit", hint, value))

    return Decimal(match[1]), match[2]


def _unknown_unit(value: object, known: str) -> Mistake:
    return Mistake(Problem("{seen} has an unknown unit", f"the units are {known}", value))
