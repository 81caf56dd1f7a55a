"""Changing header maps."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware import limits
from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import Status
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.stream import StreamContext

from .harness import (
    OUT,
    REQUEST,
    Guest,
    MakeGuest,
    begin,
    call,
    held_in_headers,
    new_stream,
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


def test_add_appends_a_second_header(guest: Guest) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, ADD, 0, guest.text(b"X-Tag"), guest.text(b"three"))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.changed
    assert headers.pairs == [*REQUEST, (b"x-tag", b"three")]


def test_add_to_a_pseudo_header_joins_with_a_comma(guest: Guest) -> None:
    context = held_in_headers(guest)

    guest.ask(context, ADD, 0, guest.text(b":path"), guest.text(b"/new"))

    headers = context.stream.request.headers
    assert headers is not None
    assert headers.pairs[1] == (b":path", b"/items/7?size=large,/new")


def test_replace_leaves_one_header_and_it_is_the_last(guest: Guest) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, REPLACE, 0, guest.text(b"X-TAG"), guest.text(b"only"))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == [*REQUEST[:5], REQUEST[7], (b"x-tag", b"only")]


def test_replace_adds_what_is_missing(guest: Guest) -> None:
    context = held_in_headers(guest)

    guest.ask(context, REPLACE, 0, guest.text(b"X-New"), guest.text(b"value"))

    headers = context.stream.request.headers
    assert headers is not None
    assert headers.pairs == [*REQUEST, (b"x-new", b"value")]


@pytest.mark.parametrize("name", [b"host", b"Host", b":authority"])
def test_host_and_authority_are_one_header(guest: Guest, name: bytes) -> None:
    context = held_in_headers(guest)

    guest.ask(context, REPLACE, 0, guest.text(name), guest.text(b"other.example"))

    headers = context.stream.request.headers
    assert headers is not None
    assert headers.pairs[3] == (b":authority", b"other.example")
    assert len(headers.pairs) == len(REQUEST)


def test_remove_takes_away_all_of_a_name(guest: Guest) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, REMOVE, 0, guest.text(b"X-Tag"))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == [pair for pair in REQUEST if pair[0] != b"x-tag"]


def test_removing_what_is_not_there_changes_nothing(guest: Guest) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, REMOVE, 0, guest.text(b"x-none"))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert not headers.changed


def test_set_pairs_keeps_pseudo_headers_that_are_not_given(guest: Guest) -> None:
    context = held_in_headers(guest)
    given = pairs.encode([(b":path", b"/new"), (b"A", b"1"), (b"a", b"2")])

    status = guest.ask(context, SET_PAIRS, 0, guest.text(given))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert sorted(headers.pairs[:4]) == [
        (b":authority", b"shop.example"),
        (b":method", b"GET"),
        (b":path", b"/new"),
        (b":scheme", b"https"),
    ]
    assert headers.pairs[4:] == [(b"a", b"1"), (b"a", b"2")]


@pytest.mark.parametrize("malformed", [b"\1", b"\2\0\0\0\1\0", b"\xff\xff\xff\xff"])
def test_malformed_pairs_count_as_none(
    guest: Guest, caplog: pytest.LogCaptureFixture, malformed: bytes
) -> None:
    context = held_in_headers(guest)

    with caplog.at_level(logging.WARNING):
        status = guest.ask(context, SET_PAIRS, 0, guest.text(malformed))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == REQUEST[:4]
    assert "malformed pairs count as none" in caplog.text


def refused(context: StreamContext) -> bool:
    """Whether its request is answered for it, with the status of a failure."""
    reply = context.stream.reply
    return reply is not None and (reply.status, reply.details) == (503, "abi")


INVALID_NAMES = [b"a b", b"a:b", b"a\r\nb", b"a\0b", b"\xe4", b"a\n", b"a "]
INVALID_VALUES = [b"a\r\nb: c", b"a\rb", b"a\n", b"a\0b", b"a\x0bb", b"\x1b[2K", b"\x7f"]


@pytest.mark.parametrize("invalid", INVALID_NAMES)
@pytest.mark.parametrize("name", [ADD, REPLACE])
def test_a_name_that_is_no_name_fails_the_request(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str, invalid: bytes
) -> None:
    """As in Envoy. The call answers OK: the Rust SDK panics on the specification's BadArgument."""
    context = held_in_headers(guest)

    status = guest.ask(context, name, 0, guest.text(invalid), guest.text(b"value"))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == REQUEST
    assert refused(context)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert f"{name}: {invalid!r} is not a header name" in record.message


@pytest.mark.parametrize("nothing", [b"", b":", b":unknown"])
@pytest.mark.parametrize("name", [ADD, REPLACE])
def test_a_name_that_means_nothing_is_left_out(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str, nothing: bytes
) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, name, 0, guest.text(nothing), guest.text(b"value"))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == REQUEST
    assert context.stream.reply is None
    assert f"{name}: ignored: {nothing!r} is not a header name" in caplog.text


@pytest.mark.parametrize("invalid", INVALID_VALUES)
def test_a_value_that_breaks_out_of_its_line_is_not_added(
    guest: Guest, caplog: pytest.LogCaptureFixture, invalid: bytes
) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, ADD, 0, guest.text(b"x-tag"), guest.text(invalid))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == REQUEST
    assert refused(context)
    assert f"{ADD}: the value of b'x-tag' contains the control character b'" in caplog.text


@pytest.mark.parametrize("invalid", INVALID_VALUES)
@pytest.mark.parametrize("key", [b"x-tag", b"X-Tag"])
def test_a_value_that_can_not_be_replaced_is_removed(
    guest: Guest, caplog: pytest.LogCaptureFixture, key: bytes, invalid: bytes
) -> None:
    """Else what a client sent would pass for what the plugin said."""
    context = held_in_headers(guest)

    status = guest.ask(context, REPLACE, 0, guest.text(key), guest.text(invalid))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == [pair for pair in REQUEST if pair[0] != b"x-tag"]
    assert refused(context)
    assert "contains the control character b'" in caplog.text


@pytest.mark.parametrize("name", [ADD, REPLACE])
def test_tabs_and_bytes_beyond_ascii_are_values(guest: Guest, name: str) -> None:
    context = held_in_headers(guest)
    value = b" a\tb \x80\xff~"

    assert guest.ask(context, name, 0, guest.text(b"x-new"), guest.text(value)) == Status.OK
    assert context.stream.request.headers is not None
    assert context.stream.request.headers.get(b"x-new") == value
    assert not refused(context)


def test_with_fail_open_the_request_goes_on_without_the_plugin(make_guest: MakeGuest) -> None:
    guest = make_guest(fail_open=True)
    guest.on(
        "proxy_on_request_headers",
        call(REPLACE, 0, guest.text(b"x-tag"), guest.text(b"a\r\nb")),
        returns=1,
    )
    stream = new_stream(guest)
    begin(stream)

    assert stream.reply is None
    assert stream.request.passed
    assert stream.contexts[0].left_out


@pytest.mark.parametrize("key", [b":path", b"host", b":authority", b"Host"])
def test_what_every_request_has_stays_where_it_can_not_be_replaced(
    guest: Guest, key: bytes
) -> None:
    context = held_in_headers(guest)

    status = guest.ask(context, REPLACE, 0, guest.text(key), guest.text(b"a\r\nb"))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == REQUEST


@pytest.mark.parametrize("name", [ADD, REPLACE])
def test_a_value_longer_than_any_server_takes_is_left_out(guest: Guest, name: str) -> None:
    context = held_in_headers(guest)
    most = limits.MAX_HEADER_VALUE_BYTES
    address, _ = guest.text(b"x" * (most + 1))
    headers = context.stream.request.headers
    assert headers is not None

    assert guest.ask(context, name, 0, guest.text(b"x-a"), address, most + 1) == Status.OK
    assert headers.get(b"x-a") is None
    assert guest.ask(context, name, 0, guest.text(b"x-a"), address, most) == Status.OK
    assert headers.get(b"x-a") == b"x" * most


@pytest.mark.parametrize("name", [ADD, REPLACE])
def test_a_name_longer_than_any_server_takes_fails_the_request(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    context = held_in_headers(guest)
    long = b"x" * (limits.MAX_HEADER_NAME_BYTES + 1)

    assert guest.ask(context, name, 0, guest.text(long[:-1]), guest.text(b"v")) == Status.OK
    assert not refused(context)
    assert guest.ask(context, name, 0, guest.text(long), guest.text(b"v")) == Status.OK

    headers = context.stream.request.headers
    assert headers is not None
    assert headers.pairs == [*REQUEST, (long[:-1], b"v")]
    assert refused(context)
    assert "is too long for a header name" in caplog.text


@pytest.mark.parametrize("name", [ADD, REPLACE])
def test_headers_can_be_added_up_to_a_number(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    context = held_in_headers(guest)
    monkeypatch.setattr(limits, "MAX_PAIRS", len(REQUEST) + 1)
    statuses = [
        guest.ask(context, name, 0, guest.text(b"x-%d" % number), guest.text(b"v"))
        for number in range(2)
    ]

    headers = context.stream.request.headers
    assert statuses == [Status.OK, Status.OK]
    assert headers is not None
    assert headers.pairs == [*REQUEST, (b"x-0", b"v")]
    guest.ask(context, REPLACE, 0, guest.text(b"x-tag"), guest.text(b"v"))
    assert headers.get(b"x-tag") == b"v"


@pytest.mark.parametrize("name", [ADD, REPLACE])
def test_headers_can_be_added_up_to_a_number_of_bytes(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    context = held_in_headers(guest)
    most = limits.MAX_HEADERS_BYTES
    headers = context.stream.request.headers
    assert headers is not None
    address, size = guest.text(b"x" * 60_000)

    for number in range(2 * most // size):
        assert guest.ask(context, name, 0, guest.text(b"x-%d" % number), address, size) == Status.OK

    assert size_of(headers) > most - 2 * size
    assert size_of(headers) <= most
    assert refused(context)
    assert f"{name}: there are more than {most} bytes of headers" in caplog.text


def test_small_headers_are_counted_too(guest: Guest) -> None:
    context = held_in_headers(guest)
    headers = context.stream.request.headers
    assert headers is not None
    value = guest.text(b"x" * 300)

    for number in range(limits.MAX_PAIRS):
        guest.ask(context, ADD, 0, guest.text(b"x-%d" % number), *value)

    assert limits.MAX_HEADERS_BYTES - 400 < size_of(headers) <= limits.MAX_HEADERS_BYTES
    assert refused(context)


def test_one_header_can_be_replaced_without_end(guest: Guest) -> None:
    context = held_in_headers(guest)
    headers = context.stream.request.headers
    assert headers is not None
    value = guest.text(b"x" * 60_000)

    for _ in range(20):
        guest.ask(context, REPLACE, 0, guest.text(b"x-a"), *value)

    assert headers.get(b"x-a") == b"x" * 60_000
    assert not refused(context)


def test_a_pseudo_header_does_not_grow_without_end(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    context = held_in_headers(guest)
    headers = context.stream.request.headers
    assert headers is not None
    value = guest.text(b"x" * 40_000)

    for _ in range(3):
        guest.ask(context, ADD, 0, guest.text(b":path"), *value)

    assert headers.get(b":path") == REQUEST[1][1] + b"," + b"x" * 40_000
    assert refused(context)
    assert f"{ADD}: the value of b':path' is too long" in caplog.text


def test_set_pairs_with_too_many_bytes_fails_the_request(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    context = held_in_headers(guest)
    headers = context.stream.request.headers
    assert headers is not None
    given = [(b"x-%d" % number, b"x" * 60_000) for number in range(5)]

    assert guest.ask(context, SET_PAIRS, 0, guest.text(pairs.encode(given))) == Status.OK
    assert headers.pairs == REQUEST
    assert refused(context)


def size_of(headers: HeaderMap) -> int:
    return sum(len(name) + len(value) for name, value in headers.pairs)


@pytest.mark.parametrize("pair", [(b"a b", b"c"), (b"a", b"b\r\nc: d")])
def test_set_pairs_with_one_that_is_invalid_fails_the_request(
    guest: Guest, caplog: pytest.LogCaptureFixture, pair: tuple[bytes, bytes]
) -> None:
    context = held_in_headers(guest)

    with caplog.at_level(logging.WARNING):
        status = guest.ask(context, SET_PAIRS, 0, guest.text(pairs.encode([(b"fine", b"1"), pair])))

    headers = context.stream.request.headers
    assert status == Status.OK
    assert headers is not None
    assert headers.pairs == REQUEST
    assert refused(context)
    assert f"{SET_PAIRS}: " in caplog.text
