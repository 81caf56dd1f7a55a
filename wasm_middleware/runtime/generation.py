"""A generation: one configuration, loaded. Immutable but for its plugins' instances.

Loading compiles each module on a worker thread and starts its instances. Every plugin is tried, so
that one start shows what is wrong with all of them. A module that can't be loaded is a mistake in
the file and fails the whole with a `ConfigError` that points at its entry. So does a plugin that
would not start, unless it is `fail_open`: then the service starts without it, and it is tried again
when requests come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

import anyio
import anyio.to_thread

from wasm_middleware.config import PluginSettings, RouteSettings, Settings, read_module
from wasm_middleware.engines.module_info import ModuleFormatError
from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import ConfigError, Diagnostic, PluginLoadError
from wasm_middleware.proxy_wasm.ports import Services
from wasm_middleware.runtime.chains import EMPTY_CHAIN, Chain, Link, join_chains, make_chain
from wasm_middleware.runtime.paths import PathTable
from wasm_middleware.runtime.plugin import LoadedPlugin
from wasm_middleware.services.memory import MemoryQueues, MemorySharedData
from wasm_middleware.services.metrics import MemoryMetrics
from wasm_middleware.services.system import SystemClock, SystemEntropy

_LOG = logging.getLogger("wasm_middleware")

#: From this size on a compilation takes seconds, and says that it has begun.
_LARGE_MODULE = 1024 * 1024


def memory_services() -> Services:
    """The services of one process."""
    return Services(
        clock=SystemClock(),
        entropy=SystemEntropy(),
        shared_data=MemorySharedData(),
        queues=MemoryQueues(),
        metrics=MemoryMetrics(),
    )


class Generation:
    """Loaded plugins, and the table that finds a path's chain."""

    def __init__(self, settings: Settings, engine: Engine, plugins: Sequence[LoadedPlugin]) -> None:
        self.settings = settings
        self.engine = engine
        self.plugins = {plugin.name: plugin for plugin in plugins}
        self.routes: dict[str, Chain] = {}
        rows = []

        for route in settings.routes or ():
            chain = self._route_chain(route)
            self.routes[route.id] = chain
            rows.append((route.path, route.methods, chain))

        self._table = None if settings.routes is None else PathTable(rows)
        self._every = make_chain([Link(plugin, plugin.settings.config) for plugin in plugins])

    def _route_chain(self, route: RouteSettings) -> Chain:
        links = []

        for entry in route.plugins:
            plugin = self.plugins[entry.name]
            config = plugin.settings.config if entry.config is None else entry.config
            links.append(Link(plugin, config))

        return make_chain(links, route.id)

    def chain_for(self, path: str, root_path: str, method: str) -> Chain:
        """The chain of a request: the first route's that matches, or of several where the path's
        spelling leaves open which the application means. Without `routes`, every plugin."""
        if self._table is None:
            return self._every

        chains = self._table.lookup(path, root_path, method)
        return join_chains(chains) if chains else EMPTY_CHAIN

    def chain_of(self, names: Iterable[str]) -> Chain:
        """A chain of the named plugins; raises `KeyError` for one that there is not."""
        plugins = [self.plugins[name] for name in names]
        return make_chain([Link(plugin, plugin.settings.config) for plugin in plugins])

    async def close(self) -> None:
        """End all instances and the engine."""
        for plugin in self.plugins.values():
            await plugin.close()

        self.engine.close()


async def load_generation(settings: Settings, engine: Engine) -> Generation:
    """Compile and start every plugin; raise `ConfigError` with all that can't be."""
    services = memory_services()
    plugins: list[LoadedPlugin] = []
    mistakes: list[Diagnostic] = []

    try:
        for index, entry in enumerate(settings.plugins):
            try:
                plugin = await _load_plugin(settings, entry, engine, services)
                plugins.append(plugin)
                await _start_plugin(plugin)
            except ConfigError as error:
                mistakes.extend(error.diagnostics)
            except PluginLoadError as error:
                where = ("plugins", index)
                message = f"plugin {error.plugin!r}: {error.reason}"
                mistakes.append(settings.source.diagnostic(where, message, error.hint))

        if mistakes:
            raise ConfigError(mistakes)

        return Generation(settings, engine, plugins)
    except BaseException:
        with anyio.CancelScope(shield=True):
            for plugin in plugins:
                await plugin.close()

        engine.close()
        raise


async def _load_plugin(
    settings: Settings, entry: PluginSettings, engine: Engine, services: Services
) -> LoadedPlugin:
    wasm = await anyio.to_thread.run_sync(read_module, entry, settings.source)
    started = time.perf_counter()

    if len(wasm) > _LARGE_MODULE:
        _LOG.info("compiling plugin %r (%.1f MiB)", entry.name, len(wasm) / _LARGE_MODULE)

    try:
        module = await anyio.to_thread.run_sync(engine.compile, wasm)
    except ModuleFormatError as error:
        raise PluginLoadError(entry.name, str(error)) from error

    elapsed = time.perf_counter() - started
    _LOG.debug("compiled plugin %r in %.0f ms", entry.name, elapsed * 1e3)
    configs = [
        link.config
        for route in settings.routes or ()
        for link in route.plugins
        if link.name == entry.name and link.config is not None
    ]
    return LoadedPlugin(entry, module, services, configs)


async def _start_plugin(plugin: LoadedPlugin) -> None:
    try:
        await plugin.start()
    except PluginLoadError as error:
        if plugin.settings.failure_policy != "fail_open":
            raise

        _LOG.error("%s; it is fail_open: the service starts without it", error)
