"""An application for tests: its plugins are those of the file that `WASM_TEST_CONFIG` names."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from wasm_middleware import WasmPluginMiddleware

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

#: What the stream waits for before its next event.
_go_on = asyncio.Event()


async def echo(request: Request) -> Response:
    """Say what arrived."""
    body = await request.body()
    return JSONResponse({"headers": dict(request.headers), "body": body.decode()})


async def stream(request: Request) -> Response:
    """Send events with the time of their sending; after each, wait for a request to `/next`."""

    async def events() -> AsyncIterator[str]:
        _go_on.clear()

        for number in range(int(request.query_params.get("events", "5"))):
            yield f"data: {number} {time.time()}\n\n"
            await _go_on.wait()
            _go_on.clear()

    return StreamingResponse(events(), media_type="text/event-stream")


async def next_event(request: Request) -> Response:
    _go_on.set()
    return Response(status_code=204)


async def endless(request: Request) -> Response:
    """Send until the client goes away."""

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1024
                await asyncio.sleep(0.01)
        finally:
            logging.getLogger("service").info("the endless response has ended")

    return StreamingResponse(pieces())


app = Starlette(
    routes=[
        Route("/stream", stream),
        Route("/next", next_event),
        Route("/endless", endless),
        Route("/{path:path}", echo, methods=["GET", "POST"]),
    ],
    middleware=[Middleware(WasmPluginMiddleware, config=os.environ["WASM_TEST_CONFIG"])],
)
