"""Which routes of the file an endpoint's paths belong to, for people: requests are looked up one by
one (`runtime.paths`).

An endpoint's template stands for many paths, and these may belong to several routes of the file, or
to none: `/{rest:path}` has `/private/x` among them. Both are compared segment by segment. Where a
template has more than a convertor of one segment can say, it may stand for anything from there on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, TypeAlias, TypeVar

__all__ = ["met_by", "of_pattern", "of_template"]

_T = TypeVar("_T")


class _Rest(Enum):
    """Any number of segments, none included."""

    REST = 0


#: A segment: its text, or an expression; the rest stands at the end.
Segments: TypeAlias = Sequence["str | re.Pattern[str] | _Rest"]

_REST: Final = _Rest.REST
_ANY: Final = re.compile("[^/]+")
_CONVERTOR: Final = re.compile(r"\{[^{}:]*(:[^{}]*)?\}")


def of_template(path: str, *, mount: bool) -> Segments:
    """The segments of an endpoint's template; that of a mount ends in `/*` and means all below."""
    path = path.removesuffix("/*") if mount else path
    segments: list[str | re.Pattern[str] | _Rest] = []

    for text in path.rstrip("/").split("/")[1:]:
        if ":path}" in text:
            return [*segments, _REST]

        if _CONVERTOR.search(text):
            # Every second piece is the convertor's own name.
            parts = _CONVERTOR.split(text)[::2]
            segments.append(re.compile("[^/]+".join(map(re.escape, parts))))
        else:
            segments.append(text)

    return [*segments, _REST] if mount else segments


def of_pattern(pattern: str) -> Segments:
    """The segments of a route's path in the file."""
    body = pattern.removesuffix("/*")
    texts = body.rstrip("/").split("/")[1:]
    segments = [_ANY if _CONVERTOR.fullmatch(text) else text for text in texts]
    return segments if body == pattern else [*segments, _REST]


def met_by(template: Segments, routes: Iterable[tuple[Segments, _T]]) -> tuple[list[_T], bool]:
    """The values of the routes that a path of `template` may meet first, and whether one may meet
    none of them."""
    found = []

    for pattern, value in routes:
        if _overlap(template, pattern):
            found.append(value)

        if _covers(pattern, template):
            return found, False

    return found, True


def _overlap(template: Segments, pattern: Segments) -> bool:
    """Whether a path may match both."""
    for one, other in zip(template, pattern, strict=False):
        if one is _REST or other is _REST:
            return True

        if not _fit(one, other):
            return False

    # What one has more than the other must be able to be nothing.
    shorter = min(len(template), len(pattern))
    return all(part is _REST for part in (*template[shorter:], *pattern[shorter:]))


def _fit(one: str | re.Pattern[str], other: str | re.Pattern[str]) -> bool:
    if isinstance(one, str):
        return one == other if isinstance(other, str) else other.fullmatch(one) is not None

    return not isinstance(other, str) or one.fullmatch(other) is not None


def _covers(pattern: Segments, template: Segments) -> bool:
    """Whether every path of the template matches the pattern."""
    for one, other in zip(pattern, template, strict=False):
        if one is _REST:
            return True

        if other is _REST or (one is not _ANY and one != other):
            return False

    return len(pattern) == len(template) or pattern[len(template) :] == [_REST]
