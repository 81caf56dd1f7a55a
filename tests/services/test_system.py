"""The machine's clock and entropy."""

from __future__ import annotations

import time

from wasm_middleware.services.system import SystemClock, SystemEntropy


def test_the_wall_clock_counts_nanoseconds_since_1970() -> None:
    before = time.time_ns()
    now = SystemClock().now()

    assert before <= now <= time.time_ns()


def test_the_steady_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic() for _ in range(100)]

    assert readings == sorted(readings)


def test_random_bytes_are_as_many_as_asked_for_and_not_the_same() -> None:
    entropy = SystemEntropy()

    assert len(entropy.bytes(32)) == 32
    assert entropy.bytes(0) == b""
    assert entropy.bytes(32) != entropy.bytes(32)
