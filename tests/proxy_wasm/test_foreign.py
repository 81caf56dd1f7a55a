"""Foreign functions."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from wasm_middleware import limits
from wasm_middleware.abi import protobuf
from wasm_middleware.abi.enums import BufferType, Status
from wasm_middleware.proxy_wasm.context import Context
from wasm_middleware.proxy_wasm.lograte import LogRate
from wasm_middleware.proxy_wasm.ports import (
    ForeignCallRefused,
    ForeignFunction,
    Services,
    deferred,
)

from . import harness
from .harness import (
    OUT,
    FakeBackground,
    Guest,
    MakeGuest,
    begin,
    call,
    held_in_headers,
    new_stream,
    trap,
)
from .scripted import Shape

CALL, CALLBACK = "proxy_call_foreign_function", "proxy_on_foreign_function"
BUFFER = BufferType.FOREIGN_FUNCTION_ARGUMENTS
#: Where statuses, ids and buffers go that are not read from `OUT`.
MORE = 64


def reverse(arguments: bytes) -> bytes:
    return arguments[::-1]


async def reverse_later(arguments: bytes) -> bytes:
    return arguments[::-1]


def fails(_arguments: bytes) -> bytes:
    raise RuntimeError("no database")


def takes_numbers(arguments: bytes) -> bytes:
    return b"%d" % int(arguments)


class Late:
    """An awaitable that says when it is asked for."""

    def __init__(self, arguments: bytes) -> None:
        self.arguments = arguments

    def __await__(self) -> Any:
        yield from ()
        return self.arguments


@pytest.fixture
def functions() -> dict[str, ForeignFunction]:
    """What a test puts here can be called."""
    return {
        "reverse": reverse,
        "later": deferred(reverse_later),
        "fails": fails,
        "numbers": takes_numbers,
    }


@pytest.fixture
def services(functions: dict[str, ForeignFunction]) -> Services:
    return harness.services(foreign_functions=functions)


def background(guest: Guest) -> FakeBackground:
    found = guest.services.background
    assert isinstance(found, FakeBackground)
    return found


def ask(guest: Guest, name: bytes, arguments: bytes = b"", context: Context | None = None) -> int:
    return guest.ask(context, CALL, guest.text(name), guest.text(arguments), OUT, OUT + 4)


def root_of(guest: Guest) -> Context:
    [root] = guest.vm.roots.values()
    return root


# Functions that answer at once


def test_the_result_is_the_calls(guest: Guest) -> None:
    assert ask(guest, b"reverse", b"a\0b") == Status.OK
    assert guest.got() == b"b\0a"


@pytest.mark.parametrize("empty", [b"", None])
def test_an_empty_result_is_no_memory(
    guest: Guest, functions: dict[str, ForeignFunction], empty: bytes | None
) -> None:
    functions["empty"] = lambda _: empty  # type: ignore[assignment,return-value]
    guest.memory.write(OUT, b"\xff" * 8)
    before = guest.allocations

    assert ask(guest, b"empty") == Status.OK
    assert (guest.u32(OUT), guest.u32(OUT + 4)) == (0, 0)
    assert guest.allocations == before


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_whatever_holds_bytes_will_do(
    guest: Guest, functions: dict[str, ForeignFunction], kind: Callable[[bytes], bytes]
) -> None:
    functions["odd"] = kind

    assert ask(guest, b"odd", b"some") == Status.OK
    assert guest.got() == b"some"


def test_an_unknown_name_is_not_found(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "wasm_middleware"):
        assert ask(guest, b"revers") == Status.NOT_FOUND

    names = "clear_route_cache, declare_property, fails, later, numbers, reverse, "
    assert [
        text for text in caplog.messages if "'revers': there are " + names in text
    ] == caplog.messages


def test_a_value_error_is_a_bad_argument(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "wasm_middleware"):
        assert ask(guest, b"numbers", b"many") == Status.BAD_ARGUMENT

    assert "invalid literal" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


def test_a_function_that_fails_tells_its_owner(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(name="shop")
    context = held_in_headers(guest)

    assert ask(guest, b"fails", context=context) == Status.INTERNAL_FAILURE
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (
        record.getMessage()
        == "plugin 'shop': the foreign function 'fails', called in on_tick, failed"
    )
    assert record.exc_info is not None
    assert "no database" in caplog.text
    # It costs its call, and not the guest.
    assert ask(guest, b"reverse", b"ab", context) == Status.OK


def test_failures_beyond_the_plugins_log_rate_are_dropped(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_rate=LogRate(30))

    for _ in range(10):
        assert ask(guest, b"fails") == Status.INTERNAL_FAILURE

    # A traceback counts as the lines that it has.
    said = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert [line.partition("'fails'")[0] for line in said] == [
        "plugin 'tested': the foreign function ",
        "plugin 'tested': the foreign function ",
        "more than 30 lines within a second: they are dropped",
    ]


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
def test_a_function_ends_neither_the_server_nor_a_request(
    guest: Guest,
    functions: dict[str, ForeignFunction],
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    def ends(_arguments: bytes) -> bytes:
        raise error

    functions["ends"] = ends

    assert ask(guest, b"ends") == Status.INTERNAL_FAILURE
    assert "the foreign function 'ends', called in on_tick, failed" in caplog.text
    assert type(error).__name__ in caplog.text
    assert ask(guest, b"reverse", b"ab") == Status.OK


def test_ctrl_c_in_a_function_goes_through(
    guest: Guest, functions: dict[str, ForeignFunction]
) -> None:
    def interrupted(_arguments: bytes) -> bytes:
        raise KeyboardInterrupt

    functions["interrupted"] = interrupted

    with pytest.raises(KeyboardInterrupt):
        ask(guest, b"interrupted")


@pytest.mark.parametrize(
    "status",
    [
        Status.NOT_FOUND,
        Status.BAD_ARGUMENT,
        Status.SERIALIZATION_FAILURE,
        Status.INTERNAL_FAILURE,
    ],
)
def test_a_function_can_choose_its_status(
    guest: Guest, functions: dict[str, ForeignFunction], status: Status
) -> None:
    def refuses(_arguments: bytes) -> bytes:
        raise ForeignCallRefused(status, "because")

    functions["refuses"] = refuses

    assert ask(guest, b"refuses") == status


def test_a_result_that_is_no_bytes_is_the_functions_failure(
    guest: Guest, functions: dict[str, ForeignFunction], caplog: pytest.LogCaptureFixture
) -> None:
    functions["text"] = lambda _: "text"  # type: ignore[assignment,return-value]

    assert ask(guest, b"text") == Status.INTERNAL_FAILURE
    assert "returns bytes, not str" in caplog.text


def test_results_and_arguments_have_a_cap(
    guest: Guest,
    functions: dict[str, ForeignFunction],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    functions["twice"] = lambda arguments: arguments * 2
    monkeypatch.setattr(limits, "MAX_FOREIGN_ARGUMENTS_BYTES", 10)
    monkeypatch.setattr(limits, "MAX_FOREIGN_RESULT_BYTES", 10)

    assert ask(guest, b"twice", b"12345") == Status.OK
    assert ask(guest, b"reverse", b"x" * 11) == Status.BAD_ARGUMENT
    assert ask(guest, b"twice", b"123456") == Status.INTERNAL_FAILURE
    assert "a result of 12 bytes: 10 may be" in caplog.text


def test_a_long_name_is_not_looked_up(guest: Guest) -> None:
    assert ask(guest, b"x" * (limits.MAX_FOREIGN_NAME_BYTES + 1)) == Status.NOT_FOUND


@pytest.mark.parametrize("argument", range(6))
def test_a_bad_pointer_calls_nothing(
    guest: Guest, functions: dict[str, ForeignFunction], argument: int
) -> None:
    called = []
    functions["note"] = lambda arguments: called.append(arguments) or b"x"  # type: ignore[func-returns-value]
    arguments = [*guest.text(b"note"), *guest.text(b"some"), OUT, OUT + 4]

    if argument in (1, 3):
        # A size that fits the cap, from near the end of the memory.
        arguments[argument - 1] = 0xFFFF_FFF0

    else:
        arguments[argument] = 0xFFFF_FFF0

    assert guest.ask(None, CALL, *arguments) == Status.INVALID_MEMORY_ACCESS
    assert called == []


def test_a_function_can_be_called_while_the_plugin_starts(make_guest: MakeGuest) -> None:
    guest = make_guest(start=False)
    asked = call(CALL, guest.text(b"reverse"), guest.text(b"ab"), OUT, OUT + 4)
    guest.on("proxy_on_configure", asked, returns=1)
    guest.start()

    assert (guest.result(asked), guest.got()) == (Status.OK, b"ba")


# Functions that answer later


def on_answer(guest: Guest) -> None:
    """Let the guest's callback look at what came."""
    guest.on(
        CALLBACK,
        call("proxy_get_buffer_bytes", BUFFER, 0, 1000, OUT, OUT + 4),
        call("proxy_get_status", MORE, MORE + 4, MORE + 8),
    )


def test_an_asynchronous_result_comes_later(guest: Guest) -> None:
    on_answer(guest)

    assert ask(guest, b"later", b"abc", root_of(guest)) == Status.OK
    answer = guest.got()
    assert len(answer) == 4
    token = int.from_bytes(answer, "little")
    assert token != 0
    assert guest.arguments_of(CALLBACK) == []
    assert list(guest.vm.calls) == [token]

    background(guest).run_all()
    assert guest.arguments_of(CALLBACK) == [(root_of(guest).id, token, 3, 0, 0)]
    assert guest.got() == b"cba"
    assert (guest.u32(MORE), guest.got(MORE + 4)) == (0, b"")
    assert guest.vm.calls == {}


def test_a_stream_gets_its_answer_through_the_root_context(guest: Guest) -> None:
    effective = call("proxy_set_effective_context", 2)
    guest.on(CALLBACK, effective, call("proxy_get_buffer_bytes", BUFFER, 0, 1000, OUT, OUT + 4))
    context = held_in_headers(guest)
    ask(guest, b"later", b"abc", context)
    background(guest).run_all()

    # From the context that asked, as SDKs have it.
    assert guest.result(effective) == Status.OK
    assert [arguments[0] for arguments in guest.arguments_of(CALLBACK)] == [root_of(guest).id]
    assert guest.got() == b"cba"


@pytest.mark.parametrize(
    "function", [Late, functools.partial(reverse_later), lambda arguments: Late(arguments)]
)
def test_any_awaitable_is_waited_for(
    guest: Guest, functions: dict[str, ForeignFunction], function: ForeignFunction
) -> None:
    functions["awaitable"] = deferred(function)
    on_answer(guest)
    ask(guest, b"awaitable", b"ABA", root_of(guest))
    background(guest).run_all()

    assert guest.got() == b"ABA"


def test_the_buffer_is_gone_after_the_callback(guest: Guest) -> None:
    ask(guest, b"later", b"abc", root_of(guest))
    background(guest).run_all()

    status = guest.ask(root_of(guest), "proxy_get_buffer_bytes", BUFFER, 0, 9, OUT, OUT + 4)
    assert status == Status.NOT_FOUND


def test_every_call_has_its_own_answer(guest: Guest) -> None:
    tokens = []

    for text in (b"one", b"two"):
        ask(guest, b"later", text, root_of(guest))
        tokens.append(int.from_bytes(guest.got(), "little"))

    background(guest).run_all()
    assert [arguments[1] for arguments in guest.arguments_of(CALLBACK)] == tokens
    assert len(set(tokens)) == 2


@pytest.mark.parametrize(
    ("error", "code", "message", "logged"),
    [
        (ValueError("no such user: ä"), Status.BAD_ARGUMENT, "no such user: ä", "no such user"),
        (
            ForeignCallRefused(Status.NOT_FOUND, "not today"),
            Status.NOT_FOUND,
            "not today",
            "not today",
        ),
        (RuntimeError("password is 123"), Status.INTERNAL_FAILURE, "it failed", "Traceback"),
    ],
)
def test_a_failure_comes_as_no_bytes_and_a_status(
    guest: Guest,
    functions: dict[str, ForeignFunction],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    code: Status,
    message: str,
    logged: str,
) -> None:
    async def fails(_arguments: bytes) -> bytes:
        raise error

    functions["fails"] = deferred(fails)
    on_answer(guest)

    assert ask(guest, b"fails", b"", root_of(guest)) == Status.OK
    background(guest).run_all()
    assert [arguments[2] for arguments in guest.arguments_of(CALLBACK)] == [0]
    assert (guest.u32(MORE), guest.got(MORE + 4)) == (code, message.encode())
    assert "proxy_on_foreign_function: 'fails' gave no result: " + message in caplog.text
    assert logged in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(3)])
def test_a_function_that_was_cancelled_by_others_has_failed(
    guest: Guest,
    functions: dict[str, ForeignFunction],
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    async def ends(_arguments: bytes) -> bytes:
        raise error

    functions["ends"] = deferred(ends)
    on_answer(guest)
    ask(guest, b"ends", b"", root_of(guest))
    background(guest).run_all()

    assert [arguments[2] for arguments in guest.arguments_of(CALLBACK)] == [0]
    assert (guest.u32(MORE), guest.got(MORE + 4)) == (Status.INTERNAL_FAILURE, b"it failed")
    assert guest.vm.calls == {}
    assert "the foreign function 'ends', called in on_tick, failed" in caplog.text


def test_a_function_that_was_cancelled_by_us_is_not_answered(
    guest: Guest, functions: dict[str, ForeignFunction], caplog: pytest.LogCaptureFixture
) -> None:
    async def unloaded(_arguments: bytes) -> bytes:
        guest.vm.calls.clear()
        raise asyncio.CancelledError

    functions["unloaded"] = deferred(unloaded)
    ask(guest, b"unloaded", b"", root_of(guest))

    # Whoever has cancelled it waits for that.
    with pytest.raises(asyncio.CancelledError):
        background(guest).run_all()

    assert guest.arguments_of(CALLBACK) == []
    assert caplog.records == []


def test_ctrl_c_in_an_asynchronous_function_goes_through_and_leaves_nothing(
    guest: Guest, functions: dict[str, ForeignFunction]
) -> None:
    async def interrupted(_arguments: bytes) -> bytes:
        raise KeyboardInterrupt

    functions["interrupted"] = deferred(interrupted)
    ask(guest, b"interrupted", b"", root_of(guest))

    with pytest.raises(KeyboardInterrupt):
        background(guest).run_all()

    assert guest.arguments_of(CALLBACK) == []
    assert guest.vm.calls == {}


def test_a_later_success_has_a_status_too(
    guest: Guest, functions: dict[str, ForeignFunction]
) -> None:
    async def fails(_arguments: bytes) -> bytes:
        raise ValueError("first")

    functions["first"] = deferred(fails)
    on_answer(guest)
    ask(guest, b"first", b"", root_of(guest))
    ask(guest, b"later", b"abc", root_of(guest))
    background(guest).run_all()

    assert (guest.u32(MORE), guest.got(MORE + 4)) == (0, b"")


def test_a_late_result_has_a_cap(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "MAX_FOREIGN_RESULT_BYTES", 2)
    on_answer(guest)
    ask(guest, b"later", b"abc", root_of(guest))
    background(guest).run_all()

    assert (guest.u32(MORE), [one[2] for one in guest.arguments_of(CALLBACK)]) == (10, [0])
    assert "a result of 3 bytes: 2 may be" in caplog.text


def test_nothing_comes_to_an_instance_that_has_failed(guest: Guest) -> None:
    ask(guest, b"later", b"abc", root_of(guest))
    guest.on("proxy_on_request_headers", trap())
    begin(new_stream(guest))

    # Neither the answer, nor the function.
    assert guest.vm.calls == {}
    assert not background(guest).waiting


def test_nothing_comes_to_an_instance_that_was_unloaded(guest: Guest) -> None:
    ask(guest, b"later", b"abc", root_of(guest))
    calls = guest.shut_down()

    assert not background(guest).waiting
    assert CALLBACK not in [name for name, _ in calls]


def test_an_answer_that_is_already_on_its_way_is_dropped(
    guest: Guest, functions: dict[str, ForeignFunction]
) -> None:
    async def meanwhile(arguments: bytes) -> bytes:
        guest.vm.calls.clear()
        return arguments

    functions["meanwhile"] = deferred(meanwhile)
    ask(guest, b"meanwhile", b"abc", root_of(guest))
    background(guest).run_all()

    assert guest.arguments_of(CALLBACK) == []


def test_a_guest_without_the_callback_is_told(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(shape=Shape(without=frozenset({CALLBACK})))

    assert ask(guest, b"later", b"abc", root_of(guest)) == Status.OK
    background(guest).run_all()
    assert "'later' answers later, but the plugin has no proxy_on_foreign_function" in caplog.text
    assert guest.vm.calls == {}


def test_only_so_many_functions_run_for_one_instance(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_PENDING_CALLS", 2)
    statuses = [ask(guest, b"later", b"abc", root_of(guest)) for _ in range(3)]

    assert statuses == [Status.OK, Status.OK, Status.INTERNAL_FAILURE]
    background(guest).run_all()
    assert ask(guest, b"later", b"abc", root_of(guest)) == Status.OK


def test_arguments_of_functions_that_answer_later_have_a_cap_for_the_plugin(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "MAX_PENDING_BYTES", 25)
    root = root_of(guest)
    statuses = [ask(guest, b"later", b"x" * 10, root) for _ in range(3)]

    assert statuses == [Status.OK, Status.OK, Status.INTERNAL_FAILURE]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == guest.vm.plugin.logger.name
    assert record.getMessage() == (
        "'later' is not called: with its 10 bytes the plugin's calls under way would hold more"
        " than 25"
    )
    assert ask(guest, b"later", b"x" * 5, root) == Status.OK
    background(guest).run_all()
    # All of it is free again.
    assert ask(guest, b"later", b"x" * 25, root) == Status.OK


def test_what_failed_or_was_given_up_takes_no_room(
    guest: Guest, functions: dict[str, ForeignFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_arguments: bytes) -> bytes:
        raise ValueError("no")

    async def interrupted(_arguments: bytes) -> bytes:
        raise KeyboardInterrupt

    functions["fails"], functions["interrupted"] = deferred(fails), deferred(interrupted)
    under_way = guest.vm.plugin.under_way
    ask(guest, b"fails", b"abc", root_of(guest))
    assert under_way.bytes == 3
    background(guest).run_all()
    assert under_way.bytes == 0

    ask(guest, b"interrupted", b"abc", root_of(guest))

    with pytest.raises(KeyboardInterrupt):
        background(guest).run_all()

    assert under_way.bytes == 0
    ask(guest, b"later", b"abc", root_of(guest))
    assert under_way.bytes == 3
    guest.vm.close()
    assert under_way.bytes == 0


def test_without_a_context_nobody_could_be_answered(guest: Guest) -> None:
    assert ask(guest, b"later", b"abc") == Status.NOT_FOUND
    assert not background(guest).waiting


# Envoy's that act on the request


def filter_state(path: str | bytes, value: bytes, span: int = 1) -> bytes:
    return protobuf.encode([(1, path), (2, value), (3, span)])


def get(guest: Guest, context: Context, name: bytes) -> bytes | None:
    if guest.ask(context, "proxy_get_property", guest.text(name), OUT, OUT + 4):
        return None

    return guest.got()


def test_filter_state_is_a_property(guest: Guest) -> None:
    context = held_in_headers(guest)
    name = b"envoy.tcp_proxy.cluster"

    status = ask(guest, b"set_envoy_filter_state", filter_state(name, b"\xffblue"), context)
    assert status == Status.OK
    assert (guest.u32(OUT), guest.u32(OUT + 4)) == (0, 0)
    assert get(guest, context, b"filter_state\0" + name) == b"\xffblue"
    # And not under its bare name.
    assert get(guest, context, name) is None


def test_later_plugins_see_filter_state(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    arguments = first.text(filter_state("tier", b"gold"))
    set_it = call(CALL, first.text(b"set_envoy_filter_state"), arguments, OUT, OUT + 4)
    first.on("proxy_on_request_headers", set_it)
    read = call("proxy_get_property", second.text(b"filter_state\0tier"), OUT, OUT + 4)
    second.on("proxy_on_request_headers", read)
    begin(new_stream(first, second))

    assert second.got() == b"gold"


@pytest.mark.parametrize(
    "arguments",
    [b"\x0a", b"", filter_state("", b"x"), filter_state(b"\xff", b"x"), filter_state(b"\0", b"x")],
)
def test_filter_state_needs_a_path(guest: Guest, arguments: bytes) -> None:
    context = held_in_headers(guest)

    assert ask(guest, b"set_envoy_filter_state", arguments, context) == Status.BAD_ARGUMENT


@pytest.mark.parametrize("name", [b"set_envoy_filter_state", b"declare_property"])
def test_a_message_of_many_fields_is_a_bad_argument(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: bytes
) -> None:
    context = held_in_headers(guest)

    with caplog.at_level(logging.DEBUG, "wasm_middleware"):
        status = ask(guest, name, filter_state("tier", b"gold") * 100, context)

    assert status == Status.BAD_ARGUMENT
    assert f"{name.decode()!r}: it has more than 256 fields" in caplog.text


def test_filter_states_path_is_as_long_as_a_propertys(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    context = held_in_headers(guest)
    path = b"a\0" * (limits.MAX_PROPERTY_PATH_BYTES // 2)
    name = b"set_envoy_filter_state"

    with caplog.at_level(logging.DEBUG, "wasm_middleware"):
        statuses = [ask(guest, name, filter_state(p, b""), context) for p in (path, path + b"b")]

    assert statuses == [Status.OK, Status.BAD_ARGUMENT]
    assert f"a path of {limits.MAX_PROPERTY_PATH_BYTES + 1} bytes" in caplog.text


def test_filter_state_counts_as_property(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two segments, `filter_state` the first, and a value.
    most = 30 + 3 * limits.PROPERTY_OVERHEAD
    monkeypatch.setattr(limits, "MAX_STREAM_PROPERTIES_BYTES", most)
    context = held_in_headers(guest)

    for size, status in (30, Status.BAD_ARGUMENT), (14, Status.OK):
        arguments = filter_state("tier", b"x" * size)
        assert ask(guest, b"set_envoy_filter_state", arguments, context) == status


def test_filter_state_is_of_a_request(guest: Guest) -> None:
    arguments = filter_state("tier", b"gold")

    assert ask(guest, b"set_envoy_filter_state", arguments, root_of(guest)) == Status.NOT_FOUND
    assert ask(guest, b"set_envoy_filter_state", arguments) == Status.NOT_FOUND


def test_the_route_cache_clears_itself(guest: Guest) -> None:
    assert ask(guest, b"clear_route_cache", b"", held_in_headers(guest)) == Status.OK
    assert (guest.u32(OUT), guest.u32(OUT + 4)) == (0, 0)


def test_properties_can_be_declared(guest: Guest) -> None:
    arguments = protobuf.encode([(1, "tier"), (2, True), (3, 1), (5, 1)])

    assert ask(guest, b"declare_property", arguments, root_of(guest)) == Status.OK
    assert ask(guest, b"declare_property", b"\x0a", root_of(guest)) == Status.BAD_ARGUMENT


def test_a_function_of_the_applications_wins(
    guest: Guest, functions: dict[str, ForeignFunction]
) -> None:
    functions["clear_route_cache"] = lambda _: b"mine"

    assert ask(guest, b"clear_route_cache", b"", held_in_headers(guest)) == Status.OK
    assert guest.got() == b"mine"


def test_capabilities_hold_for_it(make_guest: MakeGuest) -> None:
    guest = make_guest(capabilities=frozenset({"proxy_on_tick"}))

    assert ask(guest, b"reverse") == Status.INTERNAL_FAILURE
