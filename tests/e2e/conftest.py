"""Servers, started once for all tests that want the same, and ended by their process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.serving import Command, Server
from tests.e2e.wire import Wire

Start = Callable[..., Server]
Connect = Callable[[Server], Wire]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a server; it is ended after the module's tests."""
    folder: Path = tmp_path_factory.mktemp("servers")
    servers: list[Server] = []

    def start(command: Command, app: str, environment: Mapping[str, str] | None = None) -> Server:
        log = folder / f"{len(servers)}-{len(list(folder.iterdir()))}.log"
        server = Server(command, app, log, environment)
        servers.append(server)
        return server

    yield start

    for server in servers:
        server.terminate()

    for server in servers:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open a connection to a server; it is closed after the test."""
    wires: list[Wire] = []

    def connect(server: Server) -> Wire:
        wires.append(Wire(server.connect()))
        return wires[-1]

    yield connect

    for wire in wires:
        wire.close()


@pytest.fixture
def wire(server: Server, connect: Connect) -> Wire:
    """A connection to the module's server."""
    return connect(server)
