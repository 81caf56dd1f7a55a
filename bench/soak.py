"""Many requests through three plugins, two of which fail every now and then: `make soak`.

It is over when all is answered, and has failed if an error is unexplained, if memory has grown by
more than 2 MiB from 10 % of the requests to the end, or if anything is left over that should have
ended: contexts, instances, tasks, threads.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from bench.apps import module_of, spinning, trapping
from bench.inmemory import started
from bench.soaking import SPINS, TRAPS, Soak, application
from wasm_middleware import WasmPluginMiddleware
from wasm_middleware.proxy_wasm.ports import MetricSample
from wasm_middleware.proxy_wasm.stream import StreamContext
from wasm_middleware.proxy_wasm.vm import Vm

_WORKERS: Final = 16
_TENTHS: Final = 10
_MIB: Final = 1 << 20
#: Seconds that a thread may take to end.
_END: Final = 5.0
#: Bytes that memory may grow by.
_MAX_GROWTH: Final = 2 * _MIB
_FAILING: Final = (TRAPS, SPINS)
_CONFIG: Final = {
    "plugins": [
        # Behind the others in responses, so that it sees what they do.
        {"name": "behaves", "path": str(module_of("wellbehaved.wat")), "priority": 10},
        {"name": TRAPS, "path": str(trapping())},
        {"name": SPINS, "path": str(spinning()), "timeout": "5ms"},
    ]
}


class _Listener(logging.Handler):
    """Counts what is logged; a failure of the two is expected, and nothing else is."""

    def __init__(self, soak: Soak) -> None:
        super().__init__(logging.WARNING)
        self._soak = soak
        self.lines: Counter[tuple[str, str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        plugin, phase = getattr(record, "plugin", ""), getattr(record, "phase", "")

        if record.levelno >= logging.ERROR:
            self._soak.failures += 1

        if plugin in _FAILING:
            self.lines[plugin, phase, record.levelname] += 1
        elif any(f"plugin {name!r}" in record.getMessage() for name in _FAILING):
            self.lines["?", record.getMessage()[:60], record.levelname] += 1
        else:
            self._soak.unexplained[f"{record.name} logged: {record.getMessage()}"[:300]] += 1


class _Report:
    """Prints, and keeps what was wrong."""

    def __init__(self) -> None:
        self._console = Console(width=None if Console().is_terminal else 110, highlight=False)
        self.wrong: list[str] = []

    def say(self, text: object = "") -> None:
        self._console.print(text)

    def counts(self, title: str, counts: dict[str, int]) -> None:
        table = Table(title)
        table.add_column("", justify="right")

        for name, count in counts.items():
            table.add_row(name, f"{count:,}")

        self.say(table)

    def expect(self, what: str, number: int, most: int = 0) -> None:
        """Note what there is more of than there may be."""
        if number > most:
            self.wrong.append(f"{what}: {number:,}" + (f" (at most {most:,})" if most else ""))


@click.command()
@click.option("--requests", type=click.IntRange(min=100), default=1_000_000, show_default=True)
def main(requests: int) -> None:
    """Drive requests through three plugins, and say what is left of it."""
    report = _Report()
    threads = set(threading.enumerate())
    asyncio.run(_soak(requests, report))
    left = _threads_left(threads)
    report.say(f"threads left: {', '.join(left) or 'none'}")
    report.expect("threads left", len(left))
    gc.collect()
    report.expect("instances left after the end", _living(Vm))
    report.say(f"FAILED: {'; '.join(report.wrong)}" if report.wrong else "nothing is unexplained")
    sys.exit(1 if report.wrong else 0)


def _threads_left(known: Container[threading.Thread]) -> list[str]:
    """The threads that there were not before and that do not end."""
    new = [thread for thread in threading.enumerate() if thread not in known]

    # Those that were told to end when the event loop ended may still be about to.
    for thread in new:
        thread.join(_END)

    return [thread.name for thread in new if thread.is_alive()]


async def _soak(requests: int, report: _Report) -> None:
    middleware = WasmPluginMiddleware(application, config=_CONFIG)
    soak = Soak(middleware, requests)
    listener = _Listener(soak)
    logging.getLogger().addHandler(listener)
    # Whatever was measured before in this process: here nothing goes unheard.
    logging.getLogger("wasm_middleware").setLevel(logging.WARNING)

    try:
        async with started(middleware):
            await _run(soak, requests, report, middleware)
    finally:
        logging.getLogger().removeHandler(listener)

    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    report.say(f"tasks left: {len(tasks)}")
    report.expect("tasks left", len(tasks))
    _tell_errors(soak, listener, report)


async def _run(
    soak: Soak, requests: int, report: _Report, middleware: WasmPluginMiddleware
) -> None:
    binding = middleware._binding
    assert binding is not None
    engine = binding.generation.engine.description
    report.say(f"{requests:,} requests, {_WORKERS} at a time, on asyncio")
    report.say(f"Python {platform.python_version()}; {engine}")
    sizes = await _drive(soak, requests, report)
    _tell_memory(sizes, report)
    samples = binding.generation.plugins["behaves"].services.metrics.samples()
    _tell_contexts(samples, soak, report)


async def _drive(soak: Soak, requests: int, report: _Report) -> list[int]:
    """Make all requests; the resident memory after each tenth of them."""
    begun = time.perf_counter()
    workers = [asyncio.create_task(soak.work()) for _ in range(_WORKERS)]
    sizes = []

    for tenth in range(1, _TENTHS + 1):
        most = requests * tenth // _TENTHS

        # Not every turn of the loop: this looks on, and takes no part.
        while soak.done < most and not all(worker.done() for worker in workers):
            await asyncio.sleep(0.01)

        gc.collect()
        sizes.append(resident())
        rate = soak.done / (time.perf_counter() - begun)
        unexplained = soak.unexplained.total()
        report.say(
            f"{soak.done / requests:5.0%}  {rate:,.0f} requests/s  "
            f"{sizes[-1] / _MIB:.1f} MiB resident  {unexplained} unexplained"
        )

    await asyncio.gather(*workers)
    return sizes


def resident() -> int:
    """This process's resident memory, in bytes."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def _tell_memory(sizes: list[int], report: _Report) -> None:
    growth = sizes[-1] - sizes[0]
    report.say(
        f"resident at 10 %: {sizes[0] / _MIB:.2f} MiB; at the end: {sizes[-1] / _MIB:.2f} MiB; "
        f"growth: {growth / _MIB:+.2f} MiB (target ≤ {_MAX_GROWTH / _MIB:g})"
    )
    report.expect("bytes of growth", growth, _MAX_GROWTH)


def _tell_contexts(samples: Sequence[MetricSample], soak: Soak, report: _Report) -> None:
    """What plugins have counted, and what is left of it in the host."""
    counts: dict[str, dict[str, int]] = {}

    for sample in samples:
        counts.setdefault(sample.plugin, {})[sample.name] = sample.value

    gc.collect()
    table = Table("contexts of requests")
    columns = ("instances started", "created", "deleted", "lost with a failed instance")

    for column in columns:
        table.add_column(column, justify="right")

    for plugin, found in counts.items():
        lost = found["created"] - found["deleted"]
        row = (found["started"], found["created"], found["deleted"], lost)
        table.add_row(plugin, *(f"{number:,}" for number in row))
        # An instance that is lost takes along what is under way at that moment, and no more.
        most = soak.asked[plugin] * _WORKERS
        report.expect(f"contexts of {plugin!r} never deleted", lost, most)

    report.say(table)
    left = _living(StreamContext)
    report.say(f"contexts left in the host: {left}; instances: {_living(Vm)}")
    report.expect("contexts left", left)


def _living(kind: type) -> int:
    return sum(type(one) is kind for one in gc.get_objects())


def _tell_errors(soak: Soak, listener: _Listener, report: _Report) -> None:
    report.counts("how requests ended", dict(soak.expected.most_common()))
    lines = {" ".join(key): count for key, count in sorted(listener.lines.items())}
    report.counts("what was logged", lines)
    asked = {f"{name} was asked to": soak.asked[name] for name in _FAILING}
    report.counts("asked", asked)
    report.counts("unexplained", dict(soak.unexplained.most_common(20)) or {"nothing": 0})
    report.expect("unexplained errors", soak.unexplained.total())

    for name in _FAILING:
        errors = sum(
            count
            for (plugin, _, level), count in listener.lines.items()
            if plugin == name and level == "ERROR"
        )
        report.expect(f"errors logged of {name!r}", errors, soak.asked[name])


if __name__ == "__main__":
    main(prog_name="python -m bench.soak")
