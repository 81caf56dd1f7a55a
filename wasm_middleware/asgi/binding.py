"""What a middleware has once it is started: a generation, and the chain of each request."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from wasm_middleware.asgi.decorators import Marker
from wasm_middleware.asgi.discovery import Endpoint, EndpointTable
from wasm_middleware.asgi.exchange import SCOPE_KEY
from wasm_middleware.asgi.overlap import Segments, met_by, of_pattern, of_template
from wasm_middleware.asgi.types import Scope
from wasm_middleware.errors import ConfigError, Diagnostic
from wasm_middleware.runtime.chains import EMPTY_CHAIN, Chain, mark_chain
from wasm_middleware.runtime.generation import Generation
from wasm_middleware.runtime.plugin import LoadedPlugin

_LOG = logging.getLogger("wasm_middleware")


#: A route of the file: its path, its methods (None is all) and its chain.
_Route: TypeAlias = tuple[Segments, frozenset[str] | None, Chain]


@dataclass(frozen=True, slots=True)
class EndpointChain:
    """What runs on an endpoint, or on some of its methods; for people."""

    endpoint: Endpoint
    #: "GET,HEAD", "WS", or "*" for all.
    methods: str
    chain: Chain
    #: What runs on some paths of its template instead.
    others: tuple[Chain, ...]

    @property
    def uncovered(self) -> bool:
        """No plugin runs on any path of it."""
        return not any(chain.links for chain in (self.chain, *self.others))

    @property
    def partly_uncovered(self) -> bool:
        """On some paths of it no plugin runs, and on others one does."""
        every = (self.chain, *self.others)
        return not self.uncovered and not all(chain.links for chain in every)


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

    def endpoint_chains(self) -> list[EndpointChain]:
        """Every endpoint of the application with its methods and their chains, for people.

        An endpoint whose methods have different chains has a row for each.
        """
        rows: list[EndpointChain] = []
        generation = self.generation
        routes = [
            (of_pattern(route.path), route.methods, generation.routes[route.id])
            for route in generation.settings.routes or ()
        ]

        for endpoint in self.endpoints.endpoints:
            chains: dict[tuple[Chain, ...], list[str]] = {}

            for method in sorted(endpoint.methods or ()) or [""]:
                found = self._chains_of_endpoint(endpoint, method, routes)
                chains.setdefault(found, []).append(method)

            for (chain, *others), methods in chains.items():
                label = ",".join(methods) or ("WS" if endpoint.kind == "websocket" else "*")
                rows.append(EndpointChain(endpoint, label, chain, tuple(others)))

        return rows

    def _chains_of_endpoint(
        self, endpoint: Endpoint, method: str, routes: Sequence[_Route]
    ) -> tuple[Chain, ...]:
        """The chain of its template, and others that some paths of it have."""
        if self._fixed is not None:
            chains = [self._fixed]
        else:
            path: Scope = {"path": endpoint.path, "root_path": "", "method": method or "GET"}
            chains = [self._path_chain(path)]

            if self.generation.settings.routes is not None:
                chains += _met_chains(endpoint, method or "GET", routes)

            if endpoint.marker is not None:
                chains = [self._mark(chain, endpoint.marker) for chain in chains]

        if endpoint.kind != "websocket":
            chains = [chain.of_http() for chain in chains]

        by_names: dict[tuple[str, ...], Chain] = {}

        for chain in chains:
            by_names.setdefault(chain.names, chain)

        return tuple(by_names.values())

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

        for row in rows:
            if row.endpoint.marker is not None:
                where = f"{row.endpoint.name} ({row.methods} {row.endpoint.path})"
                _LOG.info("endpoint %s: %s", where, _arrow(row.chain))

        for where, found in (
            ("no plugin runs on", [row for row in rows if row.uncovered]),
            ("no plugin runs on some paths of", [row for row in rows if row.partly_uncovered]),
        ):
            if found:
                names = ", ".join(f"{row.methods} {row.endpoint.path}" for row in found)
                _LOG.info("%s: %s", where, names)


def _met_chains(endpoint: Endpoint, method: str, routes: Sequence[_Route]) -> list[Chain]:
    """The chains that the file's routes have for paths of an endpoint."""
    template = of_template(endpoint.path, mount=endpoint.kind == "mount")
    names = {method, "GET"} if method == "HEAD" else {method}
    served = [
        (pattern, chain) for pattern, methods, chain in routes if methods is None or methods & names
    ]
    chains, may_meet_none = met_by(template, served)
    return [*chains, EMPTY_CHAIN] if may_meet_none else chains


def _label(plugin: LoadedPlugin) -> str:
    name = f"{plugin.name} (websockets)" if plugin.plugin.network else plugin.name
    return _state(plugin, name)


def _state(plugin: LoadedPlugin, name: str) -> str:
    return name if plugin.vms else f"{name} (not started)"


def _arrow(chain: Chain) -> str:
    return " -> ".join(_state(link.plugin, link.plugin.name) for link in chain.links) or "no plugin"
