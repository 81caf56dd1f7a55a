"""Print what a request costs, as ratios in one run: absolute numbers are the machine's.

The last line says how many targets were kept. It is no reason to fail: a machine that does other
things too misses some.
"""

from __future__ import annotations

import logging
import os
import platform
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.table import Table

from bench import apps, callouts, engines, inprocess, server, stalls, store, tail
from wasm_middleware.engines.wasmtime import WasmtimeEngine


@dataclass(slots=True)
class Verdict:
    """What became of the targets, by their names."""

    kept: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def of(self, name: str, found: float, target: float) -> str:
        """The word for a target that is to be `target` at most; it is remembered."""
        is_kept = found <= target
        (self.kept if is_kept else self.missed).append(name)
        return "kept" if is_kept else "MISSED"

    def __str__(self) -> str:
        names = f": {'; '.join(self.missed)}" if self.missed else ""
        return f"{len(self.kept)} targets kept, {len(self.missed)} missed{names}"


@click.command()
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds: numbers for a first look.")
@click.option("--no-server", is_flag=True, help="Measure in process alone.")
def main(quick: bool, no_server: bool) -> None:
    """Measure a request through nothing, through a middleware, and through plugins."""
    logging.getLogger("wasm_middleware").setLevel(logging.WARNING)
    console = Console(width=None if Console().is_terminal else 110)
    engine = WasmtimeEngine(sliced=True)
    console.print(f"Python {platform.python_version()}; {engine.description}, unless a row says")
    console.print(f"otherwise; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors before")
    engine.close()

    verdict = Verdict()
    made = {name: factory() for name, factory in apps.IN_PROCESS.items()}
    costs = inprocess.measure(made, rounds=3 if quick else 9, requests=500 if quick else 2_000)
    console.print(in_process_table(costs, verdict))
    console.print(engines_table(rounds=3 if quick else 9))
    stalled = stalls.measure(tries=3 if quick else 9)
    tails = {} if no_server else tail.measure(rounds=1 if quick else 3, seconds=2 if quick else 6)
    console.print(scheduling_table(costs, stalled, tails, verdict))
    console.print(store_table(store.measure(rounds=1 if quick else 3), verdict))
    console.print(callouts_table(callouts.measure(rounds=2 if quick else 5), verdict))

    if not no_server:
        console.print(server.describe())
        console.print(
            served_table(
                server.measure(
                    apps.SERVED, rounds=1 if quick else 2, seconds=1.0 if quick else 3.0
                ),
                verdict,
            )
        )

    console.print(str(verdict), soft_wrap=True)


def in_process_table(microseconds: dict[str, float], verdict: Verdict) -> Table:
    """The costs in process; all that is added is compared with what the yardstick adds."""
    base = microseconds[apps.BASELINE]
    yardstick = microseconds[apps.YARDSTICK] - base
    table = _table(
        "in process", "scheduling", "µs a request", "added µs", "of BaseHTTP's", "target"
    )

    for name, cost in microseconds.items():
        part = (cost - base) / yardstick
        table.add_row(
            name,
            _scheduling(name),
            f"{cost:.1f}",
            f"{cost - base:.1f}",
            f"{part:.2f}",
            _target(name, part, verdict),
        )

    return table


def engines_table(rounds: int) -> Table:
    """What crossing the boundary costs on each engine that is here."""
    table = _table(
        "engine (µs; in the guest: ns)",
        "call into the guest",
        "host call",
        "read / write 64 B",
        "instance",
        "loop's step",
        "call in the guest",
        "compile, ms",
    )

    for name, costs in engines.measure(rounds=rounds).items():
        table.add_row(
            name,
            f"{costs.call:.2f}",
            f"{costs.host_call:.2f}",
            f"{costs.read:.2f} / {costs.write:.2f}",
            f"{costs.instance:.0f}",
            f"{costs.step:.2f}",
            f"{costs.inner_call:.2f}",
            f"{costs.compile:.0f}",
        )

    if engines.WASMER:
        step, call = engines.measure_unmetered(rounds=rounds)
        table.add_row("wasmer, nothing counted", "", "", "", "", f"{step:.2f}", f"{call:.2f}", "")

    return table


def scheduling_table(
    microseconds: dict[str, float],
    stalled: dict[tuple[int, str], stalls.Stall],
    tails: dict[str, tail.Tail],
    verdict: Verdict,
) -> Table:
    """What slicing costs a quick plugin, and what it spares everybody else."""
    table = _table("guest calls in slices", "sliced", "inline", "target for sliced")
    base = microseconds[apps.BASELINE]
    sliced, inline = microseconds[apps.SLICED] - base, microseconds[apps.INLINE] - base
    more = sliced / inline - 1
    name = "added by a quick plugin to a request"
    table.add_row(
        f"{name}, µs",
        f"{sliced:.1f} ({more:+.0%})",
        f"{inline:.1f}",
        f"≤ {apps.SLICING_TARGET:+.0%} {verdict.of(name, more, apps.SLICING_TARGET)}",
    )

    for plugins, target in stalls.TARGETS.items():
        name = f"worst stall of a task while {plugins or 'none'} spin"
        found = [stalled[plugins, scheduling] for scheduling in stalls.SCHEDULINGS]
        kept = ""

        if plugins:
            kept = f"≤ {target * 1e3:g} ms {verdict.of(name, found[0].clock, target)}"

        table.add_row(f"{name}, ms (of the processor's time)", *map(_stall, found), kept)

    if tails:
        found_tails = [tails[scheduling] for scheduling in stalls.SCHEDULINGS]
        name = f"p99.9 of the others while 1 of {tail.EVERY} requests spins"
        word = verdict.of(name, found_tails[0].growth, tail.TARGET)
        kept = f"≤ {tail.TARGET * 1e3:+g} ms {word}"
        table.add_row(f"{name}, ms", *map(_tail, found_tails), kept)

    return table


def _stall(stall: stalls.Stall) -> str:
    return f"{stall.clock * 1e3:.1f} ({stall.processor * 1e3:.1f})"


def _tail(found: tail.Tail) -> str:
    quiet, beside = found.quiet, found.beside
    return (
        f"{beside.slowest * 1e3:.1f} ({found.growth * 1e3:+.1f})\n"
        f"of {len(beside.others):,}; {beside.spun:,} of {len(beside.spinning):,} spun\n"
        f"without: of {len(quiet.others):,}"
    )


def store_table(seconds: dict[tuple[int, str], float], verdict: Verdict) -> Table:
    """What waiting inside of guest calls costs, beside what is waited for."""
    takes = store.STORE_TAKES
    name = f"{store.REQUESTS} requests at once, a store of {takes * 1e3:.0f} ms; it is read by"
    table = _table(name, "ms in all", "of the store's", "target")

    for (plugins, when), cost in seconds.items():
        who = "a plugin" if plugins == 1 else f"{plugins} plugins in a chain"
        who += ", whose instances are started besides" if when == "first" else ""
        target = ""

        if plugins == 1:
            word = verdict.of(f"a store that is read by {who}", cost, store.TARGET)
            target = f"≤ {store.TARGET * 1e3:g} ms {word}"

        table.add_row(who, f"{cost * 1e3:.0f}", f"{cost / takes / plugins:.1f}", target)

    return table


def callouts_table(seconds: dict[str, float], verdict: Verdict) -> Table:
    """What waiting for an upstream costs, beside what the upstream takes."""
    takes = callouts.UPSTREAM_TAKES
    name = (
        f"{callouts.REQUESTS} requests at once, an upstream of {takes * 1e3:.0f} ms; it is asked by"
    )
    table = _table(name, "ms in all", "of the upstream's", "target")

    for who, cost in seconds.items():
        target = ""

        if who == "a plugin":
            word = verdict.of(f"an upstream that is asked by {who}", cost, callouts.TARGET)
            target = f"≤ {callouts.TARGET:g} s {word}"

        table.add_row(who, f"{cost * 1e3:.0f}", f"{cost / takes:.1f}", target)

    return table


def served_table(rates: dict[str, float], verdict: Verdict) -> Table:
    """The rates behind a server; what is added is the difference of the times of a request."""
    base = 1 / rates[apps.BASELINE]
    yardstick = 1 / rates[apps.YARDSTICK] - base
    table = _table(
        "over uvicorn",
        "scheduling",
        "requests/s",
        "of Starlette's",
        "of BaseHTTP's added",
        "target",
    )

    for name, rate in rates.items():
        part = (1 / rate - base) / yardstick
        table.add_row(
            name,
            _scheduling(name),
            f"{rate:,.0f}",
            f"{rate / rates[apps.BASELINE]:.2f}",
            f"{part:.2f}",
            _target(name, part, verdict, " over uvicorn"),
        )

    return table


def _table(*columns: str) -> Table:
    first, *others = columns
    table = Table(first)

    for column in others:
        table.add_column(column, justify="right")

    return table


def _target(name: str, part: float, verdict: Verdict, where: str = "") -> str:
    target = apps.TARGETS.get(name)

    if target is None:
        return ""

    return f"≤ {target} {verdict.of(name + where, part, target)}"


def _scheduling(name: str) -> str:
    return apps.SCHEDULING.get(name, "sliced")


if __name__ == "__main__":
    main(prog_name="python -m bench")
