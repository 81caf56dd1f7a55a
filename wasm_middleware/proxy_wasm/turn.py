"""A lock that costs nothing when nobody waits: one at a time, first come, first served.

What it waits with is its owner's affair: the core knows no event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from wasm_middleware.proxy_wasm.ports import Event


class Turn:
    """Belongs to one event loop. `busy`: somebody has it, who may set that while nobody does."""

    __slots__ = ("_given", "_new_event", "_waiting", "busy", "on_free", "on_wait")

    def __init__(self, new_event: Callable[[], Event]) -> None:
        self.busy = False
        self._new_event = new_event
        self._waiting: deque[Event] | None = None
        #: Whose turn it is who has not gone on yet.
        self._given: Event | None = None
        #: Called when nobody has the turn any more, nor waits for it.
        self.on_free: Callable[[], object] | None = None
        #: Called when somebody is about to wait.
        self.on_wait: Callable[[], object] | None = None

    async def __aenter__(self) -> None:
        if self.busy:
            await self.wait(self.join())

        self.busy = True

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()

    def release(self) -> None:
        self.busy = False

        if self._waiting:
            self.busy = True
            self._given = self._waiting.popleft()
            self._given.set()
        elif self.on_free is not None:
            self.on_free()

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiting) if self._waiting is not None else 0

    def join(self) -> Event:
        """A place behind those who wait."""
        if self.on_wait is not None:
            self.on_wait()

        if self._waiting is None:
            self._waiting = deque()

        event = self._new_event()
        self._waiting.append(event)
        return event

    def leave(self, place: Event) -> None:
        """Whoever waits there waits no longer, if it is not its turn yet."""
        if self._waiting is not None and place in self._waiting:
            self._waiting.remove(place)
            place.set()

    async def wait(self, place: Event) -> bool:
        """Wait to be handed the turn; False if it was not, since somebody has called `leave`.

        A waiter that is cancelled hands it on.
        """
        try:
            await place.wait()
        except BaseException:
            if self._given is place:
                self._given = None
                self.release()
            else:
                self.leave(place)

            raise

        if self._given is not place:
            return False

        self._given = None
        return True
