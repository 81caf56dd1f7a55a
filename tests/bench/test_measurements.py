"""The measurements measure what they say."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from bench import apps, engines, stalls, store, tail
from bench.__main__ import Verdict, callouts_table, in_process_table, served_table


@pytest.fixture(autouse=True)
def log_level():
    logger = logging.getLogger("wasm_middleware")
    level = logger.level
    yield
    logger.setLevel(level)


def busy(seconds):
    until = time.perf_counter() + seconds

    while time.perf_counter() < until:
        pass


def test_another_task_s_stall_is_seen():
    assert asyncio.run(held_up(0.05)).clock >= 0.05


async def held_up(seconds):
    watch = asyncio.create_task(stalls._watch())
    await asyncio.sleep(0)
    busy(seconds)
    await asyncio.sleep(0)
    watch.cancel()
    return await watch


def test_inline_calls_hold_up_a_task_until_the_timeout():
    found = stalls.measure(tries=1)

    assert found[1, "inline"].clock >= stalls.TIMEOUT
    assert found[16, "inline"].clock >= 16 * stalls.TIMEOUT
    assert found[16, "sliced"].processor < stalls.TIMEOUT


def test_each_plugin_of_a_chain_waits_for_the_store():
    found = store.measure(rounds=1)

    for (plugins, _), seconds in found.items():
        assert seconds >= plugins * store.STORE_TAKES


def test_the_quantile_is_that_of_the_others_alone():
    latencies = tail.Latencies([0.001] * 9_990 + [0.002] * 10, [1.0, 0.049, 0.001])

    assert latencies.slowest == 0.002
    assert latencies.spun == 2


@pytest.mark.parametrize("scheduling", tail.APPS)
def test_the_server_s_application_spins_where_it_is_asked_to(scheduling):
    async def status(path, *headers):
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        await app(stalls.http_scope(path, headers), receive, send)
        return sent[0]["status"]

    async def statuses():
        async with stalls.started(app):
            spin = (b"x-spin", b"1")
            return await status("/", spin), await status("/spin"), await status("/spin", spin)

    app = tail.APPS[scheduling]()

    assert asyncio.run(statuses()) == (200, 200, 503)


def test_each_row_says_how_its_calls_run():
    assert set(apps.SCHEDULING) - {apps.WASMER, apps.WASMER_RUST} <= set(apps.IN_PROCESS)
    assert set(apps.SERVED) <= set(apps.IN_PROCESS)


def test_the_last_line_counts_each_target_once():
    verdict = Verdict()
    costs = dict.fromkeys(apps.IN_PROCESS, 50.0) | {apps.BASELINE: 10.0, apps.YARDSTICK: 210.0}
    in_process_table(costs, verdict)
    assert str(verdict) == f"{len(apps.TARGETS)} targets kept, 0 missed"

    rates = dict.fromkeys(apps.SERVED, 1e6 / 400) | {apps.BASELINE: 1e5, apps.YARDSTICK: 5e3}
    served_table(rates, verdict)
    callouts_table({"a plugin": 99.0}, verdict)
    served = [name for name in apps.SERVED if name in apps.TARGETS]
    missed = [f"{name} over uvicorn" for name in served]
    assert served
    assert str(verdict) == (
        f"{len(apps.TARGETS)} targets kept, {len(served) + 1} missed: "
        f"{'; '.join(missed)}; an upstream that is asked by a plugin"
    )


@pytest.mark.parametrize("name", engines.engines())
def test_each_engine_does_what_is_measured(name):
    costs = asyncio.run(engines._measure(engines.engines()[name], 1))

    assert min(costs.call, costs.host_call, costs.step, costs.inner_call, costs.compile) > 0
