"""How a websocket with network plugins ends."""

from __future__ import annotations

import anyio
import pytest

from wasm_middleware.errors import StreamClosed
from wasm_middleware.proxy_wasm.connection import Connection

from .guests import CONTINUE
from .sockets import (
    DOWNSTREAM,
    LOCAL,
    REMOTE,
    UPSTREAM,
    WAYS,
    Client,
    Echo,
    Holder,
    Network,
    add,
    do,
    text,
)
from .test_websocket import DENIAL, GOODBYE

pytestmark = pytest.mark.anyio


@pytest.fixture
def echo() -> Echo:
    return Echo()


# Closing from within


@pytest.mark.parametrize(("which", "code"), [(DOWNSTREAM, 1008), (UPSTREAM, 1000)])
@WAYS
async def test_a_plugin_closes_the_connection(workshop, echo, way, which, code):
    class Close(Network):
        def act(self, data, end):
            if data == b"close":
                self.host.proxy_close_stream(which)

        downstream_data = act if way == DOWNSTREAM else Network.downstream_data
        upstream_data = act if way == UPSTREAM else Network.upstream_data

    add(workshop, Close)
    client = Client()
    client.say(text("a"), text("close"), text("b"))
    await client.run(workshop.wrap(echo))

    assert client.got == ["accept", "a", code]
    assert echo.received == ["a", *(["close"] if way == UPSTREAM else []), code]
    close = [f"downstream_close {LOCAL}", f"upstream_close {LOCAL}"]
    assert workshop.phases("net")[-5:] == [*close, "done", "log", "delete"]


@pytest.mark.parametrize(("which", "code"), [(DOWNSTREAM, 1008), (UPSTREAM, 1000)])
async def test_a_close_from_elsewhere_ends_an_application_that_waits(workshop, echo, which, code):
    add(workshop)
    app = await workshop.load(workshop.wrap(echo))

    async with Client().running(app) as client:
        assert client.got == ["accept"]
        await do(app, "close", which)

    assert client.got == ["accept", code]
    assert echo.received == [code]


async def test_what_was_let_go_before_is_received_and_sent(workshop):
    add(workshop)
    go = anyio.Event()
    received = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "before"})
        await go.wait()

        with pytest.raises(StreamClosed) as raised:
            await send({"type": "websocket.send", "text": "after"})

        assert isinstance(raised.value, OSError)
        await send({"type": "websocket.close", "code": 1000})
        received.append(await receive())

    app = await workshop.load(workshop.wrap(app, trusts_app=True))

    async with Client().running(app) as client:
        await do(app, "close", DOWNSTREAM)
        assert client.got == ["accept", "before", 1008]
        go.set()

    assert [one["type"] for one in received] == ["websocket.disconnect"]
    assert client.got == ["accept", "before", 1008]


async def test_an_application_that_only_sends_is_stopped(workshop, caplog):
    class Close(Network):
        def upstream_data(self, data, end):
            if data == b"3":
                self.host.proxy_close_stream(DOWNSTREAM)

    add(workshop, Close)
    sent = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

        for number in range(100):
            await send({"type": "websocket.send", "text": str(number)})
            sent.append(number)

    client = await Client().run(workshop.wrap(app))
    assert client.got == ["accept", "0", "1", "2", 1008]
    assert sent == [0, 1, 2, 3]
    assert "the application of a closed websocket ended: StreamClosed" in caplog.text


async def test_what_an_application_raises_for_a_closed_connection_is_logged(workshop, caplog):
    class Close(Network):
        def downstream_data(self, data, end):
            self.host.proxy_close_stream(DOWNSTREAM)

    add(workshop, Close)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise ConnectionError(f"disconnected: {(await receive())['code']}")

    client = Client()
    client.say(text("x"))
    await client.run(workshop.wrap(app))
    assert client.got == ["accept", 1008]
    assert "disconnected: 1008" in caplog.text


@WAYS
@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
async def test_a_plugin_that_fails(workshop, echo, way, policy, caplog):
    class Fail(Network):
        def act(self, data, end):
            if data == b"fail":
                raise RuntimeError("boom")

        downstream_data = act if way == DOWNSTREAM else Network.downstream_data
        upstream_data = act if way == UPSTREAM else Network.upstream_data

    add(workshop, Fail, failure_policy=policy)
    client = Client()
    client.say(text("a"), text("fail"), text("b"))

    if policy == "fail_open":
        client.say(GOODBYE)

    await client.run(workshop.wrap(echo))
    name = "downstream" if way == DOWNSTREAM else "upstream"
    assert f"plugin 'net' in on_{name}_data" in caplog.text

    if policy == "fail_open":
        assert client.got == ["accept", "a", "fail", "b"]
    else:
        assert client.got == ["accept", "a", 1011]
        assert echo.received[-1] == 1011


async def test_a_plugin_that_would_not_start_denies_the_handshake(workshop, echo):
    class Once(Network):
        started = 0

        def configure(self):
            type(self).started += 1
            return self.started == 1

        def new_connection(self):
            raise RuntimeError("boom")

    add(workshop, Once)
    app = await workshop.load(workshop.wrap(echo))
    clients = [await Client(extensions=DENIAL).run(app) for _ in range(2)]
    assert [client.sent[0]["status"] for client in clients] == [503, 503]
    assert workshop.phases("net").count("new_connection") == 1


# The application's end


async def test_an_error_of_the_application_is_its_own(workshop):
    add(workshop)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await Client().run(workshop.wrap(app, trusts_app=True))

    close = [f"upstream_close {REMOTE}", f"downstream_close {LOCAL}"]
    assert workshop.phases("net")[-5:] == [*close, "done", "log", "delete"]


async def test_a_close_before_the_accept_denies(workshop):
    add(workshop)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.close", "code": 1000})

    client = await Client().run(workshop.wrap(app))
    assert client.got == [1000]
    assert workshop.phases("net")[3:6] == [
        "upstream 0 end",
        f"upstream_close {REMOTE}",
        f"downstream_close {LOCAL}",
    ]


async def test_an_application_may_deny_with_a_response(workshop):
    add(workshop)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": False})

    client = await Client(extensions=DENIAL).run(workshop.wrap(app))
    assert [one.get("status", one.get("body")) for one in client.sent] == [418, b"no"]


async def test_a_response_that_has_begun_is_not_denied_once_more(workshop):
    add(workshop)
    go = anyio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        await go.wait()
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": False})

    app = await workshop.load(workshop.wrap(app))

    async with Client(extensions=DENIAL).running(app) as client:
        await do(app, "close", DOWNSTREAM)
        go.set()

    assert [one.get("status", one.get("body")) for one in client.sent] == [418, b"no"]


async def test_a_close_from_elsewhere_before_the_accept_denies(workshop):
    add(workshop)
    received = []

    async def app(scope, receive, send):
        await receive()
        received.append(await receive())
        await send({"type": "websocket.accept"})

    app = await workshop.load(workshop.wrap(app, trusts_app=True))

    async with Client(extensions=DENIAL).running(app) as client:
        await do(app, "close", DOWNSTREAM)

    assert [one.get("status") for one in client.sent] == [403, None]
    assert [one["type"] for one in received] == ["websocket.disconnect"]


async def test_after_its_own_close_there_is_nothing_to_receive(workshop):
    add(workshop)
    received = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

        async with anyio.create_task_group() as group:

            async def listen():
                received.append(await receive())

            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            await send({"type": "websocket.close", "code": 4000})

    client = Client()

    with anyio.fail_after(5):
        await client.run(workshop.wrap(app))

    assert client.got == ["accept", 4000]
    assert [(one["type"], one["code"]) for one in received] == [("websocket.disconnect", 4000)]


async def test_a_connection_that_is_cancelled_ends(workshop, echo):
    add(workshop)
    app = await workshop.load(workshop.wrap(echo))

    with anyio.move_on_after(0.02) as scope:
        await Client().run(app)

    assert scope.cancelled_caught
    close = [f"downstream_close {LOCAL}", f"upstream_close {LOCAL}"]
    assert workshop.phases("net")[-5:] == [*close, "done", "log", "delete"]


async def test_a_server_that_fails_is_heard_of(workshop):
    add(workshop, Holder)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "+held"})
        await receive()

    app = await workshop.load(workshop.wrap(app, trusts_app=True))
    client = Client()
    raised = []

    async def on_send(message):
        if message["type"] == "websocket.send":
            raise ConnectionError("the client has gone")

    client.on_send = on_send

    async def outer(scope, receive, send):
        try:
            await app(scope, receive, send)
        except ConnectionError as error:
            raised.append(error)

    async with client.running(outer):
        await do(app, "continue", UPSTREAM)

    assert [str(error) for error in raised] == ["the client has gone"]


# The client goes while what the application has left behind is held


def held(ending):
    """An application that leaves a message behind that a plugin holds, and ends."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "+held"})

        if ending == "close":
            await send({"type": "websocket.close", "code": 4000})

    return app


@pytest.mark.parametrize("ending", ["close", "return"])
async def test_a_client_that_goes_is_not_held_for(workshop, ending):
    add(workshop, Holder)
    app = await workshop.load(workshop.wrap(held(ending)))

    async with Client().running(app) as client:
        assert client.got == ["accept"]
        client.say(GOODBYE)

    assert client.got == ["accept"]
    assert workshop.phases("net")[-6:] == [
        "downstream 0 end",
        f"downstream_close {REMOTE}",
        f"upstream_close {REMOTE}",
        "done",
        "log",
        "delete",
    ]


@pytest.mark.parametrize("ending", ["close", "return"])
async def test_what_a_client_still_says_is_shown_to_the_plugins_and_its_end_is_heard(
    workshop, ending
):
    add(workshop, Holder)
    app = await workshop.load(workshop.wrap(held(ending)))

    async with Client().running(app) as client:
        client.say(text("a"), text("+b"), text("c"), GOODBYE)

    assert client.got == ["accept"]
    assert [one for one in workshop.phases("net") if one.startswith("downstream ")] == [
        "downstream 1",
        "downstream 2",
        "downstream 3",
        "downstream 3 end",
    ]


@pytest.mark.parametrize("ending", ["close", "return"])
async def test_what_a_client_still_says_may_let_go_of_what_is_held(workshop, ending):
    class Acknowledged(Holder):
        def downstream_data(self, data, end):
            if data == b"ack":
                self.resume(UPSTREAM)

    add(workshop, Acknowledged)
    app = await workshop.load(workshop.wrap(held(ending)))

    async with Client().running(app) as client:
        client.say(text("ack"))

    assert client.got == ["accept", "+held", *([4000] if ending == "close" else [])]


async def test_a_client_that_floods_a_closing_connection_fills_no_memory(workshop, monkeypatch):
    """Its messages pass the plugins, and are kept for nobody."""
    connections, kept = [], []

    class Watched(Connection):
        def __init__(self, stream):
            super().__init__(stream)
            connections.append(self)

    monkeypatch.setattr("wasm_middleware.asgi.websocket.Connection", Watched)
    add(workshop, Holder)
    app = await workshop.load(workshop.wrap(held("return")))
    client = Client()
    receive = client.receive

    async def watched():
        message = await receive()
        kept.extend(len(one.downstream.output) for one in connections)
        return message

    client.receive = watched

    async with client.running(app):
        client.say(*[text("x" * 100)] * 50, GOODBYE)

    assert len(kept) == 52
    assert max(kept) == 0


class OneAtATime(Client):
    """A server whose `receive` is not made for two."""

    busy = False

    async def receive(self):
        assert not self.busy
        self.busy = True

        try:
            return await super().receive()
        finally:
            self.busy = False


class Listening:
    """An application that closes in one of its parts and listens in another, `listening`."""

    def __init__(self, listen):
        self.listen = listen
        self.received: list[object] = []
        self.listening = anyio.CancelScope()
        self.late = anyio.Event()

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "+held"})

        async with anyio.create_task_group() as group:
            group.start_soon(self._listen, receive)
            await anyio.wait_all_tasks_blocked()
            await send({"type": "websocket.close", "code": 4000})

    async def _listen(self, receive):
        if self.listen == "late":
            await self.late.wait()

        with self.listening:
            while (message := await receive())["type"] == "websocket.receive":
                self.received.append(message["text"])

            self.received.append(message["code"])


@pytest.mark.parametrize("listen", ["early", "late"])
async def test_an_application_that_listens_while_it_closes_hears_of_its_client_s_end(
    workshop, listen
):
    add(workshop, Holder)
    closes = Listening(listen)
    app = await workshop.load(workshop.wrap(closes))

    async with OneAtATime().running(app) as client:
        closes.late.set()
        await anyio.wait_all_tasks_blocked()
        client.say(text("a"), GOODBYE)

    assert closes.received[-1] == GOODBYE["code"]
    assert client.got == ["accept"]


async def test_an_application_that_no_longer_listens_while_it_closes_does_not_outlive_its_client(
    workshop,
):
    add(workshop, Holder)
    closes = Listening("early")
    app = await workshop.load(workshop.wrap(closes))

    async with OneAtATime().running(app) as client:
        closes.listening.cancel()
        await anyio.wait_all_tasks_blocked()
        client.say(GOODBYE)

    assert closes.received == []
    assert client.got == ["accept"]


async def test_a_message_is_shown_once_where_two_wait_to_show_it(workshop):
    go = anyio.Event()

    class Slow(Holder):
        async def proxy_on_downstream_data(self, context, size, end):
            super().proxy_on_downstream_data(context, size, end)

            if size == 1:
                await go.wait()

            return CONTINUE

    add(workshop, Slow)
    closes = Listening("late")
    app = await workshop.load(workshop.wrap(closes))

    async with OneAtATime().running(app) as client:
        client.say(text("a"))
        await anyio.wait_all_tasks_blocked()
        closes.late.set()
        client.say(text("bb"))
        await anyio.wait_all_tasks_blocked()
        go.set()
        await anyio.wait_all_tasks_blocked()
        client.say(GOODBYE)

    shown = [one for one in workshop.phases("net") if one.startswith("downstream ")]
    assert shown == ["downstream 1", "downstream 2", "downstream 0 end"]
    assert closes.received[-1] == GOODBYE["code"]
