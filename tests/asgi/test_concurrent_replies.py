"""Local replies while something else is going on: nobody answers twice, and nothing is lost."""

from __future__ import annotations

import anyio
import pytest

from wasm_middleware import StreamAborted

from .guests import PAUSE, RESPONSE, RESPONSE_HEADERS, BodyGuest, Guest
from .harness import (
    DISCONNECT,
    Server,
    chunks,
    http_scope,
    post_scope,
    respond,
)

pytestmark = pytest.mark.anyio


class RejectBody(BodyGuest):
    def request_body(self, size, end):
        self.reply(422, b"bad body")
        return PAUSE


async def test_a_reply_is_whole_though_the_application_gives_up_on_its_receive(workshop):
    """Starlette's responses cancel a pending `receive` when they have sent everything."""
    sending, go_on = anyio.Event(), anyio.Event()
    workshop.add(RejectBody)

    async def app(scope, receive, send):
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await sending.wait()
            group.cancel_scope.cancel()
            go_on.set()

        await respond(b"nobody sees this")(scope, receive, send)

    async def on_send(message):
        sending.set()
        await go_on.wait()

    server = Server(post_scope(), chunks(b"a"))
    server.on_send = on_send
    await server.run(workshop.wrap(app))
    assert server.status == 422
    assert server.bodies == [b"bad body"]


async def test_a_reply_is_sent_once_though_both_directions_wait_for_it(workshop):
    """The request body waits for a resume when the response makes the reply."""

    class Both(BodyGuest):
        def request_body(self, size, end):
            return PAUSE

        def response_headers(self, end):
            if self.get(b":status", RESPONSE_HEADERS) == b"200":
                self.reply(502, b"reply")

    workshop.add(Both)

    async def app(scope, receive, send):
        async def send_soon():
            await anyio.wait_all_tasks_blocked()
            await respond(b"hi")(scope, receive, send)

        async with anyio.create_task_group() as group:
            group.start_soon(send_soon)
            assert await receive() == DISCONNECT

    server = Server(post_scope(), chunks(b"a"))

    with anyio.fail_after(5):
        await server.run(workshop.wrap(app))

    assert server.status == 502
    assert server.bodies == [b"reply"]


async def test_a_reply_from_another_stream_ends_a_paused_one(workshop):
    class Hold(Guest):
        def request_headers(self, end):
            if self.get(b":path") == b"/go":
                self.host.proxy_set_effective_context(self.held)
                self.reply(409, b"no more")
                return 0

            type(self).held = self.context
            return PAUSE

    workshop.add(Hold)
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    server = Server(http_scope("/wait"))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(server.run, app)
            await anyio.wait_all_tasks_blocked()
            other = await Server(http_scope("/go")).run(app)

    assert server.status == 409
    assert other.body == b"hi"


async def test_a_reply_from_another_stream_while_the_application_computes(workshop, caplog):
    """Nobody waits for anything then; it is sent with the application's next step, or its end."""

    class Kill(Guest):
        def request_headers(self, end):
            if self.get(b":path") == b"/kill":
                self.host.proxy_set_effective_context(self.held)
                self.reply(409, b"killed")
            else:
                type(self).held = self.context

    workshop.add(Kill)

    async def app(scope, receive, send):
        if scope["path"] == "/kill":
            await respond(b"")(scope, receive, send)
            return

        await Server(http_scope("/kill")).run(wrapped)

        if scope["path"] == "/sends":
            await respond(b"mine")(scope, receive, send)
        elif scope["path"] == "/raises":
            raise RuntimeError("killed")

    wrapped = workshop.wrap(app, trusts_app=True)

    for path in ("/sends", "/raises", "/returns"):
        workshop.events.clear()
        server = await Server(http_scope(path)).run(wrapped)
        assert server.bodies == [b"killed"]
        # The application's own response was never shown.
        assert workshop.phases("kill").count("response_headers") == 2


@pytest.mark.parametrize("sends_first", [False, True])
async def test_a_reply_while_the_other_direction_waits_for_its_turn(workshop, sends_first):
    """The guest replies, and is suspended before it returns; the application sends meanwhile."""
    go_on, inside = anyio.Event(), anyio.Event()

    class Slow(BodyGuest):
        async def request_body(self, size, end):
            if not sends_first:
                self.reply(422, b"reply")

            inside.set()
            await go_on.wait()

            if sends_first:
                self.reply(422, b"reply")

        def response_headers(self, end):
            statuses.append(self.get(b":status", RESPONSE_HEADERS))

    statuses = []
    workshop.add(Slow)

    async def app(scope, receive, send):
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await inside.wait()
            group.start_soon(respond(b"mine"), scope, receive, send)
            await anyio.wait_all_tasks_blocked()
            go_on.set()

    server = Server(post_scope(), chunks(b"a"))

    with anyio.fail_after(5):
        await server.run(workshop.wrap(app, trusts_app=True))

    assert server.bodies == [b"reply"]
    assert statuses == [b"422"]


async def test_what_is_received_after_a_reply_is_not_shown_to_plugins(workshop):
    arrives = anyio.Event()

    class Both(BodyGuest):
        def response_headers(self, end):
            self.reply(502)

    workshop.add(Both)

    async def app(scope, receive, send):
        async def upload():
            assert await receive() == DISCONNECT

        async with anyio.create_task_group() as group:
            group.start_soon(upload)
            await anyio.wait_all_tasks_blocked()
            await respond(b"mine")(scope, receive, send)
            arrives.set()

    server = Server(post_scope(), [arrives, *chunks(b"late")])
    await server.run(workshop.wrap(app))
    assert server.status == 502
    phases = workshop.phases("both")
    assert "request_body" not in phases
    assert [phases.count(phase) for phase in ("create", "delete")] == [1, 1]


async def test_a_plugin_that_closes_the_stream_while_a_reply_is_sent_cuts_it(workshop):
    """Its client is not to trust what it has got, as with any response that has started."""
    contexts = []

    class Replies(Guest):
        def request_headers(self, end):
            contexts.append(self.context)
            self.reply(403, b"no")

    class Closes(Guest):
        def configure(self):
            self.host.proxy_set_tick_period_milliseconds(1)

        def request_headers(self, end):
            contexts.append(self.context)

        def proxy_on_tick(self, root):
            if sending.is_set() and not closed.is_set():
                self.host.proxy_set_effective_context(contexts[0])
                self.host.proxy_close_stream(RESPONSE)
                closed.set()

    sending, closed = anyio.Event(), anyio.Event()
    workshop.add(Closes)
    workshop.add(Replies)

    async def on_send(message):
        if message["type"] == "http.response.start":
            sending.set()
            await closed.wait()

    server = Server(http_scope())
    server.on_send = on_send

    with pytest.raises(StreamAborted, match="it closed the stream"):
        await server.run(workshop.wrap(respond(b"nobody sees this")))

    assert server.types == ["http.response.start"]
