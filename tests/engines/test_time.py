"""Time: guests are stopped, and the clock rests when nothing runs."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
import wasmtime
from proxy_wasm.harness import run, started

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
    module = engine.compile(bytes(wasmtime.wat2wasm(wat)))
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
    clock = epoch.EpochClock(ticker)
    assert clock.parked

    for _ in range(2):
        call(clock)
        assert ticker.stopped.wait(10)

    clock.close()
    assert ticker.log == ["start", "stop", "start", "stop", "stop"]


def test_a_closed_clock_can_not_be_woken() -> None:
    clock = epoch.EpochClock(FakeTicker())
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
