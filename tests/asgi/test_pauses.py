"""Pauses: what waits, what lets it go on, and that nothing waits for ever."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from wasm_middleware import WasmPluginMiddleware

from .guests import CONTINUE, PAUSE, REQUEST, RESPONSE, BodyGuest, Guest
from .harness import Server, Spy, chunks, echo, http_scope, post_scope, respond

pytestmark = pytest.mark.anyio


class Holder(BodyGuest):
    """Holds on where its header x-hold says; a request with x-release lets the last holder go.

    Both flows of one request may be held: `held` is its context.
    """

    held = 0

    def request_headers(self, end):
        if self.get(b"x-release"):
            self.resume_other(self.held, REQUEST)
            self.resume_other(self.held, RESPONSE)

        return self.hold(b"request_headers", end=True)

    def request_body(self, size, end):
        return self.hold(b"request_body", end=end)

    def response_headers(self, end):
        return self.hold(b"response_headers", end=True)

    def response_body(self, size, end):
        return self.hold(b"response_body", end=end)

    def hold(self, phase, *, end):
        if phase in (self.get(b"x-hold") or b"").split(b","):
            type(self).held = self.context
            return PAUSE if end else CONTINUE

        return CONTINUE


def held_scope(*phases: bytes):
    return post_scope("/held", headers=[(b"x-hold", b",".join(phases))])


RELEASE = http_scope("/release", headers=[(b"x-release", b"1")])


@contextlib.asynccontextmanager
async def running(server, app):
    """Run a request until it waits for a plugin; at the end it has been answered.

    The plugins are loaded: nothing else is waited for.
    """
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(server.run, app)
            await anyio.wait_all_tasks_blocked()
            yield


@pytest.mark.parametrize(
    "phases",
    [
        [b"request_headers"],
        [b"request_body"],
        [b"response_headers"],
        [b"response_body"],
    ],
)
async def test_a_resume_from_another_stream_lets_it_go_on(workshop, phases):
    workshop.add(Holder)
    app = await workshop.load(workshop.wrap(echo))
    server = Server(held_scope(*phases), chunks(b"a", b"b"))

    async with running(server, app):
        assert server.sent == []
        await Server(RELEASE).run(app)

    assert server.body == b"ab"


async def test_each_phase_may_wait_in_turn(workshop):
    workshop.add(Holder)
    app = await workshop.load(workshop.wrap(echo))
    phases = [b"request_headers", b"request_body", b"response_headers", b"response_body"]
    server = Server(held_scope(*phases), chunks(b"a", b"b"))

    async with running(server, app):
        for _ in phases:
            assert server.sent == []
            await Server(RELEASE).run(app)
            await anyio.wait_all_tasks_blocked()

    assert server.body == b"ab"


@pytest.mark.parametrize(
    "phase", [b"request_headers", b"request_body", b"response_headers", b"response_body"]
)
async def test_two_plugins_hold_on_one_after_the_other(workshop, phase):
    workshop.add(Holder, name="first")
    workshop.add(Holder, name="second")
    app = await workshop.load(workshop.wrap(echo))
    server = Server(held_scope(phase), chunks(b"a"))

    async with running(server, app):
        for _ in range(2):
            assert server.sent == []
            await Server(RELEASE).run(app)
            await anyio.wait_all_tasks_blocked()

    assert server.body == b"a"


async def test_both_directions_may_wait_at_once(workshop):
    class Tell(Holder):
        def request_body(self, size, end):
            body_waits.set()
            return super().request_body(size, end)

    body_waits = anyio.Event()
    workshop.add(Tell)

    async def app(scope, receive, send):
        async with anyio.create_task_group() as group:
            group.start_soon(receive)

            if scope["path"] == "/held":
                await body_waits.wait()

            group.start_soon(respond(b"answer"), scope, receive, send)

    app = await workshop.load(workshop.wrap(app))
    server = Server(held_scope(b"request_body", b"response_headers"), chunks(b"a"))

    async with running(server, app):
        assert server.sent == []
        await Server(RELEASE).run(app)

    assert server.body == b"answer"


async def test_a_resume_before_the_pause_is_not_lost(workshop):
    class Early(Guest):
        def request_headers(self, end):
            self.resume(REQUEST)
            return PAUSE

        def response_headers(self, end):
            self.resume(RESPONSE)
            return PAUSE

    workshop.add(Early, pause_timeout="50ms")
    server = await Server(http_scope()).run(workshop.wrap(respond(b"hi")))
    assert server.body == b"hi"


async def test_a_response_body_that_is_paused_for_good_ends_with_its_last_message(workshop):
    """A plugin that pauses and never looks back lets nothing go, and its time ends."""

    class Never(BodyGuest):
        def response_body(self, size, end):
            return PAUSE

    workshop.add(Never, pause_timeout="20ms")
    server = await Server(http_scope()).run(workshop.wrap(respond(b"a", b"b", length=True)))
    assert server.status == 503


@pytest.mark.parametrize(
    ("phase", "what"),
    [
        (b"request_headers", "the request with its headers"),
        (b"request_body", "the request with its body"),
        (b"response_headers", "the response with its headers"),
    ],
)
async def test_the_end_of_the_time_is_the_failure_policy_with_a_log_line(
    workshop, caplog, phase, what
):
    workshop.add(Holder, pause_timeout="20ms")
    server = await Server(held_scope(phase), chunks(b"a")).run(workshop.wrap(echo))
    assert server.status == 503
    assert f"it paused {what} and nothing resumed it within 0.02 s" in caplog.text
    assert workshop.phases("holder")[-2:] == ["done", "delete"]


@pytest.mark.parametrize(
    "phase", [b"request_headers", b"request_body", b"response_headers", b"response_body"]
)
async def test_fail_open_goes_on_without_the_plugin_when_its_time_is_up(workshop, caplog, phase):
    workshop.add(Holder, pause_timeout="20ms", failure_policy="fail_open")
    server = await Server(held_scope(phase), chunks(b"a", b"b")).run(workshop.wrap(echo))
    assert server.body == b"ab"
    assert "nothing resumed it" in caplog.text


async def test_a_suspended_guest_is_not_what_the_pause_timeout_ends(workshop):
    """Its time is for waiting; what runs when it is up is carried to its end."""

    class Slow(Guest):
        async def response_headers(self, end):
            if self.get(b"x-release") is None:
                await anyio.sleep(0.3)

    workshop.add(Holder, priority=-1, pause_timeout="200ms")
    workshop.add(Slow, priority=1)
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    server = Server(held_scope(b"response_headers"), chunks(b""))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(server.run, app)

            while "holder response_headers" not in workshop.events:
                await anyio.lowlevel.checkpoint()

            await Server(RELEASE).run(app)

    assert server.body == b"hi"


async def test_while_headers_wait_one_message_at_most_is_received(workshop):
    workshop.add(Holder)
    app = await workshop.load(workshop.wrap(echo))
    server = Server(held_scope(b"request_headers"), chunks(b"a", b"b", b"c"))

    async with running(server, app):
        assert server.received == 1
        await Server(RELEASE).run(app)

    assert server.body == b"abc"


async def test_while_headers_wait_no_100_continue_is_provoked(workshop):
    workshop.add(Holder)
    app = await workshop.load(workshop.wrap(echo))
    scope = held_scope(b"request_headers")
    scope["headers"].append((b"expect", b"100-Continue"))
    server = Server(scope, chunks(b"a"))

    async with running(server, app):
        assert server.received == 0
        await Server(RELEASE).run(app)

    assert server.body == b"a"


async def test_the_application_gets_what_was_received_meanwhile(workshop):
    """An empty body, too: an application that reads it must not wait for the client to go."""

    class HoldOnly(Guest):
        held = 0

        def request_headers(self, end):
            if self.get(b"x-release"):
                self.resume_other(self.held)
                return CONTINUE

            type(self).held = self.context
            return PAUSE

    workshop.add(HoldOnly)
    app = await workshop.load(workshop.wrap(echo))

    for scope, script, body in (
        (http_scope(), chunks(b""), b""),
        (post_scope(), chunks(b"one"), b"one"),
        (post_scope(), chunks(b"one", b"two"), b"onetwo"),
    ):
        server = Server(scope, script)

        async with running(server, app):
            await Server(RELEASE).run(app)

        assert server.body == body


async def test_an_error_of_the_servers_receive_comes_out_as_it_is(workshop):
    workshop.add(Holder)

    class Broken(Server):
        async def receive(self):
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await Broken(held_scope(b"request_headers")).run(workshop.wrap(Spy()))

    assert workshop.phases("holder")[-3:] == ["log", "done", "delete"]


async def test_a_local_reply_waits_for_a_plugin_that_holds_its_headers(workshop):
    class Reject(Guest):
        def request_headers(self, end):
            if self.get(b"x-release") is None:
                self.reply(403, b"no")

    workshop.add(Holder, priority=1)
    workshop.add(Reject)
    app = await workshop.load(workshop.wrap(respond(b"fine")))
    server = Server(held_scope(b"response_headers"), chunks(b""))

    async with running(server, app):
        assert server.sent == []
        await Server(RELEASE).run(app)

    assert server.status == 403
    assert server.body == b"no"


async def test_pauses_of_other_kinds_of_the_cpp_sdk_are_pauses(workshop):
    class Watermark(Guest):
        def request_headers(self, end):
            return 4

    workshop.add(Watermark, pause_timeout="20ms")
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.status == 503


async def test_a_receive_that_never_waits_does_not_keep_a_pause_from_ending(workshop):
    """As tests have it that don't script what comes after the body."""

    class Holds(Guest):
        def request_headers(self, end):
            return PAUSE

    workshop.add(Holds, pause_timeout="50ms")
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    app = WasmPluginMiddleware(respond(b"hi"), config=workshop.config(), engine=workshop.engine)

    with anyio.fail_after(10):
        await app(http_scope(), receive, send)

    assert sent[0]["status"] == 503
