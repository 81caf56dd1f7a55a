"""gRPC calls and streams: what is refused and why, what is delivered, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from wasm_middleware import limits
from wasm_middleware.abi import pairs, protobuf
from wasm_middleware.abi.enums import BufferType, MapType, Status
from wasm_middleware.proxy_wasm.context import Context
from wasm_middleware.proxy_wasm.ports import GrpcCall, StoreFull

from .harness import (
    ARGUMENT,
    LOGGER,
    OUT,
    FakeGrpc,
    FakeGrpcStream,
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

CALLBACKS = [
    "proxy_on_grpc_receive_initial_metadata",
    "proxy_on_grpc_receive",
    "proxy_on_grpc_receive_trailing_metadata",
    "proxy_on_grpc_close",
]
ON_INITIAL, ON_MESSAGE, ON_TRAILING, ON_CLOSE = CALLBACKS
TOKEN_AT = 64
DENIED = 7


def grpc_of(guest: Guest) -> FakeGrpc:
    grpc = guest.services.grpc
    assert isinstance(grpc, FakeGrpc)
    return grpc


def dispatch(
    guest: Guest,
    context: Context | None,
    *,
    upstream: bytes = b"auth",
    service: bytes = b"auth.v1.Auth",
    method: bytes = b"Check",
    metadata: Sequence[tuple[bytes, bytes]] = (),
    message: bytes | None = b"question",
    timeout: int = 1500,
) -> int:
    """Make a call, or open a stream where there is no message; its status. The token is at
    TOKEN_AT."""
    names = guest.text(upstream), guest.text(service), guest.text(method)
    encoded = guest.text(pairs.encode(list(metadata)))

    if message is None:
        return guest.ask(context, "proxy_grpc_stream", *names, encoded, TOKEN_AT)

    return guest.ask(
        context, "proxy_grpc_call", *names, encoded, guest.text(message), timeout, TOKEN_AT
    )


def started(guest: Guest, message: bytes | None = b"question") -> tuple[int, FakeGrpcStream]:
    """A call or a stream that has begun: its token, and the other end."""
    assert dispatch(guest, root_of(guest), message=message) == Status.OK
    return guest.u32(TOKEN_AT), grpc_of(guest).streams[-1]


def opened(guest: Guest) -> tuple[int, FakeGrpcStream]:
    return started(guest, None)


def delivered(guest: Guest) -> list[tuple[str, tuple[int, ...]]]:
    """The callbacks of gRPC, with root context, token and argument."""
    return [(name, arguments[:3]) for name, arguments in guest.calls if name in CALLBACKS]


# What goes out


def test_a_call_goes_out_as_the_plugin_made_it(guest: Guest) -> None:
    metadata = [(b"X-One", b"1"), (b"x-one", b"2"), (b"x-empty", b"")]
    assert dispatch(guest, root_of(guest), metadata=metadata) == Status.OK

    [stream] = grpc_of(guest).streams
    assert stream.call == GrpcCall(
        plugin="tested",
        upstream="auth",
        service="auth.v1.Auth",
        method="Check",
        metadata=((b"x-one", b"1"), (b"x-one", b"2"), (b"x-empty", b"")),
        message=b"question",
        timeout=1.5,
    )


@pytest.mark.parametrize("service", [b"Auth", b"prefix/auth.v1.Auth", b"...a", b"a_b-c~1"])
def test_a_service_may_have_a_path_before_it(guest: Guest, service: bytes) -> None:
    assert dispatch(guest, root_of(guest), service=service) == Status.OK
    assert grpc_of(guest).streams[0].call.service == service.decode()


def test_a_call_may_have_an_empty_message_and_leave_the_timeout_to_the_upstream(
    guest: Guest,
) -> None:
    assert dispatch(guest, root_of(guest), message=b"", timeout=0) == Status.OK

    [stream] = grpc_of(guest).streams
    assert stream.call.message == b""
    assert stream.call.timeout is None


def test_a_stream_goes_out_without_a_message_or_a_timeout(guest: Guest) -> None:
    assert dispatch(guest, root_of(guest), message=None, metadata=[(b"a", b"b")]) == Status.OK

    [stream] = grpc_of(guest).streams
    assert stream.call.message is None
    assert stream.call.timeout is None
    assert stream.call.metadata == ((b"a", b"b"),)


@pytest.mark.parametrize("message", [b"question", None])
def test_the_upstream_may_be_a_grpc_service_of_envoys(guest: Guest, message: bytes | None) -> None:
    """As proxy-wasm-cpp-sdk sends it, with a time limit that is not read."""
    service = protobuf.encode(
        [(1, protobuf.encode([(1, b"auth")])), (3, protobuf.encode([(1, 20)]))]
    )
    assert dispatch(guest, root_of(guest), upstream=service, message=message) == Status.OK
    assert grpc_of(guest).streams[0].call.upstream == "auth"


@pytest.mark.parametrize("encoded", [b"AP+A", b"AP+A".rstrip(b"="), b""])
def test_binary_metadata_is_base64_for_the_guest(guest: Guest, encoded: bytes) -> None:
    dispatch(guest, root_of(guest), metadata=[(b"x-bin", encoded)])

    expected = b"\x00\xff\x80" if encoded else b""
    assert grpc_of(guest).streams[0].call.metadata == ((b"x-bin", expected),)


@pytest.mark.parametrize("encoded", [b"AP8=", b"AP8"])
def test_base64_may_come_with_and_without_its_padding(guest: Guest, encoded: bytes) -> None:
    dispatch(guest, root_of(guest), metadata=[(b"x-bin", encoded)])

    assert grpc_of(guest).streams[0].call.metadata == ((b"x-bin", b"\x00\xff"),)


def test_the_trace_of_the_request_goes_along(guest: Guest) -> None:
    trace = [(b"traceparent", b"00-1-2-01"), (b"x-request-id", b"7"), (b"tracestate", b"\xe9")]
    context = held_in_headers(guest, [(b":path", b"/"), (b"cookie", b"secret"), *trace])
    dispatch(guest, context, metadata=[(b"x-request-id", b"own")])

    assert grpc_of(guest).streams[0].call.metadata == (
        (b"x-request-id", b"own"),
        (b"traceparent", b"00-1-2-01"),
    )


# What is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"upstream": b"other"}, "there is no upstream 'other'"),
        ({"upstream": b""}, "there is no upstream ''"),
        ({"upstream": protobuf.encode([(1, b"\x0a\x05other")])}, "there is no upstream 'other'"),
        ({"upstream": protobuf.encode([(2, b"\x0a\x04auth")])}, "there is no upstream"),
        ({"upstream": b"\x0a\xff\xff"}, "there is no upstream"),
        ({"service": b""}, "'' is not the name of a service or method"),
        ({"service": b"a b"}, "'a b' is not the name of a service or method"),
        ({"service": b"x" * 5000}, "is not the name of a service or method"),
        *(
            ({"service": service}, "is not the name of a service or method")
            for service in (b"/a.B", b"a.B/", b"a//B", b"..", b"../a.B", b"a/../B", b"a/.", b"/")
        ),
        *(
            ({"method": method}, "is not the name of a service or method")
            for method in (b".", b"..", b"", b"Check\r\n", b"Check\n")
        ),
        ({"method": b"Check/More"}, "'Check/More' is not the name of a service or method"),
        ({"method": b"Check?a=b"}, "'Check?a=b' is not the name of a service or method"),
        ({"method": "Prüfe".encode()}, "'Prüfe' is not the name of a service or method"),
        ({"metadata": [(b"a b", b"c")]}, "b'a b' is not a name of gRPC metadata"),
        ({"metadata": [(b"", b"c")]}, "b'' is not a name of gRPC metadata"),
        ({"metadata": [(b":path", b"/")]}, "b':path' is not a name of gRPC metadata"),
        ({"metadata": [(b"x" * 5000, b"c")]}, "is not a name of gRPC metadata"),
        ({"metadata": [(b"gRPC-Timeout", b"1S")]}, "'grpc-timeout' is reserved for gRPC itself"),
        ({"metadata": [(b"TE", b"trailers")]}, "'te' is reserved for gRPC itself"),
        ({"metadata": [(b"content-type", b"a")]}, "'content-type' is reserved for gRPC itself"),
        ({"metadata": [(b"a", b"b\r\nc: d")]}, "contains the control character"),
        ({"metadata": [(b"a", b"\xe9")]}, "the value of 'a' is not printable ASCII"),
        ({"metadata": [(b"a", b"b" * 70_000)]}, "is too long"),
        ({"metadata": [(b"a-bin", b"\x00\xff")]}, "contains the control character"),
        ({"metadata": [(b"a-bin", b"\xfe\xff")]}, "the value of 'a-bin' is not base64"),
        ({"metadata": [(b"a-bin", b"A")]}, "the value of 'a-bin' is not base64"),
    ],
)
def test_what_cannot_be_called_is_a_parse_failure_and_the_log_says_why(
    guest: Guest,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, object],
    said: str,
) -> None:
    for name, message in (("proxy_grpc_call", b"question"), ("proxy_grpc_stream", None)):
        caplog.clear()

        with caplog.at_level(logging.WARNING, LOGGER.name):
            status = dispatch(guest, root_of(guest), message=message, **change)  # type: ignore[arg-type]

        assert status == Status.PARSE_FAILURE
        assert f"{name} -> PARSE_FAILURE: " in caplog.text
        assert said in caplog.text

    assert not grpc_of(guest).streams
    assert not guest.vm.calls


@pytest.mark.parametrize("message", [b"question", None])
def test_what_this_host_cannot_do_is_an_internal_failure(
    guest: Guest, caplog: pytest.LogCaptureFixture, message: bytes | None
) -> None:
    grpc_of(guest).reason = "grpcio is not installed"

    with caplog.at_level(logging.ERROR, LOGGER.name):
        assert dispatch(guest, root_of(guest), message=message) == Status.INTERNAL_FAILURE

    assert "grpcio is not installed" in caplog.text
    assert not grpc_of(guest).streams


def test_without_upstreams_there_is_none_to_call(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest()
    object.__setattr__(guest.services, "grpc", None)

    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert dispatch(guest, root_of(guest)) == Status.PARSE_FAILURE

    assert "there is no upstream 'auth'" in caplog.text


def test_there_must_be_a_root_context_to_answer_to(guest: Guest) -> None:
    assert dispatch(guest, None) == Status.INTERNAL_FAILURE


def test_only_so_many_calls_are_under_way(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PENDING_CALLS", 2)
    statuses = [dispatch(guest, root_of(guest)) for _ in range(3)]

    assert statuses == [Status.OK, Status.OK, Status.INTERNAL_FAILURE]


@pytest.mark.parametrize("message", [b"question", None])
def test_what_calls_under_way_hold_has_a_cap_for_the_plugin(
    guest: Guest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    message: bytes | None,
) -> None:
    root, metadata = root_of(guest), [(b"name", b"x" * 100)]
    dispatch(guest, root, message=message, metadata=metadata)
    size = guest.vm.plugin.under_way.bytes
    assert size > 104 + len(message or b"")
    monkeypatch.setattr(limits, "MAX_PENDING_BYTES", 2 * size)
    statuses = [dispatch(guest, root, message=message, metadata=metadata) for _ in range(2)]

    assert statuses == [Status.OK, Status.INTERNAL_FAILURE]
    assert f"would hold more than {2 * size}" in caplog.text
    # However a call ends, its room is free.
    first, second = grpc_of(guest).streams
    run(first.events.close(0, b""))
    assert guest.vm.plugin.under_way.bytes == size
    guest.ask(root, "proxy_grpc_cancel", guest.u32(TOKEN_AT))
    assert second.done == ["cancel"]
    assert guest.vm.plugin.under_way.bytes == 0
    assert dispatch(guest, root, message=message, metadata=metadata) == Status.OK
    guest.vm.close()
    assert guest.vm.plugin.under_way.bytes == 0


def test_a_stream_that_is_cut_off_is_no_status_and_the_log_says_so(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token, stream = opened(guest)

    def full(_message: bytes, *, end_stream: bool) -> None:
        raise StoreFull("it is cut off")

    monkeypatch.setattr(stream, "send", full)

    assert send(guest, token, b"some") == Status.OK
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (record.name, record.getMessage()) == (
        guest.vm.plugin.logger.name,
        "proxy_grpc_send: it is cut off",
    )


def test_a_long_message_is_refused(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "MAX_GRPC_CALL_BYTES", 7)
    token, stream = opened(guest)

    assert dispatch(guest, root_of(guest)) == Status.INTERNAL_FAILURE
    assert "a message of 8 bytes, more than 7" in caplog.text
    assert send(guest, token, b"12345678") == Status.BAD_ARGUMENT
    assert send(guest, token, b"1234567") == Status.OK
    assert stream.done == [(b"1234567", False)]


# Unary calls


def test_a_call_that_succeeds_ends_with_its_message(guest: Guest) -> None:
    look = [
        call("proxy_get_buffer_bytes", BufferType.GRPC_CALL_MESSAGE, 0, 100, OUT, OUT + 4),
        call("proxy_get_status", OUT + 8, OUT + 12, OUT + 16),
    ]
    guest.on(ON_MESSAGE, *look)
    guest.vm.last_status = (DENIED, b"of another call")
    token, stream = started(guest)
    run(stream.events.message(b"answer"))

    assert delivered(guest) == [(ON_MESSAGE, (root_of(guest).id, token, len(b"answer")))]
    assert guest.got() == b"answer"
    assert guest.u32(OUT + 8) == 0
    assert guest.u32(OUT + 16) == 0
    assert not guest.vm.calls


def test_a_call_that_fails_ends_with_its_status(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER.name)
    guest.on(ON_CLOSE, call("proxy_get_status", OUT + 8, OUT, OUT + 4))
    token, stream = started(guest)
    run(stream.events.close(DENIED, "no entry für dich".encode()))

    assert delivered(guest) == [(ON_CLOSE, (root_of(guest).id, token, DENIED))]
    assert guest.u32(OUT + 8) == DENIED
    assert guest.got() == "no entry für dich".encode()
    said = "auth.v1.Auth/Check of 'auth' ended with status 7: 'no entry für dich'"
    assert said in caplog.text
    assert not guest.vm.calls


@pytest.mark.parametrize("first", ["message", "close"])
def test_a_call_ends_once(guest: Guest, first: str) -> None:
    _, stream = started(guest)
    ends = [stream.events.message(b"answer"), stream.events.close(0, b"")]

    for end in ends if first == "message" else reversed(ends):
        run(end)

    assert len(delivered(guest)) == 1


def test_a_call_has_no_metadata_callbacks(guest: Guest) -> None:
    _, stream = started(guest)
    run(stream.events.initial_metadata([(b"a", b"b")]))
    run(stream.events.trailing_metadata([(b"a", b"b")]))

    assert delivered(guest) == []


def test_a_message_that_is_not_utf_8_is_cut_to_what_is(guest: Guest) -> None:
    """The Rust SDK panics on the rest."""
    guest.on(ON_CLOSE, call("proxy_get_status", OUT + 8, OUT, OUT + 4))
    _, stream = started(guest)
    long = "ä" * limits.MAX_GRPC_MESSAGE_BYTES
    run(stream.events.close(DENIED, b"\xff" + long.encode()))

    assert guest.got().decode() == "ä" * (limits.MAX_GRPC_MESSAGE_BYTES // 2 - 1)


def test_a_call_takes_no_messages(guest: Guest) -> None:
    token, stream = started(guest)

    assert send(guest, token, b"more") == Status.BAD_ARGUMENT
    assert stream.done == []


@pytest.mark.parametrize("how", ["proxy_grpc_cancel", "proxy_grpc_close"])
def test_cancelling_or_closing_a_call_gives_it_up(guest: Guest, how: str) -> None:
    token, stream = started(guest)

    assert guest.ask(root_of(guest), how, token) == Status.OK
    run(stream.events.message(b"answer"))
    run(stream.events.close(0, b""))
    assert stream.done == ["cancel"]
    assert delivered(guest) == []
    assert guest.ask(root_of(guest), how, token) == Status.NOT_FOUND


# Streams


def send(guest: Guest, token: int, message: bytes, *, end: bool = False) -> int:
    arguments = (token, guest.text(message), int(end))
    return guest.ask(root_of(guest), "proxy_grpc_send", *arguments)


def answer_all(stream: FakeGrpcStream) -> None:
    events = stream.events
    run(events.initial_metadata([(b"x-one", b"1"), (b"x-one", b"2"), (b"x-bin", b"\x00\xff")]))
    run(events.message(b"first"))
    run(events.message(b""))
    run(events.trailing_metadata([(b"x-two", b"2")]))
    run(events.close(DENIED, b"no entry"))


def test_a_stream_delivers_everything_in_order_and_its_close_last(guest: Guest) -> None:
    token, stream = opened(guest)
    answer_all(stream)
    root = root_of(guest).id

    assert delivered(guest) == [
        (ON_INITIAL, (root, token, 3)),
        (ON_MESSAGE, (root, token, 5)),
        (ON_MESSAGE, (root, token, 0)),
        (ON_TRAILING, (root, token, 1)),
        (ON_CLOSE, (root, token, DENIED)),
    ]
    assert not guest.vm.calls
    answer_all(stream)
    assert len(delivered(guest)) == 5


@pytest.mark.parametrize(
    ("callback", "map_type", "expected"),
    [
        (
            ON_INITIAL,
            MapType.GRPC_CALL_INITIAL_METADATA,
            [(b"x-one", b"1"), (b"x-one", b"2"), (b"x-bin", b"AP8")],
        ),
        (ON_TRAILING, MapType.GRPC_CALL_TRAILING_METADATA, [(b"x-two", b"2")]),
    ],
)
def test_metadata_is_read_in_its_callback_alone(
    guest: Guest, callback: str, map_type: MapType, expected: list[tuple[bytes, bytes]]
) -> None:
    outs = {name: OUT + 8 * index for index, name in enumerate(CALLBACKS)}

    for name, out in outs.items():
        guest.on(name, call("proxy_get_header_map_pairs", map_type, out, out + 4))

    _, stream = opened(guest)
    answer_all(stream)

    assert {name: pairs.decode(guest.got(out)) for name, out in outs.items()} == {
        name: expected if name == callback else [] for name in CALLBACKS
    }


def test_metadata_and_messages_are_read_only(guest: Guest) -> None:
    metadata, message = MapType.GRPC_CALL_INITIAL_METADATA, BufferType.GRPC_CALL_MESSAGE
    name, value = guest.text(b"a"), guest.text(b"b")
    guest.on(
        ON_INITIAL,
        call("proxy_add_header_map_value", metadata, name, value),
        call("proxy_get_header_map_pairs", metadata, OUT, OUT + 4),
    )
    guest.on(
        ON_MESSAGE,
        call("proxy_set_buffer_bytes", message, 0, 0, value),
        call("proxy_get_buffer_bytes", message, 0, 100, OUT + 8, OUT + 12),
    )
    _, stream = opened(guest)
    run(stream.events.initial_metadata([(b"x", b"y")]))
    run(stream.events.message(b"first"))

    assert pairs.decode(guest.got()) == [(b"x", b"y")]
    assert guest.got(OUT + 8) == b"first"


def test_a_message_is_gone_after_its_callback(guest: Guest) -> None:
    _, stream = opened(guest)
    run(stream.events.message(b"first"))
    status = guest.ask(
        root_of(guest),
        "proxy_get_buffer_bytes",
        BufferType.GRPC_CALL_MESSAGE,
        0,
        100,
        OUT,
        OUT + 4,
    )

    assert status == Status.NOT_FOUND


def test_messages_go_out_in_order_and_an_end_ends_them(guest: Guest) -> None:
    token, stream = opened(guest)
    statuses = [
        send(guest, token, b"one"),
        send(guest, token, b""),
        send(guest, token, b"last", end=True),
        send(guest, token, b"late"),
        guest.ask(root_of(guest), "proxy_grpc_close", token),
    ]

    assert statuses == [Status.OK, Status.OK, Status.OK, Status.BAD_ARGUMENT, Status.OK]
    assert stream.done == [(b"one", False), (b"", False), (b"last", True)]


def test_closing_a_stream_ends_what_is_sent_and_answers_still_come(guest: Guest) -> None:
    token, stream = opened(guest)

    assert guest.ask(root_of(guest), "proxy_grpc_close", token) == Status.OK
    assert guest.ask(root_of(guest), "proxy_grpc_close", token) == Status.OK
    assert send(guest, token, b"late") == Status.BAD_ARGUMENT
    assert stream.done == ["close"]
    answer_all(stream)
    assert len(delivered(guest)) == 5


def test_nothing_comes_after_a_cancel(guest: Guest) -> None:
    token, stream = opened(guest)
    run(stream.events.initial_metadata([]))

    assert guest.ask(root_of(guest), "proxy_grpc_cancel", token) == Status.OK
    answer_all(stream)
    assert [name for name, _ in delivered(guest)] == [ON_INITIAL]
    assert stream.done == ["cancel"]


def test_a_stream_may_be_cancelled_in_its_own_callback(guest: Guest) -> None:
    cancel = call("proxy_grpc_cancel", ARGUMENT[1])
    guest.on(ON_MESSAGE, cancel)
    _, stream = opened(guest)
    answer_all(stream)

    assert guest.result(cancel) == Status.OK
    assert [name for name, _ in delivered(guest)] == [ON_INITIAL, ON_MESSAGE]


@pytest.mark.parametrize("ended", ["never", "closed"])
@pytest.mark.parametrize("name", ["proxy_grpc_send", "proxy_grpc_cancel", "proxy_grpc_close"])
def test_what_is_not_under_way_is_not_found(guest: Guest, name: str, ended: str) -> None:
    token, stream = opened(guest)
    arguments: tuple[object, ...] = ()

    if ended == "closed":
        answer_all(stream)
    else:
        token += 1

    if name == "proxy_grpc_send":
        arguments = (guest.text(b"message"), 0)

    assert guest.ask(root_of(guest), name, token, *arguments) == Status.NOT_FOUND  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["proxy_grpc_cancel", "proxy_grpc_close"])
def test_an_http_call_is_not_one_of_grpc(guest: Guest, name: str) -> None:
    headers = [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"auth")]
    texts = guest.text(b"auth"), guest.text(pairs.encode(headers)), guest.text(b""), guest.text(b"")
    assert guest.ask(root_of(guest), "proxy_http_call", *texts, 0, TOKEN_AT) == Status.OK

    assert guest.ask(root_of(guest), name, guest.u32(TOKEN_AT)) == Status.NOT_FOUND
    assert guest.vm.calls


# Contexts and instances


def test_tokens_differ_among_calls_and_streams(guest: Guest) -> None:
    tokens = [started(guest)[0], opened(guest)[0], started(guest)[0]]

    assert 0 not in tokens
    assert len(set(tokens)) == 3


@pytest.mark.parametrize("message", [b"question", None])
def test_answers_go_to_the_root_context_also_when_the_stream_has_gone(
    guest: Guest, message: bytes | None
) -> None:
    stream = new_stream(guest)
    begin(stream, ended=True)
    dispatch(guest, stream.contexts[0], message=message)
    run(stream.finish())
    [made] = grpc_of(guest).streams
    run(made.events.close(DENIED, b""))

    token = guest.u32(TOKEN_AT)
    assert delivered(guest) == [(ON_CLOSE, (root_of(guest).id, token, DENIED))]


def test_an_answer_is_read_from_the_context_that_made_the_call(guest: Guest) -> None:
    """As the SDKs do: they make it the effective one."""
    context = held_in_headers(guest)
    guest.on(
        ON_MESSAGE,
        call("proxy_set_effective_context", context.id),
        call("proxy_get_buffer_bytes", BufferType.GRPC_CALL_MESSAGE, 0, 100, OUT, OUT + 4),
    )
    dispatch(guest, context)
    [made] = grpc_of(guest).streams
    run(made.events.message(b"answer"))

    assert guest.got() == b"answer"


def test_a_guest_without_the_callbacks_hears_nothing(make_guest: MakeGuest) -> None:
    from .scripted import Shape

    guest = make_guest(shape=Shape(without=frozenset(CALLBACKS)))
    token, stream = opened(guest)
    answer_all(stream)

    assert token not in guest.vm.calls
    assert delivered(guest) == []


def test_a_guest_that_fails_takes_its_calls_along(guest: Guest) -> None:
    _, one = started(guest)
    _, two = opened(guest)
    guest.on(ON_MESSAGE, trap())
    run(two.events.message(b"first"))
    answer_all(one)
    answer_all(two)

    assert one.done == two.done == ["cancel"]
    assert [name for name, _ in delivered(guest)] == [ON_MESSAGE]


def test_a_plugin_that_is_unloaded_gives_its_calls_up(guest: Guest) -> None:
    _, one = started(guest)
    _, two = opened(guest)
    calls = guest.shut_down()

    assert one.done == two.done == ["cancel"]
    assert not [name for name, _ in calls if name in CALLBACKS]
    answer_all(two)
