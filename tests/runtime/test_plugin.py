"""Loaded plugins: instances in turn, replaced where they fail, closed at the end."""

from __future__ import annotations

import gc
import logging
import weakref

import anyio
import anyio.lowlevel
import pytest
from asgi.guests import Guest, imports

from wasm_middleware import limits
from wasm_middleware.engines.module_info import ExternKind, Import, ModuleInfo
from wasm_middleware.engines.null import NullModule
from wasm_middleware.errors import PluginLoadError, PluginUnavailableError
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.stream import RequestInfo, Stream
from wasm_middleware.runtime.inspection import inspect_module

from .test_chains import loaded

pytestmark = pytest.mark.anyio


def stream_for(plugin):
    return Stream(plugin.services.clock, RequestInfo)


def break_it(vm):
    vm.guest.poisoned = True
    vm.changed()


async def until(condition):
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(limits, "FIRST_RESTART", 0.01)


async def test_instances_are_taken_in_turn(workshop):
    (plugin,) = loaded(workshop, "a", instances={"min": 3})
    await plugin.start()
    assert len(plugin.vms) == 3
    taken = [plugin.ready() for _ in range(6)]
    assert taken[:3] == taken[3:]
    assert set(taken) == set(plugin.vms)
    await plugin.close()


async def test_an_instance_that_failed_is_replaced_without_a_request(workshop):
    (plugin,) = loaded(workshop, "a", instances={"min": 2})
    await plugin.start()
    first, second = plugin.vms
    break_it(first)
    assert plugin.vms == (second,)
    assert {plugin.ready() for _ in range(3)} == {second}
    await until(lambda: len(plugin.vms) == 2)
    assert plugin.vms[0] is second
    assert first not in plugin.vms
    await plugin.close()


async def test_many_who_find_it_broken_replace_it_once(workshop):
    class Slow(Guest):
        async def proxy_on_configure(self, context, size):
            await anyio.lowlevel.checkpoint()
            return 1

    (plugin,) = loaded(workshop, "a", guest=Slow)
    await plugin.start()
    break_it(plugin.vms[0])
    assert plugin.ready() is None
    found = []

    async def wait():
        found.append(await plugin.take(stream_for(plugin)))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(wait)

    assert len(found) == 4
    assert plugin.vms == tuple(set(found))
    assert workshop.phases("a").count("root") == 2
    await plugin.close()


async def test_a_sound_instance_serves_while_another_can_not_be_replaced(workshop, caplog):
    class Twice(Guest):
        starts = 0

        def configure(self):
            type(self).starts += 1
            return type(self).starts <= 2

    (plugin,) = loaded(workshop, "a", guest=Twice, instances={"min": 2})
    await plugin.start()
    first, second = plugin.vms
    break_it(first)
    await until(lambda: "answered false" in caplog.text)
    assert await plugin.take(stream_for(plugin)) is second
    assert plugin.ready() is second
    assert caplog.text.count("answered false") == 1
    await plugin.close()


async def test_what_is_missing_after_a_failed_start_comes_later(workshop, soon, caplog):
    """The first instance started, and the second did not."""

    class OneFails(Guest):
        starts = 0

        def configure(self):
            type(self).starts += 1
            return type(self).starts != 2

    (plugin,) = loaded(workshop, "a", guest=OneFails, instances={"min": 3})

    with pytest.raises(PluginLoadError, match="answered false"):
        await plugin.start()

    assert len(plugin.vms) == 1
    assert await plugin.take(stream_for(plugin)) is plugin.vms[0]
    await until(lambda: len(plugin.vms) == 3)
    await plugin.close()


async def test_the_error_does_not_grow_and_holds_nothing(workshop):
    """It is raised for each request until the next attempt."""

    class Never(Guest):
        def configure(self):
            return False

    (plugin,) = loaded(workshop, "a", guest=Never)

    with pytest.raises(PluginLoadError):
        await plugin.start()

    depths = []

    for _ in range(3):
        with pytest.raises(PluginUnavailableError, match="answered false") as raised:
            await plugin.take(stream_for(plugin))

        assert raised.value.__cause__ is None
        traceback, depth = raised.value.__traceback__, 0

        while traceback is not None:
            traceback, depth = traceback.tb_next, depth + 1

        depths.append(depth)

    assert len(set(depths)) == 1
    await plugin.close()


@pytest.mark.parametrize("how", ["refuses", "traps"])
async def test_an_instance_that_would_not_start_is_closed(workshop, how):
    made = []

    class Bad(Guest):
        def configure(self):
            made.append(self)

            if how == "traps":
                raise RuntimeError("boom")

            return False

    (plugin,) = loaded(workshop, "a", guest=Bad)
    closed = []
    instantiate = plugin._module.instantiate

    def spy(*arguments):
        guest = instantiate(*arguments)
        close = guest.close
        guest.close = lambda: (closed.append(guest), close())
        return guest

    plugin._module.instantiate = spy

    with pytest.raises(PluginLoadError):
        await plugin.start()

    assert len(closed) == 1
    assert plugin.vms == ()


async def test_close_ends_root_contexts(workshop):
    (plugin,) = loaded(workshop, "a", instances={"min": 2})
    await plugin.start()
    await plugin.close()
    assert workshop.phases("a") == ["root", "root", "done", "delete", "done", "delete"]
    assert plugin.ready() is None


# Without a request


class Consumes(Guest):
    """Takes messages out of a queue; one that says so is its end. Instances are numbered."""

    instances = 0
    enough = None

    def configure(self):
        type(self).instances += 1
        self.number = type(self).instances
        self.where = self.proxy_on_memory_allocate(4)
        self.host.proxy_register_shared_queue(*self.text(b"jobs"), self.where)

    def put(self, message):
        queue = self.memory.read_u32(self.where)
        self.host.proxy_enqueue_shared_queue(queue, *self.text(message))

    def proxy_on_queue_ready(self, context, queue):
        message = self.fetch(self.host.proxy_dequeue_shared_queue, queue)
        self.note(f"{self.number} takes {message}")

        if message == b"bad":
            raise RuntimeError("boom")

        if message == b"last":
            type(self).enough.set()


def consuming(workshop, guest=Consumes, **settings):
    (plugin,) = loaded(workshop, "a", guest=guest, **settings)
    kind = workshop.modules[plugin.settings.path.read_bytes()]
    kind.enough = anyio.Event()
    return kind, plugin


def enqueue(plugin, *messages):
    """Put messages in the queue, as another plugin would."""
    for message in messages:
        plugin.services.queues.enqueue(1, message)


async def ended(plugin):
    await plugin.close()
    await plugin.services.background.aclose()


async def test_a_consumer_that_failed_is_replaced_and_gets_what_waits(workshop, soon):
    kind, plugin = consuming(workshop)
    await plugin.start()
    enqueue(plugin, b"bad", b"good", b"good", b"last")

    with anyio.fail_after(5):
        await kind.enough.wait()

    taken = [phase for phase in workshop.phases("a") if "takes" in phase]
    assert taken == [
        "1 takes b'bad'",
        "2 takes b'good'",
        "2 takes b'good'",
        "2 takes b'last'",
    ]
    await ended(plugin)


async def test_a_backlog_is_told_to_an_instance_once_it_has_started(workshop):
    """Not while it registers its queue: it is not ready then."""
    kind, plugin = consuming(workshop)
    queues = plugin.services.queues
    enqueue_all = queues.register("", b"jobs", lambda queue: True)
    assert enqueue_all == 1
    enqueue(plugin, b"one", b"last")
    await plugin.start()
    assert workshop.phases("a") == ["root"]

    with anyio.fail_after(5):
        await kind.enough.wait()

    assert workshop.phases("a") == ["root", "1 takes b'one'", "1 takes b'last'"]
    await ended(plugin)


async def test_instances_that_fail_together_are_all_replaced_at_once(workshop, monkeypatch):
    """They count as one failure."""
    monkeypatch.setattr(limits, "FIRST_RESTART", 3600)
    monkeypatch.setattr(limits, "SPARE_RESTARTS", 1)
    _, plugin = consuming(workshop, instances={"min": 3})
    await plugin.start()
    broken = plugin.vms

    for vm in broken:
        break_it(vm)
        vm.changed()

    await until(lambda: len(plugin.vms) == 3)
    assert not set(broken) & set(plugin.vms)
    await ended(plugin)


# Unloaded


async def test_nothing_is_healed_once_it_is_unloaded(workshop, monkeypatch):
    monkeypatch.setattr(limits, "FIRST_RESTART", 0.1)
    monkeypatch.setattr(limits, "SPARE_RESTARTS", 1)
    _, plugin = consuming(workshop)
    await plugin.start()
    # The first loss is made good at once, and the second later.
    enqueue(plugin, b"bad", b"bad")
    await until(lambda: workshop.phases("a").count("root") == 2 and not plugin.vms)
    await ended(plugin)
    await anyio.sleep(0.2)
    assert workshop.phases("a").count("root") == 2


async def test_an_instance_that_fails_while_it_is_unloaded_is_not_replaced(
    workshop, soon, monkeypatch
):
    class Leaving(Consumes):
        def done(self):
            self.put(b"bad")

        def proxy_on_done(self, context):
            super().proxy_on_done(context)
            return 0

    _, plugin = consuming(workshop, Leaving)
    await plugin.start()

    with anyio.fail_after(2):
        await plugin.close()

    with pytest.raises(PluginLoadError, match="unloaded"):
        await plugin.take(stream_for(plugin))

    assert workshop.phases("a") == ["root", "done", "1 takes b'bad'"]
    assert plugin.vms == ()


async def test_a_request_starts_no_instance_of_what_is_being_unloaded(workshop):
    class Slow(Guest):
        async def proxy_on_configure(self, context, size):
            self.note("starts")
            await type(self).go.wait()
            return 1

    (plugin,) = loaded(workshop, "a", guest=Slow)
    kind = workshop.modules[plugin.settings.path.read_bytes()]
    kind.go = anyio.Event()
    raised = []

    async def wait():
        with pytest.raises(PluginLoadError, match="unloaded") as caught:
            await plugin.take(stream_for(plugin))

        raised.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await until(lambda: "starts" in workshop.phases("a"))
        await plugin.close()
        kind.go.set()

    assert len(raised) == 1
    assert plugin.vms == ()
    assert workshop.phases("a") == ["root", "starts"]


async def test_closing_that_is_cancelled_leaves_no_instance_behind(workshop):
    class Never(Guest):
        def proxy_on_done(self, context):
            return 0

    (plugin,) = loaded(workshop, "a", guest=Never, instances={"min": 2})
    await plugin.start()
    vms = plugin.vms

    async with anyio.create_task_group() as group:
        group.start_soon(plugin.close)
        await anyio.wait_all_tasks_blocked()
        assert not any(vm.guest.poisoned for vm in vms)
        group.cancel_scope.cancel()

    assert all(vm.guest.poisoned for vm in vms)
    assert plugin.vms == ()


async def test_an_instance_that_was_replaced_is_not_kept(workshop, soon, caplog):
    # A line that is kept keeps the error, and that the frames it came through.
    caplog.set_level(logging.CRITICAL, "wasm_middleware")
    _, plugin = consuming(workshop)
    await plugin.start()
    gone = weakref.ref(plugin.vms[0])
    enqueue(plugin, b"bad")

    await until(lambda: plugin.vms and plugin.vms[0] is not gone())
    await anyio.wait_all_tasks_blocked()
    gc.collect()
    assert gone() is None
    await ended(plugin)


# What a module is


@pytest.mark.parametrize(
    ("without", "reads", "changes"),
    [
        ((), True, True),
        (("proxy_set_buffer_bytes",), True, False),
        (("proxy_get_buffer_bytes", "proxy_get_buffer_status"), True, True),
        (
            ("proxy_get_buffer_bytes", "proxy_get_buffer_status", "proxy_set_buffer_bytes"),
            False,
            False,
        ),
    ],
)
def test_what_a_module_wants_is_told_by_its_imports(without, reads, changes):
    class Module(Guest):
        imports = imports(*without)

    inspection = inspect_module(NullModule(Module).info)
    assert (inspection.reads_bodies, inspection.changes_bodies) == (reads, changes)
    assert inspection.problems == ()
    assert inspection.unknown_imports == ()


def test_a_module_that_is_no_plugin_says_why(workshop):
    class Odd(Guest):
        markers = ("proxy_abi_version_9_9_9",)
        imports = (
            Import("env", "the_future", ExternKind.FUNCTION, ">"),
            Import("env", "memory", ExternKind.MEMORY),
        )

        def proxy_on_configure(self, only_one):
            return 1

    inspection = inspect_module(NullModule(Odd).info)
    no_marker, memory, signature = inspection.problems
    assert "no marker of a known ABI version" in no_marker
    assert "imports the memory env.memory" in memory
    assert "its proxy_on_configure has the type i>i, not ii>i" in signature
    assert [one.name for one in inspection.unknown_imports] == ["the_future"]

    with pytest.raises(PluginLoadError, match="no marker"):
        loaded(workshop, "a", guest=Odd)


def test_a_module_without_allocator_says_so():
    assert "exports no allocator" in str(inspect_module(ModuleInfo(0, "")).problems)


async def test_a_call_comes_to_its_end_before_its_instance_is_unloaded(workshop):
    (plugin,) = loaded(workshop, "a")
    await plugin.start()
    (vm,) = plugin.vms
    await vm.turn.__aenter__()

    async with anyio.create_task_group() as group:
        group.start_soon(plugin.close)
        await anyio.wait_all_tasks_blocked()
        assert not vm.guest.poisoned
        vm.turn.release()

    assert vm.guest.poisoned
    assert workshop.phases("a")[-2:] == ["done", "delete"]


async def test_a_call_that_does_not_end_is_cut_off_when_it_is_unloaded(workshop, monkeypatch):
    monkeypatch.setattr(limits, "DONE_TIMEOUT", 0.01)
    (plugin,) = loaded(workshop, "a", instances={"min": 2})
    await plugin.start()
    busy, idle = plugin.vms
    await busy.turn.__aenter__()
    await plugin.close()
    assert busy.guest.poisoned
    assert idle.guest.poisoned
    assert workshop.phases("a").count("done") == 1


async def test_lines_that_were_dropped_are_counted_when_it_ends(workshop, caplog):
    class Floods(Guest):
        def configure(self):
            for _ in range(5):
                self.host.proxy_log(4, *self.text(b"hello"))

    (plugin,) = loaded(workshop, "a", guest=Floods, log_rate=2)
    await plugin.start()
    assert "were dropped" not in caplog.text
    await plugin.close()
    assert caplog.text.count("3 of its lines were dropped") == 1


async def test_a_context_that_the_guest_never_heard_of_has_no_end(workshop, monkeypatch):
    """Its instance was busy for too long before it was created there."""
    monkeypatch.setattr(limits, "MAX_INSTANCE_WAIT", 0.01)
    (plugin,) = loaded(workshop, "a")
    await plugin.start()
    (vm,) = plugin.vms
    stream = stream_for(plugin)
    stream.add(vm, b"")

    async with vm.turn:
        await stream.request.start(HeaderMap([]), end_of_stream=True)

    assert (stream.reply.status, stream.reply.details) == (503, "pool")
    await stream.finish()
    assert set(vm.contexts) == {root.id for root in vm.roots.values()}
    assert not {"create", "done", "delete"} & set(workshop.phases("a"))
    await plugin.close()
