"""Memory, as every engine promises it."""

from __future__ import annotations

import pytest
from proxy_wasm.harness import grow
from proxy_wasm.scripted import (
    MEMORY_PAGES,
    OUT,
    PAGE,
    guest_module,
)

from wasm_middleware.engines.protocol import Engine, InstanceLimits
from wasm_middleware.errors import (
    GuestMemoryLimit,
    MemoryFault,
)
from wasm_middleware.proxy_wasm.ports import HostFunction

from .bench import Make, nothing


def test_memory_is_read_and_written_within_its_bounds(make: Make) -> None:
    memory = make(nothing).memory
    end = memory.size
    memory.write(end - 3, b"abc")
    memory.write_u32(1, 0x0102_0304)
    memory.write_u64(9, 0x0102_0304_0506_0708)

    assert memory.read(end - 3, 3) == b"abc"
    assert memory.read(1, 4) == b"\4\3\2\1"
    assert memory.read_u32(1) == 0x0102_0304
    assert memory.read(9, 8) == b"\x08\7\6\5\4\3\2\1"
    assert isinstance(memory.read(0, 1), bytes)
    assert memory.read(end, 0) == b""


def test_every_reach_beyond_the_memory_is_a_fault(make: Make) -> None:
    memory = make(nothing).memory
    end = memory.size
    reaches = [
        lambda: memory.read(end - 1, 2),
        lambda: memory.read(end + 1, 0),
        lambda: memory.read(0, 1 << 32),
        lambda: memory.read(0xFFFF_FFFF, 0xFFFF_FFFF),
        lambda: memory.read_u32(end - 3),
        lambda: memory.write(end - 1, b"ab"),
        lambda: memory.write(end + 1, b""),
        lambda: memory.write_u32(end - 3, 1),
        lambda: memory.write_u32(0xFFFF_FFFF, 1),
        lambda: memory.write_u64(end - 7, 1),
    ]

    for reach in reaches:
        with pytest.raises(MemoryFault):
            reach()


def test_memory_that_the_guest_adds_is_there_at_once(make: Make) -> None:
    bench = make(nothing)
    end = bench.memory.size
    bench.write("proxy_on_tick", grow(2))
    bench.enter()
    bench.memory.write_u32(end, 5)

    assert bench.memory.size == end + 2 * PAGE
    assert bench.memory.read(end, 4) == b"\5\0\0\0"
    assert bench.memory.read_u32(OUT) == MEMORY_PAGES


def test_memory_ends_at_the_limit(make: Make) -> None:
    bench = make(nothing)
    bench.write("proxy_on_tick", grow(16 - MEMORY_PAGES + 1), grow(16 - MEMORY_PAGES))
    bench.enter()

    assert bench.memory.read_u32(OUT) == 0xFFFF_FFFF
    assert bench.memory.read_u32(OUT + 8) == MEMORY_PAGES


def test_a_limit_below_the_first_size_is_a_memory_error(engine: Engine) -> None:
    limits = InstanceLimits((MEMORY_PAGES - 1) * PAGE, 100)
    module = guest_module(engine)

    with pytest.raises(GuestMemoryLimit):
        module.instantiate(lambda *_: HostFunction(nothing, 0), limits)
