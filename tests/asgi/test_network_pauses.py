"""Network plugins that hold data back, and applications that wait, or give it up."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from .guests import CONTINUE, PAUSE
from .harness import Workshop
from .sockets import (
    DOWNSTREAM,
    REMOTE,
    UPSTREAM,
    WAYS,
    Client,
    Echo,
    Holder,
    Network,
    add,
    binary,
    do,
    text,
)
from .test_websocket import GOODBYE

pytestmark = pytest.mark.anyio


@pytest.fixture
def echo() -> Echo:
    return Echo()


# Pauses


async def test_what_is_held_downstream_goes_on_to_a_waiting_application(workshop, echo):
    add(workshop, Holder)
    app = await workshop.load(workshop.wrap(echo))

    async with Client().running(app) as client:
        client.say(text("a"), text("+b"), text("c"))
        await anyio.wait_all_tasks_blocked()
        assert echo.received == ["a"]
        await do(app, "continue", UPSTREAM)
        assert echo.received == ["a"]
        await do(app, "continue", DOWNSTREAM)
        assert echo.received == ["a", "+b", "c"]
        client.say(GOODBYE)


async def test_what_is_held_upstream_goes_on_while_the_application_waits(workshop):
    add(workshop, Holder)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

        for data in ("+a", "b"):
            await send({"type": "websocket.send", "text": data})

        assert (await receive())["type"] == "websocket.disconnect"

    app = await workshop.load(workshop.wrap(app))

    async with Client().running(app) as client:
        assert client.got == ["accept"]
        await do(app, "continue", UPSTREAM)
        assert client.got == ["accept", "+a", "b"]
        client.say(GOODBYE)


@pytest.mark.parametrize("close", [4001, None])
async def test_the_applications_end_waits_for_what_is_held(workshop, close):
    add(workshop, Holder)
    app = await workshop.load(workshop.wrap(Echo(close=close)))
    ended = anyio.Event()

    async def outer(scope, receive, send):
        await app(scope, receive, send)
        ended.set()

    async with Client().running(outer) as client:
        client.say(text("+a"), text("bye"))
        await anyio.wait_all_tasks_blocked()
        await do(app, "continue", DOWNSTREAM)
        assert (client.got, ended.is_set()) == (["accept"], False)
        await do(app, "continue", UPSTREAM)
        assert client.got == ["accept", "+a"] + [close] * (close is not None)
        await ended.wait()

    assert {"upstream 2 end", f"upstream_close {REMOTE}"} <= set(workshop.phases("net"))


async def test_the_clients_end_waits_for_what_is_held(workshop, echo):
    add(workshop, Holder)
    app = await workshop.load(workshop.wrap(echo))

    async with Client().running(app) as client:
        client.say(text("+a"), text("b"), GOODBYE)
        await anyio.wait_all_tasks_blocked()
        assert echo.received == []
        await do(app, "continue", DOWNSTREAM)

    assert echo.received[:1] == ["+a"]
    assert "downstream 3 end" in workshop.phases("net")


@WAYS
@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
async def test_a_pause_has_an_end(workshop, way, policy, caplog):
    class Hold(Network):
        def downstream_data(self, data, end):
            return PAUSE if way == DOWNSTREAM and data == b"hold" else CONTINUE

        def upstream_data(self, data, end):
            return PAUSE if way == UPSTREAM and data == b"hold" else CONTINUE

    echo = Echo()
    add(workshop, Hold, failure_policy=policy, pause_timeout="20ms")
    app = await workshop.load(workshop.wrap(echo))
    client = Client()
    client.say(text("hold"))
    moved = anyio.Event()

    async def on_send(message):
        if message["type"] in ("websocket.close", "websocket.send"):
            moved.set()

    client.on_send = on_send

    async with client.running(app):
        await moved.wait()

        if policy == "fail_open":
            client.say(GOODBYE)

    name = "downstream" if way == DOWNSTREAM else "upstream"
    assert f"it paused {name} data and nothing resumed it within 0.02 s" in caplog.text

    if policy == "fail_open":
        assert (client.got, echo.received) == (["accept", "hold"], ["hold", 1000])
    else:
        assert client.got == ["accept", 1011]
        assert echo.received == ([] if way == DOWNSTREAM else ["hold"]) + [1011]


@WAYS
async def test_more_than_its_limit_is_too_big(workshop, way):
    class Hold(Network):
        def downstream_data(self, data, end):
            return PAUSE if way == DOWNSTREAM else CONTINUE

        def upstream_data(self, data, end):
            return PAUSE if way == UPSTREAM else CONTINUE

    echo = Echo()
    add(workshop, Hold, body_limit="1KB")
    client = Client()
    client.say(binary(bytes(1000)), binary(bytes(25)))
    await client.run(workshop.wrap(echo))
    assert client.got == ["accept", 1009]
    assert echo.received[-1] == 1009


# Waiting, and giving it up


async def test_nothing_is_read_ahead(workshop):
    add(workshop)
    step = [anyio.Event() for _ in range(2)]

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await step[0].wait()
        assert (await receive())["text"] == "a"
        await step[1].wait()
        assert (await receive())["type"] == "websocket.receive"

    app = await workshop.load(workshop.wrap(app))

    async with Client().running(app) as client:
        client.say(text("a"), text("b"), text("c"))
        await anyio.wait_all_tasks_blocked()
        assert client.received == 1
        step[0].set()
        await anyio.wait_all_tasks_blocked()
        assert client.received == 2
        step[1].set()

    assert client.received == 3


async def test_an_application_feels_a_slow_client(workshop):
    add(workshop)
    gate = anyio.Event()
    sent = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

        for number in range(3):
            await send({"type": "websocket.send", "text": str(number)})
            sent.append(number)

    client = Client()

    async def on_send(message):
        if message.get("text") == "1":
            await gate.wait()

    client.on_send = on_send
    app = await workshop.load(workshop.wrap(app))

    async with client.running(app):
        assert sent == [0]
        gate.set()

    assert client.got == ["accept", "0", "1", "2"]


async def test_a_slow_client_does_not_hold_up_the_other_direction(workshop):
    add(workshop, Holder)
    gate, received = anyio.Event(), []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "+slow"})

        while (message := await receive())["type"] == "websocket.receive":
            received.append(message["text"])

    client = Client()

    async def on_send(message):
        if "text" in message:
            await gate.wait()

    client.on_send = on_send
    app = await workshop.load(workshop.wrap(app))

    async with client.running(app):
        client.say(text("+held"))
        await anyio.wait_all_tasks_blocked()
        await do(app, "continue", UPSTREAM)
        assert client.got == ["accept"]
        await do(app, "continue", DOWNSTREAM)
        assert received == ["+held"]
        gate.set()
        client.say(GOODBYE)

    assert client.got == ["accept", "+slow"]


async def test_a_receive_that_is_given_up_loses_nothing(workshop):
    add(workshop, Holder)
    received = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

        while True:
            with anyio.move_on_after(0.005):
                message = await receive()

                if message["type"] == "websocket.disconnect":
                    return

                received.append(message["text"])

    app = await workshop.load(workshop.wrap(app))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            client = Client()
            group.start_soon(client.run, app)

            async def until(count):
                while workshop.phases("net").count("downstream 2") < count:
                    await anyio.sleep(0.002)

            client.say(text("+1"))
            await until(1)
            # Several waits were given up while it was held, and before the next message came.
            await anyio.sleep(0.02)
            client.say(text("x"))

            while "downstream 3" not in workshop.phases("net"):
                await anyio.sleep(0.002)

            await Client(f"/do/continue/{DOWNSTREAM}").run(app)
            client.say(text("yy"), GOODBYE)

    assert received == ["+1", "x", "yy"]


async def test_a_send_that_is_given_up_keeps_the_order(workshop):
    add(workshop)
    gate = anyio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

        async with anyio.create_task_group() as group:
            group.start_soon(send, {"type": "websocket.send", "text": "slow"})
            await anyio.wait_all_tasks_blocked()

            with anyio.move_on_after(0.01):
                await send({"type": "websocket.send", "text": "given up"})

            gate.set()
            await send({"type": "websocket.send", "text": "last"})

    client = Client()

    async def on_send(message):
        if message.get("text") == "slow":
            await gate.wait()

    client.on_send = on_send

    with anyio.fail_after(5):
        await client.run(workshop.wrap(app))

    # Plugins have seen it and let it go: it is sent.
    assert client.got == ["accept", "slow", "given up", "last"]


async def test_both_directions_at_once(workshop):
    add(workshop)
    received = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

        async with anyio.create_task_group() as group:

            async def produce():
                for number in range(50):
                    await send({"type": "websocket.send", "text": str(number)})
                    await anyio.lowlevel.checkpoint()

            group.start_soon(produce)

            while (message := await receive())["type"] == "websocket.receive":
                received.append(message["text"])

    client = Client()
    client.say(*(text(str(number)) for number in range(50)))
    app = await workshop.load(workshop.wrap(app))

    async with client.running(app):
        client.say(GOODBYE)

    numbers = [str(number) for number in range(50)]
    assert (received, client.got[1:]) == (numbers, numbers)


# Everything at once


MESSAGES = st.lists(
    st.tuples(st.booleans(), st.text("ab+", max_size=3), st.booleans()), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(MESSAGES, st.booleans())
def test_no_message_is_lost_doubled_or_moved(tmp_path_factory, messages, closes) -> None:
    """A plugin that pauses at random, an application that gives up its waits: all arrive."""
    answers = iter([])

    class Random(Network):
        def act(self, data, end):
            may_pause = not (end or data.endswith(b"bye"))
            return PAUSE if may_pause and next(answers, False) else CONTINUE

        downstream_data = upstream_data = act

    echo = Echo(close=1000)

    async def impatient(scope, receive, send):
        async def receive_at_last():
            message, patience = None, 0

            while message is None:
                with anyio.move_on_after(patience * 0.0005):
                    message = await receive()

                patience += 1

            return message

        await echo(scope, receive_at_last, send)

    async def main():
        nonlocal answers
        workshop = Workshop(tmp_path_factory.mktemp("plugins"))
        add(workshop, Random)
        answers = iter([pause for pauses in messages for pause in (pauses[0], pauses[2])])
        client = Client()
        client.say(*(text(data) for _, data, _ in messages))
        client.say(text("bye") if closes else GOODBYE)

        with anyio.fail_after(10):
            await client.run(workshop.wrap(impatient))

        return client, workshop.violations

    client, violations = anyio.run(main)
    sent = [data for _, data, _ in messages]
    assert violations == []
    assert echo.received[: len(sent)] == sent
    # Without a close of the application the client had gone before the last of it came.
    got = [one for one in client.got if one not in ("accept", 1000)]
    assert got == sent if closes else got == sent[: len(got)]
