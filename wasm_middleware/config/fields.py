"""The kinds of values that fields hold: how each is checked, and what an editor is told of it.

A `Kind` stands beside a type in an annotation. Its function turns what was written into what the
program wants, or raises `Mistake`; pydantic walks the structure, calls the functions and collects
what they raise. Pydantic's own conversions stay out of it: they take "yes" for true and 16MB for
16,000,000 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from wasm_middleware.config.environment import REFERENCE_PATTERN
from wasm_middleware.config.later import LATER_VALUES
from wasm_middleware.config.problems import Mistake, Problem, expected, not_yet, suggest
from wasm_middleware.config.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size

__all__ = [
    "CONTROL",
    "Kind",
    "choice",
    "duration",
    "file_path",
    "flag",
    "size",
    "some_of",
    "text",
    "whole",
]

#: Characters that have no business in names, paths and log lines.
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

#: A SHA-256 as `sha256sum` prints it.
DIGEST_PATTERN: Final = "[0-9A-Fa-f]{64}"


class Kind:
    """A check, and the JSON schema of what passes it."""

    def __init__(self, check: Callable[[object], object], schema: JsonSchemaValue) -> None:
        self.check = check
        self._schema = schema

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return dict(self._schema)


def flag(*, auto: bool = False) -> Kind:
    """True or false; with `auto`, also the word, which becomes None."""
    words = "auto, true or false" if auto else "true or false"

    def check(value: object) -> bool | None:
        if auto and value == "auto":
            return None

        if not isinstance(value, bool):
            raise expected(words, value, f"write {words}" if isinstance(value, str) else "")

        return value

    plain: JsonSchemaValue = {"type": "boolean"}
    return Kind(check, _or_reference(plain, {"enum": ["auto"]}) if auto else _or_reference(plain))


def whole(least: int, most: int) -> Kind:
    """A whole number between two others."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise expected("a whole number", value)

        if not least <= value <= most:
            bounds = f"expected {least} to {most}"
            raise Mistake(Problem(f"{{seen}} is out of bounds, {bounds}", "", value))

        return value

    return Kind(check, _or_reference({"type": "integer", "minimum": least, "maximum": most}))


def text(what: str = "text", pattern: str = "", hint: str = "") -> Kind:
    """Text without control characters, which `pattern` matches as a whole."""
    wanted = re.compile(pattern or r"[\s\S]*")

    def check(value: object) -> str:
        if isinstance(value, bool | int | float):
            raise expected(what, value, "put it in quotes")

        if not isinstance(value, str):
            raise expected(what, value)

        if CONTROL.search(value) or not wanted.fullmatch(value):
            raise expected(what, value, hint or "without control characters")

        return value

    schema: JsonSchemaValue = {"type": "string"}
    return Kind(check, _or_reference({**schema, "pattern": f"^{pattern}$"}) if pattern else schema)


def file_path() -> Kind:
    """The path of a file; becomes a Path."""
    as_text = text("a path", ".+").check

    def check(value: object) -> Path:
        return value if isinstance(value, Path) else Path(str(as_text(value)))

    return Kind(check, {"type": "string", "minLength": 1})


def choice(*allowed: str, key: str = "") -> Kind:
    """One word of several; `key` finds the words that later versions add."""
    words = " or ".join(allowed) if len(allowed) <= 2 else "one of " + ", ".join(allowed)

    def check(value: object) -> str:
        if value is False and "off" in allowed:
            return "off"  # a dict may come from a reader of YAML 1.1

        if not isinstance(value, str):
            raise expected(words, value)

        if value in allowed:
            return value

        scheme, slashes, _ = value.partition("//")
        seen = f"{scheme}//…" if slashes else value  # a URL may hold a password

        if value in LATER_VALUES.get(key, ()) or scheme in LATER_VALUES.get(key, ()):
            raise not_yet(seen, f"use {key}: {allowed[0]}")

        raise expected(words, seen, suggest(value, allowed))

    # `off` is false to an editor that reads YAML 1.1.
    words_and_off = [*allowed, False] if "off" in allowed else [*allowed]
    return Kind(check, _or_reference({"enum": words_and_off}))


def some_of(*allowed: str) -> Kind:
    """One word of several, or a list of them; becomes a tuple in their own order."""
    one = choice(*allowed)

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            one.check(value)
            return (str(value),)

        problems = []

        if not value:
            problems.append(Problem("is empty", "remove the key for all of them"))

        for index, item in enumerate(value):
            try:
                one.check(item)
            except Mistake as mistake:
                problems.append(mistake.problems[0].at(index))
            else:
                if item in value[:index]:
                    problems.append(Problem("{seen} stands here twice", "", item, (index,)))

        if problems:
            raise Mistake(*problems)

        return tuple(word for word in allowed if word in value)

    word = _or_reference({"enum": list(allowed)})
    several = {"type": "array", "items": word, "minItems": 1, "uniqueItems": True}
    return Kind(check, {"anyOf": [*word["anyOf"], several]})


def size(least: int, most: int) -> Kind:
    """A size in bytes between two others."""

    def check(value: object) -> int:
        return parse_size(value, least=least, most=most)

    return Kind(check, _or_reference({"type": "string", "pattern": SIZE_PATTERN}))


def duration(*, none: bool = False) -> Kind:
    """A duration in seconds; with `none`, also the word for no limit, which becomes None."""

    def check(value: object) -> float | None:
        return None if none and value == "none" else parse_duration(value, none=none)

    plain = {"type": "string", "pattern": DURATION_PATTERN}
    return Kind(check, _or_reference(plain, {"enum": ["none"]}) if none else _or_reference(plain))


def _or_reference(*schemas: JsonSchemaValue) -> JsonSchemaValue:
    # An editor sees `${PORT}` where the program will see a number.
    return {"anyOf": [*schemas, {"type": "string", "pattern": REFERENCE_PATTERN}]}
