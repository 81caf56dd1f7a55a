"""`@wasm_plugins` and `@wasm_exempt`: markers on what answers a request.

Theory of operation. A decorator that wraps an endpoint fights with every other decorator for its
place, its signature and its name. These write one attribute and return the very same object, so
they work above or below the route decorator, on sync and async functions, on endpoint classes and
on their methods, on partials, and on `Route`, `Mount`, routers and mounted applications. What the
attribute means is settled at start-up by `discovery`, which knows where each endpoint stands.

Two rules join markers:

- *Together*, on one endpoint (stacked decorators, a partial and its function, a `Route` and its
  endpoint): plugins add up, the outer decorator's first. Naming plugins on what is exempt is
  refused where one decorator meets the other, and else the plugins win.
- *Below*, from the outside in (application, mount, router, endpoint; an endpoint class, its
  method): plugins add up, the outer's first; `@wasm_exempt` ends what comes from further out, and
  plugins named further in end the exemption. The one nearest to the endpoint decides.

A class hands its marker to its subclasses, as it does any attribute; a subclass with a marker of
its own stands below the class that it inherits from.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar, overload

__all__ = ["Marker", "below", "marker_of", "together", "wasm_exempt", "wasm_plugins"]

T = TypeVar("T")

_ATTRIBUTE = "__wasm_middleware__"


@dataclass(frozen=True, slots=True)
class Marker:
    """What an endpoint asks for: plugins by name, outermost decorator first, or none at all.

    An exempt marker has no plugins.
    """

    plugins: tuple[str, ...] = ()
    exempt: bool = False


def wasm_plugins(*names: str) -> Callable[[T], T]:
    """Run these plugins on the decorated endpoint, beside those that its path chooses.

    Decorates a function, an endpoint class or one of its methods, a partial, a `Route`, a `Mount`,
    a router or a mounted application; for the last three, everything below. Returns the same
    object. Names are looked up at start-up, and one that is no plugin fails it.

    Raises TypeError for no names, for names that aren't strings and for what can't be marked, and
    ValueError for an empty name, for a name given twice and on an endpoint that is exempt.
    """
    usage = 'write @wasm_plugins("auth", "rate-limit")'

    if not names:
        raise TypeError(f"wasm_plugins needs the name of a plugin: {usage}")

    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"wasm_plugins takes names of plugins, not {name!r}: {usage}")

        if not name:
            raise ValueError(f"wasm_plugins was given an empty name: {usage}")

        if name in names[:position]:
            raise ValueError(f"wasm_plugins was given {name!r} twice")

    return functools.partial(_mark, marker=Marker(plugins=names))


@overload
def wasm_exempt(target: T, /) -> T: ...


@overload
def wasm_exempt() -> NoReturn: ...


def wasm_exempt(*targets: object) -> object:
    """Run no plugin on the decorated endpoint, but those that the file calls mandatory.

    Takes what `wasm_plugins` takes, returns the same object, and is written without parentheses.
    On what contains endpoints (a mount, a router), it exempts all that name no plugins themselves.

    Raises TypeError with parentheses and for what can't be marked, and ValueError on an endpoint
    that names plugins.
    """
    if len(targets) != 1:
        raise TypeError("wasm_exempt takes no arguments: write @wasm_exempt, without parentheses")

    return _mark(targets[0], marker=Marker(exempt=True))


def marker_of(target: object) -> Marker | None:
    """Return the marker of an endpoint, a route or an application; None without one.

    Looks through partials, bound methods, `__wrapped__` and an object's `__call__`.
    """
    found: Marker | None = None
    seen: set[int] = set()

    while target is not None and id(target) not in seen:
        seen.add(id(target))
        found = together(found, _attribute(target))

        if isinstance(target, functools.partial):
            target = target.func
        else:
            target = getattr(target, "__wrapped__", None)

    return found


def together(outer: Marker | None, inner: Marker | None) -> Marker | None:
    """Join two markers of one endpoint: all plugins, and exempt only if neither names any."""
    if outer is None or inner is None:
        return outer or inner

    plugins = tuple(dict.fromkeys(outer.plugins + inner.plugins))
    return Marker(plugins, exempt=not plugins)


def below(outer: Marker | None, inner: Marker | None) -> Marker | None:
    """Join the marker of what contains an endpoint with one further in, which decides."""
    if outer is None or outer.exempt or inner is None or inner.exempt:
        return inner or outer

    return together(outer, inner)


def _attribute(target: object) -> Marker | None:
    found = getattr(target, _ATTRIBUTE, None)

    if found is None and not isinstance(target, type):
        # An object that is called: its class may have the decorator on `__call__`.
        call = getattr(type(target), "__call__", None)  # noqa: B004 - the method is wanted
        found = getattr(call, _ATTRIBUTE, None)

    # Objects that answer to any name (mocks, proxies) have no marker.
    return found if isinstance(found, Marker) else None


def _mark(target: T, *, marker: Marker) -> T:
    if isinstance(target, (staticmethod, classmethod)):
        _mark(target.__func__, marker=marker)
        return target

    _refuse_what_would_be_lost(target)
    own = getattr(target, "__dict__", {}).get(_ATTRIBUTE)

    if isinstance(own, Marker):
        if own.exempt and marker.exempt:
            return target

        if own.exempt or marker.exempt:
            raise ValueError(f"{_name(target)}: wasm_exempt and wasm_plugins exclude each other")

        twice = [name for name in marker.plugins if name in own.plugins]

        if twice:
            raise ValueError(f"{_name(target)}: the plugin {twice[0]!r} is named twice")

        marker = Marker(marker.plugins + own.plugins)
    else:
        inherited = getattr(target, _ATTRIBUTE, None)
        marker = below(inherited if isinstance(inherited, Marker) else None, marker) or marker

    try:
        setattr(target, _ATTRIBUTE, marker)
    except (AttributeError, TypeError):
        raise TypeError(
            f"{_name(target)} can't be marked: decorate a function, a class or a route"
        ) from None

    return target


def _refuse_what_would_be_lost(target: object) -> None:
    if not callable(target) and not hasattr(target, "matches"):
        raise TypeError(f"{_name(target)} is no endpoint: decorate a function, a class or a route")

    if not hasattr(target, "include_router") or hasattr(target, "openapi"):
        return

    # A router, not an application. FastAPI before 0.137 copies a router's routes and forgets it.
    fastapi = sys.modules.get("fastapi.routing")

    if fastapi is not None and not hasattr(fastapi, "iter_route_contexts"):
        raise TypeError(
            "this FastAPI forgets a router when it is included, and its marker with it: decorate "
            "its endpoints, use `routes` in the configuration, or upgrade to FastAPI 0.137.2"
        )


def _name(target: object) -> str:
    return getattr(target, "__qualname__", None) or repr(target)
