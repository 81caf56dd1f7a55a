"""The scripted guest itself: the tests lean on it."""

from __future__ import annotations

from .harness import ARGUMENT, OUT, Guest, MakeGuest, call, grow
from .scripted import MEMORY_PAGES


def test_a_callback_returns_what_its_script_says(guest: Guest) -> None:
    guest.on("proxy_on_request_body", returns=3)

    assert guest.enter(None, "proxy_on_request_body") == 3


def test_scripts_follow_each_other_and_the_last_one_stays(guest: Guest) -> None:
    guest.on("proxy_on_request_body", returns=1)
    guest.on("proxy_on_request_body", returns=2)

    assert [guest.enter(None, "proxy_on_request_body") for _ in range(3)] == [1, 2, 2]


def test_host_calls_get_their_arguments_and_leave_their_results(guest: Guest) -> None:
    equal, unequal = call("pthread_equal", 7, 7), call("pthread_equal", 7, 8)
    guest.on("proxy_on_tick", equal, unequal)
    guest.enter(None, "proxy_on_tick", 1)

    assert (guest.result(equal), guest.result(unequal)) == (1, 0)


def test_arguments_can_be_fetched_when_the_call_is_made(guest: Guest) -> None:
    same = call("pthread_equal", ARGUMENT[0], 5)
    guest.on("proxy_on_tick", same)
    guest.enter(None, "proxy_on_tick", 5)

    assert guest.result(same) == 1


def test_wide_arguments_arrive_whole_and_signed(guest: Guest) -> None:
    made = call("proxy_define_metric", 1, guest.text(b"gauge"), OUT)
    guest.on("proxy_on_tick", made)
    guest.enter(None, "proxy_on_tick")
    metric = guest.u32()
    guest.ask(None, "proxy_increment_metric", metric, -(1 << 40))

    assert guest.services.metrics.get(metric) == -(1 << 40)


def test_it_grows_its_memory(guest: Guest) -> None:
    grown = grow(2)
    guest.on("proxy_on_tick", grown)
    guest.enter(None, "proxy_on_tick")

    assert guest.result(grown) == MEMORY_PAGES


def test_its_allocator_grows_memory_as_it_needs(make_guest: MakeGuest) -> None:
    guest = make_guest()
    address, size = guest.text(b"x" * 300_000)

    assert guest.memory.read(address + size - 1, 1) == b"x"
    assert guest.allocations == [300_000]
