"""How a websocket's handshake is denied."""

from __future__ import annotations

from wasm_middleware.asgi.types import Message, Scope, Send

#: RFC 6455, 7.4.1: the policy of this side forbids it.
_POLICY_VIOLATION = 1008


async def deny(scope: Scope, send: Send, start: Message, end: Message) -> None:
    """Answer a handshake with a response, or with a close where the server can't send one."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
        return

    for message in (start, end):
        await send({**message, "type": f"websocket.{message['type']}"})


async def deny_bare(scope: Scope, send: Send, status: int) -> None:
    """Answer a handshake with a response that has a status and nothing else."""
    headers = [(b"content-length", b"0")]
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    end: Message = {"type": "http.response.body", "body": b"", "more_body": False}
    await deny(scope, send, start, end)
