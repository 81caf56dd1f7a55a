"""What the host does with a guest's allocator."""

from __future__ import annotations

import pytest

from wasm_middleware.abi.enums import Status
from wasm_middleware.errors import GuestTrap

from .harness import ARGUMENT, OUT, Guest, MakeGuest, call, grow, held_in_headers, trap
from .scripted import BUMP, Shape

GET = "proxy_get_header_map_value"


def get_accept(guest: Guest) -> tuple[object, ...]:
    return GET, 0, guest.text(b"accept"), OUT, OUT + 4


def test_exactly_the_size_is_allocated(guest: Guest) -> None:
    guest.ask(held_in_headers(guest), *get_accept(guest))

    assert guest.allocations == [len(b"text/html")]


def test_nothing_is_never_allocated(guest: Guest) -> None:
    context = held_in_headers(guest)
    guest.memory.write(OUT, b"\xff" * 8)

    status = guest.ask(context, GET, 0, guest.text(b"x-empty"), OUT, OUT + 4)

    assert (status, guest.u32(), guest.u32(OUT + 4)) == (Status.OK, 0, 0)
    assert guest.allocations == []


@pytest.mark.parametrize("address", [0, 0xFFFF_FFFF, 0xFFFF_FFF0])
def test_an_allocator_without_memory_is_an_invalid_access(guest: Guest, address: int) -> None:
    context = held_in_headers(guest)
    # -1 is how a script says that it allocates after all.
    guest.on("proxy_on_memory_allocate", returns=0xFFFF_FFFE if address == BUMP else address)

    assert guest.ask(context, *get_accept(guest)) == Status.INVALID_MEMORY_ACCESS


def test_an_allocation_that_reaches_beyond_the_memory_is_an_invalid_access(guest: Guest) -> None:
    context = held_in_headers(guest)
    guest.on("proxy_on_memory_allocate", returns=guest.instance.memory.size - 4)

    assert guest.ask(context, *get_accept(guest)) == Status.INVALID_MEMORY_ACCESS


def test_an_allocator_that_asks_the_host_for_bytes_is_refused_them(guest: Guest) -> None:
    context = held_in_headers(guest)
    inner = call(*get_accept(guest))  # type: ignore[arg-type]
    guest.on("proxy_on_memory_allocate", inner, returns=BUMP)

    status = guest.ask(context, *get_accept(guest))

    assert guest.result(inner) == Status.INVALID_MEMORY_ACCESS
    assert (status, guest.got()) == (Status.OK, b"text/html")


def test_after_a_refused_allocation_the_next_one_is_made(guest: Guest) -> None:
    context = held_in_headers(guest)
    guest.on("proxy_on_memory_allocate", returns=0)
    guest.on("proxy_on_memory_allocate", returns=BUMP)

    assert guest.ask(context, *get_accept(guest)) == Status.INVALID_MEMORY_ACCESS
    assert guest.ask(context, *get_accept(guest)) == Status.OK


def test_an_allocator_may_make_host_calls_that_allocate_nothing(guest: Guest) -> None:
    context = held_in_headers(guest)
    logged = call("proxy_get_current_time_nanoseconds", OUT + 40)
    guest.on("proxy_on_memory_allocate", logged, returns=BUMP)

    guest.ask(context, *get_accept(guest))

    assert guest.result(logged) == Status.OK
    assert guest.u64(OUT + 40) == guest.services.clock.now()


def test_an_allocator_that_traps_fails_the_call_it_was_needed_for(guest: Guest) -> None:
    context = held_in_headers(guest)
    guest.on("proxy_on_memory_allocate", trap())

    with pytest.raises(GuestTrap) as caught:
        guest.ask(context, *get_accept(guest))

    assert (caught.value.plugin, caught.value.phase) == ("tested", "on_tick")
    assert guest.vm.guest.poisoned


def test_memory_that_the_allocator_adds_is_seen(guest: Guest) -> None:
    context = held_in_headers(guest, [(b"big", b"x" * 400_000)])
    before = guest.instance.memory.size

    status = guest.ask(context, GET, 0, guest.text(b"big"), OUT, OUT + 4)

    assert (status, guest.got()) == (Status.OK, b"x" * 400_000)
    assert guest.instance.memory.size > before


def test_memory_that_the_guest_itself_adds_is_seen(guest: Guest) -> None:
    size = guest.instance.memory.size
    written = call("proxy_get_current_time_nanoseconds", size)
    guest.on("proxy_on_tick", grow(1), written, returns=ARGUMENT[0])
    guest.enter(None, "proxy_on_tick", 1)

    assert guest.result(written) == Status.OK
    assert guest.u64(size) == guest.services.clock.now()


def test_malloc_will_do(make_guest: MakeGuest) -> None:
    guest = make_guest(shape=Shape(without=frozenset({"proxy_on_memory_allocate"})))

    guest.ask(held_in_headers(guest), *get_accept(guest))

    assert guest.got() == b"text/html"


def test_the_allocator_of_the_specification_is_preferred(guest: Guest) -> None:
    context = held_in_headers(guest)
    guest.on("malloc", returns=0)

    assert guest.ask(context, *get_accept(guest)) == Status.OK


def test_without_an_allocator_bytes_are_an_invalid_access(make_guest: MakeGuest) -> None:
    guest = make_guest(shape=Shape(without=frozenset({"proxy_on_memory_allocate", "malloc"})))

    assert guest.ask(held_in_headers(guest), *get_accept(guest)) == Status.INVALID_MEMORY_ACCESS
