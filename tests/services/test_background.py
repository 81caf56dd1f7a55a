"""Tasks in the background: order, contexts, failures and the end, under asyncio and trio."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import weakref

import anyio
import pytest

from wasm_middleware import limits
from wasm_middleware.services.background import Tasks, running_loop

pytestmark = pytest.mark.anyio

USER: contextvars.ContextVar[str] = contextvars.ContextVar("user")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def tasks():
    return Tasks()


class Log(list):
    """What has happened, and a way to wait until enough has."""

    def __init__(self):
        self._changed = anyio.Event()

    async def add(self, entry):
        self.append(entry)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def until(self, count):
        with anyio.fail_after(10):
            while len(self) < count:
                await self._changed.wait()


async def forever(log, name="forever"):
    try:
        await log.add(f"{name} begins")
        await anyio.sleep_forever()
    finally:
        log.append(f"{name} ends")


async def test_they_run_in_order_once_what_is_running_has_returned(tasks):
    log = Log()

    for number in range(50):
        tasks.run(log.add, number)

    assert log == []
    await log.until(50)
    assert log == list(range(50))
    await tasks.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_eager_task_factory_does_not_run_them_on_the_spot(tasks):
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("this Python has no eager tasks")

    loop, log = asyncio.get_running_loop(), Log()
    loop.set_task_factory(asyncio.eager_task_factory)

    try:
        tasks.run(log.add, "ran")
        assert log == []
        await log.until(1)
    finally:
        loop.set_task_factory(None)

    await tasks.aclose()


async def test_each_has_a_context_of_its_own(tasks):
    log = Log()

    async def look():
        await log.add(USER.get("nobody"))
        USER.set("task")

    USER.set("request")
    tasks.run(look)
    tasks.run(look)
    await log.until(2)
    assert log == ["nobody", "nobody"]
    assert USER.get() == "request"
    await tasks.aclose()


async def test_a_failure_is_logged_and_ends_one_task_alone(tasks, caplog):
    log = Log()

    async def fail():
        raise RuntimeError("no good")

    tasks.run(forever, log)
    tasks.run(fail)
    tasks.run(log.add, "next")
    await log.until(2)
    await anyio.wait_all_tasks_blocked()
    [record] = caplog.records
    assert (record.name, record.levelno) == ("wasm_middleware", logging.ERROR)
    assert "fail failed in the background; please report this" in record.getMessage()
    assert "RuntimeError: no good" in caplog.text
    assert log == ["forever begins", "next"]
    await tasks.aclose()


async def test_one_is_cancelled_and_the_others_go_on(tasks):
    log = Log()
    cancel = tasks.start(forever, log, "a")
    tasks.run(forever, log, "b")
    await log.until(2)
    cancel()
    cancel()
    await anyio.wait_all_tasks_blocked()
    assert log == ["a begins", "b begins", "a ends"]
    await tasks.aclose()


async def test_one_that_is_cancelled_before_it_begins_goes_no_further_than_its_first_wait(tasks):
    log = Log()

    async def wait_first():
        await anyio.sleep(0)
        log.append("too far")

    tasks.start(wait_first)()
    await tasks.aclose()
    assert log == []


async def test_closing_cancels_what_is_left_and_waits_for_it(tasks, caplog):
    log = Log()

    async def slow_to_end():
        try:
            await forever(log)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
                log.append("cleaned up")

    tasks.run(slow_to_end)
    await log.until(1)
    await tasks.aclose()
    assert log == ["forever begins", "forever ends", "cleaned up"]
    assert caplog.records == []
    tasks.run(log.add, "dropped")
    tasks.start(log.add, "dropped")()
    await anyio.wait_all_tasks_blocked()
    await tasks.aclose()
    assert len(log) == 3


async def hang(until):
    """Sends to a client that does not read, say: nothing ends it from without."""
    with anyio.CancelScope(shield=True):
        await until.wait()


async def test_what_does_not_end_is_left_behind_with_a_warning(tasks, caplog, monkeypatch):
    monkeypatch.setattr(limits, "END_TIMEOUT", 0.05)
    log, reading = Log(), anyio.Event()

    async def hang_too():
        await hang(reading)
        await log.add("sent")

    tasks.run(forever, log)
    tasks.run(hang, reading)
    tasks.run(hang_too)
    tasks.run(hang_too)
    await log.until(1)

    with anyio.fail_after(5):
        await tasks.aclose()

    assert log == ["forever begins", "forever ends"]
    [record] = caplog.records
    assert (record.name, record.levelno) == ("wasm_middleware", logging.WARNING)
    message = record.getMessage()
    assert "still runs 0.05 s after it was cancelled: " in message
    assert "hang, " in message
    assert "hang_too (2 times)" in message
    assert "forever" not in message
    # They may end later, by themselves.
    reading.set()
    await log.until(4)
    assert log[2:] == ["sent", "sent"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_that_waits_for_what_nobody_else_knows_is_not_lost(tasks):
    """An event loop has weak references to its tasks alone."""
    log, futures = Log(), []

    async def wait():
        future = asyncio.get_running_loop().create_future()
        futures.append(weakref.ref(future))
        await log.add("begins")
        await log.add(await future)

    tasks.run(wait)
    await log.until(1)
    await anyio.wait_all_tasks_blocked()
    gc.collect()
    futures[0]().set_result("ends")
    await log.until(2)
    assert log == ["begins", "ends"]
    await tasks.aclose()


async def test_one_of_them_may_close_them(tasks):
    log = Log()

    async def close():
        await tasks.aclose()
        await log.add("closed")

    tasks.run(forever, log)
    await log.until(1)
    tasks.run(close)
    await log.until(3)
    assert log == ["forever begins", "forever ends", "closed"]


def test_they_end_with_their_event_loop_and_serve_the_next(tasks, anyio_backend):
    entries = []

    async def serve():
        log = Log()
        cancel = tasks.start(forever, log)
        tasks.run(log.add, "other")
        await log.until(2)
        entries.append((log, cancel))

    anyio.run(serve, backend=anyio_backend)
    first, cancel = entries[0]
    assert first == ["forever begins", "other", "forever ends"]
    cancel()  # outside of any loop
    anyio.run(serve, backend=anyio_backend)

    async def end():
        entries[1][1]()  # of a loop that has ended
        await tasks.aclose()

    anyio.run(end, backend=anyio_backend)
    assert entries[1][0] == first


def test_loops_are_told_apart(anyio_backend):
    async def look():
        return running_loop()

    first = anyio.run(look, backend=anyio_backend)
    second = anyio.run(look, backend=anyio_backend)
    assert running_loop() is None
    assert None not in (first, second)
    assert first is not second


@pytest.mark.filterwarnings("error")
def test_outside_of_an_event_loop_nothing_can_run(tasks):
    with pytest.raises(RuntimeError, match="no running event loop"):
        tasks.run(forever, [])
