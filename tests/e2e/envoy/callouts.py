"""What plugins call: an upstream that answers with what it was asked, or fails as its path says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping

Message = MutableMapping[str, object]


#: What proxies say of themselves.
_OF_PROXIES = (b"x-envoy-", b"x-forwarded-")


class Failed(Exception):
    """The upstream fails, as its path says."""


async def answer_callout(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    path = scope["path"]
    body = b""
    more = True

    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)

    if path == "/slow":
        # Whoever called gives up before.
        await asyncio.wait_for(_until_gone(receive), 30)
        return

    # In one order: hosts may send the headers of a call in another.
    headers = sorted(pair for pair in scope["headers"] if not pair[0].startswith(_OF_PROXIES))
    lines = [f"{scope['method']} {path}".encode(), *(b"%b: %b" % pair for pair in headers), body]
    answer = b"; ".join(lines)
    status = 500 if path == "/500" else 200
    head = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": status, "headers": head})

    if path == "/cut":
        await send({"type": "http.response.body", "body": answer[:5], "more_body": True})
        raise Failed

    await send({"type": "http.response.body", "body": answer})


async def _until_gone(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
