"""Servers to call, each in a thread with an event loop of its own, so that any client may wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator

Handler = Callable[["Connection"], Awaitable[None]]


class Connection:
    """A client's connection, from the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read_request(self) -> bytes:
        """The next request, head and body, or nothing when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        size = int(fields.get(b"content-length", b"0"))
        return head + await self.reader.readexactly(size)

    async def send(self, *lines: bytes, body: bytes = b"") -> None:
        self.writer.write(b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)
        await self.writer.drain()

    def reset(self) -> None:
        """Close without a goodbye, which is a reset to the client."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the client has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


class Server:
    """A server whose handler gets each connection; `requests` are all it has read."""

    def __init__(self, handler: Handler | None = None, **listen: object) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._open = 0
        self._change = threading.Condition()
        self._handler = handler or self.echo
        self._listen = listen
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready = threading.Event()
        self._end: Callable[[], None]

    async def echo(self, connection: Connection) -> None:
        """Answer each request with its body."""
        while request := await self.read(connection):
            body = request.partition(b"\r\n\r\n")[2]
            await connection.send(b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), body=body)

    async def read(self, connection: Connection) -> bytes:
        request = await connection.read_request()

        if request:
            self.requests.append(request)

        return request

    def wait_until_all_are_closed(self) -> None:
        """Wait until no connection is open; fails after ten seconds."""
        with self._change:
            assert self._change.wait_for(lambda: not self._open, 10), "a connection is still open"

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

        # A test that has failed has left its connections open.
        if error[0] is None:
            self._thread.join(10)
            assert not self._thread.is_alive(), "a client has left a connection open"

    async def _serve(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._end = lambda: loop.call_soon_threadsafe(stop.set)
        path = self._listen.pop("path", None)

        if path is not None:
            server = await asyncio.start_unix_server(self._connected, path, **self._listen)
        else:
            server = await asyncio.start_server(
                self._connected, "127.0.0.1", 0, backlog=512, **self._listen
            )
            self.port = server.sockets[0].getsockname()[1]

        self._ready.set()
        await stop.wait()

        # Clients have closed their connections: every handler ends by itself. Closed before that,
        # the server would lose what it is accepting.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks)

        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count(1)

        try:
            await self._handler(Connection(reader, writer))
        except ConnectionError:
            pass  # the client has ended it
        finally:
            writer.close()

            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

            self._count(-1)

    def _count(self, change: int) -> None:
        with self._change:
            self.connections += change == 1
            self._open += change
            self._change.notify_all()


@contextlib.contextmanager
def answering(*lines: bytes, body: bytes = b"", then: str = "keep") -> Iterator[Server]:
    """A server that answers each request with the same lines.

    `then` says what follows: keep (the next request), close, reset or hang.
    """

    async def handler(connection: Connection) -> None:
        while await server.read(connection):
            if lines:
                await connection.send(*lines, body=body)

            if then == "reset":
                connection.reset()
            elif then == "hang":
                await connection.wait_closed()

            if then != "keep":
                return

    with Server(handler) as server:
        yield server


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port on which nobody listens, and which nobody else gets."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
