"""What the tests of the core stand on: a scripted guest in a VM, streams, and fake services.

There is no loop: `run` drives a coroutine to its end, since nothing here may wait.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio

from wasm_middleware.engines.protocol import Instance, InstanceLimits, Module
from wasm_middleware.limits import DEFAULT_MEMORY_LIMIT
from wasm_middleware.proxy_wasm.context import Context, RootContext
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.hostcalls import resolve
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.ports import GrpcCall, GrpcEvents, HttpAnswer, HttpCall, Services
from wasm_middleware.proxy_wasm.stream import RequestInfo, Stream, StreamContext
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.services.memory import MemoryQueues, MemorySharedData
from wasm_middleware.services.metrics import MemoryMetrics

from .scripted import (
    ALLOCATORS,
    ARGUMENTS_AT,
    CALL,
    EVERYTHING,
    GROW,
    LOG_AT,
    LOG_COUNT_AT,
    LOG_ENTRY,
    NAMES,
    OUT,
    PAGE,
    RETURN,
    SCRIPTS_AT,
    SPIN,
    STEP,
    TABLE_AT,
    TEXTS_AT,
    TRAP,
    Shape,
)

T = TypeVar("T")
LOGGER = logging.getLogger("wasm_middleware.plugin.tested")
LOGGER.setLevel(1)
#: Where a one-off `ask` leaves its status.
STATUS_AT = 8

Words = int | tuple[int, ...] | Sequence[object]


def run(coroutine: Coroutine[object, object, T]) -> T:
    """Drive a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]

    coroutine.close()
    raise AssertionError("it waits for something")


def started(instance: Instance, timeout: float | None) -> Instance:
    """An instance whose start function, if it has one, has run."""
    instance.set_timeout(timeout)
    begin = instance.start_function()

    if begin is not None:
        run(begin())

    return instance


class FakeClock:
    """Fulfils `ports.Clock`; moves only where a test moves it."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_700_000_000_000_000_000, 5_000

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> int:
        return self.steady


class FakeEntropy:
    """Fulfils `ports.Entropy` with bytes that a test can tell."""

    def bytes(self, size: int) -> bytes:
        return bytes(index % 251 + 1 for index in range(size))


class FakeBackground:
    """Fulfils `ports.Background`: runs when a test says so."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[..., Coroutine[object, object, None]], tuple]] = deque()
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def event(self) -> anyio.Event:
        return anyio.Event()

    def run(self, function: Callable[..., Coroutine[object, object, None]], *args: object) -> None:
        self.waiting.append((function, args))

    def start(
        self, function: Callable[..., Coroutine[object, object, None]], *args: object
    ) -> Callable[[], None]:
        """The same; what is returned takes back what has not run yet."""
        self.run(function, *args)
        entry = self.waiting[-1]
        return lambda: self.waiting.remove(entry) if entry in self.waiting else None

    def after(self, seconds: float, function: Callable[[], object]) -> Callable[[], None]:
        """Time passes when a test calls what is in `timers`."""
        timer = (seconds, function)
        self.timers.append(timer)
        return lambda: self.timers.remove(timer) if timer in self.timers else None

    def run_all(self) -> None:
        """Run what waits, and what that sets going."""
        while self.waiting:
            function, args = self.waiting.popleft()
            run(function(*args))


class FakeHttp:
    """Fulfils `ports.HttpClient`: keeps calls until a test answers them."""

    def __init__(self) -> None:
        self.calls: list[HttpCall] = []
        self.cancelled: list[int] = []
        self._answered: list[Callable[[HttpAnswer], Coroutine[None, None, None]]] = []

    def refusal(self, upstream: str) -> str:
        return "" if upstream == "auth" else f"there is no upstream {upstream!r}"

    def start(
        self, call: HttpCall, answered: Callable[[HttpAnswer], Coroutine[None, None, None]]
    ) -> Callable[[], None]:
        index = len(self.calls)
        self.calls.append(call)
        self._answered.append(answered)
        return lambda: self.cancelled.append(index)

    def answer(self, index: int, answer: HttpAnswer) -> None:
        run(self._answered[index](answer))


class FakeGrpcStream:
    """Fulfils `ports.GrpcStream`: a call, what has been done to it, and where its answers go."""

    def __init__(self, call: GrpcCall, events: GrpcEvents) -> None:
        self.call, self.events = call, events
        self.done: list[object] = []

    def send(self, message: bytes, *, end_stream: bool) -> None:
        self.done.append((message, end_stream))

    def close(self) -> None:
        self.done.append("close")

    def cancel(self) -> None:
        self.done.append("cancel")


class FakeGrpc:
    """Fulfils `ports.GrpcClient`: keeps calls until a test answers them."""

    def __init__(self) -> None:
        self.streams: list[FakeGrpcStream] = []
        self.reason = ""

    def knows(self, upstream: str) -> bool:
        return upstream == "auth"

    def refusal(self, upstream: str) -> str:
        return self.reason

    def start(self, call: GrpcCall, events: GrpcEvents) -> FakeGrpcStream:
        self.streams.append(FakeGrpcStream(call, events))
        return self.streams[-1]


def services(**others: object) -> Services:
    return Services(
        clock=FakeClock(),
        entropy=FakeEntropy(),
        shared_data=MemorySharedData(),
        queues=MemoryQueues(),
        metrics=MemoryMetrics(),
        background=FakeBackground(),
        **others,  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class At:
    """An argument that is fetched from this address when its call is made."""

    address: int


#: The arguments of the callback that is running.
ARGUMENT = [At(ARGUMENTS_AT + 4 * index) for index in range(5)]


class Step:
    """One thing that a script does; `result_at` is known once the script is written."""

    def __init__(self, operation: int, name: str = "", *arguments: Words | At) -> None:
        self.operation, self.name = operation, name
        self.arguments = list(_flat(arguments))
        self.result_at = 0

    def pack(self, host_calls: list[str]) -> bytes:
        index = host_calls.index(self.name) if self.name else 0
        fetched = sum(
            1 << position
            for position, argument in enumerate(self.arguments)
            if isinstance(argument, At)
        )
        words = [
            argument.address if isinstance(argument, At) else argument & 0xFFFF_FFFF_FFFF_FFFF
            for argument in self.arguments
        ]
        words += [0] * (12 - len(words))
        return STEP.pack(self.operation, index, self.result_at, fetched, *words)


def _flat(arguments: Sequence[object]) -> list[int | At]:
    flat: list[int | At] = []

    for argument in arguments:
        if isinstance(argument, int | At):
            flat.append(argument)
        else:
            assert isinstance(argument, Sequence)
            flat += _flat(argument)

    return flat


def call(name: str, *arguments: Words | At) -> Step:
    """Make a host call; texts (`Guest.text`) stand for their address and size."""
    return Step(CALL, name, *arguments)


def trap() -> Step:
    return Step(TRAP)


def spin() -> Step:
    return Step(SPIN)


def grow(pages: int) -> Step:
    return Step(GROW, "", pages)


class Guest:
    """A scripted guest in its VM."""

    def __init__(
        self,
        module: Module,
        plugin: Plugin,
        services: Services,
        shape: Shape = EVERYTHING,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
    ) -> None:
        self.vm = Vm(plugin, services)
        self.instance: Instance = module.instantiate(
            partial(resolve, self.vm), InstanceLimits(memory_limit, 1000)
        )
        self.instance.set_timeout(5.0)
        self.vm.attach(self.instance)
        self.memory = self.instance.memory
        self.services = services
        self._host_calls = [name for _, name, _ in shape.imports]
        self._script_end, self._text_end = SCRIPTS_AT, TEXTS_AT
        self._last_script: dict[str, int] = {}

    # What it does

    def on(self, callback: str, *steps: Step, returns: int | At | None = None) -> None:
        """Let a callback do this the next time, and from then on if nothing follows."""
        for step in steps:
            step.result_at = self._take_text(bytes(8))

        ending = () if returns is None else (Step(RETURN, "", returns),)
        packed = b"".join(step.pack(self._host_calls) for step in (*steps, *ending))

        if returns is None:
            packed += Step(RETURN, "", 0).pack(self._host_calls)

        address = self._script_end
        self._script_end += 8 + len(packed)
        assert self._script_end <= SCRIPTS_AT + PAGE, "the scripts are too long"
        self.memory.write(address, bytes(8) + packed)
        before = self._last_script.get(callback)
        self.memory.write_u32(before or TABLE_AT + 4 * NAMES.index(callback), address)
        self._last_script[callback] = address

    def again(self, callback: str) -> None:
        """Forget what was written down for a callback."""
        self._last_script.pop(callback, None)
        self.memory.write_u32(TABLE_AT + 4 * NAMES.index(callback), 0)

    def text(self, data: bytes) -> tuple[int, int]:
        """Put bytes into its memory; address and size, as host calls take them."""
        if self._text_end - TEXTS_AT + len(data) < PAGE:
            return self._take_text(data), len(data)

        allocate = self.instance.function("malloc")
        assert allocate is not None
        address = run(allocate(len(data)))
        assert address, "the guest has no memory for it"
        self.memory.write(address, data)
        return address, len(data)

    def _take_text(self, data: bytes) -> int:
        address = self._text_end
        self._text_end += len(data) + (-len(data) % 8)
        assert self._text_end <= TEXTS_AT + PAGE, "the texts are too long"
        self.memory.write(address, data)
        return address

    # What happens to it

    def start(self) -> Guest:
        run(self.vm.start())
        return self

    def enter(self, context: Context | None, callback: str, *arguments: int) -> int:
        """Call one of its callbacks, as the VM would."""
        function = self.instance.function(callback)
        assert function is not None
        return run(self.vm.enter(context, function, callback.removeprefix("proxy_"), *arguments))

    def ask(self, context: Context | None, name: str, *arguments: Words | At) -> int:
        """Make one host call from a callback of that context; its status."""
        step = Step(CALL, name, *arguments)
        step.result_at = STATUS_AT
        script = SCRIPTS_AT + PAGE - 2 * STEP.size - 8
        self.memory.write(script, bytes(8) + step.pack(self._host_calls))
        self.memory.write(script + 8 + STEP.size, Step(RETURN, "", 0).pack(self._host_calls))
        self.memory.write_u32(TABLE_AT + 4 * NAMES.index("proxy_on_tick"), script)
        self.memory.write_u32(STATUS_AT, 0xDEAD)
        self.enter(context, "proxy_on_tick", 0)
        return self.memory.read_u32(STATUS_AT)

    def shut_down(self) -> list[tuple[str, tuple[int, ...]]]:
        """End its VM; all callbacks until its memory was gone."""
        log = []
        close = self.instance.close

        def last_look() -> None:
            log.extend([] if log else self.calls)
            close()

        self.instance.close = last_look  # type: ignore[method-assign]
        run(self.vm.shutdown())
        return log

    # What it knows

    def result(self, step: Step) -> int:
        return self.memory.read_u32(step.result_at)

    def got(self, out: int = OUT) -> bytes:
        """The bytes that an out-pointer and the out-size behind it stand for."""
        return self.memory.read(self.memory.read_u32(out), self.memory.read_u32(out + 4))

    def u32(self, address: int = OUT) -> int:
        return self.memory.read_u32(address)

    def u64(self, address: int = OUT) -> int:
        return int.from_bytes(self.memory.read(address, 8), "little")

    @property
    def calls(self) -> list[tuple[str, tuple[int, ...]]]:
        """All callbacks so far, with their arguments; those of its allocator left out."""
        return [entry for entry in self._log() if entry[0] not in ALLOCATORS]

    @property
    def called(self) -> list[str]:
        """The names of those, without `proxy_`."""
        return [name.removeprefix("proxy_") for name, _ in self.calls]

    def arguments_of(self, callback: str) -> list[tuple[int, ...]]:
        return [arguments for name, arguments in self.calls if name == callback]

    @property
    def allocations(self) -> list[int]:
        """The sizes that its allocator was asked for."""
        return [arguments[0] for name, arguments in self._log() if name in ALLOCATORS]

    def _log(self) -> list[tuple[str, tuple[int, ...]]]:
        count = self.memory.read_u32(LOG_COUNT_AT)
        entries = []

        for position in range(count):
            index, *arguments = struct.unpack(
                "<6I", self.memory.read(LOG_AT + position * LOG_ENTRY, LOG_ENTRY)
            )
            entries.append((NAMES[index], tuple(arguments)))

        return entries


REQUEST = [
    (b":method", b"GET"),
    (b":path", b"/items/7?size=large"),
    (b":authority", b"shop.example"),
    (b":scheme", b"https"),
    (b"accept", b"text/html"),
    (b"x-tag", b"one"),
    (b"x-tag", b"two"),
    (b"x-empty", b""),
]
RESPONSE = [(b":status", b"200"), (b"content-type", b"text/plain"), (b"server", b"app")]
INFO = RequestInfo(
    source=("192.0.2.7", 4711),
    destination=("2001:db8::1", 443),
    http_version="1.1",
    tls_version="TLSv1.3",
    route="items",
)

MakeGuest = Callable[..., Guest]


def root_of(guest: Guest) -> RootContext:
    """Its only root context."""
    [root] = guest.vm.roots.values()
    return root


def expire(stream: Stream, context: StreamContext) -> None:
    """Let the time of a context's pause be up, in whichever direction it is."""
    flow = stream.response if stream.response.paused_by is context else stream.request
    run(stream.expire(flow, context))


def new_stream(*guests: Guest, info: RequestInfo = INFO) -> Stream:
    """A stream through these guests' plugins."""
    stream = Stream(guests[0].services.clock, lambda: info)

    for guest in guests:
        stream.add(guest.vm, guest.vm.plugin.config)

    return stream


def begin(
    stream: Stream, headers: Sequence[tuple[bytes, bytes]] = REQUEST, *, ended: bool = False
) -> HeaderMap:
    """Let request headers in."""
    given = HeaderMap(list(headers))
    run(stream.request.start(given, end_of_stream=ended))
    return given


def respond(
    stream: Stream, headers: Sequence[tuple[bytes, bytes]] = RESPONSE, *, ended: bool = False
) -> HeaderMap:
    """Let response headers in."""
    given = HeaderMap(list(headers))
    run(stream.start_response(given, end_of_stream=ended))
    return given


def send_body(stream: Stream, *chunks: bytes, response: bool = False, ended: bool = True) -> bytes:
    """Let body data in, the last chunk ending it; what has come out."""
    flow = stream.response if response else stream.request

    for index, chunk in enumerate(chunks):
        run(flow.feed(chunk, end_of_stream=ended and index == len(chunks) - 1))

        if stream.interrupted:
            break

    return flow.take_output()


def held_in_headers(
    guest: Guest, headers: Sequence[tuple[bytes, bytes]] = REQUEST
) -> StreamContext:
    """The context of a stream whose request headers the guest holds back."""
    guest.on("proxy_on_request_headers", returns=1)
    stream = new_stream(guest)
    begin(stream, headers)
    return stream.contexts[0]


def held_in_body(guest: Guest, data: bytes, *, response: bool = False) -> StreamContext:
    """The context of a stream of which the guest holds a body back, and has it in its buffer."""
    guest.on("proxy_on_response_body" if response else "proxy_on_request_body", returns=1)
    stream = new_stream(guest)
    begin(stream)

    if response:
        respond(stream)

    send_body(stream, data, response=response, ended=False)
    return stream.contexts[0]
