"""Where no lifespan comes: plugins are loaded once, at the first request, or it is refused."""

from __future__ import annotations

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from wasm_middleware import WasmPluginMiddleware, wasm_plugins

from .guests import Guest
from .harness import Server, Spy, http_scope, respond
from .test_websocket import CONNECT, DENIAL, websocket_scope

pytestmark = pytest.mark.anyio


async def test_many_first_requests_load_once(workshop):
    class Slow(Guest):
        async def proxy_on_configure(self, context, size):
            for _ in range(3):
                await anyio.lowlevel.checkpoint()

            return 1

    workshop.add(Slow)
    made = []

    def engine():
        made.append(1)
        return workshop.engine()

    app = workshop.wrap(respond(b"hi"), engine=engine)
    servers = [Server(http_scope()) for _ in range(5)]

    async with anyio.create_task_group() as group:
        for server in servers:
            group.start_soon(server.run, app)

    assert [server.body for server in servers] == [b"hi"] * 5
    assert workshop.phases("slow").count("root") == 1
    assert made == [1]


async def test_middlewares_with_one_configuration_load_once_together(workshop):
    workshop.add(Guest)
    apps = [workshop.wrap(respond(b"hi")) for _ in range(3)]

    async with anyio.create_task_group() as group:
        for app in apps:
            group.start_soon(Server(http_scope()).run, app)

    assert workshop.phases("guest").count("root") == 1
    assert workshop.phases("guest").count("request_headers") == 3


async def test_what_can_not_be_loaded_is_a_503_and_logged_once_a_second(
    workshop, caplog, monkeypatch
):
    now = [50.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    workshop.may_refuse = True
    workshop.add(Guest, priorty=1)
    spy = Spy()
    app = workshop.wrap(spy)

    for logged in (1, 1, 1, 2, 2):
        server = await Server(http_scope()).run(app)
        assert server.status == 503
        assert server.start["headers"] == [(b"content-length", b"0")]
        assert caplog.text.count("plugins.0.priorty") == logged
        now[0] += 0.4

    assert spy.scopes == []


async def test_it_is_tried_again_until_it_works(workshop, monkeypatch):
    now = [50.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    workshop.may_refuse = True
    workshop.add(Guest)
    (module,) = workshop.folder.glob("*.wasm")
    code = module.read_bytes()
    module.unlink()
    app = workshop.wrap(respond(b"hi"))
    assert (await Server(http_scope()).run(app)).status == 503
    module.write_bytes(code)
    assert (await Server(http_scope()).run(app)).status == 503
    now[0] += 1.1
    assert (await Server(http_scope()).run(app)).body == b"hi"


async def test_an_unexpected_error_is_a_503_with_a_traceback(workshop, caplog):
    def broken_engine():
        raise ZeroDivisionError("a bug")

    workshop.may_refuse = True
    workshop.add(Guest)
    app = workshop.wrap(Spy(), engine=broken_engine)

    for _ in range(3):
        assert (await Server(http_scope()).run(app)).status == 503

    assert caplog.text.count("Traceback") == 1
    assert "a bug" in caplog.text


@pytest.mark.parametrize("extensions", [DENIAL, {}])
async def test_a_websocket_that_could_not_be_protected_is_denied(workshop, extensions):
    workshop.may_refuse = True
    workshop.add(Guest, priorty=1)
    spy = Spy()
    server = Server(websocket_scope(extensions=extensions), [CONNECT])
    await server.run(workshop.wrap(spy))
    assert spy.scopes == []

    if extensions:
        assert server.status == 503
    else:
        assert server.types == ["websocket.close"]


async def endpoint(request):
    return PlainTextResponse("hi")


async def test_a_route_that_is_added_later_with_an_unknown_plugin_is_refused(workshop, caplog):
    workshop.may_refuse = True
    workshop.add(Guest)
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(WasmPluginMiddleware, config=workshop.config(), engine=workshop.engine)
    outer = workshop.around(app)
    assert (await Server(http_scope("/")).run(outer)).status == 200

    @wasm_plugins("nobody")
    async def late(request):
        raise AssertionError("not protected")

    app.router.routes.append(Route("/late", late))
    for _ in range(3):
        assert (await Server(http_scope("/late")).run(outer)).status == 503

    assert (await Server(http_scope("/")).run(outer)).status == 200
    assert caplog.text.count("names 'nobody', which is no plugin of this file") == 1


async def test_a_route_that_is_added_later_has_its_plugins(workshop):
    workshop.add(Guest)
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(
        WasmPluginMiddleware, config=workshop.config(routes=[]), engine=workshop.engine
    )
    outer = workshop.around(app)
    await Server(http_scope("/")).run(outer)
    app.router.routes.append(wasm_plugins("guest")(Route("/late", endpoint)))
    await Server(http_scope("/late")).run(outer)
    assert workshop.phases("guest").count("request_headers") == 1


async def test_a_marker_that_can_not_be_kept_refuses_what_comes_after_it(workshop, caplog):
    class Holder:
        """A route that holds others, and matches in a way of its own."""

        def __init__(self, *routes):
            self.routes = routes

        def matches(self, scope):
            return Route("/held", endpoint).matches(scope)

    workshop.may_refuse = True
    workshop.add(Guest)
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(
        WasmPluginMiddleware, config=workshop.config(routes=[]), engine=workshop.engine
    )
    outer = workshop.around(app)
    assert (await Server(http_scope("/")).run(outer)).status == 200
    app.router.routes.append(Holder(wasm_plugins("guest")(Route("/held", endpoint))))
    assert (await Server(http_scope("/")).run(outer)).status == 503
    assert "can't be looked into" in caplog.text
