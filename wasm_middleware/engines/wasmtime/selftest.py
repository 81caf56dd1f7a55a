"""Whether the raw calls can be trusted on this machine, tried out before the first plugin loads.

The C interface is private to the wheel. A release that moves it must cost speed, not correctness:
when any of this fails, the public calls are used, and the log says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import wasmtime

from wasm_middleware.engines.wasmtime.binding import Binding, Boundary, Crossing
from wasm_middleware.engines.wasmtime.public import PublicBinding
from wasm_middleware.errors import MemoryFault

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


class SelfTestFailed(Exception):
    """A raw call did not do what it should."""


@dataclass(frozen=True)
class _Add:
    call: Callable[..., int | None]
    faulted: Callable[[MemoryFault], None]
    fault: int = 77


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
