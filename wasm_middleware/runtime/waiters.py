"""Who waits for an instance of a plugin: first come, first served, and for a bounded time.

Theory of operation. Whoever waits may be in the midst of a call into the core, which begins in one
task and goes on in another: no scope of a task's may be around the waiting. So a task of the pool's
ends it for those who have waited for too long; it is there while anybody waits.

Who was given an instance goes on in a later turn of the event loop. Until then the instance is
`handed`, and nobody else's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

from wasm_middleware import limits
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.services.background import Tasks


class Waiter:
    """A context that waits for an instance; it gets one, or is told that there is none."""

    __slots__ = ("deadline", "event", "late", "stream", "vm")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.event = anyio.Event()
        self.deadline = anyio.current_time() + limits.MAX_INSTANCE_WAIT
        #: There was none before its time was over.
        self.late = False
        self.vm: Vm | None = None


class Waiters:
    """Belongs to one event loop at a time, whose `tasks` it uses."""

    def __init__(self, tasks: Tasks) -> None:
        self.handed: set[Vm] = set()
        self._tasks = tasks
        self._queue: deque[Waiter] = deque()
        #: Ends the task that looks at how long they have waited.
        self._stop_watching: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def join(self, stream: Stream) -> Waiter:
        """A new one, behind the others."""
        waiter = Waiter(stream)
        self._queue.append(waiter)
        return waiter

    def rejoin(self, waiter: Waiter) -> None:
        """It was given one that is of no use: it has its place, and its time, as before."""
        waiter.event, waiter.vm = anyio.Event(), None
        self._queue.appendleft(waiter)

    async def wait(self, waiter: Waiter) -> None:
        """Until it has an instance, or is not to wait any longer."""
        if waiter.event.is_set():
            return

        if self._stop_watching is None:
            self._stop_watching = self._tasks.start(self._end_waiting)

        await waiter.event.wait()

    async def _end_waiting(self) -> None:
        queue = self._queue

        while queue:
            await anyio.sleep(max(0.0, queue[0].deadline - anyio.current_time()))

            while queue and queue[0].deadline <= anyio.current_time():
                queue[0].late = True
                self.give(None)

        self._stop_watching = None

    def give(self, vm: Vm | None) -> None:
        """The first one gets this instance, or none."""
        waiter = self._queue.popleft()
        waiter.vm = vm
        waiter.event.set()

        if vm is not None:
            self.handed.add(vm)

    def give_up(self) -> None:
        """There is none for any of them."""
        while self._queue:
            self.give(None)

    def leave(self, waiter: Waiter) -> None:
        """It goes on, or has ceased to wait."""
        if waiter.vm is not None:
            self.handed.discard(waiter.vm)
        elif waiter in self._queue:
            self._queue.remove(waiter)

    def end(self, stream: Stream) -> None:
        """A stream, if it waits, is not to wait any longer."""
        for waiter in [waiter for waiter in self._queue if waiter.stream is stream]:
            self._queue.remove(waiter)
            waiter.event.set()

    def rest(self) -> None:
        """Nobody waits: nothing is to be watched."""
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None

    def forget(self) -> None:
        """The event loop has ended, and all who waited in it."""
        self._stop_watching = None
        self._queue.clear()
        self.handed.clear()
