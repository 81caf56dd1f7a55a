"""A request without a server: the cost of what is in front of an endpoint, and of nothing else.

Rounds are interleaved, so that what slows the machine down for a while slows all applications
down. Garbage is collected before each round, and as ever in it: what an application leaves behind
is a part of what it costs. The best round counts, since noise only ever adds.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping, MutableMapping

from starlette.types import ASGIApp, Message, Scope

_HEADERS = [
    (b"host", b"localhost"),
    (b"user-agent", b"curl/8.0"),
    (b"accept", b"*/*"),
    (b"authorization", b"Bearer a.b.c"),
]


def measure(apps: Mapping[str, ASGIApp], *, rounds: int, requests: int) -> dict[str, float]:
    """Microseconds a request, by application."""
    return asyncio.run(_measure(apps, rounds, requests))


async def _measure(apps: Mapping[str, ASGIApp], rounds: int, requests: int) -> dict[str, float]:
    best: MutableMapping[str, float] = {}

    for name, app in apps.items():
        await _check(name, app)
        await _round(app, requests // 2)

    for _ in range(rounds):
        for name, app in apps.items():
            gc.collect()
            seconds = await _round(app, requests)
            best[name] = min(best.get(name, seconds), seconds)

    return {name: seconds / requests * 1e6 for name, seconds in best.items()}


async def _round(app: ASGIApp, requests: int) -> float:
    started = time.perf_counter()

    for _ in range(requests):
        await app(_scope(), _receive, _send)

    return time.perf_counter() - started


async def _check(name: str, app: ASGIApp) -> None:
    """A benchmark of an application that fails is worth nothing."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(_scope(), _receive, keep)
    status = messages[0]["status"]

    if status != 200:
        raise RuntimeError(f"{name} answered {status}")


def _scope() -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": list(_HEADERS),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass
