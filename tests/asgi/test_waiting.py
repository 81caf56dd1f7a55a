"""Host calls that wait inside of a guest's call, through real modules and a real loop."""

from __future__ import annotations

import zlib
from pathlib import Path

import anyio
import pytest

from tests.wat import wat2wasm
from wasm_middleware import ConfigError, deferred
from wasm_middleware.engines.wasmtime import sliced
from wasm_middleware.runtime import services

from .harness import Server, http_scope, respond

pytestmark = pytest.mark.anyio

#: Asks the function `name` with `data`, or reads shared data, and answers with what came of it.
GUEST = """(module
  (import "env" "proxy_call_foreign_function"
    (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 200)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 0) "name")
  (data (i32.const 16) "data")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 0))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $status i32)
    (global.set $free (i32.const 65536))
    (local.set $status %s)
    (drop (call $reply
      (i32.add (i32.const 200) (local.get $status)) (i32.const 0) (i32.const 0)
      (i32.load (i32.const 32)) (i32.load (i32.const 36)) (i32.const 0) (i32.const 0)
      (i32.const -1)))
    (i32.const 1)))"""
FOREIGN = """(call $call (i32.const 0) (i32.const 4) (i32.const 16) (i32.const %d)
    (i32.const 32) (i32.const 36))"""
SHARED = """(call $get (i32.const 16) (i32.const 4) (i32.const 32) (i32.const 36) (i32.const 40))"""


def add(workshop, call: str, **settings: object) -> None:
    file = workshop.folder / "guest.wasm"
    file.write_bytes(wat2wasm(GUEST % call))
    workshop.plugins.append({"name": "guest", "path": str(file), **settings})


def wrap(workshop, **options):
    return workshop.wrap(respond(b"not reached"), engine=None, **options)


async def ask(app) -> Server:
    return await Server(http_scope()).run(app)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_has_the_result_of_an_asynchronous_function(workshop):
    async def name(arguments: bytes) -> bytes:
        await anyio.sleep(0.001)
        return arguments[::-1]

    add(workshop, FOREIGN % 4)
    server = await ask(wrap(workshop, foreign_functions={"name": name}))
    assert (server.status, server.body) == (200, b"atad")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no number"), 2), (RuntimeError("no database"), 10), (SystemExit(), 10)],
)
async def test_what_it_raises_is_the_calls_status(workshop, caplog, error, status):
    async def name(_arguments: bytes) -> bytes:
        await anyio.sleep(0)
        raise error

    add(workshop, FOREIGN % 4)
    server = await ask(wrap(workshop, foreign_functions={"name": name}))
    assert server.status == 200 + status


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_that_never_answers_ends_with_the_request_timeout(workshop, caplog):
    cancelled = anyio.Event()

    async def name(_arguments: bytes) -> bytes:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    add(workshop, FOREIGN % 4, request_timeout="30ms")

    with anyio.fail_after(5):
        server = await ask(wrap(workshop, foreign_functions={"name": name}))

    assert server.status == 503
    assert "its request_timeout" in caplog.text
    assert cancelled.is_set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_that_never_answers_ends_after_a_while_without_one(workshop, caplog, monkeypatch):
    monkeypatch.setattr(sliced, "MAX_HOST_WAIT", 0.03)
    cancelled = anyio.Event()

    async def name(_arguments: bytes) -> bytes:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    add(workshop, FOREIGN % 4, timeout="none")

    with anyio.fail_after(5):
        server = await ask(wrap(workshop, foreign_functions={"name": name}))

    assert server.status == 503
    assert "its host calls had no results for 0.03 s in all" in caplog.text
    assert cancelled.is_set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_that_goes_does_not_take_the_instance_along(workshop):
    inside, go_on = anyio.Event(), anyio.Event()
    asked = []

    async def name(_arguments: bytes) -> bytes:
        asked.append(1)
        inside.set()
        await go_on.wait()
        return b"done"

    add(workshop, FOREIGN % 4)
    app = await workshop.load(wrap(workshop, foreign_functions={"name": name}))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, app)
        await inside.wait()
        group.cancel_scope.cancel()
        go_on.set()

    server = await ask(app)
    assert (server.status, server.body) == (200, b"done")
    assert len(asked) == 2


class SlowStore:
    """A shared store that answers after some milliseconds."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    async def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await anyio.sleep(0.02)
        self.waiting -= 1
        return key + b" from afar", 7

    async def set(self, vm_id: str, key: bytes, value: bytes, cas: int) -> bool:
        await anyio.sleep(0.02)
        return True


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_shared_data_may_be_far_away(workshop, monkeypatch):
    monkeypatch.setattr(services, "MemorySharedData", SlowStore)
    add(workshop, SHARED)
    server = await ask(wrap(workshop))
    assert (server.status, server.body) == (200, b"data from afar")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_much_is_uncompressed_beside_the_loop(workshop):
    """What it gives is larger than what one turn of the loop has time for."""
    data = zlib.compress(bytes(range(256)) * 400)
    assert len(data) > 256
    text = "".join(f"\\{byte:02x}" for byte in data)
    guest = GUEST.replace('"name"', '"uncompress"').replace('"data"', f'"{text}"')
    call = (FOREIGN % len(data)).replace(
        "(i32.const 0) (i32.const 4)", "(i32.const 0) (i32.const 10)"
    )
    guest = guest.replace("(i32.const 32)", "(i32.const 8192)").replace(
        "(i32.const 36)", "(i32.const 8196)"
    )
    call = call.replace("(i32.const 32)", "(i32.const 8192)").replace(
        "(i32.const 36)", "(i32.const 8196)"
    )
    file = Path(workshop.folder) / "guest.wasm"
    file.write_bytes(wat2wasm(guest % call))
    workshop.plugins.append({"name": "guest", "path": str(file)})
    server = await ask(wrap(workshop))
    assert (server.status, server.body) == (200, bytes(range(256)) * 400)


async def test_where_calls_can_not_wait_it_is_said_at_the_start(workshop):
    async def name(_arguments: bytes) -> bytes:
        return b""

    add(workshop, FOREIGN % 4)
    workshop.may_refuse = True
    app = wrap(
        workshop,
        config=workshop.config(scheduling="inline"),
        foreign_functions={"name": name},
    )

    with pytest.raises(ConfigError, match=r"'name' is asynchronous.*make it deferred"):
        await app.app._start({"type": "lifespan", "app": None})

    later = workshop.config(scheduling="inline")
    app = wrap(workshop, config=later, foreign_functions={"name": deferred(name)})
    assert (await ask(app)).status == 200


class BrokenStore(SlowStore):
    async def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        await anyio.sleep(0)
        raise ConnectionError("no route to the store")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("policy", "status"), [("fail_closed", 503), ("fail_open", 201)])
async def test_a_store_that_fails_costs_no_instance(workshop, monkeypatch, caplog, policy, status):
    """The guest is told that there is no such key, and its request gets the failure policy."""
    monkeypatch.setattr(services, "MemorySharedData", BrokenStore)
    add(workshop, SHARED, failure_policy=policy)
    app = wrap(workshop)

    for _ in range(3):
        assert (await ask(app)).status == status

    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 3
    assert "the shared store failed: no route to the store" in errors[0].getMessage()
    assert "replaced" not in caplog.text
