"""Requests a second behind uvicorn, over the loopback interface, with one client.

wrk makes the load where it is installed; else a client of our own does, which takes so much time
itself that all applications look more alike.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp

HOST: Final = "127.0.0.1"
CONNECTIONS: Final = 16
_ROOT: Final = Path(__file__).parent.parent
_START: Final = 20.0
_REQUEST: Final = b"GET / HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a.b.c\r\n\r\n"


def describe() -> str:
    """What serves, and what loads it."""
    return f"uvicorn ({', '.join(_server_options()[1::2])}); load: {_load()[0]}"


def measure(
    apps: Mapping[str, Callable[[], ASGIApp]], *, rounds: int, seconds: float
) -> dict[str, float]:
    """Requests a second in the best of the interleaved rounds, by application."""
    best = dict.fromkeys(apps, 0.0)
    load = _load()[1]

    for _ in range(rounds):
        for name, factory in apps.items():
            with serving(factory.__name__) as port:
                best[name] = max(best[name], load(port, seconds))

    return best


@contextmanager
def serving(factory: str) -> Iterator[int]:
    """The port of uvicorn with one of the applications of `apps`."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]

    where = ("--host", HOST, "--port", str(port))
    quiet = ("--no-access-log", "--log-level", "warning")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "--factory", f"bench.apps:{factory}"),
            *(*where, *quiet, *_server_options()),
        ],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
    )

    try:
        _wait(process, port)
        yield port
    finally:
        process.terminate()

        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _server_options() -> list[str]:
    http = "httptools" if importlib.util.find_spec("httptools") else "h11"
    loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    return ["--http", http, "--loop", loop]


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START

    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return

    raise RuntimeError("uvicorn did not start")


def _load() -> tuple[str, Callable[[int, float], float]]:
    if shutil.which("wrk"):
        return f"wrk, 1 thread, {CONNECTIONS} connections", _wrk

    return f"asyncio client, {CONNECTIONS} connections (apt-get install wrk)", _own_client


def _wrk(port: int, seconds: float) -> float:
    # wrk counts in whole seconds.
    done = subprocess.run(
        [
            *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"),
            *("-H", "authorization: Bearer a.b.c", f"http://{HOST}:{port}/"),
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=True,
    )
    rate = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)

    if rate is None or "Non-2xx" in done.stdout:
        raise RuntimeError(f"wrk says:\n{done.stdout}")

    return float(rate.group(1))


def _own_client(port: int, seconds: float) -> float:
    return asyncio.run(_drive(port, seconds))


async def _drive(port: int, seconds: float) -> float:
    started = time.perf_counter()
    clients = [_client(port, started + seconds) for _ in range(CONNECTIONS)]
    counts = await asyncio.gather(*clients)
    return sum(counts) / (time.perf_counter() - started)


async def _client(port: int, deadline: float) -> int:
    reader, writer = await asyncio.open_connection(HOST, port)
    count = 0

    try:
        while time.perf_counter() < deadline:
            writer.write(_REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")

            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {head[:40]!r}")

            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length.group(1)) if length else 0)
            count += 1
    finally:
        writer.close()
        await writer.wait_closed()

    return count
