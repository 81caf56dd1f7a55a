"""Connections for the tests of the core: through scripted guests, and fed by hand."""

from __future__ import annotations

import pytest

from wasm_middleware.proxy_wasm.connection import Connection
from wasm_middleware.proxy_wasm.direction import Chunk, Direction
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.stream import Stream

from .harness import INFO, REQUEST, Guest, run

CONTINUE, CLOSE, GET, SET = (
    "proxy_continue_stream",
    "proxy_close_stream",
    "proxy_get_buffer_bytes",
    "proxy_set_buffer_bytes",
)
#: Stream types and, by the same numbers, buffers.
DOWNSTREAM, UPSTREAM = 2, 3
WAYS = {"downstream": DOWNSTREAM, "upstream": UPSTREAM}
ways = pytest.mark.parametrize("way", list(WAYS))
ALL = 0xFFFF_FFFF


def new_connection(*guests: Guest, opened: bool = True) -> Connection:
    handshake = Stream(guests[0].services.clock, lambda: INFO)
    run(handshake.request.start(HeaderMap(list(REQUEST)), end_of_stream=True))
    connection = Connection(handshake)

    for guest in guests:
        connection.add(guest.vm, guest.vm.plugin.config)

    if opened:
        run(connection.open())

    return connection


def direction(connection: Connection, way: str) -> Direction:
    found = connection.upstream if way == "upstream" else connection.downstream
    assert found.name == way
    return found


def feed(flow: Direction, *data: bytes | str, ended: bool = False) -> list[bytes | str]:
    """Let messages in, text as str; what has come out."""
    chunks = [Chunk(one.encode(), True) if isinstance(one, str) else Chunk(one) for one in data]
    run(flow.feed(*chunks, ended=ended))
    return taken(flow)


def taken(flow: Direction) -> list[bytes | str]:
    output = [chunk.data.decode() if chunk.text else chunk.data for chunk in flow.output]
    flow.output.clear()
    return output


def sizes(guest: Guest, way: str) -> list[tuple[int, ...]]:
    """The sizes and ends that a data callback was told."""
    return [arguments[1:3] for arguments in guest.arguments_of(f"proxy_on_{way}_data")]
