"""Fixtures for all tests: the engines, one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

from tests.compatibility.recording import proof as proof
from wasm_middleware.engines.null import NullEngine
from wasm_middleware.engines.protocol import Engine

settings.register_profile(
    "tests",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")

WASMTIME = ("wasmtime", "wasmtime-public")
#: Only CPython 3.10 and older have it; elsewhere its package is a stub that can't be imported.
WASMER = ("wasmer",) if sys.version_info < (3, 11) and find_spec("wasmer") else ()


def make_engine(name: str) -> Engine:
    if name == "null":
        return NullEngine()

    # Not at the top: tests of what needs no engine shall not load one.
    if name == "wasmer":
        from wasm_middleware.engines.wasmer import WasmerEngine

        return WasmerEngine()

    from wasm_middleware.engines.wasmtime import WasmtimeEngine
    from wasm_middleware.engines.wasmtime.public import PublicBinding
    from wasm_middleware.engines.wasmtime.raw import RawBinding

    return WasmtimeEngine(RawBinding() if name == "wasmtime" else PublicBinding())


@pytest.fixture(scope="session", params=["null", *WASMTIME, *WASMER])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine, and each way of calling it."""
    made = make_engine(request.param)
    yield made
    made.close()


@pytest.fixture(scope="session", params=[*WASMTIME, *WASMER])
def wasm_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine that can run any module and interrupt it."""
    made = make_engine(request.param)
    yield made
    made.close()


@pytest.fixture(scope="session", params=WASMTIME)
def wasmtime_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """For what only wasmtime can do."""
    made = make_engine(request.param)
    yield made
    made.close()
