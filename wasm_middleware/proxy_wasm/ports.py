"""What the core needs from outside: a guest, and services that plugins share.

An engine's instance fulfils `Guest` (see `engines.protocol` for its rules); the rest is fulfilled
in `services`. Every method here is called from within a host call: it answers at once, from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Protocol

from wasm_middleware.abi.enums import MetricType


class Memory(Protocol):
    """A guest's memory; each method raises `MemoryFault` beyond its bounds."""

    def read(self, address: int, size: int) -> bytes: ...

    def read_u32(self, address: int) -> int: ...

    def write(self, address: int, data: bytes) -> None: ...

    def write_u32(self, address: int, value: int) -> None: ...

    def write_u64(self, address: int, value: int) -> None: ...


GuestFunction = Callable[..., Coroutine[None, None, int]]


class Guest(Protocol):
    """One instance of a module."""

    @property
    def memory(self) -> Memory: ...

    @property
    def poisoned(self) -> bool: ...

    def set_timeout(self, seconds: float | None) -> None: ...

    def function(self, name: str) -> GuestFunction | None: ...

    def inner_function(self, name: str) -> Callable[..., int] | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A host call, bound to one VM; `fault` is its answer to a bad pointer."""

    call: Callable[..., int | None]
    fault: int


class Clock(Protocol):
    def now(self) -> int:
        """Nanoseconds since 1970."""

    def monotonic(self) -> int:
        """Nanoseconds since some point, never going back."""


class Entropy(Protocol):
    def bytes(self, size: int) -> bytes:
        """Random bytes fit for keys."""


class SharedData(Protocol):
    """Values that plugins of one `vm_id` share, each with a compare-and-swap number."""

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        """The value and its number, which is never 0; None if there is no such key."""

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int) -> bool:
        """Store a value. `cas` 0 stores in any case; another number only if it is still the key's,
        or the key does not exist (as in proxy-wasm-cpp-host). Raises `StoreFull`."""


class Queues(Protocol):
    """First-in-first-out queues that plugins share."""

    def register(self, vm_id: str, name: bytes) -> int:
        """The queue's id, never 0; the same for the same name. Raises `StoreFull`."""

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        """The id of a registered queue."""

    def enqueue(self, queue: int, value: bytes) -> bool:
        """Add a value; False for an unknown queue. Raises `StoreFull`."""

    def dequeue(self, queue: int) -> bytes | None:
        """The oldest value, None if there is none. Raises `KeyError` for an unknown queue."""


class Metrics(Protocol):
    """The metrics that plugins define, by plugin."""

    def define(self, plugin: str, kind: MetricType, name: str) -> int:
        """The metric's id, never 0; the same for the same name and type. Raises `StoreFull`."""

    def record(self, metric: int, value: int) -> bool:
        """Set a gauge, add to a counter, observe in a histogram; False for an unknown id."""

    def increment(self, metric: int, delta: int) -> bool:
        """Add to a counter or gauge; False for an unknown id. Raises `ValueError` for a histogram
        and for a counter that would go down."""

    def get(self, metric: int) -> int | None:
        """The present value; None for an unknown id. Raises `ValueError` for a histogram."""


class StoreFull(Exception):
    """A shared store has reached one of its caps in `limits`."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that all VMs of one generation share."""

    clock: Clock
    entropy: Entropy
    shared_data: SharedData
    queues: Queues
    metrics: Metrics
