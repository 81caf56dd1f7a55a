"""Failure policies: in every phase, before the response has started and after."""

from __future__ import annotations

import anyio
import pytest

from wasm_middleware import StreamAborted, limits
from wasm_middleware.errors import GuestMemoryLimit, GuestTimeout
from wasm_middleware.proxy_wasm.stream import Stream

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


# Each case of the failure policy


class Failing(BodyGuest):
    """Fails in the phase that the request names, in the way that its class says."""

    def request_headers(self, end):
        return self.maybe("request_headers")

    def response_headers(self, end):
        return self.maybe("response_headers")

    def response_body(self, size, end):
        return self.maybe("response_body") if end else None

    def maybe(self, phase):
        return self.fail() if self.get(b"x-trap") == phase.encode() else None

    def fail(self): ...


class Traps(Failing):
    def fail(self):
        raise RuntimeError("unreachable")


class RunsTooLong(Failing):
    def fail(self):
        raise GuestTimeout("it ran for longer than its timeout of 50 ms")


class WantsMemory(Failing):
    def fail(self):
        raise GuestMemoryLimit("it ended itself with all of its memory in use")


class Pauses(Failing):
    def fail(self):
        return PAUSE


CASES = {
    Traps: "unreachable",
    RunsTooLong: "longer than its timeout",
    WantsMemory: "all of its memory",
    Pauses: "nothing resumed it within 0.01 s",
}


@pytest.mark.parametrize("phase", ["request_headers", "response_headers"])
@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
@pytest.mark.parametrize("kind", CASES)
async def test_every_failure_before_the_start_gets_the_policy(
    workshop, caplog, kind, policy, phase
):
    workshop.add(Guest, name="other", priority=1)
    workshop.add(kind, name="bad", failure_policy=policy, pause_timeout="10ms")
    app = workshop.wrap(respond(b"first", b"third", length=True))
    server = await Server(trapping(phase), chunks(b"ab")).run(app)

    if policy == "fail_open":
        assert (server.status, server.body) == (200, b"firstthird")
    else:
        assert (server.status, server.body) == (503, b"")
        assert server.start["headers"] == [(b"content-length", b"0")]

    assert CASES[kind] in caplog.text
    told = [one for one in caplog.records if getattr(one, "plugin", "") == "bad"]
    assert [(one.levelname, one.phase) for one in told] == [("ERROR", f"on_{phase}")]
    # Nothing is lost for the others.
    assert workshop.phases("other")[-3:] == ["log", "done", "delete"]
    assert (await Server(http_scope()).run(app)).status == 200


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
@pytest.mark.parametrize("kind", CASES)
async def test_every_failure_after_the_start_gets_the_policy(workshop, caplog, kind, policy):
    workshop.add(Guest, name="other", priority=1)
    workshop.add(kind, name="bad", failure_policy=policy, pause_timeout="10ms")
    app = workshop.wrap(respond(b"first", b"second"))
    server = Server(trapping("response_body"), chunks(b"ab"))

    if policy == "fail_open":
        await server.run(app)
        assert (server.status, server.body) == (200, b"firstsecond")
    else:
        with pytest.raises(StreamAborted):
            await server.run(app)

        assert server.bodies == [b"first"]

    assert CASES[kind] in caplog.text
    told = [one for one in caplog.records if getattr(one, "plugin", "") == "bad"]
    assert [(one.levelname, one.phase) for one in told] == [("ERROR", "on_response_body")]
    assert workshop.phases("other")[-3:] == ["log", "done", "delete"]


@pytest.fixture
def details(monkeypatch):
    """What the host says of each reply that it makes."""
    found = []
    refuse = Stream.refuse

    def spy(stream, reply):
        found.append(reply.details)
        refuse(stream, reply)

    monkeypatch.setattr(Stream, "refuse", spy)
    return found


class Once(Trap):
    """Starts once; set `starts` to have it start again."""

    starts = 0

    def configure(self):
        type(self).starts += 1
        return type(self).starts == 1


@pytest.mark.parametrize(("policy", "status"), [("fail_closed", 503), ("fail_open", 200)])
async def test_a_plugin_that_would_not_start_again_gets_the_policy(
    workshop, details, policy, status
):
    workshop.add(Once, failure_policy=policy)
    app = workshop.wrap(respond(b"hi"))
    await Server(trapping("request_headers")).run(app)
    server = await Server(http_scope()).run(app)
    assert server.status == status
    assert details == (["start"] if policy == "fail_closed" else [])


@pytest.mark.parametrize(("policy", "status"), [("fail_closed", 503), ("fail_open", 200)])
async def test_a_disabled_plugin_gets_the_policy(
    workshop, monkeypatch, details, caplog, policy, status
):
    monkeypatch.setattr(limits, "FIRST_RESTART", 0.001)
    monkeypatch.setattr(limits, "LAST_RESTART", 0.002)
    made = workshop.add(Once, failure_policy=policy)
    app = workshop.wrap(respond(b"hi"))
    await Server(trapping("request_headers")).run(app)

    with anyio.fail_after(5):
        while "is disabled until" not in caplog.text:
            await anyio.sleep(0.001)

    details.clear()
    server = await Server(http_scope()).run(app)
    assert (server.status, len(server.start["headers"])) == (status, status == 503)
    assert details == (["disabled"] if policy == "fail_closed" else [])
    assert made.starts == 1 + limits.MAX_FAILED_STARTS
    assert caplog.text.count("is disabled until") == 1


async def test_a_plugin_that_fails_each_request_is_left_alone_for_a_while(workshop, monkeypatch):
    """It does start, and fails at once: that is worth no start for each request."""
    monkeypatch.setattr(limits, "FIRST_RESTART", 3600)
    monkeypatch.setattr(limits, "LAST_RESTART", 3600)

    class Always(Guest):
        calls = 0

        def request_headers(self, end):
            type(self).calls += 1
            raise RuntimeError("boom")

    made = workshop.add(Always)
    workshop.add(Guest, name="other")
    app = workshop.wrap(respond(b"hi"))
    assert [(await Server(http_scope()).run(app)).status for _ in range(50)] == [503] * 50
    assert made.calls == 1 + limits.SPARE_RESTARTS


async def test_a_request_that_fails_a_plugin_does_not_stop_it_for_others(workshop):
    """However often it is sent: what is served between tells that the plugin is sound."""
    workshop.add(Trap)
    app = workshop.wrap(respond(b"hi"))
    statuses = []

    for scope in [http_scope(), trapping("request_headers"), http_scope()] * 5:
        statuses.append((await Server(scope).run(app)).status)

    assert statuses == [200, 503, 200] * 5
