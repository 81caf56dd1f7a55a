"""One instance of a module, whose calls run from their beginning to their end.

It belongs to the thread that made it: wasmer panics on others. So on others it is `poisoned`, and
whoever keeps instances replaces it.

wasmer's objects hold on to each other where Python's garbage collector can't see it. So `close`
takes them away from whatever Python still holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import wasmer

from wasm_middleware.engines.metering import CHECK, MEMORY, MODULE, STACK, Needs
from wasm_middleware.engines.metering.code import OUT_OF_STACK
from wasm_middleware.engines.module_info import PAGE, ExternKind, MemoryType, ModuleInfo
from wasm_middleware.engines.no_memory import NoMemory
from wasm_middleware.engines.protocol import (
    GuestFunction,
    HostFunction,
    InnerFunction,
    InstanceLimits,
)
from wasm_middleware.engines.start_section import START
from wasm_middleware.engines.wasmer.boundary import (
    Boundary,
    HostFailed,
    frames_of,
    function_type,
    host_callback,
    is_panic,
    reason_of,
)
from wasm_middleware.engines.wasmer.memory import WasmerMemory
from wasm_middleware.engines.wasmer.threads import this_thread
from wasm_middleware.errors import (
    GuestError,
    GuestExit,
    GuestMemoryLimit,
    GuestTimeout,
    GuestTrap,
    HostBug,
)

_U32 = 0xFFFF_FFFF
_NEVER = float("inf")
_NO_MEMORY_LEFT = 0.75
#: Bytes of code between two looks at the clock: some 50 us, of which looking takes one. Code that
#: misses the processor's caches with each instruction takes a few milliseconds for so many.
_FUEL = 200_000

#: The functions of an export, until the instance is closed.
Entry = list[wasmer.Function]


class WasmerInstance:
    """See the module's theory of operation."""

    def __init__(self, info: ModuleInfo, limits: InstanceLimits, stack: int) -> None:
        self.memory: WasmerMemory | NoMemory = NoMemory()
        self._info, self._limits, self._stack = info, limits, stack
        self._thread, self._lost = this_thread(), False
        self._boundary = Boundary(self._timed_out)
        self._timeout: float | None = None
        #: What the next call, or the one that runs, may take by the clock on the wall.
        self._left: float | None = None
        self._entered = self._closing = False
        self._guest_memory: wasmer.Memory | None = None
        self._own_memory: WasmerMemory | None = None
        self._instance: wasmer.Instance | None = None
        #: How many functions the module imports.
        self._imported = 0
        self._entries: dict[str, Entry] = {}

    @property
    def poisoned(self) -> bool:
        return self._lost or self._thread is not this_thread()

    # Linking

    def link(
        self,
        make: Callable[[], tuple[wasmer.Store, wasmer.Module]],
        needs: Needs,
        functions: list[HostFunction],
    ) -> None:
        """Instantiate what is made, which runs nothing of the guest's (see `start_section`)."""
        self._imported = len(needs.imports)

        try:
            store, module = make()
            imports = wasmer.ImportObject()
            imports.register(MODULE, self._given(store, needs, functions))
            self._instance = wasmer.Instance(module, imports)
            self._refill_stack()
        except BaseException as error:
            raise self._failed(error) from None

        exports = {(export.name, export.kind) for export in self._info.exports}

        if self._own_memory is not None and ("memory", ExternKind.MEMORY) in exports:
            self.memory = self._own_memory

    def _given(
        self, store: wasmer.Store, needs: Needs, functions: list[HostFunction]
    ) -> dict[str, object]:
        given: dict[str, object] = {
            str(index): wasmer.Function(
                store, host_callback(type_, function, self._boundary), function_type(type_)
            )
            for index, (type_, function) in enumerate(zip(needs.imports, functions, strict=True))
        }
        i32 = wasmer.Type.I32
        given[CHECK] = wasmer.Function(store, self._check, wasmer.FunctionType([i32], [i32]))

        if needs.memory is not None:
            given[MEMORY] = self._make_memory(store, needs.memory)

        return given

    def _make_memory(self, store: wasmer.Store, declared: MemoryType) -> wasmer.Memory:
        # Of one page more wasmer says that there are 0 bytes.
        most = min(self._limits.memory // PAGE, 65_535)

        if declared.minimum > most:
            raise GuestMemoryLimit(
                f"it begins with {declared.minimum * PAGE:,} bytes of memory, and may have "
                f"{most * PAGE:,} bytes (memory_limit)"
            )

        if declared.maximum is not None:
            most = min(most, declared.maximum)

        # The guest does not keep it alive.
        made = wasmer.Memory(store, wasmer.MemoryType(declared.minimum, most, shared=False))
        self._guest_memory = made
        self._own_memory = WasmerMemory(made)
        return made

    def _check(self, why: int) -> int:
        """What the guest calls when it has run for a while, and after its memory has grown."""
        boundary = self._boundary

        try:
            if self._own_memory is not None:
                self._own_memory.refresh()

            if why == OUT_OF_STACK:
                raise GuestTrap("it trapped: call stack exhausted")

            if time.perf_counter() > boundary.deadline:
                raise boundary.late()
        except BaseException as failure:
            boundary.failure = failure
            raise HostFailed from None

        return _FUEL

    # Time

    def set_timeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def limit_call(self, seconds: float) -> None:
        self._left = seconds

    def _deadline(self) -> float:
        timeout, left = self._timeout, self._left

        if left is not None:
            timeout = left if timeout is None else min(timeout, left)

        return _NEVER if timeout is None else time.perf_counter() + timeout

    def _timed_out(self) -> GuestTimeout:
        timeout, left = self._timeout, self._left

        if left is not None and (timeout is None or left < timeout):
            return GuestTimeout(
                f"it took longer than the {1e3 * left:.3g} ms left of its request_timeout"
            )

        error = GuestTimeout(f"it ran for longer than its timeout of {1e3 * (timeout or 0):g} ms")
        error.allowed = timeout
        return error

    # Calls

    def start_function(self) -> GuestFunction | None:
        entry = self._entry(START)
        return None if entry is None else self._guest_function(START, entry, ">")

    def function(self, name: str) -> GuestFunction | None:
        export = self._info.exported_function(name)
        entry = self._entry(name) if export is not None else None

        if export is None or entry is None:
            return None

        return self._guest_function(name, entry, export.signature)

    def _entry(self, name: str) -> Entry | None:
        if self._instance is None:
            return None

        try:
            function = getattr(self._instance.exports, name)
        except LookupError:
            return None

        return self._entries.setdefault(name, [function])

    def _guest_function(self, name: str, entry: Entry, signature: str) -> GuestFunction:
        enter = _caller(entry, signature)
        boundary = self._boundary

        async def call(*arguments: int) -> int:
            if self._entered or self.poisoned:
                raise self._refusal(name)

            self._entered = True

            try:
                boundary.deadline = self._deadline()
                return enter(*arguments)
            except BaseException as error:
                raise self._failed(error) from None
            finally:
                self._entered = False
                self._left = None

                if self._closing:
                    self._close()

        return call

    def _refusal(self, name: str) -> Exception:
        if self._lost or self._entered:
            return HostBug(f"{name} called on an instance that is busy or poisoned")

        return GuestTrap("wasmer keeps its instance to the thread that has started it")

    def inner_function(self, name: str) -> InnerFunction | None:
        export = self._info.exported_function(name)
        entry = self._entry(name) if export is not None else None

        if export is None or entry is None:
            return None

        enter = _caller(entry, export.signature)

        def call(*arguments: int) -> int:
            try:
                return enter(*arguments)
            except BaseException as error:
                raise self._failed(error) from None

        return call

    def close(self) -> None:
        self._lost = self._closing = True

        # It still has its memory until it is left.
        if not self._entered:
            self._close()

    def _close(self) -> None:
        for entry in self._entries.values():
            entry.clear()

        self._entries.clear()
        self._instance = self._guest_memory = None

        for memory in (self.memory, self._own_memory):
            if memory is not None:
                memory.close()

    # Failures

    def _failed(self, error: BaseException) -> BaseException:
        """What `error` stands for. The instance is lost, unless it ended in order."""
        failure = self._boundary.take_failure()

        if isinstance(failure, GuestExit) and failure.code == 0:
            self._refill_stack()
            return failure

        self._lost = True

        if failure is not None:
            return failure

        if isinstance(error, GuestError):
            return error

        if isinstance(error, RuntimeError) or is_panic(error):
            return self._guest_error(error)

        # A signal's handler has raised: nobody knows how far the guest has come.
        return error

    def _refill_stack(self) -> None:
        """It begins with that of its thread, and what was left did not give back what it had."""
        if self._instance is not None:
            getattr(self._instance.exports, STACK).value = self._stack

    def _guest_error(self, error: BaseException) -> GuestError:
        reason = reason_of(error)
        used, allowed = self.memory.size, self._limits.memory

        # `memory.grow` answers -1 at the limit; how a guest takes that is its own affair, and most
        # abort. So a guest that dies close to its limit is said to have died of it.
        if reason == "unreachable" and used > allowed * _NO_MEMORY_LEFT:
            return GuestMemoryLimit(
                f"it ended itself with {used:,} bytes of memory in use, and may have {allowed:,}"
            )

        return GuestTrap(f"it trapped: {reason}{frames_of(error, self._imported)}")


def _caller(entry: Entry, signature: str) -> Callable[..., int]:
    """A function that enters the guest; its arguments are cut or filled up with zeros."""
    parameters, _, results = signature.partition(">")
    count, has_result = len(parameters), bool(results)

    if len(results) > 1 or set(parameters + results) - {"i"}:
        raise ValueError(f"can't call a function of type {signature}")

    def enter(*arguments: int) -> int:
        if len(arguments) != count:
            arguments = (*arguments, *(0,) * count)[:count]

        result = entry[0](*arguments)
        return result & _U32 if has_result else 0

    return enter
