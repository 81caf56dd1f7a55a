"""Which endpoint of a Starlette or FastAPI application a request is going to reach.

The one file that knows Starlette and FastAPI. Neither need be installed, and neither is imported
before the application has done so.

Theory of operation. Plugins run before the application's router, so the endpoint whose decorators
count isn't known yet and has to be foretold. The routes are read once into a tree of levels (a
router, or an application with one), and a request walks it as the routers would: in order, the
first full match wins, else the first partial one (which answers 405: its plugins run all the
same), and a `Mount` leads to the next level with its part of the path moved to the root path. The
walk uses the routes' own expressions, so that they and it can't disagree; a route whose class has
a `matches` of its own is asked itself.

What is not an endpoint of its own is answered by what contains it: `StaticFiles`, other
frameworks, a 404, a redirect or a custom default below a `Mount` have the mount's entry, with the
markers of the mount, of the application behind it and of what contains them.

Seen after start-up: routes added to or removed from a list that was read (the table is then read
anew, `version` tells), a list replaced in the outermost application. Not seen: a route replaced by
another in place, a list replaced further in, an expression or a marker changed later.

Not foretold: middlewares between this one and a router that change path, method or root path, and
router classes that route in a way of their own.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple, Protocol, TypedDict, cast

from wasm_middleware.asgi.decorators import Marker, below, marker_of, together
from wasm_middleware.runtime.paths import route_path

__all__ = ["Endpoint", "EndpointTable", "application_of", "find_application"]

Kind = Literal["http", "websocket", "mount"]

#: How many middlewares are looked through; more is a chain that leads back to itself.
_DEEPEST = 100

#: The handlers that Starlette's `HTTPEndpoint` calls, by method.
_HANDLERS = {
    name.upper(): name
    for name in ("get", "head", "post", "put", "patch", "delete", "options", "query")
}


class _Scope(TypedDict, total=False):
    type: str
    method: str
    path: str
    root_path: str


class _Route(Protocol):
    """What Starlette's routes and FastAPI's contexts of them have; each kind lacks something."""

    path: str
    path_regex: re.Pattern[str]
    methods: Collection[str] | None
    endpoint: object
    app: object
    original_route: _Route

    def matches(self, scope: Mapping[str, object]) -> tuple[Enum, Mapping[str, str]]: ...


class _Router(Protocol):
    """What Starlette's applications and routers have."""

    routes: list[_Route]


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """What answers a request: an endpoint, one method of an endpoint class, or a mount.

    `path` is the whole template, for people; `name` the qualified name of what is called;
    `marker` what all decorators from the application down to the endpoint come to. Compared and
    hashed by identity, so it is a cheap key.
    """

    path: str
    methods: frozenset[str] | None
    name: str
    marker: Marker | None
    kind: Kind


def find_application(app: object) -> object | None:
    """Return the application or router that `app` is or wraps, or None.

    Follows `.app` from middleware to middleware until something has Starlette routes.
    """
    for layer in _layers(app):
        if _routes_of(layer) is not None:
            return layer

    return None


def application_of(app: object, scope: Mapping[str, object]) -> object | None:
    """Return the application whose router runs below the middleware that wraps `app`.

    Inside a Starlette application the middleware wraps its router; the scope knows the
    application around it, which may have a marker. `scope["app"]` alone is no answer: in a `Mount`
    or a `Route` it is still the outer application.
    """
    found = find_application(app)
    around = scope.get("app")
    return around if found is not None and getattr(around, "router", None) is found else found


class EndpointTable:
    """The endpoints of an application, in the order in which its routers try them.

    Made for what `find_application` or `application_of` returned; for None it is empty.
    """

    __slots__ = (
        "_lists",
        "_root",
        "application",
        "endpoints",
        "marked",
        "problems",
        "root_path",
        "version",
    )

    #: What `FastAPI(root_path=...)` puts into the scope, whatever the server says; mostly empty.
    #: Around such an application, a path has to be matched with it in place of the scope's.
    root_path: str

    #: Every endpoint with what its decorators ask for.
    endpoints: tuple[Endpoint, ...]
    #: Whether any endpoint has a marker; without one there is no need to match.
    marked: bool
    #: Markers that could not be kept, as sentences; the caller must not start with any.
    problems: tuple[str, ...]
    #: Counts how often the routes were read; another number, other endpoints.
    version: int

    def __init__(self, application: object | None) -> None:
        self.application = application
        self.root_path = _own_root_path(application)
        self.version = 0
        self._read()

    def match(self, scope: Mapping[str, object]) -> Endpoint | None:
        """Return the endpoint that the application's router would run for `scope`.

        `scope` is as the middleware has it, before the router. None is for what no endpoint
        answers: the router's own 404 or redirect, or another type of scope. Leaves the scope as
        it is, and raises nothing but what a route's own `matches` does, as the router will.
        """
        if self._changed():
            self._read()

        known: _Scope = scope  # type: ignore[assignment] # as ASGI promises; a cast takes time
        kind = known["type"]

        if self._root is None or kind not in ("http", "websocket"):
            return None

        method = None if kind == "websocket" else known["method"]
        return _walk(self._root, scope, method, known["path"], known.get("root_path", ""))

    def refresh(self) -> bool:
        """Read the routes anew if they have changed, and return whether they had.

        `match` does so by itself; a caller that skips it while nothing is `marked` calls this.
        """
        changed = self._changed()

        if changed:
            self._read()

        return changed

    def _changed(self) -> bool:
        lists = self._lists

        if not lists:
            return False

        application: _Router = self.application  # type: ignore[assignment] # it has been read

        if application.routes is not lists[0][0]:
            return True

        # A loop, since `any` costs more than all that it would do here.
        for routes, length in lists:  # noqa: SIM110
            if len(routes) != length:
                return True

        return False

    def _read(self) -> None:
        reader = _Reader()
        self._root = None

        if _routes_of(self.application) is not None:
            self._root = reader.level(self.application, "", None, None)

        self._lists = [(routes, len(routes)) for routes in reader.lists]
        self.endpoints = tuple(reader.endpoints)
        self.marked = any(endpoint.marker is not None for endpoint in reader.endpoints)
        self.problems = tuple(dict.fromkeys(reader.problems))
        self.version += 1


class _Entry(NamedTuple):
    """One route as the walk needs it."""

    #: None where the route has to be asked.
    expression: Callable[[str], re.Match[str] | None] | None
    route: _Route
    #: None for all; never looked at for websockets.
    methods: frozenset[str] | None
    endpoint: Endpoint
    by_method: Mapping[str, Endpoint] | None
    #: What is below, matched with the rest of the path for a mount and else with all of it.
    child: _Level | None
    mount: bool


@dataclass(slots=True)
class _Level:
    """The routes of one router, by type of scope, and what answers where none of them does."""

    root_path: str
    default: Endpoint | None
    #: Each with what every path that it matches begins with, a test cheaper than the expression.
    http: list[tuple[str, _Entry]] = field(default_factory=list)
    websocket: list[tuple[str, _Entry]] = field(default_factory=list)


def _walk(
    level: _Level, scope: Mapping[str, object], method: str | None, path: str, root_path: str
) -> Endpoint | None:
    # FastAPI(root_path=...) overrides what the server or a mount says.
    root_path = level.root_path or root_path
    rest = route_path(path, root_path)
    partial: Endpoint | None = None

    for prefix, entry in level.websocket if method is None else level.http:
        if not rest.startswith(prefix):
            continue

        expression, _, methods, endpoint, by_method, child, mount = entry

        if expression is None:
            answer = _ask(entry, scope, method, path, root_path)
        else:
            found = expression(rest)

            if found is None:
                continue

            if methods and method not in methods:
                partial = partial or endpoint
                continue

            if child is None:
                return by_method.get(method or "", endpoint) if by_method else endpoint

            if mount:
                # As `Mount.matches` counts, to the letter: see the newlines in runtime.paths.
                matched = rest[: -len("/" + found["path"])]
                return _walk(child, scope, method, path, root_path + matched)

            return _walk(child, scope, method, path, root_path)

        if answer is not None and answer[0]:
            return answer[1]

        if answer is not None:
            partial = partial or answer[1]

    return partial or level.default


def _ask(
    entry: _Entry, scope: Mapping[str, object], method: str | None, path: str, root_path: str
) -> tuple[bool, Endpoint | None] | None:
    """Let a route match by itself: (whether in full, the endpoint), or None if it doesn't."""
    match, child_scope = entry.route.matches({**scope, "path": path, "root_path": root_path})

    if match.name == "NONE":
        return None

    full = match.name == "FULL"

    if not full or entry.child is None:
        by_method = entry.by_method or {}
        return full, by_method.get(method or "", entry.endpoint)

    path = child_scope.get("path", path)
    root_path = child_scope.get("root_path", root_path)
    return True, _walk(entry.child, scope, method, path, root_path)


class _Reader:
    """Reads routes into levels, and notes endpoints, lists of routes and problems on the way."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.lists: list[list[_Route]] = []
        self.problems: list[str] = []
        self._open: list[int] = []

    def level(
        self, app: object, prefix: str, outer: Marker | None, around: Endpoint | None
    ) -> _Level | None:
        """Read an application or router mounted at `prefix`, inside what is marked `outer`.

        `around` answers what no route of it does. None for what has no routes, or holds itself.
        """
        routes = _routes_of(app)

        if routes is None or id(app) in self._open:
            return None

        marker = outer if around else below(outer, _layered_marker(app))
        default = getattr(getattr(app, "router", app), "default", None)
        inside = below(marker, marker_of(default))

        if inside is not None and (around is None or inside != around.marker):
            around = self._note(Endpoint(f"{prefix}/*", None, _name(default), inside, "mount"))

        level = _Level(root_path=_own_root_path(app), default=around)
        self._open.append(id(app))
        self.lists.append(routes)

        for route, written, inside in self._expanded(routes, marker):
            self._add(level, route, written, prefix, inside)

        self._open.pop()
        return level

    def _expanded(
        self, routes: Sequence[_Route], marker: Marker | None
    ) -> Iterator[tuple[_Route, _Route, Marker | None]]:
        """Yield (route with its whole path, the route that was written, the marker around it).

        FastAPI since 0.137 keeps an included router as one route of a private class, and tells
        what is in it by a public function, though without the routers on the way. Those hold
        their routes in the same order, which is where the markers come from.
        """
        expand = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)

        for route in routes:
            if not hasattr(route, "original_router"):
                yield route, route, marker
                continue

            if expand is None:
                self.problems.append(
                    "FastAPI 0.137.0 and 0.137.1 don't tell what is in an included router, nor "
                    "how it is decorated: install 0.137.2 or later"
                )
                continue

            # Consumed step by step, since a router may be included twice.
            all_written = iter(list(self._written(route, marker, marker)))

            for context in expand([route]):
                found = next((one for one in all_written if one[0] is context.original_route), None)

                if found is None:
                    self.problems.append(f"{context.path}: can't tell which router it came from")
                else:
                    # 0.137.2 puts what isn't an APIRoute one step further away.
                    yield getattr(context, "starlette_route", None) or context, *found

    def _written(
        self, included: object, outer: Marker | None, base: Marker | None
    ) -> Iterator[tuple[_Route, Marker | None]]:
        router = included.original_router  # type: ignore[attr-defined] # tested by the caller
        marker = below(outer, marker_of(router))
        self.lists.append(router.routes)

        if marker != base and getattr(router, "_low_priority_routes", None):
            self.problems.append(
                "a decorated router has a frontend, which its decorator can't reach: name the "
                "frontend's path under `routes` in the configuration"
            )

        for route in router.routes:
            if hasattr(route, "original_router"):
                yield from self._written(route, marker, base)
            else:
                yield route, marker

    def _add(
        self, level: _Level, route: _Route, written: _Route, prefix: str, outer: Marker | None
    ) -> None:
        kind = _kind(written)
        target = getattr(written, "app" if kind == "mount" else "endpoint", None)
        # A Host in an included router is made anew, around a mount of the prefix.
        below_it = getattr(route, "app", None) if kind == "mount" else target
        own = marker_of(written)

        if kind == "mount":
            marker = below(below(outer, own), _layered_marker(target))
        else:
            marker = below(outer, together(own, _layered_marker(target)))

        path = prefix + (getattr(route, "path", None) or "")
        shown = f"{path}/*" if kind == "mount" else path
        methods = frozenset(getattr(route, "methods", None) or ()) or None
        endpoint = self._note(Endpoint(shown, methods, _name(target), marker, kind))
        expression = _expression(route, written)
        child = self.level(find_application(below_it), path, marker, endpoint)

        if expression is None and child is None:
            self._doubt(route, written, endpoint)

        entry = _Entry(
            expression=expression.match if expression else None,
            route=route,
            methods=methods,
            endpoint=endpoint,
            by_method=self._handlers(target, endpoint),
            child=child,
            mount=_is_a(written, "Mount"),
        )

        start = _literal_start(route, written) if expression else ""

        if kind != "websocket":
            level.http.append((start, entry))

        if kind != "http":
            level.websocket.append((start, entry))

    def _doubt(self, route: _Route, written: _Route, endpoint: Endpoint) -> None:
        """Note what can't be foretold of a route that has a `matches` of its own."""
        inside = getattr(route, "routes", ())

        if any(marker_of(one) or marker_of(getattr(one, "endpoint", None)) for one in inside):
            self.problems.append(
                f"{endpoint.path}: {_name(written)} holds decorated endpoints, but can't be looked "
                "into: name their paths under `routes` in the configuration"
            )

        # Starlette's routes are made anew in an included router, as plain ones.
        if route is not written and endpoint.kind == "http" and endpoint.marker is not None:
            self.problems.append(
                f"{endpoint.path}: {_name(written)} has a `matches` of its own, which can't be "
                "asked in an included router: name the path under `routes` in the configuration"
            )

    def _handlers(self, target: object, endpoint: Endpoint) -> dict[str, Endpoint] | None:
        """Read the markers on the methods of an endpoint class; None if there are none."""
        if not isinstance(target, type):
            return None

        marked = {
            name: marker
            for name, function in inspect.getmembers(target, inspect.isroutine)
            if (marker := marker_of(function)) is not None
        }
        handled: dict[str, Endpoint] = {}

        if _is_dispatcher(target):
            for method, name in _HANDLERS.items():
                marker = below(endpoint.marker, marked.pop(name, None))

                if marker == endpoint.marker:
                    continue

                # HTTPEndpoint answers HEAD by `get` where there is no `head`.
                also = {"HEAD"} if method == "GET" and not hasattr(target, "head") else set()
                methods = frozenset({method, *also})
                qualified = f"{endpoint.name}.{name}"
                one = self._note(Endpoint(endpoint.path, methods, qualified, marker, "http"))
                handled.update(dict.fromkeys(methods, one))

        for name in marked:
            self.problems.append(
                f"{endpoint.name}.{name} is decorated, but no request is matched to it: decorate "
                "the class"
            )

        return handled or None

    def _note(self, endpoint: Endpoint) -> Endpoint:
        self.endpoints.append(endpoint)
        return endpoint


def _layers(app: object) -> Iterator[object]:
    """Yield an ASGI application and what it wraps, as far as the first that has routes."""
    for _ in range(_DEEPEST):
        if app is None or isinstance(app, type):
            return

        yield app

        if _routes_of(app) is not None:
            return

        app = getattr(app, "app", None)


def _layered_marker(app: object) -> Marker | None:
    if isinstance(app, type):
        return marker_of(app)

    marker: Marker | None = None

    for layer in _layers(app):
        marker = below(marker, marker_of(layer))

        if _routes_of(layer) is not None:
            marker = below(marker, marker_of(getattr(layer, "router", None)))

    return marker


def _routes_of(app: object) -> list[_Route] | None:
    routed = _is_a(app, "Router") or _is_a(app, "Starlette", "starlette.applications")
    return cast("_Router", app).routes if routed and not isinstance(app, type) else None


def _is_a(what: object, name: str, module: str = "starlette.routing") -> bool:
    """Whether `what` is an instance or a subclass of a class, if that class is loaded at all.

    Who has not loaded it can't have made one, so nothing is imported to find out.
    """
    known = getattr(sys.modules.get(module), name, None)
    return known is not None and issubclass(what if isinstance(what, type) else type(what), known)


def _kind(route: object) -> Kind:
    if _is_a(route, "WebSocketRoute"):
        return "websocket"

    return "http" if _is_a(route, "Route") else "mount"


def _is_dispatcher(target: type) -> bool:
    """Whether a class calls its handlers as Starlette's HTTPEndpoint does."""
    known = getattr(sys.modules.get("starlette.endpoints"), "HTTPEndpoint", None)

    if known is None or not issubclass(target, known):
        return False

    return getattr(target, "dispatch", None) is known.dispatch


def _own_root_path(app: object) -> str:
    fastapi = _is_a(app, "FastAPI", "fastapi.applications")
    return getattr(app, "root_path", "") or "" if fastapi else ""


def _expression(route: _Route, written: _Route) -> re.Pattern[str] | None:
    """Return the expression that says all about a route; None where the route has to be asked."""
    from starlette.routing import Mount, Route, WebSocketRoute

    fastapi = sys.modules.get("fastapi.routing")
    known: list[object] = [Mount.matches, Route.matches, WebSocketRoute.matches]

    if fastapi is not None:
        known += [fastapi.APIRoute.matches, fastapi.APIWebSocketRoute.matches]

    # An APIRoute in an included router is asked with a context that has its whole path. Routes of
    # Starlette are made anew there, as plain ones.
    plain = _is_a(written, "APIRoute", "fastapi.routing") or route is written
    asked = type(written).matches if plain else getattr(route.matches, "__func__", None)
    return route.path_regex if asked in known else None


def _literal_start(route: _Route, written: _Route) -> str:
    from starlette.routing import compile_path

    template = route.path + ("/{path:path}" if _is_a(written, "Mount") else "")
    usual = compile_path(template)[0]
    # Some replace the expression, for instance by one that ignores case.
    return template.partition("{")[0] if route.path_regex == usual else ""


def _name(target: object) -> str:
    while isinstance(target, functools.partial):
        target = target.func

    return getattr(target, "__qualname__", None) or type(target).__qualname__
