"""Websockets: their handshake passes the chain, their frames don't."""

from __future__ import annotations

import anyio
import pytest

from .guests import PAUSE, RESPONSE_HEADERS, BodyGuest, Guest
from .harness import Server, Spy, http_scope, respond

pytestmark = pytest.mark.anyio

CONNECT = {"type": "websocket.connect"}
TEXT = {"type": "websocket.receive", "text": "hello"}
GOODBYE = {"type": "websocket.disconnect", "code": 1000}
DENIAL = {"websocket.http.response": {}}


def websocket_scope(path="/ws", **more):
    scope = http_scope(path, **{"scheme": "ws", "subprotocols": [], **more})
    del scope["method"]
    return {**scope, "type": "websocket"}


async def chat(scope, receive, send):
    assert await receive() == CONNECT
    await send({"type": "websocket.accept"})

    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"].upper()})


class Deny(Guest):
    def request_headers(self, end):
        self.reply(403, b"not you", [(b"x-why", b"because")])


async def test_frames_pass_untouched_and_log_runs_at_the_end(workshop):
    workshop.add(BodyGuest)
    server = Server(websocket_scope(), [CONNECT, TEXT, TEXT, GOODBYE])
    logged = []

    async def on_send(message):
        logged.append("bodyguest log" in workshop.events)

    server.on_send = on_send
    spy = Spy(chat)
    await server.run(workshop.wrap(spy))
    assert server.types == ["websocket.accept", "websocket.send", "websocket.send"]
    assert not any(logged)
    assert spy.scope is server.scope
    phases = ["create", "request_headers", "log", "done", "delete"]
    assert workshop.phases("bodyguest") == ["root", *phases]


async def test_the_handshake_looks_like_a_get(workshop):
    seen = []

    class Look(Guest):
        def request_headers(self, end):
            names = (b":method", b":scheme", b":path", b":authority")
            seen.append((end, *map(self.get, names)))

    workshop.add(Look)
    app = workshop.wrap(chat)
    await Server(websocket_scope("/ws?a=1"), [CONNECT, GOODBYE]).run(app)
    await Server(websocket_scope(scheme="wss"), [CONNECT, GOODBYE]).run(app)
    assert seen == [
        (True, b"GET", b"http", b"/ws?a=1", b"test"),
        (True, b"GET", b"https", b"/ws", b"test"),
    ]


async def test_a_change_of_the_handshake_reaches_the_application(workshop):
    class Change(Guest):
        def request_headers(self, end):
            self.set(b"x-user", b"me")
            self.set(b":path", b"/other?b=2")
            self.set(b":scheme", b"https")
            self.set(b":authority", b"elsewhere")

    workshop.add(Change)
    spy = Spy(chat)
    server = await Server(websocket_scope(), [CONNECT, GOODBYE]).run(workshop.wrap(spy))
    assert server.types == ["websocket.accept"]
    assert spy.header(b"x-user") == [b"me"]
    assert spy.header(b"host") == [b"elsewhere"]
    seen = [spy.seen[key] for key in ("path", "raw_path", "query_string", "scheme")]
    assert seen == ["/other", b"/other", b"b=2", "wss"]
    assert "method" not in spy.seen


async def test_a_denial_is_a_response_where_the_server_can_send_one(workshop):
    class Stamp(BodyGuest):
        def response_headers(self, end):
            self.set(b"x-stamp", b"1", RESPONSE_HEADERS)

    workshop.add(Stamp)
    workshop.add(Deny)
    spy = Spy(chat)
    server = Server(websocket_scope(extensions=DENIAL), [CONNECT])
    await server.run(workshop.wrap(spy))
    assert spy.scopes == []
    assert server.status == 403
    assert server.body == b"not you"
    assert server.headers(b"x-why") == [b"because"]
    assert server.headers(b"x-stamp") == [b"1"]
    assert server.headers(b"content-length") == [b"7"]
    assert workshop.phases("deny")[-3:] == ["log", "done", "delete"]


@pytest.mark.parametrize("more", [{}, {"extensions": None}, {"extensions": {}}])
async def test_a_denial_is_a_close_where_the_server_can_not(workshop, more):
    workshop.add(Deny)
    server = await Server(websocket_scope(**more), [CONNECT]).run(workshop.wrap(Spy(chat)))
    assert server.sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    assert server.received == 1


async def test_a_failing_plugin_denies_the_handshake(workshop):
    class Trap(Guest):
        def request_headers(self, end):
            raise RuntimeError("boom")

    workshop.add(Trap)
    server = Server(websocket_scope(extensions=DENIAL), [CONNECT])
    await server.run(workshop.wrap(Spy(chat)))
    assert server.status == 503
    assert server.body == b""


async def test_a_reply_after_the_application_has_begun_is_too_late(workshop, caplog):
    class Late(Guest):
        def request_headers(self, end):
            if self.get(b":path") == b"/kill":
                self.host.proxy_set_effective_context(self.held)
                self.reply(409)
                self.host.proxy_set_effective_context(self.context)
            else:
                type(self).held = self.context

    workshop.add(Late)

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await Server(http_scope("/kill")).run(wrapped)
            await chat(scope, receive, send)
        else:
            await respond(b"")(scope, receive, send)

    wrapped = workshop.wrap(app)
    server = await Server(websocket_scope(), [CONNECT, GOODBYE]).run(wrapped)
    assert server.types == ["websocket.accept"]
    assert "a local reply (409) came too late" in caplog.text


async def test_a_handshake_may_wait_for_a_plugin(workshop):
    class Hold(Guest):
        def request_headers(self, end):
            if self.get(b":path") == b"/release":
                self.resume_other(self.held)
                return 0

            type(self).held = self.context
            return PAUSE

    workshop.add(Hold)

    async def app(scope, receive, send):
        await (chat if scope["type"] == "websocket" else respond(b""))(scope, receive, send)

    app = await workshop.load(workshop.wrap(app))
    accepted = anyio.Event()
    server = Server(websocket_scope(), [CONNECT, accepted, TEXT, GOODBYE])

    async def on_send(message):
        accepted.set()

    server.on_send = on_send

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(server.run, app)
            await anyio.wait_all_tasks_blocked()
            assert server.sent == []
            await Server(http_scope("/release")).run(app)

    assert server.types == ["websocket.accept", "websocket.send"]


async def test_a_client_that_goes_ends_a_handshake_that_waits(workshop):
    class Hold(Guest):
        def request_headers(self, end):
            return PAUSE

    workshop.add(Hold)
    spy = Spy(chat)

    with anyio.fail_after(5):
        server = await Server(websocket_scope(), [CONNECT, GOODBYE]).run(workshop.wrap(spy))

    assert spy.scopes == server.sent == []
    assert workshop.phases("hold")[-3:] == ["log", "done", "delete"]


async def test_an_error_of_the_application_is_its_own(workshop):
    workshop.add(Guest)

    async def app(scope, receive, send):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await Server(websocket_scope(), [CONNECT]).run(workshop.wrap(app))

    assert workshop.phases("guest")[-3:] == ["log", "done", "delete"]


@pytest.mark.parametrize(
    ("methods", "runs"), [(["GET"], True), (["POST"], False), (["HEAD"], False)]
)
async def test_a_websocket_counts_as_get(workshop, methods, runs):
    workshop.add(Guest)
    routes = [{"path": "/ws", "methods": methods, "plugins": ["guest"]}]
    app = workshop.wrap(chat, routes=routes)
    await Server(websocket_scope(), [CONNECT, GOODBYE]).run(app)
    assert ("request_headers" in workshop.phases("guest")) is runs
