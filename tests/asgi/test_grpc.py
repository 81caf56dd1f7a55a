"""A plugin of the Rust SDK that asks a real gRPC server, through the middleware."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio
import pytest
from services.grpc_server import serving

from wasm_middleware.config import load_settings
from wasm_middleware.runtime.engines import make_engine
from wasm_middleware.runtime.generation import load_generation

from .harness import Server, Spy, http_scope

pytestmark = pytest.mark.anyio

PLUGIN = Path(__file__).parents[1] / "plugins" / "grpc-client.wasm"
LOGGER = "wasm_middleware.plugin.grpc-client"


@pytest.fixture
def anyio_backend():
    """grpcio needs it."""
    return "asyncio"


def config(port: int, words: str = "auth") -> dict[str, object]:
    upstream = {"url": f"http://127.0.0.1:{port}"}
    plugin = {"name": "grpc-client", "path": str(PLUGIN), "config": words}
    return {"plugins": [plugin], "upstreams": {"auth": upstream}}


@pytest.fixture
def guarded(workshop):
    """An application behind the plugin; what it was asked is in `spy`."""

    def guarded(port, words="auth"):
        spy = Spy()
        return workshop.wrap(spy, config=config(port, words), engine=None), spy

    return guarded


async def test_a_request_waits_for_the_answer_and_takes_it_along(guarded):
    async with serving() as (service, port):
        app, spy = guarded(port)

        for path in ("/one", "/two"):
            headers = [(b"traceparent", b"00-1-2-01")]
            server = await Server(http_scope(path, headers=headers)).run(app)
            assert server.status == 200

    assert service.received == [b"/one", b"/two"]
    assert sorted(service.metadata[0]) == [("traceparent", "00-1-2-01"), ("x-who", "request")]
    answers = [dict(scope["headers"])[b"x-answer"] for scope in spy.scopes]
    assert answers == [b"/one", b"/two"]


async def test_many_requests_wait_at_the_same_time(guarded):
    statuses = []

    async def ask(number):
        server = await Server(http_scope(f"/{number}")).run(app)
        statuses.append(server.status)

    async with serving() as (service, port):
        app, spy = guarded(port)

        async with anyio.create_task_group() as requests:
            for number in range(50):
                requests.start_soon(ask, number)

    assert statuses == [200] * 50
    assert len(service.received) == 50
    assert all(
        scope["path"].encode() == dict(scope["headers"])[b"x-answer"] for scope in spy.scopes
    )


async def test_a_status_of_the_upstream_reaches_the_client(guarded):
    async with serving() as (_, port):
        app, spy = guarded(port)
        server = await Server(http_scope(headers=[(b"x-method", b"Refuse")])).run(app)

    assert (server.status, server.body) == (403, "7: no entry für dich".encode())
    assert spy.scopes == []


async def test_an_upstream_that_is_not_there_is_a_status_too(guarded):
    async with serving() as (_, port):
        pass

    app, _ = guarded(port)
    server = await Server(http_scope()).run(app)
    assert server.status == 403
    assert server.body.startswith(b"14: ")


async def test_an_unknown_upstream_is_for_the_plugin_to_answer(guarded, caplog):
    app, _ = guarded(1, "nobody")
    server = await Server(http_scope()).run(app)

    assert (server.status, server.body) == (500, b"ParseFailure")
    assert "there is no upstream 'nobody'" in caplog.text


async def test_a_call_that_the_plugin_gives_up_holds_nobody_up(guarded):
    async with serving() as (_, port):
        app, spy = guarded(port)
        headers = [(b"x-act", b"cancel"), (b"x-method", b"Hang")]
        server = await Server(http_scope(headers=headers)).run(app)

    assert server.status == 200
    assert b"x-answer" not in dict(spy.scopes[0]["headers"])


async def test_an_answer_to_a_client_that_has_gone_is_dropped(guarded, caplog):
    async with serving() as (service, port):
        app, spy = guarded(port)

        with anyio.move_on_after(5) as scope:
            async with anyio.create_task_group() as requests:
                requests.start_soon(Server(http_scope(headers=[(b"x-method", b"Hang")])).run, app)
                await service.hanging.wait()
                requests.cancel_scope.cancel()

        assert not scope.cancelled_caught
        # The instance is as good as before.
        server = await Server(http_scope("/next")).run(app)

    assert server.status == 200
    assert len(spy.scopes) == 1


class Lines(logging.Handler):
    """What the plugin logs, and a way to wait for it."""

    def __init__(self):
        super().__init__()
        self.lines = []
        self._changed = anyio.Event()

    def emit(self, record):
        self.lines.append(record.getMessage())
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def until(self, start):
        with anyio.fail_after(20):
            while not any(line.startswith(start) for line in self.lines):
                await self._changed.wait()


@pytest.fixture
def lines():
    handler = Lines()
    logging.getLogger(LOGGER).addHandler(handler)
    yield handler
    logging.getLogger(LOGGER).removeHandler(handler)


async def test_a_stream_from_on_configure_lives_as_long_as_the_plugin(lines):
    async with serving() as (service, port):
        settings = load_settings(config(port, "auth watch"))
        generation = await load_generation(settings, make_engine("wasmtime"))
        await lines.until("close")
        await generation.close()

    assert service.metadata == [[("x-who", "root"), ("x-id-bin", b"\x00\xff")]]
    assert lines.lines == [
        "initial metadata 3 x-initial=one x-initial=two bytes-bin=AP8",
        "message you said hello",
        "message bye",
        "trailing metadata 2 x-trailing=end more-bin=/v38",
        "close 0 (0, None)",
    ]


async def test_unloading_ends_a_stream_that_is_open(lines):
    async with serving() as (_, port):
        settings = load_settings(config(port, "auth watch"))
        generation = await load_generation(settings, make_engine("wasmtime"))

        with anyio.fail_after(20):
            await generation.close()

    assert not [line for line in lines.lines if line.startswith("close")]
