"""A header map: ordered pairs of bytes, with names in lower case and duplicates kept.

Pseudo-headers stand first, as in Envoy, and count. In a request `host` and `:authority` are one
header: it is listed as `:authority` and answers to both names.

What comes from a guest is checked here, once: a name is an RFC 9110 token or a known pseudo-header,
a value holds no control character but tabs (RFC 9110, 5.5): servers refuse to send one, some with
the whole response. `InvalidHeader` says which rule was broken.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable

from wasm_middleware import limits
from wasm_middleware.abi.pairs import Pair

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_forbidden_in_values = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
PSEUDO_HEADERS = frozenset((b":authority", b":method", b":path", b":scheme", b":status"))

#: A map is measured when a guest has put this much into it: most never get that far.
_UNMEASURED = 16 * limits.KIB


class InvalidHeader(ValueError):
    """A guest's header would not be one on the wire, or is one too many."""


class NoSuchHeader(InvalidHeader):
    """There is no such pseudo-header, or no name at all: it means nothing, and does no harm."""


@functools.lru_cache(maxsize=1024)
def canonical_name(name: bytes) -> bytes:
    """The name in lower case, `host` as `:authority`; raise `InvalidHeader` if it is no name."""
    if len(name) > limits.MAX_HEADER_NAME_BYTES:
        raise InvalidHeader(f"{name[:100]!r}… is too long for a header name")

    lower = name.lower()

    if not _TOKEN.fullmatch(lower) and lower not in PSEUDO_HEADERS:
        kind = NoSuchHeader if lower[:1] in (b"", b":") else InvalidHeader
        raise kind(f"{name[:100]!r} is not a header name")

    return b":authority" if lower == b"host" else lower


def check_value(name: bytes, value: bytes) -> None:
    """Raise `InvalidHeader` for a value that is too long, or would break out of its line."""
    if len(value) > limits.MAX_HEADER_VALUE_BYTES:
        raise InvalidHeader(f"the value of {name[:100]!r} is too long: {len(value)} bytes")

    found = _forbidden_in_values(value)

    if found:
        where = f"the value of {name[:100]!r}"
        raise InvalidHeader(f"{where} contains the control character {found[0]!r}")


class HeaderMap:
    """One map of a stream.

    `changed` tells whether a guest has written to it, `pseudo_changed` whether to a pseudo-header.
    """

    __slots__ = ("_room", "changed", "pairs", "pseudo_changed")

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        #: Bytes that can be put in before it has to be measured.
        self._room = _UNMEASURED
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

        if name[:1] != b":":
            self._insert(name, value)
            return

        for index, (found, present) in enumerate(self.pairs):
            if found == name:
                joined = present + b"," + value
                check_value(name, joined)
                self.pairs[index] = (name, joined)
                self._note_change(name)
                return

        self._insert(name, value)

    def replace(self, name: bytes, value: bytes) -> None:
        """Make it the only header of its name, and the last (Envoy)."""
        name = canonical_name(name)
        check_value(name, value)
        kept = [pair for pair in self.pairs if pair[0] != name]

        if len(kept) < len(self.pairs):
            self.pairs = kept

        self._insert(name, value)

    def remove(self, name: bytes) -> None:
        """Remove every header of that name."""
        name = name.lower()
        name = b":authority" if name == b"host" else name
        kept = [pair for pair in self.pairs if pair[0] != name]

        if len(kept) < len(self.pairs):
            self.pairs = kept
            self._note_change(name)

    def drop(self, name: bytes) -> None:
        """Remove them, but no pseudo-header: without it there is no request."""
        if name[:1] != b":" and name.lower() != b"host":
            self.remove(name)

    def assign(self, pairs: Iterable[Pair]) -> None:
        """Put other pairs in place of all; pseudo-headers that are not among them stay.

        Of a pseudo-header that is given twice the first counts, as it does for `get`: a path that
        was matched must be the path that the application sees.
        """
        given = []

        for name, value in pairs:
            with contextlib.suppress(NoSuchHeader):
                check_value(name, value)
                given.append((canonical_name(name), value))

        pseudo: dict[bytes, bytes] = {}

        for name, value in (*given, *self.pairs):
            if name[:1] == b":":
                pseudo.setdefault(name, value)

        plain = [pair for pair in given if pair[0][:1] != b":"]
        assigned = [*pseudo.items(), *plain]
        self._room = _room_beside(assigned)
        self.pairs = assigned
        self.changed = self.pseudo_changed = True

    def _insert(self, name: bytes, value: bytes) -> None:
        if len(self.pairs) >= limits.MAX_PAIRS:
            raise InvalidHeader(f"there are {limits.MAX_PAIRS} headers already")

        pairs = self.pairs
        self._room -= len(name) + len(value)

        if self._room < 0:
            self._room = _room_beside([*pairs, (name, value)])

        if name[:1] == b":":
            # The last of its kind: they stand first.
            place = next((at for at, pair in enumerate(pairs) if pair[0][:1] != b":"), len(pairs))
            pairs.insert(place, (name, value))
        else:
            pairs.append((name, value))

        self._note_change(name)

    def _note_change(self, name: bytes) -> None:
        self.changed = True

        if name[:1] == b":":
            self.pseudo_changed = True


def _room_beside(pairs: Iterable[Pair]) -> int:
    """How many bytes may still be put beside them; raises `InvalidHeader` if they are too many."""
    room = limits.MAX_HEADERS_BYTES - sum(len(name) + len(value) for name, value in pairs)

    if room < 0:
        raise InvalidHeader(f"there are more than {limits.MAX_HEADERS_BYTES} bytes of headers")

    return room
