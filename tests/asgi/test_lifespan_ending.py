"""How a lifespan ends: plugins first, since a server that hears of it lets nothing else run."""

from __future__ import annotations

import anyio
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from wasm_middleware import WasmPluginMiddleware
from wasm_middleware.engines.null import NullEngine
from wasm_middleware.runtime.registry import REGISTRY

from .guests import Guest
from .harness import respond
from .test_lifespan import SHUTDOWN, STARTUP, lifespan_scope

pytestmark = pytest.mark.anyio

COMPLETE, STOPPED = "lifespan.startup.complete", "lifespan.shutdown.complete"
NOT_STARTED, NOT_STOPPED = "lifespan.startup.failed", "lifespan.shutdown.failed"
UNLOADED = ["guest root", "guest done", "guest delete"]


class Broken(NullEngine):
    """Can't be closed."""

    def close(self):
        raise OSError("the engine is stuck")


class Service:
    """An application with lifespan behind the middleware, and a server with a script."""

    def __init__(self, workshop, app, **options):
        async def inside(scope, receive, send):
            await (app if scope["type"] == "lifespan" else respond(b"hi"))(scope, receive, send)

        self._events = workshop.events
        self.sent: list[dict[str, object]] = []
        self.raised: BaseException | None = None
        options = {"config": workshop.config(), "engine": workshop.engine, **options}
        self.app = workshop.around(WasmPluginMiddleware(inside, **options))

    async def run(self, *messages):
        script = list(messages)

        async def receive():
            return script.pop(0)

        async def send(message):
            self.sent.append(message)
            self._events.append(message["type"])

        try:
            await self.app(lifespan_scope(), receive, send)
        except Exception as error:
            self.raised = error

        return self

    @property
    def message(self):
        return self.sent[-1].get("message")


def ending(*messages, raises=None):
    """An application that starts, and at its end says this, and raises that."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": COMPLETE})
        await receive()

        for message in messages:
            await send(message)

        if raises is not None:
            raise raises

    return app


@pytest.mark.parametrize("last", [{"type": STOPPED}, {"type": NOT_STOPPED, "message": "mine"}])
async def test_the_server_hears_of_the_end_when_the_plugins_have_ended(workshop, last):
    workshop.add(Guest)
    service = await Service(workshop, ending(last)).run(STARTUP, SHUTDOWN)
    root, *unloaded = UNLOADED
    assert workshop.events == [root, COMPLETE, *unloaded, last["type"]]
    assert service.sent[-1] == last
    assert service.raised is None
    assert not REGISTRY._shared


async def test_the_server_hears_of_a_failed_start_when_the_plugins_have_ended(workshop):
    async def app(scope, receive, send):
        await receive()
        await send({"type": NOT_STARTED, "message": "no database"})

    workshop.add(Guest)
    service = await Service(workshop, app).run(STARTUP)
    assert workshop.events == [*UNLOADED, NOT_STARTED]
    assert service.message == "no database"


@pytest.mark.parametrize("raises", [None, LookupError("mine")])
async def test_an_application_that_ends_without_a_word_unloads_the_plugins(workshop, raises):
    workshop.add(Guest)
    service = await Service(workshop, ending(raises=raises)).run(STARTUP, SHUTDOWN)
    assert [message["type"] for message in service.sent] == [COMPLETE]
    assert workshop.phases("guest")[-1] == "delete"
    assert service.raised is raises


async def test_what_a_plugin_has_left_to_do_is_done_first(workshop):
    class Batcher(Guest):
        def proxy_on_done(self, context):
            super().proxy_on_done(context)
            self.host.proxy_set_tick_period_milliseconds(10)
            return 0

        def proxy_on_tick(self, context):
            self.enter(context, "tick")
            self.host.proxy_done()

    workshop.add(Batcher, name="guest")
    await Service(workshop, ending({"type": STOPPED})).run(STARTUP, SHUTDOWN)
    assert workshop.events[-4:] == ["guest done", "guest tick", "guest delete", STOPPED]


async def test_plugins_end_even_if_the_server_ends_the_application_meanwhile(workshop):
    """As when a server's patience with the application's end is over."""
    begun = anyio.Event()

    class Slow(Guest):
        async def proxy_on_done(self, context):
            begun.set()
            await anyio.wait_all_tasks_blocked()
            self.enter(context, "done")
            return 1

    workshop.add(Slow, name="guest")
    service = Service(workshop, ending({"type": STOPPED}))

    async with anyio.create_task_group() as group:
        group.start_soon(service.run, STARTUP, SHUTDOWN)
        await begun.wait()
        group.cancel_scope.cancel()

    assert workshop.phases("guest") == ["root", "done", "delete"]
    assert not REGISTRY._shared


# When the plugins can't be unloaded


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"type": STOPPED}], ""),
        ([{"type": NOT_STOPPED, "message": "no goodbye"}], "no goodbye\n"),
        ([], ""),
    ],
)
async def test_plugins_that_can_not_be_unloaded_fail_the_end(workshop, messages, says, caplog):
    workshop.add(Guest)
    options = {"engine": lambda: Broken(workshop.modules)}
    service = await Service(workshop, ending(*messages), **options).run(STARTUP, SHUTDOWN)
    assert [message["type"] for message in service.sent] == [COMPLETE, NOT_STOPPED]
    assert service.message.startswith(f"{says}wasm_middleware: ")
    assert "the engine is stuck" in service.message
    assert "the engine is stuck" in caplog.text
    # A test client waits for it, and shows it to the test.
    assert "the engine is stuck" in str(service.raised)


async def test_the_application_s_own_error_is_not_hidden(workshop, caplog):
    workshop.add(Guest)
    options = {"engine": lambda: Broken(workshop.modules)}
    app = ending(raises=LookupError("mine"))
    service = await Service(workshop, app, **options).run(STARTUP, SHUTDOWN)
    assert isinstance(service.raised, LookupError)
    assert "the engine is stuck" in service.message
    assert "the engine is stuck" in caplog.text


async def test_a_failed_start_is_said_with_what_else_has_failed(workshop, caplog):
    async def app(scope, receive, send):
        await receive()
        await send({"type": NOT_STARTED, "message": "no database"})
        raise LookupError("mine")

    workshop.add(Guest)
    options = {"engine": lambda: Broken(workshop.modules)}
    service = await Service(workshop, app, **options).run(STARTUP)
    assert [message["type"] for message in service.sent] == [NOT_STARTED]
    assert service.message.startswith("no database\nwasm_middleware: ")
    assert isinstance(service.raised, LookupError)


def test_a_test_client_raises_what_was_wrong_at_the_end(workshop):
    workshop.add(Guest)
    app = Starlette()
    engine = lambda: Broken(workshop.modules)  # noqa: E731
    app.add_middleware(WasmPluginMiddleware, config=workshop.config(), engine=engine)

    with pytest.raises(Exception, match="the engine is stuck"), TestClient(app):
        pass
