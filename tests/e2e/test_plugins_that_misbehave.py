"""Plugins that spin, hoard, panic or reply where they shouldn't, on a real server."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.modules import write_config
from tests.e2e.serving import Server, uvicorn
from tests.e2e.wire import Answer, Wire

LOOPS = {
    "asyncio": uvicorn("--http", "h11", "--loop", "asyncio"),
    "uvloop": uvicorn("--http", "httptools", "--loop", "uvloop"),
}


@pytest.fixture(scope="module", params=LOOPS)
def server(
    request: pytest.FixtureRequest, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """The test service on both event loops."""
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not tested: pip install uvloop httptools")

    config: Path = write_config(tmp_path_factory.mktemp("service"), go=True)
    environment = {"WASM_TEST_CONFIG": str(config)}
    return start(LOOPS[request.param], "tests.e2e.service:app", environment)


def timed(wire: Wire, path: str, *headers: str) -> tuple[Answer, float]:
    started = time.monotonic()
    answer = wire.get(path, *headers)
    return answer, time.monotonic() - started


@pytest.mark.parametrize(("path", "header"), [("/spin", "x-go: 1"), ("/every", "x-act: spin")])
def test_a_plugin_that_spins_is_cut_off_and_the_next_request_works(
    wire: Wire, server: Server, path: str, header: str
) -> None:
    answer, seconds = timed(wire, path, header)
    assert (answer.status, answer.body) == (503, b"")
    assert 0.04 < seconds < 1.0
    assert wire.get(path).status == 200
    assert server.logged("it ran for longer than its timeout of 50 ms")


@pytest.mark.parametrize(("path", "header"), [("/hoard", "x-go: 1"), ("/every", "x-act: grow")])
def test_a_plugin_that_wants_too_much_memory_is_ended_and_the_next_request_works(
    wire: Wire, server: Server, path: str, header: str
) -> None:
    answer, _ = timed(wire, path, header)
    assert (answer.status, answer.body) == (503, b"")
    assert wire.get(path).status == 200
    assert server.logged("bytes of memory in use, and may have")


def test_a_plugin_that_panics_costs_one_request(wire: Wire, server: Server) -> None:
    answer = wire.get("/every", "x-act: panic")
    assert (answer.status, answer.body) == (503, b"")
    assert wire.get("/every").status == 200
    assert server.logged("asked to")


def test_many_failures_in_turn_leave_the_service_healthy(wire: Wire) -> None:
    for _ in range(10):
        assert wire.get("/every", "x-act: panic").status == 503
        assert wire.get("/every").status == 200


def test_an_import_that_no_abi_has_links_and_its_call_is_logged_by_name(
    wire: Wire, server: Server
) -> None:
    assert wire.get("/future").status == 200
    assert wire.get("/future", "x-go: 1").status == 200
    assert (
        server.logged("env.proxy_from_the_future -> UNIMPLEMENTED: this host does not have it") == 1
    )


def test_a_reply_from_the_request_headers_replaces_the_response(wire: Wire) -> None:
    answer = wire.get("/every", "x-act: local-reply")
    assert (answer.status, answer.body) == (403, b"denied")
    assert answer.headers["x-denied-by"] == "every-callback"
    assert wire.get("/every").status == 200


def test_a_reply_from_the_request_body_replaces_the_response(wire: Wire) -> None:
    wire.request("POST", "/every", "x-act: body-reply", body=b"x" * 100)
    answer = wire.answer()
    assert (answer.status, answer.body) == (403, b"denied")
    assert wire.get("/every").status == 200


def test_a_reply_from_the_response_headers_replaces_the_response(wire: Wire) -> None:
    answer = wire.get("/every", "x-act: response-reply")
    assert (answer.status, answer.body) == (502, b"replaced")
    assert answer.headers["x-denied-by"] == "every-callback"
    assert wire.get("/every").status == 200


def test_a_plugin_that_spins_in_its_log_does_not_delay_the_client(
    wire: Wire, server: Server
) -> None:
    wire.get("/patient")
    answer, seconds = timed(wire, "/patient", "x-act: log-spin")
    assert answer.status == 200
    # Its timeout is 1.5 s.
    assert seconds < 1.0
    assert server.logged("it ran for longer than its timeout of 1500 ms") == 1
    assert wire.get("/patient").status == 200


def test_a_go_plugin_appends_to_the_body(wire: Wire) -> None:
    for _ in range(2):
        wire.request("POST", "/go", body=b"hello")
        answer = wire.answer()
        assert answer.status == 200
        assert answer.headers["x-go"] == "ok"
        assert b'"body":"hello!"' in answer.body


def test_a_body_beyond_the_limit_is_refused_before_all_of_it_is_there(wire: Wire) -> None:
    wire.request("POST", "/json", "content-length: 10000")
    wire.send(b" " * 8000)
    assert wire.answer().status == 413
    wire.send(b" " * 2000)
    assert wire.get("/every").status == 200


def test_a_body_in_chunks_beyond_the_limit_is_refused_before_all_of_it_is_there(wire: Wire) -> None:
    wire.request("POST", "/json", "transfer-encoding: chunked")
    wire.send_chunks([b" " * 1000] * 8, end=False)
    assert wire.answer().status == 413
    wire.send_chunks([b" " * 1000] * 2)
    assert wire.get("/every").status == 200
