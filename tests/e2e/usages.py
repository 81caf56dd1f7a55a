"""Applications as the README has them, one for each way of using the middleware."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import cast

from fastapi import APIRouter, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.e2e.serving import ROOT
from wasm_middleware import WasmPluginMiddleware, wasm_exempt, wasm_plugins
from wasm_middleware.asgi.types import ASGIApp, Receive, Scope, Send

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

PLUGINS = ROOT / "example_app" / "plugins"
CONFIG = {
    "plugins": [
        {"name": "add-header", "path": str(PLUGINS / "add-header.wasm")},
        {"name": "security-headers", "path": str(PLUGINS / "security-headers.wasm")},
    ],
    "routes": [{"path": "/covered/*", "plugins": ["add-header"]}],
}


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """An application without lifespan, as the specification allows it."""
    if scope["type"] != "http":
        raise RuntimeError(f"no {scope['type']} here")

    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    body = json.dumps({"x-processed-by": headers.get("x-processed-by")}).encode()
    head = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


raw = WasmPluginMiddleware(plain, config=CONFIG)


async def show(request: StarletteRequest) -> Response:
    return JSONResponse({"x-processed-by": request.headers.get("x-processed-by")})


OURS = Middleware(WasmPluginMiddleware, config=CONFIG, plugins=["add-header"])
route = Starlette(routes=[Route("/one", show, middleware=[OURS]), Route("/other", show)])

decorated = FastAPI()
decorated.add_middleware(WasmPluginMiddleware, config=CONFIG)
router = APIRouter(prefix="/api")


@router.get("/marked")
@wasm_plugins("add-header", "security-headers")
async def marked(request: Request) -> dict[str, str | None]:
    return {"x-processed-by": request.headers.get("x-processed-by")}


@router.get("/covered")
async def unmarked(request: Request) -> dict[str, str | None]:
    return {"x-processed-by": request.headers.get("x-processed-by")}


decorated.include_router(router)


@decorated.get("/covered/exempt")
@wasm_exempt
async def exempt(request: Request) -> dict[str, str | None]:
    return {"x-processed-by": request.headers.get("x-processed-by")}


@decorated.get("/covered/all")
async def covered(request: Request) -> dict[str, str | None]:
    return {"x-processed-by": request.headers.get("x-processed-by")}


with suppress(ImportError):
    import quart

    _quart = quart.Quart(__name__)

    @_quart.get("/covered/it")
    async def quart_show() -> dict[str, str | None]:
        return {"x-processed-by": quart.request.headers.get("x-processed-by")}

    of_quart = WasmPluginMiddleware(cast(ASGIApp, _quart), config=CONFIG)

with suppress(ImportError):
    import litestar

    @litestar.get("/covered/it", sync_to_thread=False)
    def litestar_show(request: litestar.Request) -> dict[str, str | None]:  # type: ignore[type-arg]
        return {"x-processed-by": request.headers.get("x-processed-by")}

    _litestar = litestar.Litestar([litestar_show])
    of_litestar = WasmPluginMiddleware(cast(ASGIApp, _litestar), config=CONFIG)
