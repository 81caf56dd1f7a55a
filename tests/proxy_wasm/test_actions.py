"""The answers of callbacks beyond Continue and Pause: the numbers of the C++ SDK."""

from __future__ import annotations

import pytest

from wasm_middleware.abi.enums import DataStatus, HeadersStatus

from .harness import (
    Guest,
    MakeGuest,
    begin,
    new_stream,
    respond,
    run,
    send_body,
)

H, D = HeadersStatus, DataStatus


@pytest.mark.parametrize("response", [False, True])
def test_continue_and_end_stream_goes_on_with_the_body(guest: Guest, response: bool) -> None:
    """Whatever the SDK calls it: so it is in Envoy."""
    which = "response" if response else "request"
    guest.on(f"proxy_on_{which}_headers", returns=H.CONTINUE_AND_END_STREAM)
    stream = new_stream(guest)
    begin(stream, ended=response)

    if response:
        respond(stream)

    assert send_body(stream, b"one", b"two", response=response) == b"onetwo"
    assert guest.called.count(f"on_{which}_body") == 2


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    "answer",
    [H.STOP_ALL_ITERATION_AND_BUFFER, H.STOP_ALL_ITERATION_AND_WATERMARK, 5, 0xFFFF_FFFF],
)
def test_the_stop_all_kinds_hold_the_body_back_whatever_is_allowed(
    make_guest: MakeGuest, answer: int, allow: bool
) -> None:
    guest = make_guest(allow_on_headers_stop_iteration=allow)
    guest.on("proxy_on_request_headers", returns=answer)
    stream = new_stream(guest)
    begin(stream)

    assert send_body(stream, b"body") == b""
    assert "on_request_body" not in guest.called

    stream.request.resume(stream.contexts[0])
    run(stream.proceed())
    assert stream.request.take_output() == b"body"
    assert guest.called.count("on_request_body") == 1


def test_stop_iteration_lets_the_body_flow_where_it_is_allowed(make_guest: MakeGuest) -> None:
    guest = make_guest(allow_on_headers_stop_iteration=True)
    guest.on("proxy_on_request_headers", returns=H.STOP_ITERATION)
    stream = new_stream(guest)
    begin(stream)

    assert send_body(stream, b"body") == b"body"
    assert stream.request.passed


@pytest.mark.parametrize("answer", [D.STOP_ITERATION_AND_BUFFER, D.STOP_ITERATION_AND_WATERMARK])
def test_the_buffering_kinds_gather(guest: Guest, answer: int) -> None:
    guest.on("proxy_on_request_body", returns=answer)
    guest.on("proxy_on_request_body", returns=D.CONTINUE)
    stream = new_stream(guest)
    begin(stream)

    assert send_body(stream, b"one", b"two") == b"onetwo"
    assert [size for _, size, *_ in guest.arguments_of("proxy_on_request_body")] == [3, 6]


@pytest.mark.parametrize("answer", [D.STOP_ITERATION_NO_BUFFER, 4, 0xFFFF_FFFF])
def test_no_buffer_drops_the_chunk(guest: Guest, answer: int) -> None:
    guest.on("proxy_on_request_body", returns=answer)
    guest.on("proxy_on_request_body", returns=D.CONTINUE)
    stream = new_stream(guest)
    begin(stream)

    assert send_body(stream, b"one", b"two") == b"two"
    assert [size for _, size, *_ in guest.arguments_of("proxy_on_request_body")] == [3, 3]


def test_no_buffer_at_the_end_leaves_nothing_but_the_end(guest: Guest) -> None:
    guest.on("proxy_on_response_body", returns=D.STOP_ITERATION_NO_BUFFER)
    stream = new_stream(guest)
    begin(stream, ended=True)
    respond(stream)

    assert send_body(stream, b"one", response=True) == b""
    assert not stream.response.output_ended
    stream.response.resume(stream.contexts[0])
    run(stream.proceed())
    assert (stream.response.take_output(), stream.response.output_ended) == (b"", True)
