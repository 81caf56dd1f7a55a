"""Many requests at once, each of which waits for an upstream that takes its time.

In the first row the application asks the upstream itself, with the same client; in the second a
plugin does and resumes the request. What the upstream takes is the least that either can take.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import httpx2
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.apps import module_of
from wasm_middleware import WasmPluginMiddleware

REQUESTS: Final = 200
#: Seconds that the upstream takes for each.
UPSTREAM_TAKES: Final = 0.050
#: Seconds for all of them together.
TARGET: Final = 1.5

_UPSTREAM: Final = f"""
import asyncio

async def answer(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            await asyncio.sleep({UPSTREAM_TAKES})
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
    except asyncio.IncompleteReadError:
        writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def measure(*, rounds: int) -> dict[str, float]:
    """Seconds for all requests, by who asks the upstream."""
    with _upstream() as port:
        return asyncio.run(_measure(port, rounds))


@contextlib.contextmanager
def _upstream() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", _UPSTREAM], stdout=subprocess.PIPE, text=True)

    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


async def _measure(port: int, rounds: int) -> dict[str, float]:
    url = f"http://127.0.0.1:{port}"
    limits = httpx2.Limits(max_connections=REQUESTS, max_keepalive_connections=REQUESTS)

    async with httpx2.AsyncClient(limits=limits, timeout=5) as client:

        async def asking(scope: Scope, receive: Receive, send: Send) -> None:
            await client.get(url)
            await _hello(scope, receive, send)

        plugin = {"name": "asking", "path": str(module_of("callout.wat"))}
        upstream = {"url": url, "max_in_flight": REQUESTS}
        asked = WasmPluginMiddleware(
            _hello, config={"plugins": [plugin], "upstreams": {"auth": upstream}}
        )
        apps: dict[str, ASGIApp] = {"the application, by httpx2": asking, "a plugin": asked}
        best: dict[str, float] = {}

        for name, app in (*apps.items(), *rounds * list(apps.items())):
            seconds = await _at_once(app)
            best[name] = min(best.get(name, seconds), seconds)

        return best


async def _at_once(app: ASGIApp) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(_request(app) for _ in range(REQUESTS)))
    return time.perf_counter() - started


async def _request(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
    answered: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def send(message: Message) -> None:
        answered.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http"}
    path = {"path": "/", "raw_path": b"/", "query_string": b"", "root_path": ""}
    await app({**scope, **path, "headers": [(b"host", b"localhost")]}, receive, send)

    if answered[0]["status"] != 200:
        raise RuntimeError(f"answered {answered[0]['status']}")


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
