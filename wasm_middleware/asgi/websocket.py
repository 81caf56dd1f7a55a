"""A websocket's handshake: an HTTP request whose headers pass the chain.

A plugin that replies denies the handshake: with its own response where the server can send one
(the `websocket.http.response` extension), else with a close before the accept, which servers answer
403. Afterwards frames pass untouched, and the stream is finished when the connection is over.
"""

from __future__ import annotations

from wasm_middleware.asgi.exchange import Exchange, reply_message
from wasm_middleware.asgi.types import Message, Receive, Scope
from wasm_middleware.proxy_wasm.headers import HeaderMap

#: RFC 6455, 7.4.1: the policy of this side forbids it.
_POLICY_VIOLATION = 1008


class Handshake(Exchange):
    """One websocket connection."""

    __slots__ = ()

    def _ends_with_headers(self, headers: HeaderMap) -> bool:
        return True

    async def _serve(self, scope: Scope) -> None:
        await self._app(scope, self._receive_through(), self._send)

    def _receive_through(self) -> Receive:
        if self._message is None:
            return self._receive

        async def receive() -> Message:
            message, self._message = self._message, None
            return message if message is not None else await self._receive()

        return receive

    async def _send_reply(self, body: bytes) -> None:
        if self._message is None:
            await self._receive()

        self._stream.committed = True

        if "websocket.http.response" in self._scope.get("extensions", {}):
            start = reply_message(self._stream, body)
            await self._send({**start, "type": "websocket.http.response.start"})
            await self._send(
                {"type": "websocket.http.response.body", "body": body, "more_body": False}
            )
        else:
            await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})

        await self._finish()
