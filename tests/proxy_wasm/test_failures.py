"""Guests that fail, and the failure policy."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial

import pytest

from wasm_middleware import limits
from wasm_middleware.engines.null import NullGuest, NullModule
from wasm_middleware.engines.protocol import Engine, InstanceLimits
from wasm_middleware.errors import GuestError, GuestMemoryLimit, GuestTimeout, GuestTrap, HostBug
from wasm_middleware.limits import DEFAULT_MEMORY_LIMIT
from wasm_middleware.proxy_wasm import hostcalls
from wasm_middleware.proxy_wasm.hostcalls import resolve
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm

from .harness import (
    INFO,
    LOGGER,
    OUT,
    RESPONSE,
    Guest,
    MakeGuest,
    begin,
    call,
    expire,
    grow,
    held_in_headers,
    new_stream,
    respond,
    root_of,
    run,
    send_body,
    services,
    spin,
    trap,
)
from .scripted import MEMORY_PAGES, PAGE


class Suspends(NullGuest):
    """Holds requests back, and has a tick that an engine suspends."""

    def proxy_on_request_headers(self, _context: int, _count: int, _ended: int) -> int:
        return 1

    async def proxy_on_tick(self, _context: int) -> None:
        await Suspension()


class Suspension:
    def __await__(self) -> Generator[None, None, None]:
        yield


def suspending() -> tuple[Vm, Stream, Coroutine[object, object, int]]:
    """A VM, a stream that it holds, and a call of its guest's that has begun and is suspended."""
    vm = Vm(Plugin(name="tested", logger=LOGGER), services())
    allowed = InstanceLimits(DEFAULT_MEMORY_LIMIT, 1)
    instance = NullModule(Suspends).instantiate(partial(resolve, vm), allowed)
    vm.attach(instance)
    run(vm.start())
    stream = Stream(vm.services.clock, lambda: INFO)
    stream.add(vm, b"")
    begin(stream)
    tick = instance.function("proxy_on_tick")
    assert tick is not None
    suspended = vm.enter(vm.roots[b""], tick, "on_tick", 1)
    suspended.send(None)
    return vm, stream, suspended


def watch(guest: Guest) -> list[str]:
    """What whoever looks at an instance finds when it is told of a change."""
    told: list[str] = []
    guest.vm.on_change = lambda: told.append("poisoned" if guest.vm.guest.poisoned else "sound")
    return told


def close_guest(guest: Guest, look: Callable[[list[str]], object]) -> None:
    """Let `look` see all callbacks so far when its memory is about to go."""
    close = guest.instance.close

    def last_look() -> None:
        look(guest.called)
        guest.instance.close = close  # type: ignore[method-assign]
        close()

    guest.instance.close = last_look  # type: ignore[method-assign]


REQUEST_PHASES = ["request_headers", "request_body"]
PHASES = [*REQUEST_PHASES, "response_headers", "response_body"]


def pass_all(stream: Stream) -> tuple[bytes, bytes]:
    """Let a request and its response through as far as they go; the bodies that came out."""
    begin(stream)
    up = b"" if stream.interrupted else send_body(stream, b"up", b"load")

    if stream.interrupted or stream.paused_by is not None:
        return up, b""

    respond(stream)
    down = b"" if stream.interrupted else send_body(stream, b"down", b"load", response=True)
    return up, down


@pytest.mark.parametrize("phase", PHASES)
def test_fail_closed_makes_a_bare_503(
    guest: Guest, caplog: pytest.LogCaptureFixture, phase: str
) -> None:
    guest.on(f"proxy_on_{phase}", trap())
    stream = new_stream(guest)

    with caplog.at_level(logging.ERROR, LOGGER.name):
        pass_all(stream)

    assert stream.interrupted
    assert stream.reply is not None
    assert (stream.reply.status, stream.reply.body, stream.reply.headers) == (503, b"", ())
    assert stream.reply.details == "trap"
    [record] = caplog.records
    assert record.message.startswith(f"plugin 'tested' in on_{phase}: it trapped")


@pytest.mark.parametrize("phase", PHASES)
def test_fail_open_leaves_the_plugin_out_of_the_rest(make_guest: MakeGuest, phase: str) -> None:
    guest = make_guest(fail_open=True)
    guest.on(f"proxy_on_{phase}", trap())
    stream = new_stream(guest)
    bodies = pass_all(stream)
    run(stream.finish())

    assert bodies == (b"upload", b"download")
    assert not stream.interrupted
    assert guest.called[-1] == f"on_{phase}"


@pytest.mark.parametrize("phase", REQUEST_PHASES)
def test_fail_open_lets_the_other_plugins_run(make_guest: MakeGuest, phase: str) -> None:
    failing, other = make_guest(fail_open=True), make_guest()
    failing.on(f"proxy_on_{phase}", trap())
    pass_all(new_stream(failing, other))

    assert [name for name in other.called if name.startswith(("on_req", "on_res"))] == [
        "on_request_headers",
        *["on_request_body"] * 2,
        "on_response_headers",
        *["on_response_body"] * 2,
    ]


def test_under_fail_open_a_body_goes_on_as_the_plugin_left_it(make_guest: MakeGuest) -> None:
    guest = make_guest(fail_open=True)
    guest.on("proxy_on_request_body", returns=1)
    guest.on(
        "proxy_on_request_body",
        call("proxy_set_buffer_bytes", 0, 0, 2, guest.text(b"UP")),
        trap(),
    )

    assert pass_all(new_stream(guest))[0] == b"UPload"


def test_what_was_written_before_the_failure_stays(make_guest: MakeGuest) -> None:
    guest = make_guest(fail_open=True)
    guest.on(
        "proxy_on_request_headers",
        call("proxy_add_header_map_value", 0, guest.text(b"x-a"), guest.text(b"1")),
        trap(),
    )
    stream = new_stream(guest)

    assert (b"x-a", b"1") in begin(stream).pairs


def test_a_response_that_has_started_is_cut(guest: Guest) -> None:
    guest.on("proxy_on_response_body", trap())
    stream = new_stream(guest)
    begin(stream)
    respond(stream, RESPONSE)
    stream.committed = True
    output = send_body(stream, b"one", b"two", response=True)

    assert output == b""
    assert stream.interrupted
    assert isinstance(stream.aborted, GuestTrap)
    assert stream.reply is None


def test_the_503_passes_the_response_phases_of_the_others(make_guest: MakeGuest) -> None:
    failing, other = make_guest(), make_guest()
    failing.on("proxy_on_request_headers", trap())
    stream = new_stream(failing, other)
    begin(stream)
    run(stream.begin_reply(head=False))

    assert other.called[-1] == "on_response_headers"
    assert failing.called[-1] == "on_request_headers"


def test_a_failure_on_the_503_itself_makes_a_direct_one(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    first.on("proxy_on_request_headers", trap())
    second.on("proxy_on_response_headers", trap())
    stream = new_stream(first, second)
    begin(stream)
    run(stream.begin_reply(head=False))
    assert stream.interrupted
    run(stream.begin_reply(head=False))

    assert not stream.interrupted
    assert stream.response.headers is not None
    assert stream.response.headers.pairs[0] == (b":status", b"503")


def test_a_context_that_can_not_be_created_has_failed(guest: Guest) -> None:
    guest.on("proxy_on_context_create", trap())
    stream = new_stream(guest)
    begin(stream)
    run(stream.finish())

    assert stream.reply is not None
    assert guest.called[-1] == "on_context_create"


# Poisoned


def poisoned(guest: Guest) -> Guest:
    guest.on("proxy_on_foreign_function", trap())

    with pytest.raises(GuestTrap):
        guest.enter(None, "proxy_on_foreign_function")

    return guest


def test_a_failed_instance_is_never_entered_again(guest: Guest) -> None:
    before = poisoned(guest).called
    stream = new_stream(guest)
    begin(stream)
    run(stream.begin_reply(head=False))
    run(stream.finish())

    assert guest.called == before
    assert stream.reply is not None
    assert stream.reply.status == 503


def test_other_streams_of_a_failed_instance_get_the_policy(make_guest: MakeGuest) -> None:
    guest = make_guest(fail_open=True)
    stream = new_stream(guest)
    begin(stream)
    poisoned(guest)
    before = guest.called

    assert send_body(stream, b"body") == b"body"
    run(stream.finish())
    assert guest.called == before


def test_entering_a_failed_instance_says_why_not(guest: Guest) -> None:
    poisoned(guest)

    with pytest.raises(GuestTrap) as caught:
        guest.enter(None, "proxy_on_foreign_function")

    assert caught.value.reason == "its instance failed in another call, before this one began"
    assert caught.value.plugin == "tested"


def test_a_trap_in_an_exported_function_tells_where_it_was(guest: Guest) -> None:
    guest.on("proxy_on_foreign_function", trap())

    with pytest.raises(GuestTrap) as caught:
        guest.enter(None, "proxy_on_foreign_function")

    assert (caught.value.plugin, caught.value.phase) == ("tested", "on_foreign_function")
    assert "unreachable" in caught.value.reason


def test_a_bug_in_a_host_call_is_a_trap_for_the_plugin(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: int) -> int:
        raise ZeroDivisionError

    monkeypatch.setitem(hostcalls.IMPLEMENTED, "proxy_get_log_level", broken)  # type: ignore[arg-type]
    guest = make_guest()

    with caplog.at_level(logging.ERROR), pytest.raises(GuestTrap) as caught:
        guest.ask(None, "proxy_get_log_level", OUT)

    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "please report" in caplog.text


def test_an_instance_in_which_a_host_call_failed_is_poisoned(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the engine says that it is not: what waits for it has been told that it is."""

    async def busy(*_arguments: int) -> int:
        raise HostBug("busy")

    guest = make_guest()

    with pytest.raises(GuestTrap):
        run(guest.vm.enter(None, busy, "on_tick"))

    assert guest.vm.guest.poisoned


# Interrupted

INTERRUPTIONS = [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit]


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_an_interrupted_host_call_costs_the_instance(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """A signal's handler raises in whatever is running."""

    def interrupted(*_arguments: int) -> int:
        raise kind

    monkeypatch.setitem(hostcalls.IMPLEMENTED, "proxy_get_log_level", interrupted)  # type: ignore[arg-type]
    guest = make_guest()
    guest.ask(root_of(guest), "proxy_set_tick_period_milliseconds", 250)
    held = held_in_headers(guest).stream
    told = watch(guest)

    with pytest.raises(kind):
        guest.ask(root_of(guest), "proxy_get_log_level", OUT)

    assert guest.vm.guest.poisoned
    assert held.reply is not None
    assert (held.reply.status, held.reply.details) == (503, "trap")
    assert root_of(guest).tick_period == 0
    assert told == ["poisoned"]

    with pytest.raises(GuestTrap, match="failed in another call"):
        guest.enter(None, "proxy_on_foreign_function")


@pytest.mark.parametrize("how", ["cancelled", "dropped"])
def test_a_suspended_call_that_is_never_resumed_costs_the_instance(how: str) -> None:
    """As by an engine that suspends calls which take long."""
    vm, stream, suspended = suspending()
    assert stream.paused_by is not None

    if how == "dropped":
        suspended.close()
    else:
        with pytest.raises(asyncio.CancelledError):
            suspended.throw(asyncio.CancelledError())

    assert vm.guest.poisoned
    assert not vm.turn.busy
    assert stream.reply is not None
    assert stream.reply.status == 503


def test_a_call_that_is_cancelled_before_it_has_begun_costs_nothing(guest: Guest) -> None:
    held = held_in_headers(guest).stream

    async def not_its_turn(*_arguments: int) -> int:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(guest.vm.enter(None, not_its_turn, "on_tick"))

    assert not guest.vm.guest.poisoned
    assert not held.interrupted
    assert guest.enter(None, "proxy_on_foreign_function") == 0


# Unloaded


@pytest.mark.parametrize("fail_open", [False, True])
def test_streams_that_an_unloaded_instance_holds_get_the_policy_at_once(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, fail_open: bool
) -> None:
    guest = make_guest(fail_open=fail_open)
    stream = held_in_headers(guest).stream
    found: list[bool] = []
    stream.on_wake = lambda: found.append(guest.vm.guest.poisoned)
    run(guest.vm.end_roots())
    guest.vm.close()
    run(stream.proceed())

    assert found == [False]  # told before it was freed
    assert "its instance was unloaded" in caplog.text
    assert stream.request.passed is fail_open
    assert (stream.reply is not None) is not fail_open


def test_an_unloaded_instance_is_never_entered_again(guest: Guest) -> None:
    stream = held_in_headers(guest).stream
    seen: list[list[str]] = []
    close_guest(guest, seen.append)
    guest.vm.close()
    run(stream.begin_reply(head=False))
    run(stream.finish())

    with pytest.raises(GuestTrap, match="its instance was unloaded"):
        run(guest.vm.enter(None, guest.vm.callbacks.deliveries["proxy_on_tick"], "on_tick"))  # type: ignore[arg-type]

    assert seen[0][-1] == "on_request_headers"
    assert stream.reply is not None


def test_closing_twice_tells_once(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    stream = held_in_headers(guest).stream
    guest.vm.close()
    run(stream.begin_reply(head=False))
    assert not stream.interrupted
    guest.vm.close()

    assert not stream.interrupted
    assert caplog.text.count("its instance was unloaded") == 1


def test_closing_one_that_has_failed_tells_nobody_again(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    stream = held_in_headers(guest).stream
    poisoned(guest)
    assert stream.interrupted
    run(stream.begin_reply(head=False))
    guest.vm.close()

    assert not stream.interrupted
    assert "unloaded" not in caplog.text


# Pauses that never end


@pytest.mark.parametrize("phase", PHASES)
def test_a_pause_that_expires_under_fail_open_goes_on_without_the_plugin(
    make_guest: MakeGuest, phase: str
) -> None:
    guest = make_guest(fail_open=True)
    guest.on(f"proxy_on_{phase}", returns=1)
    stream = new_stream(guest)
    pass_all(stream)
    context = stream.contexts[0]
    assert stream.paused_by is context
    expire(stream, context)

    flow = stream.response if phase.startswith("response") else stream.request
    assert flow.passed
    assert flow.take_output() in (b"upload", b"download")
    assert flow.output_ended
    assert guest.called[-1] == f"on_{phase}"


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ("request_headers", "the request with its headers"),
        ("request_body", "the request with its body"),
        ("response_headers", "the response with its headers"),
        ("response_body", "the response with its body"),
    ],
)
def test_a_pause_that_expires_under_fail_closed_is_a_503_that_says_what_it_waited_for(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, phase: str, said: str
) -> None:
    guest = make_guest(pause_timeout=1.5)
    guest.on(f"proxy_on_{phase}", returns=1)
    stream = new_stream(guest)
    pass_all(stream)

    with caplog.at_level(logging.ERROR, LOGGER.name):
        expire(stream, stream.contexts[0])

    assert stream.reply is not None
    assert (stream.reply.status, stream.reply.details) == (503, "pause_timeout")
    assert f"it paused {said} and nothing resumed it within 1.5 s" in caplog.text


def test_a_pause_that_was_resumed_in_time_does_not_expire(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", returns=1)
    stream = new_stream(guest)
    begin(stream)
    context = stream.contexts[0]
    guest.ask(context, "proxy_continue_stream", 0)
    run(stream.proceed())
    expire(stream, context)

    assert not stream.interrupted


# Time and memory


@pytest.mark.parametrize("phase", PHASES)
def test_a_guest_that_spins_is_stopped_at_its_timeout(
    make_wasm_guest: MakeGuest, phase: str
) -> None:
    guest = make_wasm_guest(timeout=0.05)
    guest.on(f"proxy_on_{phase}", spin())
    stream = new_stream(guest)
    start = time.perf_counter()
    pass_all(stream)
    took = time.perf_counter() - start

    assert stream.reply is not None
    assert stream.reply.details == "timeout"
    assert 0.045 <= took < 1
    assert guest.vm.guest.poisoned


def test_the_time_of_a_call_does_not_count_for_the_next(make_wasm_guest: MakeGuest) -> None:
    guest = make_wasm_guest(timeout=0.25)
    deadline = time.perf_counter() + 0.6

    while time.perf_counter() < deadline:
        guest.enter(None, "proxy_on_tick")


def test_an_allocator_that_spins_is_stopped_too(make_wasm_guest: MakeGuest) -> None:
    guest = make_wasm_guest(timeout=0.05, config=b"config")
    guest.on("proxy_on_memory_allocate", spin())

    [root] = guest.vm.roots.values()

    with pytest.raises(GuestTimeout) as caught:
        guest.ask(root, "proxy_get_configuration", OUT, OUT + 4)

    assert caught.value.kind == "timeout"
    assert guest.vm.guest.poisoned


def test_a_guest_that_spins_while_it_starts_is_stopped(
    make_wasm_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "START_TIMEOUT", 0.05)
    guest = make_wasm_guest(start=False)
    guest.on("proxy_on_configure", spin())

    with pytest.raises(GuestTimeout) as caught:
        run(guest.vm.start())

    assert caught.value.phase == "on_configure"


@pytest.mark.parametrize("size", [MEMORY_PAGES, MEMORY_PAGES + 3])
def test_memory_does_not_grow_beyond_the_limit(make_guest: MakeGuest, size: int) -> None:
    guest = make_guest(memory_limit=size * PAGE)
    more = [grow(size - MEMORY_PAGES), grow(1)]
    guest.on("proxy_on_tick", *more)
    guest.enter(None, "proxy_on_tick")

    assert [guest.result(step) for step in more] == [MEMORY_PAGES, 0xFFFF_FFFF]
    assert guest.instance.memory.size == size * PAGE


def test_a_guest_that_aborts_at_its_limit_has_died_of_it(make_wasm_guest: MakeGuest) -> None:
    guest = make_wasm_guest(memory_limit=MEMORY_PAGES * PAGE)
    guest.on("proxy_on_request_headers", grow(1), trap())
    stream = new_stream(guest)
    begin(stream)

    assert stream.reply is not None
    assert stream.reply.details == "memory"


def test_a_guest_that_aborts_with_memory_left_has_trapped(make_wasm_guest: MakeGuest) -> None:
    guest = make_wasm_guest(memory_limit=4 * MEMORY_PAGES * PAGE)
    guest.on("proxy_on_request_headers", trap())
    stream = new_stream(guest)
    begin(stream)

    assert stream.reply is not None
    assert stream.reply.details == "trap"


def test_a_guest_that_begins_beyond_its_limit_is_not_made(
    engine: Engine, make_guest: MakeGuest
) -> None:
    with pytest.raises(GuestMemoryLimit) as caught:
        make_guest(memory_limit=(MEMORY_PAGES - 1) * PAGE)

    assert isinstance(caught.value, GuestError)
    assert caught.value.kind == "memory"
