"""How streams end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wasm_middleware.engines.module_info import ExternKind, Import
from wasm_middleware.engines.null import NullEngine, NullGuest
from wasm_middleware.engines.protocol import InstanceLimits
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm

from .harness import (
    INFO,
    LOGGER,
    Guest,
    MakeGuest,
    begin,
    call,
    expire,
    new_stream,
    respond,
    run,
    send_body,
    services,
    trap,
)
from .scripted import Shape

ENDING = ["on_log", "on_done", "on_delete"]


def test_log_comes_before_done_and_done_before_delete(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    identity = stream.contexts[0].id
    respond(stream)
    run(stream.finish())

    assert guest.calls[-3:] == [(f"proxy_{name}", (identity, 0, 0, 0, 0)) for name in ENDING]


def test_logs_come_in_chain_order_before_anything_is_done(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guests = [make_guest() for _ in range(3)]

    for number, guest in enumerate(guests):
        for name in ENDING:
            said = guest.text(f"{number} {name}".encode())
            guest.on(f"proxy_{name}", call("proxy_log", 2, said), returns=1)

    stream = new_stream(*guests)
    begin(stream)

    with caplog.at_level(1, LOGGER.name):
        run(stream.finish())

    assert [record.message for record in caplog.records] == [
        *(f"{number} on_log" for number in range(3)),
        *(f"{number} {name}" for number in range(3) for name in ENDING[1:]),
    ]


def test_finishing_twice_ends_a_stream_once(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    run(stream.finish())
    run(stream.finish())

    assert [guest.called.count(name) for name in ENDING] == [1, 1, 1]
    assert len(guest.vm.contexts) == 1


def test_what_on_done_answers_does_not_count(guest: Guest) -> None:
    guest.on("proxy_on_done", returns=0)
    stream = new_stream(guest)
    begin(stream)
    run(stream.finish())

    assert guest.called[-1] == "on_delete"


def test_a_context_that_was_never_created_is_only_created_to_log(make_guest: MakeGuest) -> None:
    guest = make_guest(phases=frozenset({"on_log"}))
    stream = new_stream(guest)
    begin(stream)
    respond(stream)
    run(stream.finish())

    assert guest.called[-4:] == ["on_context_create", *ENDING]


def test_a_context_that_nothing_was_asked_of_is_never_created(make_guest: MakeGuest) -> None:
    guest = make_guest(phases=frozenset({"on_response_body"}))
    before = guest.called
    stream = new_stream(guest)
    begin(stream)
    respond(stream)
    run(stream.finish())

    assert guest.called == before


@pytest.mark.parametrize(
    "without",
    [{"proxy_on_log"}, {"proxy_on_done"}, {"proxy_on_delete"}, {"proxy_on_context_create"}],
)
def test_a_callback_that_is_not_exported_is_left_out(
    make_guest: MakeGuest, without: set[str]
) -> None:
    guest = make_guest(shape=Shape(without=frozenset(without)))
    stream = new_stream(guest)
    begin(stream)
    run(stream.finish())

    expected = [name for name in ENDING if f"proxy_{name}" not in without]
    assert guest.called[-len(expected) :] == expected


@pytest.mark.parametrize("callback", ["proxy_on_log", "proxy_on_done"])
def test_nothing_is_called_after_a_failure_at_the_end(guest: Guest, callback: str) -> None:
    guest.on(callback, trap())
    stream = new_stream(guest)
    begin(stream)
    run(stream.finish())

    # It is too late for the failure policy as well.
    assert (stream.interrupted, stream.reply, stream.aborted) == (False, None, None)
    assert guest.called[-1] == callback.removeprefix("proxy_")
    assert guest.vm.contexts.keys() == {root.id for root in guest.vm.roots.values()}


def test_the_failure_of_one_keeps_no_other_from_its_end(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    first.on("proxy_on_log", trap())
    stream = new_stream(first, second)
    begin(stream)
    run(stream.finish())

    assert second.called[-3:] == ENDING


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize(
    "phase", ["request_headers", "request_body", "response_headers", "response_body"]
)
def test_after_a_failure_every_other_plugin_still_ends(
    make_guest: MakeGuest, phase: str, fail_open: bool
) -> None:
    failing, other = make_guest(fail_open=fail_open), make_guest()
    failing.on(f"proxy_on_{phase}", trap())
    stream = new_stream(failing, other)
    begin(stream)

    if not stream.interrupted:
        send_body(stream, b"x")

    if not stream.interrupted:
        respond(stream)

    if not stream.interrupted:
        send_body(stream, b"y", response=True)

    if stream.interrupted:
        run(stream.begin_reply(head=False))

    run(stream.finish())

    assert failing.called[-1] == f"on_{phase}"
    assert other.called[-3:] == ENDING
    assert other.called.count("on_delete") == 1
    assert all(len(guest.vm.contexts) == 1 for guest in (failing, other))


def test_a_pause_that_expired_does_not_cost_the_delete(make_guest: MakeGuest) -> None:
    guest = make_guest(fail_open=True)
    guest.on("proxy_on_request_headers", returns=1)
    stream = new_stream(guest)
    begin(stream)
    expire(stream, stream.contexts[0])
    run(stream.finish())

    assert guest.called[-2:] == ["on_done", "on_delete"]


# Cancelled


class Slow(NullGuest):
    """Waits in `on_log` until it is let go or cancelled."""

    imports = (Import("env", "proxy_log", ExternKind.FUNCTION, "iii>i"),)

    class Wait:
        def __await__(self) -> Iterator[None]:
            yield None

    async def proxy_on_log(self, context: int) -> int:
        await self.Wait()
        return 0

    def proxy_on_delete(self, context: int) -> int:
        return 0


class Cancelled(BaseException):
    pass


def test_a_stream_that_was_cancelled_while_it_ended_is_finished_by_finishing_again(
    make_guest: MakeGuest,
) -> None:
    other = make_guest()
    vm = Vm(Plugin("slow", LOGGER), services())
    instance = (
        NullEngine({b"slow": Slow})
        .compile(b"slow")
        .instantiate(lambda *_: Host(), InstanceLimits(1 << 20, 10))
    )
    vm.attach(instance)
    run(vm.start())
    stream = Stream(other.services.clock, lambda: INFO)
    stream.add(vm, b"")
    stream.add(other.vm, b"")
    begin(stream)
    finishing = stream.finish()
    finishing.send(None)

    with pytest.raises(Cancelled):
        finishing.throw(Cancelled())

    # Its memory may be half-way through a change.
    assert instance.poisoned
    run(stream.finish())
    assert other.called[-3:] == ENDING
    assert len(vm.contexts) == 1


class Host:
    fault = 6
    faulted = None

    @staticmethod
    def call(*_arguments: int) -> int:
        return 0
