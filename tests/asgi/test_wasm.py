"""The same with WebAssembly: small modules in WAT, and the plugins of the example."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import WASMER
from tests.wat import wat2wasm
from wasm_middleware import StreamAborted

from .harness import Server, Spy, chunks, http_scope, post_scope, read_body, respond

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parents[2] / "example_app" / "plugins"

#: A plugin that answers Continue to everything but what `%s` says.
WAT = """
(module
  (import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes"
    (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-plugin")
  (data (i32.const 16) "yes")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  %s
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_delete") (param i32)))
"""

ADD_HEADER = """
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $replace
      (i32.const 2) (i32.const 0) (i32.const 8) (i32.const 16) (i32.const 3)))
    (i32.const 0))
"""
REPLACE_BODY = """
  (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
    (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
    (drop (call $set_buffer
      (i32.const 1) (i32.const 0) (i32.const 9999) (i32.const 16) (i32.const 3)))
    (i32.const 0))
"""
SPIN = """
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (loop $again (br $again)) (i32.const 0))
"""
TRAP_IN_BODY = """
  (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) unreachable)
"""


@pytest.fixture(params=["wasmtime", *WASMER])
def engine(request):
    """What the configuration calls it."""
    return request.param


@pytest.fixture
def plugin(workshop, engine):
    """Put a middleware with one module around an application."""

    def plugin(code, app, **settings):
        file = workshop.folder / "plugin.wasm"
        file.write_bytes(wat2wasm(WAT % code))
        entry = {"name": "plugin", "path": str(file), **settings}
        return workshop.wrap(app, config={"engine": engine, "plugins": [entry]}, engine=None)

    return plugin


async def test_a_header(plugin):
    app = plugin(ADD_HEADER, respond(b"hi", length=True))
    server = await Server(http_scope()).run(app)
    assert server.start["headers"] == [(b"content-length", b"2"), (b"x-plugin", b"yes")]


async def test_a_body(plugin):
    server = await Server(http_scope()).run(plugin(REPLACE_BODY, respond(b"a", b"b", length=True)))
    assert server.body == b"yes"
    assert server.headers(b"content-length") == [b"3"]


async def test_a_plugin_that_spins_is_stopped(plugin, caplog):
    spy = Spy()
    app = plugin(SPIN, spy, timeout="20ms")

    for _ in range(2):
        server = await Server(http_scope()).run(app)
        assert server.status == 503

    assert spy.scopes == []
    assert "a failed instance was replaced" in caplog.text
    app = plugin(SPIN, spy, timeout="20ms", failure_policy="fail_open")
    assert (await Server(http_scope()).run(app)).body == b"hello"


async def test_a_trap_after_the_start_cuts_the_response(plugin):
    server = Server(http_scope())

    with pytest.raises(StreamAborted):
        await server.run(plugin(TRAP_IN_BODY, respond(b"a", b"b")))

    assert server.bodies == []
    server = await Server(http_scope()).run(plugin(TRAP_IN_BODY, respond(b"a", length=True)))
    assert server.status == 503


def example(name, **settings):
    return {"name": name, "path": str(EXAMPLE / f"{name}.wasm"), **settings}


async def test_the_plugins_of_the_example(workshop, engine):
    """In four languages, in one chain."""
    plugins = [
        example("access-log", priority=1000, phase="on_log"),
        example("security-headers", priority=900),
        example("json-validator", timeout="1s"),
        example("redact", config="secret"),
    ]

    async def app(scope, receive, send):
        body = await read_body(receive)
        kind = [(b"content-type", b"text/plain")]
        await respond(body, headers=kind, length=True)(scope, receive, send)

    app = workshop.wrap(app, config={"engine": engine, "plugins": plugins}, engine=None)
    body = b'{"a": "no secret"}'
    headers = [(b"content-type", b"application/json")]

    for pieces in ([body], [body[:5], body[5:]]):
        scope = post_scope(length=len(body), headers=headers)
        server = await Server(scope, chunks(*pieces)).run(app)
        assert server.status == 200
        assert b"secret" not in server.body
        assert server.headers(b"x-content-type-options") == [b"nosniff"]

    server = await Server(post_scope(headers=headers), chunks(b"{nonsense")).run(app)
    assert server.status == 400


def test_a_test_client_without_a_lifespan_has_a_thread_for_each_request(plugin):
    """Instances that are kept to the thread that started them are replaced."""
    from starlette.testclient import TestClient

    client = TestClient(plugin(ADD_HEADER, respond(b"hi", length=True)))

    for _ in range(4):
        assert client.get("/").headers["x-plugin"] == "yes"
