"""Streaming: each message goes on at once, at the server's pace; receive and send together."""

from __future__ import annotations

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from wasm_middleware import WasmPluginMiddleware

from .guests import RESPONSE, BodyGuest, BodyReader, Guest
from .harness import DISCONNECT, Server, chunks, http_scope, post_scope

pytestmark = pytest.mark.anyio


class Upper(BodyGuest):
    def response_body(self, size, end):
        self.set_body(RESPONSE, self.body(RESPONSE).upper())


@pytest.mark.parametrize("guest", [Guest, BodyReader, Upper])
async def test_each_event_is_with_the_server_before_the_next_one_is_made(workshop, guest):
    workshop.add(guest)
    arrived = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        arrived.append(len(server.sent))

        for number in range(3):
            body = b"data: %d\n\n" % number
            await send({"type": "http.response.body", "body": body, "more_body": True})
            arrived.append(len(server.sent))

        await send({"type": "http.response.body", "body": b""})

    server = Server(http_scope())
    await server.run(workshop.wrap(app))
    assert arrived == [1, 2, 3, 4]


async def test_only_a_declared_length_holds_the_start_back(workshop):
    workshop.add(Upper)
    arrived = []

    async def app(scope, receive, send):
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        arrived.append(len(server.sent))
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        arrived.append(len(server.sent))
        await send({"type": "http.response.body", "body": b"b"})

    server = Server(http_scope())
    await server.run(workshop.wrap(app))
    assert arrived == [0, 2]


@pytest.mark.parametrize("guest", [Guest, Upper])
async def test_the_application_waits_for_a_server_that_waits_for_the_client(workshop, guest):
    workshop.add(guest)
    gate, blocked = anyio.Event(), anyio.Event()
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

        for number in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            sent.append(number)

        await send({"type": "http.response.body"})

    async def on_send(message):
        if message["type"] == "http.response.body":
            blocked.set()
            await gate.wait()

    server = Server(http_scope())
    server.on_send = on_send

    async with anyio.create_task_group() as group:
        group.start_soon(server.run, workshop.wrap(app))
        await blocked.wait()
        assert sent == []
        gate.set()

    assert sent == [0, 1, 2]


@pytest.mark.parametrize("guest", [Guest, Upper])
async def test_a_streaming_response_receives_while_it_sends(workshop, guest):
    """Starlette waits in `receive` for the disconnect for as long as it sends."""
    workshop.add(guest)

    async def body():
        yield b"a"
        await anyio.lowlevel.checkpoint()
        yield b"b"

    async def app(scope, receive, send):
        await StreamingResponse(body())(scope, receive, send)

    server = await Server(http_scope()).run(workshop.wrap(app))
    assert server.body.upper() == b"AB"


@pytest.mark.parametrize("guest", [Guest, Upper])
async def test_a_streaming_response_ends_when_the_client_goes(workshop, guest):
    workshop.add(guest, name="plugin")
    started, gone = anyio.Event(), anyio.Event()

    async def body():
        yield b"a"
        started.set()
        await anyio.sleep_forever()

    async def app(scope, receive, send):
        await StreamingResponse(body())(scope, receive, send)

    server = Server(http_scope(), [*chunks(b""), gone, DISCONNECT])
    outer = workshop.wrap(app, trusts_app=True)
    outer.trusts_app = True

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(server.run, outer)
            await started.wait()
            gone.set()

    assert workshop.phases("plugin")[-3:] == ["log", "done", "delete"]


async def test_calls_into_a_stream_take_turns(workshop):
    """A guest's call may be suspended; the other direction waits for it."""
    inside = []

    class Slow(BodyGuest):
        async def _slowly(self, what):
            assert inside == []
            inside.append(what)

            for _ in range(3):
                await anyio.lowlevel.checkpoint()

            inside.remove(what)

        async def request_body(self, size, end):
            await self._slowly("request")

        async def response_body(self, size, end):
            await self._slowly("response")

    workshop.add(Slow)

    async def app(scope, receive, send):
        async def upload():
            while (await receive()).get("more_body"):
                pass

        await send({"type": "http.response.start", "status": 200, "headers": []})

        async with anyio.create_task_group() as group:
            group.start_soon(upload)

            for _ in range(5):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})

        await send({"type": "http.response.body"})

    server = Server(post_scope(), chunks(*[b"y"] * 5))
    await server.run(workshop.wrap(app))
    assert server.body == b"xxxxx"
    assert workshop.phases("slow").count("request_body") == 5


async def test_log_runs_after_the_last_message_and_before_background_tasks(workshop):
    workshop.add(Guest)
    order = workshop.events

    async def endpoint(request):
        return PlainTextResponse(
            "hi", background=BackgroundTask(lambda: order.append("background"))
        )

    middleware = [
        Middleware(WasmPluginMiddleware, config=workshop.config(), engine=workshop.engine)
    ]
    app = Starlette(routes=[Route("/", endpoint)], middleware=middleware)
    server = Server(http_scope())

    async def on_send(message):
        order.append(message["type"])

    server.on_send = on_send
    await server.run(workshop.around(app))
    assert order[-5:] == [
        "http.response.body",
        "guest log",
        "guest done",
        "guest delete",
        "background",
    ]
