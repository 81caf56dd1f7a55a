"""Turns: one at a time, first come first served, and a waiter that is cancelled hands on."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from wasm_middleware.asgi.turn import Turn

pytestmark = pytest.mark.anyio


async def test_one_at_a_time_in_the_order_of_arrival():
    turn, order, inside = Turn(), [], []

    async def enter(name):
        async with turn:
            assert inside == []
            inside.append(name)

            for _ in range(3):
                await anyio.lowlevel.checkpoint()

            inside.remove(name)
            order.append(name)

    async with anyio.create_task_group() as group, turn:
        for name in "abcd":
            group.start_soon(enter, name)
            await anyio.wait_all_tasks_blocked()

    assert order == list("abcd")


async def test_a_waiter_that_is_cancelled_is_passed_over():
    turn, order, first = Turn(), [], anyio.CancelScope()

    async def enter(name, scope):
        with scope:
            async with turn:
                order.append(name)

    async with anyio.create_task_group() as group, turn:
        group.start_soon(enter, "first", first)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(enter, "second", anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        first.cancel()

    assert order == ["second"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_waiter_that_is_cancelled_when_it_has_the_turn_hands_it_on():
    """Only asyncio cancels a task between its wake-up and its run."""
    turn, order = Turn(), []

    async def enter(name):
        async with turn:
            order.append(name)

    async with turn:
        tasks = [asyncio.create_task(enter(name)) for name in ("first", "second")]
        await anyio.wait_all_tasks_blocked()

    tasks[0].cancel()
    first, _ = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert order == ["second"]

    with anyio.fail_after(1):
        async with turn:
            pass


async def test_the_turn_is_free_after_an_error():
    turn = Turn()

    with pytest.raises(ZeroDivisionError):
        async with turn:
            raise ZeroDivisionError

    with anyio.fail_after(1):
        async with turn:
            pass
