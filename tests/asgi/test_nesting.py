"""Several middlewares: of one file they are one, of different files they compose."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from wasm_middleware import WasmPluginMiddleware

from .guests import Guest
from .harness import Server, Spy, Workshop, http_scope, respond
from .test_routing import ran, route

pytestmark = pytest.mark.anyio


async def endpoint(request):
    return PlainTextResponse("hi")


def middleware(workshop, **options):
    options = {"config": workshop.config(), "engine": workshop.engine, **options}
    return Middleware(WasmPluginMiddleware, **options)


def around(workshop, app, **options):
    """A middleware around what may hold one already."""
    return workshop.wrap(app, **options)


async def test_added_twice_each_plugin_runs_once_on_the_same_instances(workshop):
    workshop.add(Guest, name="a")
    workshop.add(Guest, name="b")
    app = around(workshop, workshop.wrap(respond(b"")))
    assert await ran(workshop, app) == ["a", "b"]
    assert await ran(workshop, app, phase="log") == ["a", "b"]


async def test_the_same_file_is_loaded_once_for_all(workshop, tmp_path):
    workshop.add(Guest, name="a")
    file = tmp_path / "plugins.yaml"
    file.write_text("plugins:\n  - {name: a, path: a.wasm}\n")
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    app = workshop.wrap(respond(b""), config=str(file))
    app = around(workshop, around(workshop, app, config=link), config=file)
    assert await ran(workshop, app, phase="root") == ["a"]
    assert await ran(workshop, app) == ["a"]


async def test_an_inner_middleware_adds_what_has_not_run(workshop):
    for name in "abc":
        workshop.add(Guest, name=name)

    inner = workshop.wrap(respond(b""), plugins=["c", "a"])
    app = around(workshop, inner, plugins=["a", "b"])
    assert await ran(workshop, app) == ["a", "b", "c"]
    assert await ran(workshop, app, phase="root") == []


async def test_three_deep_nothing_runs_twice(workshop, tmp_path):
    (tmp_path / "other").mkdir()
    other = Workshop(tmp_path / "other")
    other.events = workshop.events
    workshop.add(Guest, name="a")
    other.add(Guest, name="b")
    app = around(other, workshop.wrap(respond(b"")))
    app = around(workshop, app)
    assert await ran(workshop, app) == ["a", "b"]
    assert other.violations == []


async def test_different_files_compose_from_the_outside_in(workshop, tmp_path):
    (tmp_path / "other").mkdir()
    other = Workshop(tmp_path / "other")
    other.events = workshop.events
    workshop.add(Guest, name="a")
    other.add(Guest, name="a", priority=5)
    app = around(workshop, other.wrap(respond(b"")))
    assert await ran(workshop, app) == ["a", "a"]
    assert await ran(workshop, app, phase="root") == []
    assert other.violations == []


async def test_the_key_of_the_outer_middleware_is_back_after_the_inner_one(workshop):
    workshop.add(Guest, name="a")
    workshop.add(Guest, name="b")
    seen = []
    inner = workshop.wrap(respond(b""), plugins=["b"])

    async def between(scope, receive, send):
        before = scope["wasm_middleware"]
        await inner(scope, receive, send)
        seen.append(scope["wasm_middleware"] is before)

    scope = http_scope()
    await Server(scope).run(around(workshop, between, plugins=["a"]))
    assert seen == [True]
    assert "wasm_middleware" not in scope


async def test_a_route_may_have_a_chain_of_its_own(workshop):
    for name in "abc":
        workshop.add(Guest, name=name)

    app = Starlette(
        routes=[
            Route("/x", endpoint, middleware=[middleware(workshop, plugins=["b", "a"])]),
            Route("/y", endpoint),
            Mount(
                "/mount",
                routes=[Route("/z", endpoint)],
                middleware=[middleware(workshop, plugins=["c"])],
            ),
        ],
        middleware=[middleware(workshop, plugins=["a"])],
    )
    app = workshop.around(app)
    assert await ran(workshop, app, "/x") == ["a", "b"]
    assert await ran(workshop, app, "/y") == ["a"]
    assert await ran(workshop, app, "/mount/z") == ["a", "c"]
    assert await ran(workshop, app, "/mount/nowhere") == ["a", "c"]


async def test_a_mounts_middleware_matches_routes_below_the_mount(workshop):
    """Its routes are about the application that it wraps, as if that stood alone."""
    workshop.add(Guest, name="a")
    routes = [route("/private/*", "a")]
    app = Starlette(
        routes=[
            Mount(
                "/api",
                routes=[Route("/private/x", endpoint), Route("/public", endpoint)],
                middleware=[middleware(workshop, config=workshop.config(routes=routes))],
            )
        ]
    )
    app = workshop.around(app)
    assert await ran(workshop, app, "/api/private/x") == ["a"]
    assert await ran(workshop, app, "/api/public") == []


async def test_a_path_that_an_outer_plugin_rewrites_is_what_the_inner_one_matches(workshop):
    class Rewrite(Guest):
        def request_headers(self, end):
            self.set(b":path", b"/private/x")

    workshop.add(Rewrite)
    workshop.add(Guest, name="auth")
    routes = [route("/private/*", "auth")]
    inner = workshop.wrap(respond(b""), config=workshop.config(routes=routes))
    app = around(workshop, inner, plugins=["rewrite"])
    # The outer one is told to run nothing else.
    assert await ran(workshop, app, "/public") == ["rewrite", "auth"]


async def test_a_reply_of_the_inner_one_passes_the_outer_one_as_a_response(workshop):
    class Deny(Guest):
        def request_headers(self, end):
            self.reply(403, b"no")

    workshop.add(Guest, name="a")
    workshop.add(Deny)
    spy = Spy()
    inner = workshop.wrap(spy, plugins=["deny"])
    server = await Server(http_scope()).run(around(workshop, inner, plugins=["a"]))
    assert (server.status, server.body) == (403, b"no")
    assert workshop.phases("a").count("response_headers") == 1
    assert spy.scopes == []
