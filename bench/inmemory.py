"""ASGI conversations without a server: lifespan, and one request at a time or several at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wasm_middleware.abi.pairs import Pair


@contextlib.asynccontextmanager
async def started(app: ASGIApp) -> AsyncIterator[None]:
    """The application between its start-up and its shutdown."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(_call(app, scope, to_app.get, from_app.put))

    try:
        await _say(to_app, from_app, "startup")
        yield
        await _say(to_app, from_app, "shutdown")
    except BaseException:
        task.cancel()
        raise

    await task


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _say(to_app: asyncio.Queue[Message], from_app: asyncio.Queue[Message], what: str) -> None:
    await to_app.put({"type": f"lifespan.{what}"})
    answer = await from_app.get()

    if answer["type"] != f"lifespan.{what}.complete":
        raise RuntimeError(f"{answer['type']}: {answer.get('message')}")


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """The application's side."""
    for what in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{what}.complete"})


def http_scope(path: str = "/", headers: Sequence[Pair] = (), method: str = "GET") -> Scope:
    """A request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"accept", b"*/*"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
