"""HTTP/1.1 byte by byte, for what no client library lets one do."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final

_LARGEST_LINE: Final = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        """Whether the server says that the connection ends with this."""
        return self.headers.get("connection", "").lower() == "close"


class Wire:
    """A connection to a server."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._file = connected.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def request(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        """Send a request; a body is announced by its length."""
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", *headers]

        if body:
            lines.append(f"content-length: {len(body)}")

        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def send_chunks(self, chunks: Iterable[bytes], *, end: bool = True) -> None:
        """Send chunks of a body, each in a packet of its own, and its end."""
        for chunk in chunks:
            self.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))

        if end:
            self.send(b"0\r\n\r\n")

    def head(self) -> Answer:
        """Read a response as far as its body."""
        line = self._file.readline(_LARGEST_LINE)

        if not line:
            raise EOFError("the server has closed the connection")

        headers = {}

        while (header := self._file.readline(_LARGEST_LINE)) not in (b"\r\n", b"\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()

        return Answer(int(line.split()[1]), headers, b"")

    def answer(self) -> Answer:
        """Read a whole response; raises EOFError where there is none, or not all of one."""
        head = self.head()

        if head.status in (204, 304):
            body = b""
        elif "content-length" in head.headers:
            length = int(head.headers["content-length"])
            body = self._file.read(length)

            if len(body) < length:
                raise EOFError("the body was cut")
        elif "transfer-encoding" in head.headers:
            body = b"".join(self.chunks())
        else:
            body = self._file.read()

        return Answer(head.status, head.headers, body)

    def chunks(self) -> Iterator[bytes]:
        """Read the chunks of a body as they arrive; raises EOFError if it is cut."""
        while True:
            line = self._file.readline(_LARGEST_LINE)

            if not line:
                raise EOFError("the body was cut")

            size = int(line.split(b";")[0], 16)
            chunk = self._file.read(size)
            self._file.readline()

            if not size:
                return

            yield chunk

    def get(self, path: str, *headers: str) -> Answer:
        self.request("GET", path, *headers)
        return self.answer()
