"""Which value of a table belongs to a request's path.

Theory of operation. `routes:` of the configuration protect paths, and a request reaches an
endpoint by whatever spelling the application's router accepts. So the question is not "does this
path look like the pattern" but "could a router, given this path, run what the pattern names".
Where the answer is "perhaps", it is yes: a plugin too many is a nuisance, one too few is a hole.

A path is looked up as it stands: first match wins. Three things widen the answer to a union:

- *Other spellings.* Litestar, Sanic and Werkzeug take `//private/me/` for `/private/me`, and
  Starlette's `StaticFiles` resolves `x/../private` itself. So a path with doubled slashes or a
  trailing slash is looked up a second time without them, and one with dot segments once more
  without those, each time against patterns that are treated likewise. Not at one go: Litestar
  takes `//private/..` for `/private/..`, and `/private/{rest:path}` for the route of that.
- *Paths that no honest client sends.* Starlette's expressions end in `$`, which also matches
  before a final newline, and a `Mount` then cuts its prefix one character off and hands its child
  a path nobody can foresee (`Mount("/{tenant}")` over `Route("/admin")` serves `/admin%0A`). Such
  a path, and one that doesn't start with a slash (`*`, `http://host/private`), gets every value.
- *A root path that the path doesn't start with.* `FastAPI(root_path="/api")` behind a proxy that
  strips `/api` makes every `Mount` hand its child the whole path instead of the rest. `lookup`
  then also takes the path for one that matches the parts of a pattern one upon another. Quart and
  Litestar, for their part, cut the root path wherever it first occurs.

Not covered, since nothing here can know it: routers that ignore case (Starlette's don't), a
middleware between this one and the router that rewrites the path, Windows' backslash as separator.

Everything is compiled when the table is made: one table for each method, with a dict for what is
exact and one expression for the rest, and no cache that a client could fill.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

__all__ = ["PathTable", "canonical_path", "check_pattern", "route_path"]

T = TypeVar("T")

_PLACEHOLDER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_SLASHES = re.compile("//+")
_PERCENT_ENCODED = re.compile(r"%[0-9a-fA-F]{2}")


def route_path(scope_path: str, root_path: str) -> str:
    """Return the path that Starlette's router matches: `scope_path` after `root_path`.

    The root path is cut only where it is a prefix that ends at a slash; the result is empty where
    both are equal, as in `starlette._utils.get_route_path`.
    """
    if not root_path or not scope_path.startswith(root_path):
        return scope_path

    rest = scope_path[len(root_path) :]
    return rest if not rest or rest[0] == "/" else scope_path


def _merged_path(path: str) -> str:
    """Return `path` as one slash before each segment, dots being segments like others."""
    return "/" + "/".join(filter(None, path.split("/")))


def canonical_path(path: str) -> str:
    """Return `path` as one slash before each segment, dot segments resolved."""
    kept: list[str] = []

    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)

    return "/" + "/".join(kept)


def check_pattern(pattern: str) -> str | None:
    """Return what is wrong with a pattern of a route, with a way out; None for a good one.

    Refused is what would silently never match, or match other than it looks.
    """
    body = pattern[:-2] if pattern.endswith("/*") else pattern

    if not pattern.startswith("/"):
        return "must start with '/'"

    if "*" in body:
        return "'*' stands only at the end, as '/*': the path and all below it"

    if "?" in pattern or "#" in pattern:
        return "a route matches the path alone, without a query or a fragment"

    if _PERCENT_ENCODED.search(pattern):
        return "is compared with the decoded path: write the character itself, not its %-code"

    for segment in body.split("/"):
        if ("{" in segment or "}" in segment) and not _PLACEHOLDER.fullmatch(segment):
            wide = segment.endswith(":path}")
            instead = "a trailing '/*'" if wide else "{name} for the whole segment"
            return f"{segment} is no placeholder: write {instead}"

    return None


class PathTable(Generic[T]):
    """An ordered table of (pattern, methods, value), asked by path and method.

    A pattern is exact (`/a/b`), has `{name}` for one segment, and may end in `/*`: the path and
    all below it. Methods None means all; GET implies HEAD; a websocket asks as GET.
    Immutable, so it may be shared by threads.

    Raises ValueError for a pattern that `check_pattern` refuses.
    """

    __slots__ = ("_by_method", "_other_methods")

    def __init__(self, rules: Iterable[tuple[str, Collection[str] | None, T]]) -> None:
        compiled = [_Rule(pattern, methods, value) for pattern, methods, value in rules]
        named = {method for rule in compiled for method in rule.methods or ()}
        self._by_method = {
            method: _MethodTable([rule for rule in compiled if rule.serves(method)])
            for method in named
        }
        self._other_methods = _MethodTable([rule for rule in compiled if rule.methods is None])

    def match(self, path: str, method: str) -> T | None:
        """Return the first of `matches`, or None: for people and reports, not to protect."""
        return next(iter(self.matches(path, method)), None)

    def matches(self, path: str, method: str) -> tuple[T, ...]:
        """Return the values whose union is safe for `path`, mostly none or one.

        `path` is what `route_path` returned. Where there are several, what the path matches as it
        stands comes first.
        """
        return self._table(method).matches(path)

    def lookup(self, scope_path: str, root_path: str, method: str) -> tuple[T, ...]:
        """Return the values for `path` and `root_path` of a scope, whichever framework is below.

        Like `matches` on their `route_path`; a root path that can't be cut from the front adds
        what an application may make of it (see above).
        """
        table = self._table(method)

        if not root_path:
            return table.matches(scope_path)

        path = route_path(scope_path, root_path)
        found = table.matches(path)

        if path == scope_path:
            found = _union(found, table.folded(path))

        before, cut, after = scope_path.partition(root_path)

        if cut and (before or after != path):
            found = _union(found, table.matches("/" + after.lstrip("/")))

        return found

    def _table(self, method: str) -> _MethodTable[T]:
        table = self._by_method.get(method)
        # h11 lets `get` through, and Django reads it as GET.
        return table or self._by_method.get(method.upper(), self._other_methods)


class _Rule(Generic[T]):
    """One compiled pattern."""

    __slots__ = ("canonical", "merged", "methods", "segments", "source", "value", "verbatim")

    def __init__(self, pattern: str, methods: Collection[str] | None, value: T) -> None:
        mistake = check_pattern(pattern)

        if mistake:
            raise ValueError(f"route path {pattern!r}: {mistake}")

        self.source = pattern
        self.methods = None if methods is None else _with_head(methods)
        self.value = value
        star = pattern.endswith("/*")
        body = pattern[:-2] if star else pattern
        merged, plain = _merged_path(body), canonical_path(body)
        self.verbatim = body, star
        self.merged = ("" if star and merged == "/" else merged), star
        self.canonical = ("" if star and plain == "/" else plain), star
        #: None is a placeholder.
        self.segments = [
            None if _PLACEHOLDER.fullmatch(one) else one for one in plain.split("/")[1:]
        ]

    def serves(self, method: str) -> bool:
        return self.methods is None or method in self.methods

    def may_fold(self) -> bool:
        # A mount and what is mounted there would have to begin alike; most patterns say by
        # themselves that this can't be.
        first, *others = self.segments
        return any(first is None or one is None or first == one for one in others)

    def folds_onto(self, segments: Sequence[str], mountable: int, start: int = 0) -> bool:
        """Whether nested mounts, each given the whole path, could find the rule on it.

        The rule's segments from `start` are cut in two at each place: a mount that begins the
        path, and what is mounted there, which is matched on the whole path again. A mount needs a
        slash after it, so it begins at most `mountable` of the path's segments.
        """
        wanted = self.segments

        for cut in range(start + 1, len(wanted)):
            if cut - start > mountable or not _fits(wanted[cut - 1], segments[cut - start - 1]):
                return False

            # What is mounted begins with the path's first segment, too.
            if not _fits(wanted[cut], segments[0]):
                continue

            rest = wanted[cut:]
            enough = self.verbatim[1] or len(rest) == len(segments)

            if enough and len(rest) <= len(segments) and all(map(_fits, rest, segments)):
                return True

            if self.folds_onto(segments, mountable, cut):
                return True

        return False


class _MethodTable(Generic[T]):
    """The rules for one method. `matches` is on the path of every request."""

    __slots__ = ("_canonical", "_every", "_exact", "_folding", "_merged", "_values", "_verbatim")

    def __init__(self, rules: Sequence[_Rule[T]]) -> None:
        self._every = tuple(rule.value for rule in rules)
        # By the numbers that `_finder` counts.
        self._values: list[tuple[T, ...]] = [(), *((rule.value,) for rule in rules)]
        self._folding = [rule for rule in rules if rule.may_fold()]
        self._verbatim = _finder([rule.verbatim for rule in rules])
        plain = all(rule.canonical == rule.verbatim for rule in rules)
        self._merged = None if plain else _finder([rule.merged for rule in rules])
        self._canonical = None if plain else _finder([rule.canonical for rule in rules])
        # The whole answer for an exact pattern is known now, whatever stands before it.
        exact = [rule.source for rule in rules if _is_exact(rule.verbatim)]
        self._exact = {path: self._spellings(path) for path in exact}

    def matches(self, path: str) -> tuple[T, ...]:
        found = self._exact.get(path)

        if found is not None:
            return found

        plain = path == "/" or (
            path[-1:] not in "/\n" and path[0] == "/" and "//" not in path and "/." not in path
        )

        if not plain or self._canonical is not None:
            return self._spellings(path)

        match = self._verbatim(path)
        return () if match is None else self._values[match.lastindex or 0]

    def _spellings(self, path: str) -> tuple[T, ...]:
        if path.endswith("\n") or (path and path[0] != "/"):
            return self._every

        merged, plain = _merged_path(path), canonical_path(path)
        # Each also against the patterns as they stand: of two that are one without their slashes
        # at the end, a router has a route for either.
        spellings = dict.fromkeys((path, _SLASHES.sub("/", path), merged, plain))
        matches = [self._verbatim(spelling) for spelling in spellings]

        if self._merged is not None and self._canonical is not None:
            matches += (self._merged(merged), self._canonical(plain))

        found = dict.fromkeys(match.lastindex or 0 for match in matches if match)
        return tuple(value for number in found for value in self._values[number])

    def folded(self, path: str) -> tuple[T, ...]:
        if not self._folding:
            return ()

        segments = path.rstrip("/").split("/")[1:]
        mountable = len(segments) - (not path.endswith("/"))
        return tuple(rule.value for rule in self._folding if rule.folds_onto(segments, mountable))


def _finder(patterns: Sequence[tuple[str, bool]]) -> Callable[[str], re.Match[str] | None]:
    """Compile patterns to one search; `lastindex` of a match counts, from 1, which one it was."""
    # DOTALL, and fullmatch rather than `$`: no character ends a path early. The empty group after
    # each alternative tells by its number which one it was.
    alternatives = [_expression(body) + ("(?:/.*)?" if star else "") for body, star in patterns]
    expression = "|".join(f"{one}()" for one in alternatives) or "(?!)"
    return re.compile(expression, re.DOTALL).fullmatch


def _expression(body: str) -> str:
    return "[^/]+".join(re.escape(text) for text in _PLACEHOLDER.split(body))


def _is_exact(pattern: tuple[str, bool]) -> bool:
    body, star = pattern
    return not star and "{" not in body


def _fits(wanted: str | None, segment: str) -> bool:
    return wanted is None or wanted == segment


def _with_head(methods: Collection[str]) -> frozenset[str]:
    upper = {method.upper() for method in methods}
    return frozenset(upper | {"HEAD"} if "GET" in upper else upper)


def _union(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    # By identity: values need not be hashable or comparable.
    return first + tuple(_absent(second, first))


def _absent(values: Iterable[T], known: tuple[T, ...]) -> Iterator[T]:
    return (value for value in values if not any(value is other for other in known))
