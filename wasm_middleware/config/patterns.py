"""What routes are made of: path patterns and methods.

A pattern is what it looks like: exact, `{name}` for one whole segment, a trailing `/*` for the
path before it and all below. There is no second way to say the same and no half of a segment, so
that a reader of the file sees what a pattern covers; a plugin that guards a path depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from wasm_middleware.config.fields import CONTROL, Kind
from wasm_middleware.config.problems import Mistake, Problem, expected

__all__ = ["methods", "route_path"]

#: A token of RFC 9110.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_PARAMETER: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


def route_path() -> Kind:
    """A path pattern."""
    return Kind(_check_path, {"type": "string", "pattern": r"^(/|.*\$\{)"})


def methods() -> Kind:
    """A list of HTTP methods; becomes a set in upper case."""
    token = {"type": "string", "pattern": f"^{_TOKEN.pattern}$"}
    reference = {"type": "string", "pattern": r"\$\{"}
    items = {"anyOf": [token, reference]}
    return Kind(_to_methods, {"type": "array", "items": items, "minItems": 1})


def _check_path(value: object) -> str:
    if not isinstance(value, str):
        raise expected("a path such as /private/*", value)

    problems = [Problem(message, hint, value) for message, hint in _flaws(value)]

    if problems:
        raise Mistake(*problems)

    return value


def _flaws(path: str) -> Iterator[tuple[str, str]]:
    if not path.startswith("/"):
        yield "{seen} does not begin with /", ""
        return

    if CONTROL.search(path):
        yield "{seen} holds a control character", ""

    if "?" in path or "#" in path:
        yield "{seen} holds ? or #, which is never part of a path", ""

    if "//" in path:
        yield "{seen} holds an empty segment", "write one /"

    segments = path.split("/")[1:]

    if "*" in path.removesuffix("/*"):
        yield "{seen} has a * that is not a trailing /*", "use {name} for one segment"

    names = [segment for segment in segments if "{" in segment or "}" in segment]

    if not all(_PARAMETER.fullmatch(name) for name in names):
        yield "{seen} has braces that are not a whole segment {name}", "use /* for all below"
    elif len(set(names)) < len(names):
        yield "{seen} has the same {name} twice", ""


def _to_methods(value: object) -> frozenset[str]:
    if not isinstance(value, list | tuple | frozenset):
        raise expected("a list such as [GET, POST]", value)

    if not value:
        raise Mistake(Problem("is empty", "remove the key for every method"))

    problems = [
        Problem("expected an HTTP method, got {seen}", "", item, (index,))
        for index, item in enumerate(value)
        if not isinstance(item, str) or not _TOKEN.fullmatch(item)
    ]

    if problems:
        raise Mistake(*problems)

    return frozenset(item.upper() for item in value)
