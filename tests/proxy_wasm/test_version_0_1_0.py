"""What guests of 0.1.0 expect."""

from __future__ import annotations

import pytest

from wasm_middleware.abi.enums import Status

from .harness import OUT, Guest, MakeGuest, begin, call, held_in_headers, new_stream, respond, run
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
