"""Contexts: ids, the effective one, roots."""

from __future__ import annotations

import pytest

from wasm_middleware.abi.enums import Status
from wasm_middleware.proxy_wasm.stream import Stream

from .harness import (
    ARGUMENT,
    INFO,
    OUT,
    Guest,
    MakeGuest,
    begin,
    call,
    new_stream,
    root_of,
    run,
    trap,
)

EFFECTIVE = "proxy_set_effective_context"
METHOD = b":method"


def test_ids_are_never_zero_and_never_shared(guest: Guest) -> None:
    streams = [new_stream(guest) for _ in range(3)]

    for stream in streams:
        begin(stream)

    ids = [root_of(guest).id, *(stream.contexts[0].id for stream in streams)]
    assert 0 not in ids
    assert len(set(ids)) == 4


def test_ids_start_again_when_they_have_all_been_used(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    taken = {root_of(guest).id, stream.contexts[0].id}
    guest.vm._last_id = 0xFFFF_FFFE

    ids = [guest.vm.new_id(), guest.vm.new_id()]

    assert ids[0] == 0xFFFF_FFFF
    assert ids[1] not in {0, *taken}


def test_a_context_is_created_under_its_root_before_anything_else(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    root, context = root_of(guest), stream.contexts[0]

    assert guest.arguments_of("proxy_on_context_create") == [
        (root.id, 0, 0, 0, 0),
        (context.id, root.id, 0, 0, 0),
    ]
    assert guest.called[-2:] == ["on_context_create", "on_request_headers"]


def test_a_context_is_created_once(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    run(stream.request.feed(b"x", end_of_stream=True))

    assert guest.called.count("on_context_create") == 2


def test_another_context_becomes_effective_for_this_callback_only(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    switch = call(EFFECTIVE, stream.contexts[0].id)
    inside = call("proxy_get_header_map_value", 0, guest.text(METHOD), OUT, OUT + 4)
    guest.on("proxy_on_foreign_function", switch, inside)
    guest.enter(root_of(guest), "proxy_on_foreign_function")
    after = guest.ask(
        root_of(guest), "proxy_get_header_map_value", 0, guest.text(METHOD), OUT, OUT + 4
    )

    assert guest.result(switch) == Status.OK
    assert guest.result(inside) == Status.OK
    assert after == Status.NOT_FOUND


def test_a_root_context_can_become_effective(make_guest: MakeGuest) -> None:
    guest = make_guest(config=b"settings")
    switch = call(EFFECTIVE, root_of(guest).id)
    asked = call("proxy_get_header_map_value", 0, guest.text(METHOD), OUT, OUT + 4)
    guest.on("proxy_on_request_headers", switch, asked)
    begin(new_stream(guest))

    assert (guest.result(switch), guest.result(asked)) == (Status.OK, Status.NOT_FOUND)


@pytest.mark.parametrize("context_id", [0, 99, 0xFFFF_FFFF])
def test_an_unknown_context_is_a_bad_argument(guest: Guest, context_id: int) -> None:
    assert guest.ask(root_of(guest), EFFECTIVE, context_id) == Status.BAD_ARGUMENT


def test_a_deleted_context_is_a_bad_argument(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    context_id = stream.contexts[0].id
    run(stream.finish())

    assert guest.ask(root_of(guest), EFFECTIVE, context_id) == Status.BAD_ARGUMENT


def test_the_context_being_created_can_be_made_effective(guest: Guest) -> None:
    switch = call(EFFECTIVE, ARGUMENT[0])
    guest.on("proxy_on_context_create", switch)
    begin(new_stream(guest))

    assert guest.result(switch) == Status.OK


# Roots


def test_each_configuration_is_another_root_and_the_vm_starts_once(make_guest: MakeGuest) -> None:
    guest = make_guest(config=b"one", vm_config=b"machine")
    second = run(guest.vm.add_root(b"second"))
    first = guest.vm.roots[b"one"]

    assert guest.calls[2:] == [
        ("proxy_on_context_create", (first.id, 0, 0, 0, 0)),
        ("proxy_on_vm_start", (first.id, 7, 0, 0, 0)),
        ("proxy_validate_configuration", (first.id, 3, 0, 0, 0)),
        ("proxy_on_configure", (first.id, 3, 0, 0, 0)),
        ("proxy_on_context_create", (second.id, 0, 0, 0, 0)),
        ("proxy_validate_configuration", (second.id, 6, 0, 0, 0)),
        ("proxy_on_configure", (second.id, 6, 0, 0, 0)),
    ]


def test_the_same_configuration_is_the_same_root(guest: Guest) -> None:
    assert run(guest.vm.add_root(b"")) is root_of(guest)


def test_a_stream_belongs_to_the_root_of_its_configuration(make_guest: MakeGuest) -> None:
    guest = make_guest(config=b"one")
    second = run(guest.vm.add_root(b"second"))
    stream = Stream(guest.services.clock, lambda: INFO)
    stream.add(guest.vm, b"second")
    begin(stream)

    created = guest.arguments_of("proxy_on_context_create")[-1]
    assert created[:2] == (stream.contexts[0].id, second.id)


def test_ticks_are_set_for_the_root_from_any_context(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)

    assert guest.ask(stream.contexts[0], "proxy_set_tick_period_milliseconds", 250) == Status.OK
    assert root_of(guest).tick_period == 250
    guest.ask(root_of(guest), "proxy_set_tick_period_milliseconds", 0)
    assert root_of(guest).tick_period == 0


# Their end


def test_at_shutdown_roots_are_done_and_deleted(guest: Guest) -> None:
    run(guest.vm.add_root(b"second"))
    ids = [root.id for root in guest.vm.roots.values()]
    log = guest.shut_down()

    assert [(name, arguments[0]) for name, arguments in log[-4:]] == [
        ("proxy_on_done", ids[0]),
        ("proxy_on_delete", ids[0]),
        ("proxy_on_done", ids[1]),
        ("proxy_on_delete", ids[1]),
    ]
    assert guest.vm.guest.poisoned


def test_a_root_that_is_not_done_is_not_deleted(guest: Guest) -> None:
    guest.on("proxy_on_done", returns=0)
    log = guest.shut_down()

    assert log[-1][0] == "proxy_on_done"


def test_done_is_ignored_where_nothing_waits_for_it(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    """The Rust SDK panics on the specification's NotFound."""
    stream = new_stream(guest)
    begin(stream)

    assert guest.ask(root_of(guest), "proxy_done") == Status.OK
    assert guest.ask(stream.contexts[0], "proxy_done") == Status.OK
    assert caplog.text.count("proxy_done: ignored") == 2


def test_a_root_that_waits_may_say_that_it_is_done(guest: Guest) -> None:
    root = root_of(guest)
    root.done_pending = True

    assert guest.ask(root, "proxy_done") == Status.OK
    assert root.ended


def test_a_poisoned_instance_is_shut_down_without_a_call(guest: Guest) -> None:
    guest.on("proxy_on_foreign_function", trap())

    with pytest.raises(Exception, match="trapped"):
        guest.enter(None, "proxy_on_foreign_function")

    before = guest.calls
    log = guest.shut_down()

    assert log == before
