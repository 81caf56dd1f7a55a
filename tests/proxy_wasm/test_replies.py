"""Local replies."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware.abi.enums import Status

from .harness import (
    LOGGER,
    Guest,
    MakeGuest,
    begin,
    call,
    new_stream,
    respond,
    run,
    send_body,
)
from .replies import reply, sent


def test_a_reply_from_request_headers_ends_the_request_there(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    asked = reply(first)
    first.on("proxy_on_request_headers", asked, returns=0)
    stream = new_stream(first, second)
    begin(stream)

    assert first.result(asked) == Status.OK
    assert not stream.request.passed
    assert "on_request_headers" not in second.called
    assert sent(stream) == (
        [(b":status", b"403"), (b"content-length", b"2"), (b"content-type", b"text/plain")],
        b"no",
    )


def test_a_reply_from_a_request_body(guest: Guest) -> None:
    guest.on("proxy_on_request_body", reply(guest, 413, body=b""))
    stream = new_stream(guest)
    begin(stream)

    assert send_body(stream, b"abc") == b""
    assert sent(stream) == ([(b":status", b"413"), (b"content-length", b"0")], b"")


@pytest.mark.parametrize("returned", [0, 1])
def test_the_action_returned_with_a_reply_does_not_count(guest: Guest, returned: int) -> None:
    guest.on("proxy_on_request_headers", reply(guest), returns=returned)
    stream = new_stream(guest)
    begin(stream)

    assert stream.interrupted
    assert stream.paused_by is None


def test_the_first_reply_wins(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    second = reply(guest, 200, body=b"yes")
    guest.on("proxy_on_request_headers", reply(guest, 401), second)
    stream = new_stream(guest)

    with caplog.at_level(logging.WARNING, LOGGER.name):
        begin(stream)

    assert guest.result(second) == Status.OK
    assert sent(stream)[0][0] == (b":status", b"401")
    assert "there is a local reply already" in caplog.text


def test_the_whole_chain_sees_the_reply_in_reverse(make_guest: MakeGuest) -> None:
    guests = [make_guest() for _ in range(3)]
    guests[1].on("proxy_on_request_headers", reply(guests[1]))

    for guest in guests:
        guest.on(
            "proxy_on_response_headers",
            call(
                "proxy_add_header_map_value", 2, guest.text(b"x-by"), guest.text(b"%d" % id(guest))
            ),
        )

    stream = new_stream(*guests)
    begin(stream)
    headers, body = sent(stream)

    by = [value for name, value in headers if name == b"x-by"]
    assert by == [b"%d" % id(guest) for guest in reversed(guests)]
    assert body == b"no"


def test_a_plugin_that_never_saw_the_request_is_created_first(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    first.on("proxy_on_request_headers", reply(first))
    stream = new_stream(first, second)
    begin(stream)
    sent(stream)

    assert second.called[-3:] == ["on_context_create", "on_response_headers", "on_response_body"]


def test_response_plugins_may_change_it(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", reply(guest))
    guest.on(
        "proxy_on_response_headers",
        call("proxy_replace_header_map_value", 2, guest.text(b":status"), guest.text(b"418")),
    )
    guest.on("proxy_on_response_body", call("proxy_set_buffer_bytes", 1, 0, 9, guest.text(b"tea")))
    stream = new_stream(guest)
    begin(stream)
    headers, body = sent(stream)

    assert (headers[0], body) == ((b":status", b"418"), b"tea")


def test_a_reply_to_the_reply_is_ignored(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.on("proxy_on_request_headers", reply(guest, 401))
    guest.on("proxy_on_response_headers", reply(guest, 500))
    guest.on("proxy_on_response_body", reply(guest, 500))
    stream = new_stream(guest)
    begin(stream)

    with caplog.at_level(logging.WARNING, LOGGER.name):
        headers, body = sent(stream)

    assert (headers[0], body) == ((b":status", b"401"), b"no")
    assert not stream.interrupted
    assert caplog.text.count("too late") == 2


def test_a_bodiless_reply_ends_with_its_headers(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", reply(guest, 302, body=b"", headers=[(b"location", b"/")]))
    stream = new_stream(guest)
    begin(stream)
    sent(stream)

    assert [arguments[2] for arguments in guest.arguments_of("proxy_on_response_headers")] == [1]
    assert "on_response_body" not in guest.called


def test_the_answer_to_head_has_headers_alone(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", reply(guest))
    stream = new_stream(guest)
    begin(stream)
    headers, _ = sent(stream, head=True)

    assert (b"content-length", b"2") in headers
    assert "on_response_body" not in guest.called


def test_a_reply_may_be_paused_and_resumed_like_a_response(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", reply(guest))
    guest.on("proxy_on_response_headers", returns=1)
    stream = new_stream(guest)
    begin(stream)
    run(stream.begin_reply(head=False))
    assert stream.paused_by is stream.contexts[0]
    guest.ask(stream.contexts[0], "proxy_continue_stream", 1)
    run(stream.proceed())

    assert stream.paused_by is None
    assert stream.response.take_output() == b"no"


# From the response


def test_a_reply_from_response_headers_goes_straight_to_the_client(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    second.on("proxy_on_response_headers", reply(second, 502))
    stream = new_stream(first, second)
    begin(stream)
    respond(stream)

    assert sent(stream)[0][0] == (b":status", b"502")
    assert "on_response_headers" not in first.called
    assert second.called.count("on_response_headers") == 1


def test_a_reply_from_a_response_body_before_the_start_went_out(guest: Guest) -> None:
    guest.on("proxy_on_response_body", reply(guest, 500))
    stream = new_stream(guest)
    begin(stream)
    respond(stream)
    send_body(stream, b"secret", response=True)

    assert sent(stream) == (
        [(b":status", b"500"), (b"content-length", b"2"), (b"content-type", b"text/plain")],
        b"no",
    )


def test_a_reply_after_the_start_went_out_cuts_the_response(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    asked = reply(guest)
    guest.on("proxy_on_response_body", asked)
    stream = new_stream(guest)
    begin(stream)
    respond(stream)
    stream.committed = True

    with caplog.at_level(logging.WARNING, LOGGER.name):
        body = send_body(stream, b"abc", response=True)

    assert guest.result(asked) == Status.OK
    assert (body, stream.interrupted, stream.reply) == (b"", True, None)
    assert "it replied (403) when the response had started" in str(stream.aborted)
    assert "the response has started" in caplog.text


def test_a_reply_from_on_log_is_ignored(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    asked = reply(guest)
    guest.on("proxy_on_log", asked)
    stream = new_stream(guest)
    begin(stream)

    with caplog.at_level(logging.WARNING, LOGGER.name):
        run(stream.finish())

    assert guest.result(asked) == Status.OK
    assert (stream.interrupted, stream.reply) == (False, None)
    assert "the response is over" in caplog.text


def test_a_root_context_replies_for_a_stream_that_it_makes_effective(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", returns=1)
    stream = new_stream(guest)
    woken: list[bool] = []
    stream.on_wake = lambda: woken.append(True)
    begin(stream)
    [root] = guest.vm.roots.values()
    guest.on(
        "proxy_on_queue_ready",
        call("proxy_set_effective_context", stream.contexts[0].id),
        reply(guest, 503),
    )
    guest.enter(root, "proxy_on_queue_ready")

    assert woken == [True]
    assert sent(stream)[0][0] == (b":status", b"503")


def test_a_root_context_alone_has_nothing_to_reply_to(guest: Guest) -> None:
    [root] = guest.vm.roots.values()
    guest.on("proxy_on_queue_ready", asked := reply(guest))
    guest.enter(root, "proxy_on_queue_ready")

    assert guest.result(asked) == Status.OK


def test_outside_of_every_context_a_reply_is_ignored(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    guest.on("proxy_on_queue_ready", asked := reply(guest))
    guest.enter(None, "proxy_on_queue_ready")

    assert guest.result(asked) == Status.OK
    assert "there is no stream to reply to" in caplog.text
