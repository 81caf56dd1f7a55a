from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import unquote

import fastapi.routing
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import example, given, settings, strategies as st
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.responses import Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from wasm_middleware.asgi.decorators import Marker, wasm_exempt, wasm_plugins
from wasm_middleware.asgi.discovery import (
    Endpoint,
    EndpointTable,
    application_of,
    find_application,
)
from wasm_middleware.runtime.paths import PathTable

NESTED_INCLUDES = hasattr(fastapi.routing, "iter_route_contexts")

ran: list[str] = []


def handler(label: str):
    """An endpoint that says its label when it runs, and is called by it."""

    async def endpoint():
        ran.append(label)
        return Response(label)

    endpoint.__qualname__ = label
    return endpoint


def starlette_handler(label: str):
    async def endpoint(request):
        ran.append(label)
        return Response(label)

    endpoint.__qualname__ = label
    return endpoint


def asgi(label: str):
    """An application of another framework."""

    async def app(scope, receive, send):
        ran.append(label)

        if scope["type"] == "http":
            await Response(label)(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    app.__qualname__ = label
    return app


def websocket(label: str):
    async def endpoint(websocket):
        ran.append(label)
        await websocket.close()

    endpoint.__qualname__ = label
    return endpoint


class Transparent:
    """A middleware that does nothing."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


def a_scope(path, method="GET", *, root_path="", kind="http", host="testserver"):
    return {
        "type": kind,
        "path": path,
        "raw_path": b"",
        "root_path": root_path,
        "method": method,
        "query_string": b"",
        "headers": [(b"host", host.encode())],
    }


LOOP = asyncio.new_event_loop()


@pytest.fixture(scope="module", autouse=True)
def close_loop() -> Iterator[None]:
    yield
    LOOP.close()


def run(app, scope) -> str | None:
    """Send a request to an application; return the label of the endpoint that ran."""
    ran.clear()
    kind = scope["type"]
    first = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"}

    async def receive():
        return first

    async def send(message):
        pass

    LOOP.run_until_complete(app(dict(scope), receive, send))
    assert len(ran) <= 1
    return ran[0] if ran else None


def table_of(app) -> EndpointTable:
    return EndpointTable(find_application(app))


def found(app, path, method="GET", **options) -> str | None:
    endpoint = table_of(app).match(a_scope(path, method, **options))
    return None if endpoint is None else endpoint.name


def marker(app, path, method="GET", **options) -> Marker | None:
    endpoint = table_of(app).match(a_scope(path, method, **options))
    return None if endpoint is None else endpoint.marker


# ------------------------------------------------------------------ finding the application


def test_an_application_is_found_through_middlewares():
    app = Starlette(routes=[Route("/", starlette_handler("home"))])

    assert find_application(app) is app
    assert find_application(Transparent(Transparent(app))) is app
    assert find_application(app.router) is app.router
    assert find_application(app.build_middleware_stack()) is app.router


def test_what_has_no_starlette_routes_is_no_application():
    class Foreign:
        routes = ()
        app = None

    looping = Transparent(None)
    looping.app = looping

    for app in (asgi("raw"), Foreign(), Foreign, Starlette, looping, None):
        assert find_application(app) is None


def test_the_application_around_a_router_is_known_from_the_scope():
    app = Starlette()
    inner = Starlette()
    stack = app.build_middleware_stack()

    assert application_of(stack, {"app": app}) is app
    assert application_of(Transparent(inner), {"app": app}) is inner
    assert application_of(stack, {}) is app.router
    assert application_of(asgi("raw"), {"app": app}) is None


def test_without_an_application_nothing_is_found():
    table = EndpointTable(None)

    assert (table.endpoints, table.marked, table.problems) == ((), False, ())
    assert table.match(a_scope("/")) is None
    assert table.refresh() is False


def test_neither_framework_is_imported_nor_needed():
    code = (
        "import sys; sys.modules['starlette'] = sys.modules['fastapi'] = None\n"
        "from wasm_middleware.asgi.discovery import EndpointTable, find_application\n"
        "import wasm_middleware.asgi.decorators as d\n"
        "app = d.wasm_plugins('auth')(lambda scope, receive, send: None)\n"
        "table = EndpointTable(find_application(app))\n"
        "assert table.match({'type': 'http', 'path': '/', 'method': 'GET'}) is None\n"
        "assert not [m for m in sys.modules if m.startswith(('starlette.', 'fastapi.'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------ markers


def test_an_application_without_decorators_says_that_it_need_not_be_asked():
    app = Starlette(routes=[Route("/", starlette_handler("home")), Mount("/x", asgi("raw"))])

    assert not table_of(app).marked
    app.router.routes.append(Route("/y", wasm_plugins("auth")(starlette_handler("y"))))
    assert table_of(app).marked


def test_an_endpoint_says_where_it_is_and_what_it_asks_for():
    app = Starlette(
        routes=[
            Mount(
                "/v1",
                routes=[Route("/a/{id:int}", wasm_plugins("auth")(starlette_handler("a")))],
            ),
            WebSocketRoute("/ws", websocket("ws")),
        ]
    )
    shown = [(e.path, e.methods, e.name, e.marker, e.kind) for e in table_of(app).endpoints]

    assert shown == [
        ("/v1/*", None, "Router", None, "mount"),
        ("/v1/a/{id:int}", {"GET", "HEAD"}, "a", Marker(("auth",)), "http"),
        ("/ws", None, "ws", None, "websocket"),
    ]


def test_endpoints_are_keys_by_identity():
    one = Endpoint("/", None, "x", None, "http")

    assert one != Endpoint("/", None, "x", None, "http")
    assert len({one, one}) == 1


def test_the_decorator_may_stand_above_or_below_the_route():
    app = FastAPI()
    app.get("/below")(wasm_plugins("auth")(handler("below")))
    wasm_plugins("auth")(app.get("/above")(handler("above")))

    assert marker(app, "/below") == marker(app, "/above") == Marker(("auth",))


def test_a_route_object_and_its_endpoint_add_up():
    route = wasm_plugins("limit")(Route("/a", wasm_plugins("auth")(starlette_handler("a"))))

    assert marker(Starlette(routes=[route]), "/a") == Marker(("limit", "auth"))


def test_the_marker_of_a_mount_is_for_all_that_is_below_it():
    app = Starlette(
        routes=[
            wasm_plugins("auth")(
                Mount(
                    "/x",
                    routes=[
                        Route("/plain", starlette_handler("plain")),
                        Route("/more", wasm_plugins("limit")(starlette_handler("more"))),
                        Route("/open", wasm_exempt(starlette_handler("open"))),
                        wasm_exempt(
                            Mount(
                                "/deep",
                                routes=[
                                    Route("/a", starlette_handler("a")),
                                    Route("/b", wasm_plugins("limit")(starlette_handler("b"))),
                                ],
                            )
                        ),
                    ],
                )
            )
        ]
    )

    assert marker(app, "/x/plain") == Marker(("auth",))
    assert marker(app, "/x/more") == Marker(("auth", "limit"))
    assert marker(app, "/x/open") == Marker(exempt=True)
    assert marker(app, "/x/deep/a") == Marker(exempt=True)
    assert marker(app, "/x/deep/b") == Marker(("limit",))
    assert marker(app, "/x/missing") == Marker(("auth",))
    assert marker(app, "/x/plain", "POST") == Marker(("auth",))
    assert marker(app, "/y") is None


def test_everything_that_wraps_a_mounted_application_may_be_marked():
    inner = wasm_plugins("app")(Starlette(routes=[Route("/a", starlette_handler("a"))]))
    wasm_plugins("router")(inner.router)
    layer = wasm_plugins("layer")(Transparent(inner))
    app = Starlette(routes=[wasm_plugins("mount")(Mount("/x", layer))])

    assert marker(app, "/x/a") == Marker(("mount", "layer", "app", "router"))


def test_the_marker_of_the_application_is_for_everything_even_for_what_is_not_found():
    app = wasm_plugins("auth")(Starlette(routes=[Route("/a", starlette_handler("a"))]))

    assert marker(app, "/a") == marker(app, "/missing") == Marker(("auth",))
    assert marker(app, "/a", kind="websocket") == Marker(("auth",))


def test_a_custom_default_may_be_marked():
    app = Starlette(routes=[Mount("/x", Router(default=asgi("inner")))])
    wasm_plugins("limit")(app.router.routes[0].app.default)
    app.router.default = wasm_plugins("auth")(asgi("fallback"))

    assert (found(app, "/nowhere"), marker(app, "/nowhere")) == ("fallback", Marker(("auth",)))
    assert (found(app, "/x/y"), marker(app, "/x/y")) == ("inner", Marker(("limit",)))
    assert run(app, a_scope("/nowhere")) == "fallback"


def test_a_mounted_foreign_application_is_one_endpoint(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    app = Starlette(
        routes=[wasm_plugins("auth")(Mount("/static", StaticFiles(directory=tmp_path)))]
    )

    assert found(app, "/static/a.txt") == "StaticFiles"
    assert marker(app, "/static/../a.txt", "PUT") == Marker(("auth",))
    assert found(app, "/static") is None


def test_an_endpoint_class_may_have_its_methods_marked():
    @wasm_plugins("class")
    class Items(HTTPEndpoint):
        async def get(self, request):
            ran.append("Items.get")
            return Response()

        @wasm_plugins("method")
        async def post(self, request):
            return Response()

        @wasm_exempt
        async def delete(self, request):
            return Response()

    class Heads(HTTPEndpoint):
        @wasm_plugins("get")
        async def get(self, request): ...

        async def head(self, request): ...

    class Gets(HTTPEndpoint):
        @wasm_plugins("get")
        async def get(self, request): ...

    app = Starlette(routes=[Route("/items", Items), Route("/heads", Heads), Route("/gets", Gets)])

    assert marker(app, "/items") == Marker(("class",))
    assert marker(app, "/items", "POST") == Marker(("class", "method"))
    assert marker(app, "/items", "DELETE") == Marker(exempt=True)
    assert found(app, "/items", "POST").endswith("Items.post")
    assert marker(app, "/heads", "HEAD") is None
    assert marker(app, "/gets", "HEAD") == marker(app, "/gets") == Marker(("get",))
    assert table_of(app).problems == ()


def test_a_decorated_method_that_no_request_is_matched_to_is_a_problem():
    class Chat(WebSocketEndpoint):
        @wasm_plugins("auth")
        async def on_connect(self, websocket): ...

    class Odd(HTTPEndpoint):
        async def dispatch(self): ...

        @wasm_plugins("auth")
        async def get(self, request): ...

    app = Starlette(routes=[WebSocketRoute("/chat", Chat), Route("/odd", Odd)])
    problems = table_of(app).problems

    assert [problem.split(" is ")[0].split(".")[-1] for problem in problems] == [
        "on_connect",
        "get",
    ]
    assert "decorate the class" in problems[0]


def test_a_websocket_and_a_request_to_one_path_are_two_endpoints():
    app = Starlette(
        routes=[
            Route("/both", starlette_handler("request")),
            WebSocketRoute("/both", wasm_plugins("auth")(websocket("socket"))),
        ]
    )

    assert found(app, "/both", "POST") == "request"
    assert found(app, "/both", kind="websocket") == "socket"
    assert found(app, "/other", kind="websocket") is None
    assert run(app, a_scope("/both", kind="websocket")) == "socket"
    assert table_of(app).match({"type": "lifespan"}) is None
    assert table_of(app).match({"type": "other"}) is None


# ------------------------------------------------------------------ FastAPI


def test_routes_of_an_included_router_have_their_whole_path():
    inner, outer, app = APIRouter(prefix="/inner"), APIRouter(), FastAPI()
    inner.get("/{id}")(wasm_plugins("auth")(handler("item")))
    inner.websocket("/ws")(handler("socket"))
    inner.add_route("/plain", starlette_handler("plain"))
    outer.include_router(inner, prefix="/outer")
    app.include_router(outer, prefix="/v1")
    app.include_router(inner)

    shown = {endpoint.path: endpoint.name for endpoint in table_of(app).endpoints}
    assert shown["/v1/outer/inner/{id}"] == shown["/inner/{id}"] == "item"
    assert marker(app, "/v1/outer/inner/5") == marker(app, "/inner/5") == Marker(("auth",))
    assert found(app, "/v1/outer/inner/ws", kind="websocket") == "socket"
    assert found(app, "/v1/outer/inner/5", "DELETE") == "item"
    assert found(app, "/v1/inner/5") is None


@pytest.mark.skipif(not NESTED_INCLUDES, reason="this FastAPI forgets its routers")
def test_the_marker_of_an_included_router_is_for_its_routes():
    inner, outer, app = APIRouter(), APIRouter(), FastAPI()
    inner.get("/a")(handler("a"))
    inner.get("/open")(wasm_exempt(handler("open")))
    inner.mount("/m", asgi("raw"))
    outer.include_router(inner, prefix="/twice")
    outer.include_router(wasm_plugins("limit")(inner), prefix="/again")
    outer.get("/b")(handler("b"))
    app.include_router(wasm_plugins("auth")(outer), prefix="/o")
    app.include_router(inner, prefix="/i")

    assert marker(app, "/o/twice/a") == Marker(("auth", "limit"))
    assert marker(app, "/o/again/a") == Marker(("auth", "limit"))
    assert marker(app, "/o/again/open") == Marker(exempt=True)
    assert marker(app, "/o/again/m/x") == Marker(("auth", "limit"))
    assert marker(app, "/o/b") == Marker(("auth",))
    assert marker(app, "/i/a") == Marker(("limit",))
    assert table_of(app).problems == ()


@pytest.mark.skipif(not NESTED_INCLUDES, reason="this FastAPI forgets its routers")
def test_a_router_included_by_two_others_has_the_markers_of_each():
    shared, first, second, both, app = (APIRouter() for _ in range(4)), None, None, None, FastAPI()
    shared, first, second, both = shared
    shared.get("/a")(handler("a"))
    first.include_router(shared, prefix="/1")
    second.include_router(shared, prefix="/2")
    both.include_router(wasm_plugins("first")(first))
    both.include_router(wasm_plugins("second")(second))
    app.include_router(both)

    assert marker(app, "/1/a") == Marker(("first",))
    assert marker(app, "/2/a") == Marker(("second",))


@pytest.mark.skipif(not hasattr(APIRouter, "frontend"), reason="this FastAPI has no frontends")
def test_a_frontend_of_a_marked_router_is_a_problem_and_one_of_a_marked_app_is_not(tmp_path):
    (tmp_path / "index.html").write_text("home")
    router, app = APIRouter(), FastAPI()
    router.frontend("/", directory=tmp_path)
    app.include_router(router)

    assert table_of(app).problems == ()
    assert marker(wasm_plugins("auth")(app), "/index.html") == Marker(("auth",))
    assert table_of(app).problems == ()

    wasm_plugins("limit")(router)
    assert "has a frontend" in table_of(app).problems[0]


def test_what_fastapi_hides_of_included_routers_is_a_problem(monkeypatch):
    app, router = FastAPI(), APIRouter()
    router.get("/a")(handler("a"))
    app.include_router(router)

    if NESTED_INCLUDES:
        monkeypatch.delattr(fastapi.routing, "iter_route_contexts")
        assert "0.137.2" in table_of(app).problems[0]
    else:
        assert table_of(app).problems == () or "0.137.2" in table_of(app).problems[0]


def test_a_root_path_of_the_application_counts_and_not_the_servers():
    app = FastAPI()
    app.root_path = "/api"
    app.get("/a")(handler("a"))

    for path, root_path in [("/api/a", ""), ("/a", ""), ("/x/a", "/x"), ("/api/a", "/x")]:
        scope = a_scope(path, root_path=root_path)
        endpoint = table_of(app).match(scope)
        assert (endpoint and endpoint.name) == run(app, scope)

    assert table_of(app).root_path == "/api"
    assert table_of(FastAPI()).root_path == table_of(Starlette()).root_path == ""


# ------------------------------------------------------------------ odd routes


class Shouting(Route):
    """A route that matches in a way of its own."""

    def matches(self, scope):
        return super().matches({**scope, "path": scope["path"].lower()})


class Versioned(BaseRoute):
    """Routes that are chosen by nothing this package knows."""

    def __init__(self, routes):
        self.routes = routes

    def matches(self, scope):
        return self.routes[0].matches(scope)

    async def handle(self, scope, receive, send):
        await self.routes[0].handle(scope, receive, send)


def test_a_route_with_a_way_of_its_own_is_asked():
    app = Starlette(
        routes=[
            Shouting("/loud", starlette_handler("loud"), methods=["POST"]),
            Route("/LOUD", starlette_handler("upper")),
        ]
    )

    assert found(app, "/LOUD", "POST") == "loud"
    assert found(app, "/LOUD") == "upper"
    assert found(app, "/loud") == "loud"
    assert found(app, "/other") is None


def test_a_route_that_is_asked_below_a_mount_is_given_its_part_of_the_path():
    app = Starlette(routes=[Mount("/x", routes=[Shouting("/a", starlette_handler("a"))])])

    assert found(app, "/x/A") is not None
    assert found(app, "/x/a") == run(app, a_scope("/x/a")) == "a"
    assert found(app, "/a") is None


def test_of_two_routes_with_other_methods_the_first_answers():
    app = Starlette(
        routes=[
            Route("/a", starlette_handler("first"), methods=["POST"]),
            Route("/a", starlette_handler("second"), methods=["PUT"]),
        ]
    )

    assert found(app, "/a", "DELETE") == "first"
    assert found(app, "/a", "PUT") == "second"


def test_an_expression_that_was_replaced_is_the_one_that_counts():
    route = Route("/Loud", starlette_handler("loud"))
    route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)

    assert found(Starlette(routes=[route]), "/lOUD") == "loud"


def test_a_mount_that_is_asked_hands_down_what_it_said():
    class Stripping(Mount):
        def matches(self, scope):
            match, child = super().matches(scope)
            return match, {**child, "path": scope["path"].lower()}

    app = Starlette(routes=[Stripping("/x", routes=[Route("/a", starlette_handler("a"))])])

    assert found(app, "/x/A") == run(app, a_scope("/x/A")) == "a"


def test_decorated_endpoints_that_can_not_be_looked_into_are_a_problem():
    plain = Versioned([Route("/a", starlette_handler("a"))])
    marked = Versioned([Route("/b", wasm_plugins("auth")(starlette_handler("b")))])

    assert table_of(Starlette(routes=[plain])).problems == ()
    assert "Versioned holds decorated endpoints" in table_of(Starlette(routes=[marked])).problems[0]


@pytest.mark.skipif(not NESTED_INCLUDES, reason="this FastAPI copies routes")
def test_a_route_that_can_not_be_asked_in_an_included_router_is_a_problem_if_it_is_marked():
    class Picky(fastapi.routing.APIRoute):
        def matches(self, scope):
            match, child = super().matches(scope)
            return (match, child) if scope["headers"] else (Match.NONE, {})

    app, router = FastAPI(), APIRouter(route_class=Picky)
    router.get("/a")(handler("a"))
    app.include_router(router)
    assert table_of(app).problems == ()

    app.router.routes.append(Picky("/c", wasm_plugins("auth")(handler("c"))))
    assert (table_of(app).problems, found(app, "/c")) == ((), "c")

    router.get("/b")(wasm_plugins("auth")(handler("b")))
    assert "can't be asked in an included router" in table_of(app).problems[0]


def test_an_application_as_endpoint_of_a_route_routes_the_whole_path_again():
    inner = Starlette(routes=[Route("/x/a", wasm_plugins("auth")(starlette_handler("a")))])
    app = Starlette(routes=[Route("/x/{rest:path}", inner)])

    assert run(app, a_scope("/x/a")) == found(app, "/x/a") == "a"
    assert marker(app, "/x/b") is None


def test_an_application_that_is_mounted_in_itself_is_read_once():
    app = Starlette(routes=[Route("/a", starlette_handler("a"))])
    app.router.routes.append(wasm_plugins("auth")(Mount("/again", app)))

    assert found(app, "/a") == "a"
    assert marker(app, "/again/a") == Marker(("auth",))


def test_a_number_too_long_to_be_read_raises_nothing():
    app = Starlette(routes=[Route("/{id:int}", wasm_plugins("auth")(starlette_handler("a")))])

    assert found(app, "/" + "9" * 5000) == "a"


# ------------------------------------------------------------------ changes after start-up


def test_routes_that_are_added_later_are_seen():
    app, inner = Starlette(), Router()
    app.router.routes.append(Mount("/x", inner))
    table = table_of(app)
    assert (table.version, table.marked, table.refresh()) == (1, False, False)

    inner.routes.append(Route("/a", wasm_plugins("auth")(starlette_handler("a"))))
    assert table.match(a_scope("/x/a")).name == "a"
    assert (table.version, table.marked) == (2, True)

    app.router.routes = [Route("/b", starlette_handler("b"))]
    assert table.refresh() is True
    assert table.match(a_scope("/b")).name == "b"
    assert (table.version, table.marked) == (3, False)


@pytest.mark.skipif(not NESTED_INCLUDES, reason="this FastAPI copies routes")
def test_routes_that_are_added_later_to_an_included_router_are_seen():
    app, router = FastAPI(), APIRouter()
    app.include_router(router)
    table = table_of(app)
    router.get("/a")(wasm_plugins("auth")(handler("a")))

    assert table.match(a_scope("/a")).name == "a"
    assert table.marked


# No spelling slips past


def starlette_app() -> Starlette:
    return Starlette(
        routes=[
            Route("/", starlette_handler("/")),
            Route("/private/me", starlette_handler("/private/me")),
            Route("/private/{name}", starlette_handler("/private/{name}")),
            Route("/private/{p:path}", starlette_handler("/private/*"), methods=["GET", "POST"]),
            Route("/items/{id:int}", starlette_handler("/items/{id}")),
            Route("/items/{id}/", starlette_handler("/items/{id}/")),
            WebSocketRoute("/items/{id}", websocket("/items/{id}#ws")),
            Route("/items/{id:uuid}/x", starlette_handler("/items/{id}/x"), methods=["PUT"]),
            Mount(
                "/x",
                routes=[
                    Route("/", starlette_handler("/x/")),
                    Route("/a", starlette_handler("/x/a")),
                    Route("/x/a", starlette_handler("/x/x/a")),
                    Mount("/y", routes=[Route("/{n}", starlette_handler("/x/y/{n}"))]),
                    Mount("/raw", asgi("/x/raw/*")),
                    Mount("/y", routes=[Route("/a/b", starlette_handler("/x/y/a/b"))]),
                ],
            ),
            Host(
                "{sub}.example.org",
                Router([Route("/private/{name}", starlette_handler("/private/{name}#host"))]),
            ),
            Mount(
                "/{tenant}",
                Transparent(
                    Starlette(
                        routes=[
                            Route("/private/me", starlette_handler("/{tenant}/private/me")),
                            Route("/{a}", starlette_handler("/{tenant}/{a}"), methods=["POST"]),
                            WebSocketRoute("/{a}", websocket("/{tenant}/{a}#ws")),
                            Mount(
                                "/{shop}",
                                routes=[
                                    Route("/x/me", starlette_handler("/{tenant}/{shop}/x/me")),
                                    Mount("", asgi("/{tenant}/{shop}/*")),
                                ],
                            ),
                        ]
                    )
                ),
            ),
            Route("/{a}", starlette_handler("/{a}")),
        ]
    )


def fastapi_app() -> FastAPI:
    app = FastAPI(openapi_url=None)
    inner, outer, mounted = APIRouter(), APIRouter(prefix="/private"), FastAPI(openapi_url=None)
    inner.get("/me")(handler("/private/x/me"))
    inner.post("/{name}")(handler("/private/x/{name}"))
    inner.mount("/y", Router([Route("/a", starlette_handler("/private/x/y/a"))]))
    inner.host("a.example.org", Router([Route("/{b}", starlette_handler("/private/x/{b}#host"))]))
    outer.get("/me")(handler("/private/me"))
    outer.include_router(inner, prefix="/x")
    outer.get("/{p:path}")(handler("/private/*"))
    outer.add_route("/plain", starlette_handler("/private/plain"), methods=["PUT"])
    outer.websocket("/{name}")(fastapi_websocket("/private/{name}#ws"))
    mounted.get("/{a}")(handler("/x/{a}"))
    mounted.include_router(inner, prefix="/private/x")
    app.include_router(outer)
    app.mount("/x", mounted)
    app.include_router(outer, prefix="/items")
    app.post("/{a}/{b}")(handler("/{a}/{b}"))
    return app


def fastapi_websocket(label: str):
    async def endpoint(websocket: fastapi.WebSocket):
        ran.append(label)
        await websocket.close()

    endpoint.__qualname__ = label
    # The annotation is read as a name of this module.
    endpoint.__annotations__ = {"websocket": fastapi.WebSocket}
    return endpoint


APPS = [starlette_app(), fastapi_app()]
TABLES = [table_of(app) for app in APPS]

UUID = "12345678-1234-1234-1234-123456789abc"
WORDS = ["private", "me", "x", "y", "a", "b", "items", "raw", "7", "plain", UUID, "Private"]
ODD = ["..", ".", "%2F", "%2e%2E", "%0A", "%0D", "é", "%C3%A9", "%FF", "a;b", "%00", "%25", "a%0Ab"]
ENDS = ["/", "//", "%0A", "%0D%0A", "%0A%0A", "/%0A", "%2F", "/.", "/..", "%E2%80%A8", "%20", ";"]
SLASHES = ["//", "%2f", "/./", "/x/../", "%0A/"]
ROOT_PATHS = ["", "", "", "/api", "/api/", "/", "/private", "/x", "/x/y", "//"]


@st.composite
def paths(draw, number):
    """A path as a client may send it, decoded as uvicorn does: near a route's or at random."""
    words = st.sampled_from(WORDS + ODD)
    template = draw(st.sampled_from([endpoint.path for endpoint in TABLES[number].endpoints]))
    segments = [
        draw(words) if one in ("", "*") or one.startswith("{") else one
        for one in template.split("/")[1:]
    ]
    # Some of it left out or put in twice, and now and then nothing of it.
    start, end = draw(st.integers(0, 2)), draw(st.sampled_from([0, 9, 9, 9]))
    segments = [*segments[: draw(st.integers(0, 2))], *segments[start:end]]
    odd = draw(st.integers(0, 2)) == 0
    slash = st.sampled_from(["/"] * 9 + SLASHES) if odd else st.just("/")
    ending = draw(st.sampled_from(ENDS)) if draw(st.booleans()) else ""
    return unquote("".join(draw(slash) + one for one in segments) + ending)


@st.composite
def requests(draw):
    """The number of an application and a scope for it."""
    number = draw(st.integers(0, len(APPS) - 1))
    root_path = draw(st.sampled_from(ROOT_PATHS))
    path = draw(paths(number))
    return number, a_scope(
        root_path + path if draw(st.booleans()) else path,
        draw(st.sampled_from(["GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "get"])),
        root_path=root_path,
        kind=draw(st.sampled_from(["http", "http", "http", "websocket"])),
        host=draw(st.sampled_from(["testserver", "a.example.org", "A.Example.ORG:80", "["])),
    )


def odd_requests(test):
    """What random requests once found, or nearly never find."""
    for request in [
        (0, a_scope("/private/me\n")),
        (0, a_scope("/x/a\n")),
        (0, a_scope("/x//a\n")),
        (0, a_scope("/private/me", "DELETE")),
        (0, a_scope("/private/me", root_path="/api")),
        (0, a_scope("/private/me", "POST", root_path="/api")),
        (0, a_scope("/me/", root_path="/api")),
        (0, a_scope("/x/me", root_path="/api")),
        (0, a_scope("", root_path="/private")),
        (0, a_scope("/private/me\n", kind="websocket")),
        (1, a_scope("/private/x/y/a\n")),
        (1, a_scope("/private/x/me", host="a.example.org")),
        (1, a_scope("/x/private/x/me", root_path="/x")),
    ]:
        test = example(request)(test)

    return test


@settings(max_examples=1500, deadline=None)
@given(requests())
@odd_requests
def test_the_table_foretells_the_endpoint_that_the_router_runs(request):
    number, scope = request
    before = dict(scope)
    endpoint = TABLES[number].match(scope)
    label = run(APPS[number], scope)

    assert scope == before

    if label is not None:
        assert endpoint is not None
        assert endpoint.name == label
    elif endpoint is not None:
        # Nothing ran: the wrong method, or a mount that had nothing there.
        wrong_method = endpoint.methods and scope["method"] not in endpoint.methods
        assert wrong_method or endpoint.kind == "mount"


def as_pattern(template: str) -> str:
    """Return what an operator writes for a route."""
    plain = re.sub(r":(int|uuid)\}", "}", template)
    return re.sub(r"/\{\w+:path\}$", "/*", plain)


@settings(max_examples=2500, deadline=None)
@given(requests())
@odd_requests
def test_a_pattern_that_reads_like_a_route_covers_every_spelling_that_reaches_it(request):
    number, scope = request
    label = run(APPS[number], scope)

    if label is None:
        return

    # That it is the right one is the test above.
    pattern = as_pattern(TABLES[number].match(scope).path)
    method = "GET" if scope["type"] == "websocket" else scope["method"]
    table = PathTable([(pattern, None, label)])
    assert table.lookup(scope["path"], scope["root_path"], method) == (label,)


LITERALS = st.sampled_from(["/a", "/b", "/{%s}"])


@st.composite
def trees(draw, depth=3, prefix=""):
    """Routes with nested mounts, each endpoint called by its number and the whole template."""
    routes: list[BaseRoute] = []

    for number in range(draw(st.integers(1, 3))):
        template = "".join(draw(st.lists(LITERALS, max_size=2)))
        # Each placeholder needs a name of its own, all the way down.
        while "%s" in template:
            template = template.replace("%s", f"n{depth}{template.count('%s')}", 1)

        if depth and draw(st.booleans()):
            below = draw(trees(depth - 1, prefix + template))
            routes.append(Mount(template, routes=below))
            continue

        end = draw(st.sampled_from(["", "", "/", f"/{{p{depth}:path}}"])) or (
            "" if template else "/"
        )
        methods = draw(st.sampled_from([["GET"], ["POST"]]))
        label = f"{depth}.{number} {prefix + template + end}"
        routes.append(Route(template + end, starlette_handler(label), methods=methods))

    return routes


@settings(max_examples=1500, deadline=None)
@given(
    trees(),
    st.text("/ab.", max_size=9),
    st.sampled_from(["", "", "\n", "/\n", "\r"]),
    st.sampled_from(["", "", "/a", "/b", "/", "/b/a", "/a/"]),
    st.sampled_from(["GET", "POST"]),
)
def test_no_spelling_slips_past_in_any_tree_of_mounts(routes, path, end, root_path, method):
    app = Starlette(routes=routes)
    scope = a_scope("/" + path + end, method, root_path=root_path)
    label = run(app, scope)
    endpoint = table_of(app).match(scope)

    if label is None:
        assert endpoint is None or endpoint.kind == "mount" or method not in endpoint.methods
        return

    assert endpoint.name == label
    assert endpoint.path == label.split(" ")[1]
    table = PathTable([(as_pattern(endpoint.path), None, label)])
    assert table.lookup(scope["path"], root_path, method) == (label,)
