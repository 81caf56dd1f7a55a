"""Engines by the names that the configuration has for them."""

from __future__ import annotations

from wasm_middleware.engines.protocol import Engine
from wasm_middleware.engines.wasmtime import WasmtimeEngine


def make_engine(name: str) -> Engine:
    """A new engine; raises `EngineUnavailableError` where this Python has no such one."""
    engines = {"wasmtime": WasmtimeEngine}
    return engines[name]()
