"""Turns what pydantic found into diagnostics: a place, a sentence, a hint.

Pydantic's own words never reach a user. They echo the input, which may be a secret, and they
speak of "extra inputs" where the reader needs to know which key is near.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from wasm_middleware.config.later import LATER_KEYS
from wasm_middleware.config.problems import Loc, Mistake, Problem, expected, suggest
from wasm_middleware.config.settings import (
    CalloutSettings,
    Instances,
    PluginDefaults,
    PluginSettings,
    RoutePlugin,
    RouteSettings,
    Settings,
    UpstreamSettings,
)
from wasm_middleware.config.source import Source
from wasm_middleware.errors import Diagnostic

__all__ = ["diagnose"]

#: What stands where; `*` is any index or, under `upstreams`, any name.
_MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "": Settings,
    "plugins.*": PluginSettings,
    "plugins.*.instances": Instances,
    "defaults": PluginDefaults,
    "defaults.instances": Instances,
    "routes.*": RouteSettings,
    "routes.*.plugins.*": RoutePlugin,
    "upstreams.*": UpstreamSettings,
    "callouts": CalloutSettings,
}
#: More keys than this don't fit in a hint.
_FEW: Final = 8


def diagnose(error: ValidationError, source: Source) -> Iterator[Diagnostic]:
    """Give a diagnostic for each mistake, but for those that only follow from another one."""
    for details in error.errors(include_url=False, include_input=True):
        for problem in _problems(details, source):
            if not source.is_failed(details["loc"] + problem.below):
                yield source.problem(details["loc"], problem)


def _problems(details: ErrorDetails, source: Source) -> tuple[Problem, ...]:
    loc, value = details["loc"], details["input"]
    cause = details.get("ctx", {}).get("error")

    if isinstance(cause, Mistake):
        return cause.problems

    match details["type"]:
        case "extra_forbidden":
            return (_unknown_key(loc, source),)
        case "default_factory_not_called":
            return ()  # the default follows from a value that is reported
        case "missing":
            return _missing(loc, value)
        case "tuple_type":
            return expected("a list", value, "start each item with a dash").problems
        case "dict_type":
            what, hint = "a mapping of names to URLs", "write {auth: http://127.0.0.1:9000}"
            return expected(what, value, hint).problems
        case "model_type" | "model_attributes_type":
            model = _MODELS.get(_pattern(loc), Settings)
            return expected("a mapping", value, f"with the keys {_main_keys(model)}").problems
        case _:
            return (Problem("is not valid"),)


def _unknown_key(loc: Loc, source: Source) -> Problem:
    *above, key = loc
    path = _pattern(loc)
    later = LATER_KEYS.get(path) or LATER_KEYS.get(path.replace("defaults.", "plugins.*.", 1))

    if later:
        message = "is not available in this version of wasm-middleware"
        return Problem(message, later, at_key=True)

    if above == ["defaults"] and key in PluginSettings.model_fields:
        return Problem("has no default", "each plugin has its own", at_key=True)

    known = list(_MODELS[_pattern(tuple(above))].model_fields)
    hint = suggest(key, known)

    if not hint and above:
        elsewhere = suggest(key, Settings.model_fields)
        hint = elsewhere.replace("?", ", beside plugins?")

    if not hint and len(known) <= _FEW:
        hint = "known: " + ", ".join(known)

    return Problem(
        "unknown option" if loc[0] in source.options else "unknown key", hint, at_key=True
    )


def _missing(loc: Loc, value: object) -> tuple[Problem, ...]:
    if loc[-1] == "path" and isinstance(value, Mapping) and "url" in value:
        return ()  # what is wrong with `url` says it already

    return (Problem("is missing"),)


def _main_keys(model: type[BaseModel]) -> str:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    some = [*list(model.model_fields)[:3], "…"] if len(model.model_fields) > _FEW else None
    return ", ".join(required or some or model.model_fields)


def _pattern(loc: Loc) -> str:
    if loc[:1] == ("upstreams",) and len(loc) > 1:
        loc = ("upstreams", 0, *loc[2:])

    return ".".join("*" if isinstance(part, int) else part for part in loc)
