"""What the server has for one request: its messages, and the waiting while a plugin holds on.

Theory of operation. Nothing is received before it is needed, with one exception: while a plugin
holds the request, the next message is received to see the client go. It is kept, and is the first
that is handed out afterwards. Not where that would make the server ask for a body that a plugin may
still refuse (`Expect: 100-continue`), and never a second message of a body: what the server has
read ahead is its back-pressure.

While the response is held nobody looks: the application may be receiving at the same time. But if
its `receive` comes by here and brings the disconnect, the wait is over too.

Both directions may be held at once, each with somebody who waits; one event wakes them all.
"""

from __future__ import annotations

import anyio

from wasm_middleware.asgi.turn import Turn
from wasm_middleware.asgi.types import Message, Receive
from wasm_middleware.proxy_wasm.flow import Flow
from wasm_middleware.proxy_wasm.stream import Stream, StreamContext

_DISCONNECTS = ("http.disconnect", "websocket.disconnect")


class Inbox:
    """One request's messages from the server. `ended`: no more of its body is to come."""

    __slots__ = (
        "_error",
        "_pauses",
        "_receive",
        "_stream",
        "_turn",
        "_waiters",
        "_woken",
        "ended",
        "gone",
        "message",
    )

    def __init__(self, receive: Receive, stream: Stream, turn: Turn) -> None:
        self._receive, self._stream, self._turn = receive, stream, turn
        self._woken: anyio.Event | None = None
        self._waiters = 0
        self._error: Exception | None = None
        #: Whose pause is waited out, and until when; what comes in begins it anew.
        self._pauses: dict[Flow, tuple[StreamContext, float]] = {}
        #: What was received while a plugin held on.
        self.message: Message | None = None
        self.ended = False
        #: The client is.
        self.gone = False

    async def receive(self) -> Message:
        """The message that was kept, or the server's next."""
        message, self.message = self.message, None
        self._pauses.pop(self._stream.request, None)

        if message is None:
            message = await self._receive()
            self._look(message)

        return message

    def _look(self, message: Message) -> None:
        if message["type"] in _DISCONNECTS:
            self.gone = True
            self.wake()

    async def wait(self, flow: Flow, *, watch: bool = False, wants_body: bool = False) -> None:
        """Wait until what holds a flow lets go, its time is up or the client is gone.

        With `watch` the server is asked meanwhile, as far as that is harmless; with `wants_body`
        in any case, and the wait ends when there is a message.
        """
        context = flow.paused_by

        if context is None:
            return

        watch = wants_body or (watch and self._may_peek())

        while not self.gone and not (wants_body and self.message is not None):
            with anyio.CancelScope(deadline=self._deadline(flow, context)) as scope:
                await self._next_wake(watch=watch, wants_body=wants_body)

            # Out of the deadline's scope, which is for waiting and not for running a guest.
            expired = scope.cancelled_caught

            if not await self._turn.run(self._proceed(flow, context, expired=expired)):
                return

    async def _proceed(self, flow: Flow, context: StreamContext, *, expired: bool) -> bool:
        """Do what the wait was for; whether the context still holds the flow."""
        if not self._holds(flow, context):
            return False

        if expired:
            await self._stream.expire(flow, context)
        else:
            await self._stream.proceed()

        if self._holds(flow, context):
            return True

        self._pauses.pop(flow, None)
        return False

    def _deadline(self, flow: Flow, context: StreamContext) -> float:
        # An application may give up a wait and begin another: the plugin's time goes on.
        pause = self._pauses.get(flow)

        if pause is None or pause[0] is not context:
            deadline = anyio.current_time() + context.plugin.pause_timeout
            self._pauses[flow] = pause = (context, deadline)

        return pause[1]

    def renew(self, flow: Flow) -> None:
        """More has come in: a plugin that gathers has its `pause_timeout` from now on."""
        if self._pauses.pop(flow, None) is not None:
            self.wake()

    def _holds(self, flow: Flow, context: StreamContext) -> bool:
        """Whether that is still so, and still matters."""
        stream = self._stream

        # A reply has its own flow, and what this one held is dropped.
        if stream.interrupted or stream.finished or (flow.response and flow is not stream.response):
            return False

        return flow.paused_by is context

    async def _next_wake(self, *, watch: bool, wants_body: bool) -> None:
        """Wait for whatever may end a wait."""
        # One event for all who wait: a request and its response may be held at once.
        if self._woken is None or self._woken.is_set():
            self._woken = anyio.Event()

        woken = self._woken

        if self._stream.has_noted_resume:
            return

        self._waiters += 1

        try:
            if not watch:
                await woken.wait()
                return

            async with anyio.create_task_group() as group:
                # Not the group's own: a task that ends as cancelled leaves garbage behind.
                peeking = anyio.CancelScope()
                group.start_soon(self._peek, peeking, wants_body)
                await woken.wait()
                peeking.cancel()
        finally:
            self._waiters -= 1

        if self._error is not None:
            raise self._error

    def _may_peek(self) -> bool:
        request = self._stream.request
        expects = request.headers.get(b"expect") if request.headers is not None else None
        return request.passed or expects is None or expects.lower() != b"100-continue"

    async def _peek(self, scope: anyio.CancelScope, wants_body: bool) -> None:
        try:
            with scope:
                await self._keep_next(wants_body)
        except Exception as error:
            # As it is, and not in the group that a task group would make of it.
            self._error = error
            self.wake()

    async def _keep_next(self, wants_body: bool) -> None:
        """Receive and keep one message, and then none but the disconnect."""
        while self.message is None or _is_last(self.message):
            message = await self._receive()
            had_last = self.message is not None

            if self.message is None or message["type"] in _DISCONNECTS:
                self.message = message

            self._look(message)

            if self.gone or wants_body:
                self.wake()
                return

            # A `receive` that never waits, in somebody's test, must not keep the loop busy.
            if had_last:
                return

    def wake(self) -> bool:
        """Wake whoever waits; whether there is anybody."""
        if self._woken is not None:
            self._woken.set()

        return self._waiters > 0


def _is_last(message: Message) -> bool:
    """Whether the client can only go, or wait for the answer, after that message."""
    if message["type"] == "http.request":
        return not message.get("more_body", False)

    return bool(message["type"] == "websocket.connect")
