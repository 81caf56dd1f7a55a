"""The properties that plugins set, as the application finds them."""

from __future__ import annotations

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from wasm_middleware import WasmPluginMiddleware
from wasm_middleware.abi.protobuf import encode

from .guests import Guest, imports
from .harness import Server, Spy, http_scope, respond

pytestmark = pytest.mark.anyio
KEY = "wasm_properties"


class Setter(Guest):
    """Sets what the path says, a property for each segment."""

    def put(self, path, value):
        return self.host.proxy_set_property(*self.text(path), *self.text(value))

    def request_headers(self, end):
        for index, segment in enumerate(self.get(b":path").split(b"/")[1:]):
            self.put(b"auth\0%d" % index, segment)

    def response_headers(self, end):
        self.put(b"late", b"yes")


class Reader(Guest):
    """Can't set a property."""

    imports = imports("proxy_set_property", "proxy_call_foreign_function")


class FilterState(Guest):
    """Can set one by way of a foreign function."""

    imports = imports("proxy_set_property")

    def request_headers(self, end):
        arguments = encode([(1, "tier"), (2, "gold")])
        where = self.proxy_on_memory_allocate(8)
        name = self.text(b"set_envoy_filter_state")
        assert not self.host.proxy_call_foreign_function(
            *name, *self.text(arguments), where, where + 4
        )


class Keeper(Spy):
    """An application that looks while it runs."""

    async def __call__(self, scope, receive, send):
        self.before = dict(scope["state"][KEY])
        await super().__call__(scope, receive, send)
        self.after = dict(scope["state"][KEY])


async def test_the_application_finds_what_plugins_have_set(workshop):
    workshop.add(Setter)
    app = Keeper()
    await Server(http_scope("/ada/admin")).run(workshop.wrap(app))

    assert app.before == {"auth.0": b"ada", "auth.1": b"admin"}


async def test_what_is_set_later_is_found_later(workshop):
    workshop.add(Setter)
    app = Keeper()
    await Server(http_scope("/ada")).run(workshop.wrap(app))

    assert app.after == {"auth.0": b"ada", "late": b"yes"}


async def test_a_foreign_function_can_set_one_too(workshop):
    workshop.add(FilterState)
    app = Keeper()
    await Server(http_scope("/")).run(workshop.wrap(app))

    assert app.before == {"filter_state.tier": b"gold"}


async def test_it_can_only_be_read(workshop):
    workshop.add(Setter)
    app = Keeper()
    await Server(http_scope("/ada")).run(workshop.wrap(app))
    found = app.scope["state"][KEY]

    with pytest.raises(TypeError):
        found["auth.0"] = b"eve"

    assert (len(found), list(found), "auth.0" in found, found.get("auth")) == (
        2,
        ["auth.0", "late"],
        True,
        None,
    )
    # Values may be secrets.
    assert repr(found) == "<WasmProperties auth.0, late>"

    with pytest.raises(KeyError):
        found["none"]


async def test_odd_paths_can_be_found(workshop):
    class Odd(Setter):
        def request_headers(self, end):
            self.put(b"a.b\0c", b"first")
            self.put(b"a\0b.c", b"second")
            self.put(b"\xff", b"third")
            self.put(b"again", b"1")
            self.put(b"again", b"2")

    workshop.add(Odd)
    app = Keeper()
    await Server(http_scope("/")).run(workshop.wrap(app))

    assert app.before == {"a.b.c": b"first", "\\xff": b"third", "again": b"2"}


@pytest.mark.parametrize("settings", [{}, {"allowed_capabilities": ["proxy_on_request_headers"]}])
async def test_a_chain_that_can_not_set_any_touches_nothing(workshop, settings):
    workshop.add(Guest if settings else Reader, **settings)
    app = Spy()
    scope = http_scope("/")
    state = scope["state"]
    await Server(scope).run(workshop.wrap(app))

    assert app.scope is scope
    assert app.seen["state"] is state
    assert state == {}


async def test_nothing_else_of_the_scope_is_touched(workshop):
    workshop.add(Setter)
    app = Spy()
    scope = http_scope("/ada", state={"pool": "mine"})
    before, state = dict(scope), scope["state"]
    await Server(scope).run(workshop.wrap(app))

    # What the application puts there is for those outside as well: it is the very same state.
    assert app.seen["state"] is state
    assert set(state) == {"pool", KEY}
    assert {name: value for name, value in app.seen.items() if name in before} == before
    assert scope == before


async def test_a_server_without_state_is_no_hindrance(workshop):
    class App(Keeper):
        async def __call__(self, scope, receive, send):
            scope["state"]["user"] = "ada"
            await super().__call__(scope, receive, send)

    workshop.add(Setter)
    app = App()
    scope = http_scope("/ada")
    del scope["state"]
    await Server(scope).run(workshop.wrap(app))

    assert app.before == {"auth.0": b"ada"}
    # Those outside see what the application has put there, as they do without the middleware.
    assert scope["state"]["user"] == "ada"


async def test_requests_do_not_see_each_other(workshop):
    workshop.add(Setter)
    both_run = [anyio.Event(), anyio.Event()]
    found = {}

    async def app(scope, receive, send):
        index = int(scope["path"][1:])
        both_run[index].set()
        await both_run[1 - index].wait()
        found[index] = dict(scope["state"][KEY])
        await respond()(scope, receive, send)

    wrapped = await workshop.load(workshop.wrap(app))

    async with anyio.create_task_group() as group:
        for index in (0, 1):
            group.start_soon(Server(http_scope(f"/{index}")).run, wrapped)

    assert found == {0: {"auth.0": b"0"}, 1: {"auth.0": b"1"}}


async def test_what_is_left_in_a_state_is_not_taken_over(workshop):
    """A server that gave two requests one state would break the rule, and still leak nothing."""
    workshop.add(Setter)
    app = Keeper()
    wrapped = workshop.wrap(app)
    shared = {}
    await Server(http_scope("/a/b", state=shared)).run(wrapped)
    await Server(http_scope("/c", state=shared)).run(wrapped)

    assert app.before == {"auth.0": b"c"}


async def test_a_middleware_inside_adds_its_own(workshop):
    class Inner(Setter):
        def request_headers(self, end):
            self.put(b"auth\0001", b"inner")
            self.put(b"mine", b"inner")

    workshop.add(Setter)
    workshop.add(Inner)
    config = workshop.config()
    app = Keeper()
    inner = WasmPluginMiddleware(app, config=config, engine=workshop.engine, plugins=["inner"])
    outer = workshop.wrap(inner, config=config, plugins=["setter"])
    await Server(http_scope("/a/b")).run(outer)

    assert app.before == {"auth.0": b"a", "auth.1": b"inner", "mine": b"inner"}
    assert app.after["late"] == b"yes"


async def test_websockets_have_them_too(workshop):
    workshop.add(Setter)
    scope = {**http_scope("/ada"), "type": "websocket", "scheme": "ws", "subprotocols": []}
    del scope["method"]
    found = {}

    async def app(scope, receive, send):
        found.update(scope["state"][KEY])
        await receive()
        await send({"type": "websocket.close", "code": 1000, "reason": ""})

    await Server(scope, [{"type": "websocket.connect"}]).run(workshop.wrap(app))

    assert found == {"auth.0": b"ada"}


async def test_in_starlette_it_is_the_requests_state(workshop):
    workshop.add(Setter)
    seen = []

    async def endpoint(request):
        user = request.state.wasm_properties["auth.0"].decode()
        request.state.user = user
        return JSONResponse({"user": user})

    async def log(request, call_next):
        response = await call_next(request)
        seen.append((request.state.user, request.state.wasm_properties["late"]))
        return response

    app = Starlette(routes=[Route("/{name}", endpoint)])
    app.add_middleware(WasmPluginMiddleware, config=workshop.config(), engine=workshop.engine)
    app.add_middleware(BaseHTTPMiddleware, dispatch=log)
    server = await Server(http_scope("/ada")).run(workshop.around(app))

    assert server.body == b'{"user":"ada"}'
    assert seen == [("ada", b"yes")]
