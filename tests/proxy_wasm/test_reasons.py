"""At debug level the log says why a host call did not answer OK: once, with its name and status.

Each row makes one call in one way that has one other answer. Rows of bad pointers are those of
`test_pointers`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from wasm_middleware import limits
from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import Errno, MetricType, Status
from wasm_middleware.abi.signatures import ENV, HOST_CALLS, WASI_CALLS
from wasm_middleware.proxy_wasm import hostcalls, wasi
from wasm_middleware.proxy_wasm.ports import ForeignCallRefused

from . import harness
from .harness import LOGGER, OUT, Guest, MakeGuest, held_in_headers
from .scripted import EVERYTHING, Shape
from .test_pointers import MAX, ROWS, In, Out, ask

Words = Sequence[object]
MODULES = {name: module for module, name, _ in EVERYTHING.imports}


def _refuse(_arguments: bytes) -> bytes:
    raise ForeignCallRefused(Status.SERIALIZATION_FAILURE, "it is no message")


def _fail(_arguments: bytes) -> bytes:
    raise RuntimeError("no database")


def _number(arguments: bytes) -> bytes:
    return b"%d" % int(arguments)


FUNCTIONS = {"refuse": _refuse, "fail": _fail, "number": _number}


@dataclass(frozen=True)
class Row:
    """A call, its answer, a word of the reason, and the arguments that bring it about."""

    name: str
    status: Status | Errno
    reason: str
    arguments: Callable[[Guest], Words]
    #: A cap that is lowered first.
    cap: str = ""
    #: The level at which it is said.
    level: str = "DEBUG"

    def __str__(self) -> str:
        return f"{self.name}-{self.status.name}-{self.reason.replace(' ', '_')}"


def texts(*arguments: bytes | int) -> Callable[[Guest], Words]:
    """Arguments that are the same for every guest; bytes are put into its memory."""
    return lambda guest: [
        guest.text(argument) if isinstance(argument, bytes) else argument for argument in arguments
    ]


def shared(*arguments: bytes | int) -> Callable[[Guest], Words]:
    """The same, once "key" is stored."""

    def make(guest: Guest) -> Words:
        guest.services.shared_data.set("", b"key", b"value", 0)
        return texts(*arguments)(guest)

    return make


def queue(*arguments: bytes | int) -> Callable[[Guest], Words]:
    """The same behind the id of an empty queue."""

    def make(guest: Guest) -> Words:
        made = guest.services.queues.register("", b"queue", lambda _queue: True)
        return [made, *texts(*arguments)(guest)]

    return make


def metric(kind: MetricType, *arguments: int) -> Callable[[Guest], Words]:
    """The same behind the id of a metric."""
    return lambda guest: [guest.services.metrics.define("tested", kind, "metric"), *arguments]


def grpc(*arguments: bytes | int, message: bytes | None = None, closed: bool = False):
    """The same behind the token of a call, or of a stream that may be closed on this side."""

    def make(guest: Guest) -> Words:
        root = harness.root_of(guest)
        names = texts(b"auth", b"auth.v1.Auth", b"Check", b"")(guest)
        call = "proxy_grpc_stream" if message is None else "proxy_grpc_call"
        more = [] if message is None else [guest.text(message), 0]
        assert guest.ask(root, call, *names, *more, OUT) == Status.OK
        token = guest.u32()
        assert not closed or guest.ask(root, "proxy_grpc_close", token) == Status.OK
        return [token, *texts(*arguments)(guest)]

    return make


NO_MAP, NO_BUFFER, NO_STREAM = 8, 9, 4
LONG_KEY = b"x" * (limits.MAX_KEY_BYTES + 1)
HEADERS = pairs.encode([(b":method", b"GET"), (b":path", b"/"), (b":authority", b"auth")])
INCOMPLETE = pairs.encode([(b":method", b"GET")])
NOT_GRPC = pairs.encode([(b"te", b"x")])
TRACED = pairs.encode([(b"x-trace", b"7")])
BAD, MISSING = Status.BAD_ARGUMENT, Status.NOT_FOUND
PARSE, INTERNAL = Status.PARSE_FAILURE, Status.INTERNAL_FAILURE
CALLED = "proxy_call_foreign_function"


def http(name: str) -> list[Row]:
    def row(reason: str, *arguments: bytes | int, cap: str = "", level: str = "DEBUG") -> Row:
        return Row(name, BAD, reason, texts(*arguments, OUT), cap, level)

    return [
        row("no upstream 'other'", b"other", HEADERS, b"", b"", 0),
        row("it has no :path", b"auth", INCOMPLETE, b"", b"", 0),
        row("timeout is negative", b"auth", HEADERS, b"", b"", MAX),
        row("calls are under way", b"auth", HEADERS, b"", b"", 0, cap="MAX_PENDING_CALLS"),
        row("too long", b"auth", HEADERS, b"xx", b"", 0, cap="MAX_CALL_BODY_BYTES"),
        row(
            "would hold more than 1",
            b"auth",
            HEADERS,
            b"",
            b"",
            0,
            cap="MAX_PENDING_BYTES",
            level="ERROR",
        ),
    ]


def grpc_start(name: str, *more: bytes | int) -> list[Row]:
    def row(
        status: Status, reason: str, *arguments: bytes, cap: str = "", level: str = "WARNING"
    ) -> Row:
        return Row(name, status, reason, texts(*arguments, *more, OUT), cap, level)

    good = (b"auth", b"auth.v1.Auth", b"Check", b"")
    return [
        row(PARSE, "no upstream", b"other", *good[1:]),
        row(PARSE, "name of a service", b"auth", b"a b", b"Check", b""),
        row(PARSE, "name of a service", b"auth", b"auth.v1.Auth", b"a b", b""),
        row(PARSE, "reserved", b"auth", b"auth.v1.Auth", b"Check", NOT_GRPC),
        row(INTERNAL, "calls are under way", *good, cap="MAX_PENDING_CALLS", level="ERROR"),
        row(
            INTERNAL,
            "would hold more than 1",
            *good[:3],
            TRACED,
            cap="MAX_PENDING_BYTES",
            level="ERROR",
        ),
    ]


TABLE = [
    Row("proxy_log", BAD, "no log level 6", texts(6, b"text")),
    Row("proxy_set_effective_context", BAD, "no context 99", texts(99)),
    Row("proxy_get_header_map_value", BAD, "no header map 8", texts(NO_MAP, b"a", OUT, OUT + 4)),
    Row("proxy_get_header_map_value", MISSING, '"x-user" in http request headers',
        texts(0, b"x-user", OUT, OUT + 4)),
    Row("proxy_get_header_map_value", MISSING, "no http response headers",
        texts(2, b"x-user", OUT, OUT + 4)),
    Row("proxy_get_header_map_pairs", BAD, "no header map 8", texts(NO_MAP, OUT, OUT + 4)),
    Row("proxy_get_header_map_size", BAD, "no header map 8", texts(NO_MAP, OUT)),
    Row("proxy_set_header_map_pairs", BAD, "no header map 8", texts(NO_MAP, b"")),
    Row("proxy_add_header_map_value", BAD, "no header map 8", texts(NO_MAP, b"a", b"b")),
    Row("proxy_replace_header_map_value", BAD, "no header map 8", texts(NO_MAP, b"a", b"b")),
    Row("proxy_remove_header_map_value", BAD, "no header map 8", texts(NO_MAP, b"a")),
    Row("proxy_get_buffer_bytes", BAD, "no buffer 9", texts(NO_BUFFER, 0, 9, OUT, OUT + 4)),
    Row("proxy_get_buffer_bytes", MISSING, "no http response body", texts(1, 0, 9, OUT, OUT + 4)),
    Row("proxy_get_buffer_status", BAD, "no buffer 9", texts(NO_BUFFER, OUT, OUT + 4)),
    Row("proxy_get_buffer_status", MISSING, "no http response body", texts(1, OUT, OUT + 4)),
    Row("proxy_set_buffer_bytes", BAD, "no buffer 9", texts(NO_BUFFER, 0, 0, b"x")),
    Row("proxy_continue_stream", BAD, "no stream type 4", texts(NO_STREAM)),
    Row("proxy_close_stream", BAD, "no stream type 4", texts(NO_STREAM)),
    Row("proxy_get_property", MISSING, 'no property "auth.user"',
        texts(b"auth\0user", OUT, OUT + 4)),
    Row("proxy_get_property", MISSING, "path is empty", texts(b"", OUT, OUT + 4)),
    *http("proxy_http_call"),
    *http("proxy_dispatch_http_call"),
    *grpc_start("proxy_grpc_call", b"message", 0),
    Row("proxy_grpc_call", INTERNAL, "a message of 2 bytes",
        texts(b"auth", b"auth.v1.Auth", b"Check", b"", b"xx", 0, OUT), "MAX_GRPC_CALL_BYTES",
        "ERROR"),
    *grpc_start("proxy_grpc_stream"),
    Row("proxy_grpc_send", MISSING, "stream 99", texts(99, b"x", 0)),
    Row("proxy_grpc_send", BAD, "is a call", grpc(b"x", 0, message=b"")),
    Row("proxy_grpc_send", BAD, "was closed", grpc(b"x", 0, closed=True)),
    Row("proxy_grpc_send", BAD, "a message of 2 bytes", grpc(b"xx", 0), "MAX_GRPC_CALL_BYTES",
        "WARNING"),
    Row("proxy_grpc_cancel", MISSING, "stream 99", texts(99)),
    Row("proxy_grpc_close", MISSING, "stream 99", texts(99)),
    Row(CALLED, MISSING, "'none': there are", texts(b"none", b"", OUT, OUT + 4)),
    Row(CALLED, MISSING, "a name of 1025 bytes", texts(b"x" * 1025, b"", OUT, OUT + 4)),
    Row(CALLED, BAD, "'number': invalid literal", texts(b"number", b"x", OUT, OUT + 4)),
    Row(CALLED, BAD, "2 bytes of arguments", texts(b"number", b"12", OUT, OUT + 4),
        "MAX_FOREIGN_ARGUMENTS_BYTES"),
    Row(CALLED, Status.SERIALIZATION_FAILURE, "'refuse': it is no message",
        texts(b"refuse", b"", OUT, OUT + 4)),
    Row(CALLED, INTERNAL, "'fail': it failed", texts(b"fail", b"", OUT, OUT + 4)),
    Row("proxy_get_shared_data", MISSING, 'no key "other"',
        shared(b"other", OUT, OUT + 4, OUT + 8)),
    Row("proxy_get_shared_data", MISSING, "at most", shared(LONG_KEY, OUT, OUT + 4, OUT + 8)),
    Row("proxy_set_shared_data", Status.CAS_MISMATCH, "99 is not its number",
        shared(b"key", b"x", 99)),
    Row("proxy_set_shared_data", Status.CAS_MISMATCH, "holds 1 bytes already",
        shared(b"other", b"x", 0), "MAX_SHARED_DATA_BYTES", "ERROR"),
    Row("proxy_set_shared_data", Status.CAS_MISMATCH, "at most", shared(LONG_KEY, b"x", 0),
        level="ERROR"),
    Row("proxy_resolve_shared_queue", MISSING, "nobody registered", texts(b"", b"queue", OUT)),
    Row("proxy_resolve_shared_queue", MISSING, "at most", texts(b"", LONG_KEY, OUT)),
    Row("proxy_enqueue_shared_queue", MISSING, "no queue 99", texts(99, b"x")),
    Row("proxy_enqueue_shared_queue", MISSING, "the queue holds 1 bytes", queue(b"x"),
        "MAX_QUEUE_BYTES", "ERROR"),
    Row("proxy_enqueue_shared_queue", MISSING, "the queues hold 5 of 1 bytes", queue(b"x"),
        "MAX_QUEUES_BYTES", "ERROR"),
    Row("proxy_dequeue_shared_queue", MISSING, "no queue 99", texts(99, OUT, OUT + 4)),
    Row("proxy_dequeue_shared_queue", Status.EMPTY, "nothing waits", queue(OUT, OUT + 4)),
    Row("proxy_define_metric", BAD, "no metric type 3", texts(3, b"metric", OUT)),
    Row("proxy_record_metric", MISSING, "no metric 99", texts(99, 1)),
    Row("proxy_increment_metric", MISSING, "no metric 99", texts(99, 1)),
    Row("proxy_increment_metric", BAD, "a histogram", metric(MetricType.HISTOGRAM, 1)),
    Row("proxy_get_metric", MISSING, "no metric 99", texts(99, OUT)),
    Row("fd_write", Errno.BADF, "no file 3", texts(3, OUT, 0, OUT)),
    Row("fd_write", Errno.INVAL, "1025 vectors", texts(1, OUT, 1025, OUT)),
    Row("fd_fdstat_get", Errno.BADF, "no file 0", texts(0, OUT)),
    Row("clock_time_get", Errno.NOTSUP, "no clock 2", texts(2, 0, OUT)),
    Row("clock_res_get", Errno.NOTSUP, "no clock 2", texts(2, OUT)),
    Row("random_get", Errno.INVAL, "65537 bytes", texts(OUT, 65537)),
    *(
        Row(name, errno, "no files", texts(*[OUT] * WASI_CALLS[name].signature.index(">")))
        for name in WASI_CALLS
        if name not in wasi.IMPLEMENTED
        if (errno := wasi.ANSWERS.get(name, wasi.DEFAULT_ANSWER))
    ),
]  # fmt: skip
#: What answers OK whatever it is given, but for bad pointers.
ALWAYS_OK = {
    *("abort", "emscripten_notify_memory_growth", "pthread_equal", "proc_exit"),
    *("args_get", "fd_close", "fd_seek", "sched_yield"),
    *("args_sizes_get", "environ_get", "environ_sizes_get", "poll_oneoff"),
    *("proxy_clear_route_cache", "proxy_continue_request", "proxy_continue_response"),
    *("proxy_done", "proxy_set_tick_period_milliseconds"),
    *("proxy_get_configuration", "proxy_get_current_time_nanoseconds", "proxy_get_log_level"),
    *("proxy_get_status", "proxy_register_shared_queue", "proxy_send_local_response"),
    "proxy_set_property",
}
POINTERS = [
    (name, index)
    for name, row in ROWS.items()
    for index, argument in enumerate(row)
    if isinstance(argument, In | Out)
]


@pytest.fixture
def services():
    return harness.services(
        http=harness.FakeHttp(), grpc=harness.FakeGrpc(), foreign_functions=FUNCTIONS
    )


def reasons(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if " -> " in record.getMessage()]


def test_every_call_has_a_row() -> None:
    calls = {*hostcalls.IMPLEMENTED, *WASI_CALLS}

    assert set(hostcalls.IMPLEMENTED) == set(HOST_CALLS)
    assert {row.name for row in TABLE} | ALWAYS_OK == calls
    assert not {row.name for row in TABLE} & ALWAYS_OK


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_why_is_said_once(
    make_guest: MakeGuest,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    row: Row,
) -> None:
    guest = make_guest()
    context = held_in_headers(guest)
    arguments = row.arguments(guest)

    if row.cap:
        monkeypatch.setattr(limits, row.cap, 1 if "BYTES" in row.cap else 0)

    with caplog.at_level(logging.DEBUG, LOGGER.name):
        assert guest.ask(context, row.name, *arguments) == row.status

    [record] = reasons(caplog)
    # It has two names, and the log uses the specification's.
    name = row.name.replace("proxy_dispatch_http_call", "proxy_http_call")
    errno = "E" if isinstance(row.status, Errno) else ""
    assert record.getMessage().startswith(f"{name} -> {errno}{row.status.name}: ")
    assert row.reason in record.getMessage()
    assert record.levelname == row.level
    assert vars(record)["guest"] is False


@pytest.mark.parametrize(("name", "index"), POINTERS)
def test_a_bad_pointer_is_said_once(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, name: str, index: int
) -> None:
    guest = make_guest(config=b"configuration", environment=(("REGION", "eu"),))
    queue = guest.services.queues.register("", b"known", lambda _queue: True)
    guest.services.queues.enqueue(queue, b"message")
    guest.services.shared_data.set("", b"shared", b"value", 0)
    guest.services.metrics.define("tested", MetricType.COUNTER, "metric")
    grpc()(guest)
    words = [MAX - 7, 2] if isinstance(ROWS[name][index], In) else [MAX - 7]
    env = MODULES[name] == ENV

    with caplog.at_level(logging.DEBUG, LOGGER.name):
        status = ask(guest, name, {index: words})

    [record] = reasons(caplog)
    assert status == (Status.INVALID_MEMORY_ACCESS if env else Errno.FAULT)
    answer = "INVALID_MEMORY_ACCESS" if env else "EFAULT"
    assert record.getMessage().startswith(f"{name} -> {answer}: a pointer to ")
    assert str(MAX - 7) in record.getMessage()


def test_an_allocator_without_memory_is_said_once(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    context = held_in_headers(guest)
    guest.on("proxy_on_memory_allocate", returns=0)

    with caplog.at_level(logging.DEBUG, LOGGER.name):
        guest.ask(context, "proxy_get_header_map_pairs", 0, OUT, OUT + 4)

    [record] = reasons(caplog)
    assert record.getMessage() == (
        "proxy_get_header_map_pairs -> INVALID_MEMORY_ACCESS: the allocator has no memory"
    )


@pytest.mark.parametrize("name", sorted({*HOST_CALLS, *WASI_CALLS}))
def test_what_is_not_allowed_is_a_warning_once(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    guest = make_guest(capabilities=frozenset(("proxy_on_tick", "proxy_on_memory_allocate")))
    call = {**HOST_CALLS, **WASI_CALLS}[name]

    with caplog.at_level(logging.DEBUG, LOGGER.name):
        for _ in range(2):
            guest.ask(None, name, *[0] * call.signature.index(">"))

    answer = "INTERNAL_FAILURE" if MODULES[name] == ENV else "ENOTCAPABLE"
    said = f"{name} -> {answer}: the plugin's allowed_capabilities do not list it"
    assert [(record.levelname, record.getMessage()) for record in reasons(caplog)] == [
        ("WARNING", said),
        ("DEBUG", said),
    ]


@pytest.mark.parametrize(("module", "answer"), [("env", "UNIMPLEMENTED"), ("wasi", "ENOSYS")])
def test_what_is_beyond_the_abi_is_a_warning_once(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, module: str, answer: str
) -> None:
    module = module.replace("wasi", "wasi_snapshot_preview1")
    guest = make_guest(shape=Shape(extra=((module, "mystery", "i>i"),)))

    with caplog.at_level(logging.DEBUG, LOGGER.name):
        for _ in range(2):
            guest.ask(None, "mystery", 1)

    said = f"{module}.mystery -> {answer}: this host does not have it"
    assert [(record.levelname, record.getMessage()) for record in reasons(caplog)] == [
        ("WARNING", said),
        ("DEBUG", said),
    ]


@pytest.mark.parametrize("row", [row for row in TABLE if row.level == "DEBUG"], ids=str)
def test_nothing_is_said_above_debug(
    make_guest: MakeGuest,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    row: Row,
) -> None:
    guest = make_guest()
    context = held_in_headers(guest)
    arguments = row.arguments(guest)

    if row.cap:
        monkeypatch.setattr(limits, row.cap, 1 if "BYTES" in row.cap else 0)

    with caplog.at_level(logging.INFO, LOGGER.name):
        assert guest.ask(context, row.name, *arguments) == row.status

    assert not reasons(caplog)
