"""What guests of 0.1.0 expect, and those that know things by older names."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware.abi.enums import Status
from wasm_middleware.proxy_wasm.delivery import Delivery

from .harness import (
    OUT,
    Guest,
    MakeGuest,
    begin,
    call,
    held_in_headers,
    new_stream,
    respond,
    root_of,
    run,
)
from .scripted import Shape

OLD = Shape(
    types={"proxy_on_request_headers": "ii>i", "proxy_on_response_headers": "ii>i"},
)


@pytest.fixture
def old(make_guest: MakeGuest) -> Guest:
    return make_guest(
        shape=OLD, missing_header_is_empty=True, config=b"plugin's", vm_config=b"machine's"
    )


def test_header_callbacks_have_two_parameters(old: Guest) -> None:
    stream = new_stream(old)
    begin(stream, ended=True)
    respond(stream)
    identity = stream.contexts[0].id

    assert old.arguments_of("proxy_on_request_headers") == [(identity, 8, 0, 0, 0)]
    assert old.arguments_of("proxy_on_response_headers") == [(identity, 3, 0, 0, 0)]


def test_their_answer_counts(old: Guest) -> None:
    old.on("proxy_on_request_headers", returns=1)
    stream = new_stream(old)
    begin(stream)

    assert stream.paused_by is stream.contexts[0]


def test_a_missing_header_is_empty(old: Guest) -> None:
    context = held_in_headers(old)
    old.memory.write(OUT, b"\xff" * 8)

    status = old.ask(context, "proxy_get_header_map_value", 0, old.text(b"x-none"), OUT, OUT + 4)

    assert (status, old.u32(), old.u32(OUT + 4)) == (Status.OK, 0, 0)


def test_the_configuration_is_the_vms_while_it_starts(make_guest: MakeGuest) -> None:
    guest = make_guest(start=False, config=b"plugin's", vm_config=b"machine's")
    asked = [call("proxy_get_configuration", at, at + 4) for at in (32, 48)]
    guest.on("proxy_on_vm_start", asked[0], returns=1)
    guest.on("proxy_on_configure", asked[1], returns=1)
    guest.start()

    assert [guest.result(step) for step in asked] == [Status.OK, Status.OK]
    assert (guest.got(32), guest.got(48)) == (b"machine's", b"plugin's")


def test_later_the_configuration_is_the_plugins(old: Guest) -> None:
    context = held_in_headers(old)
    old.ask(context, "proxy_get_configuration", OUT, OUT + 4)

    assert old.got() == b"plugin's"


def test_a_second_root_reads_its_own_configuration(old: Guest) -> None:
    asked = call("proxy_get_configuration", OUT, OUT + 4)
    old.on("proxy_on_configure", asked, returns=1)
    run(old.vm.add_root(b"second"))

    assert old.got() == b"second"


# Names


TRAILING = "proxy_on_grpc_receive_trailing_metadata"
OLD_TRAILING = "proxy_on_grpc_trailing_metadata"


def test_trailing_metadata_comes_under_the_name_of_an_early_draft(make_guest: MakeGuest) -> None:
    guest = make_guest(shape=Shape(without=frozenset({TRAILING})))
    run(guest.vm.deliver(root_of(guest), Delivery(TRAILING, (5, 2))))

    assert guest.arguments_of(OLD_TRAILING) == [(root_of(guest).id, 5, 2, 0, 0)]


def test_of_both_names_the_right_one_is_called_alone(guest: Guest) -> None:
    run(guest.vm.deliver(root_of(guest), Delivery(TRAILING, (5, 2))))

    assert len(guest.arguments_of(TRAILING)) == 1
    assert guest.arguments_of(OLD_TRAILING) == []


# What the runtime of AssemblyScript says


def utf16(guest: Guest, text: str) -> int:
    """The address of a string as AssemblyScript has it: its size in bytes is in front of it."""
    data = text.encode("utf-16-le")
    return guest.text(len(data).to_bytes(4, "little") + data)[0] + 4


def test_an_abort_is_logged_with_its_message_and_place(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    message, file = utf16(guest, "no such key: ü\n2"), utf16(guest, "a.ts")

    with caplog.at_level(logging.ERROR):
        guest.ask(None, "abort", message, file, 7, 12)

    assert caplog.messages == ["it aborted: no such key: ü\n    2 (a.ts:7:12)"]


def test_an_abort_may_have_no_message(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        guest.ask(None, "abort", 0, 0, 0, 0)

    assert caplog.messages == ["it aborted"]


@pytest.mark.parametrize("address", [1, 4, 0x7FFF_FFF0, 0xFFFF_FFFF])
def test_an_abort_with_a_bad_pointer_does_no_harm(guest: Guest, address: int) -> None:
    guest.memory.write_u32(0, 0xFFFF_FFFF)
    guest.ask(None, "abort", address, address, 0, 0)

    assert not guest.instance.poisoned
