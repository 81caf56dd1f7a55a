"""A service whose response has trailers, and a plugin that adds one to them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from starlette.types import Receive, Scope, Send

from tests.wat import wat2wasm
from wasm_middleware import WasmPluginMiddleware

_WAT = """(module
  (import "env" "proxy_add_header_map_value"
    (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "x-plugin")
  (data (i32.const 32) "added")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_response_trailers") (param i32 i32) (result i32)
    (drop (call $add
      (i32.const 3) (i32.const 16) (i32.const 8) (i32.const 32) (i32.const 5)))
    (i32.const 0)))"""


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError

    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": b"body"})
    trailers = [(b"x-checksum", b"7")]
    await send({"type": "http.response.trailers", "headers": trailers})


_folder = tempfile.TemporaryDirectory()
_wasm = Path(_folder.name) / "trailing.wasm"
_wasm.write_bytes(wat2wasm(_WAT))
app = WasmPluginMiddleware(serve, config={"plugins": [{"name": "trailing", "path": str(_wasm)}]})
