"""What a middleware has once it is started: a generation, and the chain of each request."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence

from wasm_middleware.asgi.decorators import Marker
from wasm_middleware.asgi.discovery import Endpoint, EndpointTable
from wasm_middleware.asgi.exchange import SCOPE_KEY
from wasm_middleware.asgi.types import Scope
from wasm_middleware.errors import ConfigError, Diagnostic
from wasm_middleware.runtime.chains import Chain, mark_chain
from wasm_middleware.runtime.generation import Generation
from wasm_middleware.runtime.plugin import LoadedPlugin

_LOG = logging.getLogger("wasm_middleware")


class Binding:
    """Finds chains: by path, by decorator, or the one that the middleware was given.

    Raises `ConfigError` for names that are no plugins, in `plugins` or in a decorator.
    """

    def __init__(
        self, generation: Generation, endpoints: EndpointTable, plugins: Sequence[str] | None
    ) -> None:
        self.generation = generation
        self.endpoints = endpoints
        self._fixed = None if plugins is None else self._chain_of(plugins)
        self._marked: dict[tuple[object, ...], Chain] = {}
        self._version = endpoints.version
        mistakes = self._marker_mistakes() if self._fixed is None else []

        if mistakes:
            raise ConfigError(mistakes)

    def _chain_of(self, names: Sequence[str]) -> Chain:
        unknown = [name for name in names if name not in self.generation.plugins]

        if unknown:
            raise ConfigError([self._unknown_plugin(name, "plugins=[…]") for name in unknown])

        return self.generation.chain_of(names)

    def _marker_mistakes(self) -> list[Diagnostic]:
        source = self.generation.settings.source
        mistakes = [source.diagnostic((), problem) for problem in self.endpoints.problems]

        for endpoint in self.endpoints.endpoints:
            for name in endpoint.marker.plugins if endpoint.marker is not None else ():
                if name not in self.generation.plugins:
                    where = f"@wasm_plugins on {endpoint.name} ({endpoint.path})"
                    mistakes.append(self._unknown_plugin(name, where))

        return mistakes

    def _unknown_plugin(self, name: str, where: str) -> Diagnostic:
        known = list(self.generation.plugins)
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
        message = f"{where} names {name!r}, which is no plugin of this file"
        return self.generation.settings.source.diagnostic(("plugins",), message, hint)

    def find_chain(self, scope: Scope) -> Chain:
        """The chain of a request, less the plugins that it has passed in a middleware outside.

        Raises `ConfigError` for what routes that were added after the start ask for in vain.
        """
        chain = self._fixed

        if chain is None:
            chain = self._path_chain(scope)
            endpoints = self.endpoints
            endpoints.refresh()

            if endpoints.version != self._version:
                self._check_again()

            if endpoints.marked:
                endpoint = endpoints.match(scope)

                if endpoint is not None and endpoint.marker is not None:
                    chain = self._mark(chain, endpoint.marker)

        passed = scope.get(SCOPE_KEY)
        return chain if passed is None else chain.without(passed)

    def _check_again(self) -> None:
        source = self.generation.settings.source

        if self.endpoints.problems:
            raise ConfigError([source.diagnostic((), one) for one in self.endpoints.problems])

        self._version = self.endpoints.version

    def _path_chain(self, scope: Scope) -> Chain:
        root_path = self.endpoints.root_path or scope.get("root_path", "")
        return self.generation.chain_for(scope["path"], root_path, scope.get("method", "GET"))

    def _mark(self, chain: Chain, marker: Marker) -> Chain:
        key = (chain.links, chain.route, marker)
        marked = self._marked.get(key)

        if marked is None:
            plugins = self.generation.plugins
            unknown = [name for name in marker.plugins if name not in plugins]

            if unknown:
                # A route that was added after the start; its plugin must not be left out silently.
                raise ConfigError([self._unknown_plugin(name, "@wasm_plugins") for name in unknown])

            marked = mark_chain(
                chain, [plugins[name] for name in marker.plugins], exempt=marker.exempt
            )
            self._marked[key] = marked

        return marked

    def endpoint_chains(self) -> list[tuple[Endpoint, str, Chain]]:
        """Every endpoint of the application with its methods and their chain, for people.

        An endpoint whose methods have different chains has a row for each.
        """
        rows: list[tuple[Endpoint, str, Chain]] = []

        for endpoint in self.endpoints.endpoints:
            chains: dict[Chain, list[str]] = {}

            for method in sorted(endpoint.methods or ()) or [""]:
                chains.setdefault(self._endpoint_chain(endpoint, method), []).append(method)

            for chain, methods in chains.items():
                label = ",".join(methods) or ("WS" if endpoint.kind == "websocket" else "*")
                rows.append((endpoint, label, chain))

        return rows

    def _endpoint_chain(self, endpoint: Endpoint, method: str) -> Chain:
        chain = self._fixed

        if chain is None:
            path: Scope = {"path": endpoint.path, "root_path": "", "method": method or "GET"}
            chain = self._path_chain(path)

            if endpoint.marker is not None:
                chain = self._mark(chain, endpoint.marker)

        return chain if endpoint.kind == "websocket" else chain.of_http()

    def log_summary(self) -> None:
        """Say once what runs where."""
        generation = self.generation
        names = ", ".join(map(_label, generation.plugins.values())) or "none"
        _LOG.info("engine: %s; plugins: %s", generation.engine.description, names)

        for warning in generation.settings.warnings:
            _LOG.warning("%s", warning)

        if self._fixed is not None:
            _LOG.info("chain: %s", _arrow(self._fixed))
            return

        if generation.settings.routes is None:
            _LOG.info("every request: %s", _arrow(generation.chain_for("/", "", "GET")))
        else:
            for route in generation.settings.routes:
                methods = ",".join(sorted(route.methods or ())) or "*"
                chain = generation.routes[route.id]
                _LOG.info("route %s (%s %s): %s", route.id, methods, route.path, _arrow(chain))

        rows = self.endpoint_chains()

        for endpoint, methods, chain in rows:
            if endpoint.marker is not None:
                where = f"{endpoint.name} ({methods} {endpoint.path})"
                _LOG.info("endpoint %s: %s", where, _arrow(chain))

        uncovered = [f"{methods} {row.path}" for row, methods, chain in rows if not chain.links]

        if uncovered:
            _LOG.info("no plugin runs on: %s", ", ".join(uncovered))


def _label(plugin: LoadedPlugin) -> str:
    return f"{plugin.name} (websockets)" if plugin.plugin.network else plugin.name


def _arrow(chain: Chain) -> str:
    return " -> ".join(chain.names) or "no plugin"
