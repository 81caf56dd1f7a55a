"""A service that shows what a plugin and its application hand to each other."""

from __future__ import annotations

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.e2e.serving import ROOT
from wasm_middleware import WasmPluginMiddleware, deferred

_here = 0
_both = anyio.Event()


async def meet(arguments: bytes) -> bytes:
    """Answers when two requests are there."""
    global _here
    _here += 1

    if _here == 2:
        _both.set()

    await _both.wait()
    return arguments.upper()


async def show(request: Request) -> JSONResponse:
    found = request.state.wasm_properties
    return JSONResponse(
        {
            "result": request.headers["x-result"],
            "properties": {name: value.decode() for name, value in found.items()},
        }
    )


app = Starlette(routes=[Route("/", show)])
app.add_middleware(
    WasmPluginMiddleware,
    config={
        "plugins": [
            {"name": "calls", "path": str(ROOT / "tests/plugins/foreign-calls.wasm")},
        ]
    },
    foreign_functions={"upper": bytes.upper, "lower": bytes.lower, "meet": deferred(meet)},
)
