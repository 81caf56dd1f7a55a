"""What a plugin must not be able to say: a second header, another message, a secret.

Each is tried as a plugin would, and judged by what the application or the client is given.
"""

from __future__ import annotations

import json
import logging
import re

import pytest

from wasm_middleware.config import load_settings
from wasm_middleware.engines.module_info import ExternKind, Import
from wasm_middleware.errors import ConfigError

from .guests import RESPONSE_HEADERS, BodyGuest, Guest
from .harness import Server, Spy, chunks, echo, http_scope, post_scope, respond

pytestmark = pytest.mark.anyio

FRAMING = (b"content-length", b"transfer-encoding")
NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"[^\r\n\0]*")


def doing(do, phase="request_headers"):
    """A plugin that does one thing in a phase."""
    return type("Doing", (Guest,), {phase: lambda self, end: do(self)})


def well_formed(headers):
    return all(NAME.fullmatch(name) and VALUE.fullmatch(value) for name, value in headers)


WRITES = {
    "add": lambda guest, name, value, which: guest.add(name, value, which),
    "replace": lambda guest, name, value, which: guest.set(name, value, which),
    "set all": lambda guest, name, value, which: guest.set_pairs([(name, value)], which),
}
EVIL = [
    (b"x-a", b"1\r\nx-b: 2"),
    (b"x-a", b"1\nx-b: 2"),
    (b"x-a", b"1\rx-b: 2"),
    (b"x-a", b"1\0"),
    (b"x-a\r\nx-b", b"1"),
    (b"x-a: 1\r\nx-b", b"1"),
    (b"x a", b"1"),
    (b"x-a:", b"1"),
    (b"x-\xff", b"1"),
    (b"GET / HTTP/1.1", b"1"),
]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(("name", "value"), EVIL)
async def test_no_header_breaks_out_of_a_request(workshop, write, name, value):
    """Not even where the request goes on without the plugin."""
    workshop.add(
        doing(lambda guest: WRITES[write](guest, name, value, 0)), failure_policy="fail_open"
    )
    spy = Spy()
    await Server(http_scope(headers=[(b"x-a", b"client's")])).run(workshop.wrap(spy))
    assert well_formed(spy.seen["headers"])
    assert not spy.header(b"x-b")


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(("name", "value"), EVIL)
async def test_no_header_breaks_out_of_a_response(workshop, write, name, value):
    guest = doing(
        lambda guest: WRITES[write](guest, name, value, RESPONSE_HEADERS), "response_headers"
    )
    workshop.add(guest, failure_policy="fail_open")
    server = await Server(http_scope()).run(workshop.wrap(respond(b"hello", length=True)))
    assert server.status == 200
    assert well_formed(server.start["headers"])
    assert not server.headers(b"x-b")


@pytest.mark.parametrize(("name", "value"), EVIL)
async def test_no_header_breaks_out_of_a_reply(workshop, name, value):
    workshop.add(doing(lambda guest: guest.reply(403, b"no", [(name, value)])))
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.status == 403
    assert well_formed(server.start["headers"])
    assert not server.headers(b"x-b")


SMUGGLED = [
    [(b"transfer-encoding", b"chunked")],
    [(b"transfer-encoding", b"identity, chunked")],
    [(b"content-length", b"0")],
    [(b"content-length", b"1"), (b"content-length", b"2")],
    [(b"Content-Length", b"+2"), (b"Transfer-Encoding", b"chunked")],
]


@pytest.mark.parametrize("declared", [b"chunked", b"2"])
@pytest.mark.parametrize("given", SMUGGLED)
@pytest.mark.parametrize("write", ["add", "replace", "set all", "remove"])
async def test_where_a_request_ends_is_not_a_plugins_to_say(workshop, write, given, declared):
    def smuggle(guest):
        if write == "set all":
            guest.set_pairs(given)

        for name, value in given:
            if write == "remove":
                guest.remove(name)
            elif write != "set all":
                WRITES[write](guest, name, value, 0)

        guest.set(b"x-plugin", b"was here")

    workshop.add(doing(smuggle))
    scope = post_scope() if declared == b"chunked" else post_scope(length=2)
    sent = [pair for pair in scope["headers"] if pair[0] in FRAMING]
    spy = Spy(echo)
    server = await Server(scope, chunks(b"ab")).run(workshop.wrap(spy))
    assert [pair for pair in spy.seen["headers"] if pair[0] in FRAMING] == sent
    assert spy.header(b"x-plugin") == [b"was here"]
    assert server.body == b"ab"


@pytest.mark.parametrize(
    "value", [b"a b", b"a\tb", b"a, b", b"a/b", b"a@b", b"a?b", b"a#b", b"a\\b", b"<a>"]
)
@pytest.mark.parametrize("name", [b"host", b":authority"])
async def test_an_authority_that_is_none_fails_the_request(workshop, name, value):
    workshop.add(doing(lambda guest: guest.set(name, value)))
    spy = Spy()
    server = await Server(http_scope()).run(workshop.wrap(spy))
    assert (server.status, spy.scopes) == (503, [])


@pytest.mark.parametrize("name", [b"host", b"Host", b":authority"])
async def test_there_is_never_a_second_host(workshop, name):
    workshop.add(doing(lambda guest: guest.add(name, b"other.example")))
    spy = Spy()
    await Server(http_scope()).run(workshop.wrap(spy))
    assert spy.header(b"host") == [b"test,other.example"]
    assert not spy.header(b":authority")


@pytest.mark.parametrize("name", [b":path", b":method", b":scheme", b":authority", b":status"])
@pytest.mark.parametrize("write", WRITES)
async def test_pseudo_headers_never_reach_a_client(workshop, write, name):
    value = b"201" if name == b":status" else b"evil"
    guest = doing(
        lambda guest: WRITES[write](guest, name, value, RESPONSE_HEADERS), "response_headers"
    )
    workshop.add(guest)
    server = await Server(http_scope()).run(workshop.wrap(respond(b"hello", length=True)))
    assert well_formed(server.start["headers"])
    assert server.status in (200, 201, 500, 503)
    assert not [found for found, value in server.start["headers"] if value == b"evil"]


@pytest.mark.parametrize("name", [b":status", b":protocol", b":evil"])
@pytest.mark.parametrize("write", WRITES)
async def test_pseudo_headers_never_reach_the_application(workshop, write, name):
    workshop.add(doing(lambda guest: WRITES[write](guest, name, b"200", 0)))
    spy = Spy()
    await Server(http_scope()).run(workshop.wrap(spy))
    assert well_formed(spy.seen["headers"])


@pytest.mark.parametrize("given", SMUGGLED)
async def test_where_a_response_ends_is_not_a_plugins_to_say(workshop, given):
    def smuggle(guest):
        for name, value in given:
            guest.add(name, value, RESPONSE_HEADERS)

    workshop.add(doing(smuggle, "response_headers"))
    server = await Server(http_scope()).run(workshop.wrap(respond(b"hello", length=True)))
    framing = [pair for pair in server.start["headers"] if pair[0] in FRAMING]
    assert framing in ([(b"content-length", b"5")], [])
    assert server.body == b"hello"


@pytest.mark.parametrize("status", [0, 1, 99, 100, 101, 199, 600, 999, 1000, 0xFFFF_FFFF])
async def test_a_reply_has_a_status_that_http_has(workshop, status):
    workshop.add(doing(lambda guest: guest.reply(status, b"no")))
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.status == 500


WASI = "wasi_snapshot_preview1"
SECRET = "hunter2-very-secret"


class Knowing(BodyGuest):
    """Reads all that it was given, and fails as it is told."""

    imports = (
        *BodyGuest.imports,
        Import(WASI, "environ_sizes_get", ExternKind.FUNCTION, "ii>i"),
        Import(WASI, "environ_get", ExternKind.FUNCTION, "ii>i"),
    )

    def configure(self):
        assert SECRET.encode() in self.config()
        where = self.proxy_on_memory_allocate(1024)
        self.host.environ_sizes_get(where, where + 4)
        assert not self.host.environ_get(where, where + 64)
        assert SECRET.encode() in self.memory.read(where + 64, 200)

        return b"refuse" not in self.config()

    def request_headers(self, end):
        # Held by the guest alone: `x-none` is not there.
        self.set(b"x-key", SECRET.encode())
        self.get(b"x-none")

    def response_headers(self, end):
        self.remove(b"x-key")

        if self.get(b"x-trap"):
            raise RuntimeError("boom")


@pytest.mark.parametrize("level", ["trace", "debug", "info"])
@pytest.mark.parametrize("trap", [False, True])
async def test_no_secret_is_in_a_log_whatever_its_level(workshop, caplog, level, trap):
    workshop.add(
        Knowing,
        config={"key": SECRET},
        vm_config=f"key={SECRET}",
        environment={"KEY": SECRET},
        log_level=level,
    )

    with caplog.at_level(1):
        scope = http_scope(headers=[(b"x-trap", b"1")] if trap else [])
        await Server(scope).run(workshop.wrap(Spy()))

    assert caplog.records
    assert_no_secret(caplog)


async def test_no_secret_is_in_what_a_refused_plugin_is_said_of(workshop, caplog):
    workshop.may_refuse = True
    workshop.add(
        Knowing,
        config={"key": SECRET, "refuse": True},
        environment={"KEY": SECRET},
        log_level="trace",
        failure_policy="fail_open",
    )

    with caplog.at_level(1):
        await Server(http_scope()).run(workshop.wrap(Spy()))

    assert "answered false" in caplog.text
    assert_no_secret(caplog)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": "${KEY}"},
        {"config": {1: "${KEY}"}},
        {"environment": {"KEY": ["${KEY}"]}},
        {"environment": {"A=B": "${KEY}"}},
        {"vm_config": "${KEY}", "nope": 1},
    ],
)
async def test_no_secret_is_in_what_a_file_is_told_off_for(workshop, monkeypatch, wrong):
    monkeypatch.setenv("KEY", SECRET)
    workshop.add(Guest, **wrong)
    file = workshop.folder / "plugins.yaml"
    file.write_text(as_yaml(workshop.config()))

    with pytest.raises(ConfigError) as caught:
        load_settings(file)

    assert SECRET not in str(caught.value)


async def test_no_secret_is_in_how_settings_are_shown(workshop):
    workshop.add(Guest, config={"key": SECRET}, vm_config=SECRET, environment={"KEY": SECRET})
    settings = load_settings(
        workshop.config(routes=[{"path": "/", "plugins": [{"name": "guest", "config": SECRET}]}])
    )
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


def as_yaml(config):
    # What JSON writes, YAML reads; a key of a mapping may be a number.
    return json.dumps(config).replace('"1":', "1:")


def assert_no_secret(caplog):
    for record in caplog.records:
        text = logging.Formatter("%(message)s").format(record)
        assert SECRET not in text
        assert SECRET not in repr(vars(record))
