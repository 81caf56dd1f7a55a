"""Whose guest runs next, when some have used up their time: one slice in a turn of the event loop.

Theory of operation. A guest that comes to the next tick has used up a slice, and with it the turn
of the loop: whatever guest is due in the same turn waits for another one. Then those go first that
have not begun yet, all in one turn as long as none of them uses it up too; behind them goes one of
those that have, round robin. So a task that only wants to run is held up by one slice, however many
guests spin, and a quick guest is held up by one slice for each that is not quick.

Where all that begin are slow, those that have begun would never go on: once one of them has found
its turn used up, another turn is reserved for it.

asyncio runs in a turn what was ready when the turn began. `_advance` is ready once in each turn for
as long as there is anything to decide. Whoever is let go and finds the turn used up keeps its
place.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

#: Of guests that have not begun, as many may go on in a turn.
_MOST_FRESH = 32


#: Who waits, by its place: a heap.
_Queue = list[tuple[int, "asyncio.Future[None]"]]


class Slices:
    """Belongs to one event loop's thread at a time."""

    __slots__ = (
        "_advancing",
        "_begun",
        "_fresh",
        "_loop",
        "_passed_over",
        "_places",
        "_reserved",
        "spent",
    )

    def __init__(self) -> None:
        #: This turn of the loop is used up: whoever is to begin a guest call waits first.
        self.spent = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._advancing = False
        self._places = itertools.count()
        self._fresh: _Queue = []
        self._begun: _Queue = []
        #: One of those that have begun was to go on, and found the turn used up.
        self._passed_over = False
        #: The turn is used up for all but the one of them that was let go.
        self._reserved = False

    async def begin(self) -> None:
        """Wait for a turn of the loop that is not used up."""
        place = next(self._places)

        while self.spent:
            await self._wait(self._fresh, place)

    async def next(self) -> None:
        """Wait for another slice. Whoever calls this has used one up just now."""
        self.spend()
        place = next(self._places)
        await self._wait(self._begun, place)

        while self.spent and not self._reserved:
            self._passed_over = True
            await self._wait(self._begun, place)

        self._passed_over = self._reserved = False

    def spend(self) -> None:
        """Somebody has used up this turn."""
        self._follow()
        self.spent = True
        self._arm()

    def _follow(self) -> asyncio.AbstractEventLoop:
        """The loop that runs. What waited in another one has ended with it."""
        loop = asyncio.get_running_loop()

        if loop is not self._loop:
            self._loop = loop
            self._advancing = self._passed_over = self._reserved = self.spent = False
            self._fresh.clear()
            self._begun.clear()

        return loop

    async def _wait(self, queue: _Queue, place: int) -> None:
        future = self._follow().create_future()
        heapq.heappush(queue, (place, future))
        self._arm()
        await future

    def _arm(self) -> None:
        if not self._advancing:
            assert self._loop is not None
            self._advancing = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._advancing = False
        # Whom the last turn was reserved for has gone on by now, or was cancelled.
        self.spent = self._reserved = self._passed_over
        self._passed_over = False

        if not self._reserved:
            _let_go(self._fresh, _MOST_FRESH)

        _let_go(self._begun, 1)

        if self._fresh or self._begun or self._reserved:
            self._arm()


def _let_go(queue: _Queue, most: int) -> None:
    while queue and most:
        _, future = heapq.heappop(queue)

        # It may have been cancelled.
        if not future.done():
            future.set_result(None)
            most -= 1
