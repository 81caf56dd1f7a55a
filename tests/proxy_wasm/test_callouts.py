"""HTTP calls: what is refused and why, and answers that come once, to the root context."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from wasm_middleware import limits
from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import BufferType, MapType, Status
from wasm_middleware.proxy_wasm.context import Context
from wasm_middleware.proxy_wasm.ports import HttpAnswer

from .harness import (
    LOGGER,
    OUT,
    FakeHttp,
    Guest,
    MakeGuest,
    begin,
    call,
    held_in_headers,
    new_stream,
    root_of,
    run,
    trap,
)

HEADERS = [(b":method", b"POST"), (b":path", b"/check"), (b":authority", b"auth.internal")]
ANSWER = HttpAnswer(
    headers=((b":status", b"200"), (b"set-cookie", b"a"), (b"set-cookie", b"b")),
    body=b"granted",
    trailers=((b"x-checksum", b"7"),),
)
ON_ANSWER = "proxy_on_http_call_response"
TOKEN_AT = 64


def http_of(guest: Guest) -> FakeHttp:
    http = guest.services.http
    assert isinstance(http, FakeHttp)
    return http


def dispatch(
    guest: Guest,
    context: Context | None,
    *,
    upstream: bytes = b"auth",
    headers: Sequence[tuple[bytes, bytes]] = HEADERS,
    body: bytes = b"question",
    timeout: int = 1500,
    name: str = "proxy_http_call",
) -> int:
    """Make a call; its status. The token is at TOKEN_AT."""
    return guest.ask(
        context,
        name,
        guest.text(upstream),
        guest.text(pairs.encode(list(headers))),
        guest.text(body),
        guest.text(b""),
        timeout,
        TOKEN_AT,
    )


@pytest.mark.parametrize("name", ["proxy_http_call", "proxy_dispatch_http_call"])
def test_a_call_goes_out_as_the_plugin_made_it(guest: Guest, name: str) -> None:
    headers = [*HEADERS, (b"X-One", b"1"), (b"x-one", b"2")]
    assert dispatch(guest, root_of(guest), headers=headers, name=name) == Status.OK

    [made] = http_of(guest).calls
    assert made.upstream == "auth"
    assert made.plugin == "tested"
    assert made.headers == (*HEADERS, (b"x-one", b"1"), (b"x-one", b"2"))
    assert made.body == b"question"
    assert made.timeout == 1.5


def test_no_timeout_leaves_it_to_the_upstream(guest: Guest) -> None:
    dispatch(guest, root_of(guest), timeout=0)

    assert http_of(guest).calls[0].timeout is None


def test_a_host_stands_for_the_authority(guest: Guest) -> None:
    headers = [(b":method", b"GET"), (b":path", b"/"), (b"host", b"auth.internal")]

    assert dispatch(guest, root_of(guest), headers=headers) == Status.OK
    assert http_of(guest).calls[0].headers[2] == (b":authority", b"auth.internal")


def target(
    method: bytes = b"GET", path: bytes = b"/", authority: bytes = b"a"
) -> list[tuple[bytes, bytes]]:
    return [(b":method", method), (b":path", path), (b":authority", authority)]


@pytest.mark.parametrize(
    "headers",
    [
        target(path=b"/a/../b/%7e;x?q=%41&r=[]|"),
        target(path=b"//other"),
        target(method=b"OPTIONS", path=b"*"),
        target(method=b"pOsT"),
        target(method=b"M-SEARCH"),
        target(authority=b"auth.internal:8080"),
        target(authority=b"[::1]:8080"),
        target(authority=b"auth_service"),
        # Plugins of meshes give the name of the upstream.
        target(authority=b"outbound|80||httpbin.org"),
        [*target(), (b":scheme", b"https")],
    ],
)
def test_what_http_has_goes_out(guest: Guest, headers: list[tuple[bytes, bytes]]) -> None:
    assert dispatch(guest, root_of(guest), headers=headers) == Status.OK
    assert http_of(guest).calls[0].headers == tuple(headers)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        *(
            (target(path=path), ":path does not begin with a /")
            for path in (b"hidden", b"*", b"http://other/hidden", b"?a=hidden", b" /hidden")
        ),
        (target(path=b"/hidden\x7f"), "the value of b':path' contains the control character"),
        (target(authority=b"a\x01"), "the value of b':authority' contains the control character"),
        (target(method=b"OPTIONS", path=b"**"), ":path does not begin with a /"),
        *(
            (target(path=path), ":path holds a space, a control character or what is not ASCII")
            for path in (b"/hidden b", b"/a HTTP/1.1", b"/a\tb", "/ä".encode())
        ),
        *(
            (target(method=method), ":method is not the name of a method")
            for method in (b"G T", b"GET /other HTTP/1.1", b"GET\t", b"G:T", "Ä".encode())
        ),
        (target(method=b"CONNECT"), "a call can't be a CONNECT"),
        *(
            (target(authority=authority), ":authority is not a host and a port")
            for authority in (
                b"a b",
                b" ",
                b"a\tb",
                b"user@a",
                b"user:hidden@a:80",
                b"a/b",
                b"a?b",
                b"a#b",
                b"a\\b",
                b"a,b",
                "ä".encode(),
            )
        ),
        ([*target(), (b":path", b"/other")], "it has :path twice"),
        ([*target(), (b":path", b"/")], "it has :path twice"),
        ([*target(), (b":Method", b"POST")], "it has :method twice"),
        ([*target(), (b"Host", b"other")], "it has :authority twice"),
        ([*target(), (b":authority", b"")], "it has :authority twice"),
        ([*target(), (b":scheme", b"http"), (b":scheme", b"https")], "it has :scheme twice"),
        ([*target(), (b":status", b"200")], "it has a :status"),
    ],
)
def test_what_another_server_could_take_for_something_else_is_refused(
    guest: Guest,
    caplog: pytest.LogCaptureFixture,
    headers: list[tuple[bytes, bytes]],
    said: str,
) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        assert dispatch(guest, root_of(guest), headers=headers) == Status.BAD_ARGUMENT

    assert not http_of(guest).calls
    assert not guest.vm.calls
    assert f"proxy_http_call -> BAD_ARGUMENT: {said}" in caplog.text
    # A path or an authority may hold a secret.
    assert "hidden" not in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"upstream": b"other"}, "there is no upstream 'other'"),
        ({"upstream": b""}, "there is no upstream ''"),
        ({"headers": HEADERS[1:]}, "it has no :method"),
        ({"headers": [HEADERS[0], HEADERS[2]]}, "it has no :path"),
        ({"headers": HEADERS[:2]}, "it has no :authority"),
        ({"headers": [*HEADERS[:2], (b":authority", b"")]}, "it has no :authority"),
        ({"headers": [*HEADERS, (b"x", b"a\r\nb: c")]}, "contains the control character"),
        ({"headers": [*HEADERS, (b"a b", b"c")]}, "is not a header name"),
        ({"timeout": 0xFFFF_FFFF}, "the timeout is negative: -1 ms"),
    ],
)
def test_what_cannot_be_called_is_a_bad_argument_and_the_log_says_why(
    guest: Guest, caplog: pytest.LogCaptureFixture, change: dict[str, object], said: str
) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        status = dispatch(guest, root_of(guest), **change)  # type: ignore[arg-type]

    assert status == Status.BAD_ARGUMENT
    assert f"proxy_http_call: {said}" in caplog.text or said in caplog.text
    assert not http_of(guest).calls


def test_only_so_many_calls_are_under_way(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PENDING_CALLS", 2)
    statuses = [dispatch(guest, root_of(guest)) for _ in range(3)]

    assert statuses == [Status.OK, Status.OK, Status.BAD_ARGUMENT]


def test_what_calls_under_way_hold_has_a_cap_for_the_plugin(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = root_of(guest)
    dispatch(guest, root, body=b"x" * 100)
    size = guest.vm.plugin.under_way.bytes
    # Headers are counted, too.
    assert size > 100 + sum(len(name) + len(value) for name, value in HEADERS)
    monkeypatch.setattr(limits, "MAX_PENDING_BYTES", 2 * size)
    statuses = [dispatch(guest, root, body=b"x" * 100) for _ in range(2)]

    assert statuses == [Status.OK, Status.BAD_ARGUMENT]
    assert len(http_of(guest).calls) == 2
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == guest.vm.plugin.logger.name
    assert record.getMessage() == (
        f"proxy_http_call -> BAD_ARGUMENT: with its {size} bytes the plugin's calls under way"
        f" would hold more than {2 * size}"
    )
    http_of(guest).answer(0, ANSWER)
    assert dispatch(guest, root, body=b"x" * 100) == Status.OK


def test_instances_of_a_plugin_share_what_its_calls_may_hold(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = make_guest(), make_guest(name="other")
    second = make_guest(under_way=first.vm.plugin.under_way)
    dispatch(first, root_of(first))
    size = first.vm.plugin.under_way.bytes
    monkeypatch.setattr(limits, "MAX_PENDING_BYTES", size)

    assert dispatch(second, root_of(second)) == Status.BAD_ARGUMENT
    assert dispatch(other, root_of(other)) == Status.OK
    # An instance that goes takes its calls along, and their room is free.
    first.vm.close()
    assert dispatch(second, root_of(second)) == Status.OK


def test_a_long_body_is_refused(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CALL_BODY_BYTES", 7)

    assert dispatch(guest, root_of(guest)) == Status.BAD_ARGUMENT


def test_no_call_begins_whose_token_the_guest_could_not_learn(guest: Guest) -> None:
    encoded = guest.text(pairs.encode(HEADERS))
    arguments = (guest.text(b"auth"), encoded, guest.text(b""), guest.text(b""), 0)
    status = guest.ask(root_of(guest), "proxy_http_call", *arguments, 0xFFFF_FFF0)

    assert status == Status.INVALID_MEMORY_ACCESS
    assert not http_of(guest).calls


def test_tokens_are_unique_and_not_zero(guest: Guest) -> None:
    tokens = []

    for _ in range(3):
        dispatch(guest, root_of(guest))
        tokens.append(guest.u32(TOKEN_AT))

    assert len({*tokens, 0}) == 4


def test_an_answer_comes_once_to_the_root_with_its_sizes(guest: Guest) -> None:
    context = held_in_headers(guest)
    dispatch(guest, context)
    token = guest.u32(TOKEN_AT)
    http_of(guest).answer(0, ANSWER)
    http_of(guest).answer(0, ANSWER)

    assert guest.arguments_of(ON_ANSWER) == [(root_of(guest).id, token, 3, 7, 1)]


@pytest.mark.parametrize("effective", ["root", "stream"])
def test_the_answer_can_be_read_while_it_is_delivered(guest: Guest, effective: str) -> None:
    context = held_in_headers(guest)
    dispatch(guest, context)
    reader = context if effective == "stream" else root_of(guest)
    headers = call("proxy_get_header_map_pairs", MapType.HTTP_CALL_RESPONSE_HEADERS, OUT, OUT + 4)
    size = call("proxy_get_buffer_status", BufferType.HTTP_CALL_RESPONSE_BODY, OUT + 8, OUT + 12)
    trailer = call(
        "proxy_get_header_map_value",
        MapType.HTTP_CALL_RESPONSE_TRAILERS,
        guest.text(b"X-Checksum"),
        OUT + 16,
        OUT + 20,
    )
    switch = call("proxy_set_effective_context", reader.id)
    guest.on(ON_ANSWER, switch, headers, size, trailer)
    http_of(guest).answer(0, ANSWER)

    assert [guest.result(step) for step in (switch, headers, size, trailer)] == [Status.OK] * 4
    assert guest.got() == pairs.encode(list(ANSWER.headers))
    assert guest.u32(OUT + 8) == len(b"granted")
    assert guest.got(OUT + 16) == b"7"


def test_nothing_of_it_is_left_afterwards(guest: Guest) -> None:
    dispatch(guest, root_of(guest))
    http_of(guest).answer(0, ANSWER)
    body = ("proxy_get_buffer_bytes", BufferType.HTTP_CALL_RESPONSE_BODY, 0, 99, OUT, OUT + 4)
    headers = ("proxy_get_header_map_size", MapType.HTTP_CALL_RESPONSE_HEADERS, OUT)

    assert guest.ask(root_of(guest), *body) == Status.NOT_FOUND
    assert guest.ask(root_of(guest), *headers) == Status.OK
    assert guest.u32() == 0


def test_an_answer_resumes_the_stream_that_waits_for_it(guest: Guest) -> None:
    context = held_in_headers(guest)
    dispatch(guest, context)
    switch = call("proxy_set_effective_context", context.id)
    guest.on(ON_ANSWER, switch, call("proxy_continue_stream", 0))
    woken: list[bool] = []
    context.stream.on_wake = lambda: woken.append(True)
    http_of(guest).answer(0, ANSWER)
    run(context.stream.proceed())

    assert woken == [True]
    assert context.stream.request.passed


def test_an_answer_comes_although_its_stream_is_gone(guest: Guest) -> None:
    context = held_in_headers(guest)
    gone = context.id
    dispatch(guest, context)
    run(context.stream.finish())
    switch = call("proxy_set_effective_context", gone)
    guest.on(ON_ANSWER, switch)
    http_of(guest).answer(0, ANSWER)

    assert len(guest.arguments_of(ON_ANSWER)) == 1
    assert guest.result(switch) == Status.BAD_ARGUMENT


def test_a_call_may_be_made_while_the_plugin_is_configured(make_guest: MakeGuest) -> None:
    guest = make_guest(start=False)
    arguments = (guest.text(b"auth"), guest.text(pairs.encode(HEADERS)))
    made = call("proxy_http_call", *arguments, guest.text(b""), guest.text(b""), 0, TOKEN_AT)
    guest.on("proxy_on_configure", made, returns=1)
    guest.start()
    http_of(guest).answer(0, ANSWER)

    assert guest.result(made) == Status.OK
    assert len(guest.arguments_of(ON_ANSWER)) == 1


def test_there_is_nobody_to_answer_before_there_is_a_root(guest: Guest) -> None:
    assert dispatch(guest, None) == Status.BAD_ARGUMENT


def test_the_trace_of_the_request_goes_along(guest: Guest) -> None:
    trace = [(b"traceparent", b"00-1-2-01"), (b"x-request-id", b"42"), (b"cookie", b"secret")]
    context = held_in_headers(guest, [*HEADERS, *trace])
    dispatch(guest, context, headers=[*HEADERS, (b"x-request-id", b"own")])

    assert http_of(guest).calls[0].headers == (
        *HEADERS,
        (b"x-request-id", b"own"),
        (b"traceparent", b"00-1-2-01"),
    )


def test_a_failure_is_told_by_get_status_and_the_next_success_clears_it(guest: Guest) -> None:
    code, message = OUT, OUT + 4
    status = call("proxy_get_status", code, message, message + 4)
    guest.on(ON_ANSWER, status)
    headers = ((b":status", b"504"),)
    dispatch(guest, root_of(guest))
    http_of(guest).answer(0, HttpAnswer(headers, b"upstream request timeout", (), "it took 1.5 s"))
    failed = guest.u32(code), guest.got(message)
    dispatch(guest, root_of(guest))
    http_of(guest).answer(1, ANSWER)

    assert failed == (Status.BROKEN_CONNECTION, b"it took 1.5 s")
    assert (guest.u32(code), guest.got(message)) == (0, b"")


# When the instance goes


def test_a_failing_instance_takes_its_calls_along(guest: Guest) -> None:
    dispatch(guest, root_of(guest))
    dispatch(guest, root_of(guest))
    stream = new_stream(guest)
    guest.on("proxy_on_request_headers", trap())
    begin(stream)

    assert http_of(guest).cancelled == [0, 1]
    assert not guest.vm.calls


def test_unloading_cancels_calls(guest: Guest) -> None:
    dispatch(guest, root_of(guest))
    run(guest.vm.shutdown())

    assert http_of(guest).cancelled == [0]
    http_of(guest).answer(0, ANSWER)


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_trap_in_the_answer_does_not_leave_its_request_waiting(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, fail_open: bool
) -> None:
    guest = make_guest(fail_open=fail_open)
    context = held_in_headers(guest)
    stream = context.stream
    dispatch(guest, context)
    guest.on(ON_ANSWER, trap())
    woken: list[bool] = []
    stream.on_wake = lambda: woken.append(True)

    with caplog.at_level(logging.ERROR, "wasm_middleware"):
        http_of(guest).answer(0, ANSWER)

    assert "plugin 'tested' in on_http_call_response" in caplog.text
    assert woken

    if fail_open:
        run(stream.proceed())
        assert stream.request.passed
        assert stream.reply is None
    else:
        assert stream.reply is not None
        assert stream.reply.status == 503


def test_the_effective_context_ends_with_the_answer(guest: Guest) -> None:
    context = held_in_headers(guest)
    dispatch(guest, context)
    guest.on(ON_ANSWER, call("proxy_set_effective_context", context.id))
    http_of(guest).answer(0, ANSWER)

    assert guest.vm.context is None
