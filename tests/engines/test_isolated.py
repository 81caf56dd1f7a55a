"""Compiling in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.wat import wat2wasm
from wasm_middleware import limits
from wasm_middleware.engines import isolation
from wasm_middleware.engines.isolation import Bounds, CompilationFailed
from wasm_middleware.engines.module_info import ModuleFormatError
from wasm_middleware.engines.protocol import InstanceLimits
from wasm_middleware.engines.wasmtime import WasmtimeEngine
from wasm_middleware.proxy_wasm.ports import HostFunction

LIMITS = InstanceLimits(4 * 65536, 100)
ADDS = """(module
  (import "a" "f" (func $f (param i32) (result i32)))
  (global $started (mut i32) (i32.const 0))
  (start $begin)
  (func $begin (global.set $started (i32.const 100)))
  (func (export "f") (param i32) (result i32)
    (i32.add (global.get $started) (call $f (local.get 0)))))"""


@pytest.fixture(params=[False, True], ids=["inline", "sliced"])
def engine(request: pytest.FixtureRequest) -> Iterator[WasmtimeEngine]:
    engine = WasmtimeEngine(sliced=request.param)

    if engine.suspends is not request.param:
        pytest.skip(engine.why_inline)

    yield engine
    engine.close()


def nested(loops: int, count: int) -> bytes:
    """A function of loops within loops, each of which may have changed any of its locals.

    What a register holds at the head of each loop has to be found for every local.
    """
    changes = "".join(
        f"(local.set {7 * n % count} (i32.add (local.get {3 * n % count}) (local.get {n % count})))"
        for n in range(4 * count)
    )
    body = "(loop " * loops + changes + "(br_if 0 (local.get 0)))" * loops
    return wat2wasm(f"(module (func (local {'i32 ' * count}) {body}))")


def test_what_is_compiled_elsewhere_runs_here(engine: WasmtimeEngine) -> None:
    module = engine.compile_isolated(wat2wasm(ADDS))
    instance = module.instantiate(lambda *_: HostFunction(lambda number: number + 1, 0), LIMITS)
    instance.set_timeout(5.0)
    begin, function = instance.start_function(), instance.function("f")
    assert begin is not None
    assert function is not None

    async def calls() -> int:
        await begin()
        return await function(6)

    # Where calls are sliced, a tick of the clock may come in the midst of one.
    assert asyncio.run(calls()) == 107
    assert [entry.name for entry in module.info.imports] == ["f"]


def test_an_invalid_module_is_told_from_a_costly_one(engine: WasmtimeEngine) -> None:
    # A function that promises an i32 and gives none.
    wasm = b"\0asm\1\0\0\0\1\5\1\x60\0\1\x7f\3\2\1\0\x0a\4\1\2\0\x0b"

    with pytest.raises(ModuleFormatError, match="type mismatch") as caught:
        engine.compile_isolated(wasm)

    assert not isinstance(caught.value, CompilationFailed)


def test_a_module_that_takes_minutes_is_given_up(engine: WasmtimeEngine) -> None:
    hostile = nested(400, 400)
    assert len(hostile) < 30_000
    began = time.monotonic()

    with pytest.raises(CompilationFailed, match="compiling it takes longer than 3 s"):
        engine.compile_isolated(hostile, Bounds(time=3))

    assert time.monotonic() - began < 20


def test_the_processors_time_is_limited_by_the_kernel(
    engine: WasmtimeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where nobody is left to give it up."""
    spin = isolation._START.replace(
        "serve(",
        "from wasm_middleware.engines import isolation\n"
        "isolation._limit(1, int(memory))\nwhile True: pass\nserve(",
    )
    monkeypatch.setattr(isolation, "_START", spin)

    with pytest.raises(CompilationFailed, match="compiling it takes longer than 50 s"):
        engine.compile_isolated(b"\0asm\1\0\0\0", Bounds(time=50))


def test_a_module_that_takes_much_memory_is_given_up(engine: WasmtimeEngine) -> None:
    blocks = "(block (br_if 0 (local.get 0)))" * 200_000
    hostile = wat2wasm(f"(module (func (local i32) {blocks}))")

    with pytest.raises(CompilationFailed, match="compiling it takes more than 256 MB of memory"):
        engine.compile_isolated(hostile, Bounds(memory=256 * limits.MIB))


def test_the_process_gets_no_secrets(
    engine: WasmtimeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os, sys; print(sorted(os.environ), file=sys.stderr); sys.exit(65)"
    monkeypatch.setattr(isolation, "_START", script)
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")

    with pytest.raises(ModuleFormatError, match="MALLOC_ARENA_MAX") as caught:
        engine.compile_isolated(b"\0asm\1\0\0\0")

    assert "DATABASE_PASSWORD" not in str(caught.value)


def test_an_interpreter_that_can_not_be_started_is_an_error(
    engine: WasmtimeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")

    with pytest.raises(CompilationFailed, match="no process could be started to compile it"):
        engine.compile_isolated(b"\0asm\1\0\0\0")


def test_what_the_process_says_last_is_told(
    engine: WasmtimeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_START", "raise OSError('the disk is gone')")

    with pytest.raises(CompilationFailed, match="ended with 1: OSError: the disk is gone"):
        engine.compile_isolated(b"\0asm\1\0\0\0")
