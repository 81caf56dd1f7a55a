"""Response trailers through the ASGI extension: the application's, and those that plugins add."""

from __future__ import annotations

import anyio
import pytest

from .guests import CONTINUE, PAUSE, RESPONSE, BodyGuest, Guest
from .harness import Server, http_scope, respond
from .test_pauses import running

pytestmark = pytest.mark.anyio

TRAILERS = 3
EXTENSION = {"http.response.trailers": {}}
GIVEN = [(b"x-checksum", b"7"), (b"x-checksum", b"8")]


def with_trailers(*bodies: bytes, headers=()):
    """An application whose body is followed by trailers."""

    async def app(scope, receive, send):
        start = {"type": "http.response.start", "status": 200, "headers": list(headers)}
        await send({**start, "trailers": True})

        for index, body in enumerate(bodies):
            more = index < len(bodies) - 1
            await send({"type": "http.response.body", "body": body, "more_body": more})

        await send({"type": "http.response.trailers", "headers": GIVEN})

    return app


def trailers_of(server: Server) -> list[tuple[bytes, bytes]]:
    (message,) = [one for one in server.sent if one["type"] == "http.response.trailers"]
    assert server.sent[-1] is message
    assert server.start["trailers"] is True
    return message["headers"]


async def serve(workshop, app, **scope) -> Server:
    scope.setdefault("extensions", EXTENSION)
    return await Server(http_scope(**scope)).run(workshop.wrap(app))


class Trailing(BodyGuest):
    """Notes what it sees of trailers, and adds one to them."""

    def proxy_on_response_trailers(self, context, count):
        self.enter(context, f"trailers {count}")
        self.seen = self.pairs(TRAILERS)
        self.add(b"x-" + self.name.encode(), b"1", TRAILERS)
        return CONTINUE


@pytest.mark.parametrize("bodies", [(b"one",), (b"one", b"two"), (b"",)])
async def test_plugins_read_and_change_them_in_reverse(workshop, bodies):
    workshop.add(Trailing, name="first")
    workshop.add(Trailing, name="second")
    server = await serve(workshop, with_trailers(*bodies))

    assert server.body == b"".join(bodies)
    assert trailers_of(server) == [
        (b"x-checksum", b"7"),
        (b"x-checksum", b"8"),
        (b"x-second", b"1"),
        (b"x-first", b"1"),
    ]
    assert [event for event in workshop.events if "trailers" in event] == [
        "second trailers 2",
        "first trailers 3",
    ]


async def test_a_plugin_without_bodies_lets_them_pass(workshop):
    workshop.add(Guest)
    server = await serve(workshop, with_trailers(b"one", b"two"))

    assert server.bodies == [b"one", b"two"]
    assert trailers_of(server) == [(b"x-checksum", b"7"), (b"x-checksum", b"8")]


async def test_they_end_what_a_plugin_gathers(workshop):
    class Gather(Trailing):
        def response_body(self, size, end):
            assert not end
            return PAUSE

    workshop.add(Gather)
    server = await serve(workshop, with_trailers(b"one", b"two", headers=[(b"x", b"y")]))

    assert server.bodies == [b"onetwo"]
    assert server.types == [
        "http.response.start",
        "http.response.body",
        "http.response.trailers",
    ]
    assert len(trailers_of(server)) == 3


async def test_a_pause_in_trailers_waits_for_its_resume(workshop):
    class Hold(Trailing):
        held = 0

        def request_headers(self, end):
            if self.get(b":path") == b"/release":
                self.resume_other(type(self).held, RESPONSE)

        def proxy_on_response_trailers(self, context, count):
            super().proxy_on_response_trailers(context, count)
            type(self).held = context
            return PAUSE

    workshop.add(Hold)

    async def app(scope, receive, send):
        serve = respond(b"") if scope["path"] == "/release" else with_trailers(b"one")
        await serve(scope, receive, send)

    app = await workshop.load(workshop.wrap(app))
    server = Server(http_scope(extensions=EXTENSION))

    async with running(server, app):
        assert "http.response.trailers" not in server.types
        await Server(http_scope("/release")).run(app)

    assert (b"x-hold", b"1") in trailers_of(server)


class Adding(BodyGuest):
    """Adds a trailer with the last of the body."""

    def response_body(self, size, end):
        if end:
            self.status = self.add(b"x-mine", b"1", TRAILERS)

        return CONTINUE


async def test_a_plugin_adds_trailers_while_the_start_is_held_back(workshop):
    workshop.add(Adding)
    server = await serve(workshop, respond(b"whole", length=True))

    assert server.body == b"whole"
    assert trailers_of(server) == [(b"x-mine", b"1")]


@pytest.mark.parametrize("given", [False, True])
async def test_what_frames_the_message_is_no_trailer(workshop, caplog, given):
    class Framing(BodyGuest):
        def response_body(self, size, end):
            if end:
                self.frame()

            return CONTINUE

        def proxy_on_response_trailers(self, context, count):
            self.enter(context, "trailers")
            self.frame()
            return CONTINUE

        def frame(self):
            self.add(b"Transfer-Encoding", b"chunked", TRAILERS)
            self.add(b"x-mine", b"1", TRAILERS)
            self.add(b"content-length", b"999", TRAILERS)

    workshop.add(Framing)
    app = with_trailers(b"whole") if given else respond(b"whole", length=True)
    server = await serve(workshop, app)

    assert server.body == b"whole"
    assert trailers_of(server) == [*(GIVEN if given else []), (b"x-mine", b"1")]
    [warning] = [record for record in caplog.records if "trailer" in record.message]
    assert warning.levelname == "WARNING"
    assert "content-length, transfer-encoding" in warning.message


@pytest.mark.parametrize("extensions", [{}, None])
async def test_none_are_added_where_the_server_can_send_none(workshop, caplog, extensions):
    workshop.add(Adding)
    server = await serve(workshop, respond(b"whole", length=True), extensions=extensions)

    assert server.types == ["http.response.start", "http.response.body"]
    assert "http response trailers have passed this plugin, or are not there yet" in caplog.text


async def test_none_are_added_when_the_start_has_gone_out(workshop, caplog):
    workshop.add(Adding)
    server = await serve(workshop, respond(b"one", b"two"))

    assert server.body == b"onetwo"
    assert "http.response.trailers" not in server.types
    assert "have passed this plugin" in caplog.text


async def test_a_reply_has_none(workshop):
    class Reply(BodyGuest):
        def response_headers(self, end):
            self.reply(403, b"no")

    workshop.add(Reply)
    server = await serve(workshop, with_trailers(b"one"))

    assert (server.status, server.body) == (403, b"no")
    assert "http.response.trailers" not in server.types


async def test_the_last_callbacks_come_after_them(workshop):
    workshop.add(Trailing)
    server = Server(http_scope(extensions=EXTENSION))
    order = []

    async def on_send(message):
        order.append((message["type"], "trailing log" in workshop.events))
        await anyio.lowlevel.checkpoint()

    server.on_send = on_send
    await server.run(workshop.wrap(with_trailers(b"one")))

    assert order[-1] == ("http.response.trailers", False)
    assert "trailing log" in workshop.events
