"""The default engine: wasmtime.

A module is compiled once, on any thread. Each instance has a store of its own, so that poisoning
one touches no other, and a clock (`epoch`) that ends calls beyond their time. How calls cross the
boundary is a `Binding`; see `binding`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import cast

import wasmtime

from wasm_middleware import limits
from wasm_middleware.engines.module_info import (
    Import,
    ModuleFormatError,
    ModuleInfo,
    read_module_info,
)
from wasm_middleware.engines.protocol import (
    GuestFunction,
    InnerFunction,
    InstanceLimits,
    Resolve,
)
from wasm_middleware.engines.wasmtime.binding import (
    Binding,
    Boundary,
    Caller,
    Crossing,
    GuestMemory,
)
from wasm_middleware.engines.wasmtime.epoch import (
    TICK,
    EpochClock,
    PosixTicker,
    ThreadTicker,
    Ticker,
)
from wasm_middleware.engines.wasmtime.selftest import choose_binding
from wasm_middleware.errors import (
    GuestError,
    GuestExit,
    GuestMemoryLimit,
    GuestTimeout,
    GuestTrap,
    HostBug,
    MemoryFault,
)
from wasm_middleware.limits import MAX_TABLES

_LOG = logging.getLogger("wasm_middleware")

_FOR_EVER = 1 << 40
_NO_MEMORY_LEFT = 0.75


class WasmtimeEngine:
    """wasmtime with Cranelift; calls run inline, under an epoch deadline.

    `binding` is for tests; without it the best one that passes its self-test is taken.
    """

    name = "wasmtime"

    def __init__(self, binding: Binding | None = None) -> None:
        self._binding = binding or choose_binding(engine_config)
        self._engine = wasmtime.Engine(engine_config())
        self._clock = EpochClock(self._ticker())

    def _ticker(self) -> Ticker:
        native = self._binding.native_tick(self._engine)

        if native is not None:
            try:
                return PosixTicker(native)
            except (OSError, AttributeError) as error:
                _LOG.debug("no native timer, a thread ticks: %s", error)

        return ThreadTicker(self._binding.increment_epoch(self._engine))

    @property
    def description(self) -> str:
        return f"wasmtime {version('wasmtime')}, {self._binding.description}, inline"

    def compile(self, wasm: bytes) -> WasmtimeModule:
        info = read_module_info(wasm)

        try:
            module = wasmtime.Module(self._engine, wasm)
        except wasmtime.WasmtimeError as error:
            raise ModuleFormatError(_cause(str(error))) from error

        return WasmtimeModule(self._engine, self._binding, self._clock, module, info)

    def close(self) -> None:
        self._clock.close()


def engine_config() -> wasmtime.Config:
    """The compiler's settings; `raw` relies on memories that never move."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = limits.MAX_WASM_STACK
    config.memory_reservation = limits.MAX_MEMORY_LIMIT
    config.memory_may_move = False
    return config


class WasmtimeModule:
    """Compiled code, and what is needed to instantiate it."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        binding: Binding,
        clock: EpochClock,
        module: wasmtime.Module,
        info: ModuleInfo,
    ) -> None:
        self.info = info
        self._engine, self._binding, self._clock, self._module = engine, binding, clock, module
        # By position: a module may import one name twice, with two types.
        self._imports = [
            (entry, declared.type)
            for entry, declared in zip(info.imports, module.imports, strict=True)
        ]

    def instantiate(
        self, resolve: Resolve, limits: InstanceLimits, timeout: float | None
    ) -> WasmtimeInstance:
        store = wasmtime.Store(self._engine)
        store.set_limits(
            memory_size=limits.memory,
            table_elements=limits.table_elements,
            memories=1,
            tables=MAX_TABLES,
        )
        boundary = Boundary()
        imports = [
            self._host_function(store, boundary, resolve, entry, type_)
            for entry, type_ in self._imports
        ]
        instance = WasmtimeInstance(self.info, store, self._binding, self._clock, boundary, limits)
        instance.set_timeout(timeout)
        instance.start(self._module, imports)
        return instance

    def _host_function(
        self,
        store: wasmtime.Store,
        boundary: Boundary,
        resolve: Resolve,
        entry: Import,
        type_: object,
    ) -> wasmtime.Func:
        if not isinstance(type_, wasmtime.FuncType):
            raise GuestTrap(f"it imports {entry.module}.{entry.name}, which is not a function")

        function = resolve(entry.module, entry.name, entry.signature)
        return self._binding.host_function(store, type_, entry.signature, function, boundary)


class WasmtimeInstance:
    """One store with one instance in it."""

    def __init__(
        self,
        info: ModuleInfo,
        store: wasmtime.Store,
        binding: Binding,
        clock: EpochClock,
        boundary: Boundary,
        limits: InstanceLimits,
    ) -> None:
        self.poisoned = False
        self.memory: GuestMemory = _NoMemory()
        self._info, self._store, self._binding, self._clock = info, store, binding, clock
        self._boundary, self._limits = boundary, limits
        self._set_deadline = binding.set_deadline(store)
        self._ticks = _FOR_EVER
        self._timeout: float | None = None
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

    def start(self, module: wasmtime.Module, imports: list[wasmtime.Func]) -> None:
        """Instantiate, which runs the module's start function."""
        self._imports = imports
        self._begin()

        try:
            instance = wasmtime.Instance(self._store, module, imports)
        except wasmtime.Trap as trap:
            raise self._failed(Crossing(trap, trap.message)) from None
        except wasmtime.WasmtimeError as error:
            raise self._failed(Crossing(None, str(error))) from None
        finally:
            self._entered = self._clock.running = False

        # wasmtime-py's own class is a mapping of names, and of positions too.
        self._exports = cast(Mapping[str, object], instance.exports(self._store))
        memory = self._exports.get("memory")

        if isinstance(memory, wasmtime.Memory):
            self.memory = self._binding.memory(self._store, memory)

    def function(self, name: str) -> GuestFunction | None:
        enter = self._caller(name)

        if enter is None:
            return None

        clock, set_deadline = self._clock, self._set_deadline

        async def call(*arguments: int) -> int:
            if self._entered or self.poisoned:
                raise HostBug(f"{name} called on an instance that is busy or poisoned")

            try:
                self._entered = clock.used = clock.running = True

                if clock.parked:
                    clock.wake()

                set_deadline(self._ticks)
                return enter(*arguments)
            except Crossing as crossing:
                raise self._failed(crossing) from None
            except BaseException:
                # A signal's handler has raised: nobody knows how far the guest has come.
                self.poisoned = True
                raise
            finally:
                self._entered = clock.running = False

        return call

    def inner_function(self, name: str) -> InnerFunction | None:
        enter = self._caller(name)

        if enter is None:
            return None

        def call(*arguments: int) -> int:
            try:
                return enter(*arguments)
            except Crossing as crossing:
                raise self._failed(crossing) from None

        return call

    def close(self) -> None:
        self.poisoned = True
        self._exports = None
        self.memory.close()
        self._store.close()
        self._imports.clear()

    def _caller(self, name: str) -> Caller | None:
        export = self._info.exported_function(name)

        if export is None or self._exports is None:
            return None

        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        return self._binding.caller(self._store, function, export.signature)

    def _begin(self) -> None:
        self._entered = self._clock.used = self._clock.running = True

        if self._clock.parked:
            self._clock.wake()

        self._set_deadline(self._ticks)

    def _failed(self, crossing: Crossing) -> BaseException:
        """The error that a crossing stands for. The instance is lost, unless it ended in order."""
        failure = self._boundary.take_failure()
        self.poisoned = not (isinstance(failure, GuestExit) and failure.code == 0)

        if failure is not None:
            return failure

        return self._guest_error(crossing)

    def _guest_error(self, crossing: Crossing) -> GuestError:
        code = crossing.trap.trap_code if crossing.trap is not None else None

        if code is wasmtime.TrapCode.INTERRUPT and self._timeout is not None:
            return GuestTimeout(f"it ran for longer than its timeout of {self._timeout * 1e3:g} ms")

        reason = _cause(str(crossing))
        used, allowed = self.memory.size, self._limits.memory

        # The limiter lets `memory.grow` answer -1; how a guest takes that is its own affair, and
        # most abort. So a guest that dies close to its limit is said to have died of it.
        if code is wasmtime.TrapCode.UNREACHABLE and used > allowed * _NO_MEMORY_LEFT:
            return GuestMemoryLimit(
                f"it ended itself with {used:,} bytes of memory in use, and may have {allowed:,}"
            )

        if "memory minimum size" in reason or ("memory" in reason and "exceeds" in reason):
            return GuestMemoryLimit(f"it begins with more memory than its {allowed:,} bytes")

        return GuestTrap(f"it trapped: {reason}{_frames(crossing.trap)}")


class _NoMemory:
    """The memory of a module that exports none: every reach into it is a fault."""

    size = 0

    def read(self, address: int, size: int) -> bytes:
        raise MemoryFault("the module exports no memory")

    def read_u32(self, address: int) -> int:
        raise MemoryFault("the module exports no memory")

    def write(self, address: int, data: bytes) -> None:
        raise MemoryFault("the module exports no memory")

    def write_u32(self, address: int, value: int) -> None:
        raise MemoryFault("the module exports no memory")

    write_u64 = write_u32

    def close(self) -> None:
        """There is nothing to let go of."""


def _cause(text: str) -> str:
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


__all__ = ["WasmtimeEngine", "engine_config"]
