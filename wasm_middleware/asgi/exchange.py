"""One HTTP request in the shell: it carries messages between server, plugins and application.

Theory of operation
-------------------
`run` lets the request headers through the chain, then calls the application with a `receive` and a
`send` of its own. `receive` pulls: one message of the server for what the application (or a plugin
that waits for more) needs, and nothing ahead. `send` pushes the response through the chain in
reverse. A request that no plugin changed reaches the application as the very same scope.

The response start is held back only where a plugin may change the body and a content-length is
declared, until the first data comes out: then the length is made true, or removed.

A local reply takes the place of the response: what the application still sends is dropped, and its
`receive` says that the client is gone. A failure after the start has gone out can't be told to the
client; the exchange raises `StreamAborted` through the application, and the server cuts the
connection.

When the last message is with the server, the stream is finished, in the application's own task: the
client has its answer. The same happens when the exchange ends in any other way.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

import anyio

from wasm_middleware.asgi.scope import (
    changed_scope,
    describe,
    ends_with_headers,
    lowered,
    request_headers,
    request_path,
    without_file_extensions,
)
from wasm_middleware.asgi.turn import Turn
from wasm_middleware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from wasm_middleware.errors import AbiViolation, PluginLoadError, StreamAborted
from wasm_middleware.proxy_wasm.flow import Flow
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.reply import LocalReply
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.runtime.chains import Chain, Link

_LOG = logging.getLogger("wasm_middleware")

#: The one key that is added to a scope: the chain whose plugins the request has passed.
SCOPE_KEY = "wasm_middleware"
#: What a router leaves in the scope for those outside of it.
_ROUTER_KEYS = ("route", "endpoint", "path_params")
#: Seconds for the last callbacks of a request that was cancelled.
_FINISH_TIMEOUT = 5.0
#: How often plugins may change the path in a way that brings further plugins in.
_MAX_REROUTES = 8
_NO_BODY_STATUS = frozenset((204, 304))
_DISCONNECTS = ("http.disconnect", "websocket.disconnect")

FindChain = Callable[[Scope], Chain]


class Exchange:
    """One request and its response; used once. `find_chain` is asked again for a changed path."""

    __slots__ = (
        "_app",
        "_bodiless",
        "_chain",
        "_cut",
        "_find_chain",
        "_held_start",
        "_message",
        "_over",
        "_receive",
        "_request_ended",
        "_scope",
        "_send",
        "_stream",
        "_trailers",
        "_turn",
        "_woken",
    )

    def __init__(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, find_chain: FindChain
    ) -> None:
        self._app, self._scope, self._receive, self._send = app, scope, receive, send
        self._find_chain = find_chain
        self._turn = Turn()
        self._woken: anyio.Event | None = None
        #: A message that was received while a plugin held the headers.
        self._message: Message | None = None
        self._request_ended = False
        #: The response start, while it is held back.
        self._held_start: Message | None = None
        #: The response that is passing has no body, whatever is sent as one.
        self._bodiless = False
        self._trailers = False
        #: Nothing more goes to the server: a reply was sent, or the response is complete.
        self._over = False
        self._cut: StreamAborted | None = None

    async def run(self, chain: Chain) -> None:
        """Serve the request through a chain that is not empty."""
        scope = self._scope
        self._chain = chain
        clock = chain.links[0].plugin.services.clock
        self._stream = stream = Stream(clock, functools.partial(describe, scope, chain.route))
        stream.on_wake = self._wake

        try:
            new_scope = await self._request_headers()

            if new_scope is not None:
                await self._run_app(new_scope)
        except BaseException:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_FINISH_TIMEOUT):
                await self._finish()

            raise

        if not self._stream.finished:
            await self._finish()

    async def _run_app(self, scope: Scope) -> None:
        outer = scope.get(SCOPE_KEY)
        scope[SCOPE_KEY] = self._chain

        try:
            await self._serve(scope)
        except StreamAborted:
            raise
        except Exception as error:
            if not self._over or self._stream.reply is None:
                raise

            # Mostly ClientDisconnect: the application was told that its client is gone.
            _LOG.info("a plugin answered in the application's place, which then ended: %r", error)
            _LOG.debug("how it ended", exc_info=error)
        finally:
            if outer is None:
                del scope[SCOPE_KEY]
            else:
                scope[SCOPE_KEY] = outer

            if scope is not self._scope:
                for key in _ROUTER_KEYS:
                    if key in scope:
                        self._scope[key] = scope[key]

        # An application that swallowed it must not make a cut response look complete.
        if self._cut is not None:
            raise self._cut

    async def _serve(self, scope: Scope) -> None:
        """Call the application; its `receive` is the server's own where no plugin reads along."""
        wraps = self._chain.wants_request_body or self._message is not None
        await self._app(scope, self.receive if wraps else self._receive, self.send)

    # The request

    def _ends_with_headers(self, headers: HeaderMap) -> bool:
        return ends_with_headers(self._scope, headers)

    async def _request_headers(self) -> Scope | None:
        """Let the headers pass; the scope for the application, or None if it is not to run."""
        scope, stream = self._scope, self._stream
        headers = request_headers(scope)
        ended = self._ends_with_headers(headers)
        self._request_ended = ended
        path = request_path(scope)
        await self._join(self._chain.links)

        if not stream.interrupted:
            await stream.request.start(headers, end_of_stream=ended)
            await self._settle_request()

        for _ in range(_MAX_REROUTES):
            if stream.interrupted or not headers.changed or headers.get(b":path") == path:
                break

            path = headers.get(b":path") or b""
            await self._reroute(headers)

        if stream.interrupted:
            await self._reply()
            return None

        if self._is_gone():
            return None

        try:
            return self._new_scope(headers)
        except AbiViolation as error:
            await self._refuse_request(error)
            return None

    def _new_scope(self, headers: HeaderMap) -> Scope:
        scope, chain = self._scope, self._chain
        body_may_change = (
            not self._stream.request.end_of_stream
            and chain.may_change_request_body
            and headers.get(b"content-length") is not None
        )

        if headers.changed or body_may_change:
            scope = changed_scope(scope, headers, body_may_change=body_may_change)

        if chain.wants_response_body:
            scope = without_file_extensions(scope)

        return scope

    async def _join(self, links: Sequence[Link]) -> None:
        """Let plugins take part in the stream; one that can't be started gets its policy."""
        for link in links:
            vm = link.plugin.ready() or await self._replacement(link)

            if vm is not None:
                self._stream.add(vm, link.config)

    async def _replacement(self, link: Link) -> Vm | None:
        try:
            return await link.plugin.replace()
        except PluginLoadError as error:
            _LOG.error("%s", error)

            if not link.plugin.plugin.fail_open:
                self._stream.refuse(LocalReply(503, details="start"))

            return None

    async def _reroute(self, headers: HeaderMap) -> None:
        """A plugin changed the path: let those of the new path run that have not run yet."""
        try:
            scope = changed_scope(self._scope, headers, body_may_change=False)
        except AbiViolation:
            # What is wrong will be found, and said, when the application's scope is made.
            return

        present = {link.plugin for link in self._chain.links}
        added = [link for link in self._find_chain(scope).links if link.plugin not in present]

        if added:
            self._chain = self._chain.extended(added)
            passed = len(self._stream.contexts)
            await self._join(added)

            if not self._stream.interrupted and len(self._stream.contexts) > passed:
                await self._stream.request.pass_more()
                await self._settle_request()

    async def _refuse_request(self, error: AbiViolation) -> None:
        """A plugin made a request that HTTP does not allow."""
        _LOG.error("a plugin broke the request: %s", error)
        self._stream.refuse(LocalReply(503, details=error.kind))
        await self._reply()

    async def _settle_request(self) -> None:
        """Wait until no plugin holds the headers; feed those that want the body meanwhile."""
        flow, stream = self._stream.request, self._stream

        while not flow.passed and not stream.interrupted:
            if self._is_gone():
                return

            if flow.takes_body and not self._request_ended:
                await self._pull()
            else:
                await self._wait_for(flow, watch=True)

    async def receive(self) -> Message:
        """The application's `receive`, where a plugin reads the request body."""
        flow, stream = self._stream.request, self._stream

        while True:
            if self._over:
                return {"type": "http.disconnect"}

            if flow.output:
                body, ended = flow.take_output(), flow.output_ended

                if body or ended:
                    return {"type": "http.request", "body": body, "more_body": not ended}

            if self._request_ended and flow.paused_by is not None:
                await self._wait_for(flow, watch=False)
            else:
                message = await self._pull()

                if message is not None:
                    return message

            if stream.interrupted:
                await self._reply()

    async def _pull(self) -> Message | None:
        """Receive one message and show it to the plugins; return it if it is not for them."""
        message, self._message = self._message, None

        if message is None:
            message = await self._receive()

        if message["type"] != "http.request":
            if message["type"] == "http.disconnect" and not self._stream.request.passed:
                self._message = message

            return message

        body, more = message.get("body", b""), message.get("more_body", False)

        # Its headers said that there is no body. If there is one all the same, plugins see it.
        if self._stream.request.end_of_stream and not body and not more:
            return message

        self._request_ended = not more

        async with self._turn:
            await self._stream.request.feed(body, end_of_stream=not more)

        return None

    # Waiting

    async def _wait_for(self, flow: Flow, *, watch: bool) -> None:
        """Wait until a plugin that holds a flow lets go, or its time is up.

        With `watch` a client that goes away ends the wait too.
        """
        context = flow.paused_by

        if context is None:
            return

        with anyio.move_on_after(context.plugin.pause_timeout) as scope:
            while flow.paused_by is context and not self._stream.interrupted:
                if not await self._next_wake(watch=watch):
                    return

                async with self._turn:
                    await self._stream.proceed()

        if scope.cancelled_caught:
            async with self._turn:
                await self._stream.expire(context)

    async def _next_wake(self, *, watch: bool) -> bool:
        """Wait for `_wake`; False if the client has gone instead."""
        self._woken = woken = anyio.Event()

        if self._stream.has_noted_resume:
            return True

        if not watch or not self._may_peek():
            await woken.wait()
            return True

        async with anyio.create_task_group() as group:
            group.start_soon(self._peek)
            await woken.wait()
            group.cancel_scope.cancel()

        return not self._is_gone()

    def _is_gone(self) -> bool:
        """Whether the client went while a plugin held the headers."""
        message = self._message
        return message is not None and message["type"] in _DISCONNECTS

    def _may_peek(self) -> bool:
        """Whether one message may be received ahead, to see a client go.

        Not where that would send 100 Continue for a request that a plugin may still refuse, and not
        a second one: what the server has read ahead is its back-pressure.
        """
        expects = self._stream.request.headers
        return self._message is None and (
            expects is None or (expects.get(b"expect") or b"").lower() != b"100-continue"
        )

    async def _peek(self) -> None:
        message = await self._receive()

        # Of a request without body the first message is empty; the next is the disconnect.
        if message["type"] == "http.request" and self._request_ended:
            message = await self._receive()

        self._message = message

        if self._is_gone():
            self._wake()

    def _wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    # The response

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        if self._cut is not None:
            raise self._cut

        match message["type"]:
            case "http.response.start":
                if not self._over:
                    await self._response_start(message)
            case "http.response.body":
                if not self._over:
                    await self._response_body(message)
            case "http.response.trailers":
                if not self._over:
                    await self._flush_start()
                    await self._send(message)

                    if not message.get("more_trailers", False):
                        await self._complete()
            case _:
                if not self._over:
                    await self._flush_start()
                    await self._send(message)

    async def _response_start(self, message: Message) -> None:
        status = message["status"]
        headers = HeaderMap([(b":status", b"%d" % status), *lowered(message.get("headers", ()))])
        length = headers.get(b"content-length")
        self._trailers = message.get("trailers", False)
        self._bodiless = (
            self._scope["method"] == "HEAD" or status < 200 or status in _NO_BODY_STATUS
        )
        ended = self._bodiless or (length == b"0" and not self._trailers)
        flow = self._stream.response

        async with self._turn:
            await self._stream.start_response(headers, end_of_stream=ended)

        if not flow.passed and (ended or not flow.takes_body):
            await self._wait_for(flow, watch=False)

        if self._stream.interrupted:
            await self._reply()
            return

        self._held_start = message
        may_change = self._chain.may_change_response_body and length is not None and not ended

        if flow.passed and not may_change:
            await self._flush_start()

    async def _response_body(self, message: Message) -> None:
        flow = self._stream.response
        more = message.get("more_body", False)

        if self._bodiless or not self._chain.wants_response_body:
            flow.bytes_seen += len(message.get("body", b""))
            await self._flush_start()
            await self._send(message)

            if not more:
                await self._body_complete()

            return

        async with self._turn:
            await flow.feed(message.get("body", b""), end_of_stream=not more)

        if not more and not self._stream.interrupted:
            await self._wait_for(flow, watch=False)

        if self._stream.interrupted:
            await self._reply()
            return

        if flow.output:
            body, ended = flow.take_output(), flow.output_ended
            await self._flush_start(body if ended else None)

            if body or ended:
                await self._send({**message, "body": body, "more_body": not ended})

            if ended:
                await self._body_complete()

    async def _flush_start(self, whole_body: bytes | None = None) -> None:
        """Send the start that was held back, with a true content-length or none."""
        message, self._held_start = self._held_start, None

        if message is None:
            return

        headers = self._stream.response.headers
        assert headers is not None

        if (
            self._chain.may_change_response_body
            and not self._bodiless
            and not self._stream.response.end_of_stream
            and headers.get(b"content-length") is not None
        ):
            if whole_body is not None:
                headers.replace(b"content-length", b"%d" % len(whole_body))
            else:
                headers.remove(b"content-length")

        self._stream.committed = True

        if headers.changed:
            status = _status(headers, message["status"])
            pairs = [pair for pair in headers.pairs if pair[0][:1] != b":"]
            message = {**message, "status": status, "headers": pairs}

        await self._send(message)

    async def _body_complete(self) -> None:
        if not self._trailers:
            await self._complete()

    async def _complete(self) -> None:
        self._over = True
        await self._finish()

    async def _finish(self) -> None:
        async with self._turn:
            await self._stream.finish()

    async def _reply(self) -> None:
        """Answer in the application's place, or cut a response that has started."""
        stream = self._stream
        body = b""
        head = self._scope.get("method") == "HEAD"

        while stream.interrupted:
            if stream.aborted is not None:
                self._over = True
                self._cut = StreamAborted(str(stream.aborted))
                raise self._cut

            async with self._turn:
                body = await stream.begin_reply(head=head)

            flow = stream.response

            while flow.paused_by is not None and not stream.interrupted:
                await self._wait_for(flow, watch=False)

            if flow.output and not stream.interrupted:
                body = flow.take_output()

        self._over = True
        self._held_start = None
        await self._send_reply(b"" if head else body)

    async def _send_reply(self, body: bytes) -> None:
        self._stream.committed = True
        await self._send(reply_message(self._stream, body))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        await self._finish()


def reply_message(stream: Stream, body: bytes) -> Message:
    """The start of a local reply as the response phases left it, for the body that follows."""
    headers = stream.response.headers
    assert headers is not None

    if body and headers.get(b"content-length") != b"%d" % len(body):
        headers.replace(b"content-length", b"%d" % len(body))

    pairs = [pair for pair in headers.pairs if pair[0][:1] != b":"]
    return {"type": "http.response.start", "status": _status(headers, 500), "headers": pairs}


def _status(headers: HeaderMap, default: int) -> int:
    """The status that plugins left, if it is one that can be sent."""
    value = headers.get(b":status") or b""

    if len(value) == 3 and value.isdigit() and 100 <= int(value) <= 599:
        return int(value)

    _LOG.warning("a plugin set :status to %r, which is none; %d is sent", value[:20], default)
    return default
