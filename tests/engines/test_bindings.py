"""The choice between raw and public calls."""

from __future__ import annotations

import logging
import sys

import pytest
from proxy_wasm.harness import run, started

from tests.wat import wat2wasm
from wasm_middleware.engines.protocol import Engine, Instance, InstanceLimits
from wasm_middleware.engines.wasmtime import WasmtimeEngine, engine_config, selftest
from wasm_middleware.engines.wasmtime.public import PublicBinding
from wasm_middleware.engines.wasmtime.raw import RawBinding
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


def test_raw_calls_are_chosen_where_they_work(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(selftest.choose_binding(engine_config), RawBinding)

    assert caplog.records == []
    assert "raw calls" in WasmtimeEngine().description


@pytest.mark.parametrize("binding", [RawBinding(), PublicBinding()])
def test_both_pass_the_test(binding: RawBinding | PublicBinding) -> None:
    selftest.check(binding, engine_config())


def test_public_calls_are_chosen_where_raw_ones_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object) -> None:
        raise AttributeError("function wasmtime_func_call_unchecked not found")

    monkeypatch.setattr(RawBinding, "caller", broken)

    with caplog.at_level(logging.WARNING):
        engine = WasmtimeEngine()

    assert "public calls" in engine.description
    [record] = caplog.records
    assert "raw calls failed their self-test" in record.message
    assert enter(make(engine, '(module (func (export "f") (result i32) (i32.const 5)))')) == 5
    engine.close()


def test_public_calls_are_chosen_where_the_wheel_lacks_the_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wasm_middleware.engines.wasmtime.raw", None)

    assert isinstance(selftest.choose_binding(engine_config), PublicBinding)


@pytest.mark.parametrize("method", ["host_function", "caller", "memory", "set_deadline"])
def test_the_self_test_sees_a_binding_that_does_something_else(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    right = getattr(RawBinding, method)

    class Wrong:
        """Calls that answer one too much, and memory that writes nowhere."""

        def __init__(self, found: object) -> None:
            self.found = found

        def __call__(self, *arguments: int) -> int:
            return int(self.found(*arguments) or 0) + 1  # type: ignore[operator]

        def write_u32(self, *_arguments: int) -> None:
            pass

        def read(self, *arguments: int) -> bytes:
            return bytes(self.found.read(*arguments))  # type: ignore[attr-defined]

    def changed(self: RawBinding, *arguments: object) -> object:
        if method == "host_function":
            store, type_, signature, function, boundary = arguments
            wrong = HostFunction(Wrong(function.call), function.fault, function.faulted)  # type: ignore[attr-defined, arg-type]
            return right(self, store, type_, signature, wrong, boundary)

        if method == "set_deadline":
            return lambda ticks: right(self, *arguments)(ticks + 1_000_000)

        return Wrong(right(self, *arguments))

    monkeypatch.setattr(RawBinding, method, changed)

    if method == "set_deadline":
        # Its guest would spin for ever.
        monkeypatch.setattr(
            selftest, "_GUEST", selftest._GUEST.replace("(loop $l (br $l))", "(nop)")
        )

    with pytest.raises(selftest.SelfTestFailed):
        selftest.check(RawBinding(), engine_config())
