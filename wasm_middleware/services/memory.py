"""Shared data and queues in this process's memory.

Both belong to one event loop's thread, as every guest call does, so that get and set need no lock:
a host call runs from beginning to end. Nothing is ever evicted; caps in `limits` end what grows.

A queue's consumer is told of each message when it comes. One that takes over is told of those that
wait, and one after the other: there may be hundreds of thousands, and requests want their turn. It
takes over when it registers. Where the last consumer has gone, the one before waits for the next
message: a message that costs one instance its life shall not cost all of them theirs in a row.

So it is, too, where a guest fills queues faster than anybody can be told: it may take out itself
what it has put in, as often as it likes. Beyond a number of calls that are on their way, messages
wait to be told of, and of one that has been taken out by then nobody is told.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from wasm_middleware import limits
from wasm_middleware.proxy_wasm.ports import Consumer, StoreFull
from wasm_middleware.services.background import running_loop

_MAX_CAS = 0xFFFF_FFFF


class MemorySharedData:
    """Fulfils `ports.SharedData`."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, bytes], tuple[bytes, int]] = {}
        self._bytes = 0
        self._last_cas = 0

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        return self._values.get((vm_id, key))

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int) -> bool:
        present = self._values.get((vm_id, key))

        if cas and present is not None and present[1] != cas:
            return False

        growth = len(value) - len(present[0]) if present is not None else len(key) + len(value)

        if present is None and len(self._values) >= limits.MAX_SHARED_DATA_KEYS:
            raise StoreFull(f"shared data holds {limits.MAX_SHARED_DATA_KEYS} keys already")

        if growth > 0 and self._bytes + growth > limits.MAX_SHARED_DATA_BYTES:
            raise StoreFull(f"shared data holds {limits.MAX_SHARED_DATA_BYTES} bytes already")

        self._bytes += growth
        self._last_cas = self._last_cas % _MAX_CAS + 1
        self._values[vm_id, key] = (value, self._last_cas)
        return True


@dataclass(slots=True)
class _Queue:
    id: int
    messages: deque[bytes] = field(default_factory=deque)
    size: int = 0
    consumers: list[Consumer] = field(default_factory=list)
    #: How many of the messages the last consumer is to be told of, beside those that come.
    untold: int = 0
    #: How many calls are on their way that tell a consumer of a message.
    telling: int = 0


class MemoryQueues:
    """Fulfils `ports.Queues`."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, bytes], int] = {}
        self._queues: dict[int, _Queue] = {}
        self._bytes = 0
        #: The calls of all queues that are on their way, and the event loop that they are in.
        self._telling = 0
        self._loop: object | None = None

    def register(self, vm_id: str, name: bytes, consumer: Consumer) -> int:
        number = self._ids.get((vm_id, name))

        if number is None:
            if len(self._ids) >= limits.MAX_QUEUES:
                raise StoreFull(f"there are {limits.MAX_QUEUES} queues already")

            self._take(len(name))
            number = self._ids[vm_id, name] = len(self._ids) + 1
            self._queues[number] = _Queue(number)

        queue = self._queues[number]

        if queue.consumers[-1:] != [consumer]:
            queue.consumers = [known for known in queue.consumers if known != consumer]
            queue.consumers.append(consumer)
            queue.untold = len(queue.messages)
            self._tell_next(queue)

        return number

    def _take(self, size: int) -> None:
        if self._bytes + size > limits.MAX_QUEUES_BYTES:
            raise StoreFull(
                f"the queues hold {self._bytes} of {limits.MAX_QUEUES_BYTES} bytes already"
            )

        self._bytes += size

    def _tell(self, queue: _Queue) -> None:
        """Tell the last consumer of one message."""
        if not self._may_tell(queue):
            queue.untold += 1
            return

        while queue.consumers:
            if queue.consumers[-1](queue.id):
                queue.telling += 1
                self._telling += 1
                return

            queue.consumers.pop()
            queue.untold = len(queue.messages) - 1

    def _may_tell(self, queue: _Queue) -> bool:
        loop = running_loop()

        if loop is not self._loop:
            # Those that were on their way in another one do not arrive.
            self._loop, self._telling = loop, 0

            for one in self._queues.values():
                one.telling = 0

        # One is on its way for each queue that has something to tell: the next comes after it.
        return not queue.telling or self._telling < limits.MAX_QUEUE_CALLBACKS

    def _tell_next(self, queue: _Queue) -> None:
        """Tell it of one that waits; of what is taken already there is nothing to tell."""
        queue.untold = min(queue.untold, len(queue.messages))

        if queue.untold:
            queue.untold -= 1
            self._tell(queue)

    def unregister(self, queue: int, consumer: Consumer) -> None:
        found = self._queues.get(queue)

        if found is None or consumer not in found.consumers:
            return

        if found.consumers[-1] == consumer:
            found.untold = len(found.messages)

        found.consumers.remove(consumer)

    def told(self, queue: int) -> None:
        found = self._queues.get(queue)

        if found is None:
            return

        if found.telling:
            found.telling -= 1
            self._telling -= 1

        self._tell_next(found)

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        return self._ids.get((vm_id, name))

    def enqueue(self, queue: int, value: bytes) -> bool:
        found = self._queues.get(queue)

        if found is None:
            return False

        size = len(value) + limits.QUEUE_MESSAGE_OVERHEAD

        if found.size + size > limits.MAX_QUEUE_BYTES:
            raise StoreFull(f"the queue holds {limits.MAX_QUEUE_BYTES} bytes already")

        self._take(size)
        found.messages.append(value)
        found.size += size
        self._tell(found)
        return True

    def dequeue(self, queue: int) -> bytes | None:
        found = self._queues[queue]

        if not found.messages:
            return None

        value = found.messages.popleft()
        size = len(value) + limits.QUEUE_MESSAGE_OVERHEAD
        found.size -= size
        self._bytes -= size
        return value
