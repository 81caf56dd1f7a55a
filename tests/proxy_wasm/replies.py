"""Making local replies, and what becomes of them; for the tests of both."""

from __future__ import annotations

from wasm_middleware.abi import pairs
from wasm_middleware.proxy_wasm.stream import Stream

from .harness import Guest, Step, call, run


def reply(
    guest: Guest,
    status: int = 403,
    *,
    body: bytes = b"no",
    headers: list[tuple[bytes, bytes]] | None = None,
    details: bytes = b"",
    grpc: int = -1,
) -> Step:
    encoded = pairs.encode(headers or [])
    return call(
        "proxy_send_local_response",
        *(status, guest.text(details), guest.text(body), guest.text(encoded), grpc),
    )


def sent(stream: Stream, *, head: bool = False) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body that go to the client."""
    assert stream.interrupted
    body = run(stream.begin_reply(head=head))
    headers = stream.response.headers
    assert headers is not None
    return headers.pairs, stream.response.take_output() if stream.response.contexts else body
