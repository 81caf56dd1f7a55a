"""The null engine: plugins as Python objects.

It is for tests: a guest's callback is a method, a host call is a method of `self.host`, and memory
is a `bytearray`. Everything else is as with Wasm: values are u32, pointers are checked, a guest
that fails is poisoned. Calls never suspend unless the guest's own method is a coroutine function.

    class AddHeader(NullGuest):
        def proxy_on_request_headers(self, context, count, end_of_stream):
            self.host.proxy_add_header_map_value(0, *self.text(b"x"), *self.text(b"y"))
            return 0
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import ClassVar, NoReturn

from wasm_middleware.abi.signatures import CALLBACKS
from wasm_middleware.engines.module_info import (
    Export,
    ExternKind,
    Import,
    MemoryType,
    ModuleFormatError,
    ModuleInfo,
)
from wasm_middleware.engines.protocol import (
    GuestFunction,
    HostFunction,
    InnerFunction,
    InstanceLimits,
    Resolve,
)
from wasm_middleware.errors import (
    GuestError,
    GuestExit,
    GuestMemoryLimit,
    GuestTrap,
    HostBug,
    MemoryFault,
)

_U32 = 0xFFFF_FFFF
_SPECIAL_EXPORTS = ("_initialize", "_start", "main", "__main_void")


class NullMemory:
    """A guest's memory as a bytearray; `grow` as far as `limit`."""

    def __init__(self, size: int, limit: int) -> None:
        self.data = bytearray(size)
        self.limit = limit

    @property
    def size(self) -> int:
        return len(self.data)

    def grow(self, size: int) -> bool:
        """Add `size` bytes; False where the limit does not allow it."""
        if len(self.data) + size > self.limit:
            return False

        self.data.extend(bytes(size))
        return True

    def _check(self, address: int, size: int) -> None:
        if address + size > len(self.data):
            raise MemoryFault(f"a pointer to {size} bytes at {address}, of {len(self.data)}")

    def read(self, address: int, size: int) -> bytes:
        self._check(address, size)
        return bytes(self.data[address : address + size])

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        self.data[address : address + len(data)] = data

    def write_u32(self, address: int, value: int) -> None:
        self.write(address, (value & _U32).to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, (value % (1 << 64)).to_bytes(8, "little"))


class NullGuest:
    """Base of a plugin written in Python: override the callbacks that it needs."""

    #: The imports that the module declares; a host call that is not among them can't be made.
    imports: ClassVar[tuple[Import, ...]] = ()
    #: Exports beside the methods: the marker of its ABI version, above all.
    markers: ClassVar[tuple[str, ...]] = ("proxy_abi_version_0_2_1",)
    memory_size: ClassVar[int] = 65536

    def __init__(self, memory: NullMemory, host: NullHost) -> None:
        self.memory, self.host = memory, host
        self._free = 1024

    def proxy_on_memory_allocate(self, size: int) -> int:
        """Hand out memory and never take it back; 0 when there is no more."""
        address = self._free

        if address + size > self.memory.size and not self.memory.grow(size + 65536):
            return 0

        self._free += size
        return address

    def text(self, data: bytes) -> tuple[int, int]:
        """Put bytes into memory; their address and size, as host calls want them."""
        address = self.proxy_on_memory_allocate(len(data))
        self.memory.write(address, data)
        return address, len(data)


class NullHost:
    """The host calls of one guest, by name; of a WASI call too."""

    def __init__(self, functions: Mapping[str, HostFunction]) -> None:
        self._functions = functions
        #: What a host function raised: it leaves the guest as it is.
        self._failure: BaseException | None = None

    def __getattr__(self, name: str) -> Callable[..., int]:
        try:
            function = self._functions[name]
        except KeyError:
            raise AttributeError(f"the guest does not import {name}") from None

        def call(*arguments: int) -> int:
            try:
                try:
                    result = function.call(*arguments)
                except MemoryFault as error:
                    function.faulted(error)
                    result = function.fault
            except BaseException as failure:
                self._failure = failure
                raise

            return (result or 0) & _U32

        return call

    def take_failure(self) -> BaseException | None:
        failure, self._failure = self._failure, None
        return failure


class NullEngine:
    """Runs `NullGuest` classes; `modules` says which bytes stand for which class."""

    name = "null"
    description = "null engine (plugins in Python)"
    #: A guest's own coroutines may, but no host function can wait.
    suspends = False

    def __init__(self, modules: Mapping[bytes, type[NullGuest]] | None = None) -> None:
        self._modules = dict(modules or {})

    def compile(self, wasm: bytes) -> NullModule:
        if wasm not in self._modules:
            raise ModuleFormatError("the null engine knows no such module")

        return NullModule(self._modules[wasm])

    def compile_isolated(self, wasm: bytes) -> NullModule:
        """There is nothing to compile."""
        return self.compile(wasm)

    def close(self) -> None:
        """Nothing to stop."""


class NullModule:
    """A class, seen as a module."""

    def __init__(self, guest: type[NullGuest]) -> None:
        self._guest = guest
        exports = [Export(name, ExternKind.FUNCTION, ">") for name in guest.markers]

        for name, method in inspect.getmembers(guest, inspect.isfunction):
            if _is_export(name):
                parameters = "i" * (len(inspect.signature(method).parameters) - 1)
                # Python does not say whether a function has a result; the ABI does.
                known = CALLBACKS[name].signatures if name in CALLBACKS else ()
                fitting = [one for one in known if one.startswith(parameters + ">")]
                signature = fitting[0] if fitting else parameters + ">i"
                exports.append(Export(name, ExternKind.FUNCTION, signature))

        self.info = ModuleInfo(
            size=0,
            sha256="",
            imports=guest.imports,
            exports=tuple(exports),
            memory=MemoryType(guest.memory_size // 65536, None),
        )

    def instantiate(self, resolve: Resolve, limits: InstanceLimits) -> NullInstance:
        if self._guest.memory_size > limits.memory:
            raise GuestMemoryLimit(f"it begins with more memory than its {limits.memory:,} bytes")

        functions = {
            entry.name: resolve(entry.module, entry.name, entry.signature)
            for entry in self.info.imports
        }
        memory = NullMemory(self._guest.memory_size, limits.memory)
        return NullInstance(self._guest(memory, NullHost(functions)))


class NullInstance:
    """One object, seen as an instance. It can't be interrupted, so it has no timeout."""

    def __init__(self, guest: NullGuest) -> None:
        self.guest = guest
        self.memory = guest.memory
        self.poisoned = False
        self.entered = False

    def start_function(self) -> GuestFunction | None:
        return None

    def set_timeout(self, seconds: float | None) -> None:
        """Python code runs as long as it likes."""

    def limit_call(self, seconds: float) -> None:
        """The same."""

    def function(self, name: str) -> GuestFunction | None:
        method = self._method(name)

        if method is None:
            return None

        async def call(*arguments: int) -> int:
            if self.entered or self.poisoned:
                raise HostBug(f"{name} called on an instance that is busy or poisoned")

            self.entered = True

            try:
                result = method(*arguments)
                value = await result if isinstance(result, Coroutine) else result
                return _u32(value)
            except BaseException as error:
                self._fail(error)
            finally:
                self.entered = False

        return call

    def inner_function(self, name: str) -> InnerFunction | None:
        method = self._method(name)

        if method is None:
            return None

        def call(*arguments: int) -> int:
            try:
                return _u32(method(*arguments))
            except BaseException as error:
                self._fail(error)

        return call

    def close(self) -> None:
        self.poisoned = True

    def _method(self, name: str) -> Callable[..., object] | None:
        """The method, taking as many of its arguments as it has parameters."""
        method = getattr(self.guest, name, None) if _is_export(name) else None

        if not callable(method):
            return None

        count = len(inspect.signature(method).parameters)
        return lambda *arguments: method(*(*arguments, *[0] * count)[:count])

    def _fail(self, error: BaseException) -> NoReturn:
        """Raise a trap, or the error itself: of a host function, or of a call that is cancelled."""
        self.poisoned = not (isinstance(error, GuestExit) and error.code == 0)
        failure = self.guest.host.take_failure()

        if failure is error or isinstance(error, GuestError) or not isinstance(error, Exception):
            raise error

        raise GuestTrap(f"it trapped: {error!r}") from error


def _is_export(name: str) -> bool:
    return name.startswith(("proxy_", "malloc")) or name in _SPECIAL_EXPORTS


def _u32(value: object) -> int:
    return int(value) & _U32 if isinstance(value, int) else 0
