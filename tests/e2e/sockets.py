"""An application with websockets. Its plugins are in the file that `WASM_TEST_CONFIG` names."""

from __future__ import annotations

import logging
import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from wasm_middleware import WasmPluginMiddleware

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

_LOG = logging.getLogger("service")


async def echo(websocket: WebSocket) -> None:
    """Answer each message by the same, until the client goes or says `bye`."""
    await websocket.accept()

    try:
        while True:
            message = await websocket.receive()

            if message["type"] == "websocket.disconnect":
                _LOG.info("disconnected: %d", message["code"])
                return

            if message.get("bytes") is not None:
                await websocket.send_bytes(message["bytes"])
                continue

            if message["text"] == "bye":
                await websocket.close(4000)
                return

            await websocket.send_text(message["text"])
    except WebSocketDisconnect as gone:
        _LOG.info("disconnected while sending: %d", gone.code)


app = Starlette(
    routes=[WebSocketRoute("/ws/{name}", echo)],
    middleware=[Middleware(WasmPluginMiddleware, config=os.environ["WASM_TEST_CONFIG"])],
)
