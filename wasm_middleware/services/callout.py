"""HTTP calls to upstreams, with httpcore2.

Theory of operation. A call is a task of its own. It takes an idle connection of its upstream, or
makes one, sends the request, reads all of the answer, puts the connection back and delivers. All of
that has one time limit.

A call does not outlive its event loop. Where each request has one of its own, as with some test
clients, a call is answered when its loop ends; one that had not even begun, in the loop of the next
call.

httpcore2 is the layer below httpx2, and installed with it. It sends the bytes that it is given and
gives those that come: nothing follows redirects, keeps cookies, decompresses, reads proxies from
the environment, puts paths in order or adds headers. Connections are kept here and not in its pool,
which looks through all of them at each begin and end of a request: with 200 calls at a time a call
costs 2.9 ms of the processor with it, and 0.4 ms like this.
"""

from __future__ import annotations

import contextvars
import logging
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Final, cast

import anyio
import httpcore2

from wasm_middleware.config import Settings, UpstreamSettings
from wasm_middleware.config.problems import suggest
from wasm_middleware.config.units import format_duration, format_size
from wasm_middleware.errors import ConfigError
from wasm_middleware.limits import MAX_CALL_TIMEOUT
from wasm_middleware.proxy_wasm.ports import Cancel, HttpAnswer, HttpCall
from wasm_middleware.services.background import Tasks, has_closed, running_loop
from wasm_middleware.services.connections import IdleConnections
from wasm_middleware.services.messages import (
    answer_headers,
    overflow,
    request_headers,
    reset,
    timed_out,
)

__all__ = ["HttpCallouts"]

_LOG = logging.getLogger("wasm_middleware")

_Connections = IdleConnections[httpcore2.AsyncHTTPConnection]
_Answered = Callable[[HttpAnswer], Coroutine[None, None, None]]

#: Seconds that an idle connection is kept. Uvicorn and Node.js close theirs after 5, and a request
#: that meets the close is lost.
_KEEP_ALIVE: Final = 4.0

_ERRORS: Final = (httpcore2.ProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException)

#: True in a task that makes a call.
_CALLING: contextvars.ContextVar[bool] = contextvars.ContextVar("wasm_middleware_calling")


class HttpCallouts:
    """Fulfils `ports.HttpClient`. Raises `ConfigError` for a `ca_file` that can't be used."""

    def __init__(self, settings: Settings) -> None:
        self._upstreams = {
            name: _Upstream(name, entry, _tls_context(settings, name, entry))
            for name, entry in settings.upstreams
        }

        self._hosts: dict[str, _Upstream] = {}

        for address in settings.callouts.allow_hosts:
            name, entry = address.authority, UpstreamSettings(url=address)
            self._hosts[name] = _Upstream(name, entry, _tls_context(settings, name, entry))

        self._tasks = Tasks()
        #: Calls that have no answer yet.
        self._waiting: set[_Pending] = set()
        self._loop: object = None
        self._connections = _Connections(_KEEP_ALIVE)
        # Its debug messages show all headers of an answer.
        logging.getLogger("httpcore2.http11").addFilter(_is_not_ours)

    def refusal(self, upstream: str) -> str:
        """Why no call can be made there at all; empty if one can."""
        if self._find(upstream) is not None:
            return ""

        known = (*self._upstreams, *self._hosts)
        hint = suggest(upstream, known) or "define it under upstreams"
        return f"there is no upstream {upstream!r} ({hint})"

    def _find(self, name: str) -> _Upstream | None:
        # The names of hosts have no case.
        return self._upstreams.get(name) or self._hosts.get(name.lower())

    def start(self, call: HttpCall, answered: _Answered) -> Cancel:
        """Begin a call and return at once; what is returned cancels it.

        `answered` is awaited exactly once, never from within `start`, unless it was cancelled.
        Once it has been called, there is nothing to cancel.
        """
        upstream = self._find(call.upstream)

        if upstream is None:
            raise KeyError(call.upstream)

        loop = running_loop()

        if loop is not self._loop:
            self._enter(loop)

        pending = _Pending(call, upstream, self._connections, answered, self._waiting)
        pending.cancel_task = self._tasks.start(pending.run)
        return pending.cancel

    def _enter(self, loop: object) -> None:
        self._loop, self._connections = loop, _Connections(_KEEP_ALIVE)
        self._tasks.run(self._connections.keep)

        for pending in list(self._waiting):
            if has_closed(pending.loop):
                self._tasks.run(pending.end_with_loop)

    async def aclose(self) -> None:
        """Give up what is under way, and close all connections."""
        for pending in list(self._waiting):
            pending.cancel()

        await self._tasks.aclose()


class _Pending:
    """A call that is under way."""

    __slots__ = (
        "_answered", "_call", "_connections", "_upstream", "_waiting", "cancel_task", "loop",
    )  # fmt: skip

    cancel_task: Callable[[], None]

    def __init__(
        self,
        call: HttpCall,
        upstream: _Upstream,
        connections: _Connections,
        answered: _Answered,
        waiting: set[_Pending],
    ) -> None:
        self.loop = running_loop()
        self._call = call
        self._upstream = upstream
        self._connections = connections
        self._answered: _Answered | None = answered
        self._waiting = waiting
        waiting.add(self)

    async def run(self) -> None:
        token = _CALLING.set(True)

        try:
            answer = await self._upstream.answer(self._call, self._connections)
        except GeneratorExit:
            raise  # nobody is there to await anything
        except BaseException:
            # `cancel` wants no answer; anybody else ends the event loop.
            with anyio.CancelScope(shield=True):
                await self.end_with_loop()

            raise

        _CALLING.reset(token)
        await self._deliver(answer)

    async def end_with_loop(self) -> None:
        """Deliver what stands for an answer that can't come any more."""
        await self._deliver(reset("local reset", "the event loop has ended"))

    def _take(self) -> _Answered | None:
        """Whom to answer, once."""
        self._waiting.discard(self)
        answered, self._answered = self._answered, None
        return answered

    async def _deliver(self, answer: HttpAnswer) -> None:
        answered = self._take()

        if answered is None:
            return

        if answer.failure:
            message = "plugin %r: no answer from upstream %r: %s"
            _LOG.info(message, self._call.plugin, self._upstream.name, answer.failure)

        await answered(answer)

    def cancel(self) -> None:
        # A delivery that has begun must not be cut: a guest may be running in it.
        if self._take() is not None:
            self.cancel_task()


class _Upstream:
    """An upstream, and how many calls to it are under way."""

    def __init__(self, name: str, settings: UpstreamSettings, tls: ssl.SSLContext | None) -> None:
        self.name = name
        self._settings = settings
        self._tls = tls
        url = settings.url
        # For a socket they say nothing: `host` is the call's `:authority`.
        scheme, host, port = (
            ("http", "localhost", 80) if url.path else (url.scheme, url.host, url.port)
        )
        self._origin = httpcore2.Origin(scheme.encode(), host.encode(), port)
        self._socket = None if url.path is None else str(url.path)
        self._in_flight = 0

    def _connection(self) -> httpcore2.AsyncHTTPConnection:
        """A new connection; it connects when it is used."""
        return httpcore2.AsyncHTTPConnection(
            self._origin,
            self._tls,
            keepalive_expiry=_KEEP_ALIVE,
            uds=self._socket,
            network_backend=None if self._tls is None else _TlsBackend(),
        )

    async def answer(self, call: HttpCall, connections: _Connections) -> HttpAnswer:
        """Make a call; what goes wrong is an answer, too."""
        most = self._settings.max_in_flight

        if self._in_flight >= most:
            return overflow(f"{most} calls are under way already (max_in_flight)")

        timeout = min(call.timeout or self._settings.timeout, MAX_CALL_TIMEOUT)
        self._in_flight += 1

        try:
            with anyio.move_on_after(timeout):
                return await self._exchange(call, connections)

            return timed_out(f"no answer within {format_duration(timeout)}")
        except _TooLong:
            limit = format_size(self._settings.response_limit)
            return reset("local reset", f"the answer is longer than {limit} (response_limit)")
        except (*_ERRORS, OSError, UnicodeError) as error:
            return _failure(error)
        except Exception:
            # The plugin waits for its answer, whatever has happened.
            message = "plugin %r: a call to upstream %r failed; please report this"
            _LOG.exception(message, call.plugin, self.name)
            return reset("local reset", "an error of wasm-middleware's")
        finally:
            self._in_flight -= 1

    async def _exchange(self, call: HttpCall, connections: _Connections) -> HttpAnswer:
        request = self._request(call)
        connection = await connections.take(self) or self._connection()

        try:
            response = await connection.handle_async_request(request)

            try:
                body = await self._body(response)
            finally:
                await response.aclose()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await connection.aclose()

            raise

        await connections.give(self, connection)
        return HttpAnswer(answer_headers(response.status, response.headers), body)

    def _request(self, call: HttpCall) -> httpcore2.Request:
        pseudo = {name: value for name, value in call.headers if name.startswith(b":")}
        method, origin = pseudo[b":method"], self._origin

        if method == b"CONNECT":
            raise httpcore2.LocalProtocolError("a call can't be a CONNECT")

        if call.trailers:
            _LOG.debug("plugin %r: trailers to upstream %r are not sent", call.plugin, self.name)

        return httpcore2.Request(
            method,
            httpcore2.URL(
                scheme=origin.scheme, host=origin.host, port=origin.port, target=pseudo[b":path"]
            ),
            headers=request_headers(call, method, pseudo[b":authority"]),
            content=call.body,
        )

    async def _body(self, response: httpcore2.Response) -> bytes:
        if response.status == 101:
            raise httpcore2.RemoteProtocolError("it switched protocols unasked")

        # An iterator that is left early must be closed, and not left to the garbage collector.
        stream = aiter(cast("AsyncIterable[bytes]", response.stream))
        chunks, size, limit = [], 0, self._settings.response_limit

        async with aclosing(cast("AsyncGenerator[bytes, None]", stream)) as reading:
            async for chunk in reading:
                size += len(chunk)

                if size > limit:
                    raise _TooLong

                chunks.append(chunk)

        return b"".join(chunks)


class _TooLong(Exception):
    """An answer has passed `response_limit`."""


class _TlsBackend(httpcore2.AnyIOBackend):
    """Closes a connection whose handshake is given up, which httpcore2 leaves open."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        stream = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Handshake(stream)


class _Handshake(httpcore2.AsyncNetworkStream):
    """A connection that has one thing to do: to become another one."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

            raise


def _failure(error: Exception) -> HttpAnswer:
    """An error of httpcore2's, or of what is below it, as an answer."""
    match error:
        case httpcore2.LocalProtocolError():
            return reset("protocol error", f"the call is not valid HTTP: {_words(error)}")
        case httpcore2.RemoteProtocolError() if not _is_end(error):
            return reset("protocol error", f"the answer is not valid HTTP: {_words(error)}")
        case httpcore2.ProtocolError() | httpcore2.ReadError() | httpcore2.WriteError():
            return reset("connection termination", "the upstream closed the connection")
        case _:
            return reset("remote connection failure", f"no connection: {_cause(error)}")


def _is_end(error: httpcore2.RemoteProtocolError) -> bool:
    # httpcore2 and h11 have one error for nonsense and for the end of what made sense so far.
    return "disconnected" in str(error) or "closed connection" in str(error)


def _words(error: Exception) -> str:
    # Behind the colon h11 quotes what it has read, and that may be a secret.
    return str(error).partition(":")[0]


def _cause(error: BaseException) -> str:
    """What the operating system or TLS had to say, which is never a header."""
    found: BaseException | None = error

    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return found.verify_message

        if isinstance(found, ssl.SSLError) and found.reason:
            return f"TLS: {found.reason.lower().replace('_', ' ')}"

        if isinstance(found, socket.gaierror) and found.strerror:
            return found.strerror.lower()

        if isinstance(found, OSError) and found.errno:
            return os.strerror(found.errno).lower()  # asyncio has words of its own

        # Trio has a group, with an error for each address; httpcore2 raises its own "from None".
        several: tuple[BaseException, ...] = getattr(found, "exceptions", ())
        found = several[0] if several else found.__cause__ or found.__context__

    return type(error).__name__


def _tls_context(
    settings: Settings, name: str, upstream: UpstreamSettings
) -> ssl.SSLContext | None:
    if upstream.url.scheme != "https":
        return None

    if upstream.ca_file is None:
        return httpcore2.default_ssl_context()

    try:
        return ssl.create_default_context(cafile=upstream.ca_file)
    except OSError as error:
        where = ("upstreams", name, "ca_file")
        message = f"can't be used: {error.strerror or 'it holds no certificate'}"
        raise ConfigError([settings.source.diagnostic(where, message)]) from error


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not _CALLING.get(False)
