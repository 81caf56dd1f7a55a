"""What the tests of network plugins stand on: such plugins in Python, and websockets that a test
plays."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from wasm_middleware.abi.enums import PeerType

from .guests import CONTINUE, PAUSE, Guest, imports
from .harness import Workshop
from .test_websocket import CONNECT, websocket_scope

#: Stream types and, by the same numbers, buffers.
DOWNSTREAM, UPSTREAM = 2, 3
WAYS = pytest.mark.parametrize("way", [DOWNSTREAM, UPSTREAM])
LOCAL, REMOTE = PeerType.LOCAL, PeerType.REMOTE


class Network(Guest):
    """A network plugin. One on /do/<continue|close>/<stream type> does that to the last that was
    held, or has begun, and then closes its own connection."""

    imports = imports()
    held = 0

    def new_connection(self): ...
    def downstream_data(self, data, end): ...
    def upstream_data(self, data, end): ...

    def proxy_on_new_connection(self, context):
        path = self.property("request", "path")

        if path.startswith(b"/do/"):
            self.context = context
            self.do(*path[4:].split(b"/"))
            return CONTINUE

        self.enter(context, "new_connection")
        type(self).held = context
        return self.new_connection() or CONTINUE

    def do(self, what, which):
        self.host.proxy_set_effective_context(self.held)
        host = self.host
        call = host.proxy_continue_stream if what == b"continue" else host.proxy_close_stream
        call(int(which))
        self.host.proxy_set_effective_context(self.context)
        self.host.proxy_close_stream(DOWNSTREAM)

    def proxy_on_downstream_data(self, context, size, end):
        self.enter(context, f"downstream {size}{' end' * end}")
        return self.downstream_data(self.body(DOWNSTREAM), bool(end)) or CONTINUE

    def proxy_on_upstream_data(self, context, size, end):
        self.enter(context, f"upstream {size}{' end' * end}")
        return self.upstream_data(self.body(UPSTREAM), bool(end)) or CONTINUE

    def proxy_on_downstream_connection_close(self, context, peer):
        self.enter(context, f"downstream_close {peer}")

    def proxy_on_upstream_connection_close(self, context, peer):
        self.enter(context, f"upstream_close {peer}")

    def property(self, *path):
        name = b"\0".join(part.encode() for part in path)
        return self.fetch(self.host.proxy_get_property, *self.text(name)) or b""


class Holder(Network):
    """Holds data that begins with a plus sign, and what comes behind it, until it is let go."""

    def hold(self, data, end):
        return PAUSE if data.startswith(b"+") else CONTINUE

    downstream_data = upstream_data = hold


def text(data: str) -> dict[str, object]:
    return {"type": "websocket.receive", "text": data}


def binary(data: bytes) -> dict[str, object]:
    return {"type": "websocket.receive", "bytes": data}


class Client:
    """A websocket as its server and client have it, played by a test."""

    def __init__(self, path="/ws", *, connected=True, **scope) -> None:
        self.scope = websocket_scope(path, **scope)
        self.says, self._heard = anyio.create_memory_object_stream(100)
        self.sent: list[dict[str, object]] = []
        self.received = 0
        #: What happens to a message that is sent: it may wait, or fail.
        self.on_send = None

        if connected:
            self.say(CONNECT)

    def say(self, *messages: dict[str, object]) -> None:
        for message in messages:
            self.says.send_nowait(message)

    async def receive(self):
        self.received += 1
        return await self._heard.receive()

    async def send(self, message):
        if self.on_send is not None:
            await self.on_send(message)

        self.sent.append(message)

    async def run(self, app) -> Client:
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            self.says.close()
            self._heard.close()

        return self

    @property
    def got(self) -> list[object]:
        """What the client was sent: text, bytes, and the code of a close."""
        return [
            one["code"]
            if one["type"] == "websocket.close"
            else one.get("text", one.get("bytes", one["type"].removeprefix("websocket.")))
            for one in self.sent
        ]

    @contextlib.asynccontextmanager
    async def running(self, app):
        """Run it as long as the block; it has ended by itself at its end."""
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(self.run, app)
                await anyio.wait_all_tasks_blocked()
                yield self
                await anyio.wait_all_tasks_blocked()


async def do(app, what: str, which: int) -> None:
    """Let the plugin do something to the connection that it holds, from another one."""
    with anyio.fail_after(5):
        await Client(f"/do/{what}/{which}").run(app)

    await anyio.wait_all_tasks_blocked()


class Echo:
    """Answers each message by the same; ends with its client, or when it is told `bye`."""

    def __init__(self, *, close=None) -> None:
        self.received: list[object] = []
        self.close = close

    async def __call__(self, scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})

        while (message := await receive())["type"] == "websocket.receive":
            self.received.append(message.get("text", message.get("bytes")))

            if self.received[-1] == "bye":
                if self.close is not None:
                    await send({"type": "websocket.close", "code": self.close})

                return

            await send({**message, "type": "websocket.send"})

        self.received.append(message["code"])


def add(workshop: Workshop, guest: type[Network] = Network, **more: object) -> type[Network]:
    return workshop.add(guest, "net", type="network", **more)
