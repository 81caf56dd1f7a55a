"""Requests that make a plugin fail cost themselves, and take it away from nobody else."""

from __future__ import annotations

import logging
import random
import types
from collections import Counter

import anyio
import anyio.lowlevel
import pytest

from wasm_middleware import limits
from wasm_middleware.proxy_wasm.stream import Stream

from .guests import Guest
from .harness import Server, http_scope, respond

pytestmark = pytest.mark.anyio


class Frail(Guest):
    """Fails where the path asks for it. It has a phase of the response's, too."""

    def request_headers(self, end):
        if self.get(b":path") == b"/bad":
            raise RuntimeError("boom")


@pytest.fixture
def missed(monkeypatch):
    """Why the host has refused requests, one word for each of them."""
    found = Counter()
    refuse = Stream.refuse

    def noting(stream, reply):
        found[reply.details] += 1
        refuse(stream, reply)

    monkeypatch.setattr(Stream, "refuse", noting)
    interrupt = Stream._interrupt

    def noting_failures(stream, reply):
        found[reply.details] += 1
        interrupt(stream, reply)

    monkeypatch.setattr(Stream, "_interrupt", noting_failures)
    return found


@pytest.fixture
def for_ever(monkeypatch):
    """Whoever is left alone once stays so."""
    monkeypatch.setattr(limits, "FIRST_RESTART", 3600)
    monkeypatch.setattr(limits, "LAST_RESTART", 3600)


async def drive(app, arrivals):
    """Requests, each path after some turns of the event loop; what those for /good were answered.

    They overlap: an application takes some turns, too.
    """
    found = Counter()

    async def request(path):
        server = await Server(http_scope(path)).run(app)
        found[path, server.status] += 1

    async with anyio.create_task_group() as group:
        for path, turns in arrivals:
            group.start_soon(request, path)

            for _ in range(turns):
                await anyio.lowlevel.checkpoint()

    return found


async def slowly(scope, receive, send):
    for _ in range(5):
        await anyio.lowlevel.checkpoint()

    await respond(b"hi")(scope, receive, send)


def at_random(share, count=600):
    """Of all requests such a part is bad; some come at once, and some when nobody is there."""
    chance = random.Random(1)
    yield "/good", 50

    for _ in range(count):
        yield "/bad" if chance.random() < share else "/good", int(chance.expovariate(1 / 6))


def in_bursts(bad, good=25, times=8):
    """So many bad ones at once, beside the good ones of a second."""
    for _ in range(times):
        for _ in range(bad):
            yield "/bad", 0

        for _ in range(good):
            yield "/good", 5


ATTACKS = {
    "2 at once": (1, lambda: in_bursts(2)),
    "9 at once": (4, lambda: in_bursts(9)),
    "one in 4, one instance": (1, lambda: at_random(0.25)),
    "one in 4, four": (4, lambda: at_random(0.25)),
    "one in 4, eight": (8, lambda: at_random(0.25)),
    "as many as good ones": (4, lambda: at_random(0.5)),
    "nine in 10, one instance": (1, lambda: at_random(0.9)),
    "nine in 10, eight": (8, lambda: at_random(0.9)),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_bad_requests_leave_the_plugin_to_the_others(workshop, for_ever, missed, attack):
    least, arrivals = ATTACKS[attack]
    # Those that are beside a bad one on its instance need nothing more of it.
    workshop.add(Frail, instances={"min": least}, phase="on_request_headers")
    app = await workshop.load(workshop.wrap(slowly))
    arrivals = list(arrivals())
    found = await drive(app, arrivals)
    sent = Counter(path for path, _ in arrivals)
    assert found == {("/good", 200): sent["/good"], ("/bad", 503): sent["/bad"]}
    assert set(missed) == {"trap"}


@pytest.mark.parametrize("least", [1, 4, 8])
async def test_they_cost_those_that_are_beside_them_and_no_others(
    workshop, for_ever, missed, least
):
    workshop.add(Frail, instances={"min": least})
    app = await workshop.load(workshop.wrap(slowly))
    found = await drive(app, at_random(0.3))
    # None is refused because there is no instance.
    assert set(missed) == {"trap"}
    assert found["/good", 200] > found["/good", 503]


async def test_one_good_request_ends_a_pause(workshop, monkeypatch):
    """It has come to an instance that is left, while no others are started."""
    monkeypatch.setattr(limits, "FIRST_RESTART", 0.001)
    monkeypatch.setattr(limits, "LAST_RESTART", 3600)
    monkeypatch.setattr(limits, "SPARE_RESTARTS", 0)
    monkeypatch.setattr("wasm_middleware.runtime.healing.random.uniform", lambda low, high: 3.6e6)
    workshop.add(Frail, instances={"min": 3})
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    found = await drive(app, [("/bad", 50), ("/bad", 50)])
    assert found == {("/bad", 503): 2}
    assert workshop.phases("frail").count("root") == 3

    with anyio.fail_after(5):
        assert await drive(app, [("/good", 0)]) == {("/good", 200): 1}

        while workshop.phases("frail").count("root") < 5:
            await anyio.sleep(0.001)


# What is said of it


def lines(caplog, level=logging.WARNING):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and record.name == "wasm_middleware"
    ]


@pytest.mark.parametrize(
    ("policy", "fate"),
    [("fail_closed", "were answered 503"), ("fail_open", "went on without it")],
)
async def test_a_pause_is_told_with_what_it_costs(workshop, monkeypatch, caplog, policy, fate):
    now = [1000.0]
    # Not the event loop's.
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("wasm_middleware.runtime.healing.time", clock)
    monkeypatch.setattr("wasm_middleware.runtime.healing.random.uniform", lambda low, high: 1.0)
    monkeypatch.setattr(limits, "FIRST_RESTART", 0.1)
    workshop.add(Frail, failure_policy=policy)
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    bad = limits.SPARE_RESTARTS + 1
    await drive(app, [("/bad", 50)] * bad)
    assert lines(caplog) == [
        f"plugin 'frail' has failed {bad} times in a row and served nobody: no instance of it is "
        "started for 0.1 s"
    ]
    await drive(app, [("/good", 0)] * 12)
    now[0] += 0.1

    with anyio.fail_after(5):
        while len(lines(caplog)) < 2:
            await anyio.sleep(0.001)

    assert lines(caplog)[1:] == [f"plugin 'frail' is up; 12 requests {fate} meanwhile"]
    assert await drive(app, [("/good", 0)]) == {("/good", 200): 1}
    # Once is enough.
    assert len(lines(caplog)) == 2


async def test_what_is_replaced_at_once_is_no_warning(workshop, caplog):
    caplog.set_level(logging.INFO)
    workshop.add(Frail)
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    await drive(app, [("/good", 20), ("/bad", 20), ("/good", 20), ("/bad", 20)])
    assert lines(caplog) == []
    assert lines(caplog, logging.INFO).count("plugin 'frail': a failed instance was replaced") == 2


async def test_a_disabled_plugin_is_recalled_while_requests_meet_it(workshop, monkeypatch, caplog):
    monkeypatch.setattr(limits, "FIRST_RESTART", 0.001)
    monkeypatch.setattr(limits, "LAST_RESTART", 0.002)

    class Once(Frail):
        starts = 0

        def configure(self):
            type(self).starts += 1
            return type(self).starts == 1

    workshop.add(Once)
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    await drive(app, [("/bad", 0)])

    with anyio.fail_after(5):
        while "is disabled until the service is restarted" not in caplog.text:
            await anyio.sleep(0.001)

    now = [1000.0]
    # Not the event loop's.
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("wasm_middleware.runtime.outage.time", clock)
    caplog.clear()
    await drive(app, [("/good", 0)] * 1200)
    # It was said a moment ago.
    assert caplog.text == ""

    for _ in range(2):
        now[0] += limits.REMIND_EVERY
        await drive(app, [("/good", 0)] * 17)

    first, second = lines(caplog)
    assert "'once'" in first
    assert "is disabled until the service is restarted, since 10 starts in a row" in first
    assert first.endswith("; 1,201 requests were answered 503 so far")
    assert second.endswith("; 1,218 requests were answered 503 so far")
