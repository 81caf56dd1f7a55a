"""What a process has loaded: middlewares with one configuration share one generation.

An application may add the middleware twice, or to several routes, with the same file: its plugins
then have one set of instances, one shared data, and run once a request. Generations are counted;
the last middleware that lets go closes it.

Those in other threads have their own: an instance belongs to one thread. The registry is filled
when a server starts (after any fork), never at import.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import anyio

from wasm_middleware.config import Settings
from wasm_middleware.engines.protocol import Engine
from wasm_middleware.proxy_wasm.ports import ForeignFunction
from wasm_middleware.runtime.generation import Generation, load_generation

#: A configuration file by its real path and the options that override it, or a settings object.
Key = object


class _Shared:
    __slots__ = ("generation", "holders")

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.holders = 0


class Registry:
    """Generations by key. Belongs to one event loop's thread at a time."""

    def __init__(self) -> None:
        self._shared: dict[Key, _Shared] = {}
        self._loading: dict[Key, anyio.Event] = {}

    async def acquire(
        self,
        key: Key,
        settings: Settings,
        make_engine: Callable[[], Engine],
        functions: Mapping[str, ForeignFunction] | None = None,
    ) -> Generation:
        """The generation of a key, loaded if nobody holds it; raises `ConfigError`.

        Of those who come while it is loaded, all get it; if that fails, each tries by itself.
        """
        while key in self._loading:
            await self._loading[key].wait()

        shared = self._shared.get(key)

        if shared is None:
            self._loading[key] = loaded = anyio.Event()

            try:
                generation = await load_generation(settings, make_engine(), functions)
                shared = self._shared[key] = _Shared(generation)
            finally:
                del self._loading[key]
                loaded.set()

        shared.holders += 1
        return shared.generation

    async def release(self, key: Key) -> None:
        """Let go of what was acquired; the last one closes it, and raises as that does."""
        shared = self._shared.get(key)

        if shared is None:
            return

        shared.holders -= 1

        if not shared.holders:
            del self._shared[key]
            await shared.generation.close()


def config_key(
    config: str | os.PathLike[str] | Mapping[str, object] | Settings,
    settings: Settings,
    overrides: Mapping[str, object],
) -> Key:
    """The key of a configuration and what overrides it.

    A file is its real path and a dict what is written in it, in its folder. Settings are the
    object, which whoever is loaded from it keeps alive.
    """
    if isinstance(config, Settings):
        return ("settings", id(settings))

    if isinstance(config, Mapping):
        return ("dict", repr(config), settings.source.folder, repr(overrides))

    return ("file", os.path.realpath(config), repr(overrides))


def functions_key(functions: Mapping[str, ForeignFunction]) -> Key:
    """The key of foreign functions: which ones they are, and not what they do.

    Whoever is loaded with them keeps them alive, so that no other gets their number. Of a method,
    which is made anew each time it is asked for, it is the object and the function.
    """
    return frozenset(
        (name, id(getattr(function, "__self__", None)), id(getattr(function, "__func__", function)))
        for name, function in functions.items()
    )


#: The one of this process.
REGISTRY = Registry()
