"""What the two ways of calling wasmtime have in common.

`raw` crosses through the C interface that the wheel carries: a microsecond a call. `public` goes
through wasmtime-py's documented calls: some thirty times slower, but it needs nothing private.
The engine takes the first if its self-test passes and the second otherwise; both pass one suite.

Neither lets a Python exception into foreign code. A host function that raises leaves the exception
in its `Boundary`, traps the guest, and the engine raises that very exception once it is back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import wasmtime

from wasm_middleware.engines.protocol import HostFunction, Memory
from wasm_middleware.engines.wasmtime.epoch import NativeTick
from wasm_middleware.errors import GuestError, HostWait


class Boundary:
    """What one instance's crossings share: the exception that must not cross."""

    __slots__ = ("failure", "finish", "given_up", "wait")

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        #: What a host call waits for; how it ends, once that has come.
        self.wait: HostWait | None = None
        self.finish: Callable[[], int] | None = None
        #: Why the host calls of the call that runs may wait no more.
        self.given_up: GuestError | None = None

    def take_failure(self) -> BaseException | None:
        failure, self.failure = self.failure, None
        return failure


#: Enters a guest's function; returns its result, or raises `Crossing` if it did not end well.
Caller = Callable[..., int]


class Crossing(Exception):
    """A guest call ended with a trap or an error of the engine; never leaves the engine."""

    def __init__(self, trap: wasmtime.Trap | None, message: str) -> None:
        self.trap = trap
        super().__init__(message)


class GuestMemory(Memory, Protocol):
    """Memory that lives in a store."""

    def close(self) -> None:
        """Be empty from now on: the store is going away, whoever still holds this."""


class Binding(Protocol):
    """One way of calling wasmtime."""

    description: str

    def host_function(
        self,
        store: wasmtime.Store,
        type_: wasmtime.FuncType,
        signature: str,
        function: HostFunction,
        boundary: Boundary,
    ) -> wasmtime.Func:
        """Make an import out of `function`. Whoever holds the instance keeps the result alive."""

    def caller(self, store: wasmtime.Store, function: wasmtime.Func, signature: str) -> Caller:
        """Make a callable of an exported function that takes i32 values."""

    def memory(self, store: wasmtime.Store, memory: wasmtime.Memory) -> GuestMemory:
        """Give access to a guest's memory."""

    def set_deadline(self, store: wasmtime.Store) -> Callable[[int], None]:
        """A function that sets after how many ticks from now the store's guest is stopped."""

    def increment_epoch(self, engine: wasmtime.Engine) -> Callable[[], None]:
        """A function that ticks."""

    def native_tick(self, engine: wasmtime.Engine) -> NativeTick | None:
        """The same for a timer without Python, if there is a way."""
