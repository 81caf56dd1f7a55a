"""Engines by the names that the configuration has for them."""

from __future__ import annotations

import logging
import platform

from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import EngineUnavailableError
from wasm_middleware.services.background import in_trio

try:
    from wasm_middleware.engines.wasmtime import WasmtimeEngine
except (ImportError, OSError, RuntimeError) as error:  # no wheel for this platform, or a broken one
    _WHY_NOT: Exception | None = error
else:
    _WHY_NOT = None

_LOG = logging.getLogger("wasm_middleware")


def make_engine(name: str, scheduling: str = "inline") -> Engine:
    """A new engine; raises `EngineUnavailableError` where this Python has no such one.

    Calls are only sliced where that is possible: called in the event loop that will serve.
    """
    if name != "wasmtime":
        raise EngineUnavailableError(f"there is no engine {name!r}: use engine: wasmtime")

    if _WHY_NOT is not None:
        raise EngineUnavailableError(
            f"wasmtime can't be loaded on {platform.platform()} with Python "
            f"{platform.python_version()}: {_WHY_NOT}; `pip install wasmtime` says which wheels "
            "there are"
        )

    sliced = scheduling == "sliced"
    why_not = "" if not sliced or not in_trio() else "trio has no such turns"
    engine = WasmtimeEngine(sliced=sliced and not why_not)
    why_not = why_not or engine.why_inline

    if sliced and why_not:
        _LOG.warning(
            "calls into plugins are not sliced, and each holds up the event loop for up to its "
            "timeout: %s (scheduling: inline asks for that)",
            why_not,
        )

    return engine
