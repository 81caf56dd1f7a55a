"""Bodies on their way through plugins."""

from __future__ import annotations

import pytest

from wasm_middleware.proxy_wasm.lograte import LogRate
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

SET = "proxy_set_buffer_bytes"
ALL = 0xFFFF_FFFF
BOTH = pytest.mark.parametrize("response", [False, True])


def opened(*guests: Guest, response: bool) -> Stream:
    stream = new_stream(*guests)
    begin(stream)

    if response:
        respond(stream)

    return stream


def body(response: bool) -> str:
    return "proxy_on_response_body" if response else "proxy_on_request_body"


def told(guest: Guest, *, response: bool) -> list[tuple[int, int]]:
    """The sizes and ends of stream that its callback was told."""
    return [(arguments[1], arguments[2]) for arguments in guest.arguments_of(body(response))]


@BOTH
def test_each_chunk_is_shown_once_and_goes_on(guest: Guest, response: bool) -> None:
    stream = opened(guest, response=response)
    flow = stream.response if response else stream.request
    out = []

    for index, chunk in enumerate([b"one", b"three", b""]):
        run(flow.feed(chunk, end_of_stream=index == 2))
        out.append(flow.take_output())

    assert out == [b"one", b"three", b""]
    assert told(guest, response=response) == [(3, 0), (5, 0), (0, 1)]


@BOTH
def test_a_paused_body_gathers_and_its_size_is_all_of_it(guest: Guest, response: bool) -> None:
    for returned in (1, 1, 0):
        guest.on(body(response), returns=returned)

    stream = opened(guest, response=response)

    assert send_body(stream, b"one", b"three", b"", response=response) == b"onethree"
    assert told(guest, response=response) == [(3, 0), (8, 0), (8, 1)]


@BOTH
def test_the_guest_reads_the_union_of_what_has_gathered(guest: Guest, response: bool) -> None:
    guest.on(body(response), returns=1)
    guest.on(body(response), call("proxy_get_buffer_bytes", int(response), 0, 100, OUT, OUT + 4))
    stream = opened(guest, response=response)
    send_body(stream, b"one", b"two", response=response)

    assert guest.got() == b"onetwo"


@BOTH
def test_what_is_set_while_paused_takes_the_place_of_all_and_later_chunks_append(
    guest: Guest, response: bool
) -> None:
    new = guest.text(b"NEW")
    guest.on(body(response), call("proxy_set_buffer_bytes", int(response), 0, 99, new), returns=1)
    guest.on(body(response), returns=0)
    stream = opened(guest, response=response)

    assert send_body(stream, b"one", b"two", response=response) == b"NEWtwo"
    assert told(guest, response=response) == [(3, 0), (6, 1)]


@BOTH
def test_the_whole_body_can_be_replaced_in_the_last_callback(guest: Guest, response: bool) -> None:
    guest.on(body(response), returns=1)
    guest.on(body(response), returns=1)
    guest.on(
        body(response),
        call("proxy_set_buffer_bytes", int(response), 0, 0xFFFF_FFFF, guest.text(b"NEW")),
    )
    stream = opened(guest, response=response)

    assert send_body(stream, b"one", b"two", b"", response=response) == b"NEW"


@BOTH
def test_a_body_can_be_taken_away(guest: Guest, response: bool) -> None:
    guest.on(body(response), call("proxy_set_buffer_bytes", int(response), 0, 99, 0, 0))
    stream = opened(guest, response=response)

    assert send_body(stream, b"one", b"two", response=response) == b""


@BOTH
def test_the_next_plugin_sees_what_the_one_before_let_go(
    make_guest: MakeGuest, response: bool
) -> None:
    first, second = make_guest(), make_guest()
    before, after = (second, first) if response else (first, second)
    before.on(body(response), returns=1)
    before.on(
        body(response),
        call("proxy_set_buffer_bytes", int(response), 0, 0, before.text(b"> ")),
    )
    stream = opened(first, second, response=response)

    assert send_body(stream, b"one", b"two", response=response) == b"> onetwo"
    assert told(after, response=response) == [(8, 1)]


@BOTH
def test_two_plugins_may_gather_one_after_the_other(make_guest: MakeGuest, response: bool) -> None:
    first, second = make_guest(), make_guest()

    for guest in (first, second):
        guest.on(body(response), returns=1)

    stream = opened(first, second, response=response)
    send_body(stream, b"one", b"two", response=response)
    before, after = (1, 0) if response else (0, 1)
    guests = (first, second)

    for which in (before, after):
        assert stream.paused_by is stream.contexts[which]
        guests[which].ask(stream.contexts[which], "proxy_continue_stream", int(response))
        run(stream.proceed())

    flow = stream.response if response else stream.request
    assert flow.take_output() == b"onetwo"
    assert flow.output_ended
    assert told(guests[after], response=response) == [(6, 1)]


@BOTH
def test_after_a_resume_chunks_are_shown_by_themselves_again(guest: Guest, response: bool) -> None:
    guest.on(body(response), returns=1)
    guest.on(body(response), returns=0)
    stream = opened(guest, response=response)
    flow = stream.response if response else stream.request
    send_body(stream, b"one", response=response, ended=False)
    guest.ask(stream.contexts[0], "proxy_continue_stream", int(response))
    run(stream.proceed())
    run(flow.feed(b"three", end_of_stream=True))

    assert flow.take_output() == b"onethree"
    assert told(guest, response=response) == [(3, 0), (5, 1)]


@BOTH
def test_a_plugin_without_body_callback_lets_it_pass(make_guest: MakeGuest, response: bool) -> None:
    first = make_guest()
    second = make_guest(phases=frozenset({"on_request_headers", "on_response_headers"}))
    stream = opened(first, second, response=response)

    assert send_body(stream, b"one", b"two", response=response) == b"onetwo"
    assert told(second, response=response) == []
    assert told(first, response=response) == [(3, 0), (3, 1)]


@BOTH
def test_the_bytes_that_came_in_are_counted(guest: Guest, response: bool) -> None:
    stream = opened(guest, response=response)
    send_body(stream, b"one", b"three", response=response)

    assert (stream.response if response else stream.request).bytes_seen == 8


# The limit


@pytest.mark.parametrize(("response", "status"), [(False, 413), (True, 500)])
def test_a_paused_body_beyond_the_limit_ends_the_request(
    make_guest: MakeGuest, response: bool, status: int
) -> None:
    guest = make_guest(body_limit=5)
    guest.on(body(response), returns=1)
    stream = opened(guest, response=response)
    send_body(stream, b"12345", response=response, ended=False)
    assert not stream.interrupted

    send_body(stream, b"6", response=response)
    assert stream.reply is not None
    assert (stream.reply.status, stream.reply.details) == (status, "body_limit")
    run(stream.begin_reply(head=False))
    assert stream.response.headers is not None
    assert stream.response.headers.pairs[0] == (b":status", b"%d" % status)


@pytest.mark.parametrize(("response", "status"), [(False, 413), (True, 500)])
def test_a_body_that_waits_for_its_headers_has_the_same_limit(
    make_guest: MakeGuest, response: bool, status: int
) -> None:
    guest = make_guest(body_limit=5)
    guest.on(f"proxy_on_{'response' if response else 'request'}_headers", returns=1)
    stream = opened(guest, response=response)
    send_body(stream, b"12345", b"6", response=response)

    assert stream.reply is not None
    assert stream.reply.status == status


def test_a_body_beyond_the_limit_changes_nothing_once_the_response_is_over(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(body_limit=5)
    guest.on(body(False), returns=1)
    stream = opened(guest, response=False)
    stream.committed = True
    stream.end()
    send_body(stream, b"123456", ended=False)

    assert not stream.interrupted
    assert stream.aborted is None
    assert "body_limit" not in caplog.text


@BOTH
def test_a_body_that_is_made_too_large_again_and_again_is_one_line_in_the_log(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, response: bool
) -> None:
    guest = make_guest(body_limit=5)
    too_large = call(SET, 1 if response else 0, 0, ALL, guest.text(b"123456"))
    guest.on(body(response), *[too_large] * 10)
    stream = opened(guest, response=response)
    send_body(stream, b"1", response=response)

    assert stream.reply is not None
    assert stream.reply.details == "body_limit"
    assert caplog.text.count("body of more than its body_limit") == 1


def test_bodies_beyond_the_limit_count_as_lines_of_the_plugins_log(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(body_limit=5, log_rate=LogRate(2))
    guest.on(body(False), returns=1)
    streams = [opened(guest, response=False) for _ in range(5)]

    for stream in streams:
        send_body(stream, b"123456", ended=False)

    assert all(stream.reply is not None for stream in streams)
    assert caplog.text.count("body of more than its body_limit") == 2
    assert caplog.text.count("more than 2 lines within a second: they are dropped") == 1


def test_a_body_that_is_not_paused_has_no_limit(make_guest: MakeGuest) -> None:
    guest = make_guest(body_limit=5)
    stream = opened(guest, response=False)

    assert send_body(stream, b"x" * 50, b"y" * 50) == b"x" * 50 + b"y" * 50


def test_a_response_that_has_started_is_cut_at_the_limit(make_guest: MakeGuest) -> None:
    guest = make_guest(body_limit=5)
    guest.on(body(True), returns=1)
    stream = opened(guest, response=True)
    stream.committed = True
    send_body(stream, b"123456", response=True)

    assert stream.interrupted
    assert stream.aborted is not None
    assert stream.aborted.kind == "body_limit"


def test_no_callback_follows_the_limit(make_guest: MakeGuest) -> None:
    guest = make_guest(body_limit=5)
    guest.on(body(False), returns=1)
    stream = opened(guest, response=False)
    send_body(stream, b"123456", b"7", b"8")

    assert len(told(guest, response=False)) == 1


@BOTH
def test_one_resume_lets_go_what_was_paused_then_and_nothing_later(
    guest: Guest, response: bool
) -> None:
    guest.on(body(response), returns=1)
    stream = opened(guest, response=response)
    flow = stream.response if response else stream.request
    send_body(stream, b"one", response=response, ended=False)
    guest.ask(stream.contexts[0], "proxy_continue_stream", int(response))
    run(stream.proceed())
    send_body(stream, b"two", response=response, ended=False)

    assert stream.paused_by is stream.contexts[0]
    assert flow.take_output() == b""
