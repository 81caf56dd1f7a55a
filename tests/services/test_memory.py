"""Shared data and queues in memory: numbers, caps, and what they forget."""

from __future__ import annotations

import asyncio
import weakref

import pytest
from hypothesis import given, strategies as st

from wasm_middleware import limits
from wasm_middleware.proxy_wasm.ports import StoreFull
from wasm_middleware.services import memory
from wasm_middleware.services.memory import MemoryQueues, MemorySharedData


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.binary(max_size=3)), max_size=20))
def test_every_value_has_a_number_of_its_own(writes: list[tuple[bytes, bytes]]) -> None:
    data, numbers = MemorySharedData(), []

    for key, value in writes:
        assert data.set("", key, value, 0)
        found = data.get("", key)
        assert found is not None
        assert found[0] == value
        numbers.append(found[1])

    assert 0 not in numbers
    assert len(set(numbers)) == len(numbers)


def test_numbers_start_again_before_they_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MAX_CAS", 2)
    data = MemorySharedData()
    numbers = []

    for _ in range(4):
        data.set("", b"key", b"", 0)
        numbers.append((data.get("", b"key") or (b"", 0))[1])

    assert numbers == [1, 2, 1, 2]


def test_a_failed_exchange_changes_nothing() -> None:
    data = MemorySharedData()
    data.set("", b"key", b"one", 0)
    before = data.get("", b"key")

    assert not data.set("", b"key", b"two", 99)
    assert data.get("", b"key") == before


def test_keys_belong_to_a_vm_id() -> None:
    data = MemorySharedData()
    data.set("a", b"key", b"one", 0)

    assert data.get("b", b"key") is None


def test_keys_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SHARED_DATA_KEYS", 2)
    data = MemorySharedData()
    data.set("", b"a", b"", 0)
    data.set("", b"b", b"", 0)

    with pytest.raises(StoreFull):
        data.set("", b"c", b"", 0)

    assert data.set("", b"a", b"again", 0)


def test_bytes_have_a_cap_and_shorter_values_give_room_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_SHARED_DATA_BYTES", 10)
    data = MemorySharedData()
    data.set("", b"a", b"x" * 9, 0)

    with pytest.raises(StoreFull):
        data.set("", b"b", b"", 0)

    with pytest.raises(StoreFull):
        data.set("", b"a", b"x" * 10, 0)

    assert data.set("", b"a", b"x", 0)
    assert data.set("", b"b", b"x" * 7, 0)


def test_queues_are_first_in_first_out_and_apart() -> None:
    queues = MemoryQueues()
    one, two = (
        queues.register("", b"one", lambda _queue: True),
        queues.register("", b"two", lambda _queue: True),
    )
    queues.enqueue(one, b"1")
    queues.enqueue(two, b"2")
    queues.enqueue(one, b"3")

    assert [queues.dequeue(one) for _ in range(3)] == [b"1", b"3", None]
    assert queues.dequeue(two) == b"2"


def test_ids_are_those_of_vm_id_and_name() -> None:
    queues = MemoryQueues()
    first = queues.register("a", b"name", lambda _queue: True)

    assert first != 0
    assert queues.register("a", b"name", lambda _queue: True) == first
    assert queues.register("b", b"name", lambda _queue: True) != first
    assert queues.resolve("a", b"name") == first
    assert queues.resolve("a", b"other") is None


def test_unknown_queues() -> None:
    queues = MemoryQueues()

    assert not queues.enqueue(1, b"")

    with pytest.raises(KeyError):
        queues.dequeue(1)


def test_queues_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUES", 1)
    queues = MemoryQueues()
    queues.register("", b"one", lambda _queue: True)

    with pytest.raises(StoreFull):
        queues.register("", b"two", lambda _queue: True)


def test_even_empty_messages_fill_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUE_BYTES", 3 * limits.QUEUE_MESSAGE_OVERHEAD)
    queues = MemoryQueues()
    queue = queues.register("", b"one", lambda _queue: True)

    for _ in range(3):
        assert queues.enqueue(queue, b"")

    with pytest.raises(StoreFull):
        queues.enqueue(queue, b"")

    queues.dequeue(queue)
    assert queues.enqueue(queue, b"")


def test_all_queues_together_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUES_BYTES", 2 * limits.QUEUE_MESSAGE_OVERHEAD + 106)
    queues = MemoryQueues()
    one, two = (queues.register("", name, lambda _queue: True) for name in (b"one", b"two"))

    assert queues.enqueue(one, b"x" * 50)
    assert queues.enqueue(two, b"x" * 50)

    for queue in (one, two):
        with pytest.raises(StoreFull, match="the queues hold 234 of 234 bytes"):
            queues.enqueue(queue, b"")

    with pytest.raises(StoreFull):
        queues.register("", b"name", lambda _queue: True)

    assert queues.resolve("", b"name") is None
    # What is taken out of one is room in the other; those that are known stay so.
    queues.dequeue(one)
    assert queues.enqueue(two, b"x" * 50)
    assert queues.register("", b"one", lambda _queue: True) == one


class Consumer:
    """Is told of messages; or takes none, as one whose instance has failed."""

    def __init__(self, queues: MemoryQueues, *, alive: bool = True) -> None:
        self.queues, self.alive = queues, alive
        self.told = 0

    def ready(self, _queue: int) -> bool:
        self.told += self.alive
        return self.alive

    def deliver_all(self, queue: int) -> int:
        """Have been told of each message, one after the other; how many there were."""
        delivered = 0

        while delivered < self.told:
            delivered += 1
            self.queues.told(queue)

        self.told = 0
        return delivered


def test_a_new_consumer_is_told_of_what_waits_one_after_the_other() -> None:
    queues = MemoryQueues()
    old, new = Consumer(queues), Consumer(queues)
    queue = queues.register("", b"jobs", old.ready)

    for value in (b"1", b"2", b"3"):
        queues.enqueue(queue, value)

    assert old.deliver_all(queue) == 3
    queues.register("", b"jobs", new.ready)

    assert new.told == 1
    assert new.deliver_all(queue) == 3
    assert (old.told, new.told) == (0, 0)


def test_what_comes_while_a_backlog_is_told_is_told_too() -> None:
    queues = MemoryQueues()
    consumer = Consumer(queues)
    queue = queues.register("", b"jobs", lambda _queue: True)
    queues.enqueue(queue, b"1")
    queues.enqueue(queue, b"2")
    queues.register("", b"jobs", consumer.ready)
    queues.enqueue(queue, b"3")

    assert consumer.told == 2
    assert consumer.deliver_all(queue) == 3


def test_what_is_taken_meanwhile_is_not_told() -> None:
    queues = MemoryQueues()
    consumer = Consumer(queues)
    queue = queues.register("", b"jobs", lambda _queue: True)

    for value in (b"1", b"2", b"3"):
        queues.enqueue(queue, value)

    queues.register("", b"jobs", consumer.ready)
    queues.dequeue(queue)
    queues.dequeue(queue)

    assert consumer.deliver_all(queue) == 2  # one was on its way


def test_one_that_is_the_consumer_already_is_told_nothing_anew() -> None:
    queues = MemoryQueues()
    consumer = Consumer(queues)
    queue = queues.register("", b"jobs", consumer.ready)
    queues.enqueue(queue, b"1")
    queues.register("", b"jobs", consumer.ready)

    assert consumer.deliver_all(queue) == 1


def test_the_one_before_learns_of_the_backlog_with_the_next_message() -> None:
    """Not before: a message that fails one consumer shall not fail all of them in turn."""
    queues = MemoryQueues()
    before, last = Consumer(queues), Consumer(queues)
    queue = queues.register("", b"jobs", before.ready)
    queues.register("", b"jobs", last.ready)
    queues.enqueue(queue, b"1")
    queues.enqueue(queue, b"2")
    queues.unregister(queue, last.ready)
    assert before.told == 0
    queues.enqueue(queue, b"3")

    assert before.deliver_all(queue) == 3
    assert last.told == 2


def test_so_does_it_where_the_last_takes_none_any_more() -> None:
    queues = MemoryQueues()
    before, last = Consumer(queues), Consumer(queues)
    queue = queues.register("", b"jobs", before.ready)
    queues.register("", b"jobs", last.ready)
    queues.enqueue(queue, b"1")
    last.alive = False
    queues.enqueue(queue, b"2")

    assert before.deliver_all(queue) == 2


def test_beyond_a_number_on_their_way_messages_are_told_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUE_CALLBACKS", 3)
    queues = MemoryQueues()
    consumer = Consumer(queues)
    queue = queues.register("", b"jobs", consumer.ready)

    for _ in range(10):
        queues.enqueue(queue, b"")

    assert consumer.told == 3
    assert consumer.deliver_all(queue) == 10


def test_what_is_put_in_and_taken_out_without_end_makes_no_more_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUE_CALLBACKS", 3)
    queues = MemoryQueues()
    consumer = Consumer(queues)
    queue = queues.register("", b"jobs", consumer.ready)

    for _ in range(1000):
        queues.enqueue(queue, b"")
        queues.dequeue(queue)

    assert consumer.deliver_all(queue) == 3
    queues.enqueue(queue, b"")
    assert consumer.deliver_all(queue) == 1


def test_each_queue_is_told_of_however_many_calls_others_have_on_their_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUE_CALLBACKS", 3)
    queues = MemoryQueues()
    noisy, other = Consumer(queues), Consumer(queues)
    first = queues.register("", b"noisy", noisy.ready)
    second = queues.register("", b"other", other.ready)

    for _ in range(10):
        queues.enqueue(first, b"")

    queues.enqueue(second, b"")
    queues.enqueue(second, b"")

    assert (noisy.told, other.told) == (3, 1)
    assert other.deliver_all(second) == 2
    assert noisy.deliver_all(first) == 10


def test_what_was_on_its_way_in_an_event_loop_that_has_ended_counts_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUE_CALLBACKS", 3)
    queues = MemoryQueues()
    consumer = Consumer(queues)
    queue = queues.register("", b"jobs", consumer.ready)

    async def fill() -> None:
        for _ in range(10):
            queues.enqueue(queue, b"")

    asyncio.run(fill())
    assert consumer.told == 3
    asyncio.run(fill())
    assert consumer.told == 6


def test_consumers_are_forgotten() -> None:
    queues = MemoryQueues()
    consumer = Consumer(queues)
    queue = queues.register("", b"jobs", consumer.ready)
    forgotten = weakref.ref(consumer)
    queues.unregister(queue, consumer.ready)
    queues.unregister(queue, consumer.ready)
    del consumer

    assert forgotten() is None
    queues.unregister(99, lambda _queue: True)
    queues.told(99)
