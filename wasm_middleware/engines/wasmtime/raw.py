"""Calls through wasmtime's C interface (`wasmtime_func_call_unchecked` and its kin).

Arguments and results travel in one array of 16-byte slots (`wasmtime_val_raw_t`), results from
slot 0. Seen as u32 words, slot n is word 4n. "Unchecked" means that nothing compares the array with
the function's type: signatures are checked once, when a function is bound, by the engine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import wasmtime
from wasmtime import _bindings as capi

from wasm_middleware.engines.mapped_memory import MappedMemory
from wasm_middleware.engines.protocol import HostFunction
from wasm_middleware.engines.wasmtime import c_interface
from wasm_middleware.engines.wasmtime.binding import (
    Binding,
    Boundary,
    Caller,
    GuestMemory,
)
from wasm_middleware.engines.wasmtime.c_interface import address_of, crossing
from wasm_middleware.engines.wasmtime.epoch import NativeTick
from wasm_middleware.errors import MemoryFault

_WORDS_IN_A_SLOT = 4
#: Of the functions of a guest that are called.
MAX_PARAMETERS = 5
_U32 = 0xFFFF_FFFF
_HOST_FAILED = b"a host function failed"


class RawMemory(MappedMemory):
    """Guest memory by its address.

    The address is constant: the engine reserves the whole 4 GiB and lets no memory move.
    """

    __slots__ = ("_base", "_context", "_keep", "_memory")

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        # What the addresses below point into.
        self._keep = store, memory
        self._context = address_of(store._context())
        self._memory = ctypes.addressof(memory._memory)
        self._base = c_interface.memory_base(self._context, self._memory) or 0
        self.refresh()

    def refresh(self) -> None:
        if self._context:
            self.map(self._base, c_interface.memory_size(self._context, self._memory) or 0)

    def close(self) -> None:
        self._context = 0
        super().close()


class RawBinding:
    """The fast way."""

    description = "raw calls"

    def host_function(
        self,
        store: wasmtime.Store,
        type_: wasmtime.FuncType,
        signature: str,
        function: HostFunction,
        boundary: Boundary,
    ) -> wasmtime.Func:
        callback = c_interface.HOST_CALLBACK(_host_callback(signature, function, boundary))
        raw = capi.wasmtime_func_t()
        c_interface.new_function(
            address_of(store._context()),
            address_of(type_.ptr()),
            address_of(callback),
            None,
            None,
            ctypes.addressof(raw),
        )
        result = wasmtime.Func._from_raw(raw)
        result._callback = callback  # type: ignore[attr-defined]  # lives as long as the import
        return result

    def caller(self, store: wasmtime.Store, function: wasmtime.Func, signature: str) -> Caller:
        parameters, _, results = signature.partition(">")

        too_many = len(parameters) > MAX_PARAMETERS or len(results) > 1

        if too_many or set(parameters + results) - {"i"}:
            raise ValueError(f"can't call a function of type {signature}")

        words = (ctypes.c_uint32 * (_WORDS_IN_A_SLOT * MAX_PARAMETERS))()
        trap = ctypes.c_void_p()
        has_result = bool(results)
        call_guest = c_interface.call
        # Made once: converting a number to a C type at each call takes as long as the call.
        context = ctypes.c_void_p(address_of(store._context()))
        address = ctypes.c_void_p(ctypes.addressof(function._func))
        slots, trap_slot = ctypes.c_void_p(ctypes.addressof(words)), ctypes.byref(trap)
        count = ctypes.c_size_t(max(len(parameters), len(results)))

        def enter() -> int:
            error = call_guest(context, address, slots, count, trap_slot)

            if error or trap.value:
                left, trap.value = trap.value, None
                raise crossing(error, left)

            return words[0] if has_result else 0

        def call_with_one(a: int = 0, *_dropped: int) -> int:
            words[0] = a
            return enter()

        def call(a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0) -> int:
            words[0], words[4], words[8], words[12], words[16] = a, b, c, d, e
            return enter()

        enter.keep = store, function  # type: ignore[attr-defined]  # addresses point into them
        return call_with_one if len(parameters) < 2 else call

    def memory(self, store: wasmtime.Store, memory: wasmtime.Memory) -> GuestMemory:
        return RawMemory(store, memory)

    def set_deadline(self, store: wasmtime.Store) -> Callable[[int], None]:
        context = address_of(store._context())

        def set_deadline(ticks: int) -> None:
            c_interface.set_deadline(context, ticks)

        set_deadline.keep = store  # type: ignore[attr-defined]  # `context` is in it
        return set_deadline

    def increment_epoch(self, engine: wasmtime.Engine) -> Callable[[], None]:
        pointer = address_of(engine.ptr())

        def increment_epoch() -> None:
            c_interface.increment_epoch(pointer)

        increment_epoch.keep = engine  # type: ignore[attr-defined]  # `pointer` is its address
        return increment_epoch

    def native_tick(self, engine: wasmtime.Engine) -> NativeTick | None:
        # The last tick of a timer may be on its way when the timer is stopped, on a thread of its
        # own: an engine that has one is never freed. It is small, and there is one a generation.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
        return NativeTick(address_of(c_interface.increment_epoch), address_of(engine.ptr()))


def _host_callback(
    signature: str, function: HostFunction, boundary: Boundary
) -> Callable[..., int | None]:
    """The C callback for one import; it returns a trap's address, or None."""
    parameters, _, results = signature.partition(">")
    call, fault, faulted = function.call, function.fault, function.faulted
    has_result = bool(results)
    stop = len(parameters) * _WORDS_IN_A_SLOT
    # A slice of a pointer from 0 to 0 in larger steps than 1 has one element; from 1 to 0, none.
    start = 0 if parameters else 1

    def arguments_of(words: ctypes._Pointer[ctypes.c_uint32]) -> list[int]:
        values = words[start:stop:_WORDS_IN_A_SLOT]

        for index in wide:
            high = words[index * _WORDS_IN_A_SLOT + 1]
            values[index] |= (high - (high >> 31 << 32)) << 32

        return values

    wide = [index for index, letter in enumerate(parameters) if letter in "IF"]

    def narrow_callback(
        _env: object, _caller: object, words: ctypes._Pointer[ctypes.c_uint32], _count: int
    ) -> int | None:
        try:
            try:
                result = call(*words[start:stop:_WORDS_IN_A_SLOT])
            except MemoryFault as error:
                faulted(error)
                result = fault

            # A function of neither parameters nor results has no slot at all.
            if has_result:
                words[0] = result
        except BaseException as failure:
            boundary.failure = failure
            return c_interface.trap_new(_HOST_FAILED, len(_HOST_FAILED))

        return None

    def wide_callback(
        _env: object, _caller: object, words: ctypes._Pointer[ctypes.c_uint32], _count: int
    ) -> int | None:
        try:
            try:
                result = call(*arguments_of(words)) or 0
            except MemoryFault as error:
                faulted(error)
                result = fault
        except BaseException as failure:
            boundary.failure = failure
            return c_interface.trap_new(_HOST_FAILED, len(_HOST_FAILED))

        for index in range(len(results) * _WORDS_IN_A_SLOT):
            words[index] = 0

        # Not into a reference: the guest would follow it. Zero is null.
        if results in ("i", "I"):
            words[0], words[1] = result & _U32, result >> 32 & _U32

        return None

    return wide_callback if wide or results not in ("", "i") else narrow_callback


def binding() -> Binding:
    return RawBinding()
