"""Engines by the names that the configuration has for them."""

from __future__ import annotations

import platform

from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import EngineUnavailableError

try:
    from wasm_middleware.engines.wasmtime import WasmtimeEngine
except (ImportError, OSError, RuntimeError) as error:  # no wheel for this platform, or a broken one
    _WHY_NOT: Exception | None = error
else:
    _WHY_NOT = None


def make_engine(name: str) -> Engine:
    """A new engine; raises `EngineUnavailableError` where this Python has no such one."""
    if name != "wasmtime":
        raise EngineUnavailableError(f"there is no engine {name!r}: use engine: wasmtime")

    if _WHY_NOT is not None:
        raise EngineUnavailableError(
            f"wasmtime can't be loaded on {platform.platform()} with Python "
            f"{platform.python_version()}: {_WHY_NOT}; `pip install wasmtime` says which wheels "
            "there are"
        )

    return WasmtimeEngine()
