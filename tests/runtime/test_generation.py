"""Generations and the registry: loaded once, shared, closed by the last one."""

from __future__ import annotations

import logging

import anyio
import pytest
from asgi.guests import Guest

from wasm_middleware import limits
from wasm_middleware.config import load_settings
from wasm_middleware.engines.isolation import CompilationFailed
from wasm_middleware.engines.null import NullEngine
from wasm_middleware.errors import ConfigError, HostBug
from wasm_middleware.runtime.generation import load_generation
from wasm_middleware.runtime.plugin import LoadedPlugin
from wasm_middleware.runtime.registry import Registry, config_key

pytestmark = pytest.mark.anyio


class Engine(NullEngine):
    """Says when it is closed."""

    closed = False

    def close(self):
        self.closed = True


async def test_it_knows_plugins_routes_and_chains(workshop):
    workshop.add(Guest, name="a")
    workshop.add(Guest, name="b", config="own")
    routes = [
        {"path": "/x", "id": "one", "plugins": ["b"], "methods": ["GET"]},
        {"path": "/x", "plugins": [{"name": "b", "config": "other"}]},
    ]
    settings = load_settings(workshop.config(routes=routes))
    generation = await load_generation(settings, workshop.engine())
    assert list(generation.plugins) == ["a", "b"]
    assert list(generation.routes) == ["one", "/x"]
    assert generation.chain_for("/x", "", "GET").links[0].config == b"own"
    assert generation.chain_for("/x", "", "POST").links[0].config == b"other"
    assert generation.chain_for("/y", "", "GET").links == ()
    assert generation.chain_of(["b", "a"]).names == ("b", "a")
    assert set(generation.plugins["b"].vms[0].roots) == {b"own", b"other"}
    await generation.close()
    assert generation.plugins["a"].vms == ()


async def test_what_can_not_be_loaded_closes_what_was(workshop):
    class Bad(Guest):
        def configure(self):
            return False

    workshop.add(Guest, name="good")
    workshop.add(Bad, name="bad")
    engine = Engine(workshop.modules)

    with pytest.raises(ConfigError, match="'bad': on_configure answered false"):
        await load_generation(load_settings(workshop.config()), engine)

    assert engine.closed
    assert workshop.phases("good")[-1] == "delete"


async def test_what_does_not_start_is_not_tried_again_while_others_do(workshop, monkeypatch):
    class Bad(Guest):
        def configure(self):
            return False

    class Good(Guest):
        def configure(self):
            closed.extend(plugin for plugin in bad if plugin._pool._closed)

    def note(self, *args, **more):
        init(self, *args, **more)
        bad.append(self)

    bad, closed = [], []
    init = LoadedPlugin.__init__
    monkeypatch.setattr(LoadedPlugin, "__init__", note)
    workshop.add(Bad)
    workshop.add(Good)

    with pytest.raises(ConfigError, match="'bad': on_configure answered false"):
        await load_generation(load_settings(workshop.config()), Engine(workshop.modules))

    assert [plugin.name for plugin in closed] == ["bad"]


class Stuck(Engine):
    """Can't be closed."""

    def close(self):
        super().close()
        raise OSError("the engine is stuck")


def break_plugin(generation, name, error):
    """Let it fail, or hang, before it has ended anything."""

    async def close():
        if error is None:
            await anyio.sleep_forever()

        raise error

    generation.plugins[name].close = close


def failures(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_plugin_that_can_not_be_closed_leaves_nothing_else_open(workshop, caplog):
    for name in "abc":
        workshop.add(Guest, name=name)

    engine = Stuck(workshop.modules)
    generation = await load_generation(load_settings(workshop.config()), engine)
    [vm] = generation.plugins["b"].vms
    background = generation.plugins["b"].services.background
    break_plugin(generation, "b", KeyError("a bug"))

    with pytest.raises(HostBug, match="the engine is stuck") as raised:
        await generation.close()

    assert "plugin 'b' could not be ended: KeyError('a bug')" in str(raised.value)
    assert workshop.phases("a")[-1] == workshop.phases("c")[-1] == "delete"
    assert vm.guest.poisoned
    assert engine.closed
    assert "KeyError: 'a bug'" in caplog.text
    assert "OSError: the engine is stuck" in caplog.text
    ran = []

    async def run():
        ran.append("ran")

    # The services have ended: nothing begins any more.
    background.run(run)
    await anyio.wait_all_tasks_blocked()
    assert ran == []


async def test_a_plugin_that_hangs_is_left_after_a_while(workshop, caplog, monkeypatch):
    monkeypatch.setattr(limits, "DONE_TIMEOUT", 0.02)
    monkeypatch.setattr(limits, "END_TIMEOUT", 0.02)

    for name in "abc":
        workshop.add(Guest, name=name)

    engine = Engine(workshop.modules)
    generation = await load_generation(load_settings(workshop.config()), engine)
    vms = {name: generation.plugins[name].vms[0] for name in "ab"}
    break_plugin(generation, "a", None)
    break_plugin(generation, "b", None)

    with anyio.fail_after(5):
        await generation.close()

    assert sorted(record.getMessage() for record in failures(caplog)) == [
        "plugin 'a' has not ended within 0.04 s",
        "plugin 'b' has not ended within 0.04 s",
    ]
    assert workshop.phases("c")[-1] == "delete"
    assert [vm.guest.poisoned for vm in vms.values()] == [True, True]
    assert engine.closed


async def test_plugins_end_side_by_side(workshop):
    """Each may have something left to do; a server does not wait for the sum of it."""
    both = anyio.Event()

    class Meets(Guest):
        async def proxy_on_done(self, context):
            self.enter(context, "done")

            if len([event for event in self.events if event.endswith("done")]) == 2:
                both.set()

            await both.wait()
            return 1

    workshop.add(Meets, name="a")
    workshop.add(Meets, name="b")
    generation = await load_generation(load_settings(workshop.config()), workshop.engine())

    with anyio.fail_after(5):
        await generation.close()

    assert workshop.phases("a") == workshop.phases("b") == ["root", "done", "delete"]


async def test_a_close_that_is_cancelled_closes_all_the_same(workshop):
    class Slow(Guest):
        async def proxy_on_done(self, context):
            await anyio.sleep(0)
            return 1

    workshop.add(Slow, name="a")
    engine = Engine(workshop.modules)
    generation = await load_generation(load_settings(workshop.config()), engine)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await generation.close()

    assert workshop.phases("a")[-1] == "delete"
    assert engine.closed


async def test_why_it_could_not_be_loaded_is_said_even_if_closing_fails(workshop, caplog):
    class Bad(Guest):
        def configure(self):
            return False

    workshop.add(Bad, name="bad")

    with pytest.raises(ConfigError, match="'bad': on_configure answered false"):
        await load_generation(load_settings(workshop.config()), Stuck(workshop.modules))

    assert "OSError: the engine is stuck" in caplog.text


async def test_a_holder_gets_what_another_one_has_loaded(workshop):
    workshop.add(Guest, name="a")
    settings = load_settings(workshop.config())
    registry, engines = Registry(), []

    def make():
        engines.append(Engine(workshop.modules))
        return engines[-1]

    first = await registry.acquire("key", settings, make)
    assert await registry.acquire("key", settings, make) is first
    assert await registry.acquire("other", settings, make) is not first
    await registry.release("key")
    assert not engines[0].closed
    await registry.release("key")
    assert engines[0].closed
    assert not engines[1].closed
    await registry.release("key")
    assert await registry.acquire("key", settings, make) is not first


async def test_those_who_come_at_once_load_once(workshop):
    class Slow(Guest):
        async def proxy_on_configure(self, context, size):
            await anyio.wait_all_tasks_blocked()
            return 1

    workshop.add(Slow)
    settings, registry, found = load_settings(workshop.config()), Registry(), []

    async def acquire():
        found.append(await registry.acquire("key", settings, workshop.engine))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(acquire)

    assert len(set(found)) == 1
    assert workshop.phases("slow") == ["root"]


async def test_each_tries_by_itself_where_loading_fails(workshop):
    class Later(Guest):
        tries = 0

        def configure(self):
            type(self).tries += 1
            return type(self).tries > 1

    workshop.add(Later)
    settings, registry, outcomes = load_settings(workshop.config()), Registry(), []

    async def acquire():
        try:
            await registry.acquire("key", settings, workshop.engine)
            outcomes.append("loaded")
        except ConfigError:
            outcomes.append("failed")

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(acquire)

    assert outcomes == ["failed", "loaded", "loaded"]


def test_keys_are_what_is_configured(workshop, tmp_path, monkeypatch):
    workshop.add(Guest, name="a")
    file = tmp_path / "plugins.yaml"
    file.write_text("plugins:\n  - {name: a, path: a.wasm}\n")
    settings = load_settings(file)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    key = config_key(file, settings, {"log_level": None})
    assert config_key(str(link), settings, {"log_level": None}) == key
    assert config_key(file, settings, {"log_level": "debug"}) != key
    here = load_settings(workshop.config())
    key = config_key(workshop.config(), here, {})
    assert config_key(workshop.config(), load_settings(workshop.config()), {}) == key
    assert config_key(workshop.config(log_level="debug"), here, {}) != key
    # Relative paths in it would be others.
    monkeypatch.chdir("/")
    assert config_key(workshop.config(), load_settings(workshop.config()), {}) != key
    assert config_key(here, here, {}) == config_key(here, here, {}) != key
    hash(key)


class Compiling(NullEngine):
    """Says how it was asked to compile."""

    def __init__(self, modules):
        super().__init__(modules)
        self.asked = []

    def compile(self, wasm):
        self.asked.append("in_process")
        return super().compile(wasm)

    def compile_isolated(self, wasm):
        self.asked.append("isolated")
        return super().compile(wasm)


async def test_a_module_that_nobody_vouches_for_is_compiled_apart(workshop):
    workshop.add(Guest, name="ours")
    workshop.add(Guest, name="theirs", compile="isolated")
    engine = Compiling(workshop.modules)

    generation = await load_generation(load_settings(workshop.config()), engine)

    assert engine.asked == ["in_process", "isolated"]
    await generation.close()


async def test_a_module_that_takes_too_long_to_compile_is_a_mistake_in_the_file(workshop):
    class Slow(Compiling):
        def compile_isolated(self, wasm):
            raise CompilationFailed("compiling it takes longer than 60 s")

    workshop.add(Guest, name="theirs", compile="isolated")
    engine = Slow(workshop.modules)

    with pytest.raises(ConfigError, match="plugin 'theirs': compiling it takes longer than 60 s"):
        await load_generation(load_settings(workshop.config()), engine)
