"""Loaded plugins: instances in turn, replaced where they fail, closed at the end."""

from __future__ import annotations

import anyio
import pytest
from asgi.guests import Guest, imports

from wasm_middleware.engines.module_info import ExternKind, Import, ModuleInfo
from wasm_middleware.engines.null import NullModule
from wasm_middleware.errors import PluginLoadError
from wasm_middleware.runtime.inspection import inspect_module

from .test_chains import loaded

pytestmark = pytest.mark.anyio


def break_it(vm):
    vm.guest.poisoned = True


async def test_instances_are_taken_in_turn(workshop):
    (plugin,) = loaded(workshop, "a", instances={"min": 3})
    await plugin.start()
    assert len(plugin.vms) == 3
    taken = [plugin.ready() for _ in range(6)]
    assert taken[:3] == taken[3:]
    assert set(taken) == set(plugin.vms)


async def test_an_instance_that_failed_is_replaced_in_its_place(workshop):
    (plugin,) = loaded(workshop, "a", instances={"min": 2})
    await plugin.start()
    first, second = plugin.vms
    break_it(first)
    found = [plugin.ready() for _ in range(2)]
    assert sorted(found, key=bool) == [None, second]
    await plugin.replace()
    assert len(plugin.vms) == 2
    assert plugin.vms[1] is second
    assert plugin.vms[0] is not first
    assert None not in [plugin.ready() for _ in range(4)]


async def test_many_who_find_it_broken_replace_it_once(workshop):
    class Slow(Guest):
        async def proxy_on_configure(self, context, size):
            await anyio.lowlevel.checkpoint()
            return 1

    (plugin,) = loaded(workshop, "a", guest=Slow)
    await plugin.start()
    break_it(plugin.vms[0])
    found = []

    async def replace():
        found.append(await plugin.replace())

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(replace)

    assert len(set(found)) == 1
    assert plugin.vms == (found[0],)
    assert workshop.phases("a").count("root") == 2


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
    assert await plugin.replace() is second
    assert await plugin.replace() is second
    assert caplog.text.count("answered false") == 1


async def test_the_last_error_does_not_grow(workshop):
    """It is raised for each request until the next attempt."""

    class Never(Guest):
        def configure(self):
            return False

    (plugin,) = loaded(workshop, "a", guest=Never)
    depths = []

    for _ in range(3):
        with pytest.raises(PluginLoadError) as raised:
            await plugin.replace()

        traceback, depth = raised.value.__traceback__, 0

        while traceback is not None:
            traceback, depth = traceback.tb_next, depth + 1

        depths.append(depth)

    assert len(set(depths)) == 1


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
