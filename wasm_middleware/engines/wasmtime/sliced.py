"""Instances whose calls run in slices: a guest never keeps the event loop for longer than a tick.

Theory of operation. A call begins on the instance's fiber at once, in the task that makes it. Most
end there, within microseconds. One that comes to a tick yields; it goes on when `Slices` says so,
until it ends or has used up its `timeout`, which counts the time in which it ran and nothing else.

Cancelled between two slices, a call can only be given up, and its instance with it.
"""

from __future__ import annotations

import asyncio
import functools
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
        ends_at = None if self._left is None else time.perf_counter() + self._left

        while True:
            clock.running = False
            late = ends_at is not None and time.perf_counter() > ends_at

            if late or (self._timeout is not None and ran > self._timeout):
                self._slices.spend()
                raise self._timed_out(late=late)

            await self._pass_time(ends_at)
            self._check_alive()
            clock.used = clock.running = True

            if clock.parked:
                clock.wake()

            begun = time.thread_time()
            result = self._fiber.go_on()

            if result is not None:
                return result

            ran += time.thread_time() - begun

    def _check_alive(self) -> None:
        """It may have been unloaded while nobody was in it."""
        if self.poisoned:
            raise GuestTrap("its instance was closed while it was called")

    async def _pass_time(self, ends_at: float | None) -> None:
        """Leave the guest alone until it may go on, or at most until `ends_at`."""
        boundary = self._boundary
        wait = boundary.wait

        if wait is None:
            await self._slices.next()
            return

        most = MAX_HOST_WAIT

        if ends_at is not None:
            most = min(most, ends_at - time.perf_counter())

        # A task of its own: this call may change its task here, which would confuse cancel scopes.
        self._waiting = task = asyncio.get_running_loop().create_task(wait.outcome)
        await asyncio.wait((task,), timeout=most)

        if not task.done():
            raise self._waited_too_long(most)

        try:
            boundary.finish = task.result()
        except (Exception, asyncio.CancelledError) as error:
            boundary.finish = functools.partial(_raise, error)

        self._waiting = boundary.wait = None

        if self._slices.spent:
            await self._slices.begin()

    def _waited_too_long(self, seconds: float) -> GuestTimeout:
        if seconds < MAX_HOST_WAIT:
            return self._timed_out(late=True)

        return GuestTimeout(f"a host call of it had no result for {seconds:g} s")

    def _give_up(self) -> None:
        self.poisoned = True
        self._fiber.cancel()
        waiting, self._waiting = self._waiting, None

        if waiting is not None:
            waiting.cancel()

    def close(self) -> None:
        self._fiber.cancel()
        super().close()

    def _guest_error(self, crossing: Crossing) -> GuestError:
        if INNER_TIMEOUT in str(crossing):
            milliseconds = 1e3 * MAX_INNER_TIME
            return GuestTimeout(
                f"its allocator ran for longer than the {milliseconds:g} ms that it has"
            )

        return super()._guest_error(crossing)


def _raise(error: BaseException) -> NoReturn:
    raise error
