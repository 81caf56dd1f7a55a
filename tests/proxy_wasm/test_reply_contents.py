"""What a local reply is made of, and closing a stream."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import Status

from .harness import (
    LOGGER,
    OUT,
    REQUEST,
    RESPONSE,
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
        (b"content-length", b"2"),
        (b"content-type", b"text/plain"),
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


def test_headers_of_a_reply_end_at_the_cap(
    guest: Guest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_HEADERS_BYTES", 20)
    headers = [(b"a", b"x" * 8), (b"b", b"x" * 8), (b"c", b"x" * 8), (b"d", b"x")]
    guest.on("proxy_on_request_headers", reply(guest, headers=headers))
    stream = new_stream(guest)

    with caplog.at_level(logging.WARNING, LOGGER.name):
        begin(stream)

    assert [name for name, _ in sent(stream)[0][1:]] == [
        b"a",
        b"b",
        b"content-length",
        b"content-type",
    ]
    assert caplog.text.count("headers beyond 20 bytes are left out") == 1


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


def test_a_grpc_message_is_no_longer_than_a_header_may_be(guest: Guest) -> None:
    body = b"x" * (limits.MAX_GRPC_MESSAGE_BYTES + 1)
    guest.on("proxy_on_request_headers", reply(guest, 403, body=body))
    stream = new_stream(guest)
    begin(stream, GRPC_REQUEST)

    assert dict(sent(stream)[0])[b"grpc-message"] == body[:-1]


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
