"""One direction of a connection: messages, through the network plugins of a chain.

Theory of operation
-------------------
A context sees one message in each callback, unless it pauses: then what reaches it gathers in its
lane's buffer, and its callback is told the size of all of it (Envoy's model). What it lets go
unchanged goes on as the messages that it was; what it has changed goes on as one message, or as
none if nothing is left. What no context holds comes out as `output`.

A resume is noted on the lane (`resume`), at any time, and carried out by `proceed`, or at once
when it was called for from within the very callback that then answers Pause.

Nothing here waits, and nothing passes once the connection is being closed: neither what is held,
nor what a guest was just being shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasm_middleware import limits
from wasm_middleware.abi.enums import Action, LogLevel, PeerType
from wasm_middleware.proxy_wasm.buffers import Buffer

if TYPE_CHECKING:
    from wasm_middleware.proxy_wasm.connection import Connection, ConnectionContext
    from wasm_middleware.proxy_wasm.ports import GuestFunction


@dataclass(frozen=True, slots=True)
class Chunk:
    """Data whose boundaries are kept: one websocket message."""

    data: bytes
    #: It is sent as text, and is UTF-8.
    text: bool = False


class Lane:
    """What one context holds of one direction."""

    __slots__ = ("buffer", "chunks", "ended", "paused", "paused_at", "resume")

    def __init__(self) -> None:
        #: What the guest sees; None between callbacks that it let go on.
        self.buffer: Buffer | None = None
        #: The same as it arrived.
        self.chunks: list[Chunk] = []
        #: It ends with the end of the direction.
        self.ended = False
        #: Its last answer was Pause; when that was, by the monotonic clock.
        self.paused = False
        self.paused_at = 0
        #: It was asked to go on.
        self.resume = False

    def gather(self, chunk: Chunk | None, *, ended: bool) -> Buffer:
        """Add what has arrived; all of it."""
        self.ended = ended

        if self.buffer is None:
            self.buffer = Buffer()

        if chunk is not None:
            self.buffer.append(chunk.data)
            self.chunks.append(chunk)

        return self.buffer

    def take(self) -> tuple[list[Chunk], bool]:
        """What the context lets go, and whether the direction ends with it."""
        buffer, chunks, ended = self.buffer, self.chunks, self.ended
        self.buffer, self.chunks, self.ended = None, [], False

        if buffer is not None and buffer.changed:
            chunks = list(_changed(bytes(buffer.data), chunks))

        return chunks, ended


def _changed(data: bytes, before: Sequence[Chunk]) -> Iterator[Chunk]:
    """One message of what a plugin made of some, if anything is left.

    Text stays text as long as it can be sent as such; what a plugin adds where nothing was counts
    as text too.
    """
    if data:
        yield Chunk(data, all(chunk.text for chunk in before) and _is_utf8(data))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False

    return True


class Direction:
    """What goes one way. `contexts` stand in the order in which it passes them."""

    __slots__ = (
        "_calling",
        "connection",
        "contexts",
        "lanes",
        "output",
        "output_ended",
        "upstream",
    )

    def __init__(self, connection: Connection, *, upstream: bool) -> None:
        self.connection = connection
        self.contexts: list[ConnectionContext] = []
        self.upstream = upstream
        self.lanes: dict[ConnectionContext, Lane] = {}
        self.output: deque[Chunk] = deque()
        self.output_ended = False
        self._calling: ConnectionContext | None = None

    @property
    def name(self) -> str:
        return "upstream" if self.upstream else "downstream"

    @property
    def paused(self) -> bool:
        """Whether a context holds it back."""
        return any(lane.paused for lane in self.lanes.values())

    async def feed(self, *chunks: Chunk, ended: bool = False) -> None:
        """Let messages in, and with `ended` the end behind them."""
        await self._pass(0, chunks, ended=ended)

    def lane(self, context: ConnectionContext) -> Lane:
        lane = self.lanes.get(context)

        if lane is None:
            lane = self.lanes[context] = Lane()

        return lane

    def resume(self, context: ConnectionContext) -> bool:
        """Note that a context wants to go on; False if it does not hold anything back."""
        lane = self.lanes.get(context)

        if self._calling is not context and (lane is None or not lane.paused):
            return False

        self.lane(context).resume = True
        return True

    async def proceed(self) -> None:
        """Carry out the resumes that were noted."""
        for index, context in enumerate(self.contexts):
            lane = self.lanes.get(context)

            if lane is None or not (lane.paused and lane.resume):
                continue

            lane.paused = lane.resume = False

            if context is self.connection.opening_waits_for:
                await self.connection.pass_on()
            else:
                chunks, ended = self._let_go(context, lane)
                await self._pass(index + 1, chunks, ended=ended)

            if self.connection.closing is not None:
                return

    async def call(
        self,
        context: ConnectionContext,
        function: GuestFunction | None,
        phase: str,
        *arguments: int,
    ) -> bool:
        """Show something to a context; whether it lets go what it holds."""
        self._calling = context

        try:
            action = await context.call(function, phase, *arguments)
        finally:
            self._calling = None

        if self.connection.closing is not None:
            return False

        lane = self.lane(context)
        # A resume from within the callback wins over its answer.
        lane.paused = action != Action.CONTINUE and not lane.resume
        lane.paused_at = self.connection.clock.monotonic()
        lane.resume = False
        return not lane.paused

    async def _pass(self, index: int, chunks: Sequence[Chunk], *, ended: bool) -> None:
        """Show messages to the contexts from `index` on; what none of them holds comes out."""
        connection = self.connection

        if connection.closing is not None:
            return

        if index == len(self.contexts):
            self.output.extend(chunks)

            if ended:
                self.output_ended = True
                await connection.closed(self, PeerType.REMOTE)

            return

        context = self.contexts[index]
        last = len(chunks) - 1
        rest: Sequence[Chunk | None] = chunks or ((None,) if ended else ())

        for position, chunk in enumerate(rest):
            shown = await self._show(context, chunk, ended=ended and position >= last)

            if shown is not None:
                await self._pass(index + 1, shown[0], ended=shown[1])

            if connection.closing is not None:
                return

    async def _show(
        self, context: ConnectionContext, chunk: Chunk | None, *, ended: bool
    ) -> tuple[list[Chunk], bool] | None:
        """What the context lets go; None if it holds on."""
        callbacks = context.vm.callbacks
        callback = callbacks.upstream_data if self.upstream else callbacks.downstream_data

        lane = self.lane(context)
        buffer = lane.gather(chunk, ended=ended)

        if callback is None or context.left_out:
            # It may have been left out while it held something: that goes first.
            lane.paused = lane.resume = False
            return self._let_go(context, lane)

        if await self.call(context, callback, f"on_{self.name}_data", len(buffer), ended):
            return self._let_go(context, lane)

        if self.connection.closing is not None:
            return None

        limit = context.plugin.body_limit

        if len(buffer) > limit or len(lane.chunks) > limits.MAX_GATHERED_MESSAGES:
            self.connection.limit_exceeded(context, self)

        return None

    def _let_go(self, context: ConnectionContext, lane: Lane) -> tuple[list[Chunk], bool]:
        """Take what a context lets go, and whether the direction ends with it."""
        was_text = bool(lane.chunks) and all(chunk.text for chunk in lane.chunks)
        chunks, ended = lane.take()

        if was_text and chunks and not chunks[0].text:
            context.vm.log(LogLevel.DEBUG, f"{self.name} text became binary: it is not UTF-8")

        return chunks, ended
