"""Whose guest runs next, when some have used up their time: one slice in a turn of the event loop.

Theory of operation. A guest that comes to the next tick has used up a slice, and with it the turn
of the loop: whatever guest is due in the same turn waits for another one. Then those go first that
have not begun yet, all in one turn as long as none of them uses it up too; behind them goes one of
those that have, round robin. So a task that only wants to run is held up by one slice, however many
guests spin, and a quick guest is held up by one slice for each that is not quick.

asyncio runs in a turn what was ready when the turn began. `_advance` is ready once in each turn for
as long as there is anything to decide.
"""

from __future__ import annotations

import asyncio
from collections import deque

#: Of guests that have not begun, as many may go on in a turn.
_MOST_FRESH = 32


class Slices:
    """Belongs to one event loop's thread at a time."""

    __slots__ = ("_advancing", "_begun", "_fresh", "_loop", "spent")

    def __init__(self) -> None:
        #: This turn of the loop is used up: whoever is to begin a guest call waits first.
        self.spent = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._advancing = False
        self._fresh: deque[asyncio.Future[None]] = deque()
        self._begun: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> None:
        """Wait for a turn of the loop that is not used up."""
        while self.spent:
            await self._wait(self._fresh)

    async def next(self) -> None:
        """Wait for another slice. Whoever calls this has used one up just now."""
        self.spend()
        await self._wait(self._begun)

        while self.spent:
            # Not behind the others: it had its place already.
            await self._wait(self._begun, first=True)

    def spend(self) -> None:
        """Somebody has used up this turn."""
        self._follow()
        self.spent = True
        self._arm()

    def _follow(self) -> asyncio.AbstractEventLoop:
        """The loop that runs. What waited in another one has ended with it."""
        loop = asyncio.get_running_loop()

        if loop is not self._loop:
            self._loop, self._advancing, self.spent = loop, False, False
            self._fresh.clear()
            self._begun.clear()

        return loop

    async def _wait(self, queue: deque[asyncio.Future[None]], *, first: bool = False) -> None:
        future = self._follow().create_future()
        (queue.appendleft if first else queue.append)(future)
        self._arm()
        await future

    def _arm(self) -> None:
        if not self._advancing:
            assert self._loop is not None
            self._advancing = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._advancing = self.spent = False
        _let_go(self._fresh, _MOST_FRESH)
        _let_go(self._begun, 1)

        if self._fresh or self._begun:
            self._arm()


def _let_go(queue: deque[asyncio.Future[None]], most: int) -> None:
    while queue and most:
        future = queue.popleft()

        # It may have been cancelled.
        if not future.done():
            future.set_result(None)
            most -= 1
