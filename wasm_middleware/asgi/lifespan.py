"""The lifespan protocol: load before the application starts, say so when that fails.

An exception in a middleware's constructor makes uvicorn start all the same and answer 500 to
everything. So nothing is loaded there: it is loaded between the server's `lifespan.startup` and the
application's, and a failure is answered with `lifespan.startup.failed` and every mistake at once.

A server that hears that the application has ended ends its event loop, and cancels what still runs
there. So plugins are unloaded before: the application's last message waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from wasm_middleware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from wasm_middleware.errors import WasmMiddlewareError

_LOG = logging.getLogger("wasm_middleware")

_NOT_STARTED: Final = "lifespan.startup.failed"
_NOT_STOPPED: Final = "lifespan.shutdown.failed"
#: After these nothing is to come any more.
_LAST: Final = (_NOT_STARTED, "lifespan.shutdown.complete", _NOT_STOPPED)


async def run_lifespan(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> None:
    """Pass the protocol through; `start` before the application, `stop` after it.

    What `start` or `stop` raises is told to the server, and raised.
    """
    startup = await receive()

    try:
        await start()
    except WasmMiddlewareError as error:
        await send({"type": _NOT_STARTED, "message": f"wasm_middleware: {error}"})
        # As Starlette does: a test client waits for it, and shows it to the test.
        raise error.with_traceback(None) from None
    except Exception as error:
        # Without the message it would look like an application that has no lifespan, and is served.
        await send({"type": _NOT_STARTED, "message": f"wasm_middleware: {error!r}"})
        raise

    lifespan = _Lifespan(startup, receive, send, stop)

    try:
        await app(scope, lifespan.receive, lifespan.send)
    finally:
        await lifespan.end()

    if lifespan.error is not None:
        raise lifespan.error


class _Lifespan:
    """The application's side of the protocol."""

    def __init__(
        self, startup: Message, receive: Receive, send: Send, stop: Callable[[], Awaitable[None]]
    ) -> None:
        self._startup: Message | None = startup
        self._receive, self._send, self._stop = receive, send, stop
        #: The server wants an end; there was one; the server was told.
        self._stopping = self._stopped = self._told = False
        #: What `stop` has raised.
        self.error: Exception | None = None

    async def receive(self) -> Message:
        """The application's `receive`."""
        if self._startup is not None:
            message, self._startup = self._startup, None
            return message

        message = await self._receive()
        self._stopping = self._stopping or message["type"] == "lifespan.shutdown"
        return message

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        if message["type"] in _LAST:
            await self._unload()
            self._told = True

            if self.error is not None:
                message = _failed(message, self.error)

        await self._send(message)

    async def end(self) -> None:
        """The application has returned or failed, with or without a last message."""
        # One without lifespan ends at once, by an error: it is served all the same.
        if not self._stopping:
            return

        await self._unload()

        if self.error is not None and not self._told:
            await self._send(_failed({"type": _NOT_STOPPED}, self.error))

    async def _unload(self) -> None:
        if self._stopped:
            return

        self._stopped = True

        # Whoever cancels it may have had enough of the application, but plugins have their own end.
        with anyio.CancelScope(shield=True):
            try:
                await self._stop()
            except Exception as error:
                ours = isinstance(error, WasmMiddlewareError)
                _LOG.error("plugins did not end well: %s", error, exc_info=None if ours else error)
                self.error = error


def _failed(message: Message, error: Exception) -> Message:
    """The application's last message, if it has made one, with what else has failed."""
    kind = _NOT_STARTED if message["type"] == _NOT_STARTED else _NOT_STOPPED
    lines = [message.get("message", ""), f"wasm_middleware: {error}"]
    return {"type": kind, "message": "\n".join(filter(None, lines))}
