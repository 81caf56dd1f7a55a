"""The lifespan protocol: load before the application starts, say so when that fails.

An exception in a middleware's constructor makes uvicorn start all the same and answer 500 to
everything. So nothing is loaded there: it is loaded between the server's `lifespan.startup` and the
application's, and a failure is answered with `lifespan.startup.failed` and every mistake at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from wasm_middleware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from wasm_middleware.errors import WasmMiddlewareError


async def run_lifespan(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> None:
    """Pass the protocol through; `start` before the application, `stop` after it."""
    startup: Message | None = await receive()
    stopping = False

    try:
        await start()
    except WasmMiddlewareError as error:
        await send({"type": "lifespan.startup.failed", "message": f"wasm_middleware: {error}"})
        # As Starlette does: a test client waits for it, and shows it to the test.
        raise error.with_traceback(None) from None
    except Exception as error:
        # Without the message it would look like an application that has no lifespan, and is served.
        await send({"type": "lifespan.startup.failed", "message": f"wasm_middleware: {error!r}"})
        raise

    async def receive_through() -> Message:
        nonlocal startup, stopping

        if startup is not None:
            message, startup = startup, None
            return message

        message = await receive()
        stopping = stopping or message["type"] == "lifespan.shutdown"
        return message

    failed = False

    async def send_through(message: Message) -> None:
        nonlocal failed
        failed = failed or message["type"] == "lifespan.startup.failed"
        await send(message)

    try:
        await app(scope, receive_through, send_through)
    finally:
        # An application without lifespan ends here at once, by an error: it is served all the same.
        if stopping or failed:
            with anyio.CancelScope(shield=True):
                await stop()
