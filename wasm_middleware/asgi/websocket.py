"""A websocket: a handshake, which is an HTTP request whose headers pass the chain, and then frames.

An HTTP plugin that replies denies the handshake: with its own response where the server can send
one (the `websocket.http.response` extension), else with a close before the accept, which servers
answer 403. Afterwards it sees nothing of the connection; that is for the network plugins of the
chain (`network`). Without such, frames pass untouched. The stream is finished when the connection
is over.
"""

from __future__ import annotations

from wasm_middleware.asgi.denial import deny
from wasm_middleware.asgi.exchange import Exchange, FindChain
from wasm_middleware.asgi.network import Socket
from wasm_middleware.asgi.response import reply_messages
from wasm_middleware.asgi.types import ASGIApp, Receive, Scope, Send
from wasm_middleware.proxy_wasm.connection import Connection
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.runtime.chains import Link


class Handshake(Exchange):
    """One websocket connection."""

    __slots__ = ("_connection",)

    def __init__(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, find_chain: FindChain
    ) -> None:
        super().__init__(app, scope, receive, send, find_chain)
        #: There is one if a network plugin takes part.
        self._connection: Connection | None = None

    def _takes(self, link: Link) -> bool:
        return True

    def _add(self, vm: Vm, link: Link) -> None:
        if not vm.plugin.network:
            super()._add(vm, link)
            return

        if self._connection is None:
            self._connection = Connection(self.stream)

        self._connection.add(vm, link.config, link.plugin)

    def _ends_with_headers(self, headers: HeaderMap) -> bool:
        return True

    async def _serve(self, scope: Scope) -> None:
        # The answer is the application's, from its first message on.
        self.stream.committed = True

        if self._connection is not None:
            socket = Socket(self._connection, self._scope, self.inbox.receive, self.send, self.turn)
            await socket.run(self._app, scope)
            return

        receive = self._receive if self.inbox.message is None else self.inbox.receive
        await self._app(scope, receive, self.send)

    def _begin_reply(self) -> None:
        # Afterwards the connection is not HTTP's any more: there is nothing to answer, or to cut.
        if not self.stream.committed:
            super()._begin_reply()

    async def _send_reply(self, body: bytes) -> None:
        # The handshake is only there to be denied once it was received.
        await self.inbox.receive()
        start, end = reply_messages(self.stream, body, head=False)
        self.stream.committed = True
        self.stream.end()
        await deny(self._scope, self.send, start, end)
        await self.finish()

    async def finish(self) -> None:
        if self._connection is not None:
            await self.turn.run(self._connection.finish())

        await super().finish()
