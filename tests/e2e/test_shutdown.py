"""What plugins have left to do when the server ends: it is done before the process is gone."""

from __future__ import annotations

import http.server
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import Start
from tests.e2e.serving import HOST, uvicorn
from tests.wat import wat2wasm
from wasm_middleware.abi.pairs import encode

APP = "tests.e2e.service:app"
LOOPS = {
    "asyncio": uvicorn("--http", "h11", "--loop", "asyncio"),
    "uvloop": uvicorn("--http", "httptools", "--loop", "uvloop"),
}

_HEADERS: Final = encode(
    [(b":method", b"GET"), (b":path", b"/flush"), (b":authority", b"collector")]
)
#: Its root context is not done when it is asked to be: it waits for a tick, or for an answer.
_WAT: Final = """(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_done" (func $done (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
  (import "env" "proxy_http_call"
    (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "all is flushed")
  (data (i32.const 48) "collector")
  (data (i32.const 64) "the last word")
  (data (i32.const 96) "HEADERS")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func $finish
    (drop (call $log (i32.const 2) (i32.const 16) (i32.const 14)))
    (drop (call $done)))
  (func (export "proxy_on_tick") (param i32) (call $finish))
  (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32) (call $finish))
  (func (export "proxy_on_done") (param i32) (result i32)
    (if (BEGIN) (then unreachable))
    (i32.const 0))
  (func (export "proxy_on_delete") (param i32)
    (drop (call $log (i32.const 2) (i32.const 64) (i32.const 13)))))"""
_WAYS: Final = {
    "tick": "call $tick (i32.const 200)",
    "call": f"""call $call (i32.const 48) (i32.const 9) (i32.const 96) (i32.const {len(_HEADERS)})
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3000) (i32.const 8)""",
}
_CONFIG: Final = """\
plugins: [{{name: batcher, path: batcher.wasm}}]
upstreams: {{collector: 'http://{host}:{port}'}}
"""


class Collector(http.server.BaseHTTPRequestHandler):
    """An upstream that takes the last of a plugin's data."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """It is silent."""


@pytest.fixture(scope="module")
def collector() -> Iterator[int]:
    """The upstream's port."""
    with http.server.ThreadingHTTPServer((HOST, 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def batcher(way: str) -> bytes:
    headers = "".join(f"\\{byte:02x}" for byte in _HEADERS)
    text = _WAT.replace("BEGIN", _WAYS[way]).replace("HEADERS", headers)
    return wat2wasm(text)


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_plugin_that_is_not_done_yet_is_waited_for(
    start: Start, tmp_path: Path, collector: int, loop: str, way: str
) -> None:
    if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not tested: pip install uvloop httptools")

    (tmp_path / "batcher.wasm").write_bytes(batcher(way))
    config = tmp_path / "plugins.yaml"
    config.write_text(_CONFIG.format(host=HOST, port=collector), encoding="utf-8")
    server = start(LOOPS[loop], APP, {"WASM_TEST_CONFIG": str(config)})
    assert server.stop() in (0, -15)

    log = server.log()
    positions = [
        log.find(text)
        for text in (
            "Waiting for application shutdown",
            "all is flushed",
            "the last word",
            "Application shutdown complete",
        )
    ]
    assert -1 not in positions, log
    assert positions == sorted(positions), log
    assert "Traceback" not in log
