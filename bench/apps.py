"""The applications that are compared: one endpoint, and different things in front of it.

All of them do the same to a request, as far as there is anything in front: they add a header to it
and one to its response.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

import wasmtime
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench import engines
from wasm_middleware import WasmPluginMiddleware
from wasm_middleware.engines.wasmtime import WasmtimeEngine
from wasm_middleware.engines.wasmtime.public import PublicBinding

_HERE: Final = Path(__file__).parent
_RUST: Final = _HERE.parent / "example_app" / "plugins" / "add-header.wasm"
_TEN: Final = 10
#: Seconds that a plugin which spins has for each call.
SPIN_TIMEOUT: Final = 0.050


class PureMiddleware:
    """What one writes by hand."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_through(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-gateway", b"wasm")]

            await send(message)

        headers = [*scope["headers"], (b"x-processed-by", b"wasm")]
        await self.app({**scope, "headers": headers}, receive, send_through)


class HighLevelMiddleware(BaseHTTPMiddleware):
    """What most people write."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.scope["headers"] = [*request.scope["headers"], (b"x-processed-by", b"wasm")]
        response = await call_next(request)
        response.headers["x-gateway"] = "wasm"
        return response


async def _hello(request: Request) -> Response:
    return PlainTextResponse("hello")


def _application(*middleware: Middleware) -> ASGIApp:
    return Starlette(routes=[Route("/", _hello)], middleware=middleware)


def _plugins(path: Path, count: int = 1, *, scheduling: str = "", **options: object) -> Middleware:
    """Plugins in the way that users get unless they ask for another one."""
    plugins = [{"name": f"plugin-{number}", "path": str(path)} for number in range(count)]
    config: dict[str, object] = {"plugins": plugins}

    if scheduling:
        config["scheduling"] = scheduling

    return Middleware(WasmPluginMiddleware, config=config, **options)  # type: ignore[arg-type] # options are passed through


def module_of(wat: str, **filled_in: str) -> Path:
    """The module of a file of this folder, in one that lives as long as the process."""
    text = (_HERE / wat).read_text(encoding="utf-8")

    for word, value in filled_in.items():
        text = text.replace(word, value)

    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "plugin.wasm"
    path.write_bytes(wasmtime.wat2wasm(text))
    return path


def trapping() -> Path:
    """A module that traps where the header `x-trap` asks for it."""
    return module_of("misbehave.wat", HEADER="x-trap", DEED="(unreachable)")


def spinning() -> Path:
    """A module that never comes back where the header `x-spin` asks for it."""
    return module_of("misbehave.wat", HEADER="x-spin", DEED="(loop $again (br $again))")


def _public_calls() -> WasmtimeEngine:
    return WasmtimeEngine(PublicBinding())


def plain() -> ASGIApp:
    """Nothing in front."""
    return _application()


def pure() -> ASGIApp:
    """A middleware of the specification's own form."""
    return _application(Middleware(PureMiddleware))


def base_http() -> ASGIApp:
    """Starlette's BaseHTTPMiddleware: the measure of all things here."""
    return _application(Middleware(HighLevelMiddleware))


def one_plugin() -> ASGIApp:
    """One plugin that does as little as a filter can."""
    return _application(_plugins(module_of("header.wat")))


def ten_plugins() -> ASGIApp:
    """Ten of them in one chain."""
    return _application(_plugins(module_of("header.wat"), _TEN))


def one_plugin_inline() -> ASGIApp:
    """The same plugin, with calls that run from beginning to end."""
    return _application(_plugins(module_of("header.wat"), scheduling="inline"))


def one_plugin_through_public_calls() -> ASGIApp:
    """The same plugin through wasmtime-py's documented calls."""
    return _application(_plugins(module_of("header.wat"), engine=_public_calls))


def one_plugin_on_wasmer() -> ASGIApp:
    """The same plugin on the other engine."""
    return _application(_plugins(module_of("header.wat"), scheduling="inline", engine="wasmer"))


def rust_plugin_on_wasmer() -> ASGIApp:
    """The Rust plugin on the other engine."""
    return _application(_rust(1, scheduling="inline", engine="wasmer"))


def rust_plugin() -> ASGIApp:
    """The example's add-header, as the Rust SDK makes it, in the two phases that it needs."""
    return _application(_rust(1))


def ten_rust_plugins() -> ASGIApp:
    """Ten of them in one chain."""
    return _application(_rust(_TEN))


def beside_one_that_spins() -> ASGIApp:
    """A plugin on every request, and on those of one path another one, which may spin."""
    return _beside("sliced")


def beside_one_that_spins_inline() -> ASGIApp:
    """The same, with calls that run from beginning to end."""
    return _beside("inline")


def _beside(scheduling: str) -> ASGIApp:
    # What fails as it is to is nothing to read.
    logging.getLogger("wasm_middleware").addFilter(_is_no_spinner)
    timeout = f"{SPIN_TIMEOUT * 1e3:g}ms"
    config = {
        "scheduling": scheduling,
        "plugins": [
            {"name": "header", "path": str(module_of("header.wat"))},
            {"name": "spins", "path": str(spinning()), "timeout": timeout},
        ],
        "routes": [
            {"path": "/spin", "plugins": ["header", "spins"]},
            {"path": "/*", "plugins": ["header"]},
        ],
    }
    return Starlette(
        routes=[Route("/", _hello), Route("/spin", _hello)],
        middleware=[Middleware(WasmPluginMiddleware, config=config)],
        lifespan=_frozen,
    )


@contextlib.asynccontextmanager
async def _frozen(app: Starlette) -> AsyncIterator[None]:
    """What is there at the start is never garbage: looking through it takes 30 ms each time."""
    gc.collect()
    gc.freeze()
    yield


def _is_no_spinner(record: logging.LogRecord) -> bool:
    return getattr(record, "plugin", "") != "spins"


def _rust(count: int, *, scheduling: str = "", **options: object) -> Middleware:
    phases = {"phase": ["on_request_headers", "on_response_headers"]}
    return _plugins(_RUST, count, scheduling=scheduling, defaults=phases, **options)


SLICED: Final = "1 plugin (header.wat)"
INLINE: Final = "1 plugin, inline"
WASMER: Final = "1 plugin, wasmer"
WASMER_RUST: Final = "1 plugin (Rust), wasmer"
#: What is measured in process, by the name in the table.
IN_PROCESS: Final[Mapping[str, Callable[[], ASGIApp]]] = {
    "Starlette alone": plain,
    "pure ASGI middleware": pure,
    "BaseHTTPMiddleware": base_http,
    SLICED: one_plugin,
    INLINE: one_plugin_inline,
    "10 plugins (header.wat)": ten_plugins,
    "1 plugin, public calls": one_plugin_through_public_calls,
    "1 plugin (Rust add-header)": rust_plugin,
    "10 plugins (Rust add-header)": ten_rust_plugins,
    **(
        {WASMER: one_plugin_on_wasmer, WASMER_RUST: rust_plugin_on_wasmer} if engines.WASMER else {}
    ),
}
#: What is measured behind a server.
SERVED: Final[Mapping[str, Callable[[], ASGIApp]]] = {
    "Starlette alone": plain,
    "BaseHTTPMiddleware": base_http,
    SLICED: one_plugin,
    "1 plugin (Rust add-header)": rust_plugin,
}
BASELINE: Final = "Starlette alone"
YARDSTICK: Final = "BaseHTTPMiddleware"
#: How calls run where it is not in slices, as they do by default, or where there are none.
SCHEDULING: Final[Mapping[str, str]] = {
    **dict.fromkeys(("Starlette alone", "pure ASGI middleware", "BaseHTTPMiddleware"), ""),
    **dict.fromkeys((INLINE, WASMER, WASMER_RUST, "1 plugin, public calls"), "inline"),
}
#: What one header plugin may cost at most, as a part of what the yardstick adds.
TARGETS: Final[Mapping[str, float]] = {SLICED: 0.33, INLINE: 0.25}
#: What slicing may add to what a quick plugin adds inline, as a part of that.
SLICING_TARGET: Final = 0.35
