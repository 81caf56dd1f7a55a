"""Websockets over a real server, through a network plugin made with the Rust SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect as connect_websocket

from tests.e2e.conftest import Start
from tests.e2e.serving import HOST, ROOT, Command, Server, hypercorn, uvicorn

APP = "tests.e2e.sockets:app"
_UVICORN = tuple(int(part) for part in version("uvicorn").split(".")[:2])
_CONFIG = f"""\
plugins:
  - name: filter
    path: {ROOT}/tests/plugins/ws-filter.wasm
    type: network
    config: forbidden
  - name: every
    path: {ROOT}/tests/plugins/every-callback.wasm
"""


COMMANDS: dict[str, Command] = {
    "uvicorn": uvicorn(),
    "uvicorn-sansio": uvicorn("--ws", "websockets-sansio"),
    "hypercorn": hypercorn,
}


@pytest.fixture(scope="module", params=list(COMMANDS))
def server(
    request: pytest.FixtureRequest, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """An HTTP plugin and a network plugin in front of one application."""
    if request.param == "uvicorn-sansio" and _UVICORN < (0, 54):
        pytest.skip("this uvicorn's sansio protocol denies with two content-lengths")

    config = tmp_path_factory.mktemp("config") / "plugins.yaml"
    config.write_text(_CONFIG, encoding="utf-8")
    return start(COMMANDS[request.param], APP, {"WASM_TEST_CONFIG": str(config)})


@contextmanager
def connected(server: Server, name: str = "chat") -> Iterator[ClientConnection]:
    url = f"ws://{HOST}:{server.port}/ws/{name}"

    with connect_websocket(url, open_timeout=10, close_timeout=5) as websocket:
        yield websocket


def test_messages_pass_and_are_changed(server: Server) -> None:
    with connected(server) as client:
        for sent, expected in (
            ("hello", "hello"),
            ("card 4711", "card ****"),
            (b"\xff\x001", b"\xff\x00*"),
            ("", ""),
            ("größer", "größer"),
        ):
            client.send(sent)
            assert client.recv(timeout=5) == expected


def test_a_plugin_denies_a_handshake(server: Server) -> None:
    with pytest.raises(InvalidStatus) as raised, connected(server, "denied"):
        pass

    assert raised.value.response.status_code == 403


def test_a_forbidden_word_ends_the_connection(server: Server) -> None:
    with connected(server) as client:
        client.send("one")
        client.send("a forbidden word")
        assert client.recv(timeout=5) == "one"

        with pytest.raises(ConnectionClosed):
            client.recv(timeout=5)

        assert client.close_code == 1008

    assert server.logged("disconnected: 1008")


@pytest.mark.parametrize("way", ["down", "up"])
def test_what_is_held_goes_on_at_a_tick(server: Server, way: str) -> None:
    with connected(server) as client:
        client.send(f"wait {way} please")
        client.send(b"behind")
        # Held downstream, they reach the application one by one again.
        assert client.recv(timeout=5) == f"wait {way} please"
        assert client.recv(timeout=5) == b"behind"


def test_the_close_of_the_application_keeps_its_code(server: Server) -> None:
    with connected(server) as client:
        client.send("wait up 1")
        client.send("bye")
        assert client.recv(timeout=5) == "wait up 1"

        with pytest.raises(ConnectionClosed):
            client.recv(timeout=5)

        assert client.close_code == 4000


def test_both_sides_are_told_and_logged(start: Start, tmp_path: Path) -> None:
    (tmp_path / "plugins.yaml").write_text(_CONFIG, encoding="utf-8")
    server = start(uvicorn(), APP, {"WASM_TEST_CONFIG": str(tmp_path / "plugins.yaml")})

    with connected(server) as client:
        client.send("three")
        client.recv(timeout=5)

    assert server.logged("5 bytes down, 5 bytes up") == 1
    assert server.logged("downstream closed by 2") == 1
    assert server.logged("upstream closed by 1") == 1
    # The HTTP plugin has seen the handshake, and nothing else of it.
    assert server.logged("on_request_headers") == 1
    assert "on_new_connection" not in server.log()
    assert "Traceback" not in server.log()
