"""Instances whose calls run in slices: a guest never keeps the event loop for longer than a tick.

Theory of operation. A call begins on the instance's fiber at once, in the task that makes it. Most
end there, within microseconds. One that comes to a tick yields; it goes on when `Slices` says so,
until it ends or has used up its `timeout`, which counts the time in which it ran and nothing else.

A host call may wait for as long as the call's request has left, and all of a call's together for
`MAX_HOST_WAIT`. Then they are given up (`errors.HostWait`), and the guest goes on.

Cancelled between two slices, a call can only be given up, and its instance with it.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable
from typing import NoReturn

import wasmtime

from wasm_middleware.engines.module_info import ModuleInfo
from wasm_middleware.engines.protocol import GuestFunction, HostFunction, InstanceLimits
from wasm_middleware.engines.wasmtime.binding import Binding, Boundary, Caller, Crossing
from wasm_middleware.engines.wasmtime.epoch import TICK, EpochClock
from wasm_middleware.engines.wasmtime.fibers import INNER_TIMEOUT, Bridges, Fiber
from wasm_middleware.engines.wasmtime.instance import WasmtimeInstance
from wasm_middleware.engines.wasmtime.slices import Slices
from wasm_middleware.errors import (
    AbiViolation,
    GuestError,
    GuestTimeout,
    GuestTrap,
    HostBug,
    HostWait,
    MemoryFault,
)
from wasm_middleware.limits import MAX_HOST_WAIT, MAX_INNER_TIME

#: Beside a u32 result: the host call has none yet.
_WAITS = 1 << 32
_NO_WAIT = "its allocator made a host call that has to wait, and can't be left in its middle"


class Waiting:
    """A host function that may wait, as the host's side of a `bridge` sees it."""

    may_wait = False

    def __init__(self, function: HostFunction, boundary: Boundary, fiber: Fiber) -> None:
        self.fault = function.fault
        self.faulted: Callable[[MemoryFault], None] = function.faulted
        self._function, self._boundary, self._fiber = function, boundary, fiber

    def call(self, *arguments: int) -> int:
        boundary = self._boundary
        finish, boundary.finish = boundary.finish, None

        if finish is not None:
            return finish()

        if boundary.wait is None:
            try:
                return self._function.call(*arguments) or 0
            except HostWait as wait:
                if self._fiber.is_in_host_call:
                    return _refuse(wait, AbiViolation(_NO_WAIT))

                if boundary.given_up is not None:
                    return _refuse(wait, boundary.given_up)

                boundary.wait = wait

        self._fiber.yield_soon()
        return _WAITS


class SlicedInstance(WasmtimeInstance):
    """See the module's theory of operation. Belongs to one event loop's thread at a time."""

    def __init__(
        self,
        slices: Slices,
        bridges: Bridges,
        binding: Binding,
        clock: EpochClock,
        info: ModuleInfo,
        store: wasmtime.Store,
        limits: InstanceLimits,
    ) -> None:
        super().__init__(binding, clock, info, store, limits)
        self._slices, self._bridges = slices, bridges
        self._fiber = Fiber(store)
        #: What a host call waits for.
        self._waiting: asyncio.Task[Callable[[], int]] | None = None
        #: Wakes the call that waits for it.
        self._closed: asyncio.Future[None] | None = None
        #: Until when the call that runs may take, where `_left` says that there is an end.
        self._ends_at = 0.0

    def limit_call(self, seconds: float) -> None:
        self._left = seconds
        # Here, since what follows may take long before the call is left for the first time.
        self._ends_at = time.perf_counter() + seconds

    def host_function(
        self, declared: wasmtime.FuncType, signature: str, function: HostFunction
    ) -> wasmtime.Func:
        if not function.may_wait:
            return super().host_function(declared, signature, function)

        waiting = Waiting(function, self._boundary, self._fiber)
        inner = wasmtime.FuncType(declared.params, [wasmtime.ValType.i64()])
        host = super().host_function(inner, signature.partition(">")[0] + ">I", waiting)
        bridge = self._bridges.module(signature)
        exported = wasmtime.Instance(self._store, bridge, [host]).exports(self._store)[""]
        assert isinstance(exported, wasmtime.Func)
        # It is called for as long as the instance lives.
        exported._host = host  # type: ignore[attr-defined]
        return exported

    def link(self, module: wasmtime.Module, imports: list[wasmtime.Func]) -> None:
        super().link(module, imports)
        self._fiber.yield_alone()

    def _inner_caller(self, function: wasmtime.Func, signature: str) -> Caller:
        return self._fiber.inner(super()._inner_caller(function, signature))

    def _guest_function(self, name: str, function: wasmtime.Func, signature: str) -> GuestFunction:
        begin = self._fiber.caller(function, signature)
        clock, slices = self._clock, self._slices

        async def call(*arguments: int) -> int:
            if self._entered or self.poisoned:
                raise HostBug(f"{name} called on an instance that is busy or poisoned")

            self._entered = True

            try:
                if slices.spent:
                    await slices.begin()
                    self._check_alive()

                clock.used = clock.running = True

                if clock.parked:
                    clock.wake()

                result = begin(*arguments)
                return await self._rest() if result is None else result
            except Crossing as crossing:
                raise self._failed(crossing) from None
            except BaseException:
                # Given up between two slices; or a signal's handler has raised in a host call.
                self._give_up()
                raise
            finally:
                self._entered = clock.running = False
                self._left = None

        return call

    async def _rest(self) -> int:
        """Bring a call that has yielded to its end."""
        boundary, clock = self._boundary, self._clock
        # Nobody has looked at the time before. A guest that yields by itself has not used much.
        ran = TICK if boundary.wait is None else 0.0
        may_wait = MAX_HOST_WAIT

        try:
            while True:
                clock.running = False
                wait = boundary.wait
                self._check_time(ran, waits=wait is not None)

                if wait is None:
                    await self._slices.next()
                else:
                    may_wait -= await self._pass_time(wait, may_wait)

                self._check_alive()
                clock.used = clock.running = True

                if clock.parked:
                    clock.wake()

                begun = time.thread_time()
                result = self._fiber.go_on()

                if result is not None:
                    return result

                ran += time.thread_time() - begun
        finally:
            boundary.given_up = None

    def _check_time(self, ran: float, *, waits: bool) -> None:
        """Raise `GuestTimeout` where a guest may not go on that has computed for so long."""
        # Once a host call was given up, the request has failed, and the guest tidies up.
        has_end = self._left is not None and self._boundary.given_up is None
        late = has_end and not waits and time.perf_counter() > self._ends_at

        if late or (self._timeout is not None and ran > self._timeout):
            self._slices.spend()
            raise self._timed_out(late=late)

    def _check_alive(self) -> None:
        """It may have been unloaded while nobody was in it."""
        if self.poisoned:
            raise GuestTrap("its instance was closed while it was called")

    async def _pass_time(self, wait: HostWait, most: float) -> float:
        """Leave the guest alone until its host call can end, or was given up; for how long.

        `most` is how long it may be, where its request does not end before.
        """
        boundary = self._boundary
        begun = time.perf_counter()
        left = math.inf if self._left is None else self._ends_at - begun

        if min(most, left) > 0:
            await self._wait(wait, min(most, left))
            self._check_alive()
        else:
            wait.forget()

        task, self._waiting = self._waiting, None

        if task is not None and task.done():
            boundary.finish = _result_of(task)
        else:
            if task is not None:
                task.cancel()

            boundary.given_up = error = self._waited_too_long(late=left < most)
            boundary.finish = functools.partial(wait.given_up, error)

        boundary.wait = None
        waited = time.perf_counter() - begun

        if self._slices.spent:
            await self._slices.begin()

        return waited

    async def _wait(self, wait: HostWait, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        # A task of its own: this call may change its task here, which would confuse cancel scopes.
        self._waiting = task = loop.create_task(wait.outcome())
        self._closed = closed = loop.create_future()
        await asyncio.wait((task, closed), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        self._closed = None

    def _waited_too_long(self, *, late: bool) -> GuestTimeout:
        if late:
            return self._timed_out(late=True)

        return GuestTimeout(f"its host calls had no results for {MAX_HOST_WAIT:g} s in all")

    def _give_up(self) -> None:
        self.poisoned = True
        self._fiber.cancel()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        closed, self._closed = self._closed, None
        wait, self._boundary.wait = self._boundary.wait, None

        if waiting is None:
            if wait is not None:
                wait.forget()

        # The loop that it was begun in may have ended with it.
        elif not waiting.get_loop().is_closed():
            waiting.cancel()

            if closed is not None and not closed.done():
                closed.set_result(None)

    def close(self) -> None:
        # Whoever waits in a call learns of it at once.
        self._give_up()
        super().close()

    def _guest_error(self, crossing: Crossing) -> GuestError:
        if INNER_TIMEOUT in str(crossing):
            milliseconds = 1e3 * MAX_INNER_TIME
            return GuestTimeout(
                f"its allocator ran for longer than the {milliseconds:g} ms that it has"
            )

        return super()._guest_error(crossing)


def _result_of(task: asyncio.Task[Callable[[], int]]) -> Callable[[], int]:
    try:
        return task.result()
    except (Exception, asyncio.CancelledError) as error:
        return functools.partial(_raise, error)


def _raise(error: BaseException) -> NoReturn:
    raise error


def _refuse(wait: HostWait, error: GuestError) -> int:
    wait.forget()
    return wait.given_up(error)
