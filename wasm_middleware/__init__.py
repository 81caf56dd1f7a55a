"""Run Proxy-Wasm plugins inside any ASGI application.

    app.add_middleware(WasmPluginMiddleware, config="plugins.yaml")

Everything that users need is here; the rest of the package may move between versions.
"""

from __future__ import annotations

from wasm_middleware.asgi.decorators import wasm_exempt, wasm_plugins
from wasm_middleware.asgi.middleware import WasmPluginMiddleware
from wasm_middleware.config import Settings
from wasm_middleware.errors import (
    ConfigError,
    Diagnostic,
    EngineUnavailableError,
    GuestError,
    PluginLoadError,
    StreamAborted,
    WasmMiddlewareError,
)
from wasm_middleware.proxy_wasm.ports import deferred

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "Diagnostic",
    "EngineUnavailableError",
    "GuestError",
    "PluginLoadError",
    "Settings",
    "StreamAborted",
    "WasmMiddlewareError",
    "WasmPluginMiddleware",
    "__version__",
    "deferred",
    "wasm_exempt",
    "wasm_plugins",
]
