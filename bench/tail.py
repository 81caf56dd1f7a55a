"""The slowest requests behind uvicorn while a plugin spins in other requests.

All of the clients do the same: of 20 requests one is for a path with a plugin that spins until its
timeout, three are for the same path and do no harm, and the others are for one without that plugin.
The latency of these others is compared with a run in which nothing spins. The three keep the plugin
from being left alone as one that serves nobody (`runtime.healing`); how many requests have spun of
those that ask for it is told.

While one spins there are fewer requests in all, so that run takes twice as long.

The client is our own: wrk can't tell two kinds of requests apart. It measures from the first byte
out to the last byte in. What the server had made when it had started is frozen (`gc.freeze`): each
full collection of Python's would hold up all requests for some 30 ms, whatever plugins do.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.types import ASGIApp

from bench import apps
from bench.server import HOST, serving

CLIENTS: Final = 16
#: Of so many requests one spins, and of so many one is for the plugin that does.
EVERY: Final = 20
_TO_IT: Final = 5
QUANTILE: Final = 0.999
#: Seconds that the others may take longer, where calls are sliced.
TARGET: Final = 0.005
APPS: Final[dict[str, Callable[[], ASGIApp]]] = {
    "sliced": apps.beside_one_that_spins,
    "inline": apps.beside_one_that_spins_inline,
}
_GIVE_UP: Final = 30.0
_REQUEST: Final = (
    b"GET %s HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a.b.c\r\nx-spin: %s\r\n\r\n"
)
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Latencies:
    """Seconds, of the requests without the plugin that spins and of those that ask it to."""

    others: list[float] = field(default_factory=list)
    spinning: list[float] = field(default_factory=list)

    @property
    def slowest(self) -> float:
        """The quantile that is compared."""
        return sorted(self.others)[int(QUANTILE * len(self.others))]

    @property
    def spun(self) -> int:
        """How many have spun to the end, and were not refused."""
        return sum(seconds >= 0.9 * apps.SPIN_TIMEOUT for seconds in self.spinning)


@dataclass(frozen=True, slots=True)
class Tail:
    """One scheduling, without and with the spinning."""

    quiet: Latencies
    beside: Latencies

    @property
    def growth(self) -> float:
        return self.beside.slowest - self.quiet.slowest


def measure(*, rounds: int, seconds: float) -> dict[str, Tail]:
    """Latencies by scheduling; the rounds are interleaved, and count together.

    `seconds` are those of a run in which nothing spins.
    """
    tails = {name: Tail(Latencies(), Latencies()) for name in APPS}

    for _ in range(rounds):
        for name, factory in APPS.items():
            with serving(factory.__name__) as port:
                # What is first called is slower once: that is not what this is about.
                asyncio.run(_drive(port, 0.3, b"0", Latencies()))
                asyncio.run(_drive(port, seconds, b"0", tails[name].quiet))
                asyncio.run(_drive(port, 2 * seconds, b"1", tails[name].beside))

    return tails


async def _drive(port: int, seconds: float, spin: bytes, latencies: Latencies) -> None:
    deadline = time.perf_counter() + seconds
    clients = [_client(port, deadline, spin, first, latencies) for first in range(CLIENTS)]
    await asyncio.wait_for(asyncio.gather(*clients), seconds + _GIVE_UP)


async def _client(
    port: int, deadline: float, spin: bytes, first: int, latencies: Latencies
) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    number = first

    try:
        while time.perf_counter() < deadline:
            number += 1
            spins, to_it = number % EVERY == 0, number % _TO_IT == 0
            path = b"/spin" if to_it else b"/"
            request = _REQUEST % (path, spin if spins else b"0")
            begun = time.perf_counter()
            writer.write(request)
            status = await _answer(reader)
            taken = time.perf_counter() - begun

            if spins:
                latencies.spinning.append(taken)
            elif not to_it:
                latencies.others.append(taken)

            # One that is for the plugin may be beside one that spins, on its instance.
            if status != 200 and not (to_it and spin == b"1" and status == 503):
                raise RuntimeError(f"{path.decode()} was answered {status}")
    finally:
        writer.close()
        await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    await reader.readexactly(int(length.group(1)) if length else 0)
    return int(head.split(b" ", 2)[1])
