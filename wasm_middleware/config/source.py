"""Where every value of a configuration stands, kept for as long as its settings live.

A mistake is often found long after parsing: a module that does not compile, a plugin that would
not start. With its `Source` a later layer still reports it at the right line. It also remembers
which values came out of environment variables, so that no message shows one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from wasm_middleware.config.problems import Loc, Problem
from wasm_middleware.errors import Diagnostic

__all__ = ["OPTIONS", "Place", "Source"]

#: Stands for a file in what is reported of keyword options.
OPTIONS: Final = "<options>"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Place:
    """A line and a column, counted from 1; 0 where there is none."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration as it was written, with the place of every value in it."""

    #: The file as the caller named it; empty for a dict.
    file: str = ""
    #: What relative paths are relative to.
    folder: Path = field(default_factory=Path.cwd)
    #: What was written, after substitution and before any check.
    values: Mapping[str, object] = field(default_factory=dict, repr=False)
    places: Mapping[Loc, Place] = field(default_factory=dict, repr=False)
    key_places: Mapping[Loc, Place] = field(default_factory=dict, repr=False)
    #: Plain numbers and booleans as they were spelled (`3.10`, which is 3.1 as a number).
    spellings: Mapping[Loc, str] = field(default_factory=dict, repr=False)
    #: Values that hold something from the environment: never shown.
    substituted: frozenset[Loc] = frozenset()
    #: Values that could not be read and are reported already.
    failed: frozenset[Loc] = frozenset()
    #: Top-level keys that keyword options have replaced.
    options: frozenset[str] = frozenset()

    def diagnostic(self, loc: Loc, message: str, hint: str = "") -> Diagnostic:
        """Report a mistake at `loc`, or at the nearest parent of it that exists."""
        return self.problem(loc, Problem(message, hint))

    def problem(self, loc: Loc, problem: Problem) -> Diagnostic:
        """Report a `Problem` of the value at `loc`."""
        loc = self._written(loc + problem.below)
        place = self._place(loc, at_key=problem.at_key)
        by_option = bool(loc) and loc[0] in self.options
        return Diagnostic(
            file=OPTIONS if by_option else self.file,
            line=place.line,
            column=place.column,
            path=".".join(map(str, loc)),
            message=problem.text(hidden=self.is_substituted(loc)),
            hint=problem.hint,
        )

    def is_substituted(self, loc: Loc) -> bool:
        """Tell whether the value at `loc` holds something from the environment."""
        return self._written(loc) in self.substituted

    def is_failed(self, loc: Loc) -> bool:
        """Tell whether a mistake at `loc` only follows from one that is reported already."""
        return any(loc[:end] in self.failed for end in range(len(loc) + 1))

    def line_of(self, loc: Loc) -> str:
        """Name a place within a sentence: its line, or its path where there are no lines."""
        place = self._place(loc, at_key=False)
        return f"line {place.line}" if place.line else ".".join(map(str, loc))

    def plugin(self, name: str) -> Loc:
        """Find the entry of the plugin called `name`."""
        plugins = self.values.get("plugins")

        for index, entry in enumerate(plugins if isinstance(plugins, list) else ()):
            if isinstance(entry, Mapping) and entry.get("name") == name:
                return ("plugins", index)

        return ("plugins",)

    def overridden(self, options: Source) -> Source:
        """Give the source in which each top-level key of `options` replaces this one's."""
        names = frozenset(options.values)
        return replace(
            self,
            values={**self.values, **options.values},
            places=_without(self.places, names),
            key_places=_without(self.key_places, names),
            spellings=_without(self.spellings, names),
            substituted=_kept(self.substituted, names) | options.substituted,
            failed=_kept(self.failed, names) | options.failed,
            options=self.options | names,
        )

    def _written(self, loc: Loc) -> Loc:
        # Checks may look into a short form as if it were the long one (`phase: x` is a list of
        # one): what was not written is cut off, but for a key that is missing from a mapping.
        value: object = self.values

        for end, part in enumerate(loc):
            if isinstance(value, Mapping):
                if part not in value:
                    return loc[: end + 1]

                value = value[part]
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return loc[:end]

        return loc

    def _place(self, loc: Loc, *, at_key: bool) -> Place:
        if at_key and loc in self.key_places:
            return self.key_places[loc]

        if loc and loc[0] in self.options:
            return Place()

        while loc and loc not in self.places:
            loc = loc[:-1]

        return self.places.get(loc, Place())


def _without(table: Mapping[Loc, _T], names: frozenset[str]) -> dict[Loc, _T]:
    return {loc: value for loc, value in table.items() if not (loc and loc[0] in names)}


def _kept(locs: frozenset[Loc], names: frozenset[str]) -> frozenset[Loc]:
    return frozenset(loc for loc in locs if not (loc and loc[0] in names))
