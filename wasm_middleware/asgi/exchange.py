"""One HTTP request in the shell: it carries messages between server, plugins and application.

Theory of operation
-------------------
`run` lets the request headers through the chain, then calls the application with a `receive` and a
`send` of its own. `receive` pulls: one message of the server for what the application (or a plugin
that waits for more) needs, and nothing ahead (`inbox`). `send` pushes the response through the
chain in reverse (`response`). A request that no plugin changed reaches the application as the very
same scope.

A local reply takes the place of the response: what the application still sends is dropped, and its
`receive` says that the client is gone. A failure after the start has gone out can't be told to the
client; the exchange raises `StreamAborted` through the application, and the server cuts the
connection.

While the application runs, a reply is sent by a task beside it, as soon as it is made: it may come
of an answer that nobody asks for at that moment, and a call of the application's that finds it may
be given up at any time. Whoever needs the reply to be sent waits for that one task.

When the last message is with the server, or the exchange ends in any other way, the stream is
finished. Calls into the core take turns: an application may receive and send at once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine, Sequence

import anyio

from wasm_middleware.asgi.inbox import Inbox
from wasm_middleware.asgi.response import Response, reply_messages
from wasm_middleware.asgi.scope import (
    changed_scope,
    describe,
    ends_with_headers,
    request_headers,
    target,
    without_file_extensions,
)
from wasm_middleware.asgi.state import with_properties
from wasm_middleware.asgi.turn import Turn
from wasm_middleware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from wasm_middleware.errors import (
    AbiViolation,
    ConfigError,
    PluginUnavailableError,
    StreamAborted,
)
from wasm_middleware.proxy_wasm.flow import Flow
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.reply import LocalReply
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.runtime.chains import Chain, Link
from wasm_middleware.services.background import Tasks

_LOG = logging.getLogger("wasm_middleware")

#: The one key that is added to a scope: the plugins that the request has passed, as a set.
SCOPE_KEY = "wasm_middleware"
#: What a router leaves in the scope for those outside of it.
_ROUTER_KEYS = ("route", "endpoint", "path_params", "state")
#: Seconds for the last callbacks of a request that was cancelled.
_FINISH_TIMEOUT = 5.0

FindChain = Callable[[Scope], Chain]


class Exchange:
    """One request and its response; used once. `find_chain` is asked again for a changed path."""

    __slots__ = (
        "_app",
        "_beside",
        "_find_chain",
        "_finished",
        "_receive",
        "_replied",
        "_scope",
        "chain",
        "cut",
        "inbox",
        "over",
        "send",
        "stream",
        "turn",
    )

    chain: Chain
    stream: Stream
    inbox: Inbox

    def __init__(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, find_chain: FindChain
    ) -> None:
        self._app, self._scope, self._receive = app, scope, receive
        self._find_chain = find_chain
        self.send = send
        self.turn = Turn()
        #: Nothing more of the application's goes to the server: its response is complete, a reply
        #: takes its place, or the client has gone.
        self.over = False
        #: What ends an exchange whose response can't be finished.
        self.cut: Exception | None = None
        #: What runs beside the application, once something does.
        self._beside: Tasks | None = None
        #: There is a reply; set when it has been sent, or cut what there was.
        self._replied: anyio.Event | None = None
        self._finished = False

    @property
    def is_head(self) -> bool:
        return self._scope.get("method") == "HEAD"

    @property
    def can_send_trailers(self) -> bool:
        """Whether the server has the extension for them."""
        return "http.response.trailers" in (self._scope.get("extensions") or ())

    async def run(self, chain: Chain) -> None:
        """Serve the request through a chain that is not empty."""
        scope = self._scope
        self.chain = chain
        clock = chain.links[0].plugin.services.clock
        self.stream = Stream(clock, functools.partial(describe, scope, chain.route))
        self.inbox = Inbox(self._receive, self.stream, self.turn)
        self.stream.on_wake = self.inbox.wake

        try:
            new_scope = await self._request_headers()

            if new_scope is not None:
                await self._run_app(new_scope)

            await self.finish()
        except GeneratorExit:
            # Its event loop was closed over it: nothing can be waited for any more.
            raise
        except BaseException:
            for link in self.chain.links:
                link.plugin.leave(self.stream)

            with anyio.CancelScope(shield=True), anyio.move_on_after(_FINISH_TIMEOUT):
                await self.finish()

            raise
        finally:
            if self._beside is not None:
                await self._beside.aclose()

    async def finish(self) -> None:
        """Run the plugins' last callbacks; what has been run is not run again."""
        self.over = True

        if self._finished:
            return

        await self.turn.run(self.stream.finish())
        self._finished = True
        # Whoever still watches over a pause has nothing to watch any more.
        self.inbox.wake()

    # While the application runs

    def run_beside(self, function: Callable[[], Coroutine[object, object, None]]) -> None:
        """Run something beside the application; what it raises ends the exchange.

        There it can't be raised: it is raised through the application, at its next message or when
        it has returned.
        """
        if self._beside is None:
            self._beside = Tasks()

        self._beside.run(self._guarded, function)

    async def _guarded(self, function: Callable[[], Coroutine[object, object, None]]) -> None:
        try:
            await function()
        except Exception as error:
            _LOG.debug("an exchange is to end: %r", error)
            self.over, self.cut = True, self.cut or error

    def _woken(self) -> None:
        """Something has become of the stream, from inside of a call into the core or outside."""
        self.inbox.wake()

        if self.stream.interrupted:
            self._begin_reply()

    def _begin_reply(self) -> None:
        if self._replied is None and not self.over:
            self._replied = anyio.Event()
            self.run_beside(self._reply_beside)

    async def _reply_beside(self) -> None:
        assert self._replied is not None

        try:
            await self._reply()
        finally:
            self._replied.set()

    async def reply(self) -> None:
        """Wait until a reply that there is has been sent; raises what cuts the response instead."""
        if self._replied is not None:
            await self._replied.wait()

        if self.cut is not None:
            raise self.cut

    async def _run_app(self, scope: Scope) -> None:
        passed = scope.get(SCOPE_KEY)
        scope[SCOPE_KEY] = self.chain.plugins if passed is None else self.chain.plugins | passed

        self.stream.on_wake = self._woken

        try:
            await self._serve(scope)
        except Exception as error:
            if self.stream.reply is None or error is self.cut:
                raise

            # Mostly ClientDisconnect: the application was told that its client is gone.
            _LOG.info("a plugin answered in the application's place, which then ended: %r", error)
            _LOG.debug("how it ended", exc_info=error)
        finally:
            if passed is None:
                del scope[SCOPE_KEY]
            else:
                scope[SCOPE_KEY] = passed

            if scope is not self._scope:
                for key in _ROUTER_KEYS:
                    if key in scope:
                        self._scope[key] = scope[key]

        # An application that swallowed it must not make a cut response look complete.
        await self.reply()

    async def _serve(self, scope: Scope) -> None:
        """Call the application; its `receive` is the server's own where no plugin reads along."""
        wraps = self.chain.wants_request_body or self.inbox.message is not None
        receive = self.receive if wraps else self._receive
        await self._app(scope, receive, Response(self).send)

    # The request's headers

    def _ends_with_headers(self, headers: HeaderMap) -> bool:
        return ends_with_headers(self._scope, headers)

    async def _request_headers(self) -> Scope | None:
        """Let the headers pass; the scope for the application, or None if it is not to run."""
        stream = self.stream
        headers = request_headers(self._scope)
        self.inbox.ended = ended = self._ends_with_headers(headers)
        await self._join(self.chain.links)

        if not stream.interrupted:
            await self.turn.run(stream.request.start(headers, end_of_stream=ended))
            await self._settle_request()

        if headers.pseudo_changed:
            await self._reroute(headers)

        scope = None

        if not (stream.interrupted or self.inbox.gone):
            try:
                scope = self._new_scope(headers)
            except AbiViolation as error:
                self._refuse(error)

        if stream.interrupted:
            await self._reply()

        return scope

    def _new_scope(self, headers: HeaderMap) -> Scope:
        scope, chain = self._scope, self.chain
        body_may_change = (
            chain.may_change_request_body
            and not self.stream.request.end_of_stream
            and any(name.lower() == b"content-length" for name, _ in self._scope["headers"])
        )

        if headers.changed or body_may_change:
            scope = changed_scope(scope, headers, body_may_change=body_may_change)

        if chain.wants_response_body:
            scope = without_file_extensions(scope)

        if chain.sets_properties:
            nested = SCOPE_KEY in scope
            scope = with_properties(scope, self.stream.properties, nested=nested)

        return scope

    async def _join(self, links: Sequence[Link]) -> None:
        """Let plugins take part in the stream; one without an instance gets its policy."""
        for link in links:
            if not self._takes(link):
                continue

            vm = link.plugin.any() or await self._replacement(link)

            if vm is not None:
                self._add(vm, link)

    def _takes(self, link: Link) -> bool:
        """Whether the plugin is one for this kind of exchange."""
        return not link.plugin.plugin.network

    def _add(self, vm: Vm, link: Link) -> None:
        self.stream.add(vm, link.config, link.plugin)

    async def _replacement(self, link: Link) -> Vm | None:
        try:
            return await link.plugin.take(self.stream)
        except PluginUnavailableError as error:
            if not link.plugin.plugin.fail_open:
                self.stream.refuse(LocalReply(503, details=error.kind))

            return None

    async def _reroute(self, headers: HeaderMap) -> None:
        """Let those plugins run that what became of the request asks for, and have not run yet.

        They may change it again: it ends when no plugin is left that has not run.
        """
        stream, request = self.stream, self.stream.request
        known = target(request_headers(self._scope))

        while not (stream.interrupted or self.inbox.gone) and target(headers) != known:
            known = target(headers)

            try:
                scope = changed_scope(self._scope, headers, body_may_change=False)
                links = self._find_chain(scope).links
            except (AbiViolation, ConfigError) as error:
                self._refuse(error)
                return

            added = [link for link in links if link.plugin not in self.chain.plugins]

            if added:
                self.chain = self.chain.extended(added)
                await self._join(added)

                if not stream.interrupted:
                    await self.turn.run(request.pass_more())
                    await self._settle_request()

    def _refuse(self, error: Exception) -> None:
        """A plugin made a request that HTTP, or the configuration, does not allow."""
        _LOG.error("a plugin broke the request: %s", error)
        self.stream.refuse(LocalReply(503, details="abi"))

    async def _settle_request(self) -> None:
        """Wait until no plugin holds the headers; feed those that want the body meanwhile."""
        flow, inbox = self.stream.request, self.inbox

        while not (flow.passed or self.stream.interrupted or inbox.gone):
            wants_body = flow.takes_body and not inbox.ended

            if wants_body and inbox.message is not None:
                await self._pull()
            else:
                await inbox.wait(flow, watch=True, wants_body=wants_body)

    # The request's body

    async def receive(self) -> Message:
        """The application's `receive`, where a plugin reads the request body."""
        flow, inbox = self.stream.request, self.inbox

        while True:
            if self.stream.interrupted or self.over:
                await self.reply()
                return {"type": "http.disconnect"}

            if flow.output:
                body, ended = flow.take_output(), flow.output_ended

                if body or ended:
                    return {"type": "http.request", "body": body, "more_body": not ended}

            # While a plugin holds on, what wakes it counts as well as what the client sends.
            if flow.paused_by is not None and inbox.message is None and not inbox.gone:
                await inbox.wait(flow, watch=True, wants_body=not inbox.ended)
            else:
                message = await self._pull()

                if message is not None:
                    return message

    async def _pull(self) -> Message | None:
        """Receive one message and show it to the plugins; return it if it is not for them."""
        flow, inbox = self.stream.request, self.inbox
        message = await inbox.receive()

        if message["type"] != "http.request":
            return message

        body, more = message.get("body", b""), message.get("more_body", False)

        # Its headers said that there is no body. If there is one all the same, plugins see it.
        if flow.end_of_stream and not body and not more:
            return message

        inbox.ended = not more

        # An application may give up on its `receive` at any time, but not on what was received.
        await self.turn.run(self.feed(flow, body, end_of_stream=not more))
        return None

    async def feed(self, flow: Flow, body: bytes, *, end_of_stream: bool) -> None:
        """Show plugins a part of a body, if that still matters; called in turn."""
        if not (self.stream.interrupted or self.over):
            await flow.feed(body, end_of_stream=end_of_stream)

    # Replies

    async def settle(self, flow: Flow) -> None:
        """Wait until no plugin holds the response; without a client there is none any more."""
        stream, inbox = self.stream, self.inbox

        while flow.paused_by is not None and flow is stream.response:
            if stream.interrupted or stream.finished:
                return

            if inbox.gone:
                self.over = True
                return

            await inbox.wait(flow)

    async def _reply(self) -> None:
        stream = self.stream
        body = b""
        self.over = True

        while stream.interrupted:
            if stream.aborted is not None:
                raise StreamAborted(str(stream.aborted))

            body = await self.turn.run(stream.begin_reply(head=self.is_head))
            await self.settle(stream.response)

            if stream.response.output and not stream.interrupted:
                body = stream.response.take_output()

        if self.inbox.gone:
            await self.finish()
        else:
            await self._send_reply(body)

    async def _send_reply(self, body: bytes) -> None:
        start, end = reply_messages(self.stream, body, head=self.is_head)
        self.stream.committed = True
        await self.send(start)

        # By another plugin, or a late answer, while the server took it.
        if self.stream.aborted is not None:
            raise StreamAborted(str(self.stream.aborted))

        self.stream.end()
        await self.send(end)
        await self.finish()
