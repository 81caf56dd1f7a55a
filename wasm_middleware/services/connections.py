"""Idle connections of one event loop, kept for the next call.

They end with their loop: a task in the background closes those that have been idle for too long,
and all of them when it is cancelled, which is how a loop ends its tasks. So a test client that runs
a loop for each request leaves nothing open, and never meets a connection of another loop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

import anyio

__all__ = ["IdleConnections"]


class _Connection(Protocol):
    def has_expired(self) -> bool:
        """Whether it was idle for too long, or its other side has closed it."""

    async def aclose(self) -> None: ...


_C = TypeVar("_C", bound=_Connection)


class IdleConnections(Generic[_C]):
    """Connections by where they lead to; `keep` must run for as long as they are used."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle: dict[Hashable, deque[tuple[float, _C]]] = {}
        self._closed = False

    async def take(self, key: Hashable) -> _C | None:
        """The connection that was used last, so that the others may expire."""
        idle = self._idle.get(key)

        while idle:
            _, connection = idle.pop()

            if not connection.has_expired():
                return connection

            await connection.aclose()

        return None

    async def give(self, key: Hashable, connection: _C) -> None:
        """Put a connection back after a call that went well."""
        if self._closed:
            await connection.aclose()
        else:
            self._idle.setdefault(key, deque()).append((time.monotonic(), connection))

    async def keep(self) -> None:
        """Close what has been idle for `seconds`, until this is cancelled; then close all."""
        try:
            while True:
                await anyio.sleep(self._seconds)
                await self._close_before(time.monotonic() - self._seconds)
        finally:
            self._closed = True

            with anyio.CancelScope(shield=True):
                await self._close_before(float("inf"))

    async def _close_before(self, moment: float) -> None:
        for idle in tuple(self._idle.values()):
            while idle and idle[0][0] < moment:
                _, connection = idle.popleft()
                await connection.aclose()
