"""One request and its response on their way through a chain of plugins.

Theory of operation
-------------------
The shell lets request headers in (`request.start`), then body data (`request.feed`), then the
response likewise, and takes out what the flows let pass. After each step it looks at three things:

- `interrupted`: a local reply was made or a plugin failed. Nothing more passes. If `aborted` is
  set, the response had gone out and must be cut; else `reply` is what to send: `begin_reply` lets
  it through the response phases of the whole chain, unless it is `direct`.
- `paused_by`: a plugin holds something back. The stream calls `on_wake` when that may have changed;
  then `proceed`. After the plugin's `pause_timeout`, `expire`.
- the flows' `passed`, `output` and `output_ended`.

When all is over, `finish` runs `on_log` in chain order, then `on_done` and `on_delete` of each
context (Envoy's order). It runs once; each context that was created is deleted once.

Failures follow the failure policy in one place, `failed`: fail_open leaves the plugin out of the
rest, fail_closed makes a bare 503, or cuts a response that has started.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from wasm_middleware.abi.enums import Action, BufferType, LogLevel, MapType
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.abi.properties import Path
from wasm_middleware.errors import (
    GuestBodyLimit,
    GuestError,
    GuestPaused,
    PluginFailure,
)
from wasm_middleware.proxy_wasm import properties
from wasm_middleware.proxy_wasm.buffers import EMPTY, Buffer
from wasm_middleware.proxy_wasm.context import ChainContext, RootContext
from wasm_middleware.proxy_wasm.flow import Flow
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.ports import Clock, Instances
from wasm_middleware.proxy_wasm.properties import PluginProperties
from wasm_middleware.proxy_wasm.reply import LocalReply, is_grpc
from wasm_middleware.proxy_wasm.vm import Vm

#: Failures are the host's to report: a plugin's own log level does not hide them.
_LOG = logging.getLogger("wasm_middleware")

#: The members of an enum take longer to look up than to compare.
_REQUEST_HEADERS = MapType.HTTP_REQUEST_HEADERS
_RESPONSE_HEADERS = MapType.HTTP_RESPONSE_HEADERS
_NUMBERS = itertools.count(1)
_NANOSECONDS = 1_000_000_000

#: What tracers tell each other: W3C Trace Context and Baggage, Zipkin's B3, Envoy's request id.
_TRACE_HEADERS = frozenset(
    (
        b"traceparent",
        b"tracestate",
        b"baggage",
        b"b3",
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-parentspanid",
        b"x-b3-sampled",
        b"x-b3-flags",
        b"x-request-id",
    )
)


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What plugins may ask about a request beside its headers."""

    #: Address and port of the client, and of the server; None on a unix socket.
    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None
    #: As ASGI has it: "1.0", "1.1", "2", "3".
    http_version: str = "1.1"
    tls_version: str | None = None
    #: The client's certificate (PEM) and its subject (RFC 4514), if it gave one that was accepted.
    peer_certificate: str | None = None
    peer_subject: str | None = None
    #: Why the client's certificate was not accepted.
    tls_failure: str | None = None
    route: str = ""


class StreamContext(ChainContext):
    """One plugin's context in one stream."""

    __slots__ = ("logged",)

    def __init__(
        self, vm: Vm, root: RootContext, stream: Stream, instances: Instances | None = None
    ) -> None:
        super().__init__(vm, root, stream, instances)

        if self.plugin.request_timeout is not None:
            self.time_left = int(self.plugin.request_timeout * _NANOSECONDS)

        self.logged = False

    def failed(self, error: PluginFailure) -> int:
        return self.stream.failed(self, error)

    @property
    def may_log(self) -> bool:
        """Whether one that is left out may still say what became of the request."""
        return self.created and not (self.plugin.fail_open or self.vm.guest.poisoned)

    async def end(self) -> None:
        """Run `on_done` and `on_delete`, once; what `on_done` answers is ignored, as in Envoy."""
        if not self.created:
            return

        self.created = False
        vm = self.vm

        try:
            if not vm.guest.poisoned:
                if vm.callbacks.done is not None:
                    await vm.enter(self, vm.callbacks.done, "on_done", self.id)

                if vm.callbacks.delete is not None:
                    await vm.enter(self, vm.callbacks.delete, "on_delete", self.id)

            self.tell_served()
        except GuestError as error:
            vm.report(error)
        finally:
            del vm.contexts[self.id]

    def header_map(self, map_type: int) -> HeaderMap | None:
        if map_type == _REQUEST_HEADERS:
            return self.stream.request.headers

        if map_type == _RESPONSE_HEADERS:
            return self.stream.response.headers

        if map_type == MapType.HTTP_RESPONSE_TRAILERS:
            return self.stream.response.trailers

        return super().header_map(map_type)

    def writable_map(self, map_type: int) -> HeaderMap | None:
        if map_type == _REQUEST_HEADERS:
            flow = self.stream.request
        elif map_type == _RESPONSE_HEADERS:
            flow = self.stream.response
        elif map_type == MapType.HTTP_RESPONSE_TRAILERS:
            return self.stream.response.trailers_for(self)
        else:
            return None

        return flow.headers if flow.headers_wait_for(self) else None

    def trace_headers(self) -> list[Pair]:
        headers = self.stream.request.headers
        pairs = headers.pairs if headers is not None else []
        return [pair for pair in pairs if pair[0] in _TRACE_HEADERS]

    def fail(self, error: GuestError) -> None:
        # Once is enough: its phase goes on, and may do it again.
        if not self.left_out:
            self.stream.failed(self, error)

    def instance_lost(self, error: GuestError) -> None:
        # A context that holds nothing back learns of it when it is called.
        if any(flow.is_paused_by(self) for flow in (self.stream.request, self.stream.response)):
            self.stream.failed(self, error)

    def buffer(self, buffer_type: int) -> Buffer | None:
        if buffer_type > BufferType.HTTP_RESPONSE_BODY:
            return super().buffer(buffer_type)

        response = buffer_type == BufferType.HTTP_RESPONSE_BODY
        flow = self.stream.response if response else self.stream.request
        lane = flow.lanes.get(self)

        if lane is not None and lane.buffer is not None:
            return lane.buffer

        # As Envoy has it: in the headers phase a body that is not there yet is an empty one.
        return EMPTY if flow.headers_wait_for(self) and flow.headers is not None else None

    def body_limit_exceeded(self, buffer_type: int) -> None:
        response = buffer_type == BufferType.HTTP_RESPONSE_BODY
        self.stream.body_limit_exceeded(self, response=response)

    def send_local_response(self, reply: LocalReply) -> None:
        self.stream.send_local_response(self, reply)

    def resume(self, *, response: bool) -> None:
        stream = self.stream
        flow = stream.response if response else stream.request

        if flow.resume(self):
            stream.wake()
        else:
            self.vm.log_refusal("proxy_continue_stream", "the plugin does not hold it back")

    def close(self) -> None:
        self.stream.close(self)

    def get_property(self, path: Path) -> bytes | None:
        return properties.get(self, path)

    def set_property(self, path: Path, value: bytes) -> bool:
        return self.stream.properties.store(path, value)


class Stream:
    """See the module's theory of operation. Belongs to one thread, and to one call at a time."""

    __slots__ = (
        "__weakref__",
        "aborted",
        "clock",
        "committed",
        "contexts",
        "describe",
        "ended_at",
        "finished",
        "interrupted",
        "may_add_trailers",
        "number",
        "on_wake",
        "properties",
        "reply",
        "request",
        "response",
        "started_at",
        "started_on",
    )

    request: Flow
    response: Flow
    properties: PluginProperties
    number: int
    started_on: int
    started_at: int
    ended_at: int
    describe: Callable[[], RequestInfo]

    def __init__(self, clock: Clock, describe: Callable[[], RequestInfo]) -> None:
        self.clock = clock
        #: No other stream of this process has it.
        self.number = next(_NUMBERS)
        #: Asked only when a plugin asks for what it describes.
        self.describe = describe
        self.contexts: list[StreamContext] = []
        self.request = Flow(self.contexts, response=False)
        self.response = Flow([], response=True)
        self.reply: LocalReply | None = None
        self.aborted: PluginFailure | None = None
        self.interrupted = False
        #: Set by the shell when the response start has gone out: too late for a reply.
        self.committed = False
        #: The server can send trailers, and the response's start can still announce them.
        self.may_add_trailers = False
        self.finished = False
        self.properties = PluginProperties()
        self.on_wake: Callable[[], object] | None = None
        self.started_on = clock.now()
        self.started_at = clock.monotonic()
        self.ended_at = 0

    def add(self, vm: Vm, config: bytes, instances: Instances | None = None) -> None:
        """Let a plugin take part, behind those that do; `config` names a root context of `vm`.

        It stays on `vm`, or on the one of `instances` that it is given at its first call.
        """
        self.contexts.append(StreamContext(vm, vm.roots[config], self, instances))

    def refuse(self, reply: LocalReply) -> None:
        """The host itself replies: a plugin that must run can't, say."""
        if self.reply is None:
            self._interrupt(reply)

    @property
    def has_noted_resume(self) -> bool:
        """Whether there is something for `proceed` to do."""
        return self.interrupted or any(
            lane.paused and lane.resume
            for flow in (self.request, self.response)
            for lane in flow.lanes.values()
        )

    async def start_response(self, headers: HeaderMap, *, end_of_stream: bool) -> None:
        """Let the application's response headers in."""
        self.response.contexts = self.contexts[::-1]
        await self.response.start(headers, end_of_stream=end_of_stream)

    async def begin_reply(self, *, head: bool) -> bytes:
        """Let the local reply in, headers and body; the body that is to be sent if it is direct.

        The answer to a HEAD request keeps its headers, and has no body.

        Afterwards the response flow holds it, unless it was interrupted once more.
        """
        reply = self.reply
        assert reply is not None
        pairs, body = reply.pairs(grpc=is_grpc(self.request.headers))
        self.interrupted = False
        # Whatever the request waited for, it waits no more.
        self.request.lanes.clear()
        headers = HeaderMap(pairs)
        self.response = flow = Flow([] if reply.direct else self.contexts[::-1], response=True)
        await flow.start(headers, end_of_stream=head or not body)

        if body and not head and not self.interrupted:
            await flow.feed(body, end_of_stream=True)

        return body

    async def proceed(self) -> None:
        """Carry out the resumes that were noted, in both directions."""
        await self.request.proceed()

        if not self.interrupted:
            await self.response.proceed()

    @property
    def paused_by(self) -> StreamContext | None:
        """The context that holds a direction back; the response's first."""
        return self.response.paused_by or self.request.paused_by

    async def expire(self, flow: Flow, context: StreamContext) -> None:
        """A context has held a direction for longer than its `pause_timeout`."""
        # It was resumed just before its time was up.
        if flow.paused_by is not context:
            return

        direction = "response" if flow.response else "request"
        what = "headers" if flow.headers_wait_for(context) else "body"
        error = GuestPaused(
            f"it paused the {direction} with its {what} and nothing resumed it within "
            f"{context.plugin.pause_timeout:g} s",
            plugin=context.plugin.name,
            phase=f"on_{direction}_{what}",
        )

        if self.failed(context, error) == Action.CONTINUE:
            await flow.release(flow.contexts.index(context))

    def wake(self) -> None:
        if self.on_wake is not None:
            self.on_wake()

    def send_local_response(self, context: StreamContext, reply: LocalReply) -> None:
        """Take a plugin's reply if it is the first and not too late."""
        why = (
            "the response is over"
            if self.finished
            else "the response has started"
            if self.committed
            else "there is a local reply already"
            if self.reply is not None
            else ""
        )

        if why:
            context.vm.log(LogLevel.WARN, f"a local reply ({reply.status}) came too late: {why}")

        if not why:
            self._interrupt(reply)
        elif self.committed and not self.finished:
            # As in Envoy: who replies now does not want the client to trust what it has got.
            self._cut(context, f"it replied ({reply.status}) when the response had started")

    def close(self, context: StreamContext) -> None:
        """End the stream at once: ASGI can't reset one, so it is a bare 503, or cut.

        It is what the plugin wants and no failure, so `fail_open` does not come into it.
        """
        if self.committed and not self.finished:
            self._cut(context, "it closed the stream")
        else:
            self.send_local_response(context, LocalReply(503, details="closed"))

    def _cut(self, context: StreamContext, reason: str) -> None:
        self._abort(GuestError(reason, plugin=context.plugin.name))

    def _abort(self, error: PluginFailure) -> None:
        """Too late for a reply: what has started can only be cut."""
        self.aborted = error
        self.interrupted = True
        self.wake()

    def failed(self, context: StreamContext, error: PluginFailure) -> int:
        """Apply the failure policy; the action that the failed call counts as."""
        context.left_out = True
        plugin = context.plugin

        # Who has no instance to give says so himself.
        if isinstance(error, GuestError):
            context.vm.report(error)

        if plugin.fail_open or self.finished:
            self._release_all(context)
            return Action.CONTINUE

        if self.committed:
            self._abort(error)
        else:
            self._interrupt(LocalReply(503, details=error.kind))

        return Action.PAUSE

    def _release_all(self, context: StreamContext) -> None:
        """Let go what a context holds that is left out from now on."""
        for flow in (self.request, self.response):
            if flow.resume(context):
                self.wake()

    def body_limit_exceeded(self, context: StreamContext, *, response: bool) -> None:
        """A plugin gathers or makes more than it may: 413 for a request, 500 for a response."""
        # How it ends is settled, or it has ended; the guest may go on for all of its time.
        if self.interrupted or self.finished:
            return

        plugin = context.plugin
        direction = "response" if response else "request"

        if context.vm.admits(logging.ERROR):
            _LOG.error(
                "plugin %r: it holds a %s body of more than its body_limit of %d bytes",
                plugin.name,
                direction,
                plugin.body_limit,
                extra={"plugin": plugin.name, "phase": f"on_{direction}_body"},
            )

        if self.committed:
            self._abort(GuestBodyLimit("body_limit", plugin=plugin.name))
        else:
            self._interrupt(LocalReply(500 if response else 413, details="body_limit"))

    def _interrupt(self, reply: LocalReply) -> None:
        if self.response.headers is not None:
            reply = LocalReply(
                reply.status,
                reply.headers,
                reply.body,
                reply.details,
                reply.grpc_status,
                direct=True,
            )

        self.reply = reply
        self.interrupted = True
        self.wake()

    def end(self) -> None:
        """The last of the response goes out: from now on nothing can be replied, held or cut."""
        if not self.finished:
            self.finished = True
            self.ended_at = self.clock.monotonic()

    async def finish(self) -> None:
        """Run the last callbacks of every context, once.

        Cancelled, it may be called again and goes on where it was.
        """
        self.end()

        for context in self.contexts:
            callback = context.vm.callbacks.log

            # A plugin that only logs is first called here. One that has failed a request that was
            # then refused may still say so.
            if (
                callback is not None
                and not context.logged
                and (not context.left_out or context.may_log)
            ):
                context.logged = True
                await context.call(callback, "on_log")

        for context in self.contexts:
            await context.end()

        # They know the stream. Freed with it, they are no garbage that is collected while all
        # other requests wait.
        self.contexts.clear()
        self.request.close()
        self.response.close()
        self.on_wake = None
