"""What a plugin does with a stream from outside of it, while the application minds its own affairs.

A tick, an answer to a call or another request may resume a body or reply in the application's
place. Nobody waits in `receive` or `send` then.
"""

from __future__ import annotations

import anyio
import pytest

from wasm_middleware.errors import GuestTrap, StreamAborted

from .guests import CONTINUE, PAUSE, RESPONSE, BodyGuest
from .harness import Server, http_scope, respond
from .test_pauses import running

pytestmark = pytest.mark.anyio


class Remote(BodyGuest):
    """Another request's path says what to do with the context that was held last."""

    held = 0

    def request_headers(self, end):
        path = self.get(b":path")

        if path == b"/resume":
            self.resume_other(type(self).held, RESPONSE)
        elif path == b"/reply":
            self.host.proxy_set_effective_context(type(self).held)
            self.reply(429, b"enough")
            self.host.proxy_set_effective_context(self.context)
        elif path == b"/trap":
            raise GuestTrap("it trapped")
        else:
            type(self).held = self.context

        return CONTINUE

    def response_body(self, size, end):
        return PAUSE if self.body(1) == b"first" else CONTINUE


async def request(app, path: str) -> None:
    await Server(http_scope(path)).run(app)


def held(app):
    """The application for the path that is held; others are answered at once."""

    async def choose(scope, receive, send):
        await (app if scope["path"] == "/held" else respond(status=204))(scope, receive, send)

    return choose


def idle_after(message, done: anyio.Event):
    """An application that sends one chunk of a body, and the rest when it is told to."""

    @held
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message, "more_body": True})
        await done.wait()
        await send({"type": "http.response.body", "body": b" last"})

    return app


async def test_a_body_that_is_resumed_goes_out_while_the_application_is_idle(workshop):
    workshop.add(Remote)
    done = anyio.Event()
    app = await workshop.load(workshop.wrap(idle_after(b"first", done)))
    server = Server(http_scope("/held"))

    async with running(server, app):
        assert server.body == b""
        await request(app, "/resume")
        await anyio.wait_all_tasks_blocked()
        assert server.body == b"first"
        done.set()

    assert server.body == b"first last"
    assert workshop.phases("remote").count("delete") == 2


async def test_a_pause_ends_in_time_while_the_application_is_idle(workshop, caplog):
    workshop.add(Remote, pause_timeout="20ms", failure_policy="fail_open")
    done = anyio.Event()
    app = await workshop.load(workshop.wrap(idle_after(b"first", done)))
    server = Server(http_scope("/held"))
    told = anyio.Event()

    async def on_send(message):
        if message.get("body"):
            told.set()

    server.on_send = on_send

    async with running(server, app):
        await told.wait()
        done.set()

    assert server.body == b"first last"
    assert "it paused the response with its body" in caplog.text


async def test_a_reply_goes_out_while_the_application_is_busy(workshop):
    workshop.add(Remote)
    done = anyio.Event()
    raised = []

    @held
    async def busy(scope, receive, send):
        await done.wait()
        message = await receive()
        raised.append(message["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"too late"})

    app = await workshop.load(workshop.wrap(busy))
    server = Server(http_scope("/held"))

    async with running(server, app):
        await request(app, "/reply")
        await anyio.wait_all_tasks_blocked()
        assert (server.status, server.body) == (429, b"enough")
        done.set()

    assert raised == ["http.disconnect"]
    assert server.body == b"enough"


async def test_the_application_may_return_while_the_reply_is_being_sent(workshop):
    """The server would answer 500 if the middleware returned before the response was out."""
    workshop.add(Remote)
    done, sending, go_on = anyio.Event(), anyio.Event(), anyio.Event()

    @held
    async def returns(scope, receive, send):
        await done.wait()

    async def on_send(message):
        sending.set()
        await go_on.wait()

    app = await workshop.load(workshop.wrap(returns, trusts_app=True))
    server = Server(http_scope("/held"))
    server.on_send = on_send
    ended = anyio.Event()

    async def run():
        await server.run(app)
        ended.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            await request(app, "/reply")
            await sending.wait()
            done.set()
            await anyio.wait_all_tasks_blocked()
            assert not ended.is_set()
            go_on.set()

    assert server.status == 429


async def test_a_trap_elsewhere_fails_a_response_that_waits(workshop):
    workshop.add(Remote)
    done = anyio.Event()
    app = await workshop.load(workshop.wrap(idle_after(b"first", done)))
    server = Server(http_scope("/held"))
    failed = []

    async with anyio.create_task_group() as group:

        async def run():
            with pytest.raises(StreamAborted) as caught:
                await server.run(app)

            failed.append(str(caught.value))

        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        await request(app, "/trap")
        await anyio.wait_all_tasks_blocked()
        # The start has gone out: it can only be cut, at the application's next message.
        done.set()

    assert failed
    assert "remote" in failed[0]
    assert server.types == ["http.response.start"]
