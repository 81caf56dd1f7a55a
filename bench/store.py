"""Many requests at once, each of which reads what plugins share from inside of a guest's call.

The store takes its time, as one over a network does. A plugin has one instance to begin with, and
may have as many as there are requests: the first time they are started besides. What the store
takes is the least that a plugin can take.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Final
from unittest.mock import patch

from starlette.types import Message, Receive, Scope, Send

from bench.apps import module_of
from bench.inmemory import answer_lifespan, http_scope, started
from wasm_middleware import WasmPluginMiddleware
from wasm_middleware.runtime import services

REQUESTS: Final = 100
#: Seconds that the store takes for each.
STORE_TAKES: Final = 0.020
#: Seconds for all of them together, through one plugin.
TARGET: Final = 0.100
#: How many plugins ask it, one after the other.
CHAINS: Final = (1, 2)
_WARM_RUNS: Final = 3


class SlowStore:
    """Fulfils `ports.SharedStore`."""

    async def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        await asyncio.sleep(STORE_TAKES)
        return b"1000", 1

    async def set(self, vm_id: str, key: bytes, value: bytes, cas: int) -> bool:
        raise NotImplementedError


def measure(*, rounds: int) -> dict[tuple[int, str], float]:
    """Medians in seconds, by the length of the chain, and for the first time or later."""
    found: dict[tuple[int, str], list[float]] = {}
    module = str(module_of("store.wat"))

    # Until a store can be chosen in the configuration.
    with patch.object(services, "MemorySharedData", SlowStore):
        for _ in range(rounds):
            for plugins in CHAINS:
                first, *later = asyncio.run(_measure(module, plugins))
                found.setdefault((plugins, "first"), []).append(first)
                found.setdefault((plugins, "later"), []).extend(later)

    return {key: statistics.median(seconds) for key, seconds in found.items()}


async def _measure(module: str, plugins: int) -> list[float]:
    names = [f"asks-{number}" for number in range(plugins)]
    entries = [{"name": name, "path": module, "instances": {"max": REQUESTS}} for name in names]
    app = WasmPluginMiddleware(_application, config={"plugins": entries})
    seconds: list[float] = []

    async with started(app):
        for _ in range(1 + _WARM_RUNS):
            begun = time.perf_counter()
            await asyncio.gather(*(_request(app, plugins) for _ in range(REQUESTS)))
            seconds.append(time.perf_counter() - begun)

    return seconds


async def _request(app: WasmPluginMiddleware, plugins: int) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(http_scope(), _receive, send)

    if sent[0]["status"] != 200 or sent[1]["body"] != b"1000" * plugins:
        raise RuntimeError(f"the plugins were to read what is shared: {sent}")


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await answer_lifespan(receive, send)
        return

    told = b"".join(value for name, value in scope["headers"] if name == b"x-limit")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": told})
