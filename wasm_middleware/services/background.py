"""What runs beside requests: answers to call-outs, messages of queues, ticks.

Theory of operation. A host call can't wait, so what it begins is handed to a task of the event loop
that it was made in. Each task has a context of its own: what a request has put into context
variables (a span, a user) is not for what outlives it. Tasks start in the order in which they were
given, and never inside `run`: trio shuffles the tasks of a turn, and an eager task factory of
asyncio would run one on the spot.

The tasks of a loop end with it. Where each request has an event loop of its own, as with some test
clients, those of older loops are simply gone, and nobody waits for them.

Only this file asks whether asyncio or trio is running.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable

import anyio

from wasm_middleware import limits

_LOG = logging.getLogger("wasm_middleware")

_Function = Callable[..., Coroutine[object, object, None]]
_CURRENT: contextvars.ContextVar[_Task] = contextvars.ContextVar("wasm_middleware_task")


class Tasks:
    """Fulfils `ports.Background`. Belongs to one event loop's thread at a time."""

    def __init__(self) -> None:
        self._tasks: set[_Task] = set()
        self._unstarted: deque[_Task] = deque()
        self._closed = False

    def event(self) -> anyio.Event:
        return anyio.Event()

    def run(self, function: _Function, *args: object) -> None:
        """Run it in the background; after `aclose` it is dropped.

        An exception that escapes is logged with its traceback, and ends that task alone. Raises
        `RuntimeError` outside of any event loop.
        """
        self.start(function, *args)

    def start(self, function: _Function, *args: object) -> Callable[[], None]:
        """Run it as `run` does; what is returned cancels it."""
        if self._closed:
            return _nothing

        if in_trio():
            task = _Task(function, args)
            self._unstarted.append(task)
            sys.modules["trio"].lowlevel.spawn_system_task(self._run_next)
        else:
            loop = asyncio.get_running_loop()
            task = _Task(function, args)
            # Not `loop.create_task`: its factory may be an eager one.
            handle = contextvars.Context().run(asyncio.Task, task.run(), loop=loop)
            task.handle = handle
            # Not at the end of `run`: a task may be cancelled before it has begun.
            handle.add_done_callback(lambda _: self._forget(task))

        self._tasks.add(task)
        return task.cancel

    def after(self, seconds: float, function: Callable[[], object]) -> Callable[[], None]:
        """Call it in so many seconds; what is returned cancels it."""
        return self.start(_call_after, seconds, function)

    async def _run_next(self) -> None:
        # Of two tasks that trio starts the wrong way round, each runs what is next.
        task = self._unstarted.popleft()

        try:
            await task.run()
        finally:
            self._forget(task)

    def _forget(self, task: _Task) -> None:
        self._tasks.discard(task)
        # The task of asyncio knows it too, by its context variable.
        task.handle = None
        task.ended.set()

    async def aclose(self) -> None:
        """Cancel what is left, and wait until it has ended, for `limits.END_TIMEOUT` at most.

        What still runs then is left to itself, with a warning. If one of the tasks calls this, it
        goes on itself.
        """
        self._closed = True
        loop, current = running_loop(), _CURRENT.get(None)
        tasks = [task for task in self._tasks if task.loop is loop and task is not current]

        for task in tasks:
            task.cancel()

        with anyio.move_on_after(limits.END_TIMEOUT, shield=True):
            for task in tasks:
                await task.ended.wait()

        # The others forget themselves when they end.
        hanging = {task for task in tasks if not task.ended.is_set()}
        self._tasks &= {*hanging, current}

        if hanging:
            message = "shutdown does not wait for what still runs %g s after it was cancelled: %s"
            _LOG.warning(message, limits.END_TIMEOUT, _names(hanging))


class _Task:
    """One of the tasks, in the loop that it was made in."""

    def __init__(self, function: _Function, args: tuple[object, ...]) -> None:
        self.loop = running_loop()
        #: Kept here, since asyncio's loop has a weak reference to it, and nobody else may have any.
        self.handle: asyncio.Task[None] | None = None
        self.ended = anyio.Event()
        self._function = function
        self._args = args
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        _CURRENT.set(self)

        with self._scope:
            try:
                await self._function(*self._args)
            except Exception:
                _LOG.exception("%s failed in the background; please report this", self.name)

    @property
    def name(self) -> str:
        """What it runs."""
        return str(getattr(self._function, "__qualname__", self._function))

    def cancel(self) -> None:
        # What belongs to a loop that has ended has ended.
        if running_loop() is self.loop:
            self._scope.cancel()


async def _call_after(seconds: float, function: Callable[[], object]) -> None:
    await anyio.sleep(seconds)
    function()


def running_loop() -> object | None:
    """What tells one run of an event loop from another; None outside of any."""
    if in_trio():
        token: object = sys.modules["trio"].lowlevel.current_trio_token()
        return token

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def has_closed(loop: object | None) -> bool:
    """Whether an event loop is over, with tasks in it that may never have begun.

    Trio begins each of its tasks, and tells it that it ends.
    """
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()


def in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


def _names(tasks: Iterable[_Task]) -> str:
    counts = Counter(task.name for task in tasks)
    return ", ".join(
        name if count == 1 else f"{name} ({count} times)" for name, count in sorted(counts.items())
    )


def _nothing() -> None:
    """Cancels what has never begun."""
