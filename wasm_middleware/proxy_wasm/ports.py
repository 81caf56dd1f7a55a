"""What the core needs from outside: a guest, and services that plugins share.

An engine's instance fulfils `Guest` (see `engines.protocol` for its rules); the rest is fulfilled
in `services`. Every method here is called from within a host call: it answers at once, from memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from wasm_middleware.abi.enums import MetricType, Status
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.errors import MemoryFault

if TYPE_CHECKING:
    from wasm_middleware.proxy_wasm.stream import Stream
    from wasm_middleware.proxy_wasm.vm import Vm


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

    def start_function(self) -> GuestFunction | None: ...

    def set_timeout(self, seconds: float | None) -> None: ...

    def limit_call(self, seconds: float) -> None: ...

    def function(self, name: str) -> GuestFunction | None: ...

    def inner_function(self, name: str) -> Callable[..., int] | None: ...

    def close(self) -> None: ...


class Instances(Protocol):
    """The instances of one plugin; whoever gets one calls it at once."""

    def ready(self) -> Vm | None:
        """One that no call is in at this moment, if there is such a one."""

    async def take(self, stream: Stream) -> Vm:
        """Wait for one; raises `PluginUnavailableError`, also once the stream is to wait no more.

        Any task may go on with it, not only the one that has begun.
        """


def _unheard(_error: MemoryFault) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A host call, bound to one VM; `fault` is its answer to a bad pointer, `faulted` is told."""

    call: Callable[..., int | None]
    fault: int
    faulted: Callable[[MemoryFault], None] = _unheard
    #: It may raise `HostWait`.
    may_wait: bool = False


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


Consumer = Callable[[int], bool]
"""Told that a message has come into a queue, by id; False when it can take none any more."""


class SharedStore(Protocol):
    """Shared data that has to be waited for, as it is over a network; else as `SharedData`."""

    async def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None: ...

    async def set(self, vm_id: str, key: bytes, value: bytes, cas: int) -> bool: ...


class Queues(Protocol):
    """First-in-first-out queues that plugins share."""

    def register(self, vm_id: str, name: bytes, consumer: Consumer) -> int:
        """The queue's id, never 0; the same for the same name. Raises `StoreFull`.

        Of several consumers the last one that registered is told of each message, once (Envoy);
        when it answers False it is forgotten, and the one before it is told. One that is new is
        told of what waits already, too: of one message now, of the next with each `told`."""

    def unregister(self, queue: int, consumer: Consumer) -> None:
        """Forget a consumer, if it is one: an instance that is gone is not to be kept alive.

        The one before it is told of what waits when the next message comes."""

    def told(self, queue: int) -> None:
        """A consumer has been told of a message: tell it of the next that it is to be told of."""

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        """The id of a registered queue."""

    def enqueue(self, queue: int, value: bytes) -> bool:
        """Add a value; False for an unknown queue. Raises `StoreFull`."""

    def dequeue(self, queue: int) -> bytes | None:
        """The oldest value, None if there is none. Raises `KeyError` for an unknown queue."""


@dataclass(frozen=True, slots=True)
class MetricSample:
    """What a metric is at one moment."""

    plugin: str
    kind: MetricType
    name: str
    #: Of a histogram, the sum of what it observed.
    value: int
    #: Of a histogram: upper bounds, and how many observations were not above each. The last bound
    #: is infinite, so that its count is that of all.
    buckets: tuple[tuple[float, int], ...] = ()


class Metrics(Protocol):
    """The metrics that plugins define, by plugin. Values wrap at 64 bits.

    A gauge is signed: guests that give -1 as an unsigned number mean -1."""

    def define(self, plugin: str, kind: MetricType, name: str) -> int:
        """The metric's id, never 0; the same for the same name and type. Raises `StoreFull`."""

    def record(self, metric: int, value: int) -> bool:
        """Set a gauge, add to a counter, observe in a histogram; False for an unknown id."""

    def increment(self, metric: int, delta: int) -> bool:
        """Add to a counter or gauge; False for an unknown id. Raises `ValueError` for a histogram
        and for a counter that would go down."""

    def get(self, metric: int) -> int | None:
        """The present value; None for an unknown id. Raises `ValueError` for a histogram."""

    def samples(self) -> Sequence[MetricSample]:
        """All metrics as they are now, in the order in which they were defined."""


class StoreFull(Exception):
    """A shared store has reached one of its caps in `limits`."""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request that a plugin makes of an upstream (`proxy_http_call`)."""

    plugin: str
    upstream: str
    #: Pseudo-headers among them, names in lower case; all are legal on the wire.
    headers: tuple[Pair, ...]
    body: bytes
    trailers: tuple[Pair, ...]
    #: Seconds; None leaves it to the upstream's own.
    timeout: float | None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back, or what stands for a failure: 504 for a time-out, 502 where the upstream does
    not speak HTTP, 503 for the rest."""

    #: `:status` first, names in lower case.
    headers: tuple[Pair, ...]
    body: bytes = b""
    trailers: tuple[Pair, ...] = ()
    #: Why there is no answer of the upstream's; empty if there is one.
    failure: str = ""


Cancel = Callable[[], None]


class HttpClient(Protocol):
    """Makes HTTP calls to upstreams."""

    def refusal(self, upstream: str) -> str:
        """Why no call can be made there at all; empty if one can."""

    def start(
        self, call: HttpCall, answered: Callable[[HttpAnswer], Coroutine[None, None, None]]
    ) -> Cancel:
        """Begin a call and return at once; what is returned cancels it.

        `answered` is awaited exactly once, never from within `start`, unless it was cancelled."""


class GrpcEvents(Protocol):
    """Where the parts of a gRPC answer go, one after the other.

    A unary call has its message or its close, and nothing else of it is delivered; a stream has
    initial metadata, messages, trailing metadata and close, in that order. Metadata is as in
    `GrpcCall`.
    """

    async def initial_metadata(self, metadata: Sequence[Pair]) -> None: ...

    async def message(self, message: bytes) -> None: ...

    async def trailing_metadata(self, metadata: Sequence[Pair]) -> None: ...

    async def close(self, status: int, message: bytes) -> None:
        """The end; nothing comes after it. A unary call that succeeds ends with its message."""


class GrpcStream(Protocol):
    """A call or a stream that is under way."""

    def send(self, message: bytes, *, end_stream: bool) -> None:
        """Queue a message of a stream; after the end it is dropped. A stream that takes less than
        it is sent is closed with RESOURCE_EXHAUSTED, where more waits than `limits` allows."""

    def close(self) -> None:
        """Say that no more messages come from here; answers still do."""

    def cancel(self) -> None:
        """Give it up: nothing of it is delivered any more."""


@dataclass(frozen=True, slots=True)
class GrpcCall:
    """A gRPC call; `message` is None for a stream."""

    plugin: str
    upstream: str
    service: str
    method: str
    #: Names in lower case; values of `-bin` names are the bytes themselves, not base64.
    metadata: tuple[Pair, ...]
    message: bytes | None = None
    #: Seconds; None for no limit but the upstream's own.
    timeout: float | None = None


class GrpcClient(Protocol):
    """Makes gRPC calls to upstreams."""

    def knows(self, upstream: str) -> bool:
        """Whether there is an upstream of that name."""

    def refusal(self, upstream: str) -> str:
        """Why no call can be made there at all; empty if one can."""

    def start(self, call: GrpcCall, events: GrpcEvents) -> GrpcStream:
        """Begin a call or a stream and return at once; no event comes before that."""


ForeignFunction = Callable[[bytes], "bytes | Awaitable[bytes]"]
"""A function that guests call by name. None counts as no bytes.

Raises `ValueError` for arguments it can't take, `ForeignCallRefused` to answer something else, and
anything else where it fails. An asynchronous one is awaited inside of the guest's call.
"""


@dataclass(frozen=True, slots=True)
class deferred:  # read as a function: `deferred(look_up)`
    """A foreign function whose result comes later, through `proxy_on_foreign_function`.

    The call itself answers with an id at once (4 bytes, little-endian), and the callback brings it.
    """

    function: ForeignFunction

    def __call__(self, arguments: bytes) -> bytes | Awaitable[bytes]:
        return self.function(arguments)


class ForeignCallRefused(Exception):
    """Raised by a foreign function that knows better than BadArgument."""

    def __init__(self, status: Status, reason: str) -> None:
        #: NOT_FOUND, BAD_ARGUMENT, SERIALIZATION_FAILURE or INTERNAL_FAILURE. Any other becomes
        #: the last one: the Rust SDK panics on it.
        self.status = status
        super().__init__(reason)


class Event(Protocol):
    """What tasks wait for until it happens."""

    def set(self) -> None:
        """Let everybody go on who waits, and who will."""

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...


class Background(Protocol):
    """Runs what must not run inside a host call."""

    def event(self) -> Event:
        """A new event, of the event loop that runs."""

    def run(self, function: Callable[..., Coroutine[object, object, None]], *args: object) -> None:
        """Run it once what is running now has returned; of two, the first first."""

    def start(
        self, function: Callable[..., Coroutine[object, object, None]], *args: object
    ) -> Cancel:
        """Run it as `run` does; what is returned cancels it."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that all VMs of one generation share."""

    clock: Clock
    entropy: Entropy
    shared_data: SharedData | SharedStore
    queues: Queues
    metrics: Metrics
    background: Background
    #: None where nothing is configured that could be called.
    http: HttpClient | None = None
    grpc: GrpcClient | None = None
    foreign_functions: Mapping[str, ForeignFunction] = field(default_factory=dict)
    #: The host calls that may wait for their results, inside of a guest's call.
    waiting_calls: frozenset[str] = frozenset()
