"""Time: guests are stopped, and the clock rests when nothing runs."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
import wasmtime
from proxy_wasm.harness import run, started

from tests.wat import wat2wasm
from wasm_middleware.engines.protocol import Engine, Instance, InstanceLimits
from wasm_middleware.engines.wasmtime import WasmtimeEngine, engine_config, epoch
from wasm_middleware.engines.wasmtime.public import PublicBinding
from wasm_middleware.engines.wasmtime.raw import RawBinding
from wasm_middleware.errors import GuestTimeout, HostBug
from wasm_middleware.proxy_wasm.ports import HostFunction

LIMITS = InstanceLimits(4 * 65536, 100)


def make(
    engine: Engine,
    wat: str,
    *functions: HostFunction,
    limits: InstanceLimits = LIMITS,
    timeout: float | None = 5.0,
) -> Instance:
    waiting = list(functions)
    module = engine.compile(wat2wasm(wat))
    return started(module.instantiate(lambda *_: waiting.pop(0), limits), timeout)


def enter(instance: Instance, name: str = "f", *arguments: int) -> int:
    function = instance.function(name)
    assert function is not None
    return run(function(*arguments))


SPIN = '(module (func (export "f") (loop $l (br $l))) (func (export "g")))'


@pytest.mark.timeout(30, method="thread")
def test_a_guest_is_stopped_soon_after_its_timeout_and_never_before(
    wasm_engine: Engine,
) -> None:
    instance = make(wasm_engine, SPIN, timeout=0.05)
    start = time.perf_counter()

    with pytest.raises(GuestTimeout, match="50 ms"):
        enter(instance)

    assert 0.045 <= time.perf_counter() - start < 1
    assert instance.poisoned


@pytest.mark.timeout(30, method="thread")
def test_a_timeout_can_be_changed(wasm_engine: Engine) -> None:
    instance = make(wasm_engine, SPIN, timeout=None)
    instance.set_timeout(0.05)
    enter(instance, "g")
    instance.set_timeout(0.02)

    with pytest.raises(GuestTimeout, match="20 ms"):
        enter(instance)


@pytest.mark.timeout(30, method="thread")
def test_a_start_function_is_stopped_too(wasm_engine: Engine) -> None:
    with pytest.raises(GuestTimeout):
        make(wasm_engine, "(module (start $f) (func $f (loop $l (br $l))))", timeout=0.05)


@pytest.mark.timeout(30, method="thread")
def test_the_clock_does_not_rest_while_a_guest_runs(
    wasmtime_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many looks, none of which sees a call begin.
    monkeypatch.setattr(epoch, "_LOOK", 0.005)
    engine = WasmtimeEngine(wasmtime_engine._binding)  # type: ignore[attr-defined]
    instance = make(engine, SPIN, timeout=0.2)

    with pytest.raises(GuestTimeout):
        enter(instance)

    engine.close()


class FakeTicker:
    """Fulfils `epoch.Ticker`, and tells what it was told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.stopped = threading.Event()

    def start(self) -> None:
        self.stopped.clear()
        self.log.append("start")

    def stop(self) -> None:
        self.log.append("stop")
        self.stopped.set()


def call(clock: epoch.EpochClock) -> None:
    """What an instance does before it enters a guest."""
    clock.used = True

    if clock.parked:
        clock.wake()


def test_the_clock_rests_when_nothing_is_called_and_wakes_for_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epoch, "_LOOK", 0.001)
    ticker = FakeTicker()
    clock = epoch.EpochClock(lambda: ticker)
    assert clock.parked

    for _ in range(2):
        call(clock)
        assert ticker.stopped.wait(10)

    clock.close()
    assert ticker.log == ["start", "stop", "start", "stop", "stop"]


def test_a_closed_clock_can_not_be_woken() -> None:
    clock = epoch.EpochClock(FakeTicker)
    call(clock)
    clock.close()
    clock.close()
    assert clock.parked

    with pytest.raises(HostBug):
        clock.wake()


def test_a_thread_ticks_where_there_is_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "TICK", 0.0001)
    ticked = threading.Event()
    ticker = epoch.ThreadTicker(ticked.set)
    ticker.stop()
    ticker.start()

    assert ticked.wait(10)
    ticker.stop()


@pytest.mark.timeout(30, method="thread")
def test_without_timers_a_guest_is_stopped_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(*_arguments: object) -> None:
        raise OSError

    monkeypatch.setattr(epoch.PosixTicker, "__init__", none)
    engine = WasmtimeEngine()
    instance = make(engine, SPIN, timeout=0.05)

    with pytest.raises(GuestTimeout):
        enter(instance)

    engine.close()


@pytest.mark.timeout(30, method="thread")
@pytest.mark.skipif(sys.platform != "linux", reason="there is no timer that could fail")
def test_a_timer_that_fails_has_a_thread_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is there no more does: it says so when it is set."""
    engine = WasmtimeEngine(RawBinding())
    instance = make(engine, SPIN, timeout=0.05)
    start = epoch.PosixTicker.start

    def deleted(ticker: epoch.PosixTicker) -> None:
        ticker._timer.value = (1 << 31) - 1
        start(ticker)

    monkeypatch.setattr(epoch.PosixTicker, "start", deleted)

    with pytest.raises(GuestTimeout):
        enter(instance)

    engine.close()


def test_where_nothing_ticks_no_guest_is_entered() -> None:
    def none() -> epoch.Ticker:
        raise OSError("no more timers")

    clock = epoch.EpochClock(none)

    with pytest.raises(HostBug, match="nothing ticks"):
        clock.wake()

    assert clock.parked


FORKS = """
import asyncio, os, sys, time, warnings
import wasmtime
from wasm_middleware.engines.protocol import InstanceLimits
from wasm_middleware.engines.wasmtime import WasmtimeEngine, epoch
from wasm_middleware.errors import GuestTimeout
from wasm_middleware.proxy_wasm.ports import HostFunction

# That there are threads is what this is about.
warnings.simplefilter("ignore", DeprecationWarning)
epoch._LOOK = 0.01
engine = WasmtimeEngine(sliced=sys.argv[1] == "sliced")
parents = []

def fork():
    child = os.fork()

    if child:
        _, status = os.waitpid(child, 0)
        assert not status
        parents.append(child)

    return 0

text = '''(module (import "a" "fork" (func $fork (result i32)))
  (func (export "spin") (loop $l (br $l)))
  (func (export "fork") (drop (call $fork)) (loop $l (br $l))))'''
module = engine.compile(bytes(wasmtime.wat2wasm(text)))

def spin(name):
    instance = module.instantiate(lambda *_: HostFunction(fork, 0), InstanceLimits(1 << 20, 100))
    instance.set_timeout(0.05)

    async def call():
        await instance.function(name)()

    try:
        asyncio.run(call())
    except GuestTimeout:
        return

    raise SystemExit("it was not stopped")

for when in sys.argv[2:]:
    if when == "used":
        spin("spin")

    if when == "parked":
        while not engine._clock.parked:
            time.sleep(0.001)

    if when == "within":
        spin("fork")
    elif when == "fork":
        fork()

    if parents:
        break

engine.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.parametrize(
    ("scheduling", "story"),
    [
        ("sliced", "fork used"),
        ("sliced", "used fork used fork used"),
        ("sliced", "used parked fork used parked used"),
        ("inline", "used fork used"),
        # An event loop does not outlive a fork; without one a call goes on.
        ("inline", "used within used"),
    ],
)
def test_a_guest_is_stopped_in_a_process_that_was_forked(
    tmp_path: Path, scheduling: str, story: str
) -> None:
    """And in one forked by that; whether the clock rests, ticks, or is in use by a guest."""
    program = tmp_path / "forks.py"
    program.write_text(FORKS)
    # What is not stopped is killed with all that it has forked.
    process = subprocess.Popen(
        [sys.executable, program, scheduling, *story.split()], start_new_session=True
    )

    try:
        assert process.wait(20) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

        process.wait()


def test_nothing_runs_after_its_engine_was_closed() -> None:
    engine = WasmtimeEngine()
    instance = make(engine, SPIN, timeout=0.05)
    enter(instance, "g")
    engine.close()
    engine.close()

    with pytest.raises(HostBug):
        enter(instance)


@pytest.mark.parametrize("binding", [RawBinding(), PublicBinding()])
def test_what_ticks_keeps_its_engine_alive(binding: RawBinding | PublicBinding) -> None:
    engine = wasmtime.Engine(engine_config())
    alive = weakref.ref(engine)
    increment = binding.increment_epoch(engine)
    del engine
    gc.collect()
    increment()

    assert alive() is not None
