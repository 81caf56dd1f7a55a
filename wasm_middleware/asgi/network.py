"""One websocket with network plugins in the shell: it carries messages between server, plugins and
application.

Theory of operation
-------------------
The application gets a `receive` and a `send` of its own. `receive` pulls: one message of the server
for what the application needs, through the plugins; nothing is read ahead, but while a plugin
pauses, the message that would add to what it gathers may come and be kept (`_slot`). `send` pushes:
it returns when what the plugins let go of is with the server, so that the server's back-pressure
reaches the application; what a plugin pauses it does not wait for.

What a plugin lets go of later, when its time is up, and when it closes the connection, is carried
out by a task beside the application (`_watch`). What then goes to the client is sent by another one
(`_drain`), so that a slow client holds up nothing else. Both end with the application.

A connection that a plugin closes ends for the client at once, behind what was let go before. The
application's `receive` says that the client is gone, and its `send` raises `StreamClosed`, as it
may after any disconnect (ASGI 2.4): one that only sends would go on for ever.
"""

from __future__ import annotations

import logging

import anyio
from anyio.abc import TaskGroup

from wasm_middleware.abi.enums import PeerType
from wasm_middleware.asgi.denial import deny_bare
from wasm_middleware.asgi.turn import Turn
from wasm_middleware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from wasm_middleware.errors import StreamClosed
from wasm_middleware.proxy_wasm.connection import NORMAL_CLOSURE, Connection
from wasm_middleware.proxy_wasm.direction import Chunk, Direction

_LOG = logging.getLogger("wasm_middleware")

_NANOSECONDS = 1_000_000_000


class Socket:
    """One websocket; used once. `turn` is for calls into the core, which may not be concurrent."""

    __slots__ = (
        "_answer",
        "_close",
        "_connect",
        "_connection",
        "_disconnect",
        "_draining",
        "_ended",
        "_error",
        "_moved",
        "_over",
        "_raised",
        "_reading",
        "_receive",
        "_receiving",
        "_scope",
        "_send",
        "_sending",
        "_slot",
        "_stirred",
        "_tasks",
        "_told",
        "_turn",
    )

    _tasks: TaskGroup

    def __init__(
        self, connection: Connection, scope: Scope, receive: Receive, send: Send, turn: Turn
    ) -> None:
        self._connection = connection
        self._scope, self._receive, self._send = scope, receive, send
        self._turn = turn
        #: What goes to the server goes in order.
        self._sending = Turn()
        #: Set when there is something for `_watch` to do; set and replaced when it has done it.
        self._stirred = anyio.Event()
        self._moved = anyio.Event()
        self._draining = False
        #: What a task beside the application failed with, and whether the application knows it.
        self._error: Exception | None = None
        self._raised = False
        #: The message that was received while a plugin held on, and whether one is waited for.
        self._slot: Message | None = None
        self._reading = False
        #: The application's wait for the server.
        self._receiving: anyio.CancelScope | None = None
        #: What the application has not received yet: that it begins.
        self._connect: Message | None = None
        #: The client has gone; whether the application was told so, by whatever reason.
        self._disconnect: Message | None = None
        self._told = False
        #: The application's close, which waits for what plugins hold.
        self._close: Message | None = None
        #: It has closed, or returned.
        self._ended = False
        #: The type of what it has answered the handshake with.
        self._answer = ""
        #: A close, or a denial, was sent.
        self._over = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let the connection begin, call the application, and bring what it has sent to its end."""
        error: Exception | None = None
        self._connection.on_wake = self._stir

        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._watch)

            # Out of the task group an exception would come as a group.
            try:
                await self._serve(app, scope)
            except Exception as raised:
                error = raised

            self._tasks.cancel_scope.cancel()

        if error is None and not self._raised:
            error = self._error

        if error is None:
            return

        if self._connection.closing is None and not isinstance(error, StreamClosed):
            raise error

        # Mostly a disconnect: the application was told that its client is gone.
        _LOG.info("the application of a closed websocket ended: %r", error)
        _LOG.debug("how it ended", exc_info=error)

    async def _serve(self, app: ASGIApp, scope: Scope) -> None:
        try:
            if await self._open():
                await app(scope, self.receive, self.send)
                await self._finish_sending()
        except Exception:
            await self._wind_up()
            raise

        await self._wind_up()

    async def _wind_up(self) -> None:
        """Send the close that a plugin asked for, and tell the plugins who has gone by itself.

        One that is cancelled has no time for it: what it leaves unsaid, `Connection.finish` says.
        """
        connection = self._connection

        if self._is_close_due:
            await self._flush()

        if self._disconnect is not None:
            await self._closed(connection.downstream, PeerType.REMOTE)

        if not self._told and connection.closing is None:
            await self._closed(connection.upstream, PeerType.REMOTE)

    # The beginning

    async def _open(self) -> bool:
        """Show the new connection to the plugins; whether the application is to see it."""
        connection = self._connection
        message = await self._receive()

        if message["type"] != "websocket.connect":
            self._disconnect, self._told = message, True
            return False

        await self._turn.run(connection.open())
        self._stir()

        while not (connection.opened or self._ends):
            moved = self._moved
            self._read_ahead()
            await moved.wait()
            self._raise_error()

            # Before the accept there is nothing else to come.
            if self._slot is not None:
                self._disconnect = self._slot

        self._connect = message
        # Without an application there is nobody to be told of an end.
        self._told = self._ends
        return not self._ends

    @property
    def _ends(self) -> bool:
        """Whether nothing more is to be sent but what has been let go."""
        return self._over or self._disconnect is not None or self._connection.closing is not None

    # What the application receives

    async def receive(self) -> Message:
        """The application's `receive`."""
        while True:
            self._raise_error()
            message = self._next()

            if message is not None:
                return message

            await self._pull()

    def _next(self) -> Message | None:
        """What there is for the application now."""
        downstream, connect = self._connection.downstream, self._connect

        if connect is not None:
            self._connect = None
            return connect

        if downstream.output:
            return _message("websocket.receive", downstream.output.popleft())

        if self._over or self._connection.closing is not None:
            self._told = True
            return {"type": "websocket.disconnect", "code": self._code, "reason": ""}

        if downstream.output_ended:
            self._told = True
            return self._disconnect

        return None

    @property
    def _code(self) -> int:
        """The close code of this side."""
        if self._connection.closing is not None:
            return self._connection.closing.code

        return NORMAL_CLOSURE if self._close is None else self._close.get("code", NORMAL_CLOSURE)

    async def _pull(self) -> None:
        """Bring on whatever is next: a message of the server's, or what a plugin lets go of."""
        if self._slot is None:
            held = self._disconnect is not None or self._connection.downstream.paused

            if held or self._reading:
                moved = self._moved

                if self._disconnect is None:
                    self._read_ahead()

                await moved.wait()
                return

            try:
                with anyio.CancelScope() as self._receiving:
                    self._slot = await self._receive()
            finally:
                self._receiving = None

                if self._ended:
                    # Whoever waits for the end has to receive now.
                    self._move()

        # There is none if the wait was given up, since the connection is over.
        if self._slot is not None:
            await self._show_slot()

    async def _show_slot(self) -> None:
        """Show the plugins what the client has sent; anything but data is its end."""
        downstream = self._connection.downstream

        message, self._slot = self._slot, None

        # Somebody else has shown it meanwhile.
        if message is None:
            return

        # An application may give up on its `receive` at any time, but not on what was received.
        if message["type"] == "websocket.receive":
            await self._turn.run(downstream.feed(_chunk(message)))
        else:
            self._disconnect = message
            await self._turn.run(downstream.feed(ended=True))

        self._stir_if_needed()

    def _read_ahead(self) -> None:
        """Receive one message beside the application, which waits for something else as well."""
        if self._slot is None and not self._reading and self._receiving is None:
            self._reading = True
            self._tasks.start_soon(self._read)

    async def _read(self) -> None:
        try:
            self._slot = await self._receive()
        except Exception as error:
            self._error = error

        self._reading = False
        self._move()

    # What the application sends

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        self._raise_error()

        match message["type"]:
            case "websocket.send":
                await self._data(_chunk(message))
            case "websocket.close":
                if not (self._ends or self._ended):
                    self._close = message
                    await self._finish_sending()
            case _:
                await self._pass(message)

    async def _data(self, chunk: Chunk) -> None:
        if self._ended or self._told or (self._ends and self._disconnect is None):
            raise StreamClosed("the websocket is closed")

        # An application that is still to receive what its client has left behind may answer it.
        if self._disconnect is None:
            await self._feed_upstream(chunk)
            await self._flush()

    async def _pass(self, message: Message) -> None:
        """Accept the handshake, or deny it with a response."""
        async with self._sending:
            # What has begun as a response ends as one.
            if not self._ends or self._answer == "websocket.http.response.start":
                self._answer = self._answer or message["type"]
                await self._send(message)

    async def _finish_sending(self) -> None:
        """End the upstream direction, and wait until all of it has been let go, or nothing will.

        Meanwhile the client is listened to: it may leave. What else it says is shown to the
        plugins, who may wait for it, and kept for nobody.
        """
        upstream = self._connection.upstream

        if not (self._ends or self._ended):
            self._ended = True
            await self._feed_upstream(ended=True)

        while not (self._ends or upstream.output_ended):
            if self._slot is not None:
                await self._show_slot()
                self._connection.downstream.output.clear()
                continue

            moved = self._moved
            self._read_ahead()
            await moved.wait()
            self._raise_error()

        await self._flush()

    async def _flush(self) -> None:
        """Send what the plugins have let go of, in order; behind it the close, if one is due."""
        upstream = self._connection.upstream

        try:
            async with self._sending:
                while upstream.output and not (self._over or self._disconnect is not None):
                    await self._send(_message("websocket.send", upstream.output.popleft()))

                if not (self._over or self._disconnect is not None):
                    await self._send_close()
        except Exception:
            # A server that can't send has nobody to send to; the application hears of it.
            upstream.output.clear()
            raise
        finally:
            # An application may give up on its `send`, but not on what plugins have let go of.
            if upstream.output or self._is_close_due:
                self._drain()

    @property
    def _is_close_due(self) -> bool:
        if self._over or self._disconnect is not None:
            return False

        ended = self._close is not None and self._connection.upstream.output_ended
        return ended or self._connection.closing is not None

    async def _send_close(self) -> None:
        if not self._is_close_due:
            return

        self._over = True
        closing = self._connection.closing

        if self._close is not None and self._connection.upstream.output_ended:
            await self._send(self._close)
        elif self._answer == "websocket.accept":
            await self._send({"type": "websocket.close", "code": self._code, "reason": ""})
        elif not self._answer:
            failed = closing is not None and closing.failed
            await deny_bare(self._scope, self._send, 503 if failed else 403)

        await self._closed(self._connection.downstream, PeerType.LOCAL)
        self._move()

    # Beside the application

    async def _watch(self) -> None:
        """Carry out what plugins want at times of their own, and end pauses that take too long."""
        connection = self._connection

        try:
            while True:
                self._stirred = stirred = anyio.Event()

                await self._turn.run(connection.expire())

                if connection.upstream.output or self._is_close_due:
                    self._drain()

                self._move()
                deadline = connection.deadline

                if deadline is None:
                    await stirred.wait()
                    continue

                delay = (deadline - connection.clock.monotonic()) / _NANOSECONDS

                with anyio.move_on_after(max(delay, 0)):
                    await stirred.wait()
        except Exception as error:
            self._error = error
            self._move()

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._tasks.start_soon(self._flush_beside)

    async def _flush_beside(self) -> None:
        try:
            await self._flush()
        except Exception as error:
            self._error = error

        self._draining = False
        self._move()

    async def _feed_upstream(self, *chunks: Chunk, ended: bool = False) -> None:
        await self._turn.run(self._connection.upstream.feed(*chunks, ended=ended))
        self._stir_if_needed()

    def _stir_if_needed(self) -> None:
        if self._connection.deadline is not None or self._connection.closing is not None:
            self._stir()

    async def _closed(self, direction: Direction, peer: PeerType) -> None:
        await self._turn.run(self._connection.closed(direction, peer))

    def _stir(self) -> None:
        self._stirred.set()

    def _move(self) -> None:
        """Let whoever waits look again."""
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

        # The server may have nothing more to say to an application that waits for it.
        closed = self._over or self._connection.closing is not None

        if self._receiving is not None and (closed or self._error is not None):
            self._receiving.cancel()

    def _raise_error(self) -> None:
        if self._error is not None:
            self._raised = True
            raise self._error


def _chunk(message: Message) -> Chunk:
    text = message.get("text")
    return Chunk(bytes(message["bytes"])) if text is None else Chunk(text.encode(), text=True)


def _message(kind: str, chunk: Chunk) -> Message:
    if chunk.text:
        return {"type": kind, "text": chunk.data.decode()}

    return {"type": kind, "bytes": chunk.data}
