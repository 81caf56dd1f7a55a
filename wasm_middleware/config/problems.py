"""How a mistake is said by code that knows the value but not its place.

A check sees one value and nothing else: not the file, not the line. It raises a `Mistake` that
carries `Problem`s, and whoever knows the place (`Source`) turns each into a `Diagnostic`.

A message never contains the value itself but the mark `{seen}`: what came out of an environment
variable may be a secret, and only `Source` knows whether it did.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from wasm_middleware.limits import MAX_NAME_IN_MESSAGE

__all__ = ["Loc", "Mistake", "Problem", "expected", "not_yet", "show", "suggest"]

#: Where a value stands: the keys and indexes that lead to it from the top.
Loc = tuple[str | int, ...]

_HIDDEN: Final = "the value of an environment variable"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake; `below` leads from the checked value to the wrong part of it.

    `{seen}` in the message stands for `seen`; `at_key` means the key is wrong, not its value.
    """

    message: str
    hint: str = ""
    seen: object = None
    below: Loc = ()
    at_key: bool = False

    def text(self, *, hidden: bool = False) -> str:
        """Give the message, with the value or, when it is `hidden`, without."""
        return self.message.replace("{seen}", _HIDDEN if hidden else show(self.seen))

    def at(self, *part: str | int) -> Problem:
        """Give the same problem seen from a value that holds this one as a part."""
        return replace(self, below=(*part, *self.below))


class Mistake(ValueError):
    """A value is wrong, in one way or several."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(problem.text() for problem in problems))


def expected(what: str, seen: object, hint: str = "") -> Mistake:
    """Say that a value is not of the wanted kind."""
    if seen is None:
        return Mistake(Problem(f"has no value, expected {what}", hint or "or remove the key"))

    return Mistake(Problem(f"expected {what}, got {{seen}}", hint, seen))


def not_yet(seen: object, hint: str) -> Mistake:
    """Say that a value is planned for a later version."""
    return Mistake(
        Problem("{seen} is not available in this version of wasm-middleware", hint, seen)
    )


def show(value: object) -> str:
    """Show a value in a message: a scalar as it is, anything else by its kind."""
    if value is None:
        return "nothing"

    if isinstance(value, bool):
        return "true" if value else "false"

    if isinstance(value, str):
        shown = repr(value)
        return shown if len(shown) <= MAX_NAME_IN_MESSAGE else shown[:MAX_NAME_IN_MESSAGE] + "…"

    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**30):
        return str(value)

    if isinstance(value, int):
        return "a very large number"

    if isinstance(value, Mapping):
        return "a mapping"

    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def suggest(word: object, known: Iterable[str]) -> str:
    """Give the hint "did you mean …?", or nothing when no known word is near."""
    matches = difflib.get_close_matches(str(word)[:100].lower(), list(known), n=1)
    return f"did you mean {matches[0]}?" if matches else ""
