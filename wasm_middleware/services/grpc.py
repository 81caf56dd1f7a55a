"""gRPC calls and streams to upstreams, over HTTP/2, with grpcio.

Theory of operation. A call is a task of its own in the event loop that it was made in. A unary call
waits for its one answer. A stream is read one message at a time, and the next is read when the
guest has had the one before: so HTTP/2 holds back an upstream that is faster. What is sent is
queued, and written by a second task as fast as the upstream takes it.

`cancel` cancels the call, not the task: the guest that asks for it may be running in that task. The
task ends when it finds out.

A channel, which is one connection, belongs to an event loop and is made when a call first needs it.
Where each request has an event loop of its own, as with some test clients, the channels of closed
loops are dropped, and a guest whose loop ends under a call is told that it was cancelled: at once,
or in the loop of the next call where this one had not even begun.

Nothing here needs grpcio to be imported; where it is missing, `refusal` says how to install it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Final, NoReturn

import anyio

from wasm_middleware import limits
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.config import Settings, UpstreamSettings
from wasm_middleware.config.units import format_size
from wasm_middleware.errors import ConfigError
from wasm_middleware.proxy_wasm.ports import GrpcCall, GrpcEvents, StoreFull
from wasm_middleware.services.background import Tasks

# Its core writes to stderr by itself, a handshake that fails for example, and looks into the
# environment once, while it is imported, for how much. The statuses of calls say the same.
_VERBOSITY: Final = "GRPC_VERBOSITY"
_chosen = os.environ.get(_VERBOSITY)
os.environ[_VERBOSITY] = _chosen or "NONE"

try:
    import grpc
    import grpc.aio
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True
finally:
    if _chosen is None:
        del os.environ[_VERBOSITY]

__all__ = ["INSTALLED", "GrpcUpstreams"]

_LOG = logging.getLogger("wasm_middleware")

#: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
_CANCELLED, _RESOURCE_EXHAUSTED, _INTERNAL, _UNAVAILABLE = 1, 8, 13, 14
#: Seconds between two attempts to connect, at first and at most; grpcio's own end at two minutes,
#: for which an upstream that is back again would still be refused.
_FIRST_RECONNECT, _LAST_RECONNECT = 0.2, 5.0
#: Seconds that an attempt may take, whoever waits for it; grpcio's own are 20.
_CONNECT_TIMEOUT: Final = 5.0
#: Seconds that are waited for what has been cancelled: its last events come a little later, there
#: is nothing to await them by, and grpcio logs an error for each that finds its loop closed.
_AFTERMATH: Final = 0.05
#: grpcio's options are 32-bit numbers.
_MAX_INT: Final = (1 << 31) - 1


class GrpcUpstreams:
    """Fulfils `ports.GrpcClient`. Raises `ConfigError` for a `ca_file` that can't be read."""

    def __init__(self, settings: Settings) -> None:
        self._upstreams = {
            name: _Upstream(name, entry, _roots(settings, name, entry))
            for name, entry in settings.upstreams
        }
        self._hosts: dict[str, _Upstream] = {}

        for address in settings.callouts.allow_hosts:
            name, entry = address.authority, UpstreamSettings(url=address)
            self._hosts[name] = _Upstream(name, entry, _roots(settings, name, entry))

        self._tasks = Tasks()
        self._loop: object = None
        #: Calls that have not ended yet.
        self._waiting: set[_Pending] = set()
        #: Bytes of the messages that wait to be written, by plugin.
        self._queued: Counter[str] = Counter()

        if INSTALLED and logging.getLogger("grpc").level == logging.NOTSET:
            # It says at debug level, for each call, which event loop it has found.
            logging.getLogger("grpc").setLevel(logging.INFO)

    def knows(self, upstream: str) -> bool:
        """Whether there is an upstream of that name."""
        return self._find(upstream) is not None

    def _find(self, name: str) -> _Upstream | None:
        # The names of hosts have no case.
        return self._upstreams.get(name) or self._hosts.get(name.lower())

    def refusal(self, upstream: str) -> str:
        """Why no call can be made there at all; empty if one can."""
        if not self.knows(upstream):
            return f"there is no upstream {upstream!r}"

        if not INSTALLED:
            return "grpcio is not installed (pip install 'wasm-middleware[grpc]')"

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return "gRPC needs asyncio, and this event loop is another"

        return ""

    def start(self, call: GrpcCall, events: GrpcEvents) -> _Pending:
        """Begin a call or a stream and return at once; no event comes before that."""
        upstream = self._find(call.upstream)

        if upstream is None:
            raise KeyError(call.upstream)

        pending = _Pending(call, upstream, events, self._tasks, self._waiting, self._queued)

        if pending.loop is not self._loop:
            self._enter(pending.loop)

        upstream.admit(pending)
        self._tasks.run(pending.run)
        return pending

    def _enter(self, loop: object) -> None:
        self._loop = loop

        for pending in list(self._waiting):
            if pending.loop.is_closed():
                self._tasks.run(pending.end_with_loop)

    async def aclose(self) -> None:
        """Give up what is under way, and close the channels."""
        for pending in list(self._waiting):
            pending.cancel()

        await self._tasks.aclose()
        every = (*self._upstreams.values(), *self._hosts.values())

        if any([await upstream.aclose() for upstream in every]):
            await anyio.sleep(_AFTERMATH)


class _Upstream:
    """An upstream, its channels, and the calls to it that are under way."""

    def __init__(self, name: str, settings: UpstreamSettings, roots: bytes | None) -> None:
        self.name = name
        self.settings = settings
        self._roots = roots
        self._channels: dict[asyncio.AbstractEventLoop, grpc.aio.Channel] = {}
        self._in_flight: set[_Pending] = set()

    def admit(self, pending: _Pending) -> None:
        """Count a call among those under way, if there is room for it."""
        if len(self._in_flight) >= self.settings.max_in_flight:
            # What belongs to a loop that has ended may never have begun, so it does not end.
            self._in_flight = {call for call in self._in_flight if not call.loop.is_closed()}

        if len(self._in_flight) < self.settings.max_in_flight:
            self._in_flight.add(pending)

    def has_admitted(self, pending: _Pending) -> bool:
        return pending in self._in_flight

    def forget(self, pending: _Pending) -> None:
        self._in_flight.discard(pending)

    def channel(self, loop: asyncio.AbstractEventLoop) -> grpc.aio.Channel:
        """The channel of the running loop; it connects when it is used."""
        if loop not in self._channels:
            # A channel is freed with its last reference.
            self._channels = {
                other: channel for other, channel in self._channels.items() if not other.is_closed()
            }
            self._channels[loop] = self._open()

        return self._channels[loop]

    def _open(self) -> grpc.aio.Channel:
        url = self.settings.url
        target = str(url) if url.path is not None else f"dns:///{url.authority}"
        options = (
            # No proxies from the environment, and no configuration out of the DNS.
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config_disable_resolution", 1),
            # Connections are this channel's, and end with it.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", int(_FIRST_RECONNECT * 1000)),
            ("grpc.min_reconnect_backoff_ms", int(_CONNECT_TIMEOUT * 1000)),
            ("grpc.max_reconnect_backoff_ms", int(_LAST_RECONNECT * 1000)),
            ("grpc.max_receive_message_length", min(self.settings.response_limit, _MAX_INT)),
            ("grpc.max_send_message_length", limits.MAX_GRPC_CALL_BYTES),
            ("grpc.max_metadata_size", limits.MAX_HEADER_VALUE_BYTES),
        )

        if url.scheme != "https":
            return grpc.aio.insecure_channel(target, options)

        credentials = grpc.ssl_channel_credentials(root_certificates=self._roots)
        return grpc.aio.secure_channel(target, credentials, options)

    async def aclose(self) -> bool:
        """Drop the channels; whether one of the running loop was among them."""
        channels, self._channels = self._channels, {}
        channel = channels.pop(asyncio.get_running_loop(), None) if channels else None

        if channel is not None:
            await channel.close()

        return channel is not None


class _Pending:
    """Fulfils `ports.GrpcStream`: a call or stream that is under way."""

    def __init__(
        self,
        call: GrpcCall,
        upstream: _Upstream,
        events: GrpcEvents,
        tasks: Tasks,
        waiting: set[_Pending],
        queued: Counter[str],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._call = call
        self._upstream = upstream
        self._events = events
        self._tasks = tasks
        self._waiting = waiting
        waiting.add(self)
        self._path = f"/{call.service}/{call.method}"
        self._rpc: grpc.aio.Call | None = None
        self._cancelled = False
        #: The end that it gets from here instead of the upstream's.
        self._failure: tuple[int, str] | None = None
        #: A stream has delivered its initial metadata.
        self._answered = False
        #: What waits to be written, its size, and whether that is all.
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._queued_by_plugin = queued
        self._closed = False
        self._news = asyncio.Event()

    def send(self, message: bytes, *, end_stream: bool) -> None:
        """Queue a message of a stream; after its end it is dropped.

        Raises `StoreFull` where too much waits already, and the stream ends.
        """
        if self._closed:
            return

        size = _size(message)

        if self._queued and self._queued + size > limits.MAX_GRPC_QUEUED_BYTES:
            most = format_size(limits.MAX_GRPC_QUEUED_BYTES)
            self._overflow(f"{most} of messages wait for the upstream")

        if self._queued_by_plugin[self._call.plugin] + size > limits.MAX_GRPC_QUEUED_TOTAL:
            most = format_size(limits.MAX_GRPC_QUEUED_TOTAL)
            self._overflow(f"{most} of the plugin's messages wait for upstreams")

        self._queue.append(message)
        self._count(size)
        self._closed = end_stream
        self._news.set()

    def _overflow(self, reason: str) -> NoReturn:
        self._failure = _RESOURCE_EXHAUSTED, reason
        self._stop()
        raise StoreFull(f"a gRPC stream to upstream {self._upstream.name!r} is cut off: {reason}")

    def _count(self, size: int) -> None:
        self._queued += size
        self._queued_by_plugin[self._call.plugin] += size

    def _drop_queue(self) -> None:
        self._count(-sum(map(_size, self._queue)))
        self._queue.clear()

    def close(self) -> None:
        """Say that no more messages come from here; answers still do."""
        self._closed = True
        self._news.set()

    def cancel(self) -> None:
        """Give it up: nothing of it is delivered any more."""
        self._cancelled = True
        self._forget()
        self._stop()

    def _forget(self) -> None:
        self._waiting.discard(self)
        self._upstream.forget(self)

    def _stop(self) -> None:
        self._drop_queue()
        self.close()

        if self._rpc is not None:
            self._rpc.cancel()

    @property
    def _stopped(self) -> bool:
        return self._cancelled or self._failure is not None

    async def run(self) -> None:
        """Make the call, and deliver what comes of it."""
        # What ends it early is `cancel`: a delivery must not be cut, a guest may be running in it.
        with anyio.CancelScope(shield=True):
            try:
                await self._run()
            finally:
                self._forget()

                if self._stopped and self._rpc is not None:
                    await anyio.sleep(_AFTERMATH)

    async def _run(self) -> None:
        try:
            if not self._stopped:
                await self._begin()
        except asyncio.CancelledError:
            # Of a call that was stopped it is the end; else the event loop is ending.
            if not self._stopped:
                await self.end_with_loop()
                self.cancel()
                raise
        except grpc.aio.BaseError as error:
            message = "plugin %r: a gRPC call to upstream %r failed, please report this: %s"
            _LOG.error(message, self._call.plugin, self._upstream.name, error)
            self._failure = _INTERNAL, "an error of wasm-middleware's"

        if self._failure is not None:
            await self._fail(*self._failure)

    async def _begin(self) -> None:
        if not self._upstream.has_admitted(self):
            most = self._upstream.settings.max_in_flight
            self._failure = _UNAVAILABLE, f"{most} calls are under way already (max_in_flight)"
        elif self._call.message is None:
            await self._run_stream()
        else:
            await self._run_call(self._call.message)

    async def _run_call(self, message: bytes) -> None:
        channel = self._upstream.channel(self.loop)
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self._path)
        timeout = min(
            self._call.timeout or self._upstream.settings.timeout, limits.MAX_CALL_TIMEOUT
        )
        rpc = self._rpc = call(message, timeout=timeout, metadata=_metadata(self._call.metadata))

        try:
            answer = await rpc
        except grpc.aio.AioRpcError as error:
            await self._deliver(self._events.close, *_status(error.code(), error.details()))
        else:
            await self._deliver(self._events.message, answer)

    async def _run_stream(self) -> None:
        channel = self._upstream.channel(self.loop)
        open_stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        open_stream = channel.stream_stream(self._path)
        rpc = self._rpc = open_stream(metadata=_metadata(self._call.metadata))
        self._tasks.run(self._write, rpc)

        try:
            await self._deliver_initial(_pairs(await rpc.initial_metadata()))

            while not self._stopped:
                message = await _read(rpc)

                if message is None:
                    break

                await self._deliver(self._events.message, message)
        finally:
            # The writer ends: what it is writing fails by itself.
            self._drop_queue()
            self.close()

        if not self._stopped:
            trailing = _pairs(await rpc.trailing_metadata())
            await self._deliver(self._events.trailing_metadata, trailing)
            status = _status(await rpc.code(), await rpc.details())
            await self._deliver(self._events.close, *status)

    async def _write(self, rpc: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        """Write what is queued, one after the other, until the stream ends."""
        try:
            while self._queue or not self._closed:
                if self._queue:
                    message = self._queue.popleft()

                    try:
                        await rpc.write(message)
                    finally:
                        self._count(-_size(message))
                else:
                    self._news.clear()
                    await self._news.wait()

            await rpc.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            # It has ended; whoever reads learns how.
            _LOG.debug("a gRPC stream to %r takes no more: %s", self._upstream.name, error)
        except asyncio.CancelledError:
            # As in `_run`.
            if not self._stopped:
                raise

    async def end_with_loop(self) -> None:
        """Deliver the end of what belongs to an event loop that is no more."""
        self._forget()
        self._drop_queue()
        # Not `close`: whoever waits for news waits in that loop.
        self._closed = True
        await self._fail(_CANCELLED, "the event loop has ended")
        self._cancelled = True

    async def _fail(self, status: int, message: str) -> None:
        """Deliver an end that is not the upstream's, with all that comes before one."""
        if self._call.message is None:
            if not self._answered:
                await self._deliver_initial([])

            await self._deliver(self._events.trailing_metadata, [])

        await self._deliver(self._events.close, status, message.encode())

    async def _deliver_initial(self, metadata: list[Pair]) -> None:
        # A call that was stopped meanwhile has metadata all the same: none.
        self._answered = True
        await self._deliver(self._events.initial_metadata, metadata)

    async def _deliver(
        self, event: Callable[..., Coroutine[None, None, None]], *arguments: object
    ) -> None:
        if not self._cancelled:
            await event(*arguments)


async def _read(rpc: grpc.aio.StreamStreamCall[bytes, bytes]) -> bytes | None:
    """The next message; None at the end, whatever kind of end it is."""
    try:
        message = await rpc.read()
    except grpc.aio.AioRpcError:
        return None

    return message if isinstance(message, bytes) else None


def _size(message: bytes) -> int:
    return len(message) + limits.QUEUE_MESSAGE_OVERHEAD


def _status(code: grpc.StatusCode, details: str | None) -> tuple[int, bytes]:
    return code.value[0], (details or "").encode("utf-8", "replace")


def _metadata(pairs: Iterable[Pair]) -> list[tuple[str, str | bytes]]:
    """As grpcio has it: binary values are bytes, and base64 on the wire."""
    return [
        (name.decode(), value if name.endswith(b"-bin") else value.decode())
        for name, value in pairs
    ]


def _pairs(metadata: Iterable[tuple[str, str | bytes]]) -> list[Pair]:
    return [
        (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in metadata
    ]


def _roots(settings: Settings, name: str, upstream: UpstreamSettings) -> bytes | None:
    """The CAs to trust, in PEM form: the upstream's, or else the system's; None where they are in
    no file, which stands for those that grpcio brings along."""
    if upstream.url.scheme != "https":
        return None

    try:
        if upstream.ca_file is not None:
            return upstream.ca_file.read_bytes()

        system = ssl.get_default_verify_paths().cafile
        return Path(system).read_bytes() if system else None
    except OSError as error:
        where = ("upstreams", name, "ca_file")
        message = f"can't be used: {error.strerror}"
        raise ConfigError([settings.source.diagnostic(where, message)]) from error
