"""The application that a file is checked against: found as servers find it, and never started."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Final

import click

from wasm_middleware.asgi.discovery import find_application
from wasm_middleware.asgi.middleware import WasmPluginMiddleware
from wasm_middleware.errors import WasmMiddlewareError

__all__ = ["ApplicationError", "Layer", "import_application", "middlewares"]

_LOG = logging.getLogger("wasm_middleware")
_FORM: Final = "write module:attribute, as for uvicorn"
#: How many applications around applications are looked through.
_DEEPEST: Final = 100
_ENCODERS: Final = re.compile("gzip|brotli|zstd|deflate|compress", re.IGNORECASE)


class ApplicationError(WasmMiddlewareError):
    """The application's own code failed while it was imported."""


def import_application(name: str) -> object:
    """Import `module:attribute`, or call `module:factory()`.

    The working folder is where modules are sought first, as in uvicorn. Raises
    `click.BadParameter` for a name that stands for nothing, and `ApplicationError` where the
    application fails.
    """
    module_name, _, attribute = name.partition(":")

    if not module_name or not attribute:
        raise _wrong(f"{name!r} names no application: {_FORM}")

    folder = os.getcwd()

    if folder not in sys.path:
        sys.path.insert(0, folder)

    # What an application prints must not get between the lines of a report.
    with redirect_stdout(sys.stderr):
        module = _import(module_name)
        return _application(name, module, attribute)


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None

        # Not one that the application imports in turn.
        if missing and f"{name}.".startswith(f"{missing}."):
            raise _wrong(f"there is no module {missing!r} in {os.getcwd()}") from None

        raise _failed(f"importing {name!r}", error) from error


def _application(name: str, module: object, attribute: str) -> object:
    path, called = attribute.removesuffix("()"), attribute.endswith("()")
    found = module

    for part in path.split("."):
        if not hasattr(found, part):
            raise _wrong(f"{name!r}: there is no {part!r} in it")

        found = getattr(found, part)

    if called:
        if not callable(found):
            raise _wrong(f"{name!r}: {path} can't be called")

        try:
            return found()
        except (Exception, SystemExit) as error:
            raise _failed(f"calling {path}()", error) from error

    if inspect.isfunction(found) and not inspect.signature(found).parameters:
        raise _wrong(f"{name!r}: {path} is a factory: write {name}()")

    if not callable(found):
        raise _wrong(f"{name!r} is a {type(found).__name__}, not an ASGI application")

    return found


def _wrong(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="'--app'")


def _failed(what: str, error: BaseException) -> ApplicationError:
    """Name the line of the application that failed; the traceback is for those who debug."""
    _LOG.debug("%s failed", what, exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    # The line of the application that is furthest in says more than the library it called.
    own = [frame for frame in frames if frame.filename.startswith(os.getcwd() + os.sep)]
    last = (own or frames)[-1]
    place = f"{os.path.relpath(last.filename)}:{last.lineno}" if own else last.filename
    reason = str(error) or "no reason given"
    return ApplicationError(f"{place}: {what} failed: {type(error).__name__}: {reason}")


@dataclass(frozen=True, slots=True)
class Layer:
    """A middleware around an application's router."""

    name: str
    #: It is ours, made with these options.
    options: dict[str, object] | None = None

    @property
    def encodes(self) -> bool:
        """Whether it looks like one that compresses responses."""
        return _ENCODERS.search(self.name) is not None


def middlewares(app: object) -> list[Layer]:
    """The middlewares of an application that can be known without building it, outermost first."""
    layers = []
    routed = find_application(app)

    for _ in range(_DEEPEST):
        if app is None or app is routed:
            break

        layers.append(_wrapper(app))
        app = getattr(app, "app", None)

    layers += _added(getattr(routed, "user_middleware", ()))
    return layers


def _wrapper(app: object) -> Layer:
    if isinstance(app, WasmPluginMiddleware):
        return Layer(type(app).__name__, {"config": app._config, "plugins": app._plugins})

    return Layer(type(app).__name__)


def _added(entries: object) -> Iterator[Layer]:
    """What `add_middleware` and `middleware=[…]` left, in Starlette's form: outermost first."""
    for entry in entries if isinstance(entries, (list, tuple)) else ():
        made_by = getattr(entry, "cls", None)
        ours = isinstance(made_by, type) and issubclass(made_by, WasmPluginMiddleware)
        name = getattr(made_by, "__name__", type(made_by).__name__)
        yield Layer(name, dict(getattr(entry, "kwargs", {})) if ours else None)
