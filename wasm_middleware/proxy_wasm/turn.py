"""A lock that costs nothing when nobody waits: one at a time, first come, first served.

What it waits with is its owner's affair: the core knows no event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from wasm_middleware.proxy_wasm.ports import Event


class Turn:
    """Belongs to one event loop. `busy`: somebody has it, who may set that while nobody does."""

    __slots__ = ("_new_event", "_waiting", "busy", "on_free")

    def __init__(self, new_event: Callable[[], Event]) -> None:
        self.busy = False
        self._new_event = new_event
        self._waiting: deque[Event] | None = None
        #: Called when nobody has the turn any more, nor waits for it.
        self.on_free: Callable[[], object] | None = None

    async def __aenter__(self) -> None:
        if self.busy:
            await self.wait()

        self.busy = True

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()

    def release(self) -> None:
        self.busy = False

        if self._waiting:
            self.busy = True
            self._waiting.popleft().set()
        elif self.on_free is not None:
            self.on_free()

    async def wait(self) -> None:
        """Wait to be handed the turn; a waiter that is cancelled hands it on."""
        if self._waiting is None:
            self._waiting = deque()

        event = self._new_event()
        self._waiting.append(event)

        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                self.release()
            else:
                self._waiting.remove(event)

            raise
