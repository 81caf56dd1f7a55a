"""The application. It knows nothing of the plugins: they come from `plugins.yaml`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from wasm_middleware import WasmPluginMiddleware

# Plugins log to `wasm_middleware.plugin.<name>`; without a handler nobody would see it.
logging.basicConfig(level=logging.INFO, format="%(levelname)-8s %(name)s: %(message)s")

CONFIG = Path(__file__).parent.parent / "plugins.yaml"
PAGE = "<!doctype html><title>A page</title><p>The secret is that there is no secret.</p>\n"

app = FastAPI(title="wasm-middleware example")
app.add_middleware(WasmPluginMiddleware, config=CONFIG)


@app.get("/public/hello")
async def hello(request: Request) -> dict[str, str | None]:
    """Say what the plugin did to the request."""
    return {"message": "hello", "x-processed-by": request.headers.get("x-processed-by")}


@app.get("/private/me")
async def me(request: Request) -> dict[str, str | None]:
    """Say who the plugin says it is."""
    return {"user": request.headers.get("x-user-id")}


@app.post("/echo")
async def echo(request: Request) -> object:
    """Return the JSON that was sent; the plugin lets nothing else through."""
    return await request.json()


@app.get("/limited")
async def limited() -> dict[str, str]:
    """Answer as often as the plugin allows."""
    return {"message": "you are within the limit"}


@app.get("/page", response_class=HTMLResponse)
async def page() -> str:
    """Return a page whose secrets the plugin replaces."""
    return PAGE


@app.get("/stream")
async def stream(events: int = 5, interval: float = 0.2) -> StreamingResponse:
    """Send server-sent events, which no plugin delays."""

    async def body() -> AsyncIterator[str]:
        for number in range(min(events, 1_000)):
            yield f"data: {number}\n\n"
            await asyncio.sleep(interval)

    return StreamingResponse(body(), media_type="text/event-stream")
