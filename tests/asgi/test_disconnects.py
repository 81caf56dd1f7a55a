"""The client goes, or the task is cancelled, wherever it is: last callbacks run exactly once."""

from __future__ import annotations

import anyio
import pytest

from .guests import PAUSE, BodyGuest, Guest
from .harness import DISCONNECT, Server, Spy, chunks, echo, http_scope, post_scope, respond

pytestmark = pytest.mark.anyio

LAST = ["log", "done", "delete"]


def finished_once(workshop, *names):
    for name in names:
        phases = workshop.phases(name)
        assert phases[-3:] == LAST
        assert [phases.count(phase) for phase in ("create", *LAST)] == [1, 1, 1, 1]

    return True


@pytest.fixture
def quiet(workshop):
    """A linter outside that does not mind a response that is never completed."""

    def wrap(app):
        linter = workshop.wrap(app, trusts_app=True)
        linter.trusts_app = True
        return linter

    return wrap


class HoldRequest(Guest):
    def request_headers(self, end):
        return PAUSE


class HoldBody(BodyGuest):
    def request_body(self, size, end):
        return PAUSE


class HoldResponse(BodyGuest):
    def response_headers(self, end):
        return PAUSE


@pytest.mark.parametrize("scope", [http_scope(), post_scope()])
async def test_a_disconnect_ends_headers_that_wait(workshop, quiet, scope):
    workshop.add(HoldRequest)
    spy = Spy()
    script = [*chunks(b""), DISCONNECT] if scope["method"] == "GET" else [DISCONNECT]

    with anyio.fail_after(5):
        server = await Server(scope, script).run(quiet(spy))

    assert spy.scopes == server.sent == []
    assert finished_once(workshop, "holdrequest")


async def test_a_disconnect_ends_a_body_that_waits(workshop, quiet):
    workshop.add(HoldBody)
    messages = []

    async def app(scope, receive, send):
        messages.append(await receive())
        messages.append(await receive())

    with anyio.fail_after(5):
        script = [*chunks(b"a"), DISCONNECT, DISCONNECT, DISCONNECT]
        await Server(post_scope(), script).run(quiet(app))

    assert messages == [DISCONNECT, DISCONNECT]
    assert finished_once(workshop, "holdbody")


async def test_a_disconnect_in_the_middle_of_a_body_that_waits(workshop, quiet):
    workshop.add(HoldBody)
    messages = []

    async def app(scope, receive, send):
        messages.append(await receive())

    script = [{"type": "http.request", "body": b"a", "more_body": True}, DISCONNECT]
    await Server(post_scope(), script).run(quiet(app))
    assert messages == [DISCONNECT]
    assert finished_once(workshop, "holdbody")


async def test_a_disconnect_ends_a_response_that_waits_where_the_application_receives(
    workshop, quiet
):
    workshop.add(HoldResponse)
    go = anyio.Event()

    async def app(scope, receive, send):
        async with anyio.create_task_group() as group:
            group.start_soon(respond(b"never seen"), scope, receive, send)
            await anyio.wait_all_tasks_blocked()
            go.set()
            assert (await receive())["type"] == "http.request"
            assert await receive() == DISCONNECT

    server = Server(http_scope(), [go, *chunks(b""), DISCONNECT])

    with anyio.fail_after(5):
        await server.run(quiet(app))

    assert server.sent == []
    assert finished_once(workshop, "holdresponse")


async def test_a_disconnect_while_headers_wait_for_the_body(workshop, quiet):
    class Inspect(BodyGuest):
        def request_headers(self, end):
            return PAUSE

        def request_body(self, size, end):
            return PAUSE

    workshop.add(Inspect, allow_on_headers_stop_iteration=True)
    spy = Spy()
    script = [{"type": "http.request", "body": b"a", "more_body": True}, DISCONNECT]
    await Server(post_scope(), script).run(quiet(spy))
    assert spy.scopes == []
    assert finished_once(workshop, "inspect")


async def cancel_when(event, run):
    """Run, and cancel it when the event has come."""
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await event.wait()
            group.cancel_scope.cancel()


async def test_cancelled_in_the_application(workshop, quiet):
    workshop.add(Guest, name="one")
    workshop.add(BodyGuest, name="two")
    inside, cancelled = anyio.Event(), anyio.Event()

    async def app(scope, receive, send):
        try:
            inside.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.set()
            raise

    server = Server(http_scope())
    outer = quiet(app)
    await cancel_when(inside, lambda: server.run(outer))
    assert cancelled.is_set()
    assert server.sent == []
    assert finished_once(workshop, "one", "two")


@pytest.mark.parametrize("guest", [HoldRequest, HoldBody, HoldResponse])
async def test_cancelled_while_a_plugin_holds_on(workshop, quiet, guest):
    workshop.add(guest, name="hold")
    server = Server(post_scope(), chunks(b"a"))
    outer = await workshop.load(quiet(echo))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(server.run, outer)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    assert server.sent == []
    assert finished_once(workshop, "hold")


@pytest.mark.parametrize("guest", [Guest, BodyGuest])
async def test_cancelled_while_the_server_sends(workshop, quiet, guest):
    workshop.add(guest, name="plugin")
    sending = anyio.Event()

    async def on_send(message):
        if message["type"] == "http.response.body":
            sending.set()
            await anyio.sleep_forever()

    server = Server(http_scope())
    server.on_send = on_send
    outer = quiet(respond(b"a", b"b"))
    await cancel_when(sending, lambda: server.run(outer))
    assert finished_once(workshop, "plugin")


async def test_cancelled_in_a_guest_its_call_comes_to_its_end(workshop, quiet):
    """It would cost the instance, and other requests with it."""
    inside = anyio.Event()

    class Slow(Guest):
        async def request_headers(self, end):
            inside.set()
            await anyio.sleep(0.05)
            self.note("goes on")

    workshop.add(Guest, name="first")
    workshop.add(Slow)
    server = Server(http_scope())
    outer = quiet(Spy())
    await cancel_when(inside, lambda: server.run(outer))
    assert "slow goes on" in workshop.events
    assert finished_once(workshop, "first", "slow")


async def test_an_error_of_the_application_is_its_own(workshop, quiet):
    workshop.add(Guest)
    error = RuntimeError("mine")

    async def app(scope, receive, send):
        raise error

    server = Server(http_scope())

    with pytest.raises(RuntimeError) as raised:
        await server.run(quiet(app))

    assert raised.value is error
    assert server.sent == []
    assert finished_once(workshop, "guest")


async def test_an_error_of_the_servers_send_is_raised_in_the_application(workshop, quiet):
    """Since ASGI 2.4 a server may raise an OSError when the client has gone."""
    workshop.add(BodyGuest)
    seen = []

    async def on_send(message):
        raise OSError("gone")

    async def app(scope, receive, send):
        try:
            await respond(b"a", b"b")(scope, receive, send)
        except OSError as error:
            seen.append(str(error))
            raise

    server = Server(http_scope())
    server.on_send = on_send

    with pytest.raises(OSError, match="gone"):
        await server.run(quiet(app))

    assert seen == ["gone"]
    assert finished_once(workshop, "bodyguest")


async def test_an_application_that_returns_without_an_answer(workshop, quiet):
    workshop.add(Guest)

    async def app(scope, receive, send):
        pass

    server = await Server(http_scope()).run(quiet(app))
    assert server.sent == []
    assert finished_once(workshop, "guest")


async def test_an_application_that_returns_in_the_middle_of_its_answer(workshop, quiet):
    workshop.add(Guest)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})

    server = await Server(http_scope()).run(quiet(app))
    assert server.bodies == [b"a"]
    assert finished_once(workshop, "guest")


async def test_a_plugin_that_fails_at_the_end_fails_nobody(workshop, caplog):
    class Bad(Guest):
        def log(self):
            raise RuntimeError("no log")

        def done(self):
            raise RuntimeError("no done")

    workshop.add(Bad, name="bad")
    workshop.add(Guest, name="good")
    server = await Server(http_scope()).run(workshop.wrap(respond(b"hi")))
    assert server.body == b"hi"
    assert "no log" in caplog.text
    assert finished_once(workshop, "good")


@pytest.mark.parametrize("guest", [Guest, BodyGuest])
async def test_what_a_stray_task_does_afterwards_reaches_nobody(workshop, quiet, guest):
    """It holds `receive` and `send` of a request that is over; no context is made anew."""
    workshop.add(guest, name="plugin")
    kept = []

    async def app(scope, receive, send):
        kept.extend([receive, send])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    server = await Server(post_scope(), chunks(b"a")).run(quiet(app))
    receive, send = kept
    sent = len(server.sent)
    await send({"type": "http.response.body", "body": b"late"})
    assert len(server.sent) == sent

    if guest is BodyGuest:
        assert await receive() == DISCONNECT

    assert finished_once(workshop, "plugin")


async def test_a_disconnect_is_seen_though_100_continue_was_expected(workshop, quiet):
    """The body has come: there is nothing left to provoke."""
    workshop.add(HoldBody)
    messages = []

    async def app(scope, receive, send):
        messages.append(await receive())

    scope = post_scope(headers=[(b"expect", b"100-continue")])

    with anyio.fail_after(5):
        await Server(scope, [*chunks(b"a"), DISCONNECT]).run(quiet(app))

    assert messages == [DISCONNECT]
