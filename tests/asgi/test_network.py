"""Network plugins: what they see of a websocket, how it begins, and what they change."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from .guests import PAUSE, Guest
from .harness import Server, Spy, http_scope, respond
from .sockets import (
    DOWNSTREAM,
    LOCAL,
    REMOTE,
    UPSTREAM,
    Client,
    Echo,
    Network,
    add,
    binary,
    do,
    text,
)
from .test_websocket import DENIAL, GOODBYE

pytestmark = pytest.mark.anyio


@pytest.fixture
def echo() -> Echo:
    return Echo()


# What passes


async def test_messages_pass_as_they_are(workshop, echo):
    add(workshop)
    client = Client()
    client.say(text("one"), binary(b"\xff"), text(""), binary(b""), GOODBYE)
    await client.run(workshop.wrap(echo))

    assert client.got == ["accept", "one", b"\xff", "", b""]
    assert echo.received == ["one", b"\xff", "", b"", 1000]
    assert workshop.phases("net") == [
        "root",
        "create",
        "new_connection",
        "downstream 3",
        "upstream 3",
        "downstream 1",
        "upstream 1",
        "downstream 0",
        "upstream 0",
        "downstream 0",
        "upstream 0",
        "downstream 0 end",
        f"downstream_close {REMOTE}",
        f"upstream_close {LOCAL}",
        "done",
        "log",
        "delete",
    ]


async def test_plugins_change_both_directions(workshop, echo):
    class Change(Network):
        def downstream_data(self, data, end):
            self.set_body(DOWNSTREAM, data.upper())

        def upstream_data(self, data, end):
            self.set_body(UPSTREAM, b"" if data == b"SECRET" else data + b"!")

    add(workshop, Change)
    client = Client()
    client.say(text("one"), text("secret"), text("two"), GOODBYE)
    await client.run(workshop.wrap(echo))

    assert echo.received == ["ONE", "SECRET", "TWO", 1000]
    # Its last word is shown the end of the application, which had gone by then.
    assert client.got == ["accept", "ONE!", "TWO!"]


async def test_text_of_no_utf_8_is_sent_as_bytes(workshop, echo):
    class Break(Network):
        def downstream_data(self, data, end):
            if data:
                self.set_body(DOWNSTREAM, b"\xff")

    add(workshop, Break)
    client = Client()
    client.say(text("one"), GOODBYE)
    await client.run(workshop.wrap(echo))
    assert echo.received == [b"\xff", 1000]


async def test_the_scope_is_the_servers_own(workshop, echo):
    add(workshop)
    spy = Spy(echo)
    client = Client()
    client.say(GOODBYE)
    await client.run(workshop.wrap(spy))
    assert spy.scope is client.scope


async def test_the_order_of_the_chain(workshop, echo):
    for name, priority in (("late", 1), ("early", 2)):
        workshop.add(Network, name, type="network", priority=priority)

    client = Client()
    client.say(text("x"), GOODBYE)
    await client.run(workshop.wrap(echo))
    events = [event for event in workshop.events if "1" in event and "close" not in event]
    assert events == [
        "early downstream 1",
        "late downstream 1",
        "late upstream 1",
        "early upstream 1",
    ]


async def test_http_plugins_pass_the_handshake_and_network_plugins_the_connection(workshop, echo):
    class Mark(Guest):
        def request_headers(self, end):
            self.set(b"x-mark", b"1")

    class Read(Network):
        def new_connection(self):
            self.note(self.property("request", "headers", "x-mark").decode())
            self.note(self.property("source", "address").decode())

    workshop.add(Mark, priority=-1)
    add(workshop, Read)
    client = Client()
    client.say(text("x"), GOODBYE)
    spy = Spy(echo)
    await client.run(workshop.wrap(spy))

    assert spy.header(b"x-mark") == [b"1"]
    assert workshop.phases("mark") == ["root", "create", "request_headers", "log", "done", "delete"]
    assert workshop.phases("net")[2:5] == ["new_connection", "1", "127.0.0.1:4242"]
    assert workshop.events.index("mark request_headers") < workshop.events.index("net create")
    assert workshop.events.index("net delete") < workshop.events.index("mark log")


async def test_http_requests_do_not_pass_network_plugins(workshop):
    add(workshop)
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))
        await respond(b"hello")(scope, receive, send)

    wrapped = workshop.wrap(app)
    server = await Server(http_scope()).run(wrapped)
    workshop.add(Guest, "http")
    both = await Server(http_scope()).run(workshop.wrap(app))

    assert server.body == both.body == b"hello"
    assert seen[0][0] is server.scope
    assert workshop.phases("net") == ["root", "root"]
    assert "request_headers" in workshop.phases("http")


async def test_a_plugin_of_http_that_denies_leaves_no_connection(workshop, echo):
    class Deny(Guest):
        def request_headers(self, end):
            self.reply(401)

    workshop.add(Deny)
    add(workshop)
    client = await Client(extensions=DENIAL).run(workshop.wrap(echo))
    assert client.sent[0]["status"] == 401
    assert workshop.phases("net") == ["root"]


# The beginning


@pytest.mark.parametrize("which", [DOWNSTREAM, UPSTREAM])
async def test_a_plugin_denies_the_handshake(workshop, which):
    class Deny(Network):
        def new_connection(self):
            self.host.proxy_close_stream(which)

    add(workshop, Deny)
    spy = Spy()
    plain = await Client().run(workshop.wrap(spy))
    able = await Client(extensions=DENIAL).run(workshop.wrap(spy))

    assert plain.sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    assert [one.get("status") for one in able.sent] == [403, None]
    assert spy.scopes == []
    assert workshop.phases("net")[-3:] == ["done", "log", "delete"]


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
async def test_a_plugin_that_fails_at_the_beginning(workshop, echo, policy):
    class Fail(Network):
        def new_connection(self):
            raise RuntimeError("boom")

    add(workshop, Fail, failure_policy=policy)
    client = Client(extensions=DENIAL)
    client.say(text("x"), GOODBYE)
    await client.run(workshop.wrap(echo))

    if policy == "fail_open":
        assert client.got == ["accept", "x"]
    else:
        assert client.sent[0]["status"] == 503


async def test_the_application_waits_until_a_connection_may_begin(workshop, echo):
    class Hold(Network):
        def new_connection(self):
            return PAUSE

    add(workshop, Hold)
    spy = Spy(echo)
    app = await workshop.load(workshop.wrap(spy))
    client = Client()

    async with client.running(app):
        assert spy.scopes == []
        await do(app, "continue", UPSTREAM)
        assert spy.scopes == []
        await do(app, "continue", DOWNSTREAM)
        assert client.got == ["accept"]
        client.say(text("x"), GOODBYE)

    assert client.got == ["accept", "x"]


async def test_a_client_that_goes_ends_that_wait(workshop):
    class Hold(Network):
        def new_connection(self):
            return PAUSE

    add(workshop, Hold)
    spy = Spy()
    app = await workshop.load(workshop.wrap(spy))

    async with Client().running(app) as client:
        client.say(GOODBYE)

    assert spy.scopes == client.sent == []
    close = [f"downstream_close {REMOTE}", f"upstream_close {LOCAL}"]
    assert workshop.phases("net")[-5:] == [*close, "done", "log", "delete"]


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
async def test_that_wait_has_an_end(workshop, echo, policy, caplog):
    class Hold(Network):
        def new_connection(self):
            return PAUSE

    add(workshop, Hold, failure_policy=policy, pause_timeout="20ms")
    client = Client(extensions=DENIAL)

    with anyio.fail_after(5):
        async with client.running(await workshop.load(workshop.wrap(echo))):
            with contextlib.suppress(anyio.ClosedResourceError):
                while not client.sent:
                    await anyio.sleep(0.005)

                client.say(GOODBYE)

    assert "it paused the new connection" in caplog.text
    assert client.sent[0].get("status") == (503 if policy == "fail_closed" else None)
    assert ("accept" in client.got) is (policy == "fail_open")


# Starting


async def test_a_network_plugin_needs_a_callback_for_connections(workshop, caplog):
    workshop.may_refuse = True
    workshop.add(Guest, "net", type="network")
    client = await Client(extensions=DENIAL).run(workshop.wrap(Spy()))
    assert client.sent[0]["status"] == 503
    assert "its module exports no callback for connections" in caplog.text


async def test_what_a_network_plugin_has_no_use_for_is_warned_of(workshop, echo, caplog):
    add(workshop, phase="on_request_headers", bodies=True)
    client = Client()
    client.say(text("x"), GOODBYE)
    await client.run(workshop.wrap(echo))
    assert caplog.text.count("has no effect on a plugin of type network") == 2
    assert "log" in workshop.phases("net")
    assert "downstream 1" in workshop.phases("net")
