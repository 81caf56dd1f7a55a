"""Calls in slices: a guest that computes gives way, one whose host call waits is left alone."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator

import pytest

from tests.wat import wat2wasm
from wasm_middleware.engines.protocol import InstanceLimits
from wasm_middleware.engines.wasmtime import WasmtimeEngine, sliced
from wasm_middleware.engines.wasmtime.instance import WasmtimeInstance
from wasm_middleware.engines.wasmtime.public import PublicBinding
from wasm_middleware.engines.wasmtime.selftest import why_not_sliced
from wasm_middleware.engines.wasmtime.sliced import Waiting
from wasm_middleware.engines.wasmtime.slices import Slices
from wasm_middleware.errors import (
    AbiViolation,
    GuestError,
    GuestTimeout,
    GuestTrap,
    HostBug,
    HostWait,
    MemoryFault,
)
from wasm_middleware.proxy_wasm.ports import HostFunction

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="runs inline on this Python"),
]

GUEST = """(module
  (import "env" "host" (func $host (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "nop") (param i32) (result i32) (local.get 0))
  (func (export "spin") (loop $l (br $l)))
  (func $count (export "count") (param i32) (result i32) (local i32)
    (loop $l
      (local.set 1 (i32.add (local.get 1) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get 1) (local.get 0))))
    (local.get 1))
  (func (export "twice") (param i32) (result i32)
    (i32.add (call $host (local.get 0)) (call $host (i32.const 1000))))
  (func (export "call") (param i32) (result i32) (call $host (local.get 0)))
  (func (export "allocate_and_spin") (drop (call $host (i32.const 0))) (loop $l (br $l)))
  (func (export "ask_for_ever") (loop $l (drop (call $host (i32.const 0))) (br $l)))
  (func (export "ask_and_count") (param i32) (result i32)
    (drop (call $host (i32.const 0))) (call $count (local.get 0)))
  (func (export "count_and_ask") (param i32) (result i32)
    (call $host (call $count (local.get 0))))
  (func $deep (export "deep") (param i32) (result i32)
    (if (result i32) (i32.eqz (local.get 0))
      (then (call $host (i32.const 0)))
      (else (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1)))))))
  (func (export "allocate") (param i32) (result i32)
    (if (i32.eq (local.get 0) (i32.const 666)) (then (loop $l (br $l))))
    (i32.const 4096)))"""

Answer = Callable[[int], int]
Outcome = Coroutine[object, object, Callable[[], int]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def engine() -> Iterator[WasmtimeEngine]:
    engine = WasmtimeEngine(sliced=True)
    assert engine.suspends
    assert engine.description.endswith("sliced")
    yield engine
    engine.close()


class Guest:
    """One instance; its host call is `answer`."""

    def __init__(
        self,
        engine: WasmtimeEngine,
        answer: Answer = lambda _: 0,
        *,
        waits: bool = False,
        timeout: float | None = 5.0,
        wat: str = GUEST,
    ) -> None:
        function = HostFunction(answer, 0xFFFF_FFFF, may_wait=waits)
        module = engine.compile(wat2wasm(wat))
        self.instance: WasmtimeInstance = module.instantiate(
            lambda *_: function, InstanceLimits(1 << 20, 100)
        )
        self.instance.set_timeout(timeout)

    def call(self, name: str, *arguments: int) -> Coroutine[None, None, int]:
        function = self.instance.function(name)
        assert function is not None
        return function(*arguments)


async def turns(ended: asyncio.Future[object]) -> int:
    """How many turns the loop takes until something has ended."""
    count = 0

    while not ended.done():
        count += 1
        await asyncio.sleep(0)

    return count


async def test_a_guest_that_computes_gives_way_and_comes_to_its_end(engine):
    guest = Guest(engine)
    call = asyncio.ensure_future(guest.call("count", 30_000_000))

    assert await turns(call) > 5
    assert await call == 30_000_000
    assert not guest.instance.poisoned


async def test_the_timeout_counts_the_time_in_which_it_ran(engine):
    """Sixteen that spin take sixteen times as long, and each has its whole time."""
    guests = [Guest(engine, timeout=0.02) for _ in range(16)]
    started = time.perf_counter()
    errors = await asyncio.gather(*(guest.call("spin") for guest in guests), return_exceptions=True)

    assert time.perf_counter() - started >= 16 * 0.015
    assert {type(error) for error in errors} == {GuestTimeout}
    assert "its timeout of 20 ms" in str(errors[0])
    assert all(guest.instance.poisoned for guest in guests)


async def test_of_those_that_spin_one_advances_in_a_turn_of_the_loop(engine):
    """However many begin at once: between two slices every other task has its turn."""
    guests = [Guest(engine, timeout=0.01) for _ in range(8)]
    calls = asyncio.gather(*(guest.call("spin") for guest in guests), return_exceptions=True)

    # Each has several slices.
    assert await turns(asyncio.ensure_future(calls)) >= 8 * 3


async def test_a_quick_call_waits_for_no_more_than_a_slice(engine):
    spinner, quick = Guest(engine, timeout=0.5), Guest(engine)
    spinning = asyncio.ensure_future(spinner.call("spin"))
    await asyncio.sleep(0)

    for number in range(100):
        assert await quick.call("nop", number) == number

    assert not spinning.done()

    with pytest.raises(GuestTimeout):
        await spinning


async def later(answer: Answer, value: int) -> Callable[[], int]:
    await asyncio.sleep(0.001)
    return lambda: answer(value)


def waits_for(
    outcome: Callable[[], Outcome],
    given_up: Callable[[GuestError], int] = lambda _: 0,
    forget: Callable[[], None] = lambda: None,
) -> HostWait:
    return HostWait(outcome, given_up, forget)


async def test_a_host_call_that_waits_is_called_on_when_it_has_its_result(engine):
    """Twice in one call; and it may call the allocator then."""
    calls = []

    def answer(value: int) -> int:
        calls.append(value)
        raise waits_for(lambda: later(lambda value: value + allocate(0), value))

    guest = Guest(engine, answer, waits=True)
    allocate = guest.instance.inner_function("allocate")
    assert allocate is not None

    assert await guest.call("twice", 7) == 7 + 4096 + 1000 + 4096
    assert calls == [7, 1000]


async def test_while_it_waits_others_run_and_nobody_spins(engine):
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> Callable[[], int]:
        await gate
        return lambda: 5

    def answer(_value: int) -> int:
        raise waits_for(wait)

    guest, other = Guest(engine, answer, waits=True, timeout=0.01), Guest(engine)
    waiting = asyncio.ensure_future(guest.call("call", 1))
    await asyncio.sleep(0.05)

    # Not its time: the timeout is for what it computes.
    assert not waiting.done()
    assert await other.call("nop", 3) == 3
    gate.set_result(None)
    assert await waiting == 5


async def test_while_it_waits_the_host_is_not_asked_again_and_again(engine, monkeypatch):
    asked = 0
    call = Waiting.call

    def counted(self: Waiting, *arguments: int) -> int:
        nonlocal asked
        asked += 1
        return call(self, *arguments)

    monkeypatch.setattr(Waiting, "call", counted)

    def answer(value: int) -> int:
        raise waits_for(lambda: later(lambda value: value, value))

    assert await Guest(engine, answer, waits=True).call("call", 6) == 6
    assert asked == 2


async def test_a_host_call_that_may_wait_need_not(engine):
    guest = Guest(engine, lambda value: value + 1, waits=True)

    assert await guest.call("call", 41) == 42
    assert await guest.call("call", 0xFFFF_FFFE) == 0xFFFF_FFFF


async def test_what_fails_while_it_is_waited_for_leaves_the_guest_call(engine):
    async def fail() -> Callable[[], int]:
        raise ZeroDivisionError("the store is broken")

    def answer(_value: int) -> int:
        raise waits_for(fail)

    guest = Guest(engine, answer, waits=True)

    with pytest.raises(ZeroDivisionError, match="the store is broken"):
        await guest.call("call", 1)

    assert guest.instance.poisoned


async def never() -> Callable[[], int]:
    await asyncio.Event().wait()
    raise AssertionError


class Given:
    """Host calls that wait; what they are told when they are given up."""

    def __init__(self, outcome: Callable[[], Outcome]) -> None:
        self.outcome = outcome
        self.errors: list[GuestError] = []
        self.begun = self.forgotten = 0

    def answer(self, _value: int) -> int:
        raise waits_for(self._begin, self._given_up, self._forget)

    def _begin(self) -> Outcome:
        self.begun += 1
        return self.outcome()

    def _given_up(self, error: GuestError) -> int:
        self.errors.append(error)
        return 40 + len(self.errors)

    def _forget(self) -> None:
        self.forgotten += 1


async def test_a_wait_beyond_its_request_costs_the_request_alone(engine):
    """The next one in the same call is given up at once; the next call may wait again."""
    given = Given(never)
    guest = Guest(engine, given.answer, waits=True)
    guest.instance.limit_call(0.02)

    assert await guest.call("twice", 1) == 41 + 42
    assert [type(error) for error in given.errors] == [GuestTimeout] * 2
    assert "longer than the 20 ms left of its request_timeout" in str(given.errors[0])
    assert (given.begun, given.forgotten) == (1, 1)
    assert not guest.instance.poisoned

    given.outcome = lambda: later(lambda value: value, 5)
    assert await guest.call("twice", 1) == 10


async def test_where_no_time_is_left_no_wait_begins(engine):
    given = Given(never)
    guest = Guest(engine, given.answer, waits=True)
    guest.instance.limit_call(0.0)

    assert await guest.call("call", 1) == 41
    assert (given.begun, given.forgotten) == (0, 1)


async def test_time_passed_in_a_host_call_is_the_requests_too(engine):
    """One that keeps the thread, before the guest was left for the first time."""
    given = Given(never)

    def answer(value: int) -> int:
        # Nobody waits for it: it is what happens.
        time.sleep(0.03)
        return given.answer(value)

    guest = Guest(engine, answer, waits=True)
    guest.instance.limit_call(0.02)

    assert await guest.call("call", 1) == 41
    assert given.begun == 0


async def test_all_waits_of_a_call_have_an_end_together(engine, monkeypatch):
    """However short each is: a loop of them would keep its request for ever."""
    monkeypatch.setattr(sliced, "MAX_HOST_WAIT", 0.05)
    given = Given(lambda: later(lambda value: value, 0))
    guest = Guest(engine, given.answer, waits=True, timeout=0.1)
    started = time.perf_counter()

    with pytest.raises(GuestTimeout, match="its timeout of 100 ms"):
        await guest.call("ask_for_ever")

    assert 1 < given.begun <= 51
    assert "no results for 0.05 s in all" in str(given.errors[0])
    assert time.perf_counter() - started < 5


async def test_a_guest_whose_wait_was_given_up_has_time_to_end(engine):
    """Its request is over, but not its `timeout`."""
    guest = Guest(engine, Given(never).answer, waits=True)
    guest.instance.limit_call(0.01)

    assert await guest.call("ask_and_count", 10_000_000) == 10_000_000
    assert not guest.instance.poisoned


async def test_one_that_computes_beyond_its_request_is_ended(engine):
    guest = Guest(engine, Given(never).answer, waits=True)
    guest.instance.limit_call(0.01)

    with pytest.raises(GuestTimeout, match="request_timeout"):
        await guest.call("spin")

    assert guest.instance.poisoned


async def test_an_allocator_can_not_wait(engine):
    """It is called by Python, and could not be left. Its host call fails, and nothing else."""
    given = Given(never)
    answers = []

    def answer(value: int) -> int:
        if value == 1:
            raise waits_for(lambda: later(lambda _: inner(2), 0))

        return given.answer(value)

    guest = Guest(engine, answer, waits=True)
    inner = guest.instance.inner_function("call")
    assert inner is not None
    answers.append(await guest.call("call", 1))

    assert answers == [41]
    assert [type(error) for error in given.errors] == [AbiViolation]
    assert (given.begun, given.forgotten) == (0, 1)
    assert not guest.instance.poisoned


async def test_what_never_began_is_forgotten_with_its_call(engine):
    """The guest has used up its time when it comes to wait."""
    given = Given(never)
    guest = Guest(engine, given.answer, waits=True, timeout=0.005)

    with pytest.raises(GuestTimeout):
        await guest.call("count_and_ask", 30_000_000)

    assert given.begun == 0


async def test_an_instance_that_is_closed_while_it_waits(engine):
    """The caller learns of it at once, and what it waits for ends."""
    inside = asyncio.Event()
    ended = []

    async def wait() -> Callable[[], int]:
        try:
            inside.set()
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            ended.append(1)
            # It takes its time: nobody waits for that.
            await asyncio.sleep(30)

    guest = Guest(engine, Given(wait).answer, waits=True)
    call = asyncio.ensure_future(guest.call("call", 1))
    await inside.wait()
    guest.instance.close()

    with pytest.raises(GuestTrap, match="closed while it was called"):
        await asyncio.wait_for(call, 5)

    assert ended == [1]


def test_an_instance_may_be_closed_when_the_loop_that_it_waited_in_has_ended(engine):
    guest = Guest(engine, Given(never).answer, waits=True)
    loop = asyncio.new_event_loop()
    call = loop.create_task(guest.call("call", 1))
    loop.run_until_complete(asyncio.sleep(0.01))
    waiting = guest.instance._waiting
    loop.close()
    guest.instance.close()
    # Nobody will: Python complains of what is dropped while it waits.
    call._log_destroy_pending = waiting._log_destroy_pending = False


async def test_a_bad_pointer_found_after_the_wait_is_answered_as_ever(engine):
    def fault(_value: int) -> int:
        raise MemoryFault("a pointer")

    def answer(value: int) -> int:
        raise waits_for(lambda: later(fault, value))

    assert await Guest(engine, answer, waits=True).call("call", 1) == 0xFFFF_FFFF


async def test_an_allocator_that_spins_ends_its_call_and_not_the_process(engine):
    """The tick comes while Python is on the guest's stack: it must not be left then."""

    def answer(value: int) -> int:
        return allocate(value)

    guest = Guest(engine, answer)
    allocate = guest.instance.inner_function("allocate")
    assert allocate is not None
    assert await guest.call("call", 1) == 4096

    with pytest.raises(GuestTimeout, match="its allocator ran for longer than the 1 ms"):
        await guest.call("call", 666)

    assert guest.instance.poisoned
    gc.collect()
    assert await Guest(engine).call("nop", 1) == 1


async def test_a_host_call_at_the_end_of_the_stack_has_room(engine):
    """Recursion to the stack's end, and Python on top of it."""

    def python(depth: int) -> int:
        return python(depth - 1) + 1 if depth else 0

    guest = Guest(engine, lambda _: python(500))

    for depth in (10, 1_000, 4_000):
        assert await guest.call("deep", depth) == depth + 500

    with pytest.raises(GuestTrap, match="stack"):
        await guest.call("deep", 1_000_000)


class Endless:
    """Python ends this by its bound on recursion; each way uses another amount of stack a level."""

    def python(self, value: object = None) -> object:
        return self.python(value)

    def sort(self, _value: object = None) -> object:
        return sorted([1, 2], key=self.sort)

    def represent(self) -> object:
        nested: OrderedDict[str, object] = OrderedDict()

        for _ in range(100_000):
            nested = OrderedDict(inner=nested)

        return repr(nested)

    def parse(self) -> object:
        return json.loads("[" * 100_000)


@pytest.mark.parametrize("way", ["python", "sort", "represent", "parse"])
async def test_endless_recursion_in_a_host_call_ends_as_it_does_elsewhere(engine, way):
    """Each Python has another bound, in C and in Python; there is stack for all of it."""

    def answer(_value: int) -> int:
        with pytest.raises(RecursionError):
            getattr(Endless(), way)()

        return 5

    assert await Guest(engine, answer).call("deep", 4_000) == 4_005


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no thread can be interrupted")
@pytest.mark.parametrize("name", ["spin", "allocate_and_spin"])
def test_an_interrupt_is_not_lost_while_a_guest_computes(engine, name):
    """As Ctrl-C is where nobody but Python handles it. Each time: it may come anywhere."""
    main = threading.main_thread()
    allocated = threading.Event()

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def answer(value: int) -> int:
        allocate(value)
        allocated.set()
        return 0

    def send(milliseconds: int) -> None:
        def computes() -> bool:
            if name == "spin":
                return bool(engine._clock.running)

            # Right after its host call, the callback may be asked once.
            return allocated.is_set() and guest.instance._fiber._yields_alone

        while not computes():
            time.sleep(0.0005)

        time.sleep(milliseconds / 1e3)
        signal.pthread_kill(main.ident, signal.SIGUSR1)

    handler = signal.signal(signal.SIGUSR1, interrupt)

    try:
        for milliseconds in range(10):
            allocated.clear()
            guest = Guest(engine, answer, timeout=5.0)
            allocate = guest.instance.inner_function("allocate")
            assert allocate is not None
            sender = threading.Thread(target=send, args=(milliseconds,))
            sender.start()

            with pytest.raises(KeyboardInterrupt):
                asyncio.run(guest.call(name))

            sender.join()
    finally:
        signal.signal(signal.SIGUSR1, handler)


async def test_a_cancelled_call_costs_the_instance_alone(engine):
    guest = Guest(engine)
    call = asyncio.ensure_future(guest.call("spin"))
    await asyncio.sleep(0.005)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call

    assert guest.instance.poisoned

    with pytest.raises(HostBug, match="busy or poisoned"):
        await guest.call("nop", 1)

    assert await Guest(engine).call("nop", 1) == 1


async def test_an_instance_that_is_closed_in_the_middle_of_a_call(engine):
    guest = Guest(engine)
    call = asyncio.ensure_future(guest.call("spin"))
    await asyncio.sleep(0.005)
    guest.instance.close()

    with pytest.raises(GuestTrap, match="closed while it was called"):
        await call


async def test_a_start_function_gives_way_too(engine):
    wat = "(module (start $s) (func $s (loop $l (br $l))))"
    guest = Guest(engine, wat=wat, timeout=0.02)
    start = guest.instance.start_function()
    assert start is not None
    call = asyncio.ensure_future(start())
    assert await turns(call) > 5

    with pytest.raises(GuestTimeout):
        await call


async def test_an_instance_is_freed_when_nobody_has_it(engine):
    guest = Guest(engine, waits=True)
    await guest.call("nop", 1)
    seen = weakref.ref(guest.instance)
    guest.instance.close()
    del guest
    gc.collect()
    assert seen() is None


def test_each_loop_begins_anew(engine):
    """A loop that ended with guests in it leaves nothing that others would wait for."""

    left = []

    async def leave() -> None:
        left.append(asyncio.ensure_future(Guest(engine).call("spin")))
        await asyncio.sleep(0.005)

    async def call() -> int:
        return await Guest(engine).call("nop", 4)

    for _ in range(3):
        asyncio.run(leave())
        assert asyncio.run(call()) == 4


async def test_slices_go_round_robin_and_who_begins_goes_first():
    slices, order = Slices(), []

    async def spin(name: str, times: int) -> None:
        for _ in range(times):
            await slices.next()
            order.append(name)

    async def begin(name: str) -> None:
        await slices.begin()
        order.append(name)

    tasks = [asyncio.ensure_future(spin(name, 3)) for name in "ab"]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(begin("new")))
    await asyncio.gather(*tasks)

    assert order.index("new") <= 1
    assert [name for name in order if name != "new"] == ["a", "b", "a", "b", "a", "b"]


async def test_who_has_begun_goes_on_where_all_that_begin_are_slow():
    slices, went_on, ended = Slices(), [], []

    async def spin(number: int) -> None:
        await slices.begin()

        for _ in range(2):
            await slices.next()
            went_on.append(number)

        slices.spend()
        ended.append(number)

    tasks = []

    for number in range(100):
        tasks.append(asyncio.ensure_future(spin(number)))
        await asyncio.sleep(0)

    # In a hundred turns of the loop, each of which somebody could have begun in.
    assert len(went_on) >= 30
    await asyncio.gather(*tasks)
    assert len(ended) == 100


async def test_who_begins_keeps_its_place():
    slices, order = Slices(), []

    async def begin(name: str) -> None:
        await slices.begin()
        order.append(name)
        slices.spend()

    slices.spend()
    tasks = []

    for name in "abcdef":
        tasks.append(asyncio.ensure_future(begin(name)))
        await asyncio.sleep(0)

    await asyncio.gather(*tasks)
    assert order == list("abcdef")


def test_where_it_is_not_safe_it_says_why(monkeypatch):
    from wasm_middleware.engines.wasmtime import engine_config, selftest
    from wasm_middleware.engines.wasmtime.raw import RawBinding

    assert why_not_sliced(RawBinding(), engine_config) == ""
    assert why_not_sliced(PublicBinding(), engine_config) == "it needs wasmtime's raw calls"
    monkeypatch.setattr(selftest, "_FIRST_UNTRIED", (3, 10))
    assert "has not been tried" in why_not_sliced(RawBinding(), engine_config)
    engine = WasmtimeEngine(sliced=True)
    assert not engine.suspends
    assert engine.description.endswith("inline")
    engine.close()
