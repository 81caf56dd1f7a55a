"""Checks that need more than one value: unique names, and routes that name plugins.

They read what was written, not the settings: one bad value anywhere means no settings, and these
mistakes are to be told in the same run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from wasm_middleware.config.problems import Loc, Problem, suggest
from wasm_middleware.config.source import Source
from wasm_middleware.errors import Diagnostic

__all__ = ["check_references", "find_oddities"]


def check_references(source: Source) -> Iterator[Diagnostic]:
    """Report names that stand twice or for nothing."""
    names = list(_names(source, "plugins", "name"))
    ids = list(_names(source, "routes", "id", "path"))
    yield from _duplicates(source, names, "another plugin has the name {seen}")
    yield from _duplicates(source, ids, "another route has the id {seen}", "give each its own id")

    for index, route in _entries(source, "routes"):
        used = list(_route_plugins(route, ("routes", index, "plugins")))
        yield from _duplicates(source, used, "the route has {seen} twice")
        yield from _unknown(source, used, names)


#: What a network plugin has no use for.
_HTTP_ONLY: Final = ("phase", "bodies", "allow_on_headers_stop_iteration")


def find_oddities(source: Source) -> Iterator[Diagnostic]:
    """Warn of what has no effect, or another one than it seems."""
    defaults = source.values.get("defaults")
    usual = defaults.get("type") if isinstance(defaults, Mapping) else None

    for index, plugin in _entries(source, "plugins"):
        if plugin.get("type", usual) == "network":
            for key in _HTTP_ONLY:
                if key in plugin:
                    message = "has no effect on a plugin of type network"
                    yield source.diagnostic(("plugins", index, key), message, "remove it")

    for index, route in _entries(source, "routes"):
        loc: Loc = ("routes", index)

        if "upstream" in route:
            message = "has no effect: the app is the upstream"
            yield source.diagnostic((*loc, "upstream"), message)

        if "%" in str(route.get("path")):
            message = "holds a %, and routes are matched on the decoded path"
            yield source.diagnostic((*loc, "path"), message, "write the character itself")


def _duplicates(
    source: Source, names: Iterable[tuple[Loc, str]], message: str, hint: str = ""
) -> Iterator[Diagnostic]:
    first: dict[str, Loc] = {}

    for loc, name in names:
        if name in first:
            where = f"the first is at {source.line_of(first[name])}"
            problem = Problem(message, f"{where}; {hint}" if hint else where, name)
            yield source.problem(loc, problem)
        else:
            first[name] = loc


def _unknown(
    source: Source, used: Iterable[tuple[Loc, str]], names: list[tuple[Loc, str]]
) -> Iterator[Diagnostic]:
    known = {name for _, name in names}
    # A name from the environment is not suggested, since that would show it.
    shown = [name for loc, name in names if not source.is_substituted(loc)]

    # Don't blame a route for a list that could not be read.
    if not isinstance(source.values.get("plugins", []), list) or any(
        loc[0] == "plugins" for loc in source.failed
    ):
        return

    for loc, name in used:
        if name not in known:
            hint = suggest(name, shown) or "define it under plugins"
            yield source.problem(loc, Problem("no plugin has the name {seen}", hint, name))


def _names(source: Source, above: str, *keys: str) -> Iterator[tuple[Loc, str]]:
    for index, entry in _entries(source, above):
        key = next((key for key in keys if key in entry), keys[0])
        name = entry.get(key)

        if isinstance(name, str):
            yield (above, index, key), name


def _route_plugins(route: Mapping[str, object], above: Loc) -> Iterator[tuple[Loc, str]]:
    plugins = route.get("plugins")

    for index, entry in enumerate(plugins if isinstance(plugins, list) else ()):
        name = entry.get("name") if isinstance(entry, Mapping) else entry

        if isinstance(name, str):
            yield (*above, index, "name"), name


def _entries(source: Source, above: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    entries = source.values.get(above)

    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, Mapping):
            yield index, entry
