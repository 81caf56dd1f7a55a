"""Host calls on buffers, and the splice that they come down to."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from wasm_middleware.abi.enums import BufferType, Status
from wasm_middleware.proxy_wasm.buffers import Buffer

from .harness import (
    OUT,
    Guest,
    MakeGuest,
    begin,
    call,
    held_in_body,
    held_in_headers,
    new_stream,
    run,
    send_body,
)

BODY = b"Hello, World"
READ_ONLY = [
    BufferType.HTTP_CALL_RESPONSE_BODY,
    BufferType.GRPC_CALL_MESSAGE,
    BufferType.VM_CONFIGURATION,
    BufferType.PLUGIN_CONFIGURATION,
    BufferType.FOREIGN_FUNCTION_ARGUMENTS,
]
ABSENT = [
    BufferType.DOWNSTREAM_DATA,
    BufferType.UPSTREAM_DATA,
    BufferType.HTTP_CALL_RESPONSE_BODY,
    BufferType.GRPC_CALL_MESSAGE,
    BufferType.FOREIGN_FUNCTION_ARGUMENTS,
]
MAX = 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("start", "size", "expected"),
    [
        (0, 5, b"Hello"),
        (7, 5, b"World"),
        (7, 500, b"World"),
        (0, MAX, BODY),
        (12, 1, b""),
        (13, 1, b""),
        (MAX, MAX, b""),
        (0, 0, b""),
    ],
)
@pytest.mark.parametrize("response", [False, True])
def test_get_reads_what_is_there_and_clips_the_rest(
    guest: Guest, start: int, size: int, expected: bytes, response: bool
) -> None:
    context = held_in_body(guest, BODY, response=response)

    status = guest.ask(context, "proxy_get_buffer_bytes", int(response), start, size, OUT, OUT + 4)

    assert (status, guest.got()) == (Status.OK, expected)


def test_get_beyond_the_end_gives_no_address(guest: Guest) -> None:
    context = held_in_body(guest, BODY)
    guest.memory.write_u32(OUT, 99)

    guest.ask(context, "proxy_get_buffer_bytes", 0, 50, 5, OUT, OUT + 4)

    assert (guest.u32(), guest.u32(OUT + 4)) == (0, 0)


@pytest.mark.parametrize(
    ("start", "size", "value", "expected"),
    [
        (0, 0, b"> ", b"> Hello, World"),
        (12, 0, b"!", b"Hello, World!"),
        (500, 3, b"!", b"Hello, World!"),
        (MAX, 0, b"!", b"Hello, World!"),
        (MAX, MAX, b"!", b"Hello, World!"),
        (0, 12, b"Bye", b"Bye"),
        (0, MAX, b"Bye", b"Bye"),
        (5, 1, b";", b"Hello; World"),
        (5, 0, b" dear", b"Hello dear, World"),
        (5, MAX, b"", b"Hello"),
        (7, 3, b"W", b"Hello, Wld"),
        (0, 0, b"", BODY),
        (0, MAX, b"", b""),
    ],
)
@pytest.mark.parametrize("response", [False, True])
def test_set_splices_as_the_specification_says(
    guest: Guest, start: int, size: int, value: bytes, expected: bytes, response: bool
) -> None:
    context = held_in_body(guest, BODY, response=response)

    status = guest.ask(
        context, "proxy_set_buffer_bytes", int(response), start, size, guest.text(value)
    )

    guest.ask(context, "proxy_get_buffer_bytes", int(response), 0, MAX, OUT, OUT + 4)
    assert (status, guest.got()) == (Status.OK, expected)


@pytest.mark.parametrize("buffer", READ_ONLY)
def test_set_ignores_what_is_read_only(
    guest: Guest, caplog: pytest.LogCaptureFixture, buffer: int
) -> None:
    """Envoy answers BadArgument, on which the Rust SDK panics."""
    context = held_in_body(guest, BODY)

    status = guest.ask(context, "proxy_set_buffer_bytes", buffer, 0, 0, guest.text(b"x"))

    assert status == Status.OK
    assert "is read-only" in caplog.text


@pytest.mark.parametrize("buffer", [9, 1000, MAX])
def test_unknown_buffers_are_bad_arguments(guest: Guest, buffer: int) -> None:
    context = held_in_body(guest, BODY)
    statuses = [
        guest.ask(context, "proxy_get_buffer_bytes", buffer, 0, 9, OUT, OUT + 4),
        guest.ask(context, "proxy_get_buffer_status", buffer, OUT, OUT + 4),
        guest.ask(context, "proxy_set_buffer_bytes", buffer, 0, 0, guest.text(b"x")),
    ]

    assert statuses == [Status.BAD_ARGUMENT] * 3


@pytest.mark.parametrize("buffer", ABSENT)
def test_buffers_that_are_not_there_are_not_found(guest: Guest, buffer: int) -> None:
    context = held_in_body(guest, BODY)
    statuses = [
        guest.ask(context, "proxy_get_buffer_bytes", buffer, 0, 9, OUT, OUT + 4),
        guest.ask(context, "proxy_get_buffer_status", buffer, OUT, OUT + 4),
    ]

    assert statuses == [Status.NOT_FOUND] * 2


@pytest.mark.parametrize(("buffer", "reads"), [(0, Status.OK), (1, Status.NOT_FOUND)])
def test_a_body_is_empty_while_its_headers_pass(guest: Guest, buffer: int, reads: Status) -> None:
    """As in Envoy; it can't be written then, and that of the response is not there at all."""
    context = held_in_headers(guest)
    statuses = [
        guest.ask(context, "proxy_get_buffer_bytes", buffer, 0, 9, OUT, OUT + 4),
        guest.ask(context, "proxy_get_buffer_status", buffer, OUT, OUT + 4),
        guest.ask(context, "proxy_set_buffer_bytes", buffer, 0, 0, guest.text(b"x")),
    ]

    assert statuses == [reads, reads, Status.OK]
    assert guest.u32() == 0


def test_no_body_is_found_after_it_was_let_go(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    send_body(stream, BODY)

    status = guest.ask(stream.contexts[0], "proxy_get_buffer_bytes", 0, 0, 9, OUT, OUT + 4)
    assert status == Status.NOT_FOUND


def test_a_plugin_does_not_see_what_another_one_holds(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    first.on("proxy_on_request_body", returns=1)
    stream = new_stream(first, second)
    begin(stream)
    send_body(stream, BODY, ended=False)

    status = second.ask(stream.contexts[1], "proxy_get_buffer_status", 0, OUT, OUT + 4)
    assert status == Status.NOT_FOUND


def test_status_tells_the_size(guest: Guest) -> None:
    context = held_in_body(guest, BODY)
    guest.memory.write_u32(OUT + 4, 99)

    status = guest.ask(context, "proxy_get_buffer_status", 0, OUT, OUT + 4)

    assert (status, guest.u32(), guest.u32(OUT + 4)) == (Status.OK, len(BODY), 0)


def test_configurations_are_buffers_in_every_phase(make_guest: MakeGuest) -> None:
    guest = make_guest(config=b"plugin's", vm_config=b"machine's")
    stream_context = held_in_headers(guest)
    [root] = guest.vm.roots.values()

    for context in (root, stream_context):
        guest.ask(context, "proxy_get_buffer_bytes", 7, 0, 99, OUT, OUT + 4)
        assert guest.got() == b"plugin's"
        guest.ask(context, "proxy_get_buffer_bytes", 6, 0, 99, OUT, OUT + 4)
        assert guest.got() == b"machine's"
        guest.ask(context, "proxy_get_buffer_status", 7, OUT, OUT + 4)
        assert guest.u32() == 8


def test_a_stream_reads_the_configuration_of_its_own_root(make_guest: MakeGuest) -> None:
    guest = make_guest(config=b"first")
    root = run(guest.vm.add_root(b"second"))

    guest.ask(root, "proxy_get_buffer_bytes", 7, 0, 99, OUT, OUT + 4)

    assert guest.got() == b"second"


@pytest.mark.parametrize("where", [(0, 0), (4, 0), (MAX, 0), (MAX, MAX), (2, 1)])
def test_a_guest_can_make_a_body_as_large_as_its_limit(
    make_guest: MakeGuest, where: tuple[int, int]
) -> None:
    guest = make_guest(body_limit=10)
    context = held_in_body(guest, b"four")
    room = 6 + (where == (2, 1))

    status = guest.ask(context, "proxy_set_buffer_bytes", 0, where, guest.text(b"x" * room))

    assert status == Status.OK
    guest.ask(context, "proxy_get_buffer_status", 0, OUT, OUT + 4)
    assert guest.u32() == 10
    assert not context.stream.interrupted


@pytest.mark.parametrize("where", [(0, 0), (4, 0), (MAX, 0), (MAX, MAX), (2, 1)])
@pytest.mark.parametrize(("response", "refusal"), [(False, 413), (True, 500)])
def test_a_body_that_would_be_larger_ends_its_stream(
    make_guest: MakeGuest, where: tuple[int, int], response: bool, refusal: int
) -> None:
    """It must not go on as it was: who knows what the plugin wanted out of it."""
    guest = make_guest(body_limit=10)
    context = held_in_body(guest, b"four", response=response)
    value = guest.text(b"x" * (7 + (where == (2, 1))))

    status = guest.ask(context, "proxy_set_buffer_bytes", int(response), where, value)

    assert status == Status.OK
    stream = context.stream
    assert stream.interrupted
    assert stream.reply is not None
    assert stream.reply.status == refusal


def test_what_has_gone_out_of_a_response_is_cut_there(make_guest: MakeGuest) -> None:
    guest = make_guest(body_limit=10)
    context = held_in_body(guest, b"four", response=True)
    context.stream.committed = True

    guest.ask(context, "proxy_set_buffer_bytes", 1, 0, 4, guest.text(b"x" * 11))

    assert context.stream.aborted is not None


def test_what_has_come_in_may_be_replaced_by_as_much(make_guest: MakeGuest) -> None:
    guest = make_guest(body_limit=3)
    guest.on("proxy_on_request_body", call("proxy_set_buffer_bytes", 0, 0, 9, guest.text(b"FOUR")))
    stream = new_stream(guest)
    begin(stream)

    assert send_body(stream, b"four") == b"FOUR"


SPLICES = st.tuples(
    st.one_of(st.integers(0, 40), st.just(MAX)),
    st.one_of(st.integers(0, 40), st.just(MAX)),
    st.binary(max_size=12),
)


@given(st.binary(max_size=30), st.lists(SPLICES, max_size=6), st.booleans())
def test_a_buffer_is_spliced_like_the_model(
    data: bytes, splices: list[tuple[int, int, bytes]], gathered: bool
) -> None:
    buffer, model = Buffer(), data

    if gathered:
        for index in range(len(data)):
            buffer.append(data[index : index + 1])
    else:
        buffer.append(data)

    for start, size, value in splices:
        buffer.splice(start, size, value)
        model = model[:start] + value + model[start + size :]
        assert bytes(buffer.data) == model
        assert len(buffer) == len(model)
        assert buffer.get(start, size) == model[start : start + size]


def test_a_chunk_is_appended_to_what_was_spliced() -> None:
    buffer = Buffer(b"one")
    buffer.splice(0, 3, b"1")
    buffer.append(b"two")

    assert bytes(buffer.data) == b"1two"


def test_appending_leaves_the_given_chunks_as_they_are() -> None:
    first = bytearray(b"one")
    buffer = Buffer(bytes(first))
    buffer.append(b"two")
    buffer.splice(0, 1, b"ONE")

    assert first == b"one"
