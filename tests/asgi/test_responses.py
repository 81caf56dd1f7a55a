"""Responses: headers and bodies through the chain, a true content-length, nothing lost."""

from __future__ import annotations

import pytest

from .guests import CONTINUE, PAUSE, RESPONSE, RESPONSE_HEADERS, BodyGuest, BodyReader, Guest
from .harness import Server, Spy, http_scope, respond

pytestmark = pytest.mark.anyio

LENGTH = b"content-length"


class AddHeader(Guest):
    def response_headers(self, end):
        self.set(b"x-plugin", b"yes", RESPONSE_HEADERS)


class Upper(BodyGuest):
    def response_body(self, size, end):
        self.set_body(RESPONSE, self.body(RESPONSE).upper())


class Double(BodyGuest):
    def response_body(self, size, end):
        self.set_body(RESPONSE, self.body(RESPONSE) * 2)


class Gather(BodyGuest):
    becomes = b"other"

    def response_body(self, size, end):
        if not end:
            return PAUSE

        self.set_body(RESPONSE, self.becomes)
        return CONTINUE


async def test_a_plugin_changes_response_headers(workshop):
    workshop.add(AddHeader)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"hi", length=True)))
    assert server.headers(b"x-plugin") == [b"yes"]
    assert server.headers(LENGTH) == [b"2"]
    assert server.body == b"hi"


async def test_what_no_plugin_changed_is_sent_as_it_was_given(workshop):
    workshop.add(Guest)
    headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    start = {"type": "http.response.start", "status": 200, "headers": headers, "x": 1}
    body = {"type": "http.response.body", "body": b"hi", "y": 2}

    async def app(scope, receive, send):
        await send(start)
        await send(body)

    server = await Server(http_scope()).run(workshop.wrap(app))
    assert server.sent[0] is start
    assert server.sent[1] is body


async def test_duplicates_and_order_survive_a_change(workshop):
    workshop.add(AddHeader)
    headers = [(b"set-cookie", b"a=1"), (b"x", b"\xff"), (b"set-cookie", b"b=2")]
    server = await Server(http_scope()).run(workshop.wrap(respond(b"", headers=headers)))
    assert server.start["headers"] == [*headers, (b"x-plugin", b"yes")]


async def test_headers_may_be_missing_or_any_iterable(workshop):
    workshop.add(AddHeader, name="one")
    workshop.add(BodyReader, name="two")

    async def app(scope, receive, send):
        start = {"type": "http.response.start", "status": 200}

        if scope["path"] == "/iterator":
            start["headers"] = (pair for pair in [(b"X-Upper", b"1")])

        await send(start)
        await send({"type": "http.response.body"})

    server = await Server(http_scope()).run(workshop.wrap(app, trusts_app=True))
    assert server.start["headers"] == [(b"x-plugin", b"yes")]
    server = await Server(http_scope("/iterator")).run(workshop.wrap(app, trusts_app=True))
    assert server.start["headers"] == [(b"x-upper", b"1"), (b"x-plugin", b"yes")]


async def test_headers_from_an_iterator_are_not_lost_where_nothing_changes(workshop):
    workshop.add(Guest)

    async def app(scope, receive, send):
        pairs = iter([(b"a", b"1")])
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        await send({"type": "http.response.body"})

    server = await Server(http_scope()).run(workshop.wrap(app, trusts_app=True))
    assert server.start["headers"] == [(b"a", b"1")]


async def test_a_body_of_one_message_keeps_an_exact_length(workshop):
    workshop.add(Double)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"abc", length=True)))
    assert server.body == b"abcabc"
    assert server.headers(LENGTH) == [b"6"]


async def test_a_body_of_several_messages_loses_a_length_that_may_be_wrong(workshop):
    workshop.add(Upper)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"ab", b"c", length=True)))
    assert server.bodies == [b"AB", b"C"]
    assert server.headers(LENGTH) == []


@pytest.mark.parametrize("becomes", [b"", b"tiny", b"a good deal longer than it was"])
async def test_a_body_that_is_paused_whole_gets_an_exact_length(workshop, becomes):
    class Change(Gather):
        pass

    Change.becomes = becomes
    workshop.add(Change)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"ab", b"c", length=True)))
    assert server.body == becomes
    assert server.headers(LENGTH) == [b"%d" % len(becomes)]


async def test_an_empty_first_message_does_not_cost_the_length(workshop):
    workshop.add(Double)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"", b"abc", length=True)))
    assert server.body == b"abcabc"
    assert server.headers(LENGTH) == [b"6"]


async def test_no_length_is_invented_for_a_stream(workshop):
    workshop.add(Double)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"abc")))
    assert server.body == b"abcabc"
    assert server.headers(LENGTH) == []


async def test_a_plugin_that_can_only_read_bodies_costs_no_length(workshop):
    workshop.add(BodyReader)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"ab", b"c", length=True)))
    assert server.headers(LENGTH) == [b"3"]
    assert server.bodies == [b"ab", b"c"]


@pytest.mark.parametrize("guest", [Guest, BodyReader, BodyGuest])
@pytest.mark.parametrize("lie", [b"1", b"99", b"nonsense"])
async def test_a_plugin_can_not_lie_about_the_length(workshop, guest, lie):
    class Liar(guest):
        def response_headers(self, end):
            self.set(LENGTH, lie, RESPONSE_HEADERS)

    workshop.add(Liar)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"abc", length=True)))
    assert server.headers(LENGTH) == [b"3"]
    server = await Server(http_scope()).run(workshop.wrap(respond(b"a", b"bc")))
    assert server.headers(LENGTH) == []


async def test_a_plugin_may_remove_the_length(workshop):
    class Remove(Guest):
        def response_headers(self, end):
            self.remove(LENGTH, RESPONSE_HEADERS)

    workshop.add(Remove)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"abc", length=True)))
    assert server.headers(LENGTH) == []


@pytest.mark.parametrize("guest", [Double, Gather])
async def test_head_keeps_its_length_and_shows_no_body(workshop, guest):
    workshop.add(guest, name="plugin")
    app = respond(b"", headers=[(LENGTH, b"77")])
    server = await Server(http_scope(method="HEAD")).run(workshop.wrap(app))
    assert server.headers(LENGTH) == [b"77"]
    assert "response_body" not in workshop.phases("plugin")


@pytest.mark.parametrize(("status", "headers"), [(204, []), (304, [(LENGTH, b"5")])])
async def test_a_status_without_body_ends_with_its_headers(workshop, status, headers):
    ends = []

    class Reader(BodyGuest):
        def response_headers(self, end):
            ends.append(end)

    workshop.add(Reader)
    app = respond(b"", status=status, headers=headers)
    server = await Server(http_scope()).run(workshop.wrap(app))
    assert server.status == status
    assert server.start["headers"] == headers
    assert ends == [True]
    assert "response_body" not in workshop.phases("reader")


async def test_an_empty_body_that_was_announced_ends_with_its_headers(workshop):
    workshop.add(Double)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"", length=True)))
    assert server.headers(LENGTH) == [b"0"]
    assert "response_body" not in workshop.phases("double")


@pytest.mark.parametrize("becomes", [b"204", b"304"])
@pytest.mark.parametrize("guest", [Guest, BodyGuest])
async def test_a_plugin_that_makes_it_a_status_without_body_ends_the_body(workshop, guest, becomes):
    class Change(guest):
        def response_headers(self, end):
            self.set(b":status", becomes, RESPONSE_HEADERS)

    workshop.add(Change)
    for app in (respond(b"abc", length=True), respond(b"a", b"b")):
        server = await Server(http_scope()).run(workshop.wrap(app))
        assert server.status == int(becomes)
        assert server.body == b""
        assert server.headers(LENGTH) == []


async def test_a_plugin_that_gives_a_body_to_a_status_without_one_promises_no_length(workshop):
    class Change(Guest):
        def response_headers(self, end):
            self.set(b":status", b"200", RESPONSE_HEADERS)

    workshop.add(Change)
    app = respond(b"", status=304, headers=[(LENGTH, b"5")])
    server = await Server(http_scope()).run(workshop.wrap(app))
    assert server.status == 200
    assert server.headers(LENGTH) == []


@pytest.mark.parametrize("status", [b"99", b"600", b"abc", b"", b"2000", b"101", b"\xb2\xb2\xb2"])
async def test_a_status_that_is_none_is_not_sent(workshop, caplog, status):
    class Change(Guest):
        def response_headers(self, end):
            self.set(b":status", status, RESPONSE_HEADERS)

    workshop.add(Change)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"x", status=201)))
    assert server.status == 500
    assert "which is none: 500 is sent" in caplog.text


async def test_a_header_that_would_break_its_line_fails_the_response(workshop, caplog):
    statuses = []

    class Inject(Guest):
        def response_headers(self, end):
            for name, value in [(b"x", b"a\r\nb: c"), (b"x\n", b"a"), (b"x", b"\0"), (b"", b"a")]:
                statuses.append(self.set(name, value, RESPONSE_HEADERS))

    workshop.add(Inject)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"secret")))
    assert (server.status, server.body) == (503, b"")
    assert server.start["headers"] == [(b"content-length", b"0")]
    assert statuses == [0, 0, 0, 0]
    assert caplog.text.count("contains the control character") == 1


async def test_response_phases_run_in_reverse(workshop):
    workshop.add(Guest, name="first", priority=2)
    workshop.add(Guest, name="second", priority=1)
    await Server(http_scope()).run(workshop.wrap(respond(b"")))
    headers = [event for event in workshop.events if event.endswith("headers")]
    assert headers == [
        "first request_headers",
        "second request_headers",
        "second response_headers",
        "first response_headers",
    ]


async def test_a_body_may_be_memoryviews(workshop):
    class Gather(BodyGuest):
        def response_body(self, size, end):
            if not end:
                return PAUSE

            self.set_body(RESPONSE, self.body(RESPONSE).upper())
            return CONTINUE

    workshop.add(Gather)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": memoryview(b"ab"), "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"c")})

    server = await Server(http_scope()).run(workshop.wrap(app, trusts_app=True))
    assert server.body == b"ABC"


async def test_a_gathered_body_beyond_its_limit_is_a_500(workshop):
    workshop.add(Gather, body_limit="5B")
    server = await Server(http_scope()).run(
        workshop.wrap(respond(b"abc", b"def", b"g", length=True))
    )
    assert server.status == 500
    assert server.body == b""


@pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend"])
async def test_a_body_plugin_takes_file_extensions_away(workshop, kind):
    workshop.add(BodyReader)
    spy = Spy()
    extensions = {kind: {}, "http.response.debug": {}}
    scope = http_scope(extensions=extensions)
    await Server(scope).run(workshop.wrap(spy))
    assert spy.seen["extensions"] == {"http.response.debug": {}}
    assert scope["extensions"] is extensions
    assert kind in extensions


async def test_without_a_body_plugin_a_file_is_sent_as_its_path(workshop):
    workshop.add(Guest)
    scope = http_scope(extensions={"http.response.pathsend": {}})
    order = workshop.events

    async def app(scope, receive, send):
        assert "http.response.pathsend" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": [(LENGTH, b"9")]})
        await send({"type": "http.response.pathsend", "path": "/tmp/x"})
        order.append("background")

    server = await Server(scope).run(workshop.wrap(app))
    assert server.types == ["http.response.start", "http.response.pathsend"]
    assert order.index("guest log") < order.index("background")


@pytest.mark.parametrize("guest", [Guest, BodyReader, BodyGuest])
async def test_unknown_messages_keep_their_place(workshop, guest):
    workshop.add(guest)

    async def app(scope, receive, send):
        await send({"type": "http.response.early_hint", "links": []})
        await send({"type": "http.response.debug", "info": {}})
        start = {"type": "http.response.start", "status": 200, "headers": [(LENGTH, b"2")]}
        await send(start)
        await send({"type": "http.response.push", "path": "/x", "headers": []})
        await send({"type": "http.response.body", "body": b"hi"})

    server = await Server(http_scope()).run(workshop.wrap(app))
    assert [kind.removeprefix("http.response.") for kind in server.types] == [
        "early_hint",
        "debug",
        "start",
        "push",
        "body",
    ]


@pytest.mark.parametrize("guest", [Guest, Upper])
async def test_trailers_follow_the_body_and_end_the_response(workshop, guest):
    workshop.add(guest, name="plugin")
    order = workshop.events

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"a"})
        assert "plugin log" not in order
        pairs = [(b"x-checksum", b"1")]
        first = {"type": "http.response.trailers", "headers": pairs, "more_trailers": True}
        await send(first)
        await send({"type": "http.response.trailers", "headers": pairs})
        order.append("background")

    server = await Server(http_scope(), []).run(workshop.wrap(app))
    assert server.types[-2:] == ["http.response.body", "http.response.trailers"]
    assert server.sent[-1]["headers"] == [(b"x-checksum", b"1")] * 2
    assert order.index("plugin log") < order.index("background")


async def test_what_comes_after_completion_is_dropped(workshop):
    workshop.add(Guest)

    async def app(scope, receive, send):
        await respond(b"once")(scope, receive, send)
        await respond(b"twice")(scope, receive, send)
        await send({"type": "http.response.unknown"})

    server = await Server(http_scope()).run(workshop.wrap(app, trusts_app=True))
    assert server.bodies == [b"once"]
    assert len(server.types) == 2
    assert workshop.phases("guest").count("response_headers") == 1
