"""Response trailers on their way through the plugins, behind the body."""

from __future__ import annotations

import pytest

from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import MapType, Status
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.stream import Stream

from .harness import (
    OUT,
    Guest,
    MakeGuest,
    begin,
    call,
    new_stream,
    respond,
    run,
    send_body,
)

TRAILERS = MapType.HTTP_RESPONSE_TRAILERS
GIVEN = [(b"x-checksum", b"7"), (b"x-checksum", b"8")]


def end(stream: Stream) -> HeaderMap:
    trailers = HeaderMap(list(GIVEN))
    run(stream.response.end(trailers))
    return trailers


def responding(*guests: Guest) -> Stream:
    stream = new_stream(*guests)
    begin(stream, ended=True)
    respond(stream)
    return stream


def test_they_pass_behind_the_body(guest: Guest) -> None:
    stream = responding(guest)
    assert send_body(stream, b"body", response=True, ended=False) == b"body"
    end(stream)

    assert stream.response.trailers_passed
    assert guest.calls[-1] == ("proxy_on_response_trailers", (stream.contexts[0].id, 2, 0, 0, 0))


def test_they_can_be_read_and_changed(guest: Guest) -> None:
    read = call("proxy_get_header_map_pairs", TRAILERS, OUT, OUT + 4)
    text = guest.text
    steps = [
        call("proxy_replace_header_map_value", TRAILERS, text(b"x-checksum"), text(b"9")),
        call("proxy_add_header_map_value", TRAILERS, text(b"x-more"), text(b"1")),
    ]
    guest.on("proxy_on_response_trailers", read, *steps)
    stream = responding(guest)
    trailers = end(stream)

    assert [guest.result(step) for step in (read, *steps)] == [Status.OK] * 3
    assert guest.got() == pairs.encode(GIVEN)
    assert trailers.pairs == [(b"x-checksum", b"9"), (b"x-more", b"1")]


def test_they_pass_the_plugins_in_reverse(make_guest: MakeGuest) -> None:
    guests = [make_guest(), make_guest()]
    first, second = guests
    text = first.text
    # It sees what the other has added.
    second.on(
        "proxy_on_response_trailers",
        call("proxy_add_header_map_value", TRAILERS, second.text(b"x-second"), second.text(b"1")),
    )
    seen = call("proxy_get_header_map_value", TRAILERS, text(b"x-second"), OUT, OUT + 4)
    first.on("proxy_on_response_trailers", seen)
    end(responding(first, second))

    assert (first.result(seen), first.got()) == (Status.OK, b"1")


def test_they_end_a_body_that_a_plugin_gathers(guest: Guest) -> None:
    """Where there are trailers, no chunk is the last: they are (Envoy)."""
    guest.on("proxy_on_response_body", returns=1)
    stream = responding(guest)
    assert send_body(stream, b"one", b"two", response=True, ended=False) == b""
    end(stream)

    assert stream.response.take_output() == b"onetwo"
    assert stream.response.trailers_passed


def test_a_pause_holds_body_and_trailers_until_it_is_resumed(guest: Guest) -> None:
    guest.on("proxy_on_response_body", returns=1)
    guest.on("proxy_on_response_trailers", returns=1)
    stream = responding(guest)
    send_body(stream, b"one", response=True, ended=False)
    end(stream)
    assert not stream.response.trailers_passed
    assert stream.paused_by is stream.contexts[0]

    stream.response.resume(stream.contexts[0])
    run(stream.proceed())
    assert stream.response.take_output() == b"one"
    assert stream.response.trailers_passed
    assert guest.called.count("on_response_trailers") == 1


def test_they_wait_where_the_headers_wait(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    first.on("proxy_on_response_headers", returns=1)
    stream = responding(first, second)
    send_body(stream, b"body", response=True, ended=False)
    end(stream)
    assert "on_response_trailers" in second.called
    assert "on_response_trailers" not in first.called

    stream.response.resume(stream.contexts[0])
    run(stream.proceed())
    assert first.called[-2:] == ["on_response_body", "on_response_trailers"]
    assert stream.response.take_output() == b"body"
    assert stream.response.trailers_passed


def add(guest: Guest) -> None:
    guest.on(
        "proxy_on_response_body",
        call("proxy_add_header_map_value", TRAILERS, guest.text(b"x-mine"), guest.text(b"1")),
    )


def test_a_plugin_may_add_some_with_the_last_of_the_body(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    add(second)
    stream = responding(first, second)
    stream.may_add_trailers = True
    assert send_body(stream, b"body", response=True) == b"body"

    assert stream.response.trailers is not None
    assert stream.response.trailers.pairs == [(b"x-mine", b"1")]
    assert stream.response.trailers_passed
    # For those behind it the body does not end with a chunk.
    assert first.arguments_of("proxy_on_response_body")[0][2] == 0
    assert first.called[-1] == "on_response_trailers"
    assert "on_response_trailers" not in second.called


@pytest.mark.parametrize(("may", "ended"), [(False, True), (True, False)])
def test_where_they_could_not_be_sent_none_are_added(guest: Guest, may: bool, ended: bool) -> None:
    add(guest)
    stream = responding(guest)
    stream.may_add_trailers = may
    send_body(stream, b"body", response=True, ended=ended)

    assert stream.response.trailers is None


def test_request_trailers_are_empty(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    size = ("proxy_get_header_map_size", MapType.HTTP_REQUEST_TRAILERS, OUT)

    assert guest.ask(stream.contexts[0], *size) == Status.OK
    assert guest.u32() == 0
