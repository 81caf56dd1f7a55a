"""What an engine is to the rest of the package.

An engine compiles bytes to a module, once; a module is instantiated any number of times; an
instance has one memory and exported functions. Values are Python integers: an i32 is unsigned
(0 to 2**32 - 1) whenever it reaches Python, an i64 is signed.

Rules that every engine keeps:

- A host function may raise. The exception never enters foreign code: the guest is trapped, and the
  very same exception leaves the guest call that was running.
- A `MemoryFault` raised in a host function is not a trap: the guest gets the function's `fault`.
- A guest call that fails raises a `GuestError`, and the instance is `poisoned`: no call may enter
  it again (`HostBug`), since its memory may be half-way through a change. A `GuestExit` with code 0
  that a host function raises ends the call and poisons nothing.
- Where an engine `suspends`, a guest call may be left in its middle, so that others go on: when it
  computes for long, and when a host function that `may_wait` raises `HostWait`. One that is
  cancelled there poisons its instance; a wait that takes too long is given up, and does not.
  Elsewhere a guest call runs from its beginning to its end.
- `compile` and `compile_isolated` block and may be called on any thread. Everything else belongs to
  one thread at a time; an instance is entered by one call at a time (`HostBug` otherwise). An
  engine may keep an instance to the thread that started it: on others it is `poisoned`.

These are interfaces for decoupling, not for third-party engines: all implementations are here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Protocol

from wasm_middleware.engines.module_info import ModuleInfo
from wasm_middleware.errors import MemoryFault


class HostFunction(Protocol):
    """A function that the host gives to a guest."""

    @property
    def call(self) -> Callable[..., int | None]:
        """Takes the Wasm arguments; its result is ignored where the import declares none."""

    @property
    def fault(self) -> int:
        """What the guest gets when `call` raises `MemoryFault`."""

    @property
    def faulted(self) -> Callable[[MemoryFault], None]:
        """Told of it first, for the log."""

    @property
    def may_wait(self) -> bool:
        """Whether `call` may raise `HostWait`. Only engines that `suspend` allow it."""


#: Finds the host function for an import; its arguments are the module's and the function's name
#: and the signature that the guest declares (see `module_info`).
Resolve = Callable[[str, str, str], HostFunction]

GuestFunction = Callable[..., Coroutine[None, None, int]]
"""A guest's exported function: takes up to five i32 values, answers an i32 (0 if it has none).

Values beyond its own parameters are dropped, and missing ones are 0: one call serves the callbacks
of every ABI version.

Only the engine may suspend it. Raises a `GuestError` when the guest fails.
"""

InnerFunction = Callable[..., int]
"""The same, called synchronously from within a host function: the allocator, say.

It shares the deadline of the call that is running. A failure traps that call too.
"""


class Memory(Protocol):
    """A guest's linear memory. Every method checks its bounds and raises `MemoryFault`."""

    @property
    def size(self) -> int:
        """Bytes at this moment; it never shrinks."""

    def read(self, address: int, size: int) -> bytes:
        """Copy `size` bytes out of the guest."""

    def read_u32(self, address: int) -> int:
        """Read a little-endian u32, aligned or not."""

    def write(self, address: int, data: bytes) -> None:
        """Copy `data` into the guest."""

    def write_u32(self, address: int, value: int) -> None:
        """Write a little-endian u32, aligned or not."""

    def write_u64(self, address: int, value: int) -> None:
        """Write a little-endian u64, aligned or not."""


@dataclass(frozen=True, slots=True)
class InstanceLimits:
    """What one instance may use; bytes and elements."""

    memory: int
    table_elements: int


class Instance(Protocol):
    """One running copy of a module."""

    @property
    def memory(self) -> Memory:
        """The memory exported as `memory`; a module without one gets an empty memory."""

    @property
    def poisoned(self) -> bool:
        """A call failed in it: it must be thrown away."""

    def start_function(self) -> GuestFunction | None:
        """What the module wants to be run before anything else, if it does."""

    def set_timeout(self, seconds: float | None) -> None:
        """How long each later guest call may run; None for ever."""

    def limit_call(self, seconds: float) -> None:
        """How long the next guest call may take besides, by the clock on the wall."""

    def function(self, name: str) -> GuestFunction | None:
        """The exported function of that name, or None."""

    def inner_function(self, name: str) -> InnerFunction | None:
        """The same for calls from within host functions."""

    def close(self) -> None:
        """Free what it holds; idempotent. It must not be called afterwards."""


class Module(Protocol):
    """Compiled code."""

    @property
    def info(self) -> ModuleInfo:
        """What the module's bytes say."""

    def instantiate(self, resolve: Resolve, limits: InstanceLimits) -> Instance:
        """Link and instantiate, which runs nothing of the guest's (`Instance.start_function`).

        Raises `GuestError` when that fails or the limits are too small to begin with.
        """


class Engine(Protocol):
    """A WebAssembly runtime."""

    @property
    def name(self) -> str:
        """What the configuration calls it."""

    @property
    def description(self) -> str:
        """One line for people: version and scheme."""

    @property
    def suspends(self) -> bool:
        """Whether guest calls can be left in their middle."""

    def compile(self, wasm: bytes) -> Module:
        """Compile a core module; raise `ModuleFormatError` if it isn't a valid one."""

    def compile_isolated(self, wasm: bytes) -> Module:
        """The same within bounds of time and memory, for what nobody vouches for.

        Raises `ModuleFormatError` where it takes more, too.
        """

    def close(self) -> None:
        """Stop its clock; idempotent."""
