"""Calls through wasmtime-py's documented interface: slow, and right on every version of it."""

from __future__ import annotations

import struct
from collections.abc import Callable

import wasmtime

from wasm_middleware.engines.protocol import HostFunction
from wasm_middleware.engines.wasmtime.binding import (
    Binding,
    Boundary,
    Caller,
    Crossing,
    GuestMemory,
)
from wasm_middleware.engines.wasmtime.epoch import NativeTick
from wasm_middleware.errors import MemoryFault

_U32_MASK = 0xFFFF_FFFF


def _signed(value: int) -> int:
    return value - (value >> 31 << 32)


class PublicMemory:
    """Guest memory through `Memory.read` and `Memory.write`."""

    __slots__ = ("_closed", "_memory", "_store")

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._store, self._memory = store, memory
        self._closed = False

    @property
    def size(self) -> int:
        return 0 if self._closed else self._memory.data_len(self._store)

    def _check(self, address: int, size: int) -> None:
        if address + size > self.size:
            raise MemoryFault(f"a pointer to {size} bytes at {address}, of {self.size}")

    def read(self, address: int, size: int) -> bytes:
        self._check(address, size)

        if not size:
            return b""

        return bytes(self._memory.read(self._store, address, address + size))

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))

        if not data:
            return

        self._memory.write(self._store, data, address)

    def write_u32(self, address: int, value: int) -> None:
        self.write(address, struct.pack("<I", value))

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, struct.pack("<Q", value))

    def close(self) -> None:
        self._closed = True


class PublicBinding:
    """The fallback."""

    description = "public calls"

    def host_function(
        self,
        store: wasmtime.Store,
        type_: wasmtime.FuncType,
        signature: str,
        function: HostFunction,
        boundary: Boundary,
    ) -> wasmtime.Func:
        parameters, _, results = signature.partition(">")

        def call(*values: int | float) -> object:
            arguments = [
                value & _U32_MASK if letter == "i" and isinstance(value, int) else value
                for letter, value in zip(parameters, values, strict=True)
            ]

            try:
                try:
                    result = function.call(*arguments)
                except MemoryFault as error:
                    function.faulted(error)
                    result = function.fault
            except BaseException as failure:
                boundary.failure = failure
                raise wasmtime.WasmtimeError("a host function failed") from None

            return _results(results, result or 0)

        return wasmtime.Func(store, type_, call)

    def caller(self, store: wasmtime.Store, function: wasmtime.Func, signature: str) -> Caller:
        parameters, _, results = signature.partition(">")
        count = len(parameters)

        if len(results) > 1 or set(parameters + results) - {"i"}:
            raise ValueError(f"can't call a function of type {signature}")

        def call(*values: int) -> int:
            padded = [*values, *[0] * count][:count]

            try:
                result = function(store, *map(_signed, padded))
            except wasmtime.Trap as trap:
                raise Crossing(trap, trap.message) from None
            except wasmtime.WasmtimeError as error:
                raise Crossing(None, str(error)) from None

            return result & _U32_MASK if isinstance(result, int) else 0

        return call

    def memory(self, store: wasmtime.Store, memory: wasmtime.Memory) -> GuestMemory:
        return PublicMemory(store, memory)

    def set_deadline(self, store: wasmtime.Store) -> Callable[[int], None]:
        return store.set_epoch_deadline

    def increment_epoch(self, engine: wasmtime.Engine) -> Callable[[], None]:
        return engine.increment_epoch

    def native_tick(self, engine: wasmtime.Engine) -> NativeTick | None:
        return None


def _results(letters: str, result: int) -> object:
    """The host's answer in the shape that wasmtime-py wants for these result types."""
    values: list[object] = [
        {"i": _signed(result & _U32_MASK), "f": 0.0, "F": 0.0, "r": None}.get(letter, 0)
        for letter in letters
    ]

    if letters == "I":
        values = [result]

    if not values:
        return None

    return values[0] if len(values) == 1 else values


def binding() -> Binding:
    return PublicBinding()
