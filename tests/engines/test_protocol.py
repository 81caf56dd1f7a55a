"""What every engine promises (`engines.protocol`), with one guest on each of them.

The guest is the scripted one; its imports are bound to what a test gives.
"""

from __future__ import annotations

import pytest
from proxy_wasm.harness import call, run, trap
from proxy_wasm.scripted import (
    ARGUMENTS_AT,
    OUT,
    PAGE,
)

from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import (
    GuestExit,
    GuestTrap,
    HostBug,
    MemoryFault,
)

from .bench import FAULT, Bench, Make, nothing

# Values


@pytest.mark.parametrize("value", [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_an_i32_is_unsigned_on_its_way_out_and_back(make: Make, value: int) -> None:
    seen: list[object] = []

    def answer(*arguments: object) -> int:
        seen.append(arguments)
        return value

    bench = make(answer)
    bench.write("proxy_on_request_body", call("pthread_equal", value, 1), returns=value)

    assert bench.enter("proxy_on_request_body") == value
    assert seen[0] == ("pthread_equal", value, 1)
    assert bench.memory.read_u32(OUT) == value


@pytest.mark.parametrize("value", [0, 1, -1, 1 << 62, -(1 << 63), (1 << 63) - 1])
def test_an_i64_is_signed(make: Make, value: int) -> None:
    seen: list[object] = []

    def answer(*arguments: object) -> int:
        seen.append(arguments)
        return 3

    bench = make(answer)
    bench.write("proxy_on_tick", call("proxy_record_metric", 0xFFFF_FFFF, value))
    bench.enter()

    assert seen == [("proxy_record_metric", 0xFFFF_FFFF, value)]
    assert bench.memory.read_u32(OUT) == 3


@pytest.mark.parametrize(("answered", "got"), [(-1, 0xFFFF_FFFF), (True, 1), (1 << 32, 0)])
def test_what_the_host_answers_is_cut_to_32_bits(make: Make, answered: int, got: int) -> None:
    bench = make(lambda *_: answered)
    bench.write("proxy_on_tick", call("proxy_done"))
    bench.enter()

    assert bench.memory.read_u32(OUT) == got


def test_a_host_function_without_parameters_gets_none(make: Make) -> None:
    seen: list[object] = []
    bench = make(lambda *arguments: seen.append(arguments) or 5)
    bench.write("proxy_on_tick", call("proxy_done"), call("sched_yield"))
    bench.enter()

    assert seen == [("proxy_done",), ("sched_yield",)]
    assert bench.memory.read_u32(OUT) == 5


def test_the_answer_is_dropped_where_the_import_has_no_result(make: Make) -> None:
    seen: list[object] = []
    bench = make(lambda *arguments: seen.append(arguments) or 9)
    bench.write(
        "proxy_on_tick",
        call("emscripten_notify_memory_growth", 4),
        call("proxy_continue_request"),
    )
    bench.enter()

    assert seen == [("emscripten_notify_memory_growth", 4), ("proxy_continue_request",)]


def test_missing_arguments_are_zero_and_more_of_them_are_dropped(make: Make) -> None:
    bench = make(nothing)
    bench.write("proxy_on_tick")
    bench.enter("proxy_on_tick", 7, 8, 9)
    assert [bench.memory.read_u32(ARGUMENTS_AT + 4 * index) for index in range(3)] == [7, 0, 0]
    bench.enter("proxy_on_request_headers", 7)
    assert [bench.memory.read_u32(ARGUMENTS_AT + 4 * index) for index in range(3)] == [7, 0, 0]


def test_a_function_without_result_answers_zero(wasm_engine: Engine) -> None:
    bench = Bench(wasm_engine, nothing)
    bench.write("proxy_on_log", returns=5)

    assert bench.enter("proxy_on_log", 1) == 0


def test_a_name_that_is_not_exported_is_no_function(make: Make) -> None:
    bench = make(nothing)

    assert bench.instance.function("nothing") is None
    assert bench.instance.inner_function("nothing") is None
    assert bench.instance.function("memory") is None


# Failures of the host


class Stop(BaseException):
    """Not an `Exception`: what a cancelled task or Ctrl-C raises."""


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), Stop(), HostBug("x"), GuestTrap("x")])
def test_what_a_host_function_raises_leaves_the_guest_call_as_it_is(
    make: Make, error: BaseException
) -> None:
    def answer(*_arguments: object) -> int:
        raise error

    bench = make(answer)
    bench.write("proxy_on_tick", call("proxy_done"))

    with pytest.raises(type(error)) as caught:
        bench.enter()

    assert caught.value is error
    assert bench.instance.poisoned


@pytest.mark.parametrize("name", ["proxy_done", "proxy_log", "proxy_record_metric"])
def test_a_bad_pointer_is_the_functions_fault_and_no_trap(make: Make, name: str) -> None:
    def answer(*_arguments: object) -> int:
        raise MemoryFault("x")

    bench = make(answer)
    bench.write("proxy_on_tick", call(name))
    bench.enter()

    assert bench.memory.read_u32(OUT) == FAULT
    assert not bench.instance.poisoned


@pytest.mark.parametrize("name", ["proxy_continue_request", "emscripten_notify_memory_growth"])
def test_a_bad_pointer_where_there_is_no_result_changes_nothing(make: Make, name: str) -> None:
    def answer(*_arguments: object) -> int:
        raise MemoryFault("x")

    bench = make(answer)
    bench.write("proxy_on_tick", call(name))
    bench.enter()

    assert not bench.instance.poisoned


def test_an_exit_with_code_zero_poisons_nothing(make: Make) -> None:
    leaves = [True]

    def answer(*_arguments: object) -> int:
        if leaves.pop():
            raise GuestExit(0)

        return 0

    bench = make(answer)
    bench.write("proxy_on_tick", call("proc_exit", 0))

    with pytest.raises(GuestExit):
        bench.enter()

    assert not bench.instance.poisoned
    leaves.append(False)
    bench.write("proxy_on_tick")
    bench.enter()


def test_an_exit_is_not_taken_for_the_cause_of_a_later_trap(make: Make) -> None:
    def answer(*_arguments: object) -> int:
        raise GuestExit(0)

    bench = make(answer)
    bench.write("proxy_on_tick", call("proc_exit", 0))

    with pytest.raises(GuestExit):
        bench.enter()

    bench.write("proxy_on_tick", trap())

    with pytest.raises(GuestTrap, match="unreachable"):
        bench.enter()


def test_an_exit_with_another_code_poisons(make: Make) -> None:
    def answer(*_arguments: object) -> int:
        raise GuestExit(2)

    bench = make(answer)
    bench.write("proxy_on_tick", call("proc_exit", 2))

    with pytest.raises(GuestExit):
        bench.enter()

    assert bench.instance.poisoned


# Failures of the guest


def test_a_trap_poisons_and_a_poisoned_instance_is_a_host_bug_to_enter(make: Make) -> None:
    bench = make(nothing)
    bench.write("proxy_on_tick", trap())

    with pytest.raises(GuestTrap, match="unreachable"):
        bench.enter()

    assert bench.instance.poisoned

    with pytest.raises(HostBug):
        bench.enter("proxy_on_log")


def test_an_instance_that_is_busy_is_a_host_bug_to_enter(make: Make) -> None:
    errors: list[HostBug] = []

    def answer(*_arguments: object) -> int:
        try:
            bench.enter("proxy_on_log")
        except HostBug as error:
            errors.append(error)

        return 0

    bench = make(answer)
    bench.write("proxy_on_tick", call("proxy_done"))
    bench.enter()

    assert len(errors) == 1
    assert not bench.instance.poisoned


# The allocator


def test_a_host_function_may_call_an_inner_function(make: Make) -> None:
    def answer(*_arguments: object) -> int:
        allocate = bench.instance.inner_function("malloc")
        assert allocate is not None
        return allocate(24)

    bench = make(answer)
    bench.write("proxy_on_tick", call("proxy_done"))
    bench.enter()

    assert bench.memory.read_u32(OUT) == 4 * PAGE


def test_an_inner_failure_is_that_of_the_outer_call(make: Make) -> None:
    inner: list[BaseException] = []

    def answer(*_arguments: object) -> int:
        allocate = bench.instance.inner_function("malloc")
        assert allocate is not None

        try:
            return allocate(24)
        except GuestTrap as error:
            inner.append(error)
            raise

    bench = make(answer)
    bench.write("proxy_on_tick", call("proxy_done"))
    bench.write("malloc", trap())

    with pytest.raises(GuestTrap) as caught:
        bench.enter()

    assert caught.value is inner[0]
    assert bench.instance.poisoned


def test_a_host_function_that_fails_within_an_inner_one_fails_both(make: Make) -> None:
    error = ZeroDivisionError()

    def answer(name: str, *_arguments: object) -> int:
        if name == "sched_yield":
            raise error

        allocate = bench.instance.inner_function("malloc")
        assert allocate is not None
        return allocate(24)

    bench = make(answer)
    bench.write("proxy_on_tick", call("proxy_done"))
    bench.write("malloc", call("sched_yield"))

    with pytest.raises(ZeroDivisionError) as caught:
        bench.enter()

    assert caught.value is error


# The end


def test_closing_twice_is_fine_and_nothing_can_be_called_afterwards(make: Make) -> None:
    bench = make(nothing)
    function = bench.instance.function("proxy_on_tick")
    assert function is not None
    bench.instance.close()
    bench.instance.close()

    assert bench.instance.poisoned

    with pytest.raises(HostBug):
        run(function())


def test_an_engine_says_what_it_is(engine: Engine) -> None:
    assert engine.name in engine.description
