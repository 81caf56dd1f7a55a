"""Chains: which plugins a request passes, in which order, with which configuration.

A chain is made once for each route and each combination with a decorator's marker, and then only
looked up. Order: priority, high to low; among equals the route's own list, then the decorator's,
then the file. A plugin is in a chain once, with the configuration it was first
given there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wasm_middleware.runtime.plugin import LoadedPlugin


@dataclass(frozen=True, slots=True)
class Link:
    """A plugin in a chain; `config` names the root context that its contexts belong to."""

    plugin: LoadedPlugin
    config: bytes


@dataclass(frozen=True, slots=True)
class Chain:
    """The plugins of a request, in request order, and what follows from them."""

    links: tuple[Link, ...]
    #: The id of the route that chose it; empty where no route did.
    route: str
    wants_request_body: bool
    wants_response_body: bool
    may_change_request_body: bool
    may_change_response_body: bool
    #: Whether there is a plugin that HTTP requests pass; network plugins they don't.
    handles_http: bool
    #: A plugin may set properties, which the application can read.
    sets_properties: bool
    plugins: frozenset[LoadedPlugin]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(link.plugin.name for link in self.links)

    def without(self, plugins: frozenset[LoadedPlugin]) -> Chain:
        """The chain less the plugins that the request has passed already."""
        if self.plugins.isdisjoint(plugins):
            return self

        return make_chain([link for link in self.links if link.plugin not in plugins], self.route)

    def of_http(self) -> Chain:
        """What of the chain runs on HTTP requests."""
        links = [link for link in self.links if not link.plugin.plugin.network]
        return self if len(links) == len(self.links) else make_chain(links, self.route)

    def extended(self, links: Sequence[Link]) -> Chain:
        """The chain with further plugins behind all that it has, whatever their priorities."""
        return _chain((*self.links, *links), self.route)


def make_chain(links: Iterable[Link], route: str = "") -> Chain:
    """Put links in order. Give them as the route, the decorator and the file list them."""
    first: dict[LoadedPlugin, Link] = {}

    for link in links:
        first.setdefault(link.plugin, link)

    ordered = sorted(first.values(), key=lambda link: -link.plugin.settings.priority)
    return _chain(tuple(ordered), route)


def _chain(links: tuple[Link, ...], route: str) -> Chain:
    plugins = [link.plugin for link in links]
    return Chain(
        links=links,
        route=route,
        wants_request_body=any(plugin.wants_request_body for plugin in plugins),
        wants_response_body=any(plugin.wants_response_body for plugin in plugins),
        may_change_request_body=any(plugin.may_change_request_body for plugin in plugins),
        may_change_response_body=any(plugin.may_change_response_body for plugin in plugins),
        handles_http=not all(plugin.plugin.network for plugin in plugins),
        sets_properties=any(plugin.sets_properties for plugin in plugins),
        plugins=frozenset(plugins),
    )


EMPTY_CHAIN = make_chain(())


def join_chains(chains: Sequence[Chain]) -> Chain:
    """One chain with the plugins of all: what a path gets that several routes may match."""
    if not chains:
        return EMPTY_CHAIN

    if len(chains) == 1:
        return chains[0]

    return make_chain([link for chain in chains for link in chain.links], chains[0].route)


def mark_chain(chain: Chain, plugins: Sequence[LoadedPlugin], *, exempt: bool) -> Chain:
    """What a decorator makes of the chain that the path chose."""
    if exempt:
        mandatory = [link for link in chain.links if link.plugin.settings.mandatory]
        return make_chain(mandatory, chain.route)

    added = [Link(plugin, plugin.settings.config) for plugin in plugins]
    return make_chain([*chain.links, *added], chain.route)
