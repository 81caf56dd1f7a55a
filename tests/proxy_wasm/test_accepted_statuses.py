"""No answer of ours panics a guest that was built with the Rust or the Go SDK.

`ACCEPTED` is what each of them takes, read from their sources (Rust `hostcalls.rs` 0.2.5 and Go
`hostcall.go` of January 2026). A guest of the Rust SDK (tests/plugins/statuses-rust) drives each
call into whatever its API can bring about, from each of its callbacks; `go-every` does so for the
calls that the Go SDK panics on. Every other answer comes back as an error there.

What no SDK's API can say keeps the specification's answer: a bad pointer, a number of which there
is no map, buffer, stream, metric type or log level. So does what an operator has forbidden
(`allowed_capabilities`): INTERNAL_FAILURE, as in proxy-wasm-cpp-host. And the methods of Rust's
`Context` on gRPC calls panic on the NotFound and BadArgument of a token that is none, where the
functions behind them return it: the specification's answer stays, for those and for other SDKs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, PeerType, Status
from wasm_middleware.abi.signatures import ENV, HOST_CALLS
from wasm_middleware.engines.protocol import InstanceLimits, Module
from wasm_middleware.engines.wasmtime import WasmtimeEngine
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.hostcalls import resolve
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.ports import (
    ForeignCallRefused,
    HttpAnswer,
    Services,
    deferred,
)
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm

from . import harness, test_reasons
from .connections import direction, feed, new_connection
from .harness import INFO, LOGGER, REQUEST, RESPONSE, FakeBackground, FakeGrpc, FakeHttp, run
from .test_reasons import MODULES

PLUGINS = Path(__file__).parents[1] / "plugins"
OK, MISSING, BAD = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT
SERIALIZATION, PARSE = Status.SERIALIZATION_FAILURE, Status.PARSE_FAILURE
EMPTY, MISMATCH, INTERNAL = Status.EMPTY, Status.CAS_MISMATCH, Status.INTERNAL_FAILURE

#: By call, the statuses that the Rust SDK takes. The Go SDK panics on all but OK where it is about
#: a metric; but its types hold no id that it was not given, and increment no histogram.
ACCEPTED: dict[str, set[Status]] = {
    "proxy_log": {OK},
    "proxy_get_log_level": {OK},
    "proxy_get_current_time_nanoseconds": {OK},
    "proxy_set_tick_period_milliseconds": {OK},
    "proxy_set_effective_context": {OK, BAD},
    "proxy_done": {OK},
    "proxy_get_buffer_bytes": {OK, MISSING},
    "proxy_set_buffer_bytes": {OK},
    "proxy_get_header_map_pairs": {OK},
    "proxy_set_header_map_pairs": {OK},
    "proxy_get_header_map_value": {OK, MISSING},
    "proxy_add_header_map_value": {OK},
    "proxy_replace_header_map_value": {OK},
    "proxy_remove_header_map_value": {OK},
    "proxy_continue_stream": {OK},
    "proxy_close_stream": {OK},
    "proxy_send_local_response": {OK},
    "proxy_get_status": {OK},
    # SERIALIZATION and INTERNAL come back from its function; `Context::get_property` panics.
    "proxy_get_property": {OK, MISSING},
    "proxy_set_property": {OK},
    "proxy_http_call": {OK, BAD, INTERNAL},
    "proxy_grpc_call": {OK, PARSE, INTERNAL},
    "proxy_grpc_stream": {OK, PARSE, INTERNAL},
    "proxy_grpc_send": {OK, BAD, MISSING},
    "proxy_grpc_cancel": {OK, MISSING},
    "proxy_grpc_close": {OK, MISSING},
    "proxy_get_shared_data": {OK, MISSING},
    "proxy_set_shared_data": {OK, MISMATCH},
    "proxy_register_shared_queue": {OK},
    "proxy_resolve_shared_queue": {OK, MISSING},
    "proxy_enqueue_shared_queue": {OK, MISSING},
    "proxy_dequeue_shared_queue": {OK, EMPTY, MISSING},
    "proxy_define_metric": {OK},
    "proxy_record_metric": {OK, MISSING},
    "proxy_increment_metric": {OK, MISSING, BAD},
    "proxy_get_metric": {OK, MISSING, BAD},
    "proxy_call_foreign_function": {OK, MISSING, BAD, SERIALIZATION, INTERNAL},
}
#: Calls that neither SDK makes, and the specification's answers; those of 0.1.0 have none.
BEYOND_THE_SDKS: dict[str, set[Status]] = {
    "proxy_get_header_map_size": {OK, BAD},
    "proxy_get_buffer_status": {OK, BAD, MISSING},
    "proxy_dispatch_http_call": {OK, BAD, INTERNAL},
    "proxy_get_configuration": {OK},
    "proxy_continue_request": {OK},
    "proxy_continue_response": {OK},
    "proxy_clear_route_cache": {OK},
    "pthread_equal": {OK},
    "emscripten_notify_memory_growth": {OK},
    "abort": {OK},
}
#: What makes a call answer BadArgument that neither SDK can say: their types have no such number.
NO_SUCH_NUMBER = {
    "proxy_log": "log level",
    "proxy_get_buffer_bytes": "buffer",
    "proxy_set_buffer_bytes": "buffer",
    "proxy_get_header_map_pairs": "header map",
    "proxy_set_header_map_pairs": "header map",
    "proxy_get_header_map_value": "header map",
    "proxy_add_header_map_value": "header map",
    "proxy_replace_header_map_value": "header map",
    "proxy_remove_header_map_value": "header map",
    "proxy_continue_stream": "stream type",
    "proxy_close_stream": "stream type",
    "proxy_define_metric": "metric type",
}
HTTP_PHASES = (
    *("main", "vm_start", "configure", "tick", "queue_ready", "foreign_function"),
    *("create", "request_headers", "request_body", "http_call_response", "grpc_call_response"),
    *("grpc_stream_metadata", "grpc_stream_message", "grpc_stream_trailing_metadata"),
    *("grpc_stream_close", "response_headers", "response_body", "response_trailers"),
    *("log", "done", "delete", "root_done", "root_delete"),
)
GO_PHASES = (
    *("configure", "tick", "queue_ready", "request_headers", "http_call_response"),
    *("request_body", "response_headers", "response_body", "response_trailers", "log"),
    "root_done",
)
TCP_PHASES = ("new_connection", "downstream_data", "upstream_data", "downstream_close")
#: Caps as they are when a store is full.
FULL = {
    "MAX_METRICS_PER_PLUGIN": 0,
    "MAX_PAIRS": len(REQUEST),
    "MAX_PENDING_CALLS": 1,
    "MAX_QUEUES": 0,
    "MAX_QUEUE_BYTES": 0,
    "MAX_SHARED_DATA_BYTES": 0,
    "MAX_SHARED_DATA_KEYS": 0,
    "MAX_STREAM_PROPERTIES": 0,
}


def test_the_table_has_every_call() -> None:
    assert not set(ACCEPTED) & set(BEYOND_THE_SDKS)
    assert set(ACCEPTED) | set(BEYOND_THE_SDKS) == set(HOST_CALLS)


@pytest.mark.parametrize(
    "row", [row for row in test_reasons.TABLE if MODULES[row.name] == ENV], ids=str
)
def test_what_the_scripted_guest_is_answered_is_accepted(row: test_reasons.Row) -> None:
    """`test_reasons` makes these calls, and has a row for each answer of each call."""
    if row.status is BAD and row.name in NO_SUCH_NUMBER:
        assert row.reason.startswith(f"no {NO_SUCH_NUMBER[row.name]} ")
    else:
        assert row.status in {**ACCEPTED, **BEYOND_THE_SDKS}[row.name]


# Guests of the SDKs


def _refuse(status: Status, _arguments: bytes) -> bytes:
    raise ForeignCallRefused(status, "because")


def _error(_arguments: bytes) -> bytes:
    raise RuntimeError("no database")


async def _later(arguments: bytes) -> bytes:
    return arguments


FUNCTIONS = {
    "echo": bytes,
    "later": deferred(_later),
    "error": _error,
    **{status.name: partial(_refuse, status) for status in Status},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[WasmtimeEngine]:
    made = WasmtimeEngine()
    yield made
    made.close()


@pytest.fixture(scope="module")
def rust(engine: WasmtimeEngine) -> Module:
    return engine.compile((PLUGINS / "statuses-rust.wasm").read_bytes())


@pytest.fixture(scope="module")
def go(engine: WasmtimeEngine) -> Module:
    return engine.compile((PLUGINS / "go-every.wasm").read_bytes())


@pytest.fixture
def services() -> Services:
    return harness.services(http=FakeHttp(), grpc=FakeGrpc(), foreign_functions=FUNCTIONS)


def load(module: Module, services: Services, **options: object) -> Vm:
    plugin = Plugin("tested", LOGGER, timeout=None, log_level=LogLevel.DEBUG, **options)  # type: ignore[arg-type]
    vm = Vm(plugin, services)
    vm.attach(module.instantiate(partial(resolve, vm), InstanceLimits(limits.GIB, 10_000)))
    run(vm.start())
    return vm


def live(vm: Vm) -> None:
    """Let it have each of its callbacks that are for HTTP."""
    services = vm.services
    background = services.background
    assert isinstance(background, FakeBackground)
    [root] = vm.roots.values()
    run(vm.deliver(root, Delivery("proxy_on_tick")))
    run(vm.deliver(root, Delivery("proxy_on_queue_ready", (1,))))
    run(vm.deliver(root, Delivery("proxy_on_foreign_function", (1, 0))))
    stream = Stream(services.clock, lambda: INFO)
    stream.may_add_trailers = True
    stream.add(vm, vm.plugin.config)
    run(stream.request.start(HeaderMap(list(REQUEST)), end_of_stream=False))
    answer(services)
    run(stream.request.feed(b"body", end_of_stream=True))
    run(stream.start_response(HeaderMap(list(RESPONSE)), end_of_stream=False))
    run(stream.response.feed(b"body", end_of_stream=False))
    run(stream.response.end(HeaderMap([(b"x-trailer", b"1")])))
    run(stream.finish())
    background.run_all()
    run(vm.end_roots())
    background.run_all()


def answer(services: Services) -> None:
    """Answer what it has called, if it has."""
    http, grpc = services.http, services.grpc
    assert isinstance(http, FakeHttp)
    assert isinstance(grpc, FakeGrpc)

    for index in range(len(http.calls)):
        http.answer(index, HttpAnswer(((b":status", b"200"),), b"body", ((b"x", b"1"),)))

    for stream in list(grpc.streams):
        run(stream.events.initial_metadata([(b"x", b"1")]))
        run(stream.events.message(b"message"))
        run(stream.events.trailing_metadata([(b"x", b"1")]))
        run(stream.events.close(0, b""))


def connect(vm: Vm) -> None:
    """Let it have those that are for connections."""
    guest = harness.Guest.__new__(harness.Guest)
    guest.vm, guest.services = vm, vm.services
    connection = new_connection(guest)
    feed(direction(connection, "downstream"), b"data")
    feed(direction(connection, "upstream"), b"data")
    run(connection.closed(connection.downstream, PeerType.REMOTE))


def answers(caplog: pytest.LogCaptureFixture, call: str) -> set[Status]:
    """What it was answered but OK."""
    found = [re.match(rf"{call} -> ([A-Z_]+): ", text) for text in caplog.messages]
    return {Status[match[1]] for match in found if match is not None}


@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
@pytest.mark.parametrize("call", ACCEPTED)
def test_the_rust_sdk_takes_every_answer(
    rust: Module,
    services: Services,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    full: bool,
) -> None:
    caplog.set_level(logging.DEBUG)

    for cap, value in FULL.items() if full else ():
        monkeypatch.setattr(limits, cap, value)

    for phase in (*HTTP_PHASES, *TCP_PHASES):
        caplog.clear()
        network = phase in TCP_PHASES
        services.http.__init__()  # type: ignore[misc, union-attr]
        services.grpc.__init__()  # type: ignore[misc, union-attr]
        vm = load(rust, services, environment=(("PROBE", f"{phase} {call}"),), network=network)
        (connect if network else live)(vm)

        assert f"{phase}: {call} is done" in caplog.messages, caplog.messages[-5:]
        assert answers(caplog, call) <= ACCEPTED[call], phase
        assert not vm.guest.poisoned
        vm.close()


@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
@pytest.mark.parametrize("phase", GO_PHASES)
def test_the_go_sdk_takes_every_answer(
    go: Module,
    services: Services,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    full: bool,
) -> None:
    caplog.set_level(logging.DEBUG)

    for cap, value in FULL.items() if full else ():
        monkeypatch.setattr(limits, cap, value)

    vm = load(go, services, environment=(("PROBE", phase),))
    live(vm)

    assert f"{phase} is done" in caplog.messages, caplog.messages[-5:]
    assert not vm.guest.poisoned
    refused = {match[1] for text in caplog.messages if (match := re.match(r"(\w+) -> ", text))}
    assert not {call for call in refused if call.endswith("_metric")}
    vm.close()
