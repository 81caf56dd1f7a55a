"""Modules of older SDKs and other toolchains, from their first export to a request.

The texts in `tests/plugins/wat` have the imports and exports of real modules, or more, and say of
which. Most of what they check they check themselves: a guest that is answered wrongly traps.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from services.upstreams import answering

from tests.wat import wat2wasm

from .harness import Server, Spy, http_scope

pytestmark = pytest.mark.anyio

WAT = Path(__file__).parents[1] / "plugins" / "wat"


@pytest.fixture
def plugin(workshop):
    """Put a middleware with one of the modules around an application."""

    def plugin(name, app, *replaced, upstreams=None, routes=None, **settings):
        text = (WAT / f"{name}.wat").read_text(encoding="utf-8")

        if replaced:
            assert replaced[0] in text
            text = text.replace(*replaced)

        file = workshop.folder / "plugin.wasm"
        file.write_bytes(wat2wasm(text))
        config = {"plugins": [{"name": "plugin", "path": str(file), **settings}]}
        config |= {"upstreams": upstreams} if upstreams else {}
        config |= {"routes": routes} if routes else {}
        return workshop.wrap(app, config=config, engine=None)

    return plugin


def logged(caplog):
    """What the plugin has said, with the level it said it at."""
    records = [record for record in caplog.records if record.name.endswith("plugin.plugin")]
    return [(record.levelname, record.getMessage()) for record in records]


async def ask(app, path="/", **scope):
    with anyio.fail_after(20):
        return await Server(http_scope(path, **scope)).run(app)


# TinyGo


async def answered(plugin, spy, body):
    """A request past `http_auth_random`, whose upstream answers with that body."""
    lines = (b"HTTP/1.1 200 OK", b"connection: close", b"content-length: %d" % len(body))

    with answering(*lines, body=body, then="close") as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        app = plugin("tinygo-0.1.0-callout", spy, upstreams={"httpbin": url})
        server = await ask(app, "/asked", headers=[(b"x-token", b"t")])

    [request] = upstream.requests
    assert request.startswith(b"GET /asked HTTP/1.1\r\n")
    assert b"\r\nx-token: t\r\n" in request
    return server


async def test_a_request_goes_on_when_the_answer_to_a_call_says_so(plugin, caplog):
    # Its FNV-1a hash is even, that of "b" is odd.
    spy = Spy()
    server = await answered(plugin, spy, b"a")
    assert (server.status, server.body) == (200, b"hello")
    assert len(spy.scopes) == 1
    assert logged(caplog) == [("INFO", "access granted"), ("INFO", "finished")]


async def test_a_request_is_answered_when_the_answer_to_a_call_says_so(plugin, caplog):
    spy = Spy()
    server = await answered(plugin, spy, b"b")
    assert (server.status, server.body) == (403, b"access forbidden")
    assert server.headers(b"powered-by") == [b"proxy-wasm-go!!"]
    assert spy.scopes == []
    assert ("INFO", "access forbidden") in logged(caplog)


async def test_a_configuration_is_read_and_a_missing_header_is_empty(plugin, caplog):
    spy = Spy()
    app = plugin("tinygo-0.1.0-configured", spy, config="plugin's", vm_config="machine's")
    server = await ask(app, headers=[(b"x-vm", b"client's")])
    assert server.status == 200
    assert spy.header(b"x-vm") == [b"machine's"]
    assert server.headers(b"x-config") == [b"plugin's"]


async def test_what_main_prints_piece_by_piece_is_one_line(plugin, caplog):
    await ask(plugin("tinygo-0.1.0-configured", Spy()))
    assert logged(caplog) == [("INFO", "hello from main")]


async def test_an_empty_configuration_is_no_reason_to_allocate(plugin):
    """Go takes the address of the first byte."""
    server = await ask(plugin("tinygo-0.2.0", Spy(), environment={"REGION": "eu"}))
    assert server.headers(b"x-config") == [b""]


async def test_a_main_that_links_os_and_ends_with_exit_has_started(plugin, caplog):
    app = plugin("tinygo-0.2.0", Spy(), config="c", environment={"REGION": "eu"})
    server = await ask(app)
    assert server.headers(b"x-config") == [b"c"]
    assert server.headers(b"x-region") == [b"REGION=eu"]
    assert logged(caplog) == [("ERROR", "panic: no such file")]


async def test_a_main_that_ends_with_an_error_has_not(plugin, workshop, caplog):
    workshop.may_refuse = True
    code = ("(global $code (mut i32) (i32.const 0))", "(global $code (mut i32) (i32.const 3))")
    server = await ask(plugin("tinygo-0.2.0", Spy(), *code))
    assert server.status == 503
    assert "plugin 'plugin'" in caplog.text
    assert "exit code 3" in caplog.text


# C++


async def test_a_stream_goes_on_before_it_has_stopped(plugin, caplog):
    """0.1.0's calls to continue have no result; a change of the path finds its route by itself."""
    spy = Spy()
    routes = [
        {"id": "first", "path": "/first", "plugins": ["plugin"]},
        {"id": "second", "path": "/rewritten", "plugins": ["plugin"]},
    ]
    app = plugin("emscripten-0.1.0", spy, config="c", root_id="mine", routes=routes)
    server = await ask(app, "/first")
    assert spy.seen["path"] == "/rewritten"
    assert server.status == 200
    assert server.headers(b"x-config") == [b"c"]
    assert server.headers(b"x-root-id") == [b"mine"]
    assert logged(caplog) == [("INFO", "constructed")]


async def test_its_memory_takes_the_whole_default_limit_and_no_less(plugin, workshop, caplog):
    workshop.may_refuse = True
    server = await ask(plugin("emscripten-0.1.0", Spy(), memory_limit="15MB"))
    assert server.status == 503
    assert " bytes of memory, and may have 15,728,640 bytes (memory_limit)" in caplog.text


async def test_what_toolchains_import_beside_the_abi_is_there(plugin, workshop):
    app = plugin("emscripten-0.2.1", Spy(), phase="on_response_headers")
    assert (await ask(app)).headers(b"x-plugin") == [b"yes"]


async def test_abort_without_a_message_is_a_trap_and_says_so(plugin, caplog):
    server = await ask(plugin("emscripten-0.2.1", Spy()))
    assert server.status == 503
    assert ("ERROR", "it aborted") in logged(caplog)


# AssemblyScript


async def test_abort_says_why_and_where(plugin, caplog):
    spy = Spy()
    app = plugin("assemblyscript", spy)
    assert (await ask(app)).headers(b"x-plugin") == [b"yes"]
    server = await ask(app, headers=[(b"x-index", b"9")])
    assert server.status == 503
    assert len(spy.scopes) == 1
    assert logged(caplog)[0] == ("ERROR", "it aborted: Index out of range (index.ts:7:12)")


# Higress


async def test_a_marker_and_calls_of_one_host_alone(plugin, caplog):
    routes = [{"id": "all", "path": "/*", "plugins": ["plugin"]}]
    server = await ask(plugin("higress", Spy(), routes=routes))
    assert server.headers(b"x-route") == [b"all"]
    [(level, message)] = logged(caplog)
    assert level == "WARNING"
    assert message.startswith("env.proxy_redis_init -> UNIMPLEMENTED")
