"""A header map: ordered pairs of bytes, with names in lower case and duplicates kept.

Pseudo-headers stand first, as in Envoy, and count. In a request `host` and `:authority` are one
header: it is listed as `:authority` and answers to both names.

What comes from a guest is checked here, once: a name is an RFC 9110 token or a known pseudo-header,
a value holds no CR, LF or NUL. `InvalidHeader` says which rule was broken.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from wasm_middleware.abi.pairs import Pair

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_FORBIDDEN_IN_VALUES = re.compile(rb"[\r\n\0]")
PSEUDO_HEADERS = frozenset((b":authority", b":method", b":path", b":scheme", b":status"))


class InvalidHeader(ValueError):
    """A guest's header would not be one on the wire."""


@functools.lru_cache(maxsize=1024)
def canonical_name(name: bytes) -> bytes:
    """The name in lower case, `host` as `:authority`; raise `InvalidHeader` if it is no name."""
    lower = name.lower()

    if not _TOKEN.fullmatch(lower) and lower not in PSEUDO_HEADERS:
        raise InvalidHeader(f"{name[:100]!r} is not a header name")

    return b":authority" if lower == b"host" else lower


def check_value(name: bytes, value: bytes) -> None:
    """Raise `InvalidHeader` for a value that would break out of its line."""
    if _FORBIDDEN_IN_VALUES.search(value):
        raise InvalidHeader(f"the value of {name[:100]!r} contains CR, LF or NUL")


class HeaderMap:
    """One map of a stream.

    `changed` tells whether a guest has written to it, `pseudo_changed` whether to a pseudo-header.
    """

    __slots__ = ("changed", "pairs", "pseudo_changed")

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        self.changed = False
        self.pseudo_changed = False

    def get(self, name: bytes) -> bytes | None:
        """The first value of that name, in any case; None if there is none."""
        wanted = name.lower()

        if wanted == b"host":
            wanted = b":authority"

        for found, value in self.pairs:
            if found == wanted:
                return value

        return None

    def add(self, name: bytes, value: bytes) -> None:
        """Add one more header; to a pseudo-header, which is there once, after a comma (Envoy)."""
        name = canonical_name(name)
        check_value(name, value)
        present = self.get(name) if name[:1] == b":" else None

        if present is not None:
            self.replace(name, present + b"," + value)
            return

        self._insert(name, value)

    def replace(self, name: bytes, value: bytes) -> None:
        """Make it the only header of its name; add it if there is none."""
        name = canonical_name(name)
        check_value(name, value)
        pairs = self.pairs

        for index, (found, _) in enumerate(pairs):
            if found == name:
                pairs[index] = (name, value)
                pairs[index + 1 :] = [pair for pair in pairs[index + 1 :] if pair[0] != name]
                self._note_change(name)
                return

        self._insert(name, value)

    def remove(self, name: bytes) -> None:
        """Remove every header of that name."""
        name = name.lower()
        name = b":authority" if name == b"host" else name
        kept = [pair for pair in self.pairs if pair[0] != name]

        if len(kept) < len(self.pairs):
            self.pairs = kept
            self._note_change(name)

    def assign(self, pairs: Iterable[Pair]) -> None:
        """Put other pairs in place of all; pseudo-headers that are not among them stay."""
        given = [(canonical_name(name), value) for name, value in pairs]

        for name, value in given:
            check_value(name, value)

        names = {name for name, _ in given}
        kept = [pair for pair in self.pairs if pair[0][:1] == b":" and pair[0] not in names]
        pseudo = [pair for pair in given if pair[0][:1] == b":"]
        plain = [pair for pair in given if pair[0][:1] != b":"]
        self.pairs = kept + pseudo + plain
        self.changed = self.pseudo_changed = True

    def _insert(self, name: bytes, value: bytes) -> None:
        if name[:1] == b":":
            self.pairs.insert(0, (name, value))
        else:
            self.pairs.append((name, value))

        self._note_change(name)

    def _note_change(self, name: bytes) -> None:
        self.changed = True

        if name[:1] == b":":
            self.pseudo_changed = True
