"""Who waits for an instance keeps its place."""

from __future__ import annotations

import pytest

from wasm_middleware.runtime.waiters import Waiters
from wasm_middleware.services.background import Tasks

pytestmark = pytest.mark.anyio


async def test_who_was_given_an_instance_that_failed_is_still_the_first():
    waiters = Waiters(Tasks())
    first, second = waiters.join("a stream"), waiters.join("another")
    deadline = first.deadline
    waiters.give("one that fails")
    waiters.leave(first)
    waiters.rejoin(first)
    assert not first.event.is_set()
    assert first.deadline == deadline

    waiters.give("an instance")
    assert (first.vm, second.vm) == ("an instance", None)
    assert first.event.is_set()
    waiters.leave(first)
    assert not waiters.handed
