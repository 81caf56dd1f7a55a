"""Connections: what network plugins see of a websocket, and what they can do to it."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings, strategies as st

from wasm_middleware.abi.enums import PeerType, Status
from wasm_middleware.engines.null import NullEngine
from wasm_middleware.engines.protocol import Module
from wasm_middleware.proxy_wasm.plugin import Plugin

from . import harness
from .connections import (
    ALL,
    CLOSE,
    CONTINUE,
    DOWNSTREAM,
    GET,
    SET,
    UPSTREAM,
    WAYS,
    direction,
    feed,
    new_connection,
    sizes,
    taken,
    ways,
)
from .harness import LOGGER, REQUEST, Guest, MakeGuest, call, run
from .scripted import EVERYTHING, guest_module


@pytest.fixture
def make(make_guest: MakeGuest) -> MakeGuest:
    def make(**options: object) -> Guest:
        return make_guest(network=True, phases=frozenset({"on_log"}), **options)

    return make


@pytest.fixture
def guest(make: MakeGuest) -> Guest:
    return make()


# Opening


def test_a_new_connection_passes_the_chain_in_order(make: MakeGuest) -> None:
    first, second = make(), make()
    connection = new_connection(first, second, opened=False)
    assert not connection.opened
    run(connection.open())

    assert connection.opened
    assert first.called[-2:] == second.called[-2:] == ["on_context_create", "on_new_connection"]
    [root] = first.vm.roots.values()
    identity = connection.contexts[0].id
    assert first.calls[-2][1][:2] == (identity, root.id)
    assert first.calls[-1][1][:1] == (identity,)


@pytest.mark.parametrize("answer", [1, 2, 77, ALL])
def test_any_answer_but_continue_holds_it(make: MakeGuest, answer: int) -> None:
    first, second = make(), make()
    first.on("proxy_on_new_connection", returns=answer)
    connection = new_connection(first, second)

    assert not connection.opened
    assert connection.holds(connection.contexts[0])
    assert "on_new_connection" not in second.called

    woken: list[bool] = []
    connection.on_wake = lambda: woken.append(True)
    assert first.ask(connection.contexts[0], CONTINUE, UPSTREAM) == Status.OK
    run(connection.proceed())
    assert (connection.opened, woken) == (False, [])

    assert first.ask(connection.contexts[0], CONTINUE, DOWNSTREAM) == Status.OK
    assert (connection.opened, woken) == (False, [True])
    run(connection.proceed())
    assert connection.opened
    assert second.called[-1] == "on_new_connection"
    assert first.called.count("on_new_connection") == 1


def test_a_resume_within_the_callback_wins(guest: Guest) -> None:
    guest.on("proxy_on_new_connection", call(CONTINUE, DOWNSTREAM), returns=1)

    assert new_connection(guest).opened


def test_there_is_no_data_yet(guest: Guest) -> None:
    asked = [call("proxy_get_buffer_status", which, 16, 20) for which in WAYS.values()]
    guest.on("proxy_on_new_connection", *asked)
    new_connection(guest)

    assert [guest.result(one) for one in asked] == [Status.NOT_FOUND] * 2


def test_a_plugin_of_http_hears_nothing_of_connections(make_guest: MakeGuest) -> None:
    guest = make_guest()
    connection = new_connection(guest)
    assert feed(connection.downstream, b"x", ended=True) == [b"x"]
    run(connection.finish())

    assert guest.called[-4:] == ["on_context_create", "on_done", "on_log", "on_delete"]


def test_a_plugin_of_connections_hears_nothing_of_http(guest: Guest) -> None:
    stream = harness.new_stream(guest)
    harness.begin(stream)
    harness.respond(stream)
    harness.send_body(stream, b"x", response=True)

    assert not [name for name in guest.called if "request" in name or "response" in name]


# Data


@ways
def test_a_callback_sees_each_message_with_its_bounds(guest: Guest, way: str) -> None:
    connection = new_connection(guest)
    read = call(GET, WAYS[way], 0, ALL, 16, 20)
    guest.on(f"proxy_on_{way}_data", read)
    output = feed(direction(connection, way), b"one", "zwölf", b"", "")

    assert output == [b"one", "zwölf", b"", ""]
    assert sizes(guest, way) == [(3, 0), (6, 0), (0, 0), (0, 0)]


@ways
def test_what_it_reads_is_the_message(guest: Guest, way: str) -> None:
    connection = new_connection(guest)
    read = call(GET, WAYS[way], 1, 2, 16, 20)
    other = call(GET, 5 - WAYS[way], 0, ALL, 24, 28)
    guest.on(f"proxy_on_{way}_data", read, other)
    feed(direction(connection, way), b"data")

    assert guest.got() == b"at"
    assert guest.result(other) == Status.NOT_FOUND


def test_downstream_data_passes_in_order_and_upstream_data_in_reverse(make: MakeGuest) -> None:
    guests = [make(), make(), make()]

    for number, guest in enumerate(guests):
        for way, which in WAYS.items():
            mark = guest.text(b"%d" % number)
            guest.on(f"proxy_on_{way}_data", call(SET, which, ALL, 0, mark))

    connection = new_connection(*guests)
    assert feed(connection.downstream, b">") == [b">012"]
    assert feed(connection.upstream, b"<") == [b"<210"]


@ways
def test_a_changed_message_stays_what_it_was(guest: Guest, way: str) -> None:
    guest.on(f"proxy_on_{way}_data", call(SET, WAYS[way], 0, ALL, guest.text("größer".encode())))
    flow = direction(new_connection(guest), way)

    assert feed(flow, "text", b"binary") == ["größer", "größer".encode()]


@ways
def test_text_that_is_no_longer_utf_8_becomes_binary(
    guest: Guest, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guest.on(f"proxy_on_{way}_data", call(SET, WAYS[way], 0, ALL, guest.text(b"\xff")))
    flow = direction(new_connection(guest), way)

    assert feed(flow, "text") == [b"\xff"]
    assert f"{way} text became binary" in caplog.text


@ways
def test_a_message_that_a_plugin_empties_is_gone(make: MakeGuest, way: str) -> None:
    first, last = (make(), make()) if way == "downstream" else reversed((make(), make()))
    first.on(f"proxy_on_{way}_data", call(SET, WAYS[way], 0, ALL, first.text(b"")))
    order = (first, last) if way == "downstream" else (last, first)
    flow = direction(new_connection(*order), way)

    assert feed(flow, b"one", "two", "") == []
    assert sizes(last, way) == []
    assert feed(flow, b"three", ended=True) == []
    assert sizes(last, way) == [(0, 1)]
    assert flow.output_ended


# Pausing


@ways
@pytest.mark.parametrize("answer", [1, 3, ALL])
def test_what_is_paused_gathers_and_goes_on_as_it_was(guest: Guest, way: str, answer: int) -> None:
    guest.on(f"proxy_on_{way}_data", returns=answer)
    connection = new_connection(guest)
    flow = direction(connection, way)

    assert feed(flow, b"one", "", "two") == []
    assert sizes(guest, way) == [(3, 0), (3, 0), (6, 0)]
    assert guest.ask(connection.contexts[0], GET, WAYS[way], 0, ALL, 16, 20) == Status.OK
    assert guest.got() == b"onetwo"

    assert guest.ask(connection.contexts[0], CONTINUE, WAYS[way]) == Status.OK
    assert taken(flow) == []
    run(connection.proceed())
    assert taken(flow) == [b"one", "", "two"]
    status = guest.ask(connection.contexts[0], GET, WAYS[way], 0, ALL, 16, 20)
    assert status == Status.NOT_FOUND


@ways
def test_a_continue_lets_go_of_everything(guest: Guest, way: str) -> None:
    guest.on(f"proxy_on_{way}_data", returns=1)
    guest.on(f"proxy_on_{way}_data", returns=0)
    flow = direction(new_connection(guest), way)

    assert feed(flow, "one") == []
    assert feed(flow, b"two") == ["one", b"two"]
    assert feed(flow, b"three") == [b"three"]
    assert sizes(guest, way) == [(3, 0), (6, 0), (5, 0)]


@ways
def test_what_was_gathered_and_changed_is_one_message(guest: Guest, way: str) -> None:
    guest.on(f"proxy_on_{way}_data", returns=1)
    guest.on(f"proxy_on_{way}_data", call(SET, WAYS[way], 0, 0, guest.text(b"+")), returns=0)
    guest.on(f"proxy_on_{way}_data", returns=1)
    guest.on(f"proxy_on_{way}_data", call(SET, WAYS[way], 0, 0, guest.text(b"+")), returns=0)
    flow = direction(new_connection(guest), way)

    assert feed(flow, "one", "two") == ["+onetwo"]
    assert feed(flow, "one", b"two") == [b"+onetwo"]


@ways
def test_what_is_held_can_be_changed_from_elsewhere(guest: Guest, way: str) -> None:
    guest.on(f"proxy_on_{way}_data", returns=1)
    connection = new_connection(guest)
    flow = direction(connection, way)
    feed(flow, "one", "two")
    guest.ask(connection.contexts[0], SET, WAYS[way], 3, 0, guest.text(b", "))
    guest.ask(connection.contexts[0], CONTINUE, WAYS[way])
    run(connection.proceed())

    assert taken(flow) == ["one, two"]


@ways
def test_the_other_direction_is_not_held(guest: Guest, way: str) -> None:
    guest.on(f"proxy_on_{way}_data", call(CONTINUE, 5 - WAYS[way]), returns=1)
    connection = new_connection(guest)
    other = "upstream" if way == "downstream" else "downstream"

    assert feed(direction(connection, way), b"x") == []
    assert feed(direction(connection, other), b"y") == [b"y"]
    guest.ask(connection.contexts[0], CONTINUE, WAYS[other])
    run(connection.proceed())
    assert connection.holds(connection.contexts[0])


@ways
def test_what_one_lets_go_the_next_may_hold(make: MakeGuest, way: str) -> None:
    near, far = make(), make()

    for guest in (near, far):
        guest.on(f"proxy_on_{way}_data", returns=1)

    order = [near, far] if way == "downstream" else [far, near]
    connection = new_connection(*order)
    flow = direction(connection, way)
    feed(flow, b"one", b"two")
    assert sizes(far, way) == []

    for guest, expected in ((near, []), (far, [b"one", b"two"])):
        guest.ask(connection.contexts[order.index(guest)], CONTINUE, WAYS[way])
        run(connection.proceed())
        assert taken(flow) == expected

    assert sizes(far, way) == [(3, 0), (6, 0)]


@ways
def test_resuming_what_is_not_paused_is_fine_and_not_kept(guest: Guest, way: str) -> None:
    guest.on(f"proxy_on_{way}_data", returns=1)
    connection = new_connection(guest)

    assert guest.ask(connection.contexts[0], CONTINUE, WAYS[way]) == Status.OK
    assert feed(direction(connection, way), b"x") == []


@pytest.mark.parametrize("which", [0, 1])
def test_there_is_no_http_stream_to_steer(guest: Guest, which: int) -> None:
    connection = new_connection(guest)
    context = connection.contexts[0]

    assert guest.ask(context, CONTINUE, which) == Status.OK
    assert guest.ask(context, CLOSE, which) == Status.OK
    assert connection.closing is None


# The end


@ways
def test_the_end_is_shown_and_then_the_close(guest: Guest, way: str) -> None:
    connection = new_connection(guest)
    flow = direction(connection, way)
    assert feed(flow, b"last", ended=True) == [b"last"]
    identity = connection.contexts[0].id

    assert flow.output_ended
    assert guest.calls[-2:] == [
        (f"proxy_on_{way}_data", (identity, 4, 1, 0, 0)),
        (f"proxy_on_{way}_connection_close", (identity, PeerType.REMOTE, 0, 0, 0)),
    ]


@ways
def test_the_end_waits_for_who_holds_on(guest: Guest, way: str) -> None:
    guest.on(f"proxy_on_{way}_data", returns=1)
    connection = new_connection(guest)
    flow = direction(connection, way)
    feed(flow, b"one")

    assert feed(flow, ended=True) == []
    assert sizes(guest, way) == [(3, 0), (3, 1)]
    assert not flow.output_ended
    assert f"on_{way}_connection_close" not in guest.called

    guest.ask(connection.contexts[0], CONTINUE, WAYS[way])
    run(connection.proceed())
    assert taken(flow) == [b"one"]
    assert flow.output_ended
    assert guest.called[-1] == f"on_{way}_connection_close"


@ways
def test_a_plugin_may_add_a_last_message(guest: Guest, way: str) -> None:
    guest.on(f"proxy_on_{way}_data", call(SET, WAYS[way], 0, 0, guest.text(b"bye")))
    flow = direction(new_connection(guest), way)

    assert feed(flow, ended=True) == ["bye"]
    assert flow.output_ended


@ways
def test_an_end_without_data_reaches_all(make: MakeGuest, way: str) -> None:
    guests = [make(), make()]
    flow = direction(new_connection(*guests), way)
    feed(flow, ended=True)

    assert [sizes(guest, way) for guest in guests] == [[(0, 1)], [(0, 1)]]


def test_finishing_closes_both_sides_and_ends_as_envoy_ends_tcp(guest: Guest) -> None:
    connection = new_connection(guest)
    identity = connection.contexts[0].id
    run(connection.finish())
    run(connection.finish())

    assert guest.calls[-5:] == [
        ("proxy_on_downstream_connection_close", (identity, PeerType.LOCAL, 0, 0, 0)),
        ("proxy_on_upstream_connection_close", (identity, PeerType.LOCAL, 0, 0, 0)),
        ("proxy_on_done", (identity, 0, 0, 0, 0)),
        ("proxy_on_log", (identity, 0, 0, 0, 0)),
        ("proxy_on_delete", (identity, 0, 0, 0, 0)),
    ]
    assert identity not in guest.vm.contexts


def test_a_close_is_told_once(guest: Guest) -> None:
    connection = new_connection(guest)
    feed(connection.upstream, ended=True)
    run(connection.closed(connection.downstream, PeerType.LOCAL))
    run(connection.finish())

    assert guest.arguments_of("proxy_on_upstream_connection_close")[0][1] == PeerType.REMOTE
    assert guest.called.count("on_upstream_connection_close") == 1
    assert guest.called.count("on_downstream_connection_close") == 1


def test_who_never_saw_the_connection_is_not_told_of_its_end(make: MakeGuest) -> None:
    first, second = make(), make()
    first.on("proxy_on_new_connection", returns=1)
    before = second.called
    connection = new_connection(first, second)
    run(connection.finish())

    assert first.called[-3:] == ["on_done", "on_log", "on_delete"]
    assert second.called == before


# What a context answers


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("source.address", b"192.0.2.7:4711"),
        ("destination.port", (443).to_bytes(8, "little")),
        ("connection.tls_version", b"TLSv1.3"),
        ("request.path", b"/items/7?size=large"),
        ("plugin_name", b"tested"),
        ("route_name", b"items"),
    ],
)
def test_properties_are_those_of_the_handshake(guest: Guest, path: str, value: bytes) -> None:
    context = new_connection(guest).contexts[0]
    wanted = guest.text(b"\0".join(part.encode() for part in path.split(".")))

    assert guest.ask(context, "proxy_get_property", wanted, 16, 20) == Status.OK
    assert guest.got() == value


def test_a_property_that_is_set_is_seen_by_the_next(make: MakeGuest) -> None:
    first, second = make(), make()
    connection = new_connection(first, second)
    first.ask(connection.contexts[0], "proxy_set_property", first.text(b"user"), first.text(b"me"))

    asked = second.ask(connection.contexts[1], "proxy_get_property", second.text(b"user"), 16, 20)
    assert (asked, second.got()) == (Status.OK, b"me")


@pytest.mark.parametrize("which", [0, 2])
def test_there_are_no_header_maps(guest: Guest, which: int) -> None:
    context = new_connection(guest).contexts[0]
    name, value = guest.text(b"accept"), guest.text(b"x")

    status = guest.ask(context, "proxy_get_header_map_value", which, name, 16, 20)
    assert status == Status.NOT_FOUND
    assert guest.ask(context, "proxy_get_header_map_pairs", which, 16, 20) == Status.OK
    assert guest.got() == b""
    assert guest.ask(context, "proxy_add_header_map_value", which, name, value) == Status.OK
    assert context.connection.handshake.request.headers.pairs == REQUEST


def test_the_configuration_can_be_read(make: MakeGuest) -> None:
    guest = make(config=b"conf")
    context = new_connection(guest).contexts[0]

    assert guest.ask(context, GET, 7, 0, ALL, 16, 20) == Status.OK
    assert guest.got() == b"conf"


# Everything at once, against a model


class Model:
    """What one plugin must have let go, by the answers that it was given."""

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.paused = False

    def feed(self, message: bytes, answer: int) -> list[bytes]:
        self.held.append(message)
        return self.hold() if answer else self.resume()

    def hold(self) -> list[bytes]:
        self.paused = True
        return []

    def resume(self) -> list[bytes]:
        self.paused = False
        held, self.held = self.held, []
        return held


@pytest.fixture(scope="module")
def null_module() -> Module:
    return guest_module(NullEngine(), EVERYTHING)


MESSAGES = st.binary(max_size=4)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.sampled_from(list(WAYS)), MESSAGES, st.integers(0, 1)),
        st.tuples(st.just("resume"), st.sampled_from(list(WAYS)), st.integers(0, 1)),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS)
def test_messages_keep_their_order_and_bounds(null_module, actions) -> None:
    """Two plugins; in each direction the near one answers as drawn, the far one always pauses."""
    plugin = Plugin(name="tested", logger=LOGGER, network=True, timeout=None)
    guests = [Guest(null_module, plugin, harness.services()).start() for _ in range(2)]
    connection = new_connection(*guests)
    models = {way: (Model(), Model()) for way in WAYS}
    near = {"downstream": 0, "upstream": 1}

    for way in WAYS:
        guests[1 - near[way]].on(f"proxy_on_{way}_data", returns=1)

    for action, way, *rest in actions:
        flow, (first, second) = direction(connection, way), models[way]
        expected: list[bytes] = []

        if action == "feed":
            message, answer = rest
            guest = guests[near[way]]
            guest.again(f"proxy_on_{way}_data")
            guest.on(f"proxy_on_{way}_data", returns=answer)

            for let_go in first.feed(message, answer):
                second.feed(let_go, 1)

            assert feed(flow, message) == []
            continue

        [which] = rest
        index = near[way] if which == 0 else 1 - near[way]
        guests[index].ask(connection.contexts[index], CONTINUE, WAYS[way])
        run(connection.proceed())

        if which == 0 and first.paused:
            for let_go in first.resume():
                second.feed(let_go, 1)
        elif which == 1 and second.paused:
            expected = second.resume()

        assert taken(flow) == expected
