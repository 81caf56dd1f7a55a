"""Healing: when what has failed is started again, and when it is not any more."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel
import pytest
from asgi.guests import Guest

from wasm_middleware import limits
from wasm_middleware.errors import PluginLoadError, PluginUnavailableError
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.runtime.healing import Recovery
from wasm_middleware.runtime.plugin import LoadedPlugin

from .test_chains import loaded
from .test_plugin import break_it, stream_for, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock(monkeypatch):
    """Seconds; a list of one number."""
    now = [1000.0]
    monkeypatch.setattr("wasm_middleware.runtime.healing.time.monotonic", lambda: now[0])
    monkeypatch.setattr("wasm_middleware.runtime.healing.random.uniform", lambda low, high: 1.0)
    return now


def refused() -> PluginLoadError:
    return PluginLoadError("a", "it will not", "mend it")


# What is known of failures


def test_an_instance_that_was_of_use_is_replaced_at_once(clock):
    recovery = Recovery("a")

    for _ in range(3):
        recovery.lost(recovery.begin(), served=True)
        assert recovery.wait == 0


def test_so_is_one_that_has_lived_for_long(clock):
    recovery = Recovery("a")

    for _ in range(3):
        attempt = recovery.begin()
        clock[0] += limits.SOUND_AFTER
        recovery.lost(attempt, served=False)
        assert recovery.wait == 0


def test_what_fails_again_and_again_waits_for_longer_and_longer(clock):
    recovery = Recovery("a")
    waits = []

    for served in (True, *[False] * 8):
        recovery.lost(recovery.begin(), served=served)
        waits.append(recovery.wait)
        clock[0] += recovery.wait

    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    # Until one is of use.
    recovery.lost(recovery.begin(), served=True)
    assert recovery.wait == 0


def test_a_start_that_fails_is_never_repeated_at_once(clock):
    recovery = Recovery("a")
    waits = []

    for _ in range(3):
        recovery.start_failed(recovery.begin(), refused())
        waits.append(recovery.wait)

    assert waits == [1, 2, 4]


def test_what_fails_together_counts_once(clock):
    recovery = Recovery("a")
    attempts = [recovery.begin() for _ in range(4)]
    assert [recovery.start_failed(one, refused()) for one in attempts] == [True, *[False] * 3]
    assert recovery.wait == 1
    attempts = [recovery.begin() for _ in range(4)]

    for attempt in attempts:
        recovery.lost(attempt, served=False)

    assert recovery.wait == 2


def test_intervals_differ_between_workers():
    waits = set()

    for _ in range(20):
        recovery = Recovery("a")
        recovery.start_failed(recovery.begin(), refused())
        waits.add(round(recovery.wait, 3))

    assert len(waits) > 5
    assert all(0.7 <= wait <= 1.2 for wait in waits)


def test_ten_failed_starts_in_a_row_disable_it(clock):
    recovery = Recovery("a")

    for _ in range(9):
        recovery.start_failed(recovery.begin(), refused())

    recovery.started()

    for number in range(10):
        assert not recovery.disabled
        assert recovery.error().kind == "start"
        recovery.start_failed(recovery.begin(), refused())
        clock[0] += 10_000 + number

    assert recovery.disabled
    error = recovery.error()
    assert error.kind == "disabled"
    assert "10 starts in a row have failed: it will not (mend it)" in str(error)


# What becomes of a plugin


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(limits, "FIRST_RESTART", 0.001)
    monkeypatch.setattr(limits, "LAST_RESTART", 0.002)


class Never(Guest):
    starts = 0

    def configure(self):
        type(self).starts += 1
        return False


async def test_a_plugin_that_never_starts_is_disabled_and_said_to_be(workshop, quick, caplog):
    (plugin,) = loaded(workshop, "a", guest=Never)
    kind = workshop.modules[plugin.settings.path.read_bytes()]

    with pytest.raises(PluginLoadError):
        await plugin.start()

    # Nobody asks for it, and it is tried all the same.
    await until(lambda: "disabled" in caplog.text)

    for _ in range(3):
        with pytest.raises(PluginUnavailableError) as raised:
            await plugin.take(stream_for(plugin))

        assert raised.value.kind == "disabled"

    await anyio.sleep(0.02)
    assert kind.starts == limits.MAX_FAILED_STARTS
    lines = [record for record in caplog.records if "is disabled" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.ERROR]
    assert lines[0].plugin == "a"
    await plugin.close()


async def test_loaded_anew_it_is_tried_again(workshop, quick, caplog):
    (plugin,) = loaded(workshop, "a", guest=Never)
    kind = workshop.modules[plugin.settings.path.read_bytes()]

    with pytest.raises(PluginLoadError):
        await plugin.start()

    await until(lambda: "disabled" in caplog.text)
    await plugin.close()
    again = LoadedPlugin(plugin.settings, plugin._module, plugin.services)

    with pytest.raises(PluginLoadError, match="it does not accept"):
        await again.start()

    assert kind.starts == limits.MAX_FAILED_STARTS + 1
    await again.close()


async def test_an_instance_that_fails_soon_after_each_replacement_backs_off(
    workshop, monkeypatch, caplog
):
    monkeypatch.setattr(limits, "FIRST_RESTART", 3600)
    monkeypatch.setattr(limits, "LAST_RESTART", 3600)
    (plugin,) = loaded(workshop, "a")
    await plugin.start()
    vm = plugin.vms[0]
    # It has served somebody.
    vm.new_id()
    break_it(vm)
    await until(lambda: plugin.vms)
    # And this one has not.
    break_it(plugin.vms[0])

    with pytest.raises(PluginUnavailableError, match="its instance has failed") as raised:
        await plugin.take(stream_for(plugin))

    assert raised.value.kind == "start"
    assert workshop.phases("a").count("root") == 2
    await plugin.close()


async def test_a_failed_instance_is_closed_when_its_call_has_returned(workshop):
    (plugin,) = loaded(workshop, "a")
    await plugin.start()
    (vm,) = plugin.vms
    closed = []
    close = vm.guest.close
    vm.guest.close = lambda: (closed.append(vm), close())

    async with vm.turn:
        break_it(vm)
        assert closed == []

    assert closed
    await plugin.close()


async def test_one_that_is_lost_while_it_waits_to_be_taken_is_not_handed_out(workshop):
    (plugin,) = loaded(workshop, "a")
    await plugin.start()
    (first,) = plugin.vms
    found = []

    async def wait():
        found.append(await plugin.take(stream_for(plugin)))

    async with anyio.create_task_group() as group:
        await first.turn.__aenter__()
        assert plugin.ready() is None
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        first.turn.release()
        break_it(first)

    assert found == list(plugin.vms)
    assert first not in found
    await plugin.close()


# More than the least


async def crowd(plugin, count):
    """Let a pool grow: each stream holds its instance's turn."""
    for _ in range(count):
        vm = plugin.ready() or await plugin.take(stream_for(plugin))
        await vm.turn.__aenter__()


async def test_instances_beyond_the_least_are_closed_when_nobody_uses_them(workshop, monkeypatch):
    monkeypatch.setattr(limits, "INSTANCE_IDLE", 0.06)
    (plugin,) = loaded(workshop, "a", instances={"min": 2, "max": 5})
    await plugin.start()
    least = plugin.vms
    await crowd(plugin, 5)
    assert len(plugin.vms) == 5
    # All are busy, for longer than that.
    await anyio.sleep(0.15)
    assert len(plugin.vms) == 5

    for vm in plugin.vms:
        vm.turn.release()

    await until(lambda: len(plugin.vms) == 2)
    assert plugin.vms == least
    assert workshop.phases("a").count("done") == 3
    assert workshop.phases("a").count("delete") == 3
    await until(lambda: not plugin._pool._tasks._tasks)
    await plugin.close()


async def test_an_instance_that_has_a_context_is_kept(workshop, monkeypatch):
    """Nobody is in it: the application is about to answer."""
    monkeypatch.setattr(limits, "INSTANCE_IDLE", 0.06)
    (plugin,) = loaded(workshop, "a", instances={"max": 2})
    await plugin.start()
    (first,) = plugin.vms
    stream = stream_for(plugin)
    stream.add(first, b"", plugin)

    async with first.turn:
        await stream.request.start(HeaderMap([]), end_of_stream=True)

    (context,) = stream.contexts
    second = context.vm
    await anyio.sleep(0.2)
    assert plugin.vms == (first, second)
    await stream.finish()
    await until(lambda: plugin.vms == (first,))
    assert second.guest.poisoned
    await plugin.close()


async def test_a_pool_that_shrinks_grows_again(workshop, monkeypatch):
    monkeypatch.setattr(limits, "INSTANCE_IDLE", 0.03)
    (plugin,) = loaded(workshop, "a", instances={"max": 3})
    await plugin.start()

    for _ in range(2):
        await crowd(plugin, 3)
        assert len(plugin.vms) == 3

        for vm in plugin.vms:
            vm.turn.release()

        await until(lambda: len(plugin.vms) == 1)

    await plugin.close()


async def test_the_only_one_that_is_told_of_a_queue_is_kept(workshop, monkeypatch):
    class Second(Guest):
        made = 0

        def configure(self):
            type(self).made += 1

            if type(self).made == 2:
                where = self.proxy_on_memory_allocate(4)
                self.host.proxy_register_shared_queue(*self.text(b"jobs"), where)

    monkeypatch.setattr(limits, "INSTANCE_IDLE", 0.03)
    (plugin,) = loaded(workshop, "a", guest=Second, instances={"max": 3})
    await plugin.start()
    await crowd(plugin, 3)

    for vm in plugin.vms:
        vm.turn.release()

    await until(lambda: len(plugin.vms) == 2)
    await anyio.sleep(0.1)
    assert len(plugin.vms) == 2
    assert any(vm.consumes for vm in plugin.vms)
    await plugin.close()
