"""How a guest is started."""

from __future__ import annotations

from functools import partial

import pytest

from tests.wat import wat2wasm
from wasm_middleware import limits
from wasm_middleware.engines.protocol import Engine, InstanceLimits
from wasm_middleware.errors import GuestError, GuestExit, GuestTrap, PluginLoadError
from wasm_middleware.proxy_wasm.hostcalls import resolve
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.vm import Vm

from .harness import LOGGER, Guest, MakeGuest, begin, call, new_stream, run, services, trap
from .scripted import Shape

REACTOR = Shape()
COMMAND = Shape(without=frozenset({"_initialize", "main", "__main_void"}))
BARE = Shape(without=frozenset({"_initialize", "_start", "main", "__main_void"}))
ROOT_CALLS = ["on_context_create", "on_vm_start", "validate_configuration", "on_configure"]


def started(make_guest: MakeGuest, shape: Shape) -> list[str]:
    return make_guest(shape=shape).called


def test_initialize_comes_first_then_main_and_never_start(make_guest: MakeGuest) -> None:
    assert started(make_guest, REACTOR) == ["_initialize", "main", *ROOT_CALLS]


def test_main_void_stands_for_main(make_guest: MakeGuest) -> None:
    shape = Shape(without=frozenset({"main"}))

    assert started(make_guest, shape) == ["_initialize", "__main_void", *ROOT_CALLS]


def test_start_is_called_where_there_is_no_initialize(make_guest: MakeGuest) -> None:
    assert started(make_guest, COMMAND) == ["_start", *ROOT_CALLS]


def test_main_alone_is_not_called(make_guest: MakeGuest) -> None:
    shape = Shape(without=frozenset({"_initialize", "_start"}))

    assert started(make_guest, shape) == ROOT_CALLS


def test_nothing_of_it_is_needed(make_guest: MakeGuest) -> None:
    assert started(make_guest, BARE) == ROOT_CALLS


def test_a_guest_without_callbacks_starts(make_guest: MakeGuest) -> None:
    shape = Shape(
        without=frozenset(
            {
                *BARE.without,
                "proxy_on_context_create",
                "proxy_on_vm_start",
                "proxy_validate_configuration",
                "proxy_on_configure",
                "proxy_on_done",
                "proxy_on_log",
                "proxy_on_delete",
                "proxy_on_request_headers",
                "proxy_on_request_body",
                "proxy_on_response_headers",
                "proxy_on_response_body",
            }
        )
    )
    guest = make_guest(shape=shape)
    stream = new_stream(guest)
    begin(stream)
    run(stream.finish())

    assert guest.called == []
    assert stream.request.passed


def test_the_sizes_of_the_configurations_are_told(make_guest: MakeGuest) -> None:
    guest = make_guest(config=b"12345", vm_config=b"123")
    [root] = guest.vm.roots.values()

    assert guest.calls[-3:] == [
        ("proxy_on_vm_start", (root.id, 3, 0, 0, 0)),
        ("proxy_validate_configuration", (root.id, 5, 0, 0, 0)),
        ("proxy_on_configure", (root.id, 5, 0, 0, 0)),
    ]


@pytest.mark.parametrize(
    "callback", ["proxy_on_vm_start", "proxy_validate_configuration", "proxy_on_configure"]
)
def test_a_guest_that_answers_false_does_not_load(make_guest: MakeGuest, callback: str) -> None:
    guest = make_guest(start=False)
    guest.on(callback, returns=0)

    with pytest.raises(PluginLoadError) as caught:
        run(guest.vm.start())

    assert caught.value.plugin == "tested"
    assert callback.removeprefix("proxy_") in caught.value.reason


@pytest.mark.parametrize(
    ("callback", "phase"),
    [
        ("_initialize", "_initialize"),
        ("main", "main"),
        ("proxy_on_context_create", "on_context_create"),
        ("proxy_on_vm_start", "on_vm_start"),
        ("proxy_on_configure", "on_configure"),
    ],
)
def test_a_trap_while_starting_tells_its_phase(
    make_guest: MakeGuest, callback: str, phase: str
) -> None:
    guest = make_guest(start=False)
    guest.on(callback, trap())

    with pytest.raises(GuestTrap) as caught:
        run(guest.vm.start())

    assert (caught.value.plugin, caught.value.phase) == ("tested", phase)
    assert guest.instance.poisoned


@pytest.mark.parametrize(("shape", "callback"), [(COMMAND, "_start"), (REACTOR, "main")])
def test_a_main_may_end_with_exit_code_zero(
    make_guest: MakeGuest, shape: Shape, callback: str
) -> None:
    guest = make_guest(shape=shape, start=False)
    guest.on(callback, call("proc_exit", 0))
    run(guest.vm.start())
    stream = new_stream(guest)
    begin(stream)

    assert stream.request.passed
    assert guest.called[-1] == "on_request_headers"


@pytest.mark.parametrize(("shape", "callback"), [(COMMAND, "_start"), (REACTOR, "main")])
def test_a_main_that_ends_with_another_code_does_not_load(
    make_guest: MakeGuest, shape: Shape, callback: str
) -> None:
    guest = make_guest(shape=shape, start=False)
    guest.on(callback, call("proc_exit", 3))

    with pytest.raises(GuestExit, match="exit code 3"):
        run(guest.vm.start())

    assert guest.instance.poisoned


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("callback", ["_initialize", "proxy_on_vm_start", "proxy_on_configure"])
def test_an_exit_elsewhere_is_a_failure(make_guest: MakeGuest, callback: str, code: int) -> None:
    guest = make_guest(start=False)
    guest.on(callback, call("proc_exit", code))

    with pytest.raises(GuestError):
        run(guest.vm.start())


@pytest.mark.parametrize("code", [0, 1])
def test_an_exit_in_a_stream_loses_the_instance(guest: Guest, code: int) -> None:
    guest.on("proxy_on_request_headers", call("proc_exit", code))
    stream = new_stream(guest)
    begin(stream)

    assert stream.reply is not None
    assert guest.instance.poisoned


def test_starting_has_a_longer_timeout_than_calls(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = make_guest(start=False, timeout=0.25)
    seen: list[float | None] = []
    monkeypatch.setattr(guest.instance, "set_timeout", seen.append)
    run(guest.vm.start())

    assert seen[0] == limits.START_TIMEOUT
    assert seen[-1] == 0.25


def test_a_refused_configuration_leaves_the_timeout_of_calls(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float | None] = []
    monkeypatch.setattr(guest.instance, "set_timeout", seen.append)
    guest.on("proxy_on_configure", returns=0)

    with pytest.raises(PluginLoadError):
        run(guest.vm.add_root(b"other"))

    assert seen == [limits.START_TIMEOUT, None]
    assert b"other" not in guest.vm.roots


START_FUNCTION = """(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_configuration" (func $get (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (start $start)
  (func $start
    (i32.store (i32.const 0) (call $log (i32.const 5) (i32.const 0) (i32.const 4)))
    (i32.store (i32.const 4) (call $get (i32.const 8) (i32.const 12)))))"""


def test_a_start_function_may_make_host_calls(
    wasm_engine: Engine,
) -> None:
    vm = Vm(Plugin("tested", LOGGER, vm_config=b"config"), services())
    module = wasm_engine.compile(wat2wasm(START_FUNCTION))
    instance = module.instantiate(partial(resolve, vm), InstanceLimits(65536, 10))
    vm.attach(instance)
    run(vm.start())

    # The module has no allocator to take the configuration with.
    assert instance.memory.read(0, 8) == b"\0\0\0\0\6\0\0\0"
