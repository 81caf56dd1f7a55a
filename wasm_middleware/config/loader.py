"""Gives YAML nodes their values as YAML 1.2 means them, and every value its place.

PyYAML follows YAML 1.1, where `no` is false, `010` is 8, `22:30` is 1350 and of two equal keys
the last one wins in silence. Here plain scalars are only what they look like: null, true, false
and decimal numbers; anything else is text, and a second key is a mistake.

A plain scalar is resolved after substitution (`${PORT}` may become a number); a quoted one stays
text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from wasm_middleware.config.document import PLAIN, compose, place_of, read_text, unreadable
from wasm_middleware.config.problems import Loc, Problem
from wasm_middleware.config.source import Place, Source
from wasm_middleware.config.tree import Tree, is_unicode
from wasm_middleware.errors import ConfigError, Diagnostic

__all__ = ["read_yaml", "resolve_plain"]

_STANDARD: Final = "tag:yaml.org,2002:"
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
# Python refuses to read longer numbers, since that takes quadratic time.
_MAX_DIGITS: Final = 4000


def read_yaml(
    path: str | os.PathLike[str], environ: Mapping[str, str]
) -> tuple[Source, list[Diagnostic]]:
    """Read a file, and the mistakes that don't hide the rest of it.

    Raises `ConfigError` where nothing can be read: no file, not YAML, not a mapping.
    """
    file = os.fspath(path)
    tree = Tree(file, environ)
    node = compose(read_text(file), file)

    if node is None or (isinstance(node, yaml.ScalarNode) and _is_null(node)):
        raise unreadable(file, Place(), "the file is empty", "write plugins: [] for no plugins")

    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "text"
        message = f"expected a mapping at the top, got {kind}"
        raise unreadable(file, place_of(node.start_mark), message, "begin with plugins:")

    values = _Walk(tree).value(node, ())

    if not isinstance(values, dict):
        raise ConfigError(tree.problems)

    return tree.source(values, Path(os.path.abspath(file)).parent), tree.problems


def resolve_plain(text: str) -> object:
    """Give the value of a scalar written without quotes."""
    word = text.lower()

    if word in ("", "~", "null"):
        return None

    if word in ("true", "false"):
        return word == "true"

    if len(text) <= _MAX_DIGITS:
        if _INT.fullmatch(text):
            return int(text)

        if _FLOAT.fullmatch(text):
            return float(text)

    return float(_NOT_FINITE[word]) if word in _NOT_FINITE else text


class _Walk:
    """Builds values from nodes; an alias is walked again wherever it stands."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, loc: Loc) -> object:
        place = place_of(node.start_mark)
        self._tree.enter(loc, place)

        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, loc)

        if node.tag not in (_STANDARD + "map", _STANDARD + "seq"):
            self._unknown_tag(node, loc)
            return None

        if any(node is parent for parent in self._open):
            self._tree.give_up(loc, place, "an alias stands inside of what it stands for")

        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)

        self._open.append(node)
        items = [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        self._open.pop()
        return items

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, object]:
        self._open.append(node)
        values: dict[str, object] = {}
        first: dict[str, int] = {}

        for key_node, value_node in node.value:
            place = place_of(key_node.start_mark)
            key = self._key(key_node, loc)

            if key is None:
                continue

            if key in values:
                hint = f"the first is on line {first[key]}"
                self._tree.report((*loc, key), place, Problem("duplicate key", hint))
                continue

            first[key] = place.line
            self._tree.key((*loc, key), place)
            values[key] = self.value(value_node, (*loc, key))

        self._open.pop()
        return values

    def _key(self, node: yaml.Node, loc: Loc) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in (PLAIN, _STANDARD + "str"):
            plain = node.tag == PLAIN
            key = resolve_plain(node.value) if plain else node.value

            if plain and key == "<<":
                problem = Problem("merge keys are not supported", "use defaults, or an alias")
            elif isinstance(key, str) and is_unicode(key):
                return key
            else:
                problem = Problem("the key {seen} is not text", "quote it", key)
        else:
            problem = Problem("a key must be text")

        self._tree.report(loc, place_of(node.start_mark), problem)
        return None

    def _scalar(self, node: yaml.ScalarNode, loc: Loc) -> object:
        if node.tag not in (PLAIN, _STANDARD + "str"):
            self._unknown_tag(node, loc)
            return None

        text = self._tree.text(loc, node.value)

        if text is None or node.tag != PLAIN:
            return text

        value = resolve_plain(text)

        if not isinstance(value, str):
            self._tree.spelled(loc, text)

        return value

    def _unknown_tag(self, node: yaml.Node, loc: Loc) -> None:
        tag = node.tag.replace(_STANDARD, "!!")
        self._tree.fail(loc, Problem("the tag {seen} is not supported", "remove it", tag))


def _is_null(node: yaml.ScalarNode) -> bool:
    return bool(node.tag == PLAIN) and resolve_plain(node.value) is None
