"""Whether the raw calls can be trusted on this machine, tried out before the first plugin loads.

The C interface is private to the wheel. A release that moves it must cost speed, not correctness:
when any of this fails, the public calls are used, and the log says so once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import wasmtime

from wasm_middleware.engines.wasmtime.binding import Binding, Boundary, Crossing
from wasm_middleware.engines.wasmtime.public import PublicBinding
from wasm_middleware.errors import MemoryFault
from wasm_middleware.limits import HOST_STACK, MAX_WASM_STACK

_LOG = logging.getLogger("wasm_middleware")

_GUEST = """(module
  (import "env" "add" (func $add (param i32 i64 i32) (result i32)))
  (import "env" "nothing" (func $nothing))
  (memory (export "memory") 1 3)
  (func (export "relay") (param i32 i32) (result i32)
    (call $add (local.get 0) (i64.const -5) (local.get 1)))
  (func (export "bare") (call $nothing))
  (func (export "grow") (result i32) (memory.grow (i32.const 1)))
  (func (export "trap") unreachable)
  (func (export "spin") (loop $l (br $l))))"""


_FIBER_GUEST = """(module
  (import "env" "tick" (func $tick (result i32)))
  (func (export "inner") (param i32) (result i32)
    (loop $l
      (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
      (br_if $l (local.get 0)))
    (i32.const 7))
  (func (export "call") (result i32) (local $sum i32)
    (local.set $sum (call $tick))
    (loop $l (br_if $l (i32.eqz (local.get $sum))))
    (local.get $sum)))"""
#: Later ones look at the machine's stack, and find that it isn't the thread's. Not tried yet.
_FIRST_UNTRIED = (3, 14)


class SelfTestFailed(Exception):
    """A raw call did not do what it should."""


@dataclass(frozen=True)
class _Add:
    call: Callable[..., int | None]
    faulted: Callable[[MemoryFault], None]
    fault: int = 77
    may_wait: bool = False


def choose_binding(config: Callable[[], wasmtime.Config]) -> Binding:
    """The raw binding if it passes, else the public one."""
    try:
        # Not at the top: a wheel without these names must leave the public calls usable.
        from wasm_middleware.engines.wasmtime.raw import RawBinding

        check(RawBinding(), config())
    except Exception as error:
        _LOG.warning(
            "wasmtime %s: raw calls failed their self-test, the slower public calls are used: %r",
            version("wasmtime"),
            error,
        )
        return PublicBinding()

    return RawBinding()


def check(binding: Binding, config: wasmtime.Config) -> None:
    """Cross the boundary in every way that the engine will; raise if one comes out wrong."""
    engine = wasmtime.Engine(config)
    store = wasmtime.Store(engine)
    boundary = Boundary()
    seen: list[tuple[int, ...]] = []
    faults: list[MemoryFault] = []

    def add(*values: int) -> int:
        seen.append(values)

        if not values:
            return 0

        if values[0] == 13:
            raise ZeroDivisionError

        if values[0] == 14:
            raise MemoryFault

        return sum(values)

    module = wasmtime.Module(engine, _GUEST)
    functions = []

    for entry, signature in zip(module.imports, ("iIi>i", ">"), strict=True):
        assert isinstance(entry.type, wasmtime.FuncType)
        function = _Add(add, faults.append)
        functions.append(binding.host_function(store, entry.type, signature, function, boundary))

    binding.set_deadline(store)(1_000)
    exports = wasmtime.Instance(store, module, functions).exports(store)

    def call(name: str, signature: str, *arguments: int) -> int:
        export = exports[name]
        assert isinstance(export, wasmtime.Func)
        return binding.caller(store, export, signature)(*arguments)

    def expect(what: str, *, holds: bool) -> None:
        if not holds:
            raise SelfTestFailed(what)

    expect("values", holds=call("relay", "ii>i", 0xFFFF_FFF0, 10) == 0xFFFF_FFF5)
    expect("signs", holds=seen[-1] == (0xFFFF_FFF0, -5, 10))
    call("bare", ">")
    expect("no values", holds=seen[-1] == ())
    expect("faults", holds=call("relay", "ii>i", 14, 0) == 77 and len(faults) == 1)
    expect("host failures", holds=_crosses(call, "relay", "ii>i", 13, 0))
    expect("kept failures", holds=isinstance(boundary.take_failure(), ZeroDivisionError))
    memory = exports["memory"]
    assert isinstance(memory, wasmtime.Memory)
    access = binding.memory(store, memory)
    call("grow", ">i")
    access.write_u32(2 * 65536 - 5, 0x04030201)
    expect("memory", holds=access.read(2 * 65536 - 5, 5) == b"\1\2\3\4\0")
    expect("traps", holds=_crosses(call, "trap", ">"))
    binding.set_deadline(store)(0)
    binding.increment_epoch(engine)()
    expect("interrupts", holds=_crosses(call, "spin", ">"))


def _crosses(call: Callable[..., int], *arguments: object) -> bool:
    try:
        call(*arguments)
    except Crossing:
        return True

    return False


def why_not_sliced(binding: Binding, config: Callable[[], wasmtime.Config]) -> str:
    """Why guest calls can't be left in their middle on this machine; empty if they can."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} has not been tried with it"

    if sys.version_info >= _FIRST_UNTRIED:
        return "Python {}.{} has not been tried with it".format(*sys.version_info)

    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "Python without its lock has not been tried with it"

    if isinstance(binding, PublicBinding):
        return "it needs wasmtime's raw calls"

    try:
        _check_fibers(binding, config())
    except Exception as error:
        _LOG.debug("guest calls can't be left in their middle", exc_info=True)
        return f"its self-test failed: {error!r}"

    return ""


def _check_fibers(binding: Binding, config: wasmtime.Config) -> None:
    """Leave a guest in its middle and go on with it, with a host call that calls it back."""
    # Not at the top: a wheel without these names must leave other calls usable.
    from wasm_middleware.engines.wasmtime.fibers import Fiber, set_stack_size

    set_stack_size(config, MAX_WASM_STACK + HOST_STACK)
    engine = wasmtime.Engine(config)
    store = wasmtime.Store(engine)
    fiber = Fiber(store)
    increment_epoch = binding.increment_epoch(engine)
    exports: dict[str, wasmtime.Func] = {}

    def tick() -> int:
        """Be late while the guest is called back, which must not be left then, and once more."""
        increment_epoch()
        inner = fiber.inner(binding.caller(store, exports["inner"], "i>i"))
        result = inner(1_000)
        increment_epoch()
        return result

    module = wasmtime.Module(engine, _FIBER_GUEST)
    declared = module.imports[0].type
    assert isinstance(declared, wasmtime.FuncType)
    function = _Add(lambda *_: tick(), lambda _: None)
    imported = binding.host_function(store, declared, ">i", function, Boundary())

    for name, export in wasmtime.Instance(store, module, [imported]).exports(store).items():
        assert isinstance(export, wasmtime.Func)
        exports[name] = export

    results = [fiber.caller(exports["call"], ">i")(), fiber.go_on()]

    if results != [None, 7]:
        raise SelfTestFailed(f"a guest came back with {results}")
