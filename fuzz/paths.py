"""The path matcher: no spelling of a path slips past its plugins.

The bytes are lines: a request's path as it comes over the wire, the application's root path, and
patterns of routes. Behind the matcher stands a model of what routers of ASGI frameworks do with a
path (`readings`), and of what such a router would then serve (`served`). The properties:

- Whatever reading a router has of the path, the rule that is first for that reading is among those
  that the matcher names.
- For a path that has only one reading, it names that rule alone.
- It never fails, whatever the path, and names nothing twice.

What the matcher says it does not cover is not here either: case, and Windows' backslash.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

from wasm_middleware.runtime.paths import PathTable, check_pattern

#: A table is compiled for each input: more rules only take more time.
_MOST_RULES = 8
#: Nested mounts are tried at every cut of every pattern.
_MOST_SEGMENTS = 6


def fuzz(data: bytes) -> None:
    """Check the properties for one request and one table."""
    wire, root, *patterns = [*data.split(b"\n"), b"", b""][: _MOST_RULES + 2]
    # As servers do: the query is cut off, the rest decoded once, what is no UTF-8 replaced.
    path = unquote(wire.partition(b"?")[0].decode("latin-1"))
    check(path, root.decode("latin-1"), [pattern.decode("latin-1") for pattern in patterns])


def check(path: str, root_path: str, patterns: list[str]) -> None:
    """Check the properties for a decoded path."""
    rules = [pattern for pattern in patterns if check_pattern(pattern) is None]
    table = PathTable([(pattern, None, index) for index, pattern in enumerate(rules)])
    found = table.lookup(path, root_path, "GET")
    assert len(set(found)) == len(found)

    if path[:1] not in ("", "/"):
        return

    for reading in readings(path, root_path):
        first = _first(rules, reading)
        assert first is None or first in found, (path, root_path, reading, rules[first])

    if not root_path and set(readings(path, "")) == {path} and not any(map(_respelled, rules)):
        # Starlette's `$` takes a line end at the end for nothing: such a path gets every rule.
        first = _first(rules, path)
        assert path[-1:] == "\n" or found == (() if first is None else (first,)), (path, rules)

    if root_path.startswith("/") and path.startswith("/"):
        for index, rule in enumerate(rules):
            assert index in found or not _mounted_first(rules, index, path, root_path), (
                path, root_path, rule,
            )  # fmt: skip


def readings(path: str, root_path: str) -> Iterator[str]:
    """Every path that some router may take the request's for."""
    for rest in _after_root(path, root_path):
        # Litestar and Sanic drop empty segments, and take one slash at the end or none for the
        # same; they leave dots alone.
        merged = re.sub("/+", "/", rest)
        # StaticFiles resolves dots in what it looks up.
        resolved = posixpath.normpath("/" + rest.lstrip("/"))

        for reading in (rest, merged, resolved):
            yield reading
            yield reading.rstrip("/") or "/"


def _after_root(path: str, root_path: str) -> Iterator[str]:
    """The path behind the root path, as Starlette cuts it, and as Quart and Litestar do."""
    if not root_path:
        yield path
        return

    rest = path[len(root_path) :]
    yield rest if path.startswith(root_path) and rest[:1] in ("", "/") else path
    _, cut, after = path.partition(root_path)

    if cut:
        yield "/" + after.lstrip("/")


def _first(rules: list[str], path: str) -> int | None:
    return next((index for index, rule in enumerate(rules) if serves(rule, path)), None)


def serves(pattern: str, path: str) -> bool:
    """Whether a router that has the pattern for its route runs it for the path.

    Both as they are, or both without empty segments: who drops those of a path drops those of its
    routes. Segment by segment; a placeholder is any text but none.
    """
    star = pattern.endswith("/*")
    wanted = (pattern[:-2] if star else pattern).split("/")
    given = path.split("/")

    if len(given) < len(wanted) or (len(given) > len(wanted) and not star):
        return False

    return all(
        text != "" if _is_placeholder(one) else text == one
        for one, text in zip(wanted, given, strict=False)
    )


def _is_placeholder(segment: str) -> bool:
    return segment[:1] == "{"


def _respelled(pattern: str) -> bool:
    """Whether a pattern is one for other paths than those that look like it, too."""
    body = pattern[:-2] if pattern.endswith("/*") else pattern
    return posixpath.normpath("/" + body.lstrip("/")) != (body or "/") or pattern.endswith("//*")


def _mounted_first(rules: list[str], index: int, path: str, root_path: str) -> bool:
    """Whether Starlette's mounts could serve the rule where no mount could serve an earlier one."""
    segments = rules[index].split("/")[1:]

    if len(segments) > _MOST_SEGMENTS or "" in segments[:-1] or {".", ".."} & set(segments):
        return False

    return _mounted(segments, path, root_path) and not any(
        serves(rule, reading) for rule in rules[:index] for reading in readings(path, root_path)
    )


def _mounted(segments: list[str], path: str, root_path: str) -> bool:
    """Whether a route, cut into mounts in some way, is found as Starlette looks for it.

    `starlette._utils.get_route_path`: the root path is cut off where it begins the path, and a
    mount (`Mount.matches`) adds to the root path what it has matched.
    """
    rest = path

    if path.startswith(root_path) and path[len(root_path) :][:1] in ("", "/"):
        rest = path[len(root_path) :]

    if serves("/" + "/".join(segments), rest):
        return True

    for cut in range(1, len(segments)):
        prefix = "".join(
            "/[^/]+" if _is_placeholder(one) else "/" + re.escape(one) for one in segments[:cut]
        )
        match = re.match(f"({prefix})/", rest)

        if match and segments[cut:] != ["*"] and _mounted(
            segments[cut:], path, root_path + match[1]
        ):  # fmt: skip
            return True

    return False
