"""A lock that costs nothing when nobody waits: one call at a time into a stream.

An application may receive and send at once, and a guest call may be suspended. Held only around
calls into the core, never while waiting for the server.
"""

from __future__ import annotations

from collections import deque

import anyio


class Turn:
    """First come, first served; belongs to one event loop."""

    __slots__ = ("_busy", "_waiting")

    def __init__(self) -> None:
        self._busy = False
        self._waiting: deque[anyio.Event] | None = None

    @property
    def busy(self) -> bool:
        """Whether somebody has it."""
        return self._busy

    async def __aenter__(self) -> None:
        if self._busy:
            await self._wait()

        self._busy = True

    async def __aexit__(self, *exc_info: object) -> None:
        self._busy = False

        if self._waiting:
            self._busy = True
            self._waiting.popleft().set()

    async def _wait(self) -> None:
        """Wait to be handed the turn; a waiter that is cancelled hands it on."""
        if self._waiting is None:
            self._waiting = deque()

        event = anyio.Event()
        self._waiting.append(event)

        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                await self.__aexit__()
            else:
                self._waiting.remove(event)

            raise
