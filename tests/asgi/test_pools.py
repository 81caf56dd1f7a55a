"""Pools: more instances while calls are suspended, and what becomes of requests without one."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import pytest

from tests.wat import wat2wasm
from wasm_middleware import limits

from .guests import Guest
from .harness import Server, Spy, http_scope, respond
from .test_waiting import FOREIGN, add

pytestmark = pytest.mark.anyio

ROUND_TRIP = 0.02


class Asks(Guest):
    """Waits for a store while a call is in it, as a host call that waits does."""

    made = 0

    def __init__(self, memory, host):
        super().__init__(memory, host)
        type(self).made += 1

    async def request_headers(self, end):
        await anyio.sleep(ROUND_TRIP)


class Held(Guest):
    """Its calls are suspended until `go`."""

    made = 0
    go = None

    def __init__(self, memory, host):
        super().__init__(memory, host)
        type(self).made += 1
        self.number = type(self).made

    async def request_headers(self, end):
        self.set(b"x-instance", b"%d" % self.number)
        await type(self).go.wait()


async def statuses(app, count, path="/"):
    """What so many requests at once are answered."""
    found = []

    async def request():
        server = await Server(http_scope(path)).run(app)
        found.append(server.status)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(request)

    return found


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hundred_requests_wait_for_a_store_at_once(workshop):
    """Each for 20 ms, from inside of a guest's call; on one thread. `make bench` says how fast."""
    made = workshop.add(Asks, instances={"max": 100})
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    threads = threading.active_count()
    took = []

    for _ in range(5):
        began = time.perf_counter()
        assert await statuses(app, 100) == [200] * 100
        took.append(time.perf_counter() - began)

    assert 10 < made.made <= 100
    assert threading.active_count() == threads
    # One after the other they would take 2 s.
    assert min(took) < 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_second_plugin_of_a_chain_waits_side_by_side_too(workshop):
    """Its instances are chosen when it is called, not when all of them were idle."""
    first, second = type("First", (Asks,), {"made": 0}), type("Second", (Asks,), {"made": 0})
    first = workshop.add(first, instances={"max": 40})
    second = workshop.add(second, instances={"max": 40})
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    assert await statuses(app, 40) == [200] * 40
    assert first.made > 10
    assert second.made > 10


class Late(Asks):
    """Waits in a later call, when each context has its instance already."""

    request_headers = Guest.request_headers

    async def response_headers(self, end):
        await anyio.sleep(ROUND_TRIP)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_contexts_that_wait_for_their_instance_are_spread_from_then_on(workshop):
    made = workshop.add(Late, instances={"max": 10})
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    assert await statuses(app, 30) == [200] * 30
    assert made.made == 10
    # Each instance has one of ten now.
    waiting = []

    async def wait(self, end):
        waiting.append(self)
        await anyio.sleep(ROUND_TRIP)

    made.response_headers = wait
    assert await statuses(app, 10) == [200] * 10
    assert len(set(map(id, waiting))) == 10


@pytest.mark.parametrize(("policy", "expected"), [("fail_closed", 503), ("fail_open", 200)])
@pytest.mark.parametrize("settings", [{}, {"request_timeout": "20ms"}], ids=["", "limited"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_waits_too_long_for_its_instance_gets_the_failure_policy_alone(
    workshop, monkeypatch, caplog, policy, expected, settings
):
    """It has a context there, and can't go elsewhere; the instance lives on."""

    class Holds(Held):
        request_headers = Guest.request_headers

        async def response_headers(self, end):
            await type(self).go.wait()

    if not settings:
        monkeypatch.setattr(limits, "MAX_INSTANCE_WAIT", 0.02)

    made = workshop.add(Holds, instances={"max": 1}, failure_policy=policy, **settings)
    made.go, all_there, there = anyio.Event(), anyio.Event(), []

    async def app(scope, receive, send):
        there.append(scope)

        if len(there) == 3:
            all_there.set()

        await all_there.wait()
        await respond(b"hi")(scope, receive, send)

    outer = await workshop.load(workshop.wrap(app))
    found = []

    async def request():
        found.extend(await statuses(outer, 1))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(request)

        with anyio.fail_after(5):
            while caplog.text.count("its instance was busy with others for 0.02 s") < 2:
                await anyio.sleep(0.001)

        made.go.set()

    assert sorted(found) == sorted([200, expected, expected])
    assert made.made == 1


@pytest.mark.parametrize(("policy", "expected"), [("fail_closed", 503), ("fail_open", 200)])
async def test_an_instance_may_be_lost_before_the_chain_comes_to_it(workshop, policy, expected):
    """Another plugin holds the request; when it lets go, this one has no instance any more."""

    class Frail(Guest):
        made = 0

        def configure(self):
            type(self).made += 1
            return type(self).made == 1

        def request_headers(self, end):
            raise RuntimeError("it has failed")

    held = workshop.add(Held)
    held.go = anyio.Event()
    workshop.add(Frail, failure_policy=policy)
    routes = [{"path": "/frail", "plugins": ["frail"]}, {"path": "/", "plugins": ["held", "frail"]}]
    app = await workshop.load(workshop.wrap(respond(b"hi"), routes=routes))
    found = []

    async def request():
        found.extend(await statuses(app, 1))

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await anyio.wait_all_tasks_blocked()
        assert await statuses(app, 1, "/frail") == [expected]
        await anyio.wait_all_tasks_blocked()
        held.go.set()

    assert found == [expected]
    assert workshop.phases("frail").count("request_headers") == 1


async def test_where_nothing_is_suspended_there_is_one(workshop):
    made = workshop.add(type("Quick", (Asks,), {"request_headers": Guest.request_headers}))
    app = workshop.wrap(respond(b"hi"))
    assert await statuses(app, 50) == [200] * 50
    assert made.made == 1


async def test_there_are_no_more_than_the_most(workshop):
    made = workshop.add(Asks, instances={"max": 3})
    app = workshop.wrap(respond(b"hi"))
    assert await statuses(app, 12) == [200] * 12
    assert made.made == 3


async def test_who_has_waited_longest_is_first(workshop):
    made = workshop.add(Asks, instances={"max": 1})
    order = []

    async def app(scope, receive, send):
        order.append(scope["path"])
        await respond(b"hi")(scope, receive, send)

    outer = await workshop.load(workshop.wrap(app))

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(statuses, outer, 1, f"/{number}")
            await anyio.wait_all_tasks_blocked()

    assert order == [f"/{number}" for number in range(6)]
    assert made.made == 1


@pytest.mark.parametrize(("policy", "expected"), [("fail_closed", 503), ("fail_open", 200)])
async def test_who_has_waited_too_long_gets_the_failure_policy(
    workshop, monkeypatch, caplog, policy, expected
):
    monkeypatch.setattr(limits, "MAX_INSTANCE_WAIT", 0.01)
    made = workshop.add(Held, instances={"max": 1}, failure_policy=policy)
    made.go = anyio.Event()
    app = await workshop.load(workshop.wrap(respond(b"hi")))

    async with anyio.create_task_group() as group:
        group.start_soon(statuses, app, 1)
        await anyio.wait_all_tasks_blocked()
        assert await statuses(app, 3) == [expected] * 3
        made.go.set()

    # It is said once for all of them.
    assert caplog.text.count("none of its 1 instances was free within 0.01 s") == 1
    assert await statuses(app, 2) == [200, 200]


async def test_no_more_than_so_many_wait(workshop, monkeypatch, caplog):
    monkeypatch.setattr(limits, "MAX_INSTANCE_WAITERS", 2)
    made = workshop.add(Held, instances={"max": 1})
    made.go = anyio.Event()
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    found = []

    async def request():
        found.extend(await statuses(app, 1))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(request)
            await anyio.wait_all_tasks_blocked()

        assert found == [503, 503]
        made.go.set()

    assert sorted(found) == [200, 200, 200, 503, 503]
    assert "2 requests wait for one of its instances already" in caplog.text


# Under trio no call of an engine is suspended, so that nobody waits for another's.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_gives_up_leaves_its_place_to_the_next(workshop):
    made = workshop.add(Held, instances={"max": 1})
    made.go = anyio.Event()
    app = await workshop.load(workshop.wrap(respond(b"hi")))
    found = []

    async def request():
        found.extend(await statuses(app, 1))

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await anyio.wait_all_tasks_blocked()

        with anyio.CancelScope() as given_up:
            async with anyio.create_task_group() as inner:
                inner.start_soon(request)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(request)
                await anyio.wait_all_tasks_blocked()
                given_up.cancel()

        made.go.set()

    assert found == [200, 200]


async def test_a_context_stays_on_its_instance(workshop):
    """Its later calls too, though its instance is busy then and others are not."""

    class Both(Held):
        def request_headers(self, end):
            self.where = getattr(self, "where", set()) | {self.context}
            return super().request_headers(end)

        def response_headers(self, end):
            self.note("at home" if self.context in self.where else "abroad")

    made = workshop.add(Both, instances={"max": 4})
    made.go = anyio.Event()
    app = await workshop.load(workshop.wrap(respond(b"hi")))

    async with anyio.create_task_group() as group:
        group.start_soon(statuses, app, 8)
        await anyio.wait_all_tasks_blocked()
        made.go.set()

    assert made.made == 4
    assert workshop.phases("both").count("at home") == 8
    assert "abroad" not in workshop.phases("both")


async def test_streams_on_other_instances_notice_nothing_of_a_failure(workshop, caplog):
    class Some(Held):
        def request_headers(self, end):
            if self.get(b":path") == b"/trap":
                raise RuntimeError("boom")

            return super().request_headers(end)

    made = workshop.add(Some, instances={"max": 4})
    made.go = anyio.Event()
    spy = Spy()
    app = await workshop.load(workshop.wrap(spy))
    found = []

    async def request():
        found.extend(await statuses(app, 1))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(request)
            await anyio.wait_all_tasks_blocked()

        assert await statuses(app, 1, "/trap") == [503]
        assert found == []
        made.go.set()

    assert found == [200] * 3
    assert caplog.text.count("boom") == 1
    assert "failed in another call" not in caplog.text


async def test_a_start_that_takes_long_holds_up_no_other(workshop):
    class Slow(Held):
        async def proxy_on_configure(self, context, size):
            if self.number == 2:
                await type(self).go.wait()

            return 1

    made = workshop.add(Slow, instances={"max": 3})
    made.go = anyio.Event()
    seen = []

    async def app(scope, receive, send):
        await respond(b"hi")(scope, receive, send)

    outer = await workshop.load(workshop.wrap(app))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(statuses, outer, 1)

        await anyio.wait_all_tasks_blocked()
        # The first and the third instance are called, while the second is still being started.
        seen = workshop.phases("slow").count("request_headers")
        made.go.set()

    assert made.made == 3
    assert seen == 2


# Real modules, in slices


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_real_guests_wait_side_by_side(workshop):
    inside = [0, 0]

    async def name(arguments: bytes) -> bytes:
        inside[0] += 1
        inside[1] = max(inside)
        await anyio.sleep(ROUND_TRIP)
        inside[0] -= 1
        return arguments

    add(workshop, FOREIGN % 4, instances={"max": 10})
    app = workshop.wrap(respond(b""), engine=None, foreign_functions={"name": name})
    await workshop.load(app)
    assert await statuses(app, 30) == [200] * 30
    # And no more than there are instances.
    assert 2 <= inside[1] <= 10


#: Spins on a path that begins with /s.
SPINS = """(module
  (import "env" "proxy_get_header_map_value"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) ":path")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 32) (i32.const 36)))
    (if (i32.eq (i32.load8_u (i32.const 1025)) (i32.const 115)) (then (loop $l (br $l))))
    (i32.const 0)))"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_requests_pass_by_one_whose_guest_spins(workshop, caplog):
    """By another instance of the same plugin, that notices nothing of the timeout."""
    file = workshop.folder / "spins.wasm"
    file.write_bytes(wat2wasm(SPINS))
    plugin = {"name": "spins", "path": str(file), "timeout": "300ms", "instances": {"max": 2}}
    workshop.plugins.append(plugin)
    app = await workshop.load(workshop.wrap(respond(b"hi"), engine=None))
    order = []

    async def request(path):
        order.append((path, *await statuses(app, 1, path)))

    async with anyio.create_task_group() as group:
        group.start_soon(request, "/spin")

        for number in range(5):
            group.start_soon(request, f"/{number}")

    assert order == [*((f"/{number}", 200) for number in range(5)), ("/spin", 503)]
    assert caplog.text.count("longer than its timeout of 300 ms") == 1
    assert await statuses(app, 5) == [200] * 5


def test_an_event_loop_that_is_closed_over_a_call_takes_its_instance_along(workshop):
    """As with test clients, and where a program stops in the midst of things."""
    made = workshop.add(Held, instances={"max": 1})
    app = workshop.wrap(respond(b"hi"))

    async def begin():
        made.go = anyio.Event()
        request = asyncio.create_task(statuses(app, 1))

        while not workshop.phases("held").count("request_headers"):
            await asyncio.sleep(0)

        return request

    async def again():
        made.go = anyio.Event()
        made.go.set()
        return await statuses(app, 1)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    request = loop.run_until_complete(begin())
    loop.close()
    assert asyncio.run(again()) == [200]
    assert made.made == 2
    # Nobody is told that it never ended.
    request._log_destroy_pending = False


def test_threads_have_instances_of_their_own(workshop):
    """Each has an event loop, and a call belongs to one."""
    made = workshop.add(Asks)
    apps = [workshop.wrap(respond(b"hi")) for _ in range(2)]
    found = []

    def serve(app):
        async def requests():
            outer = await workshop.load(app)
            found.extend(await statuses(outer, 5))

        asyncio.run(requests())

    threads = [threading.Thread(target=serve, args=(app,)) for app in apps]

    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join(10)

    assert found == [200] * 10
    assert made.made >= 2
