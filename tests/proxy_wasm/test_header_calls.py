"""Host calls on header maps."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import Status

from .harness import (
    OUT,
    REQUEST,
    RESPONSE,
    Guest,
    MakeGuest,
    begin,
    call,
    held_in_body,
    held_in_headers,
    new_stream,
    respond,
    run,
    send_body,
)

GET = "proxy_get_header_map_value"
ADD = "proxy_add_header_map_value"
REPLACE = "proxy_replace_header_map_value"
REMOVE = "proxy_remove_header_map_value"
PAIRS = "proxy_get_header_map_pairs"
SET_PAIRS = "proxy_set_header_map_pairs"
SIZE = "proxy_get_header_map_size"
REQUEST_MAP, RESPONSE_MAP = 0, 2
ALL_CALLS = [GET, ADD, REPLACE, REMOVE, PAIRS, SET_PAIRS, SIZE]
WRITES = [ADD, REPLACE, REMOVE, SET_PAIRS]


def arguments(guest: Guest, name: str, map_type: int) -> list[object]:
    """Good arguments for a call, all about `x-new: value`."""
    key, value = guest.text(b"x-new"), guest.text(b"value")
    after = {
        GET: [key, OUT, OUT + 4],
        ADD: [key, value],
        REPLACE: [key, value],
        REMOVE: [guest.text(b"accept")],
        PAIRS: [OUT, OUT + 4],
        SET_PAIRS: [guest.text(pairs.encode([(b"x-new", b"value")]))],
        SIZE: [OUT],
    }
    return [map_type, *after[name]]


# Reading


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"accept", b"text/html"),
        (b"Accept", b"text/html"),
        (b"ACCEPT", b"text/html"),
        (b"x-tag", b"one"),
        (b"x-empty", b""),
        (b":path", b"/items/7?size=large"),
        (b":method", b"GET"),
        (b":authority", b"shop.example"),
        (b"host", b"shop.example"),
        (b"Host", b"shop.example"),
    ],
)
def test_a_value_is_the_first_of_its_name_in_any_case(
    guest: Guest, name: bytes, value: bytes
) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, GET, REQUEST_MAP, guest.text(name), OUT, OUT + 4)

    assert (status, guest.got()) == (Status.OK, value)


def test_a_missing_header_is_not_found(guest: Guest) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, GET, REQUEST_MAP, guest.text(b"x-none"), OUT, OUT + 4)

    assert status == Status.NOT_FOUND


def test_bytes_beyond_ascii_arrive_untouched(guest: Guest) -> None:
    context = held_in_headers(guest, [*REQUEST, (b"x-raw", b"\xff\xc3\x28\x80")])

    guest.ask(context, GET, REQUEST_MAP, guest.text(b"x-raw"), OUT, OUT + 4)

    assert guest.got() == b"\xff\xc3\x28\x80"


def test_pairs_are_all_headers_in_order(guest: Guest) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, PAIRS, REQUEST_MAP, OUT, OUT + 4)

    assert (status, pairs.decode(guest.got())) == (Status.OK, REQUEST)


def test_the_size_is_that_of_the_serialized_pairs(guest: Guest) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, SIZE, REQUEST_MAP, OUT)

    assert (status, guest.u32()) == (Status.OK, len(pairs.encode(REQUEST)))


@pytest.mark.parametrize("map_type", [1, 2, 3, 4, 5, 6, 7])
def test_a_map_that_is_not_there_is_empty(guest: Guest, map_type: int) -> None:
    context = held_in_headers(guest)
    value = guest.ask(context, GET, map_type, guest.text(b"accept"), OUT, OUT + 4)
    got_pairs = guest.ask(context, PAIRS, map_type, OUT, OUT + 4)
    assert (guest.u32(), guest.u32(OUT + 4)) == (0, 0)
    size = guest.ask(context, SIZE, map_type, OUT)

    assert (value, got_pairs, size) == (Status.NOT_FOUND, Status.OK, Status.OK)
    assert guest.u32() == 0


@pytest.mark.parametrize("name", ALL_CALLS)
@pytest.mark.parametrize("map_type", [8, 0xFFFF_FFFF])
def test_an_unknown_map_is_a_bad_argument(guest: Guest, name: str, map_type: int) -> None:
    context = held_in_headers(guest)

    assert guest.ask(context, name, *arguments(guest, name, map_type)) == Status.BAD_ARGUMENT


def test_request_headers_can_be_read_in_every_phase(guest: Guest) -> None:
    read = [call(GET, 0, guest.text(b"accept"), OUT, OUT + 4) for _ in range(4)]
    phases = ["request_body", "response_headers", "response_body"]

    for step, phase in zip(read, phases, strict=False):
        guest.on(f"proxy_on_{phase}", step)

    guest.on("proxy_on_log", read[3])
    stream = new_stream(guest)
    begin(stream)
    send_body(stream, b"x")
    respond(stream)
    send_body(stream, b"y", response=True)
    run(stream.finish())

    assert [guest.result(step) for step in read] == [Status.OK] * 4


# Too late, or too early


@pytest.mark.parametrize("name", WRITES)
def test_a_write_after_the_headers_have_passed_is_ignored_with_a_log_line(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    context = held_in_body(guest, b"body")

    with caplog.at_level(logging.WARNING):
        status = guest.ask(context, name, *arguments(guest, name, REQUEST_MAP))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == REQUEST
    assert f"{name}: ignored" in caplog.text
    assert "http request headers" in caplog.text


@pytest.mark.parametrize("name", WRITES)
def test_response_headers_written_in_a_body_callback_are_ignored(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    context = held_in_body(guest, b"body", response=True)

    with caplog.at_level(logging.WARNING):
        guest.ask(context, name, *arguments(guest, name, RESPONSE_MAP))

    headers = context.stream.response.headers
    assert headers is not None
    assert headers.pairs == RESPONSE
    assert "http response headers" in caplog.text


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("map_type", [1, 2, 3, 4, 5, 6, 7])
def test_a_write_to_a_map_that_is_not_there_is_ignored_with_a_log_line(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str, map_type: int
) -> None:
    context = held_in_headers(guest)

    with caplog.at_level(logging.WARNING):
        status = guest.ask(context, name, *arguments(guest, name, map_type))

    assert status == Status.OK
    assert f"{name}: ignored" in caplog.text


def test_a_root_context_has_no_headers(guest: Guest) -> None:
    [root] = guest.vm.roots.values()
    value = guest.ask(root, GET, 0, guest.text(b"accept"), OUT, OUT + 4)
    written = guest.ask(root, ADD, 0, guest.text(b"a"), guest.text(b"b"))

    assert (value, written) == (Status.NOT_FOUND, Status.OK)


# What callbacks are told


def test_callbacks_are_told_the_number_of_headers_pseudo_headers_included(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream, ended=True)
    respond(stream, ended=False)
    identity = stream.contexts[0].id

    assert guest.arguments_of("proxy_on_request_headers") == [(identity, len(REQUEST), 1, 0, 0)]
    assert guest.arguments_of("proxy_on_response_headers") == [(identity, len(RESPONSE), 0, 0, 0)]


def test_a_plugin_sees_what_the_one_before_it_wrote(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    first.on(
        "proxy_on_request_headers", call(REPLACE, 0, first.text(b"accept"), first.text(b"*/*"))
    )
    seen = call(GET, 0, second.text(b"Accept"), OUT, OUT + 4)
    second.on("proxy_on_request_headers", seen)

    begin(new_stream(first, second))

    assert second.got() == b"*/*"


def test_response_plugins_run_in_reverse_and_can_set_the_status(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    status = call(GET, 2, first.text(b":status"), OUT, OUT + 4)
    first.on("proxy_on_response_headers", status)
    second.on(
        "proxy_on_response_headers",
        call(REPLACE, 2, second.text(b":status"), second.text(b"204")),
    )
    stream = new_stream(first, second)
    begin(stream)
    headers = respond(stream)

    assert first.got() == b"204"
    assert headers.pairs[0] == (b":status", b"204")


@pytest.mark.parametrize("name", ["proxy_add_header_map_value", "proxy_replace_header_map_value"])
def test_names_longer_than_any_server_takes_are_left_out(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, name, 0, guest.text(b"x" * 20_000), guest.text(b"value"))

    assert status == Status.OK
    assert context.stream.request.headers.pairs == REQUEST
    assert "too long for a header name" in caplog.text
