"""Foreign functions as a plugin of the Rust SDK sees them: it panics on what it does not expect."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from wasm_middleware.abi.enums import Status
from wasm_middleware.proxy_wasm.ports import ForeignCallRefused, deferred

from .harness import Server, Spy, http_scope

pytestmark = pytest.mark.anyio
PLUGIN = Path(__file__).parents[1] / "plugins" / "foreign-calls.wasm"


def refuse(status: Status):
    def function(_arguments: bytes) -> bytes:
        raise ForeignCallRefused(status, "because")

    return function


def fail(_arguments: bytes) -> bytes:
    raise RuntimeError("no database")


async def later(arguments: bytes) -> bytes:
    await anyio.lowlevel.checkpoint()
    return arguments[::-1]


async def fail_later(_arguments: bytes) -> bytes:
    await anyio.lowlevel.checkpoint()
    raise ValueError("nö")


FUNCTIONS = {
    "upper": bytes.upper,
    "empty": lambda _: b"",
    "number": lambda arguments: b"%d" % int(arguments),
    "fail": fail,
    "later": deferred(later),
    "fail_later": deferred(fail_later),
    **{status.name: refuse(status) for status in (Status.NOT_FOUND, Status.SERIALIZATION_FAILURE)},
}


@pytest.fixture
def ask(workshop):
    """Let the plugin call something; what it says of it, and the application."""
    config = {"plugins": [{"name": "foreign", "path": str(PLUGIN)}]}
    app = Spy()
    wrapped = workshop.wrap(app, config=config, engine=None, foreign_functions=FUNCTIONS)

    async def ask(name: str, arguments: bytes = b"", *more: tuple[bytes, bytes]):
        headers = [(b"x-call", name.encode()), *more]

        if arguments:
            headers.append((b"x-arguments", arguments))

        server = await Server(http_scope(headers=headers)).run(wrapped)
        assert server.status == 200, "the plugin has panicked"
        (result,) = app.header(b"x-result")
        return result, app

    return ask


async def test_every_status_is_one_that_it_knows(ask):
    expected = {
        ("upper", b"abc"): b"ABC",
        ("empty", b""): b"nothing",
        ("clear_route_cache", b""): b"nothing",
        ("none", b""): b"NotFound",
        ("", b""): b"NotFound",
        ("NOT_FOUND", b""): b"NotFound",
        ("number", b"many"): b"BadArgument",
        ("set_envoy_filter_state", b"x"): b"BadArgument",
        ("SERIALIZATION_FAILURE", b""): b"SerializationFailure",
        ("uncompress", b"no zlib"): b"SerializationFailure",
        ("fail", b""): b"InternalFailure",
    }

    assert {asked: (await ask(*asked))[0] for asked in expected} == expected


async def test_it_waits_for_an_asynchronous_function(ask):
    late = (b"x-late", b"1")

    # Result, status, message.
    assert (await ask("later", b"abc", late))[0] == b"cba 0 "
    assert (await ask("fail_later", b"", late))[0] == " 2 nö".encode()


async def test_the_application_finds_the_property_that_it_set(ask):
    _, app = await ask("upper", b"abc")

    assert dict(app.scope["state"]["wasm_properties"]) == {"called.function": b"upper"}
