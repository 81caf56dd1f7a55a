"""How imports find their host calls: unknown ones, wrong types, capabilities, what is missing."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware.abi.enums import Errno, Status
from wasm_middleware.abi.signatures import CALLBACKS, ENV, HOST_CALLS, WASI_CALLS, WASI_MODULES
from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import PluginLoadError
from wasm_middleware.proxy_wasm import hostcalls, wasi
from wasm_middleware.proxy_wasm.callbacks import Callbacks
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.vm import Vm

from .harness import LOGGER, OUT, Guest, MakeGuest, begin, call, new_stream, respond, run, services
from .scripted import Shape

#: What the Rust SDK takes without a panic.
MYSTERY = Shape(
    extra=(
        ("env", "mystery", "iI>i"),
        ("env", "wide_mystery", "i>I"),
        ("wasi_snapshot_preview1", "fd_mystery", ">i"),
        ("elsewhere", "quiet_mystery", "i>"),
    )
)


def vm(**options: object) -> Vm:
    return Vm(Plugin("tested", LOGGER, **options), services())  # type: ignore[arg-type]


def test_every_host_call_is_there() -> None:
    assert set(hostcalls.IMPLEMENTED) == set(HOST_CALLS)


def test_every_wasi_answer_belongs_to_a_call() -> None:
    assert set(wasi.IMPLEMENTED) | set(wasi.ANSWERS) <= set(WASI_CALLS)
    assert not set(wasi.IMPLEMENTED) & set(wasi.ANSWERS)


# Unknown imports


def test_an_unknown_import_links_and_is_logged_by_name(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(shape=MYSTERY)

    with caplog.at_level(logging.WARNING):
        status = guest.ask(None, "mystery", 1, 2)

    assert status == Status.UNIMPLEMENTED
    assert "env.mystery" in caplog.text


def test_an_unknown_import_may_have_any_result(make_guest: MakeGuest) -> None:
    guest = make_guest(shape=MYSTERY)
    guest.ask(None, "quiet_mystery", 1)

    assert guest.ask(None, "wide_mystery", 1) == Status.UNIMPLEMENTED


def test_an_unknown_wasi_import_answers_an_errno(make_guest: MakeGuest) -> None:
    assert make_guest(shape=MYSTERY).ask(None, "fd_mystery") == Errno.NOSYS


def test_a_name_of_the_abi_in_another_module_is_unknown(make_guest: MakeGuest) -> None:
    assert not hostcalls.is_known("elsewhere", "proxy_log")
    assert not hostcalls.is_known(ENV, "fd_write")
    assert not hostcalls.is_known("wasi_snapshot_preview1", "proxy_log")
    function = hostcalls.resolve(vm(), "elsewhere", "proxy_log", "f>F")
    assert function.call(1.0) == Status.UNIMPLEMENTED


def test_wasi_is_there_under_both_names(make_guest: MakeGuest) -> None:
    guest = make_guest(shape=Shape(wasi="wasi_unstable"))

    assert guest.ask(None, "clock_time_get", 0, 0, OUT) == Errno.SUCCESS
    assert guest.u64() == guest.services.clock.now()


# Types


@pytest.mark.parametrize(
    ("module", "name", "signature"),
    [
        ("env", "proxy_log", "ii>i"),
        ("env", "proxy_log", "iii>"),
        ("env", "proxy_record_metric", "ii>i"),
        ("env", "proxy_done", "i>i"),
        ("wasi_snapshot_preview1", "fd_write", "iii>i"),
        ("wasi_unstable", "clock_time_get", "iii>i"),
    ],
)
def test_a_known_call_of_another_type_does_not_load(module: str, name: str, signature: str) -> None:
    with pytest.raises(PluginLoadError) as caught:
        hostcalls.resolve(vm(), module, name, signature)

    assert name in caught.value.reason
    assert signature in caught.value.reason


def test_instantiating_fails_with_the_same_error(engine: Engine, make_guest: MakeGuest) -> None:
    with pytest.raises(PluginLoadError, match="proxy_log with the type iiii>i"):
        make_guest(shape=Shape(types={"proxy_log": "iiii>i"}))


@pytest.mark.parametrize("name", [*HOST_CALLS, *WASI_CALLS])
def test_every_call_takes_as_many_arguments_as_it_declares(guest: Guest, name: str) -> None:
    signature = (HOST_CALLS.get(name) or WASI_CALLS[name]).signature
    context = None

    if name == "proc_exit":
        return

    status = guest.ask(context, name, *[OUT] * signature.index(">"))

    assert signature.endswith(">") or status != 0xDEAD
    assert not guest.instance.poisoned


# Capabilities


def test_a_host_call_that_is_not_allowed_fails_and_is_logged(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(capabilities=frozenset({"proxy_log"}))

    with caplog.at_level(logging.WARNING):
        status = guest.ask(None, "proxy_get_current_time_nanoseconds", OUT)

    assert status == Status.INTERNAL_FAILURE
    assert "proxy_get_current_time_nanoseconds" in caplog.text
    assert "allowed_capabilities" in caplog.text


def test_a_wasi_call_that_is_not_allowed_answers_an_errno(make_guest: MakeGuest) -> None:
    guest = make_guest(capabilities=frozenset({"proxy_log"}))

    assert guest.ask(None, "random_get", OUT, 8) == Errno.NOTCAPABLE


def test_a_host_call_that_is_allowed_works(make_guest: MakeGuest) -> None:
    guest = make_guest(capabilities=frozenset({"proxy_get_current_time_nanoseconds"}))

    assert guest.ask(None, "proxy_get_current_time_nanoseconds", OUT) == Status.OK


def test_a_callback_that_is_not_allowed_is_not_called(make_guest: MakeGuest) -> None:
    guest = make_guest(capabilities=frozenset({"proxy_on_request_headers", "proxy_on_done"}))
    stream = new_stream(guest)
    begin(stream)
    run(stream.request.feed(b"x", end_of_stream=True))
    run(stream.finish())

    assert guest.called == ["_initialize", "main", "on_request_headers", "on_done"]


def test_phases_choose_callbacks_too(make_guest: MakeGuest) -> None:
    guest = make_guest(phases=frozenset({"on_request_body"}))
    stream = new_stream(guest)
    begin(stream)
    run(stream.request.feed(b"x", end_of_stream=True))
    run(stream.finish())

    assert guest.called[-4:] == [
        "on_context_create",
        "on_request_body",
        "on_done",
        "on_delete",
    ]
    assert "on_log" not in guest.called


def test_every_callback_is_in_the_table() -> None:
    assert set(guest_callbacks()) <= set(CALLBACKS)
    assert WASI_MODULES[0] == Shape().wasi


def guest_callbacks() -> list[str]:
    """The callbacks that a VM looks for."""
    asked: list[str] = []

    class Asked:
        def function(self, name: str) -> None:
            asked.append(name)

    Callbacks(Asked(), vm().plugin)  # type: ignore[arg-type]
    return asked


@pytest.mark.parametrize("result", ["", "i"])
@pytest.mark.parametrize("name", ["proxy_continue_request", "proxy_continue_response"])
def test_0_1_0_continues_with_and_without_a_result(
    make_guest: MakeGuest, name: str, result: str
) -> None:
    guest = make_guest(shape=Shape(types={name: f">{result}", "proxy_clear_route_cache": ">"}))
    phase = name.removeprefix("proxy_continue_")
    resumed = call(name)
    guest.on(f"proxy_on_{phase}_headers", call("proxy_clear_route_cache"), resumed, returns=1)
    stream = new_stream(guest)
    begin(stream)

    if phase == "response":
        respond(stream)

    assert stream.request.passed
    assert stream.response.passed
    assert not result or guest.result(resumed) == Status.OK
