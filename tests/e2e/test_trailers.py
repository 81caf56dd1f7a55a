"""Response trailers over HTTP/2, as a client gets them."""

from __future__ import annotations

import socket

import h2.config
import h2.connection
import h2.events

from tests.e2e.conftest import Start
from tests.e2e.serving import hypercorn

REQUEST = [
    (":method", "GET"),
    (":path", "/"),
    (":scheme", "http"),
    (":authority", "localhost"),
    ("te", "trailers"),
]


def ask(client: socket.socket) -> list[h2.events.Event]:
    """Make one request, without TLS and by prior knowledge; what happens until it has ended."""
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, header_encoding=None)
    )
    connection.initiate_connection()
    connection.send_headers(1, REQUEST, end_stream=True)
    events: list[h2.events.Event] = []

    while not any(isinstance(event, h2.events.StreamEnded) for event in events):
        client.sendall(connection.data_to_send())
        received = client.recv(65536)
        assert received, "the server has closed the connection"
        events += connection.receive_data(received)

    return events


def test_a_client_gets_the_applications_trailers_and_the_plugins(start: Start) -> None:
    server = start(hypercorn, "tests.e2e.trailing:app")

    with server.connect() as client:
        events = ask(client)

    body = b"".join(e.data for e in events if isinstance(e, h2.events.DataReceived))
    (trailers,) = [e.headers for e in events if isinstance(e, h2.events.TrailersReceived)]
    assert body == b"body"
    assert list(trailers) == [(b"x-checksum", b"7"), (b"x-plugin", b"added")]
    assert "Traceback" not in server.log()
