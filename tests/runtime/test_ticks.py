"""Ticks: how often, on which instance, and when they end."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from asgi.guests import Guest

from wasm_middleware import limits
from wasm_middleware.errors import GuestTrap

from .test_chains import loaded

pytestmark = pytest.mark.anyio

SHORT = 20


class Ticking(Guest):
    """Ticks every few milliseconds; `events` has one entry for each, with the instance's number."""

    instances = 0
    period = SHORT
    enough = None

    def configure(self):
        type(self).instances += 1
        self.number = type(self).instances
        self.host.proxy_set_tick_period_milliseconds(self.period)

    def proxy_on_tick(self, context):
        self.note(f"tick {self.number}")
        self.tick()

        if len([event for event in self.events if " tick " in event]) >= 3:
            type(self).enough.set()

    def tick(self): ...


@pytest.fixture
def make(workshop):
    """Load a plugin whose guest is a kind of `Ticking`; its class and itself."""

    def make(guest=Ticking, **settings):
        (plugin,) = loaded(workshop, "a", guest=guest, **settings)
        kind = next(iter(workshop.modules.values()))
        kind.enough = anyio.Event()
        return kind, plugin

    return make


def ticks(workshop) -> list[int]:
    return [int(phase.split()[1]) for phase in workshop.phases("a") if phase.startswith("tick")]


async def ended(plugin) -> None:
    await plugin.close()
    await plugin.services.background.aclose()


async def test_a_root_ticks_again_and_again(workshop, make):
    kind, plugin = make()
    await plugin.start()
    began = anyio.current_time()

    with anyio.fail_after(5):
        await kind.enough.wait()

    assert anyio.current_time() - began >= 3 * SHORT / 1000 * 0.9
    await ended(plugin)


@pytest.mark.parametrize(("ticks_of", "expected"), [("singleton", {1}), ("each", {1, 2})])
async def test_one_instance_ticks_or_each(workshop, make, ticks_of, expected):
    kind, plugin = make(instances={"min": 2}, ticks=ticks_of)
    await plugin.start()

    with anyio.fail_after(5):
        await kind.enough.wait()

    assert set(ticks(workshop)) == expected
    await ended(plugin)


async def test_another_instance_takes_over_when_the_first_has_failed(workshop, make):
    class Traps(Ticking):
        def tick(self):
            if self.number == 1:
                raise GuestTrap("it trapped")

    kind, plugin = make(Traps, instances={"min": 2})
    await plugin.start()

    with anyio.fail_after(5):
        await kind.enough.wait()

    assert ticks(workshop) == [1, 2, 2]
    await ended(plugin)


async def test_an_instance_that_ticked_is_replaced_without_a_request(workshop, make, monkeypatch):
    monkeypatch.setattr(limits, "FIRST_RESTART", 0.01)

    class Traps(Ticking):
        def tick(self):
            if self.number == 1:
                raise GuestTrap("it trapped")

    kind, plugin = make(Traps)
    await plugin.start()

    with anyio.fail_after(5):
        await kind.enough.wait()

    assert ticks(workshop) == [1, 2, 2]
    await ended(plugin)


async def test_a_period_of_zero_ends_it(workshop, make):
    class Once(Ticking):
        def tick(self):
            self.host.proxy_set_tick_period_milliseconds(0)
            type(self).enough.set()

    kind, plugin = make(Once)
    await plugin.start()

    with anyio.fail_after(5):
        await kind.enough.wait()

    await anyio.wait_all_tasks_blocked()
    await anyio.sleep(4 * SHORT / 1000)
    assert ticks(workshop) == [1]
    await ended(plugin)


async def test_a_new_period_counts_at_once(workshop, make):
    class Patient(Ticking):
        period = 3_600_000

        def request(self):
            self.host.proxy_set_tick_period_milliseconds(SHORT)

    kind, plugin = make(Patient)
    await plugin.start()
    (vm,) = plugin.vms
    (root,) = vm.roots.values()
    await anyio.wait_all_tasks_blocked()
    assert ticks(workshop) == []
    root.tick_period = SHORT
    vm.changed()

    with anyio.fail_after(5):
        await kind.enough.wait()

    await ended(plugin)


async def test_a_root_that_sets_its_period_at_each_tick_does_not_starve_another(workshop, make):
    class Two(Ticking):
        """The first root asks for its ticks anew, again and again; the other waits for longer."""

        def configure(self):
            self.first = getattr(self, "first", self.context)
            period = SHORT if self.context == self.first else 4 * SHORT
            self.host.proxy_set_tick_period_milliseconds(period)

        def proxy_on_tick(self, context):
            if context == self.first:
                self.host.proxy_set_tick_period_milliseconds(SHORT)
            else:
                type(self).enough.set()

    kind, plugin = make(Two)
    await plugin.start()
    (vm,) = plugin.vms
    await vm.add_root(b"second")

    with anyio.fail_after(2):
        await kind.enough.wait()

    await ended(plugin)


async def test_the_same_period_set_anew_begins_the_wait_anew(workshop, make):
    """As in Envoy (`Wasm::setTimerPeriod`): the timer is made anew, whatever it was."""
    period = 0.4

    class Patient(Ticking):
        def configure(self):
            self.period = int(period * 1000)
            super().configure()

        def tick(self):
            type(self).enough.set()

        def proxy_on_request_headers(self, context, count, end):
            self.host.proxy_set_tick_period_milliseconds(self.period)

    kind, plugin = make(Patient)
    await plugin.start()
    (vm,) = plugin.vms
    (root,) = vm.roots.values()
    await anyio.sleep(period / 2)
    await vm.enter(root, vm.callbacks.request_headers, "on_request_headers", root.id, 0, 0)
    again = anyio.current_time()

    with anyio.fail_after(5):
        await kind.enough.wait()

    assert anyio.current_time() - again >= period * 0.95
    await ended(plugin)


async def test_there_is_a_shortest_period(workshop, make, monkeypatch):
    monkeypatch.setattr(limits, "MIN_TICK_PERIOD", 0.05)

    class Eager(Ticking):
        period = 1

    kind, plugin = make(Eager)
    await plugin.start()
    began = anyio.current_time()

    with anyio.fail_after(5):
        await kind.enough.wait()

    assert anyio.current_time() - began >= 3 * 0.05 * 0.9
    await ended(plugin)


async def test_closing_ends_the_ticks(workshop, make):
    _, plugin = make()
    await plugin.start()
    await ended(plugin)
    before = len(ticks(workshop))
    await anyio.sleep(4 * SHORT / 1000)

    assert len(ticks(workshop)) == before


# What is left to do at the end


class Flushing(Ticking):
    """Has something left to do when it is unloaded, and does it with its next tick."""

    def proxy_on_done(self, context):
        self.enter(context, "done")
        self.leaving = True
        return 0

    def tick(self):
        if getattr(self, "leaving", False):
            self.host.proxy_done()


async def test_unloading_waits_for_what_is_left_to_do(workshop, make):
    _, plugin = make(Flushing)
    await plugin.start()

    with anyio.fail_after(5):
        await plugin.close()

    assert workshop.phases("a")[-3:] == ["done", "tick 1", "delete"]


async def test_but_not_for_ever(workshop, make, monkeypatch):
    monkeypatch.setattr(limits, "DONE_TIMEOUT", 0.05)

    class Never(Flushing):
        def tick(self): ...

    _, plugin = make(Never)
    await plugin.start()

    with anyio.fail_after(5):
        await plugin.close()

    assert "delete" not in workshop.phases("a")
    assert plugin.vms == ()


def test_a_tick_that_never_began_does_not_end_all_ticks(workshop, make):
    """Its event loop has ended before; in the next one, ticks go on."""
    kind, plugin = make()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(plugin.start())
    loop.close()
    gone = asyncio.all_tasks(loop)
    assert gone

    for task in gone:
        # Nobody is told that it is pending: that is what this test is about.
        task._log_destroy_pending = False

    async def go_on():
        plugin.vms[0].changed()

        with anyio.fail_after(5):
            await kind.enough.wait()

        await ended(plugin)

    kind.enough = anyio.Event()
    asyncio.run(go_on())
    assert ticks(workshop)[:3] == [1, 1, 1]
