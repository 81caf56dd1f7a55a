"""Bad pointers: every pointer of every host call, at every edge.

Each row has good arguments. `In` stands for bytes that the guest hands over (two words), `Out` for
where it wants a value of so many bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import Errno, MetricType, Status
from wasm_middleware.abi.signatures import ENV
from wasm_middleware.proxy_wasm import hostcalls, wasi
from wasm_middleware.proxy_wasm.buffers import Buffer
from wasm_middleware.proxy_wasm.grpc import start_session
from wasm_middleware.proxy_wasm.ports import GrpcCall

from .harness import OUT, Guest, MakeGuest, held_in_headers, root_of
from .scripted import EVERYTHING

MAX = 0xFFFF_FFFF


@dataclass(frozen=True)
class In:
    data: bytes


@dataclass(frozen=True)
class Out:
    size: int = 4


Argument = int | In | Out

PAIRS = pairs.encode([(b":method", b"GET"), (b":path", b"/"), (b":authority", b"auth")])
HTTP_CALL: list[Argument] = [In(b"auth"), In(PAIRS), In(b"body"), In(b""), 1000, Out()]
GRPC: list[Argument] = [In(b"auth"), In(b"auth.v1.Auth"), In(b"Check"), In(b"")]
ROWS: dict[str, list[Argument]] = {
    "proxy_log": [5, In(b"text")],
    "proxy_get_log_level": [Out()],
    "proxy_get_current_time_nanoseconds": [Out(8)],
    "proxy_get_buffer_bytes": [7, 0, 100, Out(), Out()],
    "proxy_get_buffer_status": [7, Out(), Out()],
    "proxy_set_buffer_bytes": [0, 0, 0, In(b"text")],
    "proxy_get_header_map_value": [0, In(b"accept"), Out(), Out()],
    "proxy_get_header_map_pairs": [0, Out(), Out()],
    "proxy_get_header_map_size": [0, Out()],
    "proxy_add_header_map_value": [0, In(b"name"), In(b"value")],
    "proxy_replace_header_map_value": [0, In(b"name"), In(b"value")],
    "proxy_remove_header_map_value": [0, In(b"name")],
    "proxy_set_header_map_pairs": [0, In(pairs.encode([(b"name", b"value")]))],
    "proxy_get_status": [Out(), Out(), Out()],
    "proxy_http_call": HTTP_CALL,
    "proxy_dispatch_http_call": HTTP_CALL,
    "proxy_grpc_call": [*GRPC, In(b"message"), 1000, Out()],
    "proxy_grpc_stream": [*GRPC, Out()],
    "proxy_grpc_send": [1, In(b"message"), 0],
    "proxy_call_foreign_function": [In(b"clear_route_cache"), In(b"text"), Out(), Out()],
    "proxy_send_local_response": [200, In(b"why"), In(b"body"), In(b""), MAX],
    "proxy_get_configuration": [Out(), Out()],
    "proxy_get_property": [In(b"plugin_name"), Out(), Out()],
    "proxy_set_property": [In(b"path"), In(b"value")],
    "proxy_get_shared_data": [In(b"shared"), Out(), Out(), Out()],
    "proxy_set_shared_data": [In(b"key"), In(b"value"), 0],
    "proxy_register_shared_queue": [In(b"queue"), Out()],
    "proxy_resolve_shared_queue": [In(b""), In(b"known"), Out()],
    "proxy_enqueue_shared_queue": [1, In(b"value")],
    "proxy_dequeue_shared_queue": [1, Out(), Out()],
    "proxy_define_metric": [0, In(b"metric"), Out()],
    "proxy_get_metric": [4, Out(8)],
    "args_sizes_get": [Out(), Out()],
    "clock_res_get": [0, Out(8)],
    "clock_time_get": [0, 0, Out(8)],
    "environ_get": [Out(4), Out(10)],
    "environ_sizes_get": [Out(), Out()],
    "fd_fdstat_get": [1, Out(24)],
    "fd_write": [1, 0, 0, Out()],
    "poll_oneoff": [0, 0, 0, Out()],
    "random_get": [Out(8), 8],
}
#: Calls without a pointer, and one that has no status to answer with.
NO_POINTERS = {
    "abort",
    "emscripten_notify_memory_growth",
    "proc_exit",
    "proxy_clear_route_cache",
    "proxy_close_stream",
    "proxy_continue_request",
    "proxy_continue_response",
    "proxy_continue_stream",
    "proxy_done",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_increment_metric",
    "proxy_record_metric",
    "proxy_set_effective_context",
    "proxy_set_tick_period_milliseconds",
    "pthread_equal",
}
#: What these are given is refused for its size before anything looks where it is.
CAPPED = {
    "proxy_call_foreign_function",
    "proxy_dispatch_http_call",
    "proxy_http_call",
    "proxy_grpc_call",
    "proxy_grpc_send",
    "proxy_get_shared_data",
    "proxy_resolve_shared_queue",
}
INS = [
    (name, index)
    for name, row in ROWS.items()
    for index, argument in enumerate(row)
    if isinstance(argument, In)
]
OUTS = [
    (name, index)
    for name, row in ROWS.items()
    for index, argument in enumerate(row)
    if isinstance(argument, Out)
]
MODULES = {name: module for module, name, _ in EVERYTHING.imports}


def bad(name: str) -> int:
    return Status.INVALID_MEMORY_ACCESS if MODULES[name] == ENV else Errno.FAULT


@pytest.fixture
def ready(make_guest: MakeGuest) -> Guest:
    """A guest for which every row of the table is right."""
    guest = make_guest(config=b"configuration", environment=(("REGION", "eu"),))
    queue = guest.services.queues.register("", b"known", lambda _queue: True)
    guest.services.queues.enqueue(queue, b"message")
    guest.services.shared_data.set("", b"shared", b"value", 0)
    assert guest.services.metrics.define("tested", MetricType.COUNTER, "metric") == 4
    client = guest.services.grpc
    assert client is not None
    stream = GrpcCall("tested", "auth", "auth.v1.Auth", "Watch", ())
    held = guest.vm.plugin.under_way.hold(0)
    assert held is not None
    assert start_session(root_of(guest), client, stream, held) == 1
    return guest


def ask(guest: Guest, name: str, replaced: dict[int, list[int]]) -> int:
    """Make a call with some of its arguments replaced."""
    context = held_in_headers(guest)
    context.stream.request.lane(context).buffer = Buffer(b"body")
    words: list[object] = []
    out = OUT

    for index, argument in enumerate(ROWS[name]):
        if index in replaced:
            words += replaced[index]
        elif isinstance(argument, In):
            words.append(guest.text(argument.data))
        elif isinstance(argument, Out):
            words.append(out)
            out += 24
        else:
            words.append(argument)

    return guest.ask(context, name, *words)


def test_the_table_has_every_call() -> None:
    assert set(ROWS) | NO_POINTERS == set(hostcalls.IMPLEMENTED) | set(wasi.IMPLEMENTED)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_good_pointers_are_fine(ready: Guest, name: str) -> None:
    assert ask(ready, name, {}) == Status.OK


@pytest.mark.parametrize(("name", "index"), INS)
def test_bytes_beyond_the_memory_are_refused(ready: Guest, name: str, index: int) -> None:
    size = _size(ready)

    for words in ([size, 1], [size - 1, 2], [size + 1, 0], [MAX, 2], [MAX, MAX], [8, MAX - 4]):
        status = ask(ready, name, {index: words})
        too_long = name in CAPPED and words[1] > 1 << 20
        assert status == bad(name) or (too_long and status != Status.OK), words


@pytest.mark.parametrize(("name", "index"), INS)
def test_no_bytes_at_the_very_end_are_within_the_memory(
    ready: Guest, name: str, index: int
) -> None:
    assert ask(ready, name, {index: [_size(ready), 0]}) != bad(name)


@pytest.mark.parametrize(("name", "index"), OUTS)
def test_nothing_is_written_beyond_the_memory(ready: Guest, name: str, index: int) -> None:
    argument = ROWS[name][index]
    assert isinstance(argument, Out)

    for address in (_size(ready) - argument.size + 1, _size(ready), MAX):
        ready.services.queues.enqueue(1, b"message")
        assert ask(ready, name, {index: [address]}) == bad(name), address


@pytest.mark.parametrize(("name", "index"), OUTS)
def test_the_first_and_the_last_bytes_can_be_written(ready: Guest, name: str, index: int) -> None:
    argument = ROWS[name][index]
    assert isinstance(argument, Out)

    for address in (0, _size(ready) - argument.size):
        ready.services.queues.enqueue(1, b"message")
        assert ask(ready, name, {index: [address]}) == Status.OK, address


@pytest.mark.parametrize("iovecs", [[[0, MAX]], [[MAX, 1]], [[0, 1], [MAX - 8, 9]]])
def test_fd_write_checks_what_its_vectors_point_to(ready: Guest, iovecs: list[list[int]]) -> None:
    words = [word for iovec in iovecs for word in iovec]
    address, _ = ready.text(b"".join(word.to_bytes(4, "little") for word in words))
    status = ask(ready, "fd_write", {1: [address], 2: [len(iovecs)]})

    # Of a vector that is too long a part can be written, as the specification allows.
    assert status == (Errno.SUCCESS if iovecs == [[0, MAX]] else Errno.FAULT)


def test_fd_write_checks_its_vectors(ready: Guest) -> None:
    assert ask(ready, "fd_write", {1: [_size(ready) - 4], 2: [1]}) == Errno.FAULT


def test_pointers_need_not_be_aligned(ready: Guest) -> None:
    ask(ready, "proxy_get_property", {1: [33], 2: [39]})

    assert ready.memory.read(ready.memory.read_u32(33), ready.memory.read_u32(39)) == b"tested"


def _size(guest: Guest) -> int:
    return guest.instance.memory.size
