"""How long another task of the event loop is held up while plugins spin into their timeout.

Another task asks for nothing but turns of the loop, and keeps the longest time between two of them.
Each try has a middleware of its own, so that no instance is still being replaced.

A machine that does other things too holds up everybody, by the clock; the processor's time tells
that apart, and so does what is measured while nothing spins.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import statistics
import time
from dataclasses import dataclass
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from bench.apps import spinning
from bench.inmemory import answer_lifespan, http_scope, started
from wasm_middleware import WasmPluginMiddleware

TIMEOUT: Final = 0.050
#: Seconds by the clock, by how many plugins spin at once; none is there to compare with.
TARGETS: Final = {0: 0.0, 1: 0.002, 16: 0.004}
SCHEDULINGS: Final = ("sliced", "inline")


@dataclass(frozen=True, slots=True)
class Stall:
    """Seconds: the longest time between two turns of a task, and what this thread ran in one."""

    clock: float
    processor: float


def measure(*, tries: int) -> dict[tuple[int, str], Stall]:
    """The medians of the worst stalls, by number of plugins and scheduling."""
    module = str(spinning())
    # They fail, as they are to.
    logging.getLogger("wasm_middleware").setLevel(logging.CRITICAL)
    worst: dict[tuple[int, str], list[Stall]] = {}

    try:
        for _ in range(tries):
            for plugins in TARGETS:
                for scheduling in SCHEDULINGS:
                    stall = asyncio.run(_try(module, plugins, scheduling))
                    worst.setdefault((plugins, scheduling), []).append(stall)
    finally:
        logging.getLogger("wasm_middleware").setLevel(logging.WARNING)

    return {
        key: Stall(
            statistics.median(stall.clock for stall in stalls),
            statistics.median(stall.processor for stall in stalls),
        )
        for key, stalls in worst.items()
    }


async def _try(module: str, plugins: int, scheduling: str) -> Stall:
    names = [f"spins-{number}" for number in range(plugins)]
    config = {
        "scheduling": scheduling,
        "defaults": {"timeout": f"{TIMEOUT * 1e3:g}ms"},
        "plugins": [{"name": name, "path": module} for name in names],
        "routes": [{"path": f"/{name}", "plugins": [name]} for name in names],
    }
    app = WasmPluginMiddleware(_hello, config=config)

    async with started(app):
        # Each has been called before, and its code is in memory.
        await asyncio.gather(*(_request(app, name, 200) for name in names))
        gc.collect()
        watch = asyncio.create_task(_watch())
        await asyncio.sleep(0)
        await asyncio.gather(*(_request(app, name, 503, (b"x-spin", b"1")) for name in names))

        if not names:
            await asyncio.sleep(TIMEOUT)

        watch.cancel()
        return await watch


async def _watch() -> Stall:
    """Take turns until cancelled."""
    clock, processor = 0.0, 0.0
    before, ran = time.perf_counter(), time.thread_time()

    try:
        while True:
            await asyncio.sleep(0)
            now, runs = time.perf_counter(), time.thread_time()
            clock, processor = max(clock, now - before), max(processor, runs - ran)
            before, ran = now, runs
    except asyncio.CancelledError:
        # The last requests may have ended in the turn that it was waiting for.
        now, runs = time.perf_counter(), time.thread_time()
        return Stall(max(clock, now - before), max(processor, runs - ran))


async def _request(
    app: WasmPluginMiddleware, path: str, status: int, *headers: tuple[bytes, bytes]
) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(http_scope(f"/{path}", headers), _receive, send)

    if sent[0]["status"] != status:
        raise RuntimeError(f"a plugin was to make it {status}, and it was {sent[0]['status']}")


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await answer_lifespan(receive, send)
        return

    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
