"""Engines by the names that the configuration has for them."""

from __future__ import annotations

import logging
import platform
import sys

from wasm_middleware.config import Settings
from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import ConfigError, EngineUnavailableError
from wasm_middleware.services.background import in_trio

try:
    from wasm_middleware.engines.wasmtime import WasmtimeEngine
except (ImportError, OSError, RuntimeError) as error:  # no wheel for this platform, or a broken one
    _WHY_NOT: Exception | None = error
else:
    _WHY_NOT = None

_LOG = logging.getLogger("wasm_middleware")


def engine_of(settings: Settings) -> Engine:
    """The engine that a configuration names; raises `ConfigError` that points at the name."""
    try:
        return make_engine(settings.engine, settings.scheduling)
    except EngineUnavailableError as error:
        raise ConfigError([settings.source.diagnostic(("engine",), str(error))]) from error


def make_engine(name: str, scheduling: str = "inline") -> Engine:
    """A new engine; raises `EngineUnavailableError` where this Python has no such one.

    Calls are only sliced where that is possible: called in the event loop that will serve.
    """
    sliced = scheduling == "sliced"

    match name:
        case "wasmtime":
            engine, why_inline = _wasmtime(sliced)
        case "wasmer":
            engine, why_inline = _wasmer()
        case _:
            raise EngineUnavailableError(f"there is no engine {name!r}: use engine: wasmtime")

    if sliced and why_inline:
        _LOG.warning(
            "calls into plugins are not sliced, and each holds up the event loop for up to its "
            "timeout: %s (scheduling: inline asks for that)",
            why_inline,
        )

    return engine


def _wasmtime(sliced: bool) -> tuple[Engine, str]:
    """The engine, and why its calls are not sliced."""
    if _WHY_NOT is not None:
        raise EngineUnavailableError(
            f"wasmtime can't be loaded on {platform.platform()} with Python "
            f"{platform.python_version()}: {_WHY_NOT}; `pip install wasmtime` says which wheels "
            "there are"
        )

    why_not = "trio has no such turns" if sliced and in_trio() else ""
    engine = WasmtimeEngine(sliced=sliced and not why_not)
    return engine, why_not or engine.why_inline


def _wasmer() -> tuple[Engine, str]:
    try:
        # Not at the top: few have it, and the stub that others get can't be imported.
        from wasm_middleware.engines.wasmer import WasmerEngine
    except (ImportError, OSError) as error:
        install = "`pip install 'wasm-middleware[wasmer]'`"
        ways_out = (
            f"its last release, 1.1.0, has wheels for CPython up to 3.10; use engine: wasmtime, or "
            f"run on CPython 3.10 with {install}"
            if sys.version_info >= (3, 11)
            else f"{install}, or use engine: wasmtime"
        )
        raise EngineUnavailableError(
            f"wasmer can't be loaded with {platform.python_implementation()} "
            f"{platform.python_version()} ({error}): {ways_out}"
        ) from error

    engine = WasmerEngine()
    return engine, engine.why_inline
