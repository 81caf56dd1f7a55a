"""A plugin changes what a request is routed by: plugins of the new route run too, each once."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Route

from wasm_middleware import WasmPluginMiddleware, wasm_plugins

from .guests import PAUSE, Guest
from .harness import Server, Spy, http_scope, respond
from .test_routing import endpoint, ran, route

pytestmark = pytest.mark.anyio


def setting(name: bytes, value: bytes, base=Guest):
    class Set(base):
        def request_headers(self, end):
            self.set(name, value)

    return Set


async def test_the_plugins_of_the_new_path_run_too(workshop):
    workshop.add(setting(b":path", b"/private/x"), name="rewrite")
    workshop.add(Guest, name="both")
    workshop.add(Guest, name="auth", priority=9)
    routes = [route("/private/*", "auth", "both"), route("/*", "rewrite", "both")]
    spy = Spy()
    app = workshop.wrap(spy, routes=routes)
    assert await ran(workshop, app, "/public") == ["rewrite", "both", "auth"]
    assert spy.seen["path"] == "/private/x"
    for phase in ("response_headers", "log", "done", "delete"):
        workshop.events.clear()
        assert sorted(await ran(workshop, app, "/public", phase)) == ["auth", "both", "rewrite"]


async def test_one_of_them_may_refuse_the_request(workshop):
    class Deny(Guest):
        def request_headers(self, end):
            self.reply(403)

    workshop.add(setting(b":path", b"/private/x"), name="rewrite")
    workshop.add(Deny, name="auth")
    routes = [route("/private/*", "auth"), route("/*", "rewrite")]
    spy = Spy()
    server = await Server(http_scope("/public")).run(workshop.wrap(spy, routes=routes))
    assert server.status == 403
    assert spy.scopes == []


async def test_a_chain_of_rewrites_is_followed_to_its_end(workshop):
    count = 12

    for number in range(count):
        workshop.add(setting(b":path", b"/%d" % (number + 1)), name=f"p{number}")

    routes = [route(f"/{number}", f"p{number}") for number in range(count)]
    workshop.add(Guest, name="last")
    routes.append(route(f"/{count}", "last"))
    app = workshop.wrap(respond(b""), routes=routes)
    names = [f"p{number}" for number in range(count)]
    assert await ran(workshop, app, "/0") == [*names, "last"]


async def test_rewrites_in_a_circle_end(workshop):
    workshop.add(setting(b":path", b"/b"), name="a")
    workshop.add(setting(b":path", b"/a"), name="b")
    spy = Spy()
    app = workshop.wrap(spy, routes=[route("/a", "a"), route("/b", "b")])
    assert await ran(workshop, app, "/a") == ["a", "b"]
    assert spy.seen["path"] == "/a"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [(b":method", b"DELETE", ["rewrite", "auth"]), (b":method", b"GET", ["rewrite"])],
)
async def test_a_changed_method_is_routed_again(workshop, name, value, found):
    workshop.add(setting(name, value), name="rewrite")
    workshop.add(Guest, name="auth")
    routes = [route("/x", "auth", methods=["DELETE"]), route("/*", "rewrite")]
    app = workshop.wrap(respond(b""), routes=routes)
    assert await ran(workshop, app, "/x") == found


async def test_a_changed_host_reaches_the_endpoint_of_that_host_with_its_plugins(workshop):
    workshop.add(setting(b":authority", b"admin.test"), name="rewrite", mandatory=True)
    workshop.add(Guest, name="auth")
    admin = wasm_plugins("auth")(Route("/x", endpoint))
    app = Starlette(routes=[Host("admin.test", Starlette(routes=[admin])), Route("/x", endpoint)])
    config = workshop.config(routes=[route("/*", "rewrite")])
    app.add_middleware(WasmPluginMiddleware, config=config, engine=workshop.engine)
    assert await ran(workshop, workshop.around(app), "/x") == ["rewrite", "auth"]


async def test_the_decorator_of_the_new_endpoint_counts(workshop):
    workshop.add(setting(b":path", b"/new"), name="rewrite")
    workshop.add(Guest, name="auth")

    @wasm_plugins("auth")
    async def new(request):
        return PlainTextResponse("new")

    app = Starlette(routes=[Route("/old", endpoint), Route("/new", new)])
    config = workshop.config(routes=[route("/*", "rewrite")])
    app.add_middleware(WasmPluginMiddleware, config=config, engine=workshop.engine)
    outer = workshop.around(app)
    assert await ran(workshop, outer, "/old") == ["rewrite", "auth"]
    assert (await Server(http_scope("/old")).run(outer)).body == b"new"


async def test_a_plugin_that_is_added_may_pause_and_its_time_ends(workshop):
    class Hold(Guest):
        def request_headers(self, end):
            return PAUSE

    workshop.add(setting(b":path", b"/private"), name="rewrite")
    workshop.add(Hold, pause_timeout="20ms")
    routes = [route("/private", "hold"), route("/*", "rewrite")]
    server = await Server(http_scope("/x")).run(workshop.wrap(Spy(), routes=routes))
    assert server.status == 503


async def test_a_plugin_that_is_added_and_can_not_start_closes_the_way(workshop, caplog):
    class Trap(Guest):
        starts = 0

        def configure(self):
            type(self).starts += 1
            return type(self).starts == 1

        def request_headers(self, end):
            raise RuntimeError("boom")

    workshop.add(setting(b":path", b"/private"), name="rewrite")
    workshop.add(Trap)
    routes = [route("/private", "trap"), route("/*", "rewrite")]
    spy = Spy()
    app = workshop.wrap(spy, routes=routes)

    for _ in range(2):
        assert (await Server(http_scope("/x")).run(app)).status == 503

    assert spy.scopes == []
    assert "answered false" in caplog.text


async def test_a_path_that_can_not_be_is_found_before_other_plugins_run(workshop):
    workshop.add(setting(b":path", b"no slash"), name="rewrite")
    workshop.add(Guest, name="other")
    routes = [route("/x", "rewrite"), route("/*", "other")]
    app = workshop.wrap(Spy(), routes=routes)
    assert await ran(workshop, app, "/x") == ["rewrite"]


async def test_a_header_that_routes_nothing_routes_nothing_again(workshop, monkeypatch):
    workshop.add(setting(b"x-user", b"me"), name="a")
    app = await workshop.load(workshop.wrap(respond(b"")))
    binding = app.app._binding
    asked = []
    find_chain = binding.find_chain
    monkeypatch.setattr(binding, "find_chain", lambda s: asked.append(s) or find_chain(s))
    await Server(http_scope()).run(app)
    assert len(asked) == 1
