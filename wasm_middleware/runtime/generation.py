"""A generation: one configuration, loaded. Immutable but for its plugins' instances.

Loading compiles each module on a worker thread and starts its instances. Every plugin is tried, so
that one start shows what is wrong with all of them. A module that can't be loaded is a mistake in
the file and fails the whole with a `ConfigError` that points at its entry. So does a plugin that
would not start, unless it is `fail_open`: then the service starts without it, and it is tried again
in the background.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence

import anyio
import anyio.to_thread

from wasm_middleware import limits
from wasm_middleware.config import PluginSettings, RouteSettings, Settings, read_module
from wasm_middleware.engines.module_info import ModuleFormatError
from wasm_middleware.engines.protocol import Engine, Module
from wasm_middleware.errors import ConfigError, Diagnostic, PluginLoadError
from wasm_middleware.proxy_wasm.ports import ForeignFunction, Services
from wasm_middleware.runtime.chains import EMPTY_CHAIN, Chain, Link, join_chains, make_chain
from wasm_middleware.runtime.ending import Ending
from wasm_middleware.runtime.paths import PathTable
from wasm_middleware.runtime.plugin import LoadedPlugin
from wasm_middleware.runtime.services import ServiceSet

_LOG = logging.getLogger("wasm_middleware")

#: From this size on a compilation takes seconds, and says that it has begun.
_LARGE_MODULE = 1024 * 1024


class Generation:
    """Loaded plugins, and the table that finds a path's chain."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        plugins: Sequence[LoadedPlugin],
        services: ServiceSet,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self._services = services
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
        """End all instances, what they have begun, and the engine; cancelled or not.

        Raises `HostBug` if some of it failed, when all the rest has ended.
        """
        ending = await _end(list(self.plugins.values()), self._services, self.engine)
        ending.check()


async def load_generation(
    settings: Settings, engine: Engine, functions: Mapping[str, ForeignFunction] | None = None
) -> Generation:
    """Compile and start every plugin; raise `ConfigError` with all that can't be.

    `functions` are the application's, which guests call by name.
    """
    plugins: list[LoadedPlugin] = []
    modules: dict[bytes, Module] = {}
    mistakes: list[Diagnostic] = []

    try:
        services = ServiceSet(settings, functions or {}, suspends=engine.suspends)
    except BaseException:
        engine.close()
        raise

    try:
        for index, entry in enumerate(settings.plugins):
            try:
                plugin = await _load_plugin(settings, entry, engine, services.services, modules)
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

        return Generation(settings, engine, plugins, services)
    except BaseException:
        # What fails here is in the log, and hides nothing.
        await _end(plugins, services, engine)
        raise


async def _end(plugins: Sequence[LoadedPlugin], services: ServiceSet, engine: Engine) -> Ending:
    ending = Ending()
    steps = [(f"plugin {plugin.name!r}", plugin.close) for plugin in plugins]

    # In this order: a plugin's end may have something to run, and what runs may need the engine.
    try:
        with anyio.CancelScope(shield=True):
            await ending.run(steps, limits.DONE_TIMEOUT + limits.END_TIMEOUT)
            await ending.run(services.steps(), 2 * limits.END_TIMEOUT)
    finally:
        for plugin in plugins:
            # There are none left, unless it failed.
            for vm in plugin.vms:
                ending.close(f"an instance of plugin {plugin.name!r}", vm.close)

        ending.close("the engine", engine.close)

    return ending


async def _load_plugin(
    settings: Settings,
    entry: PluginSettings,
    engine: Engine,
    services: Services,
    modules: dict[bytes, Module],
) -> LoadedPlugin:
    """Make the plugin; `modules` holds what has been compiled, for plugins of the same code."""
    wasm = await anyio.to_thread.run_sync(read_module, entry, settings.source)
    module = modules.get(wasm)

    if module is None:
        module = modules[wasm] = await _compile(entry, wasm, engine)

    configs = [
        link.config
        for route in settings.routes or ()
        for link in route.plugins
        if link.name == entry.name and link.config is not None
    ]
    return LoadedPlugin(entry, module, services, configs)


async def _compile(entry: PluginSettings, wasm: bytes, engine: Engine) -> Module:
    name = entry.name
    compile_ = engine.compile_isolated if entry.compile == "isolated" else engine.compile
    started = time.perf_counter()

    if len(wasm) > _LARGE_MODULE:
        _LOG.info("compiling plugin %r (%.1f MiB)", name, len(wasm) / _LARGE_MODULE)

    try:
        module = await anyio.to_thread.run_sync(compile_, wasm)
    except ModuleFormatError as error:
        raise PluginLoadError(name, str(error)) from error

    _LOG.debug("compiled plugin %r in %.0f ms", name, (time.perf_counter() - started) * 1e3)
    return module


async def _start_plugin(plugin: LoadedPlugin) -> None:
    try:
        await plugin.start()
    except PluginLoadError as error:
        if plugin.settings.failure_policy != "fail_open":
            # It is not tried again while the others start: nothing will be served.
            await plugin.close()
            raise

        message = "%s; it is fail_open: the service starts without it, and tries again in %.1f s"
        _LOG.error(message, error, plugin.retry_in)
