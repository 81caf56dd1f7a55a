"""Failure policies: in every phase, before the response has started and after."""

from __future__ import annotations

import pytest

from wasm_middleware import StreamAborted

from .guests import PAUSE, RESPONSE, BodyGuest, Guest
from .harness import Server, Spy, chunks, echo, http_scope, post_scope, respond

pytestmark = pytest.mark.anyio

PHASES = ["request_headers", "request_body", "response_headers", "response_body"]


class Trap(BodyGuest):
    """Traps in the phase that the request names, after a change to the body."""

    def request_headers(self, end):
        self.trap("request_headers")

    def request_body(self, size, end):
        self.trap("request_body")

    def response_headers(self, end):
        self.trap("response_headers")

    def response_body(self, size, end):
        self.trap("response_body")

    def log(self):
        self.trap("log")

    def trap(self, phase):
        if self.get(b"x-trap") == phase.encode():
            raise RuntimeError("boom")


def trapping(phase: str):
    return post_scope(headers=[(b"x-trap", phase.encode())])


@pytest.mark.parametrize("phase", PHASES)
async def test_fail_closed_is_a_503_that_says_nothing(workshop, caplog, phase):
    workshop.add(Guest, name="first", priority=1)
    workshop.add(Trap)
    server = await Server(trapping(phase), chunks(b"ab")).run(workshop.wrap(echo))
    assert server.status == 503
    assert server.body == b""
    assert server.start["headers"] == [(b"content-length", b"0")]
    assert f"plugin 'trap' in on_{phase}" in caplog.text
    assert caplog.text.count("boom") == 1
    assert workshop.phases("first")[-3:] == ["log", "done", "delete"]


@pytest.mark.parametrize("phase", PHASES)
async def test_fail_open_leaves_the_plugin_out_of_the_rest(workshop, caplog, phase):
    workshop.add(Trap, failure_policy="fail_open")
    workshop.add(Guest, name="other")
    server = await Server(trapping(phase), chunks(b"a", b"b")).run(workshop.wrap(echo))
    assert server.body == b"ab"
    assert "boom" in caplog.text
    phases = workshop.phases("trap")
    assert phases[-1] == phase
    assert workshop.phases("other")[-3:] == ["log", "done", "delete"]


async def test_fail_open_goes_on_with_the_body_as_the_plugin_left_it(workshop):
    class Half(BodyGuest):
        def response_body(self, size, end):
            if not end:
                return PAUSE

            self.set_body(RESPONSE, self.body(RESPONSE) + b"!")
            raise RuntimeError("boom")

    workshop.add(Half, failure_policy="fail_open")
    server = await Server(http_scope()).run(workshop.wrap(respond(b"ab", b"c", length=True)))
    assert server.body == b"abc!"
    assert server.headers(b"content-length") == [b"4"]


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_failure_after_the_start_cuts_the_response(workshop, caplog, swallows):
    class Second(BodyGuest):
        def response_body(self, size, end):
            if self.body(RESPONSE) == b"b":
                raise RuntimeError("boom")

    workshop.add(Second)
    seen = []

    async def app(scope, receive, send):
        try:
            await respond(b"a", b"b", b"c")(scope, receive, send)
        except StreamAborted as error:
            seen.append(error)

            if not swallows:
                raise

        # And again, for an application that does not give up.
        with pytest.raises(StreamAborted):
            await send({"type": "http.response.body", "body": b"d"})

    outer = workshop.wrap(app, trusts_app=True)
    server = Server(http_scope())

    with pytest.raises(StreamAborted):
        await server.run(outer)

    assert seen
    assert server.bodies == [b"a"]
    assert caplog.text.count("RuntimeError('boom')") == 1
    assert workshop.phases("second").count("response_body") == 2


async def test_too_large_a_body_after_the_start_cuts_the_response(workshop, caplog):
    class Gather(BodyGuest):
        def response_body(self, size, end):
            return PAUSE

    workshop.add(Gather, body_limit="5B")
    server = Server(http_scope())

    with pytest.raises(StreamAborted):
        await server.run(workshop.wrap(respond(b"abc", b"def", b"ghi")))

    assert server.bodies == []
    assert "more than its body_limit of 5 bytes" in caplog.text


async def test_a_failure_in_log_is_logged_and_no_more(workshop, caplog):
    workshop.add(Trap)
    server = await Server(trapping("log"), chunks(b"ab")).run(workshop.wrap(echo))
    assert server.body == b"ab"
    assert "in on_log" in caplog.text


async def test_the_next_request_gets_a_new_instance(workshop, caplog):
    class Count(Trap):
        count = 0

        def request_headers(self, end):
            self.count += 1
            self.set(b"x-count", b"%d" % self.count)
            super().request_headers(end)

    workshop.add(Count)
    spy = Spy()
    app = workshop.wrap(spy)
    counts = []

    for scope in (http_scope(), http_scope(), trapping("request_headers"), http_scope()):
        server = await Server(scope).run(app)
        counts.append(spy.header(b"x-count")[0] if server.status == 200 else None)

    assert counts == [b"1", b"2", None, b"1"]
    assert "a failed instance was replaced" in caplog.text


async def test_a_plugin_that_can_not_be_started_again_is_tried_from_time_to_time(
    workshop, caplog, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    class Once(Trap):
        starts = 0

        def configure(self):
            type(self).starts += 1
            return type(self).starts in (1, 4)

    made = workshop.add(Once)
    app = workshop.wrap(Spy())

    async def status(scope):
        return (await Server(scope).run(app)).status

    assert await status(trapping("request_headers")) == 503
    assert [await status(http_scope()) for _ in range(5)] == [503] * 5
    assert made.starts == 2
    assert caplog.text.count("on_configure answered false") == 1
    now[0] += 100
    assert [await status(http_scope()) for _ in range(2)] == [503] * 2
    assert made.starts == 3
    now[0] += 100
    assert await status(http_scope()) == 200


async def test_two_failures_of_one_request_are_one_answer(workshop):
    class Worse(Guest):
        def response_headers(self, end):
            raise RuntimeError("worse")

    workshop.add(Worse, priority=1)
    workshop.add(Trap)
    server = await Server(trapping("request_headers"), chunks(b"a")).run(workshop.wrap(echo))
    assert server.status == 503
    assert server.body == b""


async def test_a_plugin_that_closes_its_stream_ends_it(workshop):
    class Close(Guest):
        def request_headers(self, end):
            self.host.proxy_close_stream(0)

    workshop.add(Close)
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.status == 503


async def test_other_streams_of_an_instance_that_failed_get_their_policy(workshop, caplog):
    """The same memory served them: it may be half-way through a change."""
    workshop.add(Trap)

    async def app(scope, receive, send):
        if scope["path"] == "/outer":
            await Server(trapping("request_headers")).run(outer)

        await respond(b"hi", length=True)(scope, receive, send)

    outer = workshop.wrap(app)
    server = await Server(http_scope("/outer")).run(outer)
    assert server.status == 503
    assert "its instance failed in another call" in caplog.text
