"""What a client gets, as it stands on the wire: header lists keep their order and duplicates."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from tests.e2e.envoy.shapes import Request, as_bytes
from tests.e2e.serving import HOST

#: Seconds without a byte. Envoy leaves a client waiting that was promised more than it gets.
_PATIENCE = 3.0

_LARGEST_LINE = 1 << 20

End = Literal["complete", "cut", "no answer", "timed out", "left"]


@dataclass(slots=True)
class Received:
    """A response; `end` tells how it ended."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    end: End = "no answer"


class Client:
    """One connection with one request."""

    def __init__(self, port: int, request: Request) -> None:
        self._request = request
        self._socket = socket.create_connection((HOST, port), _PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file: BinaryIO = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send_head(self, body: bytes = b"") -> None:
        """Send the head, with a body that is known in the same packet."""
        request = self._request
        lines = [f"{request.method} {request.path} HTTP/1.1".encode(), b"host: localhost"]
        # Envoy adds it to what has none, and routes by it.
        lines.append(b"x-forwarded-proto: http")
        lines += [name.encode() + b": " + as_bytes(value) for name, value in request.headers]

        if len(request.chunks) == 1:
            lines.append(b"content-length: %d" % len(body))
        elif request.chunks:
            lines.append(b"transfer-encoding: chunked")

        self._send(b"\r\n".join([*lines, b"", b""]) + body)

    def send_chunk(self, chunk: bytes) -> None:
        self._send(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def send_end(self) -> None:
        self._send(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        # It may have answered and closed before this is all there: the answer tells.
        with suppress(OSError):
            self._socket.sendall(data)

    def receive(self, *, only: int | None = None) -> Received:
        """Read the response; with `only`, so many bytes of its body."""
        received = Received()

        try:
            self._read_head(received)

            if received.end == "no answer":
                return received

            self._read_body(received, only)
        except TimeoutError:
            received.end = "timed out"
        except OSError:
            received.end = "cut" if received.status else "no answer"

        return received

    def _read_head(self, received: Received) -> None:
        line = self._file.readline(_LARGEST_LINE)

        if not line:
            return

        received.status = int(line.split()[1])
        received.end = "cut"

        while (header := self._file.readline(_LARGEST_LINE)) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            received.headers.append((name.strip().lower(), value.strip(" \t\r\n")))

    def _read_body(self, received: Received, only: int | None) -> None:
        headers = dict(received.headers)

        if only is not None:
            self._file.readline(_LARGEST_LINE)
            received.body = self._file.read(only)
            received.end = "left"
        elif self._request.method == "HEAD" or received.status in (204, 304):
            received.end = "complete"
        elif headers.get("transfer-encoding") == "chunked":
            self._read_chunks(received)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            received.body = self._file.read(length)
            received.end = "complete" if len(received.body) == length else "cut"
        else:
            received.body = self._file.read()
            received.end = "complete"

    def _read_chunks(self, received: Received) -> None:
        while line := self._file.readline(_LARGEST_LINE):
            size = int(line, 16)
            received.body += self._file.read(size)
            self._file.readline(_LARGEST_LINE)

            if not size:
                received.end = "complete"
                return
