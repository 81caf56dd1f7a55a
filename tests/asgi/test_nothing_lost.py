"""Whatever happens to a request, each of its plugins is told of its end, once.

Many requests of every kind at once: what was created is counted against what was deleted, by the
plugins themselves, and what is left by the garbage collector.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections import Counter
from typing import ClassVar

import anyio
import pytest

from tests.wat import wat2wasm
from wasm_middleware import StreamAborted, WasmPluginMiddleware
from wasm_middleware.engines.null import NullEngine
from wasm_middleware.engines.wasmtime import WasmtimeEngine
from wasm_middleware.engines.wasmtime.instance import WasmtimeInstance
from wasm_middleware.proxy_wasm.context import Context, RootContext
from wasm_middleware.runtime.generation import Generation

from .guests import PAUSE, RESPONSE, BodyGuest, Guest
from .harness import DISCONNECT, Server, chunks, http_scope, post_scope, read_body, respond

REQUESTS = 100_000
AT_ONCE = 64
LAST = ("log", "done", "delete")


class Steady(Guest):
    """Counts its callbacks."""

    counts: ClassVar[Counter[str]] = Counter()

    def note(self, what):
        self.counts[what] += 1


class PathGuest(BodyGuest):
    """Remembers each context's path."""

    def note(self, what):
        if what == "root":
            self.paths = {}
        elif what == "request_headers":
            self.paths[self.context] = self.get(b":path")
        elif what == "delete":
            self.paths.pop(self.context, None)

    @property
    def path(self):
        return self.paths[self.context]


class Meddling(PathGuest):
    """Replies, holds back, changes."""

    def request_headers(self, end):
        if self.path == b"/reply":
            self.reply(403, b"no")

        return PAUSE if self.path in (b"/reply", b"/hold") else None

    def response_headers(self, end):
        return PAUSE if self.path == b"/hold-response" else None

    def response_body(self, size, end):
        if self.path == b"/change":
            self.set_body(RESPONSE, b"changed")


class Trapping(PathGuest):
    """Fails. While it is not started again it is left out of requests, too."""

    def trap(self, phase):
        if self.path == phase:
            raise RuntimeError("boom")

    def request_headers(self, end):
        self.trap(b"/trap")

    def request_body(self, size, end):
        self.trap(b"/trap-body")

    def response_headers(self, end):
        self.trap(b"/trap-response")

    def log(self):
        self.trap(b"/trap-log")


class Failed(Exception):
    """The application's own."""


async def application(scope, receive, send):
    match scope["path"]:
        case "/fail":
            raise Failed
        case "/fail-late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise Failed
        case "/silent":
            return
        case "/cancel":
            scope["cancel"].cancel()
            await anyio.sleep_forever()
        case "/cancel-late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            scope["cancel"].cancel()
            await anyio.sleep_forever()
        case "/gone":
            assert await receive() == DISCONNECT
            return

    if scope["method"] == "POST":
        try:
            await read_body(receive)
        except ConnectionError:
            return

    await respond(b"hello", b" world")(scope, receive, send)


#: Path, and what its client sends. The first are the most frequent.
KINDS = [
    *[("/get", None)] * 50,
    *[("/post", chunks(b"a", b"b"))] * 20,
    *[("/change", None)] * 5,
    *[("/reply", None)] * 5,
    ("/hold", [*chunks(b""), DISCONNECT]),
    ("/hold-response", [*chunks(b""), DISCONNECT]),
    ("/gone", [DISCONNECT]),
    ("/post", [chunks(b"a", b"b")[0], DISCONNECT]),
    ("/cancel", None),
    ("/cancel-late", None),
    ("/fail", None),
    ("/fail-late", None),
    ("/silent", None),
    ("/trap", None),
    ("/trap-body", chunks(b"a", b"b")),
    ("/trap-response", None),
    ("/trap-log", None),
]


async def one_request(app, path, script):
    body = script is not None and path in ("/post", "/trap-body")
    scope = post_scope(path) if body else http_scope(path)

    with anyio.CancelScope() as cancel:
        server = Server({**scope, "cancel": cancel}, script)

        with contextlib.suppress(Failed, StreamAborted):
            await server.run(app)


async def many_requests(app, kinds, requests):
    """Different ones at the same time, so many in all."""
    numbers = iter(range(requests))

    async def client():
        for number in numbers:
            await one_request(app, *kinds[number % len(kinds)])

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(client)


async def until(condition):
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.001)


def alive(kind):
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, kind)]


def newly(kind, before):
    """Of those that are alive, the ones that were not there before."""
    return [one for one in alive(kind) if not any(one is other for other in before)]


def streams():
    return [context for context in alive(Context) if not isinstance(context, RootContext)]


@pytest.fixture
def quiet():
    """What fails is logged, very often."""
    logger = logging.getLogger("wasm_middleware")
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(logging.NOTSET)


asyncio_alone = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.mark.anyio
@pytest.mark.timeout(240)
@asyncio_alone
async def test_no_context_is_lost_in_very_many_requests_of_every_kind(workshop, quiet):
    steady = workshop.add(Steady, priority=1)
    # One that answers nothing is left out soon: a response waits though its client is gone.
    workshop.add(Meddling, failure_policy="fail_open", pause_timeout="20ms")
    workshop.add(Trapping, failure_policy="fail_open")
    app = WasmPluginMiddleware(
        application, config=workshop.config(), engine=lambda: NullEngine(workshop.modules)
    )
    before = len(streams())

    await many_requests(app, KINDS, REQUESTS)

    counts = steady.counts
    await until(lambda: counts["delete"] == counts["create"])
    assert {name: counts[name] for name in ("create", *LAST)} == dict.fromkeys(
        ("create", *LAST), REQUESTS
    )
    assert len(streams()) == before


COUNTING = """(module
  (import "env" "proxy_define_metric"
    (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $add (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "createlogdonedelete")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func $metric (param $name i32) (param $size i32)
    (drop (call $define (i32.const 0) (local.get $name) (local.get $size) (i32.const 0)))
    (drop (call $add (i32.load (i32.const 0)) (i64.const 1))))
  (func (export "proxy_on_context_create") (param i32 i32)
    (if (local.get 1) (then (call $metric (i32.const 16) (i32.const 6)))))
  (func (export "proxy_on_log") (param i32) (call $metric (i32.const 22) (i32.const 3)))
  (func (export "proxy_on_done") (param i32) (result i32)
    (call $metric (i32.const 25) (i32.const 4)) (i32.const 1))
  (func (export "proxy_on_delete") (param i32) (call $metric (i32.const 29) (i32.const 6))))
"""
#: Traps while one request in some does.
TRAPPING = """(module
  (memory (export "memory") 1)
  (global $requests (mut i32) (i32.const 0))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (global.set $requests (i32.add (global.get $requests) (i32.const 1)))
    (if (i32.eq (global.get $requests) (i32.const 200)) (then unreachable))
    (i32.const 0)))
"""


@pytest.mark.anyio
@pytest.mark.timeout(240)
@asyncio_alone
async def test_no_context_of_a_real_guest_is_lost(tmp_path, quiet):
    plugins = []

    for name, wat in (("counting", COUNTING), ("trapping", TRAPPING)):
        path = tmp_path / f"{name}.wasm"
        path.write_bytes(wat2wasm(wat))
        plugins.append({"name": name, "path": str(path), "failure_policy": "fail_open"})

    kinds = [kind for kind in KINDS if not kind[0].startswith("/hold")]
    engine = WasmtimeEngine(sliced=True)
    app = WasmPluginMiddleware(application, config={"plugins": plugins}, engine=lambda: engine)
    before = len(streams())
    # Of tests before this one: after those of gRPC, frames of theirs stay on 3.12 and later.
    of_others = [*alive(WasmtimeInstance), *alive(Generation)]

    await many_requests(app, kinds, REQUESTS // 10)

    [generation] = newly(Generation, of_others)
    counting, trapping = generation.plugins.values()

    def counts():
        return {sample.name: sample.value for sample in counting.services.metrics.samples()}

    await until(lambda: counts()["delete"] == counts()["create"])
    assert counts() == dict.fromkeys(("create", *LAST), REQUESTS // 10)
    assert len(streams()) == before
    # It was replaced now and then, and nothing of those that failed is left.
    ours = newly(WasmtimeInstance, of_others)
    assert len(ours) == len(counting.vms) + len(trapping.vms)
    await generation.close()
