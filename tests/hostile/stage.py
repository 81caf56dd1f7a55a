"""Where a case is played: the middleware around an application, with plugins beside the attacker.

Three plugins: `attacker` on /attacked, `twin` of the same module on /twin, `good` on both and on
/other. While the attacker is attacked with, requests to /other and /twin go on. Everything is in
one process and one event loop, as a service has it: of asyncio, uvloop or trio.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import anyio

from tests.wat import wat2wasm
from wasm_middleware import StreamAborted, WasmPluginMiddleware, limits
from wasm_middleware.asgi.types import Message, Receive, Scope, Send
from wasm_middleware.errors import WasmMiddlewareError
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.ports import deferred

from .case import ENGINE, Answer, Case, Ends, Error, Observation
from .wat import ARMING_BYTES, plugin

#: A start may take ten seconds otherwise; each case would.
limits.START_TIMEOUT = 0.3  # type: ignore[misc]

_MARKER = (b"x-guest", b"1")
_LARGE = (b"x-large", b"x" * (ARMING_BYTES + 100))
#: How long what happens after an answer may take.
_PATIENCE = 5.0
#: Where nothing has to be logged.
_ANYTHING = (Ends.CONTAINED, Ends.CONTAINED_BLIND, Ends.MUTANT)
_GOOD = wat2wasm(plugin().replace('"x-guest"', '"x-well-"'))


class Ear(logging.Handler):
    """Keeps errors, and counts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Error] = []
        self.lines = 0
        self.replaced = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1
        text = record.getMessage()
        self.replaced = self.replaced or "a failed instance was replaced" in text

        if record.levelno >= logging.ERROR and not getattr(record, "guest", False):
            name, phase = getattr(record, "plugin", ""), getattr(record, "phase", "")
            self.errors.append(Error(record.name, str(name), str(phase), text[:2000]))


@contextlib.contextmanager
def _listening() -> Iterator[Ear]:
    ear = Ear()
    logger = logging.getLogger()
    logger.addHandler(ear)
    ours = logging.getLogger("wasm_middleware")
    ours.setLevel(logging.INFO)

    try:
        yield ear
    finally:
        logger.removeHandler(ear)


async def play(case: Case, policy: str, folder: Path, loop: str) -> Observation:
    """One case under one failure policy, in an event loop of that kind."""
    seen = Observation()

    # trio raises what nobody has caught.
    if loop != "trio":
        asyncio.get_running_loop().set_exception_handler(
            lambda _, told: seen.complaints.append(f"{told['message']}: {told.get('exception')!r}")
        )

    with _listening() as ear:
        stage = _Stage(case, policy, folder)

        try:
            async with _lifespan(stage.middleware):
                await stage.run(ear, seen)
        except WasmMiddlewareError as error:
            seen.refusal = str(error)

        seen.errors, seen.lines, seen.replaced = ear.errors, ear.lines, ear.replaced

    return seen


class _Stage:
    def __init__(self, case: Case, policy: str, folder: Path) -> None:
        self.case = case
        #: Set when a request is in the application and stays there.
        self.is_holding = anyio.Event()
        #: Set when it is to leave it.
        self._gate = anyio.Event()
        self.middleware = WasmPluginMiddleware(
            self._serve,
            config=_config(case, policy, folder),
            foreign_functions={"later": deferred(_later)},
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"x-held", b"1") in scope["headers"]:
            self.is_holding.set()
            await self._gate.wait()

        await _serve(scope, receive, send)

    async def _hold(self, seen: Observation) -> None:
        seen.held = await _request(self.middleware, "/attacked", headers=[(b"x-held", b"1")])

    async def run(self, ear: Ear, seen: Observation) -> None:
        seen.scheduling = self._scheduling()

        async with anyio.create_task_group() as tasks:
            if self.case.held:
                tasks.start_soon(self._hold, seen)
                await self.is_holding.wait()

            try:
                await self._attack_among_others(ear, seen)
            finally:
                self._gate.set()

        await self._ask_again(seen)
        seen.contexts = await self._contexts_left()

    def _scheduling(self) -> str:
        binding = self.middleware._binding
        assert binding is not None
        return "sliced" if binding.generation.engine.suspends else "inline"

    async def _attack_among_others(self, ear: Ear, seen: Observation) -> None:
        case, stop = self.case, anyio.Event()
        memory = _resident()
        started, used = time.perf_counter(), time.thread_time()

        async with anyio.create_task_group() as tasks:
            for path in ("/other", "/twin", "/other"):
                if path != "/twin" or _has_twin(case):
                    tasks.start_soon(self._beside, path, stop, seen)

            tasks.start_soon(_watch, stop, seen)

            try:
                for _ in range(case.requests):
                    with anyio.fail_after(4 * case.bound):
                        seen.attack = await self._attack()

                seen.seconds = time.perf_counter() - started
                seen.busy = time.thread_time() - used
                await self._until_it_is_over(ear)
                seen.grown = _resident() - memory
            finally:
                stop.set()

    async def _attack(self) -> Answer:
        if self.case.websocket:
            return await _websocket(self.middleware)

        extended = self.case.trailers
        return await _request(self.middleware, "/attacked", headers=[_LARGE], extended=extended)

    async def _until_it_is_over(self, ear: Ear) -> None:
        """Some attacks begin when their request has its answer."""
        fails = self.case.ends not in (Ends.SERVED, Ends.REPLIED, *_ANYTHING)
        deadline = time.monotonic() + _PATIENCE

        while fails and not ear.errors and time.monotonic() < deadline:
            await anyio.sleep(0.005)

        # What is logged twice, or served late, is to be seen.
        await anyio.sleep(0.02)

    async def _ask_again(self, seen: Observation) -> None:
        deadline = time.monotonic() + _PATIENCE

        while True:
            if self.case.websocket:
                with anyio.fail_after(20):
                    seen.after = await _websocket(self.middleware)

                return

            with anyio.fail_after(20):
                seen.after = await _request(self.middleware, "/attacked")

            if seen.after.plugin or time.monotonic() > deadline or not _has_twin(self.case):
                return

            seen.refused += 1

            if self.case.ends is Ends.FAILS_TO_START_AGAIN:
                if seen.refused == 3:
                    return
            else:
                await anyio.sleep(0.1)

    async def _beside(self, path: str, stop: anyio.Event, seen: Observation) -> None:
        count = 0

        while count < 5 or not stop.is_set():
            with anyio.fail_after(20):
                answer = await _request(self.middleware, path)

            count += 1
            seen.beside += 1

            if answer.status != 200 or answer.cut or (path == "/twin" and not answer.plugin):
                seen.beside_failed.append(f"{path}: {answer}")

            await anyio.sleep(0.001)

    async def _contexts_left(self) -> int:
        binding = self.middleware._binding
        assert binding is not None
        deadline = time.monotonic() + _PATIENCE

        while True:
            left = sum(
                not isinstance(context, RootContext)
                for loaded in binding.generation.plugins.values()
                for vm in loaded.vms
                if not vm.guest.poisoned
                for context in vm.contexts.values()
            )

            if not left or time.monotonic() > deadline:
                return left

            await anyio.sleep(0.01)


def _has_twin(case: Case) -> bool:
    """Whether the module serves requests that do not attack."""
    odd = (Ends.REFUSED, Ends.NOT_STARTED, Ends.CONTAINED_BLIND, Ends.MUTANT)
    return not case.websocket and case.ends not in odd


def _config(case: Case, policy: str, folder: Path) -> dict[str, object]:
    good, bad = folder / "good.wasm", folder / "attacker.wasm"
    good.write_bytes(_GOOD)
    bad.write_bytes(case.wasm())
    settings = {"path": str(bad), "failure_policy": policy, **case.settings}
    plugins = [{"name": "attacker", **settings}, {"name": "good", "path": str(good)}]
    routes = [{"id": "a", "path": "/attacked", "plugins": ["attacker", "good"]}]

    if _has_twin(case):
        plugins.append({"name": "twin", **settings})
        routes.append({"id": "t", "path": "/twin", "plugins": ["twin", "good"]})

    routes.append({"id": "o", "path": "/other", "plugins": ["good"]})
    return {
        "engine": ENGINE,
        "plugins": plugins,
        "routes": routes,
        "scheduling": case.scheduling,
        # Nobody listens there.
        "upstreams": {"nowhere": "http://127.0.0.1:9"},
    }


def _resident() -> int:
    """Bytes of memory of this process; 0 where the system does not say."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0


async def _watch(stop: anyio.Event, seen: Observation) -> None:
    """How long the loop was held up at most, of the processor's time: other processes run too."""
    while not stop.is_set():
        begun = time.thread_time()
        await anyio.sleep(0)
        seen.stall = max(seen.stall, time.thread_time() - begun)
        await anyio.sleep(0.0005)


async def _later(_arguments: bytes) -> bytes:
    return b"answer"


# The application


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await _talk(receive, send)
    else:
        await _echo(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _talk(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})

    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = b""

    while True:
        message = await receive()

        if message["type"] != "http.request":
            return

        body += message["body"]

        if not message["more_body"]:
            break

    trailers = "http.response.trailers" in scope.get("extensions", {})
    headers = [] if trailers else [(b"content-length", b"%d" % len(body))]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    await send({**start, "trailers": True} if trailers else start)
    await send({"type": "http.response.body", "body": body, "more_body": False})

    if trailers:
        await send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"7")]})


# The server


@contextlib.asynccontextmanager
async def _lifespan(app: WasmPluginMiddleware) -> AsyncIterator[None]:
    to_app, receiving = anyio.create_memory_object_stream[Message](1)
    sending, from_app = anyio.create_memory_object_stream[Message](1)
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    failures: list[WasmMiddlewareError] = []
    started = False

    async def live() -> None:
        # Not out of the task group: it would be one of a group.
        try:
            await app(scope, receiving.receive, sending.send)
        except WasmMiddlewareError as error:
            failures.append(error)

    async with to_app, receiving, sending, from_app, anyio.create_task_group() as tasks:
        tasks.start_soon(live)
        await to_app.send({"type": "lifespan.startup"})

        with anyio.fail_after(60):
            started = (await from_app.receive())["type"] == "lifespan.startup.complete"

        if started:
            try:
                yield
            finally:
                await to_app.send({"type": "lifespan.shutdown"})

    for failure in failures:
        raise failure

    assert started, "a start that fails raises"


async def _request(
    app: WasmPluginMiddleware,
    path: str,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    extended: bool = False,
) -> Answer:
    script = [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"cd", "more_body": False},
    ]
    complete = anyio.Event()
    answer = Answer()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test"), (b"transfer-encoding", b"chunked"), *headers],
        "client": ("127.0.0.1", 4242),
        "server": ("127.0.0.1", 80),
        "state": {},
        "extensions": {"http.response.trailers": {}} if extended else {},
    }

    async def receive() -> Message:
        if script:
            return script.pop(0)

        await complete.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.plugin = _MARKER in message["headers"]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            complete.set()

    try:
        await app(scope, receive, send)
    except StreamAborted:
        answer.cut = True
    except Exception as error:
        answer.raised = repr(error)

    answer.cut = answer.cut or not complete.is_set()
    return answer


async def _websocket(app: WasmPluginMiddleware) -> Answer:
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/attacked",
        "raw_path": b"/attacked",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 4242),
        "server": ("127.0.0.1", 80),
        "subprotocols": [],
        "state": {},
    }
    answer = Answer()
    script = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
    got = anyio.Event()

    async def receive() -> Message:
        if script:
            return script.pop(0)

        # A client that says goodbye when it has its answer, or has waited for it.
        with anyio.move_on_after(0.3):
            await got.wait()

        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        if message["type"] == "websocket.accept":
            answer.status = 101
        else:
            got.set()
            answer.cut = answer.cut or message["type"] == "websocket.close"

    try:
        await app(scope, receive, send)
    except StreamAborted:
        answer.cut = True
    except Exception as error:
        answer.raised = repr(error)

    return answer
