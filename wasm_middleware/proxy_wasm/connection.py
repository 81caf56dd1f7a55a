"""One websocket connection on its way through the network plugins of a chain.

Theory of operation
-------------------
A connection is to these plugins what a TCP connection is to Envoy's network filters: the client is
downstream, the application upstream, and what they send each other is data. `open` runs
`on_new_connection` in chain order; each context is created there. Then the shell feeds messages
into the two directions, `downstream` (from the client, in chain order) and `upstream` (from the
application, in reverse), and takes out what they let pass. Nothing here waits. After each step the
shell looks at:

- `opened`: whether the new connection has passed every context. Until then there is no data.
- `closing`: a plugin closes the connection, or has failed. No data passes from then on: neither
  what is held, nor what the guest was being shown (as in Envoy, which flushes what filters have let
  go and drops the rest).
- a direction's `output` and `output_ended`.
- `deadline`: when `expire` is to be called.

A resume is noted at any time, and `on_wake` called; `proceed` carries it out.

Each direction ends once: with the peer's last message, when `feed` says so. A connection that ends
in any other way gets the callbacks it still lacks in `finish`, and then each context its `on_done`,
`on_log` and `on_delete`: for TCP that is Envoy's order (`Context::onCloseTCP`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wasm_middleware import limits
from wasm_middleware.abi.enums import Action, BufferType, LogLevel, PeerType
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.abi.properties import Path
from wasm_middleware.errors import GuestBodyLimit, GuestError, GuestPaused, PluginFailure
from wasm_middleware.proxy_wasm.buffers import Buffer
from wasm_middleware.proxy_wasm.context import ChainContext, RootContext
from wasm_middleware.proxy_wasm.direction import Direction
from wasm_middleware.proxy_wasm.ports import Instances
from wasm_middleware.proxy_wasm.reply import LocalReply
from wasm_middleware.proxy_wasm.stream import Stream, StreamContext
from wasm_middleware.proxy_wasm.vm import Vm

#: Failures are the host's to report: a plugin's own log level does not hide them.
_LOG = logging.getLogger("wasm_middleware")

_NANOSECONDS = 1_000_000_000

# RFC 6455, 7.4.1.
NORMAL_CLOSURE = 1000
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a connection is closed from within; `code` is what the client is told."""

    code: int
    #: The plugin failed, rather than having asked for it.
    failed: bool = False


class ConnectionContext(ChainContext):
    """One plugin's context in one connection."""

    __slots__ = ("_handshake", "closed", "connection")

    def __init__(
        self, vm: Vm, root: RootContext, connection: Connection, instances: Instances | None
    ) -> None:
        super().__init__(vm, root, connection.handshake, instances)
        self.connection = connection
        #: The directions of whose close it was told.
        self.closed: set[Direction] = set()
        # What it answers about the request that began the connection.
        self._handshake = StreamContext(vm, root, connection.handshake)

    def failed(self, error: PluginFailure) -> int:
        return self.connection.failed(self, error)

    def move_to(self, vm: Vm) -> None:
        super().move_to(vm)
        self._handshake.move_to(vm)

    async def end(self) -> None:
        """Run the last callbacks, once; what `on_done` answers is ignored, as in Envoy."""
        if not self.created:
            return

        self.created = False
        vm = self.vm
        callbacks = vm.callbacks

        try:
            if callbacks.done is not None and not vm.guest.poisoned:
                await vm.enter(self, callbacks.done, "on_done", self.id)

            if callbacks.log is not None and not (self.left_out or vm.guest.poisoned):
                await vm.enter(self, callbacks.log, "on_log", self.id)

            if callbacks.delete is not None and not vm.guest.poisoned:
                await vm.enter(self, callbacks.delete, "on_delete", self.id)
        except GuestError as error:
            vm.report(error)
        finally:
            del vm.contexts[self.id]

    def buffer(self, buffer_type: int) -> Buffer | None:
        connection = self.connection

        if buffer_type == BufferType.DOWNSTREAM_DATA:
            lane = connection.downstream.lanes.get(self)
        elif buffer_type == BufferType.UPSTREAM_DATA:
            lane = connection.upstream.lanes.get(self)
        else:
            return super().buffer(buffer_type)

        return lane.buffer if lane is not None else None

    def body_limit_exceeded(self, buffer_type: int) -> None:
        connection = self.connection
        upstream = buffer_type == BufferType.UPSTREAM_DATA
        connection.limit_exceeded(self, connection.upstream if upstream else connection.downstream)

    def resume_connection(self, *, upstream: bool) -> None:
        connection = self.connection
        direction = connection.upstream if upstream else connection.downstream

        if direction.resume(self):
            connection.wake()
        else:
            self.vm.log_refusal("proxy_continue_stream", "the plugin does not hold it back")

    def close_connection(self, *, upstream: bool) -> None:
        self.connection.close(self, upstream=upstream)

    def send_local_response(self, reply: LocalReply) -> None:
        self.vm.log(
            LogLevel.WARN, f"a local reply ({reply.status}) is ignored: this is no HTTP stream"
        )

    def instance_lost(self, error: GuestError) -> None:
        if self.connection.holds(self):
            self.connection.failed(self, error)

    def get_property(self, path: Path) -> bytes | None:
        return self._handshake.get_property(path)

    def set_property(self, path: Path, value: bytes) -> bool:
        return self._handshake.set_property(path, value)

    def trace_headers(self) -> list[Pair]:
        return self._handshake.trace_headers()


class Connection:
    """See the module's theory of operation. Belongs to one thread, and to one call at a time.

    `handshake` is the request that began it: what plugins ask about that, and the properties that
    they set, are the same for its HTTP plugins and for these.
    """

    __slots__ = (
        "_opening",
        "_position",
        "clock",
        "closing",
        "contexts",
        "downstream",
        "finished",
        "handshake",
        "on_wake",
        "upstream",
    )

    def __init__(self, handshake: Stream) -> None:
        self.handshake = handshake
        self.clock = handshake.clock
        self.contexts: list[ConnectionContext] = []
        self.downstream = Direction(self, upstream=False)
        self.upstream = Direction(self, upstream=True)
        self.closing: Closing | None = None
        self.finished = False
        #: Called when a plugin asks to go on or to close, at any time and inside of host calls.
        self.on_wake: Callable[[], None] | None = None
        #: The first context that the new connection has not passed; whether it has been shown.
        self._position = 0
        self._opening = False

    def add(self, vm: Vm, config: bytes, instances: Instances | None = None) -> None:
        """Let a plugin take part, as `Stream.add` does."""
        context = ConnectionContext(vm, vm.roots[config], self, instances)
        self.contexts.append(context)
        self.downstream.contexts.append(context)
        self.upstream.contexts.insert(0, context)

    @property
    def opened(self) -> bool:
        """Whether the new connection has passed every context."""
        return self._position == len(self.contexts)

    @property
    def opening_waits_for(self) -> ConnectionContext | None:
        """The context that holds the new connection, if it was shown to one."""
        return self.contexts[self._position] if self._opening and not self.opened else None

    async def open(self) -> None:
        """Show the new connection to the contexts, until one pauses; once."""
        self._opening = True

        while not self.opened:
            context = self.contexts[self._position]
            callback = context.vm.callbacks.new_connection

            if not await self.downstream.call(context, callback, "on_new_connection"):
                return

            self._position += 1

    async def pass_on(self) -> None:
        """Let the new connection pass the context that held it, and go on."""
        self._position += 1
        await self.open()

    async def proceed(self) -> None:
        """Carry out the resumes that were noted, in both directions."""
        for direction in (self.downstream, self.upstream):
            if self.closing is None:
                await direction.proceed()

    def holds(self, context: ConnectionContext) -> bool:
        """Whether a context holds something back."""
        lanes = (direction.lanes.get(context) for direction in (self.downstream, self.upstream))
        return any(lane is not None and lane.paused for lane in lanes)

    @property
    def deadline(self) -> int | None:
        """When the first pause is over, in nanoseconds of the monotonic clock; None without one.

        What arrives while a context holds on, and is shown to it, begins its time anew.
        """
        return min((ends for ends, _, _ in self._pauses()), default=None)

    def _pauses(self) -> Iterator[tuple[int, Direction, ConnectionContext]]:
        if self.closing is None and not self.finished:
            for direction in (self.downstream, self.upstream):
                for context, lane in direction.lanes.items():
                    if lane.paused:
                        patience = int(context.plugin.pause_timeout * _NANOSECONDS)
                        yield lane.paused_at + patience, direction, context

    async def expire(self) -> None:
        """Apply the failure policy to those that have held on for longer than they may."""
        now = self.clock.monotonic()

        for ends, direction, context in list(self._pauses()):
            lane = direction.lanes[context]

            if ends > now or lane.resume or self.closing is not None:
                continue

            opening = context is self.opening_waits_for
            phase = "on_new_connection" if opening else f"on_{direction.name}_data"
            what = "the new connection" if opening else f"{direction.name} data"
            error = GuestPaused(
                f"it paused {what} and nothing resumed it within "
                f"{context.plugin.pause_timeout:g} s",
                plugin=context.plugin.name,
                phase=phase,
            )
            self.failed(context, error)

        await self.proceed()

    def wake(self) -> None:
        if self.on_wake is not None:
            self.on_wake()

    def close(self, context: ConnectionContext, *, upstream: bool) -> None:
        """A plugin ends the connection; the first one's wish counts.

        Closing downstream is a verdict on the client; closing upstream an ordinary end. It is what
        the plugin wants and no failure, so `fail_open` does not come into it.
        """
        if self.closing is not None or self.finished:
            context.vm.log_refusal("proxy_close_stream", "the connection is closed already")
            return

        self._close(Closing(NORMAL_CLOSURE if upstream else POLICY_VIOLATION))

    def _close(self, closing: Closing) -> None:
        self.closing = closing
        self.wake()

    def failed(self, context: ConnectionContext, error: PluginFailure) -> int:
        """Apply the failure policy; the action that the failed call counts as."""
        context.left_out = True
        plugin = context.plugin

        # Who has no instance to give says so himself.
        if isinstance(error, GuestError):
            context.vm.report(error)

        if not (plugin.fail_open or self.closing is not None or self.finished):
            self._close(Closing(INTERNAL_ERROR, failed=True))
            return Action.PAUSE

        for direction in (self.downstream, self.upstream):
            if direction.resume(context):
                self.wake()

        return Action.CONTINUE

    def limit_exceeded(self, context: ConnectionContext, direction: Direction) -> None:
        """A plugin gathers more than it may. The sender is told, whatever the failure policy."""
        plugin = context.plugin
        phase = f"on_{direction.name}_data"
        error = GuestBodyLimit(
            f"it holds more than its body_limit of {plugin.body_limit} bytes, or "
            f"{limits.MAX_GATHERED_MESSAGES} messages",
            plugin=plugin.name,
            phase=phase,
        )
        _LOG.error("%s", error, extra={"plugin": plugin.name, "phase": phase})
        self._close(Closing(MESSAGE_TOO_BIG, failed=True))

    async def closed(self, direction: Direction, peer: PeerType) -> None:
        """Tell every context that one side of the connection is closed, once.

        `peer` is who closed it, as seen from the plugin: REMOTE is the client downstream, and the
        application upstream.
        """
        for context in direction.contexts:
            if not context.created or direction in context.closed:
                continue

            context.closed.add(direction)
            callbacks = context.vm.callbacks
            upstream = direction.upstream
            callback = callbacks.upstream_close if upstream else callbacks.downstream_close

            if callback is not None and not context.left_out:
                await context.call(callback, f"on_{direction.name}_connection_close", peer)

    async def finish(self) -> None:
        """Run the last callbacks of every context, once: the connection is over, or never was.

        Cancelled, it may be called again and goes on where it was.
        """
        self.finished = True

        for direction in (self.downstream, self.upstream):
            await self.closed(direction, PeerType.LOCAL)

        for context in self.contexts:
            await context.end()
