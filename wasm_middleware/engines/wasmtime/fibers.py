"""Guest calls on stacks of their own, which can be left in the middle and gone on with.

Theory of operation. `wasmtime_func_call_async` makes a future that runs the guest on a fiber when
it is polled. A poll comes back when the call has ended, or when it yields at its deadline. So a
guest that computes for longer than a tick gives the event loop a turn, and one whose
host call waits for something is left until there is an answer.

The one rule that keeps this sound: a fiber is never left while a Python frame is on it; CPython
would crash. Python is on a fiber while a host call runs, but a guest only ever yields in its own
code. So there is a callback for guest code that a host call has called: for the allocator
(`inner`). There it lets the guest go on, for a short time, and then ends it with an error.

That callback is Python, which looks for signals where a function begins, before any `try`. What a
signal's handler raises there, ctypes prints and drops: Ctrl-C would be lost. So the callback is in
place from an inner call on until the guest yields, and otherwise wasmtime lets it yield by itself.

A host call that waits does not wait in Python. It returns to a few instructions of Wasm between
guest and host (`bridge_text`), which call it again until it has its result; the deadline is set so
that the guest yields in between.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import wasmtime
from wasmtime import _bindings as capi

from wasm_middleware.engines.wasmtime import c_interface
from wasm_middleware.engines.wasmtime.c_interface import address_of, crossing
from wasm_middleware.errors import HostBug
from wasm_middleware.limits import MAX_INNER_TIME

#: What ends guest code that a host call has called and that takes too long.
INNER_TIMEOUT = "wasm-middleware: too long inside of a host call"

Begin = Callable[..., "int | None"]

_MAX_PARAMETERS = 5
#: In units of words: the distance of two values of a call, and where in one its number is.
_STRIDE = ctypes.sizeof(capi.wasmtime_val_t) // 4
_NUMBER = capi.wasmtime_val_t.of.offset // 4
#: wasmtime looks at the deadline at every loop and function of a guest.
_NEXT_TICK, _AT_ONCE = 1, 0


class Fiber:
    """The calls of one store, one at a time. What is begun is brought to its end, or cancelled.

    A call that is begun or gone on with gives its result, or None when it has yielded; it raises
    `Crossing` when it did not end well.
    """

    __slots__ = (
        "_callback",
        "_context",
        "_error",
        "_future",
        "_has_result",
        "_inner",
        "_inner_end",
        "_inner_time",
        "_keep",
        "_result",
        "_store",
        "_trap",
        "_words",
        "_yields_alone",
    )

    def __init__(self, store: wasmtime.Store) -> None:
        self._context = address_of(store._context())
        self._future: int | None = None
        self._trap, self._error = ctypes.c_void_p(), ctypes.c_void_p()
        self._words = (ctypes.c_uint32 * (_STRIDE * _MAX_PARAMETERS))()
        self._result = (ctypes.c_uint32 * _STRIDE)()
        self._has_result = False
        #: Guest code runs that Python has called and waits for; until when, once that matters.
        self._inner = False
        self._inner_end = 0.0
        self._inner_time = MAX_INNER_TIME
        callback = c_interface.EPOCH_CALLBACK(self._on_epoch)
        self._callback, self._store = address_of(callback), address_of(store.ptr())
        # What the addresses above are in.
        self._keep = store, callback
        self._yield_by_callback()

    def _yield_by_callback(self) -> None:
        c_interface.set_epoch_callback(self._store, self._callback, None, None)
        self._yields_alone = False

    def yield_alone(self) -> None:
        """Let the guest yield without asking `_on_epoch`. No module can be linked afterwards."""
        c_interface.yield_at_deadline(self._context, _NEXT_TICK)
        self._yields_alone = True

    def _on_epoch(
        self,
        _context: object,
        _data: object,
        ticks: ctypes._Pointer[ctypes.c_uint64],
        kind: ctypes._Pointer[ctypes.c_uint8],
    ) -> int | None:
        """Decide what a guest does at its deadline. Nothing may be raised here."""
        ticks[0] = _NEXT_TICK

        if not self._inner:
            kind[0] = c_interface.YIELD
            return None

        # Of the processor's time: that others run meanwhile is not the guest's fault.
        now = time.thread_time()

        if not self._inner_end:
            self._inner_end = now + self._inner_time
        elif now > self._inner_end:
            return c_interface.error_new(INNER_TIMEOUT.encode())

        kind[0] = c_interface.CONTINUE
        return None

    def inner(
        self, enter: Callable[..., int], seconds: float = MAX_INNER_TIME
    ) -> Callable[..., int]:
        """Let guest code be called from Python that is on the fiber, or that is on none."""

        def call(*arguments: int) -> int:
            if self._yields_alone:
                self._yield_by_callback()

            self._inner, self._inner_end, self._inner_time = True, 0.0, seconds

            try:
                return enter(*arguments)
            finally:
                self._inner = False

                # It was not let yield there: else one that is mostly in its allocator never would.
                if self._inner_end:
                    self.yield_soon()

        return call

    def caller(self, function: wasmtime.Func, signature: str) -> Begin:
        """What begins a call of a function, whose parameters and result are i32."""
        parameters, _, results = signature.partition(">")
        words, begin = self._words, c_interface.call_async
        set_deadline = c_interface.set_deadline
        has_result = bool(results)
        # Made once: converting a number to a C type at each call takes as long as the call.
        context = ctypes.c_void_p(self._context)
        fixed = (
            context,
            ctypes.c_void_p(ctypes.addressof(function._func)),
            ctypes.c_void_p(ctypes.addressof(words)),
            ctypes.c_size_t(len(parameters)),
            ctypes.c_void_p(ctypes.addressof(self._result)),
            ctypes.c_size_t(len(results)),
            ctypes.c_void_p(ctypes.addressof(self._trap)),
            ctypes.c_void_p(ctypes.addressof(self._error)),
        )

        def call(a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0) -> int | None:
            words[_NUMBER] = a
            words[_NUMBER + _STRIDE] = b
            words[_NUMBER + 2 * _STRIDE] = c
            words[_NUMBER + 3 * _STRIDE] = d
            words[_NUMBER + 4 * _STRIDE] = e
            set_deadline(context, _NEXT_TICK)
            self._has_result = has_result
            self._future = begin(*fixed)
            return self.go_on()

        call.keep = function  # type: ignore[attr-defined]  # its address points into it
        return call

    def go_on(self) -> int | None:
        """Run until the guest ends or yields."""
        future = self._future

        # Polled once more, what has ended would end the process.
        if future is None:
            raise HostBug("a guest call is gone on with that has ended")

        if not c_interface.poll(future):
            if not self._yields_alone:
                self.yield_alone()

            return None

        self._future = None
        c_interface.delete(future)

        if self._trap.value or self._error.value:
            trap, self._trap.value = self._trap.value, None
            error, self._error.value = self._error.value, None
            raise crossing(error, trap)

        return self._result[_NUMBER] if self._has_result else 0

    @property
    def is_in_host_call(self) -> bool:
        """Guest code runs that a host call has called: it can't be left."""
        return self._inner

    def yield_soon(self) -> None:
        """Called in a host call: let the guest yield as soon as it is back in its own code."""
        c_interface.set_deadline(self._context, _AT_ONCE)

    def cancel(self) -> None:
        """Give up a call that has yielded. The guest's memory may be half-way through a change."""
        future, self._future = self._future, None

        if future is not None:
            c_interface.delete(future)


def set_stack_size(config: wasmtime.Config, size: int) -> None:
    """How many bytes a fiber's stack has, for the guest and for the host calls on top of it."""
    capi.wasmtime_config_async_stack_size_set(config.ptr(), size)


class Bridges:
    """The bridges of one engine, each of which is compiled once."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._modules: dict[str, wasmtime.Module] = {}

    def module(self, signature: str) -> wasmtime.Module:
        """The bridge for host calls of a signature, whose result is an i32 or none."""
        if signature not in self._modules:
            code = bytes(wasmtime.wat2wasm(bridge_text(signature)))
            self._modules[signature] = wasmtime.Module(self._engine, code)

        return self._modules[signature]


def bridge_text(signature: str) -> str:
    """A module, as text, that calls the host for as long as it has no result (`1 << 32`)."""
    parameters, _, results = signature.partition(">")
    names = {"i": "i32", "I": "i64", "f": "f32", "F": "f64"}
    takes = " ".join(names[letter] for letter in parameters)
    arguments = " ".join(f"(local.get {index})" for index in range(len(parameters)))
    gives = "i32" if results else ""
    answer = len(parameters)
    give = f"(i32.wrap_i64 (local.get {answer}))" if results else ""
    return f"""(module
        (import "" "" (func $host (param {takes}) (result i64)))
        ;; A function of its own: a loop goes by the deadline that it found when it was entered.
        (func $ask (param {takes}) (result i64) (call $host {arguments}))
        (func (export "") (param {takes}) (result {gives}) (local i64)
            (loop $again
                (local.set {answer} (call $ask {arguments}))
                (br_if $again
                    (i64.ne (i64.const 0) (i64.shr_u (local.get {answer}) (i64.const 32)))))
            {give}))"""
