"""Responses that take their time: nothing is held back, and nobody minds a client that leaves."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.e2e.conftest import Connect, Start
from tests.e2e.modules import write_config
from tests.e2e.serving import Server, uvicorn
from tests.e2e.wire import Wire


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    config = write_config(tmp_path_factory.mktemp("service"))
    environment = {"WASM_TEST_CONFIG": str(config)}
    return start(uvicorn(), "tests.e2e.service:app", environment)


def test_each_event_is_there_before_the_next_is_sent_though_plugins_see_the_body(
    server: Server, connect: Connect
) -> None:
    stream, control = connect(server), connect(server)
    stream.request("GET", "/stream?events=20")
    lags = []
    assert stream.head().headers["content-type"].startswith("text/event-stream")

    # The server sends an event only when it is told that the one before has arrived.
    for number, event in enumerate(stream.chunks()):
        _, at, sent = event.decode().split()
        assert int(at) == number
        lags.append(time.time() - float(sent))
        assert control.get("/next").status == 204

    assert len(lags) == 20
    # The median, since the machine may be busy.
    assert statistics.median(lags) < 0.1
    assert server.logged("on_response_body") > 20


def test_the_application_is_told_when_its_client_has_gone(server: Server, connect: Connect) -> None:
    with Wire(server.connect()) as wire:
        wire.request("GET", "/endless")
        assert wire.head().status == 200
        assert next(wire.chunks())

    assert server.logged("the endless response has ended") == 1
    assert connect(server).get("/every").status == 200
    assert "Traceback" not in server.log()
