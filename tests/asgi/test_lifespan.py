"""Lifespan: plugins are loaded before the application starts, and what is wrong is said at once."""

from __future__ import annotations

import contextlib

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from wasm_middleware import ConfigError, WasmPluginMiddleware, wasm_plugins
from wasm_middleware.runtime.registry import REGISTRY

from .guests import Guest
from .harness import Server, Spy, http_scope, respond

pytestmark = pytest.mark.anyio

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


def lifespan_scope(**more):
    return {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}, **more}


async def run_lifespan(app, *messages, scope=None):
    """Run the protocol with a script; what the server was told."""
    script, sent = list(messages), []

    async def receive():
        return script.pop(0)

    async def send(message):
        sent.append(message)

    try:
        await app(scope or lifespan_scope(), receive, send)
    except Exception:
        # What fails the start is raised as well as said, so that test clients end.
        if [message["type"] for message in sent] != ["lifespan.startup.failed"]:
            raise

    return sent


def service(workshop, handler=None, **options):
    """An application with lifespan around which the middleware stands, linted."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            workshop.events.append("app")
            await (handler or well_behaved)(scope, receive, send)
        else:
            await respond(b"hi")(scope, receive, send)

    options = {"config": workshop.config(), "engine": workshop.engine, **options}
    return workshop.around(WasmPluginMiddleware(app, **options))


async def well_behaved(scope, receive, send):
    assert await receive() == STARTUP
    scope["state"]["from the app"] = 1
    await send({"type": "lifespan.startup.complete"})
    assert await receive() == SHUTDOWN
    await send({"type": "lifespan.shutdown.complete"})


class Ends(Guest):
    """Says when its root context ends."""

    def done(self):
        self.note("ended")


def only_failure(sent):
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    return message["message"]


async def test_it_passes_through_around_loading_and_unloading(workshop):
    workshop.add(Ends)
    scope = lifespan_scope()
    sent = await run_lifespan(service(workshop), STARTUP, SHUTDOWN, scope=scope)
    kinds = [message["type"] for message in sent]
    assert kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert workshop.events == ["ends root", "app", "ends done", "ends ended", "ends delete"]
    assert scope["state"] == {"from the app": 1}
    assert not REGISTRY._shared


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"priorty": 1}, "plugins.0.priorty: "),
        ({"timeout": "5 parsecs"}, "plugins.0.timeout: "),
        ({"path": "nowhere.wasm"}, "no such file"),
        ({"sha256": "0" * 64}, "SHA-256"),
    ],
)
async def test_a_mistake_in_the_configuration_fails_the_start(workshop, settings, says):
    workshop.add(Guest, **settings)
    message = only_failure(await run_lifespan(service(workshop), STARTUP))
    assert message.startswith("wasm_middleware: <config>: plugins.0")
    assert says in message
    assert "app" not in workshop.events


async def test_all_mistakes_are_said_at_once(workshop):
    class Refuse(Guest):
        def configure(self):
            return False

    workshop.add(Refuse, name="one")
    workshop.add(Refuse, name="two")
    message = only_failure(await run_lifespan(service(workshop), STARTUP))
    assert message.count("on_configure answered false") == 2
    assert "plugins.0: plugin 'one'" in message
    assert "plugins.1: plugin 'two'" in message
    # A hint stands once.
    assert message.count("its log says more") == 2


async def test_a_mistake_in_a_file_has_its_line(workshop, tmp_path):
    file = tmp_path / "plugins.yaml"
    file.write_text("plugins:\n  - name: a\n    path: a.wasm\n    timout: 1s\n")
    message = only_failure(await run_lifespan(service(workshop, config=file), STARTUP))
    assert f"{file}:4:5: plugins.0.timout" in message
    assert f"{file}:3:11: plugins.0.path: no such file" in message


async def test_a_module_that_is_none_fails_the_start(workshop):
    workshop.add(Guest)
    workshop.modules.clear()
    message = only_failure(await run_lifespan(service(workshop), STARTUP))
    assert "plugins.0: plugin 'guest': the null engine knows no such module" in message


async def test_a_plugin_that_traps_while_it_starts_fails_the_start(workshop):
    class Bad(Guest):
        def configure(self):
            raise RuntimeError("boom")

    workshop.add(Ends)
    workshop.add(Bad)
    message = only_failure(await run_lifespan(service(workshop), STARTUP))
    assert "it failed in on_configure while it started" in message
    # What had started is ended.
    assert workshop.phases("ends")[-1] == "delete"


async def test_plugins_that_are_none_fail_the_start(workshop):
    workshop.add(Guest, name="rate-limit")
    app = service(workshop, plugins=["ratelimit"])
    message = only_failure(await run_lifespan(app, STARTUP))
    assert "names 'ratelimit', which is no plugin of this file" in message
    assert "did you mean 'rate-limit'?" in message


async def test_a_decorator_with_an_unknown_name_fails_the_start(workshop):
    @wasm_plugins("guset")
    async def endpoint(request):
        return PlainTextResponse("hi")

    workshop.add(Guest)
    middleware = [
        Middleware(WasmPluginMiddleware, config=workshop.config(), engine=workshop.engine)
    ]
    app = Starlette(routes=[Route("/x", endpoint)], middleware=middleware)
    message = only_failure(await run_lifespan(workshop.around(app), STARTUP))
    assert "(/x) names 'guset'" in message
    assert "did you mean 'guest'?" in message


async def test_an_unexpected_error_fails_the_start_too(workshop):
    """Without the message it would look like an application without lifespan."""

    def broken_engine():
        raise ZeroDivisionError("a bug")

    workshop.add(Guest)
    app = service(workshop, engine=broken_engine)
    message = only_failure(await run_lifespan(app, STARTUP))
    assert "ZeroDivisionError('a bug')" in message


async def test_a_plugin_that_is_fail_open_is_tried_again(workshop, caplog, monkeypatch):
    now = [50.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    class Later(Guest):
        tries = 0

        def configure(self):
            type(self).tries += 1
            return type(self).tries > 1

    workshop.add(Later, failure_policy="fail_open")
    workshop.add(Guest)
    app = service(workshop)
    started = await run_lifespan(app, STARTUP, SHUTDOWN)
    assert started[0]["type"] == "lifespan.startup.complete"
    assert "it is fail_open: the service starts without it" in caplog.text
    workshop.events.clear()
    now[0] += 100
    server = await Server(http_scope()).run(app)
    assert server.body == b"hi"
    assert "request_headers" in workshop.phases("later")


async def test_a_plugin_that_is_fail_open_and_never_starts_is_left_out(workshop, caplog):
    class Never(Guest):
        def configure(self):
            return False

    workshop.add(Never, failure_policy="fail_open")
    workshop.add(Guest)
    app = workshop.wrap(respond(b"hi"))

    for _ in range(5):
        server = await Server(http_scope()).run(app)
        assert server.body == b"hi"

    assert "request_headers" not in workshop.phases("never")
    assert workshop.phases("guest").count("request_headers") == 5
    # At the start, and then from time to time: not at each request.
    assert 1 <= caplog.text.count("answered false") <= 2


@pytest.mark.parametrize("raises", [True, False])
async def test_an_application_without_lifespan_is_served_all_the_same(workshop, raises):
    async def without(scope, receive, send):
        if raises:
            raise NotImplementedError

    workshop.add(Guest)
    app = service(workshop, without)

    with pytest.raises(NotImplementedError) if raises else contextlib.nullcontext():
        assert await run_lifespan(app, STARTUP) == []

    server = await Server(http_scope()).run(app)
    assert server.body == b"hi"
    assert workshop.events.count("guest root") == 1


async def test_an_application_that_fails_to_start_unloads_the_plugins(workshop):
    async def failing(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    workshop.add(Ends)
    message = only_failure(await run_lifespan(service(workshop, failing), STARTUP))
    assert message == "no database"
    assert workshop.phases("ends")[-1] == "delete"
    assert not REGISTRY._shared


async def test_an_application_that_fails_to_stop_unloads_the_plugins(workshop):
    async def failing(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError("can't stop")

    workshop.add(Ends)

    with pytest.raises(RuntimeError, match="can't stop"):
        await run_lifespan(service(workshop, failing), STARTUP, SHUTDOWN)

    assert workshop.phases("ends")[-1] == "delete"


async def test_other_kinds_of_scopes_pass(workshop):
    spy = Spy()
    app = WasmPluginMiddleware(spy, config={"plugins": "nonsense"})

    async def nothing(*_):
        pass

    spy.app = nothing
    scope = {"type": "something.new"}
    await app(scope, nothing, nothing)
    assert spy.scopes == [scope]


def test_a_service_may_be_started_again(workshop):
    workshop.add(Ends)

    async def endpoint(request):
        return PlainTextResponse("hi")

    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(WasmPluginMiddleware, config=workshop.config(), engine=workshop.engine)

    for _ in range(2):
        with TestClient(workshop.around(app)) as client:
            assert client.get("/").text == "hi"

    assert workshop.events.count("ends root") == 2
    assert workshop.events.count("ends ended") == 4
    assert not REGISTRY._shared


def test_plugins_as_one_string_is_a_mistake_in_the_code():
    with pytest.raises(TypeError, match="a list of names"):
        WasmPluginMiddleware(respond(b""), config={}, plugins="auth")


async def test_what_requests_loaded_at_once_before_the_start_is_held_once(workshop):
    workshop.add(Ends)
    app = service(workshop)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(Server(http_scope()).run, app)

    await run_lifespan(app, STARTUP, SHUTDOWN)
    assert not REGISTRY._shared


async def test_loading_that_is_cancelled_leaves_nothing_behind(workshop):
    started = anyio.Event()

    class Slow(Guest):
        async def proxy_on_configure(self, context, size):
            started.set()
            await anyio.sleep_forever()

    workshop.add(Ends)
    workshop.add(Slow)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run_lifespan, service(workshop), STARTUP)
            await started.wait()
            group.cancel_scope.cancel()

    assert workshop.phases("ends")[-1] == "delete"
    assert not REGISTRY._shared
    assert not REGISTRY._loading


def test_a_test_client_raises_what_is_wrong_with_the_configuration():
    app = Starlette(middleware=[Middleware(WasmPluginMiddleware, config="no-such-file.yaml")])

    with pytest.raises(ConfigError, match="no such file"), TestClient(app):
        pass


@pytest.mark.parametrize("config", [None, 3, ["plugins.yaml"]])
def test_a_configuration_of_another_type_is_refused_at_once(config):
    with pytest.raises(TypeError, match="config must be a path, a dict or Settings"):
        WasmPluginMiddleware(respond(b"hi"), config=config)
