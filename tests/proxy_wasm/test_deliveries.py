"""Queues, ticks and the end of root contexts: what comes to a guest from outside of any stream."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import Status
from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import PluginLoadError
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.ports import Services
from wasm_middleware.services.memory import MemoryQueues

from .harness import (
    LOGGER,
    OUT,
    FakeBackground,
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
from .scripted import guest_module

TICK = Delivery("proxy_on_tick")


def background_of(guest: Guest) -> FakeBackground:
    background = guest.services.background
    assert isinstance(background, FakeBackground)
    return background


def register(guest: Guest, name: bytes = b"jobs") -> int:
    status = guest.ask(root_of(guest), "proxy_register_shared_queue", guest.text(name), OUT)
    assert status == Status.OK
    return guest.u32()


def ready(guest: Guest) -> list[tuple[int, int]]:
    return [(root, queue) for root, queue, *_ in guest.arguments_of("proxy_on_queue_ready")]


def test_a_queue_is_ready_after_the_call_that_filled_it(guest: Guest) -> None:
    queue = register(guest)
    guest.ask(root_of(guest), "proxy_enqueue_shared_queue", queue, guest.text(b"one"))

    assert ready(guest) == []
    background_of(guest).run_all()
    assert ready(guest) == [(root_of(guest).id, queue)]


def test_each_message_is_told_once(guest: Guest) -> None:
    queue = register(guest)

    for value in (b"one", b"two"):
        guest.ask(root_of(guest), "proxy_enqueue_shared_queue", queue, guest.text(value))

    background_of(guest).run_all()

    assert ready(guest) == [(root_of(guest).id, queue)] * 2


def test_the_last_that_registered_is_told(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    queue = register(first)
    assert register(second) == queue
    first.ask(root_of(first), "proxy_enqueue_shared_queue", queue, first.text(b"one"))
    background_of(first).run_all()

    assert (len(ready(first)), len(ready(second))) == (0, 1)


def test_one_that_registers_again_is_the_last(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    queue = register(first)
    register(second)
    register(first)
    second.ask(root_of(second), "proxy_enqueue_shared_queue", queue, second.text(b"one"))
    background_of(first).run_all()

    assert (len(ready(first)), len(ready(second))) == (1, 0)


def test_when_the_last_has_failed_the_one_before_is_told(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    queue = register(first)
    register(second)
    second.on("proxy_on_tick", trap())
    run(second.vm.deliver(root_of(second), TICK))
    first.ask(root_of(first), "proxy_enqueue_shared_queue", queue, first.text(b"one"))
    background_of(first).run_all()

    assert len(ready(first)) == 1


def test_another_vm_id_finds_the_queue_and_its_owner_is_told(make_guest: MakeGuest) -> None:
    owner, other = make_guest(vm_id="owner"), make_guest(vm_id="other")
    queue = register(owner)
    found = other.ask(
        root_of(other),
        "proxy_resolve_shared_queue",
        other.text(b"owner"),
        other.text(b"jobs"),
        OUT,
    )
    assert (found, other.u32()) == (Status.OK, queue)
    other.ask(root_of(other), "proxy_enqueue_shared_queue", queue, other.text(b"one"))
    background_of(owner).run_all()

    assert ready(owner) == [(root_of(owner).id, queue)]
    assert ready(other) == []


def test_a_route_of_its_own_registers_for_its_own_root(make_guest: MakeGuest) -> None:
    guest = make_guest(config=b"one")
    second = run(guest.vm.add_root(b"second"))
    guest.ask(second, "proxy_register_shared_queue", guest.text(b"jobs"), OUT)
    queue = guest.u32()
    guest.ask(second, "proxy_enqueue_shared_queue", queue, guest.text(b"one"))
    background_of(guest).run_all()

    assert ready(guest) == [(second.id, queue)]


def test_a_new_consumer_is_told_of_each_message_that_waits(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    queue = register(first)

    for value in (b"one", b"two", b"three"):
        first.ask(root_of(first), "proxy_enqueue_shared_queue", queue, first.text(value))

    background_of(first).run_all()
    register(second)
    assert ready(second) == []
    background_of(first).run_all()

    assert ready(second) == [(root_of(second).id, queue)] * 3
    assert len(ready(first)) == 3


def test_a_backlog_is_told_one_by_one_so_that_others_get_their_turn(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    queue = register(first)

    for _ in range(100):
        first.ask(root_of(first), "proxy_enqueue_shared_queue", queue, first.text(b""))

    background_of(first).waiting.clear()

    for _ in range(5):
        register(second)
        register(first)

    assert len(background_of(first).waiting) == 10


def test_a_consumer_that_fills_and_empties_without_end_has_few_calls_on_their_way(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUE_CALLBACKS", 8)
    queue = register(guest)
    put_in = call("proxy_enqueue_shared_queue", queue, 8, 2)
    take_out = call("proxy_dequeue_shared_queue", queue, OUT, OUT + 4)
    guest.on("proxy_on_queue_ready", *[put_in, take_out] * 3)
    guest.ask(root_of(guest), "proxy_enqueue_shared_queue", queue, guest.text(b"one"))
    waiting = background_of(guest).waiting
    most = 0

    for _ in range(50):
        function, arguments = waiting.popleft()
        run(function(*arguments))
        most = max(most, len(waiting))

    assert most == 8


def test_the_consumer_that_takes_the_place_of_a_failed_one_is_told(make_guest: MakeGuest) -> None:
    failing = make_guest()
    queue = register(failing)
    failing.on("proxy_on_queue_ready", trap())

    for value in (b"one", b"two"):
        failing.ask(root_of(failing), "proxy_enqueue_shared_queue", queue, failing.text(value))

    background_of(failing).run_all()
    assert failing.vm.guest.poisoned
    new = make_guest()
    taken = call("proxy_dequeue_shared_queue", queue, OUT, OUT + 4)
    new.on("proxy_on_queue_ready", taken)
    assert register(new) == queue
    background_of(new).run_all()

    assert new.result(taken) == Status.OK
    assert len(ready(new)) == 2
    assert new.services.queues.dequeue(queue) is None


def test_a_root_that_is_done_is_told_no_more(make_guest: MakeGuest) -> None:
    before, guest = make_guest(), make_guest()
    queue = register(before)
    register(guest)
    run(guest.vm.end_roots())
    before.ask(root_of(before), "proxy_enqueue_shared_queue", queue, before.text(b"one"))
    background_of(before).run_all()

    assert ready(guest) == []
    assert len(ready(before)) == 1


@pytest.mark.parametrize("how", ["closed", "failed", "never started"])
def test_a_consumer_whose_instance_is_gone_is_forgotten(
    engine: Engine, services: Services, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A queue that nobody fills would keep the instance with all its memory for ever."""
    # A line that is kept keeps the error, and that the frames it came through.
    caplog.set_level(logging.CRITICAL, "wasm_middleware")
    plugin = Plugin(name="tested", logger=LOGGER, timeout=None)
    guest = Guest(guest_module(engine), plugin, services)
    name, size = guest.text(b"jobs")
    guest.on(
        "proxy_on_configure",
        call("proxy_register_shared_queue", name, size, OUT),
        returns=how != "never started",
    )

    if how == "never started":
        with pytest.raises(PluginLoadError):
            guest.start()
    else:
        guest.start()

    assert services.queues.resolve("", b"jobs") == 1

    if how == "failed":
        guest.on("proxy_on_tick", trap())
        run(guest.vm.deliver(root_of(guest), TICK))
        guest.instance.close()  # the VM itself is not told again
    else:
        guest.vm.close()

    gone = weakref.ref(guest.vm)
    del guest
    gc.collect()
    assert gone() is None


def test_a_consumer_may_dequeue_and_fill_again(guest: Guest) -> None:
    queue = register(guest)
    taken = call("proxy_dequeue_shared_queue", queue, OUT, OUT + 4)
    guest.on("proxy_on_queue_ready", taken, call("proxy_enqueue_shared_queue", queue, 8, 2))
    guest.on("proxy_on_queue_ready")
    guest.ask(root_of(guest), "proxy_enqueue_shared_queue", queue, guest.text(b"one"))
    background_of(guest).run_all()

    assert guest.result(taken) == Status.OK
    assert len(ready(guest)) == 2


def test_nobody_is_told_of_a_queue_without_consumers() -> None:
    queues = MemoryQueues()
    told: list[int] = []
    queue = queues.register("", b"jobs", lambda queue: False)
    queues.enqueue(queue, b"one")
    queues.register("", b"jobs", lambda queue: told.append(queue) is None)
    queues.enqueue(queue, b"two")

    assert told == [queue] * 2
    assert [queues.dequeue(queue) for _ in range(3)] == [b"one", b"two", None]


# Ticks


def test_a_tick_goes_to_its_root(guest: Guest) -> None:
    run(guest.vm.deliver(root_of(guest), TICK))

    assert guest.calls[-1] == ("proxy_on_tick", (root_of(guest).id, 0, 0, 0, 0))


def test_whoever_looks_is_told_of_a_new_period(guest: Guest) -> None:
    told: list[int] = []
    guest.vm.on_change = lambda: told.append(root_of(guest).tick_period)
    guest.on("proxy_on_request_headers", call("proxy_set_tick_period_milliseconds", 250))
    begin(new_stream(guest))

    assert told == [250]


def test_a_failed_instance_ticks_no_more(guest: Guest) -> None:
    guest.ask(root_of(guest), "proxy_set_tick_period_milliseconds", 250)
    guest.on("proxy_on_tick", trap())
    run(guest.vm.deliver(root_of(guest), TICK))
    before = guest.called
    run(guest.vm.deliver(root_of(guest), TICK))

    assert root_of(guest).tick_period == 0
    assert guest.called == before


def test_a_trap_in_a_tick_fails_the_streams_that_wait(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    context = held_in_headers(guest)
    guest.again("proxy_on_request_headers")
    idle = new_stream(guest)
    begin(idle, ended=True)
    guest.on("proxy_on_tick", trap())

    with caplog.at_level(logging.WARNING, "wasm_middleware"):
        run(guest.vm.deliver(root_of(guest), TICK))

    assert context.stream.reply is not None
    assert context.stream.reply.status == 503
    assert not idle.interrupted
    # The cause first, and once for all who waited.
    levels = [record.levelname for record in caplog.records if "in on_tick" in record.message]
    assert levels == ["ERROR", "WARNING"]


# The end of root contexts


def test_a_root_that_has_something_left_stays_until_it_is_done(guest: Guest) -> None:
    guest.on("proxy_on_done", returns=0)
    root = root_of(guest)
    run(guest.vm.end_roots())
    assert guest.vm.pending_done == [root]

    guest.on("proxy_on_tick", call("proxy_done"))
    run(guest.vm.deliver(root, TICK))
    assert guest.called[-1] == "on_tick"
    background_of(guest).run_all()

    assert guest.called[-1] == "on_delete"
    assert guest.vm.pending_done == []
    run(guest.vm.deliver(root, TICK))
    assert guest.called.count("on_delete") == 1
    assert guest.called[-1] == "on_delete"


def test_done_without_need_ends_nothing(guest: Guest) -> None:
    assert guest.ask(root_of(guest), "proxy_done") == Status.OK
    background_of(guest).run_all()

    assert "on_delete" not in guest.called


def test_done_twice_ends_it_once(guest: Guest) -> None:
    guest.on("proxy_on_done", returns=0)
    run(guest.vm.end_roots())
    statuses = [guest.ask(root_of(guest), "proxy_done") for _ in range(2)]
    background_of(guest).run_all()

    assert statuses == [Status.OK, Status.OK]
    assert guest.called.count("on_delete") == 1


def test_a_root_that_never_is_done_ends_without_its_delete(guest: Guest) -> None:
    guest.on("proxy_on_done", returns=0)

    assert [name for name, _ in guest.shut_down()][-1] == "proxy_on_done"
