"""The functions of wasmtime's C interface that are called directly, with their types.

The library is opened anew, so that declaring argument types here does not touch wasmtime-py's own.
While a guest runs the interpreter lock is let go.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import wasmtime
from wasmtime import _bindings as capi, _ffi

from wasm_middleware.engines.wasmtime.binding import Crossing

POINTER = ctypes.c_void_p
_SIZE = ctypes.c_size_t
WORDS = ctypes.POINTER(ctypes.c_uint32)

_LIBRARY = ctypes.CDLL(_ffi.dll._name)
#: The same without letting go of the interpreter lock, for what takes nanoseconds.
_QUICK_LIBRARY = ctypes.PyDLL(_ffi.dll._name)


def _c_function(
    name: str, result: object, *parameters: object, library: ctypes.CDLL = _LIBRARY
) -> Callable[..., int | None]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, list(parameters)
    return function  # type: ignore[no-any-return]


call = _c_function(
    "wasmtime_func_call_unchecked", POINTER, POINTER, POINTER, POINTER, _SIZE, POINTER
)
new_function = _c_function("wasmtime_func_new_unchecked", None, *[POINTER] * 6)
set_deadline = _c_function(
    "wasmtime_context_set_epoch_deadline", None, POINTER, ctypes.c_uint64, library=_QUICK_LIBRARY
)
increment_epoch = _c_function(
    "wasmtime_engine_increment_epoch", None, POINTER, library=_QUICK_LIBRARY
)
memory_size = _c_function("wasmtime_memory_data_size", _SIZE, POINTER, POINTER)
memory_base = _c_function("wasmtime_memory_data", POINTER, POINTER, POINTER)
trap_new = _c_function("wasmtime_trap_new", POINTER, ctypes.c_char_p, _SIZE)

# Fibers.

#: Makes a future and runs nothing yet.
call_async = _c_function(
    "wasmtime_func_call_async",
    POINTER,
    *(POINTER, POINTER, POINTER, _SIZE, POINTER, _SIZE, POINTER, POINTER),
    library=_QUICK_LIBRARY,
)
poll = _c_function("wasmtime_call_future_poll", ctypes.c_bool, POINTER)
#: Frees a future; one that has not ended is cancelled.
delete = _c_function("wasmtime_call_future_delete", None, POINTER)
set_epoch_callback = _c_function(
    "wasmtime_store_epoch_deadline_callback",
    None,
    *[POINTER] * 4,
    library=_QUICK_LIBRARY,
)
#: In its place: the guest yields, and has so many ticks when it is gone on with.
yield_at_deadline = _c_function(
    "wasmtime_context_epoch_deadline_async_yield_and_update",
    None,
    *(POINTER, ctypes.c_uint64),
    library=_QUICK_LIBRARY,
)
error_new = _c_function("wasmtime_error_new", POINTER, ctypes.c_char_p)

#: A host function: environment, caller, arguments and results, their number; a trap or null.
HOST_CALLBACK = ctypes.CFUNCTYPE(POINTER, POINTER, POINTER, WORDS, _SIZE)
#: What a store asks at its deadline: context, data, ticks to go on for, kind; an error or null.
EPOCH_CALLBACK = ctypes.CFUNCTYPE(
    POINTER, POINTER, POINTER, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint8)
)
CONTINUE, YIELD = 0, 1


def address_of(handle: object) -> int:
    return ctypes.cast(handle, POINTER).value or 0  # type: ignore[arg-type]


def crossing(error: int | None, trap: int | None) -> Crossing:
    """What a call has left behind as an exception, which owns it so that it is freed."""
    if trap:
        trapped = ctypes.cast(trap, ctypes.POINTER(capi.wasm_trap_t))
        found = wasmtime.Trap._from_ptr(trapped)
        return Crossing(found, found.message)

    failed = ctypes.cast(error or 0, ctypes.POINTER(capi.wasmtime_error_t))
    return Crossing(None, str(wasmtime.WasmtimeError._from_ptr(failed)))
