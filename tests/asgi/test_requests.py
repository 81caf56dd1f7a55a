"""Request bodies: they are pulled, and nobody reads what the application does not ask for."""

from __future__ import annotations

import anyio
import pytest

from .guests import CONTINUE, PAUSE, REQUEST, BodyGuest, BodyReader, Guest
from .harness import (
    DISCONNECT,
    Server,
    Spy,
    chunks,
    echo,
    http_scope,
    post_scope,
    read_body,
    respond,
)

pytestmark = pytest.mark.anyio


class Upper(BodyGuest):
    def request_body(self, size, end):
        self.set_body(REQUEST, self.body(REQUEST).upper())


class Gather(BodyGuest):
    """Waits for the whole body, and then puts another one in its place."""

    becomes = b"short"

    def request_body(self, size, end):
        self.note(f"size {size}")

        if not end:
            return PAUSE

        self.set_body(REQUEST, self.becomes)
        return CONTINUE


async def test_a_plugin_without_body_phase_leaves_the_servers_own_receive(workshop):
    workshop.add(Guest)
    seen = []

    async def app(scope, receive, send):
        seen.append(receive)
        await respond(b"x")(scope, receive, send)

    server = Server(http_scope())
    await workshop.wrap(app).app(server.scope, server.receive, server.send)
    # The inner linter's, around the server's.
    inside = seen[0].__closure__
    assert any(cell.cell_contents == server.receive for cell in inside)


async def test_the_server_is_asked_as_often_as_the_application_asks(workshop):
    workshop.add(BodyReader)
    asked = []

    async def app(scope, receive, send):
        for _ in range(2):
            await receive()
            asked.append(server.received)

        await respond(b"")(scope, receive, send)

    server = Server(post_scope(), chunks(b"a", b"b", b"c", b"d"))
    await server.run(workshop.wrap(app))
    assert asked == [1, 2]
    assert server.received == 2
    assert workshop.phases("bodyreader").count("request_body") == 2


async def test_a_body_that_the_application_never_reads_is_never_read(workshop):
    workshop.add(BodyGuest)
    server = await Server(post_scope(), chunks(b"a", b"b")).run(workshop.wrap(respond(b"done")))
    assert server.body == b"done"
    assert server.received == 0
    assert "request_body" not in workshop.phases("bodyguest")


async def test_the_application_sees_no_byte_that_a_plugin_has_not_passed(workshop):
    workshop.add(Upper)
    server = await Server(post_scope(), chunks(b"a", b"", b"bc")).run(workshop.wrap(echo))
    assert server.body == b"ABC"


async def test_a_paused_body_is_buffered_and_told_whole(workshop):
    workshop.add(Gather)
    server = await Server(post_scope(), chunks(b"one", b"two", b"")).run(workshop.wrap(echo))
    assert server.body == b"short"
    sizes = [phase for phase in workshop.phases("gather") if phase.startswith("size")]
    assert sizes == ["size 3", "size 6", "size 6"]


async def test_two_plugins_see_each_others_bodies(workshop):
    class Wrap(BodyGuest):
        def request_body(self, size, end):
            self.set_body(REQUEST, b"<" + self.body(REQUEST) + b">")

    workshop.add(Wrap, priority=1)
    workshop.add(Gather)
    workshop.add(Wrap, name="last", priority=-1)
    server = await Server(post_scope(), chunks(b"a", b"b")).run(workshop.wrap(echo))
    assert server.body == b"<short>"


@pytest.mark.parametrize("becomes", [b"", b"tiny", b"much more than there was before"])
async def test_the_request_loses_a_length_that_a_plugin_may_make_wrong(workshop, becomes):
    class Change(Gather):
        pass

    Change.becomes = becomes
    workshop.add(Change)
    spy = Spy(echo)
    server = Server(post_scope(length=6), chunks(b"abc", b"def"))
    await server.run(workshop.wrap(spy))
    assert server.body == becomes
    assert spy.header(b"content-length") == []


async def test_the_request_keeps_its_length_where_no_plugin_can_change_the_body(workshop):
    workshop.add(BodyReader)
    spy = Spy(echo)
    server = Server(post_scope(length=6), chunks(b"abc", b"def"))
    await server.run(workshop.wrap(spy))
    assert spy.header(b"content-length") == [b"6"]
    assert spy.scope is server.scope
    assert server.body == b"abcdef"


async def test_a_request_without_body_ends_with_its_headers(workshop):
    ends = []

    class Reader(BodyGuest):
        def request_headers(self, end):
            ends.append(end)

    workshop.add(Reader)
    server = await Server(http_scope()).run(workshop.wrap(echo))
    assert server.body == b""
    assert ends == [True]
    assert "request_body" not in workshop.phases("reader")


@pytest.mark.parametrize(
    ("version", "headers", "ends"),
    [
        ("1.1", [], True),
        ("1.1", [(b"content-length", b"0")], True),
        ("1.1", [(b"content-length", b"1")], False),
        ("1.0", [], True),
        ("1.1", [(b"Transfer-Encoding", b"chunked")], False),
        ("2", [], False),
        ("3", [(b"content-length", b"0")], True),
    ],
)
async def test_the_end_of_stream_of_the_headers_is_what_they_tell(workshop, version, headers, ends):
    told = []

    class Reader(Guest):
        def request_headers(self, end):
            told.append(end)

    workshop.add(Reader)
    scope = http_scope(http_version=version, headers=[(n.lower(), v) for n, v in headers])
    await Server(scope).run(workshop.wrap(respond(b"")))
    assert told == [ends]


async def test_a_body_that_was_not_announced_is_shown_all_the_same(workshop):
    workshop.add(Upper)
    server = await Server(http_scope(), chunks(b"sneaky")).run(workshop.wrap(echo))
    assert server.body == b"SNEAKY"


async def test_an_http2_request_without_length_ends_with_an_empty_body_callback(workshop):
    workshop.add(Upper)
    server = await Server(http_scope(http_version="2")).run(workshop.wrap(echo))
    assert server.body == b""
    assert workshop.phases("upper").count("request_body") == 1


async def test_receive_after_the_body_is_the_servers_disconnect(workshop):
    workshop.add(Upper)
    messages = []

    async def app(scope, receive, send):
        await respond(await read_body(receive))(scope, receive, send)
        messages.extend([await receive(), await receive()])

    server = await Server(post_scope(), chunks(b"a")).run(workshop.wrap(app))
    assert server.body == b"A"
    assert messages == [DISCONNECT, DISCONNECT]


async def test_a_cancelled_receive_loses_nothing(workshop):
    """Starlette's `request.is_disconnected()` receives in a scope that is cancelled already."""

    class Slow(Upper):
        async def request_body(self, size, end):
            await anyio.lowlevel.checkpoint()
            super().request_body(size, end)

    workshop.add(Slow)

    async def app(scope, receive, send):
        body = b""

        with anyio.CancelScope() as cancelled:
            cancelled.cancel()
            body += (await receive())["body"]

        body += await read_body(receive)
        await respond(body)(scope, receive, send)

    server = await Server(post_scope(), chunks(b"a", b"b")).run(workshop.wrap(app))
    assert server.body == b"AB"
    assert workshop.phases("slow").count("request_body") == 2


async def test_a_rejection_on_headers_asks_the_server_for_nothing(workshop):
    class Reject(BodyGuest):
        def request_headers(self, end):
            self.reply(403, b"no")
            return PAUSE

    workshop.add(Reject)
    spy = Spy()
    scope = post_scope(length=3, headers=[(b"expect", b"100-continue")])
    server = await Server(scope, chunks(b"abc")).run(workshop.wrap(spy))
    assert server.status == 403
    assert server.received == 0
    assert spy.scopes == []


async def test_a_body_beyond_the_limit_is_refused_while_it_is_gathered(workshop):
    workshop.add(Gather, body_limit="5B")
    spy = Spy(echo)
    server = await Server(post_scope(), chunks(b"abc", b"def", b"ghi")).run(workshop.wrap(spy))
    assert server.status == 413
    assert server.received == 2


async def test_a_body_of_exactly_the_limit_passes(workshop):
    workshop.add(Gather, body_limit="6B")
    server = await Server(post_scope(), chunks(b"abc", b"def")).run(workshop.wrap(echo))
    assert server.status == 200


async def test_headers_that_wait_for_the_body_pull_it_before_the_application_does(workshop):
    class Inspect(BodyGuest):
        def request_headers(self, end):
            return PAUSE

        def request_body(self, size, end):
            return CONTINUE if end else PAUSE

        def log(self):
            pass

    workshop.add(Inspect, allow_on_headers_stop_iteration=True)
    order = workshop.events

    async def app(scope, receive, send):
        order.append("app runs")
        await echo(scope, receive, send)

    server = await Server(post_scope(), chunks(b"abc", b"def")).run(workshop.wrap(app))
    assert server.body == b"abcdef"
    assert order.index("app runs") > order.index("inspect request_body")
    assert workshop.phases("inspect").count("request_body") == 2


async def test_headers_that_wait_hold_the_body_back_by_default(workshop):
    class Hold(BodyGuest):
        def request_headers(self, end):
            return PAUSE

    workshop.add(Hold, pause_timeout="20ms")
    server = await Server(post_scope(), chunks(b"abc")).run(workshop.wrap(echo))
    assert server.status == 503
    assert "request_body" not in workshop.phases("hold")


async def test_headers_go_on_at_once_when_a_resume_comes_between_two_messages(workshop):
    """The next message is awaited while another stream lets them go. None is lost."""
    later = anyio.Event()
    arrived = anyio.Event()

    class Inspect(BodyGuest):
        def request_headers(self, end):
            path = self.get(b":path")

            if path == b"/go":
                self.resume_other(self.held)
                return CONTINUE

            type(self).held = self.context
            return PAUSE

        def request_body(self, size, end):
            arrived.set()
            return CONTINUE if end else PAUSE

    workshop.add(Inspect, allow_on_headers_stop_iteration=True)
    entered = anyio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/up":
            entered.set()

        await echo(scope, receive, send)

    wrapped = workshop.wrap(app)
    first, last = chunks(b"abc", b"def")
    server = Server(post_scope("/up"), [first, later, last])

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(server.run, wrapped)
            await arrived.wait()
            await Server(http_scope("/go")).run(wrapped)
            # The application runs though the rest of the body has not come.
            await entered.wait()
            later.set()

    assert server.body == b"abcdef"
