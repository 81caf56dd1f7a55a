"""A websocket's handshake: an HTTP request whose headers pass the chain.

A plugin that replies denies the handshake: with its own response where the server can send one
(the `websocket.http.response` extension), else with a close before the accept, which servers answer
403. Afterwards frames pass untouched, and the stream is finished when the connection is over.
"""

from __future__ import annotations

from wasm_middleware.asgi.exchange import Exchange
from wasm_middleware.asgi.response import reply_messages
from wasm_middleware.asgi.types import Message, Scope, Send
from wasm_middleware.proxy_wasm.headers import HeaderMap

#: RFC 6455, 7.4.1: the policy of this side forbids it.
_POLICY_VIOLATION = 1008


class Handshake(Exchange):
    """One websocket connection."""

    __slots__ = ()

    def _ends_with_headers(self, headers: HeaderMap) -> bool:
        return True

    async def _serve(self, scope: Scope) -> None:
        # The answer is the application's, from its first message on.
        self.stream.committed = True
        receive = self._receive if self.inbox.message is None else self.inbox.receive
        await self._app(scope, receive, self.send)

    async def _send_reply(self, body: bytes) -> None:
        # The handshake is only there to be denied once it was received.
        await self.inbox.receive()
        start, end = reply_messages(self.stream, body, head=False)
        self.stream.committed = True
        await deny(self._scope, self.send, start, end)
        await self.finish()


async def deny(scope: Scope, send: Send, start: Message, end: Message) -> None:
    """Answer a handshake with a response, or with a close where the server can't send one."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
        return

    for message in (start, end):
        await send({**message, "type": f"websocket.{message['type']}"})
