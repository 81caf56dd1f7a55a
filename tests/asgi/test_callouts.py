"""A plugin that asks another service whether a request may pass: with real servers."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import anyio
import pytest
from services.upstreams import Server as Upstream, answering, refusing

from wasm_middleware import WasmPluginMiddleware, limits
from wasm_middleware.abi.pairs import encode

from .guests import CONTINUE, PAUSE, BodyReader
from .harness import Server, Spy, http_scope

pytestmark = pytest.mark.anyio

RESPONSE_BODY, RESPONSE_HEADERS = 4, 6
OK, BAD_ARGUMENT = 0, 2


class Auth(BodyReader):
    """Sends each request's token to `auth`, and lets it pass if the answer is 200."""

    upstream = b"auth"

    def request_headers(self, end):
        headers = [
            (b":method", b"GET"),
            (b":path", b"/check"),
            (b":authority", b"auth.example"),
            (b"x-token", self.get(b"x-token") or b""),
        ]
        texts = (*self.text(self.upstream), *self.text(encode(headers)), 0, 0, 0, 0)
        where = self.proxy_on_memory_allocate(4)
        assert self.host.proxy_http_call(*texts, 10_000, where) == 0
        self.waiting[self.memory.read_u32(where)] = self.context
        return PAUSE

    def proxy_on_http_call_response(self, context, token, headers, size, trailers):
        self.host.proxy_set_effective_context(self.waiting.pop(token))

        if self.get(b":status", RESPONSE_HEADERS) == b"200":
            self.set(b"x-user", self.body(RESPONSE_BODY))
            self.resume()
        else:
            self.reply(403, self.body(RESPONSE_BODY) or b"")

    def proxy_on_vm_start(self, context, size):
        self.waiting = {}
        return 1


def serving(workshop, port, app, guest=Auth, **settings):
    """A service with the plugin, which starts at its first request."""
    workshop.add(guest)
    url = f"http://127.0.0.1:{port}"
    config = workshop.config(upstreams={"auth": {"url": url, **settings}})

    async def with_lifespan(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return

        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            await send({"type": f"lifespan.{step}.complete"})

    middleware = WasmPluginMiddleware(with_lifespan, config=config, engine=workshop.engine)
    return workshop.around(middleware)


async def ask(app, token=b"t"):
    with anyio.fail_after(20):
        return await Server(http_scope("/", headers=[(b"x-token", token)])).run(app)


async def stop(app):
    """End the service, as a server does."""
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message): ...

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)


async def test_the_answer_decides(workshop):
    async def check(connection):
        while request := await upstream.read(connection):
            good = b"x-token: good\r\n" in request
            line = b"HTTP/1.1 200 OK" if good else b"HTTP/1.1 401 Unauthorized"
            await connection.send(line, b"content-length: 4", body=b"anna" if good else b"who?")

    app = Spy()

    with Upstream(check) as upstream:
        wrapped = serving(workshop, upstream.port, app)
        good = await ask(wrapped, b"good")
        bad = await ask(wrapped, b"bad")
        await stop(wrapped)
        upstream.wait_until_all_are_closed()

    assert (good.status, good.body) == (200, b"hello")
    assert app.header(b"x-user") == [b"anna"]
    assert (bad.status, bad.body) == (403, b"who?")
    assert len(app.scopes) == 1
    assert upstream.connections == 1


async def test_many_requests_wait_at_once(workshop):
    served = []

    async def app(scope, receive, send):
        served.append(dict(scope["headers"])[b"x-user"])
        await Spy()(scope, receive, send)

    all_are_there = asyncio.Event()

    async def check(connection):
        while await upstream.read(connection):
            if len(upstream.requests) == 200:
                all_are_there.set()

            await all_are_there.wait()
            await connection.send(b"HTTP/1.1 200 OK", b"content-length: 4", body=b"anna")

    with Upstream(check) as upstream:
        wrapped = serving(workshop, upstream.port, app)

        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(ask, wrapped)

        await stop(wrapped)

    assert served == [b"anna"] * 200
    assert len(upstream.requests) == 200


async def test_a_service_that_is_down_is_an_answer_too(workshop, caplog):
    with refusing() as port:
        wrapped = serving(workshop, port, Spy())
        refused = await ask(wrapped, b"hidden")
        await stop(wrapped)

    assert refused.status == 403
    assert refused.body.endswith(b"reset reason: remote connection failure")
    said = "plugin 'auth': no answer from upstream 'auth': no connection: connection refused"
    assert said in caplog.messages
    assert "hidden" not in caplog.text


async def test_a_client_that_leaves_does_not_disturb_the_rest(workshop):
    with answering(then="hang") as slow:
        wrapped = serving(workshop, slow.port, Spy())
        leaving = Server(http_scope("/"), script=[{"type": "http.disconnect"}])

        with anyio.fail_after(20):
            await leaving.run(wrapped)

        assert leaving.sent == []
        await stop(wrapped)
        slow.wait_until_all_are_closed()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_request_may_have_an_event_loop_of_its_own(workshop, backend):
    with answering(b"HTTP/1.1 200 OK", b"content-length: 4", body=b"anna") as upstream:
        wrapped = serving(workshop, upstream.port, Spy())

        for number in range(1, 4):
            assert anyio.run(ask, wrapped, backend=backend).status == 200
            upstream.wait_until_all_are_closed()
            assert upstream.connections == number


class Teller(Auth):
    """Sends its question, and lets the request pass before there is an answer."""

    answers: ClassVar[list[bytes]] = []

    def request_headers(self, end):
        super().request_headers(end)
        return CONTINUE

    def proxy_on_http_call_response(self, context, token, headers, size, trailers):
        assert self.host.proxy_set_effective_context(self.waiting.pop(token)) in (OK, BAD_ARGUMENT)
        self.answers.append(self.get(b":status", RESPONSE_HEADERS))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loop_that_ends_answers_what_is_under_way(workshop, backend, monkeypatch):
    monkeypatch.setattr(Teller, "answers", [])
    monkeypatch.setattr(limits, "MAX_PENDING_CALLS", 1)

    async def app(scope, receive, send):
        while len(upstream.requests) < number:
            await anyio.sleep(0.001)

        await Spy()(scope, receive, send)

    with answering(then="hang") as upstream:
        wrapped = serving(workshop, upstream.port, app, guest=Teller)

        for number in range(1, 4):
            assert anyio.run(ask, wrapped, backend=backend).status == 200
            upstream.wait_until_all_are_closed()
            assert Teller.answers == [b"503"] * number
