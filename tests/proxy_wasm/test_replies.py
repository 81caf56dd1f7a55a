"""Local replies (reference §4, items 24 to 28)."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware import limits
from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import Status
from wasm_middleware.proxy_wasm.stream import Stream

from .harness import (
    LOGGER,
    OUT,
    REQUEST,
    RESPONSE,
    Guest,
    MakeGuest,
    Step,
    begin,
    call,
    new_stream,
    respond,
    run,
    send_body,
)


def reply(
    guest: Guest,
    status: int = 403,
    *,
    body: bytes = b"no",
    headers: list[tuple[bytes, bytes]] | None = None,
    details: bytes = b"",
    grpc: int = -1,
) -> Step:
    encoded = pairs.encode(headers or [])
    return call(
        "proxy_send_local_response",
        *(status, guest.text(details), guest.text(body), guest.text(encoded), grpc),
    )


def sent(stream: Stream, *, head: bool = False) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body that go to the client."""
    assert stream.interrupted
    body = run(stream.begin_reply(head=head))
    headers = stream.response.headers
    assert headers is not None
    return headers.pairs, stream.response.take_output() if stream.response.contexts else body


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
        [(b":status", b"403"), (b"content-type", b"text/plain"), (b"content-length", b"2")],
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
        [(b":status", b"500"), (b"content-type", b"text/plain"), (b"content-length", b"2")],
        b"no",
    )


def test_a_reply_after_the_start_went_out_is_too_late(
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
    assert (body, stream.interrupted, stream.reply) == (b"abc", False, None)
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


def test_outside_of_every_context_a_reply_is_a_bad_argument(guest: Guest) -> None:
    guest.on("proxy_on_queue_ready", asked := reply(guest))
    guest.enter(None, "proxy_on_queue_ready")

    assert guest.result(asked) == Status.BAD_ARGUMENT


# What it is made of


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, 200), (404, 404), (599, 599), (0, 500), (100, 500), (199, 500), (600, 500), (1000, 500)],
)
def test_a_status_that_can_not_be_sent_becomes_500(
    guest: Guest, caplog: pytest.LogCaptureFixture, status: int, expected: int
) -> None:
    guest.on("proxy_on_request_headers", reply(guest, status))
    stream = new_stream(guest)

    with caplog.at_level(logging.WARNING, LOGGER.name):
        begin(stream)

    assert sent(stream)[0][0] == (b":status", b"%d" % expected)
    assert (f"there is no status {status}" in caplog.text) == (status != expected)


def test_the_length_is_the_truth_whatever_the_plugin_says(guest: Guest) -> None:
    headers = [(b"Content-Length", b"999"), (b"Transfer-Encoding", b"chunked"), (b":status", b"1")]
    guest.on("proxy_on_request_headers", reply(guest, 200, headers=headers))
    stream = new_stream(guest)
    begin(stream)

    assert sent(stream)[0] == [
        (b":status", b"200"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"2"),
    ]


def test_headers_of_a_reply_may_repeat_and_bring_their_type(guest: Guest) -> None:
    headers = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"Content-Type", b"text/html")]
    guest.on("proxy_on_request_headers", reply(guest, 200, headers=headers))
    stream = new_stream(guest)
    begin(stream)

    assert sent(stream)[0] == [
        (b":status", b"200"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"content-type", b"text/html"),
        (b"content-length", b"2"),
    ]


@pytest.mark.parametrize("pair", [(b"a b", b"c"), (b"a", b"b\r\nc: d"), (b"a", b"\0")])
def test_an_invalid_header_is_left_out_of_a_reply(guest: Guest, pair: tuple[bytes, bytes]) -> None:
    guest.on("proxy_on_request_headers", reply(guest, headers=[pair, (b"fine", b"1")]))
    stream = new_stream(guest)
    begin(stream)
    headers, _ = sent(stream)

    assert (b"fine", b"1") in headers
    assert len(headers) == 4


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_neither_body_nor_length(guest: Guest, status: int) -> None:
    guest.on("proxy_on_request_headers", reply(guest, status))
    stream = new_stream(guest)
    begin(stream)

    assert sent(stream) == ([(b":status", b"%d" % status)], b"")


def test_a_body_beyond_the_cap_is_cut(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LOCAL_RESPONSE_BYTES", 3)
    guest.on("proxy_on_request_headers", reply(guest, body=b"forbidden"))
    stream = new_stream(guest)
    begin(stream)

    headers, body = sent(stream)
    assert body == b"for"
    assert (b"content-length", b"3") in headers


GRPC_REQUEST = [*REQUEST, (b"content-type", b"application/grpc+proto")]


@pytest.mark.parametrize(
    ("status", "given", "expected"),
    [
        (403, 7, 7),
        (403, -1, 7),
        (401, -1, 16),
        (404, -1, 12),
        (429, -1, 14),
        (500, -1, 2),
        (200, 0, 0),
    ],
)
def test_a_grpc_client_gets_its_status_in_headers(
    guest: Guest, status: int, given: int, expected: int
) -> None:
    guest.on("proxy_on_request_headers", reply(guest, status, body=b"100% no\n", grpc=given))
    stream = new_stream(guest)
    begin(stream, GRPC_REQUEST)
    headers, body = sent(stream)

    assert headers == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"%d" % expected),
        (b"grpc-message", b"100%25 no%0A"),
    ]
    assert body == b""


@pytest.mark.parametrize("kind", [b"application/json", b"application/grpcx", b"text/html"])
def test_other_clients_do_not(guest: Guest, kind: bytes) -> None:
    guest.on("proxy_on_request_headers", reply(guest, 403, grpc=7))
    stream = new_stream(guest)
    begin(stream, [*REQUEST, (b"content-type", kind)])

    assert sent(stream)[0][0] == (b":status", b"403")


# Closing


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_closing_a_stream_is_a_bare_503(make_guest: MakeGuest, which: int, fail_open: bool) -> None:
    guest = make_guest(fail_open=fail_open)
    closed = call("proxy_close_stream", which)
    guest.on("proxy_on_request_headers", closed)
    stream = new_stream(guest)
    begin(stream)

    assert guest.result(closed) == Status.OK
    assert sent(stream) == ([(b":status", b"503"), (b"content-length", b"0")], b"")


@pytest.mark.parametrize("fail_open", [False, True])
def test_closing_a_stream_whose_response_has_started_cuts_it(
    make_guest: MakeGuest, fail_open: bool
) -> None:
    guest = make_guest(fail_open=fail_open)
    guest.on("proxy_on_response_body", call("proxy_close_stream", 1))
    stream = new_stream(guest)
    begin(stream)
    respond(stream, RESPONSE)
    stream.committed = True
    send_body(stream, b"abc", response=True)

    assert stream.interrupted
    assert stream.aborted is not None
    assert stream.aborted.plugin == "tested"


def test_a_plugin_that_closed_its_stream_still_logs_it(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", call("proxy_close_stream", 0))
    stream = new_stream(guest)
    begin(stream)
    sent(stream)
    run(stream.finish())

    assert guest.called[-3:] == ["on_log", "on_done", "on_delete"]


def test_a_reply_that_was_made_before_closing_is_sent(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", reply(guest, 401), call("proxy_close_stream", 0))
    stream = new_stream(guest)
    begin(stream)

    assert sent(stream)[0][0] == (b":status", b"401")


def test_closing_needs_a_stream(guest: Guest) -> None:
    [root] = guest.vm.roots.values()

    assert guest.ask(root, "proxy_close_stream", 0) == Status.OK
    assert guest.ask(root, "proxy_close_stream", 4) == Status.BAD_ARGUMENT


def test_the_status_of_a_call_is_good_before_there_was_one(guest: Guest) -> None:
    guest.memory.write(OUT, b"\xff" * 12)

    assert guest.ask(None, "proxy_get_status", OUT, OUT + 4, OUT + 8) == Status.OK
    assert guest.memory.read(OUT, 12) == bytes(12)
