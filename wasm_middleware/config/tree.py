"""Collects a configuration value by value, from a file or from a dict, into a `Source`.

What both have in common is here: caps on how much there may be (aliases let ten lines of YAML
stand for billions of values), substitution, keys that must be text, and mistakes that are kept
while reading goes on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from wasm_middleware.config.environment import substitute
from wasm_middleware.config.problems import Loc, Mistake, Problem
from wasm_middleware.config.source import Place, Source
from wasm_middleware.errors import ConfigError, Diagnostic
from wasm_middleware.limits import MAX_CONFIG_BYTES

__all__ = ["MAX_DEPTH", "MAX_VALUES", "Tree", "is_unicode", "read_mapping"]

#: A thousand plugins with a hundred values each.
MAX_VALUES: Final = 100_000
#: Far below Python's own limit on recursion, far above what anybody writes by hand.
MAX_DEPTH: Final = 64
#: Text after substitution and with aliases written out.
_MAX_CHARACTERS: Final = 4 * MAX_CONFIG_BYTES


class Tree:
    """Values on their way into a `Source`, with the mistakes found so far."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.file = file
        self.problems: list[Diagnostic] = []
        self._environ = environ
        self._places: dict[Loc, Place] = {}
        self._key_places: dict[Loc, Place] = {}
        self._spellings: dict[Loc, str] = {}
        self._substituted: set[Loc] = set()
        self._failed: set[Loc] = set()
        self._values = 0
        self._characters = 0

    def enter(self, loc: Loc, place: Place) -> None:
        """Count one more value; end the reading where there are too many of them."""
        self._places[loc] = place
        self._values += 1

        if self._values > MAX_VALUES:
            self.give_up(loc, place, f"more than {MAX_VALUES:,} values, aliases written out")

        if len(loc) > MAX_DEPTH:
            self.give_up(loc[:-1], place, f"nested more than {MAX_DEPTH} levels deep")

    def key(self, loc: Loc, place: Place) -> None:
        """Keep the place of a key."""
        self._key_places[loc] = place

    def text(self, loc: Loc, text: str) -> str | None:
        """Substitute into a scalar; give None, and report it, where that fails."""
        try:
            replaced = substitute(text, self._environ) if "$" in text else text
            if not is_unicode(replaced):
                raise Mistake(Problem("is not valid Unicode"))
        except Mistake as mistake:
            for problem in mistake.problems:
                self.fail(loc, problem)

            return None

        if "${" in text:
            self._substituted.add(loc)

        self._characters += len(replaced)

        if self._characters > _MAX_CHARACTERS:
            self.give_up(loc, self._places[loc], "too much text, aliases written out")

        return replaced

    def spelled(self, loc: Loc, text: str) -> None:
        """Keep how a value that is not text was spelled."""
        self._spellings[loc] = text

    def fail(self, loc: Loc, problem: Problem) -> None:
        """Report a value that can't be used; what follows from it is not reported."""
        self._failed.add(loc)
        self.report(loc, self._places[loc], problem)

    def report(self, loc: Loc, place: Place, problem: Problem) -> None:
        """Report a mistake and go on."""
        path = ".".join(map(str, loc))
        self.problems.append(
            Diagnostic(self.file, place.line, place.column, path, problem.text(), problem.hint)
        )

    def give_up(self, loc: Loc, place: Place, message: str) -> NoReturn:
        """Report a mistake that makes the rest unreadable."""
        self.report(loc, place, Problem(message))
        raise ConfigError(self.problems)

    def source(self, values: Mapping[str, object], folder: Path) -> Source:
        """Give what was collected."""
        return Source(
            file=self.file,
            folder=folder,
            values=values,
            places=self._places,
            key_places=self._key_places,
            spellings=self._spellings,
            substituted=frozenset(self._substituted),
            failed=frozenset(self._failed),
        )


def read_mapping(
    config: Mapping[str, object], environ: Mapping[str, str], file: str = ""
) -> tuple[Source, list[Diagnostic]]:
    """Read a configuration given as a dict; its text stays text after substitution."""
    tree = Tree(file, environ)
    values = {str(key): _python(tree, value, (str(key),)) for key, value in config.items()}
    return tree.source(values, Path.cwd()), tree.problems


def _python(tree: Tree, value: object, loc: Loc) -> object:
    tree.enter(loc, Place())

    if isinstance(value, os.PathLike):
        value = os.fspath(value)

    if isinstance(value, str):
        return tree.text(loc, value)

    if isinstance(value, list | tuple):
        return [_python(tree, item, (*loc, index)) for index, item in enumerate(value)]

    if not isinstance(value, Mapping):
        return value

    result = {}

    for key, item in value.items():
        if isinstance(key, str) and is_unicode(key):
            result[key] = _python(tree, item, (*loc, key))
        else:
            tree.report(loc, Place(), Problem("the key {seen} is not text", "quote it", key))

    return result


def is_unicode(text: str) -> bool:
    """Tell whether `text` can become UTF-8.

    Python lets half a character into a str, from "\\ud800" or a variable that is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False

    return True
