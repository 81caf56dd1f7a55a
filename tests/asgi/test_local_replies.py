"""Local replies: from every phase, in the application's place, and too late."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware.errors import StreamAborted

from .guests import PAUSE, RESPONSE, RESPONSE_HEADERS, BodyGuest, Guest
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


class RejectHeaders(Guest):
    def request_headers(self, end):
        self.reply(401, b"who are you?", [(b"www-authenticate", b"Basic")])


class RejectBody(BodyGuest):
    def request_body(self, size, end):
        self.reply(422, b"bad body")
        return PAUSE


class RejectResponse(Guest):
    def response_headers(self, end):
        self.reply(502, b"hidden")
        return PAUSE


async def test_a_reply_to_request_headers_takes_the_applications_place(workshop):
    workshop.add(RejectHeaders)
    spy = Spy()
    server = await Server(http_scope()).run(workshop.wrap(spy))
    assert spy.scopes == []
    assert server.status == 401
    assert server.body == b"who are you?"
    assert server.headers(b"www-authenticate") == [b"Basic"]
    assert server.headers(b"content-length") == [b"12"]
    assert server.headers(b"content-type") == [b"text/plain"]


async def test_the_reply_wins_over_the_action_and_the_first_reply_over_the_second(workshop):
    class Twice(Guest):
        def request_headers(self, end):
            self.reply(401)
            self.reply(500)
            return 0

    workshop.add(Twice)
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.status == 401


async def test_later_plugins_see_the_reply_but_not_the_request(workshop):
    class Stamp(BodyGuest):
        def response_headers(self, end):
            self.set(b"x-" + self.name.encode(), self.get(b":status", RESPONSE_HEADERS), 2)

        def response_body(self, size, end):
            self.set_body(RESPONSE, self.body(RESPONSE) + b" " + self.name.encode())

    workshop.add(Stamp, name="before", priority=2)
    workshop.add(RejectHeaders, name="auth", priority=1)
    workshop.add(Stamp, name="after")
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.body == b"who are you? after before"
    assert server.headers(b"content-length") == [b"%d" % len(server.body)]
    assert server.headers(b"x-after") == server.headers(b"x-before") == [b"401"]
    assert workshop.phases("after")[:2] == ["root", "create"]
    assert "request_headers" not in workshop.phases("after")
    # The one that replied sees its own answer too.
    assert "response_headers" in workshop.phases("auth")


async def test_a_plugin_may_empty_a_reply(workshop):
    class Empty(BodyGuest):
        def response_body(self, size, end):
            self.set_body(RESPONSE, b"")

    workshop.add(Empty)
    workshop.add(RejectHeaders)
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.body == b""
    assert server.headers(b"content-length") == [b"0"]


@pytest.mark.parametrize("becomes", [b"204", b"304"])
async def test_a_plugin_may_make_a_reply_one_without_body(workshop, becomes):
    class Change(Guest):
        def response_headers(self, end):
            self.set(b":status", becomes, RESPONSE_HEADERS)

    workshop.add(Change)
    workshop.add(RejectHeaders)
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.status == int(becomes)
    assert server.body == b""


async def test_a_reply_to_head_has_the_headers_of_one_with_a_body(workshop):
    workshop.add(RejectHeaders)
    workshop.add(BodyGuest)
    server = await Server(http_scope(method="HEAD")).run(workshop.wrap(Spy()))
    assert server.headers(b"content-length") == [b"12"]
    assert server.body == b""
    assert "response_body" not in workshop.phases("bodyguest")


async def test_a_reply_to_a_body_is_sent_while_the_application_runs(workshop, caplog):
    workshop.add(RejectBody)

    async def app(scope, receive, send):
        assert await receive() == DISCONNECT
        # The client has its answer already, and nothing of this.
        assert server.status == 422
        assert server.body == b"bad body"
        assert await receive() == DISCONNECT
        await respond(b"what?")(scope, receive, send)
        raise RuntimeError("the body is missing")

    server = Server(post_scope(), chunks(b"a", b"b"))
    await server.run(workshop.wrap(app))
    assert server.bodies == [b"bad body"]
    assert server.received == 1
    assert "which then ended: RuntimeError('the body is missing')" in caplog.text
    assert workshop.phases("rejectbody")[-3:] == ["log", "done", "delete"]


async def test_a_reply_to_response_headers_goes_straight_to_the_client(workshop):
    workshop.add(BodyGuest, name="outer", priority=1)
    workshop.add(RejectResponse, name="inner")
    server = await Server(http_scope()).run(workshop.wrap(respond(b"secret", length=True)))
    assert server.status == 502
    assert server.bodies == [b"hidden"]
    assert "response_headers" not in workshop.phases("outer")
    assert workshop.phases("outer")[-3:] == ["log", "done", "delete"]


async def test_a_reply_to_a_response_body_before_the_start_replaces_it(workshop):
    class Inspect(BodyGuest):
        def response_body(self, size, end):
            if b"secret" in self.body(RESPONSE):
                self.reply(500, b"leak")

    workshop.add(Inspect)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"a secret", length=True)))
    assert server.status == 500
    assert server.bodies == [b"leak"]
    server = await Server(http_scope()).run(workshop.wrap(respond(b"fine", length=True)))
    assert server.bodies == [b"fine"]


async def test_a_reply_after_the_start_cuts_the_response(workshop, caplog):
    """The client must not trust what it has got: a filter has no other way to say so (Envoy)."""

    class Late(BodyGuest):
        def response_body(self, size, end):
            self.reply(500, b"late")

    workshop.add(Late)
    server = Server(http_scope())

    with pytest.raises(StreamAborted, match="it replied"):
        await server.run(workshop.wrap(respond(b"a", b"b")))

    assert server.status == 200
    assert server.bodies == []
    assert "a local reply (500) came too late: the response has started" in caplog.text


async def test_a_reply_from_log_is_ignored(workshop, caplog):
    class Late(Guest):
        def log(self):
            self.reply(500)

    workshop.add(Late)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"a")))
    assert server.bodies == [b"a"]
    assert "too late: the response is over" in caplog.text


async def test_the_replied_body_is_not_read_by_plugins_any_more(workshop):
    """No context is made anew after its delete."""
    workshop.add(RejectBody)

    async def app(scope, receive, send):
        for _ in range(3):
            await receive()

    await Server(post_scope(), chunks(b"a", b"b", b"c")).run(workshop.wrap(app, trusts_app=True))
    phases = workshop.phases("rejectbody")
    assert phases.count("create") == phases.count("delete") == phases.count("log") == 1
    assert phases[-1] == "delete"


async def test_a_reply_with_a_status_or_headers_that_can_not_be_sent_is_mended(workshop):
    class Odd(Guest):
        def request_headers(self, end):
            headers = [(b"x\r\n", b"1"), (b"a", b"1\r\nb: 2"), (b"content-length", b"99")]
            self.reply(int(self.get(b"x-status")), b"body", headers)

    workshop.add(Odd)

    for status, sent in ((99, 500), (101, 500), (1000, 500), (200, 200)):
        scope = http_scope(headers=[(b"x-status", b"%d" % status)])
        server = await Server(scope).run(workshop.wrap(Spy()))
        assert server.status == sent
        assert {name for name, _ in server.start["headers"]} == {b"content-length", b"content-type"}


async def test_an_application_that_fails_after_a_reply_does_not_fail_the_request(workshop, caplog):
    caplog.set_level(logging.DEBUG, "wasm_middleware")
    workshop.add(RejectBody)

    async def app(scope, receive, send):
        await read_body(receive)

    server = await Server(post_scope(), chunks(b"a")).run(workshop.wrap(app, trusts_app=True))
    assert server.status == 422
    assert "ConnectionError" in caplog.text


async def test_a_reply_in_a_background_task_changes_nothing(workshop):
    """An error after a complete response is the application's own, reply or not."""
    workshop.add(Guest)

    async def app(scope, receive, send):
        await echo(scope, receive, send)
        raise RuntimeError("in a background task")

    with pytest.raises(RuntimeError, match="in a background task"):
        await Server(post_scope(), chunks(b"a")).run(workshop.wrap(app))
