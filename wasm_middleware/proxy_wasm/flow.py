"""One direction of a stream: headers, a body, and trailers, through the contexts of a chain.

Theory of operation
-------------------
Headers pass the contexts one after another; `position` is the first context that they have not
passed. A context that answers Pause keeps them there. Body data follows, context by context, and
comes out as `output`. Each context sees a chunk once; while it answers Pause, what it has seen
gathers in its lane's buffer, and its callback is told the size of all of it (Envoy's model).

A context whose headers wait gets no data (Envoy's default, StopAllIteration): what reaches it is
held in its lane and shown to it when they go on. With `allow_on_headers_stop_iteration` the data
flows to it while its headers wait after a StopIteration, and its first Continue lets both go.

Beside the specification's Continue and Pause, a callback may answer with the numbers of
proxy-wasm-cpp-sdk: the StopAll kinds hold data back whatever is allowed, StopIterationNoBuffer
drops the chunk, ContinueAndEndStream is Continue (Envoy). An unknown number stops, as in
proxy-wasm-cpp-host.

Trailers, if there are any, end the flow in the place of a last chunk: they are shown to a context
even while it gathers the body, and its Continue lets both go.

A resume is noted on the lane (`resume`), at any time, and carried out by `proceed`, or at once
when it was called for from within the very callback that then answers Pause.

Nothing here waits: a method returns when the flow can't go on, and the shell calls again when there
is more data, or `proceed` when the stream was woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_middleware.abi.enums import Action, DataStatus, HeadersStatus
from wasm_middleware.proxy_wasm.buffers import Buffer
from wasm_middleware.proxy_wasm.headers import HeaderMap

if TYPE_CHECKING:
    from wasm_middleware.proxy_wasm.ports import GuestFunction
    from wasm_middleware.proxy_wasm.stream import StreamContext

#: The members of an enum take longer to look up than to compare.
_CONTINUE = Action.CONTINUE


class Lane:
    """What one context holds of one direction."""

    __slots__ = (
        "buffer",
        "ended",
        "held",
        "held_end",
        "paused",
        "resume",
        "shown_trailers",
        "stops_all",
    )

    def __init__(self) -> None:
        #: What the guest sees as the body; None between callbacks that it let go on.
        self.buffer: Buffer | None = None
        #: Its last answer was Pause.
        self.paused = False
        #: It was asked to go on.
        self.resume = False
        #: Its headers wait, and no data is to be shown to it meanwhile.
        self.stops_all = False
        #: The buffer ends with the end of the body.
        self.ended = False
        #: It knows of the trailers; while it is paused they wait for it.
        self.shown_trailers = False
        #: Data that came while the headers waited, not yet shown.
        self.held: Buffer | None = None
        self.held_end = False


class Flow:
    """A direction. `contexts` stand in the order in which it passes them."""

    __slots__ = (
        "_calling",
        "_trailers_at",
        "bytes_seen",
        "contexts",
        "end_of_stream",
        "headers",
        "lanes",
        "output",
        "output_ended",
        "position",
        "response",
        "trailers",
    )

    bytes_seen: int
    headers: HeaderMap | None

    def __init__(self, contexts: list[StreamContext], *, response: bool) -> None:
        self.contexts = contexts
        self.response = response
        self.headers = None
        self.end_of_stream = False
        self.trailers: HeaderMap | None = None
        #: The first context that the trailers have not passed.
        self._trailers_at = 0
        self.position = 0
        self.bytes_seen = 0
        self.lanes: dict[StreamContext, Lane] = {}
        self.output: list[bytes] = []
        self.output_ended = False
        self._calling: StreamContext | None = None

    @property
    def passed(self) -> bool:
        """Whether the headers have passed every context."""
        return self.position == len(self.contexts)

    @property
    def trailers_passed(self) -> bool:
        """Whether there are trailers, and they have passed every context."""
        return self.trailers is not None and self._trailers_at == len(self.contexts)

    @property
    def paused_by(self) -> StreamContext | None:
        """The first context that holds something back, if there is one."""
        for context in self.contexts:
            lane = self.lanes.get(context)

            if lane is not None and lane.paused:
                return context

        return None

    def is_paused_by(self, context: StreamContext) -> bool:
        """Whether that context holds something back."""
        lane = self.lanes.get(context)
        return lane is not None and lane.paused

    @property
    def takes_body(self) -> bool:
        """Whether more data would be shown to the context that holds the flow back."""
        if self.passed:
            return True

        context = self.contexts[self.position]
        return (
            context.plugin.allow_on_headers_stop_iteration
            and self._body_callback(context) is not None
            and not self.lane(context).stops_all
        )

    async def start(self, headers: HeaderMap, *, end_of_stream: bool) -> None:
        """Let headers in, once."""
        self.headers = headers
        self.end_of_stream = end_of_stream
        await self._pass_headers()

    async def pass_more(self) -> None:
        """Let the headers pass contexts that were added behind the others."""
        await self._pass_headers()

    async def feed(self, data: bytes, *, end_of_stream: bool) -> None:
        """Let body data in."""
        self.bytes_seen += len(data)

        await self._pass_data(0, data, ended=end_of_stream)
        await self._pass_trailers()

    async def end(self, trailers: HeaderMap) -> None:
        """Let the trailers in, behind a body of which no chunk was the last."""
        self.trailers = trailers
        await self._pass_trailers()

    def trailers_for(self, context: StreamContext) -> HeaderMap | None:
        """The trailers, if they have not yet passed that context.

        Where there are none, it may add some while it is shown the last of the body, if they can
        still be sent (Envoy's `addEncodedTrailers`).
        """
        if self.trailers is not None:
            waits = context in self.contexts[self._trailers_at :]
            return self.trailers if waits else None

        lane = self.lanes.get(context)

        if self._calling is not context or lane is None or not lane.ended:
            return None

        if not (self.response and context.stream.may_add_trailers):
            return None

        self.trailers = HeaderMap([])
        self._trailers_at = self.contexts.index(context)
        lane.shown_trailers = True
        return self.trailers

    def close(self) -> None:
        """Nothing passes any more, and nobody is known here (see `Stream.finish`)."""
        self.contexts = []
        self.position = self._trailers_at = 0
        self._calling = None
        self.lanes.clear()

    def take_output(self) -> bytes:
        """What has come out since the last time."""
        output = self.output[0] if len(self.output) == 1 else b"".join(self.output)
        self.output.clear()
        return output

    def lane(self, context: StreamContext) -> Lane:
        lane = self.lanes.get(context)

        if lane is None:
            lane = self.lanes[context] = Lane()

        return lane

    def headers_wait_for(self, context: StreamContext) -> bool:
        """Whether the headers have not yet passed that context."""
        contexts, position = self.contexts, self.position
        # Mostly it is the one that is being asked.
        return position < len(contexts) and (
            contexts[position] is context or context in contexts[position:]
        )

    def resume(self, context: StreamContext) -> bool:
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

            await self.release(index)

            if context.stream.interrupted:
                return

    async def release(self, index: int) -> None:
        """Let go what the context at `index` holds back, as if it had answered Continue."""
        context = self.contexts[index]
        lane = self.lanes[context]
        lane.paused = lane.resume = False

        if index == self.position:
            self.position += 1
            await self._pass_headers()

            if context.stream.interrupted:
                return

        await self._let_go(index, lane)
        held, lane.held = lane.held, None

        if held is not None and not context.stream.interrupted:
            await self._pass_data(index, bytes(held.data), ended=lane.held_end)

        await self._pass_trailers()

    async def _let_go(self, index: int, lane: Lane) -> None:
        """Let what a context has gathered go to the one behind it."""
        buffer, lane.buffer = lane.buffer, None

        if buffer is not None:
            await self._pass_data(
                index + 1, bytes(buffer.data), ended=lane.ended and self.trailers is None
            )

    async def _pass_headers(self) -> None:
        contexts = self.contexts

        while self.position < len(contexts):
            if not await self._show_headers(contexts[self.position]):
                return

            self.position += 1

    async def _show_headers(self, context: StreamContext) -> bool:
        """Whether the headers may go on."""
        callbacks = context.vm.callbacks
        callback = callbacks.response_headers if self.response else callbacks.request_headers

        if callback is None or context.left_out:
            return True

        assert self.headers is not None
        self._calling = context
        action = await context.call(
            callback,
            "on_response_headers" if self.response else "on_request_headers",
            len(self.headers.pairs),
            self.end_of_stream,
        )
        self._calling = None

        if context.stream.interrupted:
            return False

        # Envoy has it go on, body and all, whatever the C++ SDK calls it.
        if action == HeadersStatus.CONTINUE_AND_END_STREAM:
            action = _CONTINUE

        if self._goes_on(context, action):
            return True

        self.lanes[context].stops_all = action != HeadersStatus.STOP_ITERATION
        return False

    def _goes_on(self, context: StreamContext, action: int) -> bool:
        """Note a context's answer; whether it lets go."""
        if action == _CONTINUE:
            if context in self.lanes:
                lane = self.lanes[context]
                lane.paused = lane.resume = False

            return True

        lane = self.lane(context)

        if lane.resume:
            lane.paused = lane.resume = False
            return True

        lane.paused = True
        return False

    async def _pass_trailers(self) -> None:
        contexts = self.contexts

        while self.trailers is not None and self._trailers_at < len(contexts):
            index = self._trailers_at
            context = contexts[index]

            if context.stream.interrupted or self._holds_data(index):
                return

            if not await self._shows_trailers(context):
                return

            if index == self.position:
                self.position += 1
                await self._pass_headers()

            self._trailers_at = index + 1

            # First what it has gathered, then they.
            if context in self.lanes and not context.stream.interrupted:
                await self._let_go(index, self.lanes[context])

    async def _shows_trailers(self, context: StreamContext) -> bool:
        """Whether the trailers, and what the context has gathered, may go on."""
        lane = self.lane(context)

        if lane.shown_trailers:
            return not lane.paused

        lane.shown_trailers = True
        callback = context.vm.callbacks.response_trailers if self.response else None

        if callback is None or context.left_out:
            return self._goes_on(context, _CONTINUE)

        assert self.trailers is not None
        self._calling = context
        action = await context.call(callback, "on_response_trailers", len(self.trailers.pairs))
        self._calling = None
        return not context.stream.interrupted and self._goes_on(context, action)

    def _holds_data(self, index: int) -> bool:
        """Whether the headers wait at that context or before it, and data with them."""
        return index > self.position or (index == self.position and not self.takes_body)

    async def _pass_data(self, index: int, data: bytes, *, ended: bool) -> None:
        while index < len(self.contexts):
            context = self.contexts[index]

            if self._holds_data(index):
                self._hold(context, data, ended=ended)
                return

            passed = await self._show_data(context, data, ended=ended)

            if passed is None:
                return

            # It has added trailers: they are the end now.
            ended = ended and self.trailers is None

            if index == self.position:
                self.position += 1
                await self._pass_headers()

                if context.stream.interrupted:
                    return

            data = passed
            index += 1

        self.output.append(data)
        self.output_ended = ended

    async def _show_data(self, context: StreamContext, data: bytes, *, ended: bool) -> bytes | None:
        """What the context lets go of; None if it holds on, or the stream is over."""
        callback = self._body_callback(context)

        if callback is None:
            return self._left_by(context) + data

        lane = self.lane(context)
        lane.ended = ended

        if lane.buffer is None:
            lane.buffer = Buffer(data)
        else:
            lane.buffer.append(data)

        self._calling = context
        action = await context.call(
            callback,
            "on_response_body" if self.response else "on_request_body",
            len(lane.buffer),
            ended,
        )
        self._calling = None

        if context.stream.interrupted:
            return None

        if self._goes_on(context, action):
            buffer, lane.buffer = lane.buffer, None
            return bytes(buffer.data)

        # An unknown number is this too (proxy-wasm-cpp-host).
        if action >= DataStatus.STOP_ITERATION_NO_BUFFER:
            lane.buffer = Buffer()

        if len(lane.buffer) > context.plugin.body_limit:
            context.stream.body_limit_exceeded(context, response=self.response)

        return None

    def _left_by(self, context: StreamContext) -> bytes:
        """What a context that is left out has gathered, and has not been let go of yet."""
        lane = self.lanes.get(context)

        if lane is None or lane.buffer is None:
            return b""

        buffer, lane.buffer = lane.buffer, None
        lane.paused = lane.resume = False
        return bytes(buffer.data)

    def _body_callback(self, context: StreamContext) -> GuestFunction | None:
        if context.left_out:
            return None

        callbacks = context.vm.callbacks
        return callbacks.response_body if self.response else callbacks.request_body

    def _hold(self, context: StreamContext, data: bytes, *, ended: bool) -> None:
        lane = self.lane(context)
        lane.held = lane.held or Buffer()
        lane.held.append(data)
        lane.held_end = ended

        if len(lane.held) > context.plugin.body_limit:
            context.stream.body_limit_exceeded(context, response=self.response)
