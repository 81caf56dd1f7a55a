"""From a file to YAML nodes: bytes, text, one document, within bounds.

Only PyYAML's parser is used. It resolves plain scalars by YAML 1.1, where `no` is false and
`22:30` is 1350; here they keep the tag `PLAIN` and `loader` says what they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import yaml

from wasm_middleware.config.source import Place
from wasm_middleware.config.tree import MAX_DEPTH, MAX_VALUES
from wasm_middleware.errors import ConfigError, Diagnostic
from wasm_middleware.limits import MAX_CONFIG_BYTES, MIB

__all__ = ["PLAIN", "compose", "place_of", "read_text", "unreadable"]

#: The tag of a scalar that was written without quotes; no file can spell it.
PLAIN: Final = " plain"
#: As PyYAML counts lines.
_LINE_END: Final = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


def read_text(file: str) -> str:
    """Read a file as UTF-8; raises `ConfigError`."""
    here = Place()

    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        hint = "" if os.path.isabs(file) else f"looked in {Path.cwd()}"
        raise unreadable(file, here, "no such file", hint) from None
    except IsADirectoryError:
        message, hint = "is a folder, expected a YAML file", "name the file in it"
        raise unreadable(file, here, message, hint) from None
    except OSError as error:
        message, hint = f"can't be read: {error.strerror}", "check its path and permissions"
        raise unreadable(file, here, message, hint) from None
    except ValueError:
        raise unreadable(file, here, "is not a path") from None

    if len(content) > MAX_CONFIG_BYTES:
        raise unreadable(file, here, f"is larger than {MAX_CONFIG_BYTES // MIB}MB")

    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(content.count(b"\n", 0, error.start) + 1, 1)
        raise unreadable(file, place, "is not UTF-8", "save the file as UTF-8") from None


def compose(text: str, file: str) -> yaml.Node | None:
    """Parse the only document in `text`, None where there is none; raises `ConfigError`."""
    try:
        composer = _Composer(text)
        node = composer.get_node() if composer.check_node() else None
        second = composer.next_mark() if composer.check_node() else None
    except yaml.reader.ReaderError as error:
        lines = _LINE_END.split(text[: error.position])
        place = Place(len(lines), len(lines[-1]) + 1)
        raise unreadable(file, place, "holds a control character", "remove it") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax(file, text, error) from None
    except (ValueError, OverflowError):
        # PyYAML trips over "\UFFFFFFFF" without saying where.
        message = "not valid YAML: an escape stands for no character"
        raise unreadable(file, Place(), message) from None

    if second is not None:
        message, hint = "a second document starts here", "keep one, and remove the ---"
        raise unreadable(file, place_of(second), message, hint)

    return node


def place_of(mark: yaml.Mark) -> Place:
    """Give the place of PyYAML's mark."""
    return Place(mark.line + 1, mark.column + 1)


def unreadable(file: str, place: Place, message: str, hint: str = "") -> ConfigError:
    """Make the error of a file in which nothing else can be checked."""
    return ConfigError([Diagnostic(file, place.line, place.column, "", message, hint)])


class _Composer(yaml.SafeLoader):
    """PyYAML's parser with bounds, and without its opinions on plain scalars."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._nodes += 1

        if self._depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} levels deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.next_mark())

        # Keys are nodes, too.
        if self._nodes > 2 * MAX_VALUES:
            problem = f"more than {MAX_VALUES:,} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.next_mark())

        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: tuple[bool, bool]) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return PLAIN

        # The stubs leave this one untyped, and the one below.
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    def next_mark(self) -> yaml.Mark:
        mark: yaml.Mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return mark


def _syntax(file: str, text: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    place = place_of(mark) if mark else Place()
    message = f"not valid YAML: {error.problem or error.context}"

    if error.context and error.problem:
        message += f" {error.context}"

    if error.context_mark and error.context_mark.line + 1 != place.line:
        message += f" that starts on line {error.context_mark.line + 1}"

    hint = "indent with spaces" if "\\t" in message else ""

    line = text.splitlines()[place.line - 1 : place.line]

    # Within braces, YAML ends a plain scalar at the next brace.
    if "flow" in message and any("${" in part for part in line):
        hint = "within [ ] and { }, put ${NAME} in quotes"

    return unreadable(file, place, message, hint)
