"""Functions of the application's that plugins call."""

from __future__ import annotations

import asyncio
import logging

import anyio
import pytest

from wasm_middleware import WasmPluginMiddleware, deferred, limits
from wasm_middleware.runtime.registry import REGISTRY, functions_key

from .guests import CONTINUE, PAUSE, REQUEST_HEADERS, Guest, imports
from .harness import Server, Spy, http_scope

pytestmark = pytest.mark.anyio
INTERNAL_FAILURE = 10


class Caller(Guest):
    """Calls what a header names, with another header, and tells the application the result."""

    imports = imports("proxy_set_buffer_bytes")

    def call(self, name, arguments):
        """Status and result."""
        where = self.proxy_on_memory_allocate(8)
        texts = (*self.text(name), *self.text(arguments))
        status = self.host.proxy_call_foreign_function(*texts, where, where + 4)
        read = self.memory.read_u32
        return status, b"" if status else self.memory.read(read(where), read(where + 4))

    def request_headers(self, end):
        status, result = self.call(self.get(b"x-call"), self.get(b"x-arguments") or b"")
        self.set(b"x-status", b"%d" % status)
        self.set(b"x-result", result.hex().encode())


class Waiter(Caller):
    """Pauses until the result is there."""

    def request_headers(self, end):
        self.waiting = getattr(self, "waiting", {})
        status, result = self.call(self.get(b"x-call"), self.get(b"x-arguments") or b"")
        assert status == 0
        self.waiting[int.from_bytes(result, "little")] = self.context
        return PAUSE

    def proxy_on_foreign_function(self, root, token, size):
        self.host.proxy_set_effective_context(self.waiting.pop(token))
        result = self.fetch(self.host.proxy_get_buffer_bytes, 8, 0, size) if size else b""
        self.set(b"x-result", result, REQUEST_HEADERS)
        self.resume()
        return CONTINUE


def asking(name, arguments=b"", path="/"):
    return http_scope(path, headers=[(b"x-call", name), (b"x-arguments", arguments)])


async def test_a_plugin_calls_a_function_of_the_applications(workshop):
    workshop.add(Caller)
    app = Spy()
    functions = {"upper": bytes.upper}
    await Server(asking(b"upper", b"abc")).run(workshop.wrap(app, foreign_functions=functions))

    assert app.header(b"x-status") == [b"0"]
    assert app.header(b"x-result") == [b"ABC".hex().encode()]


async def test_without_functions_there_are_envoys(workshop):
    workshop.add(Caller)
    app = Spy()
    await Server(asking(b"clear_route_cache")).run(workshop.wrap(app))

    assert app.header(b"x-status") == [b"0"]


async def test_a_function_that_fails_fails_neither_plugin_nor_request(workshop, caplog):
    def fails(_arguments):
        raise LookupError("no such table")

    workshop.add(Caller)
    app = Spy()
    server = await Server(asking(b"fails")).run(
        workshop.wrap(app, foreign_functions={"fails": fails})
    )

    assert server.status == 200
    assert app.header(b"x-status") == [b"%d" % INTERNAL_FAILURE]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "plugin 'caller': the foreign function 'fails'" in record.getMessage()


async def test_requests_wait_for_an_asynchronous_function(workshop):
    entered, release = [], anyio.Event()

    async def lookup(arguments):
        entered.append(arguments)

        if len(entered) == 2:
            release.set()

        await release.wait()
        return arguments + b"!"

    workshop.add(Waiter)
    apps = [Spy(), Spy()]

    async def app(scope, receive, send):
        await apps[int(scope["path"][1:])](scope, receive, send)

    wrapped = await workshop.load(
        workshop.wrap(app, foreign_functions={"lookup": deferred(lookup)})
    )

    async with anyio.create_task_group() as group:
        for index in range(2):
            scope = asking(b"lookup", b"%d" % index, path=f"/{index}")
            group.start_soon(Server(scope).run, wrapped)

    # Both ran at once, and each got its own answer.
    assert sorted(entered) == [b"0", b"1"]
    assert [app.header(b"x-result") for app in apps] == [[b"0!"], [b"1!"]]


async def test_an_asynchronous_failure_lets_the_plugin_go_on(workshop, caplog):
    async def lookup(_arguments):
        await anyio.lowlevel.checkpoint()
        raise ConnectionError("refused")

    workshop.add(Waiter)
    app = Spy()
    await Server(asking(b"lookup")).run(
        workshop.wrap(app, foreign_functions={"lookup": deferred(lookup)})
    )

    assert app.header(b"x-result") == [b""]
    assert "gave no result: it failed" in caplog.text
    assert "ConnectionError: refused" in caplog.text


async def test_a_function_that_takes_too_long_lets_the_plugin_go_on(workshop, caplog, monkeypatch):
    async def lookup(_arguments):
        await anyio.sleep_forever()

    monkeypatch.setattr(limits, "MAX_DEFERRED_TIME", 0.01)
    workshop.add(Waiter)
    app = Spy()
    functions = {"lookup": deferred(lookup)}

    with anyio.fail_after(5):
        await Server(asking(b"lookup")).run(workshop.wrap(app, foreign_functions=functions))

    assert app.header(b"x-result") == [b""]
    assert "'lookup' gave no result: it took longer than 10ms" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_function_that_is_cancelled_lets_the_plugin_go_on(workshop, caplog):
    """By what it waits for, and not by us."""

    async def lookup(_arguments):
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        return await other

    workshop.add(Waiter)
    app = Spy()
    functions = {"lookup": deferred(lookup)}

    with anyio.fail_after(5):
        await Server(asking(b"lookup")).run(workshop.wrap(app, foreign_functions=functions))

    assert app.header(b"x-result") == [b""]
    assert "gave no result: it failed" in caplog.text


async def test_a_function_ends_with_the_plugins(workshop):
    ended = anyio.Event()
    entered = anyio.Event()

    async def lookup(_arguments):
        entered.set()

        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    class Leaver(Waiter):
        def request_headers(self, end):
            super().request_headers(end)
            return CONTINUE

    workshop.add(Leaver)
    app = Spy()
    wrapped = workshop.wrap(app, foreign_functions={"lookup": deferred(lookup)})
    await Server(asking(b"lookup")).run(wrapped)

    with anyio.fail_after(5):
        await entered.wait()
        (shared,) = REGISTRY._shared.values()
        await shared.generation.close()
        await ended.wait()

    assert "delete" in workshop.phases("leaver")


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([len], "foreign_functions must be functions by name"),
        ({"": len}, "the name of a foreign function must be text, not ''"),
        ({b"upper": len}, "must be text, not b'upper'"),
        ({"upper": "len"}, "the foreign function 'upper' can't be called: 'len'"),
        ({"upper": None}, "can't be called"),
    ],
)
def test_mistakes_are_found_at_once(functions, message):
    with pytest.raises(TypeError, match=message):
        WasmPluginMiddleware(Spy(), config={}, foreign_functions=functions)


async def test_the_functions_are_those_of_the_start(workshop):
    workshop.add(Caller)
    app = Spy()
    functions = {"upper": bytes.upper}
    wrapped = workshop.wrap(app, foreign_functions=functions)
    functions.clear()
    await Server(asking(b"upper", b"abc")).run(wrapped)

    assert app.header(b"x-status") == [b"0"]


async def test_other_functions_are_another_generation(workshop):
    def upper(arguments):
        return arguments.upper()

    def other(arguments):
        return b"other"

    workshop.add(Caller)
    results = []

    for function in (upper, other, upper):
        app = Spy()
        wrapped = workshop.wrap(app, foreign_functions={"upper": function})
        await Server(asking(b"upper", b"abc")).run(wrapped)
        results += app.header(b"x-result")

    assert results == [b"ABC".hex().encode(), b"other".hex().encode(), b"ABC".hex().encode()]
    assert len(REGISTRY._shared) == 2


class Store:
    def get(self, arguments):
        return arguments

    def put(self, arguments):
        return arguments


def test_a_method_is_its_object_and_function():
    one, other = Store(), Store()
    key = functions_key({"f": one.get})

    assert key == functions_key({"f": one.get})
    assert key != functions_key({"f": other.get})
    assert key != functions_key({"f": one.put})
    assert key != functions_key({"g": one.get})
    assert functions_key({}) == functions_key({})
