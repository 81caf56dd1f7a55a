"""Without guidance: `python -m fuzz.blind TARGET SECONDS` lets hypothesis make the bytes.

So run the machine of streams, whose steps are no bytes, and every target where there is no atheris.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st
from hypothesis.stateful import run_state_machine_as_test

from fuzz import CORPUS

#: A round is one run of hypothesis, with a seed of its own.
_ROUND = 500


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Bytes for a target: any, or a seed with some of them changed, left out or put in."""
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    edits = st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=6
    )
    return st.binary(max_size=100) | st.builds(_edited, st.sampled_from(seeds), edits)


def _edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, removed, put in edits:
        start = round(place * len(data))
        data = data[:start] + put + data[start + removed :]

    return data


def main() -> None:
    name, seconds = sys.argv[1], float(sys.argv[2])
    rounds = 0
    run, executions = _machine() if name == "stream" else _target(name)
    end = time.monotonic() + seconds

    try:
        while time.monotonic() < end:
            run(time.time_ns() + rounds)
            rounds += 1
            # As libFuzzer writes it.
            print(f"#{executions()}\t", flush=True)
    finally:
        print(f"executions: {executions()}")


def _target(name: str) -> tuple[Callable[[int], None], Callable[[], int]]:
    count = 0
    fuzz = importlib.import_module(f"fuzz.{name}").fuzz
    strategy = inputs(name)

    def run(number: int) -> None:
        @seed(number)
        @settings(_settings(_ROUND))
        @given(strategy)
        def once(data: bytes) -> None:
            nonlocal count
            count += 1
            fuzz(data)

        once()

    return run, lambda: count


def _machine() -> tuple[Callable[[int], None], Callable[[], int]]:
    machine = importlib.import_module("tests.fuzz.test_stream_machine").StreamMachine

    def run(number: int) -> None:
        # Each round has a seed of its own anyway: it is not derandomized.
        run_state_machine_as_test(machine, settings=_settings(_ROUND))

    return run, lambda: machine.steps


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


if __name__ == "__main__":
    main()
