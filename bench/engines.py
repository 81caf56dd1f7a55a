"""What crossing the boundary costs on each engine that is installed, and computing behind it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import wasmtime

from wasm_middleware.engines.protocol import Engine, Instance, InstanceLimits
from wasm_middleware.engines.wasmtime import WasmtimeEngine
from wasm_middleware.engines.wasmtime.public import PublicBinding
from wasm_middleware.proxy_wasm.ports import HostFunction

#: Whether there is the second engine: it has wheels for CPython up to 3.10.
WASMER: Final = sys.version_info < (3, 11) and find_spec("wasmer") is not None
_RUST: Final = Path(__file__).parent.parent / "example_app" / "plugins" / "add-header.wasm"
_LIMITS: Final = InstanceLimits(16 << 20, 1000)
_STEPS: Final = 1_000_000
_FIB: Final = 24
#: How many calls of functions that takes.
_FIB_CALLS: Final = 150_049
_GUEST: Final = """(module
  (import "host" "call" (func $host (param i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "nothing") (param i32 i32 i32) (result i32) (local.get 0))
  (func (export "host_calls") (param i32)
    (loop $next
      (drop (call $host (local.get 0) (i32.const 2) (i32.const 3)))
      (br_if $next (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
  (func (export "bytes") (param i32) (result i32) (local i32)
    (loop $next
      (i32.store8 (i32.and (local.get 0) (i32.const 0xffff)) (local.get 1))
      (local.set 1 (i32.add (i32.mul (local.get 1) (i32.const 31))
        (i32.load8_u offset=7 (i32.and (local.get 0) (i32.const 0xffff)))))
      (br_if $next (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get 1))
  (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const 2))
      (then (local.get 0))
      (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
        (call $fib (i32.sub (local.get 0) (i32.const 2))))))))"""


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds, but for what runs in the guest: nanoseconds a step, or a call in there."""

    call: float
    host_call: float
    read: float
    write: float
    instance: float
    step: float
    inner_call: float
    #: Milliseconds for the example's Rust plugin.
    compile: float


def engines() -> Mapping[str, Callable[[], Engine]]:
    made: dict[str, Callable[[], Engine]] = {
        "wasmtime, sliced": lambda: WasmtimeEngine(sliced=True),
        "wasmtime, inline": WasmtimeEngine,
        "wasmtime, public calls": lambda: WasmtimeEngine(PublicBinding()),
    }

    if WASMER:
        from wasm_middleware.engines.wasmer import WasmerEngine

        made["wasmer, metered"] = WasmerEngine

    return made


def measure(*, rounds: int) -> dict[str, Costs]:
    """The costs by engine; the best of some rounds, since noise only ever adds."""
    return {name: asyncio.run(_measure(make, rounds)) for name, make in engines().items()}


async def _measure(make: Callable[[], Engine], rounds: int) -> Costs:
    engine = make()
    wasm = bytes(wasmtime.wat2wasm(_GUEST))
    module = engine.compile(wasm)
    host = HostFunction(lambda a, b, c: a, 0)

    def new() -> Instance:
        instance = module.instantiate(lambda *_: host, _LIMITS)
        instance.set_timeout(10.0)
        return instance

    instance = new()
    memory = instance.memory
    nothing, host_calls = instance.function("nothing"), instance.function("host_calls")
    in_bytes, fib = instance.function("bytes"), instance.function("fib")
    assert nothing is not None
    assert host_calls is not None
    assert in_bytes is not None
    assert fib is not None
    count = 5_000
    data = bytes(64)

    async def calls() -> None:
        for _ in range(count):
            await nothing(1, 2, 3)

    async def reads() -> None:
        for _ in range(count):
            memory.read(1000, 64)

    async def writes() -> None:
        for _ in range(count):
            memory.write(1000, data)

    async def instances() -> None:
        for _ in range(50):
            new().close()

    async def compiles() -> None:
        engine.compile(_RUST.read_bytes())

    async def best(what: Callable[[], object], times: int) -> float:
        found = []

        for _ in range(times):
            begun = time.perf_counter()
            await what()  # type: ignore[misc]  # each of them is a coroutine function
            found.append(time.perf_counter() - begun)

        return min(found)

    costs = Costs(
        call=await best(calls, rounds) / count * 1e6,
        host_call=await best(lambda: host_calls(count), rounds) / count * 1e6,
        read=await best(reads, rounds) / count * 1e6,
        write=await best(writes, rounds) / count * 1e6,
        instance=await best(instances, rounds) / 50 * 1e6,
        step=await best(lambda: in_bytes(_STEPS), rounds) / _STEPS * 1e9,
        inner_call=await best(lambda: fib(_FIB), rounds) / _FIB_CALLS * 1e9,
        compile=await best(compiles, 2) * 1e3,
    )
    instance.close()
    engine.close()
    return costs


def measure_unmetered(*, rounds: int) -> tuple[float, float]:
    """What wasmer takes for a step and a call in the guest where nothing is counted."""
    import wasmer

    store = wasmer.Store()
    i32 = wasmer.Type.I32
    given = wasmer.Function(store, lambda a, b, c: a, wasmer.FunctionType([i32] * 3, [i32]))
    imports = wasmer.ImportObject()
    imports.register("host", {"call": given})
    module = wasmer.Module(store, bytes(wasmtime.wat2wasm(_GUEST)))
    exports = wasmer.Instance(module, imports).exports
    steps, calls = [], []

    for _ in range(rounds):
        begun = time.perf_counter()
        exports.bytes(_STEPS)
        between = time.perf_counter()
        exports.fib(_FIB)
        steps.append(between - begun)
        calls.append(time.perf_counter() - between)

    return min(steps) / _STEPS * 1e9, min(calls) / _FIB_CALLS * 1e9
