"""One instance of a module, whose calls run from their beginning to their end (inline).

A call is stopped by the store's deadline, which counts ticks of the engine's clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import cast

import wasmtime

from wasm_middleware import limits
from wasm_middleware.engines.module_info import PAGE, ModuleInfo
from wasm_middleware.engines.no_memory import NoMemory
from wasm_middleware.engines.protocol import (
    GuestFunction,
    HostFunction,
    InnerFunction,
    InstanceLimits,
)
from wasm_middleware.engines.start_section import START
from wasm_middleware.engines.wasmtime.binding import (
    Binding,
    Boundary,
    Caller,
    Crossing,
    GuestMemory,
)
from wasm_middleware.engines.wasmtime.epoch import TICK, EpochClock
from wasm_middleware.errors import (
    GuestError,
    GuestExit,
    GuestMemoryLimit,
    GuestTimeout,
    GuestTrap,
    HostBug,
)

_FOR_EVER = 1 << 40
_NO_MEMORY_LEFT = 0.75


class WasmtimeInstance:
    """One store with one instance in it."""

    def __init__(
        self,
        binding: Binding,
        clock: EpochClock,
        info: ModuleInfo,
        store: wasmtime.Store,
        limits: InstanceLimits,
    ) -> None:
        self.poisoned = False
        self.memory: GuestMemory = NoMemory()
        self._info, self._store, self._binding, self._clock = info, store, binding, clock
        self._boundary, self._limits = Boundary(), limits
        self._set_deadline = binding.set_deadline(store)
        self._ticks = _FOR_EVER
        self._timeout: float | None = None
        #: What the next call, or the one that runs, may take by the clock on the wall.
        self._left: float | None = None
        self._entered = False
        self._exports: Mapping[str, object] | None = None
        #: The callbacks that the guest calls live in here.
        self._imports: list[wasmtime.Func] = []

    def set_timeout(self, seconds: float | None) -> None:
        self._timeout = seconds
        self._ticks = _FOR_EVER

        if seconds is not None:
            # One tick more: the first may come at once.
            self._ticks = math.ceil(seconds / TICK) + 1

    def limit_call(self, seconds: float) -> None:
        self._left = seconds

    def host_function(
        self, declared: wasmtime.FuncType, signature: str, function: HostFunction
    ) -> wasmtime.Func:
        """Make an import for this instance."""
        return self._binding.host_function(
            self._store, declared, signature, function, self._boundary
        )

    def link(self, module: wasmtime.Module, imports: list[wasmtime.Func]) -> None:
        """Instantiate, which runs nothing of the guest's (see `start_section`)."""
        self._imports = imports
        # It looks at the deadline all the same.
        self._set_deadline(_FOR_EVER)

        try:
            instance = wasmtime.Instance(self._store, module, imports)
        except wasmtime.Trap as trap:
            raise self._failed(Crossing(trap, trap.message)) from None
        except wasmtime.WasmtimeError as error:
            raise self._failed(Crossing(None, str(error))) from None

        # wasmtime-py's own class is a mapping of names, and of positions too.
        self._exports = cast(Mapping[str, object], instance.exports(self._store))
        memory = self._exports.get("memory")

        if isinstance(memory, wasmtime.Memory):
            self.memory = self._binding.memory(self._store, memory)

    def start_function(self) -> GuestFunction | None:
        start = self._exports.get(START) if self._exports is not None else None
        return self._guest_function(START, start, ">") if isinstance(start, wasmtime.Func) else None

    def function(self, name: str) -> GuestFunction | None:
        export = self._export(name)
        return None if export is None else self._guest_function(name, *export)

    def _guest_function(self, name: str, function: wasmtime.Func, signature: str) -> GuestFunction:
        enter = self._binding.caller(self._store, function, signature)
        clock, set_deadline = self._clock, self._set_deadline

        async def call(*arguments: int) -> int:
            if self._entered or self.poisoned:
                raise HostBug(f"{name} called on an instance that is busy or poisoned")

            try:
                self._entered = clock.used = clock.running = True

                if clock.parked:
                    clock.wake()

                set_deadline(self._ticks if self._left is None else self._ticks_left(self._left))
                return enter(*arguments)
            except Crossing as crossing:
                raise self._failed(crossing) from None
            except BaseException:
                # A signal's handler has raised: nobody knows how far the guest has come.
                self.poisoned = True
                raise
            finally:
                self._entered = clock.running = False
                self._left = None

        return call

    def _ticks_left(self, seconds: float) -> int:
        return min(self._ticks, math.ceil(seconds / TICK) + 1)

    def inner_function(self, name: str) -> InnerFunction | None:
        export = self._export(name)

        if export is None:
            return None

        enter = self._inner_caller(*export)

        def call(*arguments: int) -> int:
            try:
                return enter(*arguments)
            except Crossing as crossing:
                raise self._failed(crossing) from None

        return call

    def _inner_caller(self, function: wasmtime.Func, signature: str) -> Caller:
        return self._binding.caller(self._store, function, signature)

    def _export(self, name: str) -> tuple[wasmtime.Func, str] | None:
        export = self._info.exported_function(name)

        if export is None or self._exports is None:
            return None

        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        return function, export.signature

    def close(self) -> None:
        self.poisoned = True
        self._exports = None
        self.memory.close()
        self._store.close()
        self._imports.clear()

    def _failed(self, crossing: Crossing) -> BaseException:
        """The error that a crossing stands for. The instance is lost, unless it ended in order."""
        failure = self._boundary.take_failure()
        self.poisoned = not (isinstance(failure, GuestExit) and failure.code == 0)

        if failure is not None:
            return failure

        return self._guest_error(crossing)

    def _timed_out(self, *, late: bool = False) -> GuestTimeout:
        """The error of a call that used up its time, or what its request had left (`late`)."""
        if late:
            left = 1e3 * (self._left or 0)
            return GuestTimeout(
                f"it took longer than the {left:.3g} ms left of its request_timeout"
            )

        milliseconds = 1e3 * (self._timeout or 0)
        error = GuestTimeout(f"it ran for longer than its timeout of {milliseconds:g} ms")
        error.allowed = self._timeout
        return error

    def _guest_error(self, crossing: Crossing) -> GuestError:
        code = crossing.trap.trap_code if crossing.trap is not None else None

        if code is wasmtime.TrapCode.INTERRUPT:
            left = self._left
            return self._timed_out(late=left is not None and self._ticks_left(left) < self._ticks)

        reason = cause(str(crossing))
        used, allowed = self.memory.size, self._limits.memory

        # The limiter lets `memory.grow` answer -1; how a guest takes that is its own affair, and
        # most abort. So a guest that dies close to its limit is said to have died of it.
        if code is wasmtime.TrapCode.UNREACHABLE and used > allowed * _NO_MEMORY_LEFT:
            return GuestMemoryLimit(
                f"it ended itself with {used:,} bytes of memory in use, and may have {allowed:,}"
            )

        if "memory minimum size" in reason or ("memory" in reason and "exceeds" in reason):
            declared = self._info.memory
            begins = declared.minimum * PAGE if declared is not None else 0
            return GuestMemoryLimit(
                f"it begins with {begins:,} bytes of memory, and may have {allowed:,} bytes "
                "(memory_limit)"
            )

        return GuestTrap(f"it trapped: {reason}{_frames(crossing.trap)}")


def cause(text: str) -> str:
    """wasmtime's message less its backtrace: the last of the causes that it lists, if any."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["unknown"]
    cause = lines[-1] if "Caused by:" in lines else lines[0]
    return re.sub(r"^\d+: ", "", cause)[: limits.MAX_NAME_IN_MESSAGE]


def _frames(trap: wasmtime.Trap | None) -> str:
    """The innermost functions of a backtrace, for the plugin's author."""
    if trap is None:
        return ""

    names = [frame.func_name or f"function {frame.func_index}" for frame in trap.frames[:5]]
    return f" (in {', called by '.join(names)})"[: 2 * limits.MAX_NAME_IN_MESSAGE] if names else ""
