"""Chains: order, no plugin twice, and what follows from the plugins."""

from __future__ import annotations

from asgi.guests import BodyGuest, BodyReader, Guest

from wasm_middleware.config import Settings, load_settings
from wasm_middleware.engines.null import NullEngine
from wasm_middleware.runtime.chains import Link, join_chains, make_chain, mark_chain
from wasm_middleware.runtime.plugin import LoadedPlugin
from wasm_middleware.runtime.services import ServiceSet


def loaded(workshop, *names, guest=Guest, **settings):
    """Plugins that are loaded, and not started."""
    for name in names:
        workshop.add(guest, name=name, **settings)

    made = []

    for entry in load_settings(workshop.config()).plugins[-len(names) :]:
        module = NullEngine(workshop.modules).compile(entry.path.read_bytes())
        made.append(LoadedPlugin(entry, module, ServiceSet(Settings()).services))

    return made


def links(*plugins):
    return [Link(plugin, plugin.settings.config) for plugin in plugins]


def test_priority_orders_and_ties_stay(workshop):
    a, b = loaded(workshop, "a", "b")
    (high,) = loaded(workshop, "high", priority=1)
    assert make_chain(links(b, a, high)).names == ("high", "b", "a")


def test_a_plugin_is_in_a_chain_once_with_its_first_configuration(workshop):
    a, b = loaded(workshop, "a", "b")
    chain = make_chain([Link(a, b"1"), Link(b, b""), Link(a, b"2")])
    assert chain.names == ("a", "b")
    assert chain.links[0].config == b"1"


def test_what_has_run_is_left_out(workshop):
    a, b, c = loaded(workshop, "a", "b", "c")
    chain = make_chain(links(a, b), "route")
    assert chain.without(frozenset([a])).names == ("b",)
    assert chain.without(frozenset([a])).route == "route"
    assert chain.without(frozenset([c])) is chain


def test_what_is_added_stands_behind_whatever_its_priority(workshop):
    (a,) = loaded(workshop, "a")
    (high,) = loaded(workshop, "high", priority=9)
    chain = make_chain(links(a)).extended(links(high))
    assert chain.names == ("a", "high")
    assert chain.plugins == {a, high}


def test_joined_chains_are_their_union(workshop):
    a, b = loaded(workshop, "a", "b")
    (high,) = loaded(workshop, "high", priority=9)
    first = make_chain(links(a), "first")
    joined = join_chains([first, make_chain(links(b, high, a), "second")])
    assert joined.names == ("high", "a", "b")
    assert joined.route == "first"
    assert join_chains([first]) is first
    assert join_chains([]).links == ()


def test_a_marker_adds_or_leaves_what_is_mandatory(workshop):
    a, b = loaded(workshop, "a", "b")
    (must,) = loaded(workshop, "must", mandatory=True)
    chain = make_chain(links(a, must))
    assert mark_chain(chain, [b, a], exempt=False).names == ("a", "must", "b")
    assert mark_chain(chain, [], exempt=True).names == ("must",)


def test_what_a_chain_wants_is_what_any_of_its_plugins_wants(workshop):
    (headers,) = loaded(workshop, "headers")
    (reader,) = loaded(workshop, "reader", guest=BodyReader)
    (changer,) = loaded(workshop, "changer", guest=BodyGuest)
    (response,) = loaded(workshop, "r", guest=BodyGuest, phase="on_response_body")

    def wants(*plugins):
        chain = make_chain(links(*plugins))
        return (
            chain.wants_request_body,
            chain.wants_response_body,
            chain.may_change_request_body,
            chain.may_change_response_body,
        )

    assert wants(headers) == (False, False, False, False)
    assert wants(headers, reader) == (True, True, False, False)
    assert wants(changer, reader) == (True, True, True, True)
    assert wants(response, headers) == (False, True, False, True)
