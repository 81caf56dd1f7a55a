"""One call at a time into a stream, each of which comes to its end.

An application may receive and send at once, and a guest call may be suspended. Held only around
calls into the core, never while waiting for the server.

Theory of operation of `run`. A call into the core must come to its end: given up in its middle, it
would cost the instance of the guest that it is in, and with it other requests. But whoever makes it
may be cancelled at any time, and by asyncio in a way that nothing shields from. So the call begins
in the caller's task, where most calls end without ever waiting. One that waits, for its turn or for
its guest, goes on in a task of its own, and the caller waits for that.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import TypeVar

import anyio

from wasm_middleware.proxy_wasm import turn
from wasm_middleware.services.background import in_trio

T = TypeVar("T")

#: The loop keeps only weak references to its tasks.
_TASKS: set[asyncio.Task[object]] = set()


class Turn(turn.Turn):
    """First come, first served; belongs to one event loop."""

    __slots__ = ("_in_trio",)

    def __init__(self) -> None:
        super().__init__(anyio.Event)
        self._in_trio = in_trio()

    async def run(self, call: Coroutine[object, object, T]) -> T:
        """Await a call into the core when it is its turn; once here, it comes to its end."""
        if self._in_trio:
            # There nothing is cancelled but by scopes, and a coroutine can't change its task.
            with anyio.CancelScope(shield=True):
                return await self._later(call)

        if self.busy:
            return await _to_its_end(self._later(call))

        self.busy = True

        try:
            # What a coroutine gives when it waits is its event loop's affair.
            waits_for = call.send(None)
        except StopIteration as end:
            self.release()
            return end.value  # type: ignore[no-any-return]
        except BaseException:
            self.release()
            raise

        return await _to_its_end(self._rest(call, waits_for))

    async def _later(self, call: Coroutine[object, object, T]) -> T:
        try:
            async with self:
                return await call
        finally:
            # An event loop that ends may have cancelled it before it has begun.
            call.close()

    async def _rest(self, call: Coroutine[object, object, T], waits_for: object) -> T:
        try:
            return await _go_on(call, waits_for)
        finally:
            self.release()


@types.coroutine
def _go_on(call: Coroutine[object, object, T], waits_for: object) -> Generator[object, object, T]:
    """Await a coroutine that has been begun and waits for something already."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:
                waits_for = call.throw(error)
            else:
                waits_for = call.send(value)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _to_its_end(call: Coroutine[object, object, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(call)

    # Those of a loop that was closed over them never end.
    if _TASKS and next(iter(_TASKS)).get_loop() is not loop:
        _TASKS.difference_update([task for task in _TASKS if task.get_loop().is_closed()])

    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)
    return await asyncio.shield(task)
