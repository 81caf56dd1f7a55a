"""Shared data and queues in this process's memory.

Both belong to one event loop's thread, as every guest call does, so that get and set need no lock:
a host call runs from beginning to end. Nothing is ever evicted; caps in `limits` end what grows.
"""

from __future__ import annotations

from collections import deque

from wasm_middleware import limits
from wasm_middleware.proxy_wasm.ports import Consumer, StoreFull

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


class MemoryQueues:
    """Fulfils `ports.Queues`."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, bytes], int] = {}
        self._queues: dict[int, deque[bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._consumers: dict[int, list[Consumer]] = {}

    def register(self, vm_id: str, name: bytes, consumer: Consumer) -> int:
        queue = self._ids.get((vm_id, name))

        if queue is None:
            if len(self._ids) >= limits.MAX_QUEUES:
                raise StoreFull(f"there are {limits.MAX_QUEUES} queues already")

            queue = self._ids[vm_id, name] = len(self._ids) + 1
            self._queues[queue] = deque()
            self._sizes[queue] = 0
            self._consumers[queue] = []

        consumers = self._consumers[queue]
        consumers[:] = [known for known in consumers if known != consumer]
        consumers.append(consumer)
        return queue

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        return self._ids.get((vm_id, name))

    def enqueue(self, queue: int, value: bytes) -> bool:
        if queue not in self._queues:
            return False

        size = len(value) + limits.QUEUE_MESSAGE_OVERHEAD

        if self._sizes[queue] + size > limits.MAX_QUEUE_BYTES:
            raise StoreFull(f"the queue holds {limits.MAX_QUEUE_BYTES} bytes already")

        self._queues[queue].append(value)
        self._sizes[queue] += size
        self._tell(queue)
        return True

    def _tell(self, queue: int) -> None:
        consumers = self._consumers[queue]

        while consumers and not consumers[-1](queue):
            consumers.pop()

    def dequeue(self, queue: int) -> bytes | None:
        waiting = self._queues[queue]

        if not waiting:
            return None

        value = waiting.popleft()
        self._sizes[queue] -= len(value) + limits.QUEUE_MESSAGE_OVERHEAD
        return value
