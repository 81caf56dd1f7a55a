"""The middleware: a configuration that becomes plugins when the server starts.

Its constructor keeps options and nothing else. Plugins are loaded in lifespan start-up; where no
lifespan comes (a mounted application, a route's own middleware, a test transport) at the first
request. Then each request gets its chain, and an `Exchange` of its own carries it; a request
without plugins goes to the application with the very same objects.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import anyio

from wasm_middleware.asgi.binding import Binding
from wasm_middleware.asgi.denial import deny_bare
from wasm_middleware.asgi.discovery import EndpointTable, application_of
from wasm_middleware.asgi.exchange import Exchange
from wasm_middleware.asgi.lifespan import run_lifespan
from wasm_middleware.asgi.types import ASGIApp, Receive, Scope, Send
from wasm_middleware.asgi.websocket import Handshake
from wasm_middleware.config import Settings, load_settings
from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import ConfigError, WasmMiddlewareError
from wasm_middleware.proxy_wasm.ports import ForeignFunction
from wasm_middleware.runtime.engines import engine_of
from wasm_middleware.runtime.registry import REGISTRY, Key, config_key, functions_key

_LOG = logging.getLogger("wasm_middleware")

#: Seconds between two attempts to load what could not be loaded at a request.
_RETRY_INTERVAL = 1.0


class WasmPluginMiddleware:
    """Run Proxy-Wasm plugins in front of an ASGI application.

    `config` is a YAML file's path, a dict of the same shape, or `Settings`. `plugins` names the
    whole chain, in place of the file's routes and of decorators. The other options override the
    file's keys of the same name; `engine` may also be a function that makes one.
    `foreign_functions` are functions from bytes to bytes, by the names that plugins call them by
    (`proxy_call_foreign_function`). A synchronous one holds up the event loop while it runs; what
    an asynchronous one gives is delivered later, through `proxy_on_foreign_function`.

    Configuration mistakes fail the server's start-up, all at once, each with file and line. Where
    no lifespan comes they are logged at the first request, which is answered 503.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: str | os.PathLike[str] | Mapping[str, object] | Settings,
        plugins: Sequence[str] | None = None,
        engine: str | Callable[[], Engine] | None = None,
        routes: Sequence[Mapping[str, object]] | None = None,
        defaults: Mapping[str, object] | None = None,
        log_level: str | None = None,
        foreign_functions: Mapping[str, ForeignFunction] | None = None,
    ) -> None:
        if isinstance(plugins, str):
            raise TypeError("plugins must be a list of names, not one string")

        if foreign_functions is not None:
            _check_functions(foreign_functions)

        if not isinstance(config, str | os.PathLike | Mapping | Settings):
            raise TypeError(f"config must be a path, a dict or Settings, not {config!r}")

        self.app = app
        self._config = config
        self._functions = dict(foreign_functions or {})
        self._plugins = None if plugins is None else tuple(plugins)
        self._make_engine = engine if callable(engine) else None
        self._options: dict[str, object] = {
            "engine": engine if isinstance(engine, str) else None,
            "routes": routes,
            "defaults": defaults,
            "log_level": log_level,
        }
        self._key: Key | None = None
        self._binding: Binding | None = None
        self._lock: anyio.Lock | None = None
        self._failed_at: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope, as the ASGI specification says."""
        kind = scope["type"]

        if kind == "lifespan":
            await run_lifespan(
                self.app,
                scope,
                receive,
                send,
                start=lambda: self._start(scope),
                stop=self._stop,
            )
            return

        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        binding = self._binding or await self._start_late(scope)

        if binding is None:
            await _unavailable(scope, receive, send)
            return

        try:
            chain = binding.find_chain(scope)
        except ConfigError as error:
            self._log_failure(error)
            await _unavailable(scope, receive, send)
            return

        if not (chain.links if kind == "websocket" else chain.handles_http):
            await self.app(scope, receive, send)
            return

        serve = Exchange if kind == "http" else Handshake
        await serve(self.app, scope, receive, send, binding.find_chain).run(chain)

    async def _start(self, scope: Scope) -> None:
        """Load, if nothing is loaded; raises `WasmMiddlewareError`."""
        if self._binding is not None:
            return

        settings = load_settings(self._config, check_files=True, **self._options)
        functions = self._functions
        key = (
            config_key(self._config, settings, self._options),
            self._make_engine,
            functions_key(functions),
            # Two threads may have an event loop each, and an instance belongs to one.
            threading.get_ident(),
        )
        make = self._make_engine or (lambda: engine_of(settings))
        generation = await REGISTRY.acquire(key, settings, make, functions)

        try:
            endpoints = EndpointTable(application_of(self.app, scope))
            binding = Binding(generation, endpoints, self._plugins)
        except BaseException:
            await REGISTRY.release(key)
            raise

        self._key, self._binding = key, binding
        binding.log_summary()

    async def _start_late(self, scope: Scope) -> Binding | None:
        """Load at a request; None if that failed, which is logged and tried once a second."""
        if self._lock is None:
            self._lock = anyio.Lock()

        async with self._lock:
            if self._binding is None and not self._failed_recently():
                try:
                    await self._start(scope)
                except Exception as error:
                    self._log_failure(error)

        return self._binding

    def _failed_recently(self) -> bool:
        return self._failed_at is not None and time.monotonic() - self._failed_at < _RETRY_INTERVAL

    def _log_failure(self, error: Exception) -> None:
        """Say why requests are refused, once a second."""
        if self._failed_recently():
            return

        self._failed_at = time.monotonic()
        ours = isinstance(error, WasmMiddlewareError)
        _LOG.error("requests are refused:\n%s", error, exc_info=None if ours else error)

    async def _stop(self) -> None:
        key, self._key, self._binding = self._key, None, None

        if key is not None:
            await REGISTRY.release(key)


def _check_functions(given: object) -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"foreign_functions must be functions by name, not {given!r}")

    for name, function in given.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a foreign function must be text, not {name!r}")

        if not callable(function):
            raise TypeError(f"the foreign function {name!r} can't be called: {function!r}")


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse what could not be protected."""
    if scope["type"] == "websocket":
        await receive()
        await deny_bare(scope, send, 503)
        return

    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
