"""What a plugin is given: its configuration as bytes, its environment, the calls it may make.

Envoy's rule for configurations: text is handed over as it is, anything else as JSON. Only what
JSON can say may stand there; a date would reach each plugin in a spelling of our own making.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic.json_schema import JsonSchemaValue

from wasm_middleware.abi.signatures import CALLBACKS, HOST_CALLS, WASI_CALLS
from wasm_middleware.config.fields import Kind
from wasm_middleware.config.problems import Mistake, Problem, expected, suggest

__all__ = ["capabilities", "environment", "opaque"]

_CAPABILITY: Final = re.compile(r"[a-z_][a-z0-9_]*")
_CAPABILITIES: Final = frozenset((*HOST_CALLS, *WASI_CALLS, *CALLBACKS))


def opaque() -> Kind:
    """Any value; becomes the bytes that the plugin reads."""
    return Kind(_to_bytes, {})


def environment() -> Kind:
    """A mapping of names to text; becomes pairs in the order of the file."""
    scalar = {"type": ["string", "number", "boolean"]}
    names = {"pattern": "^[^=]+$"}
    schema = {"type": "object", "additionalProperties": scalar, "propertyNames": names}
    return Kind(_to_pairs, schema)


def capabilities() -> Kind:
    """A list of host calls; becomes a set."""
    name: JsonSchemaValue = {"type": "string", "pattern": f"^{_CAPABILITY.pattern}$"}
    return Kind(_to_names, {"type": "array", "items": name})


def _to_bytes(value: object) -> bytes:
    if value is None:
        return b""

    if isinstance(value, bytes):
        return value

    if isinstance(value, str):
        return value.encode()

    problems = list(_not_json(value))

    if problems:
        raise Mistake(*problems)

    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _not_json(value: object) -> Iterator[Problem]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Problem("{seen} is not a number in JSON", "put it in quotes", value)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from (problem.at(index) for problem in _not_json(item))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from (problem.at(key) for problem in _not_json(item))
            else:
                yield Problem("the key {seen} is not text", "quote it", key)
    elif value is not None and not isinstance(value, str | bool | int | float):
        yield Problem("{seen} has no form in JSON", "write it as text", value)


def _to_pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise expected("a mapping of names to text", value)

    pairs, problems = [], []

    for key, item in value.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            problems.append(
                Problem("not a name for an environment variable", "", None, (key,), at_key=True)
            )
        elif isinstance(item, bool):
            pairs.append((key, "true" if item else "false"))
        elif not isinstance(item, str | int | float):
            problems.append(expected("text", item).problems[0].at(key))
        elif "\0" in str(item):
            problems.append(Problem("holds a NUL character", "", None, (key,)))
        else:
            pairs.append((key, str(item)))

    if problems:
        raise Mistake(*problems)

    return tuple(pairs)


def _to_names(value: object) -> frozenset[str]:
    if not isinstance(value, list | tuple | frozenset):
        raise expected("a list of host calls such as [proxy_log]", value)

    problems = [
        Problem(
            "expected a host call or callback such as proxy_log, got {seen}",
            suggest(item, _CAPABILITIES),
            item,
            (index,),
        )
        for index, item in enumerate(value)
        if not isinstance(item, str) or item not in _CAPABILITIES
    ]

    if problems:
        raise Mistake(*problems)

    return frozenset(value)
