"""gRPC calls and streams to a real server: what goes out, what comes back, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import grpc
import pytest
import trio
import trustme

from wasm_middleware import limits
from wasm_middleware.config import load_settings
from wasm_middleware.errors import ConfigError
from wasm_middleware.proxy_wasm.ports import GrpcCall, StoreFull
from wasm_middleware.services import grpc as grpc_service
from wasm_middleware.services.grpc import GrpcUpstreams

from .grpc_server import serving

pytestmark = pytest.mark.anyio

OK, CANCELLED, DEADLINE, DENIED, EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE, DATA_LOSS = (
    0, 1, 4, 7, 8, 12, 14, 15,
)  # fmt: skip
INITIAL = [(b"x-initial", b"one"), (b"x-initial", b"two"), (b"bytes-bin", b"\x00\xff")]
TRAILING = [(b"x-trailing", b"end"), (b"more-bin", b"\xfe\xfd\xfc")]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    if request.param:
        pytest.importorskip("uvloop", reason="UVLOOP IS NOT INSTALLED: not tested with it")

    return "asyncio", {"use_uvloop": request.param}


def upstreams(url, **options):
    return GrpcUpstreams(
        load_settings({"plugins": [], "upstreams": {"up": {"url": url, **options}}})
    )


@asynccontextmanager
async def calling(port, **options):
    """A client whose upstream `up` is there."""
    client = upstreams(f"http://127.0.0.1:{port}", **options)

    try:
        yield client
    finally:
        await client.aclose()


class Events(list):
    """Fulfils `ports.GrpcEvents`: what came, in order."""

    def __init__(self, on_message=None):
        self._changed = asyncio.Event()
        self._on_message = on_message

    async def initial_metadata(self, metadata):
        self._add("initial", list(metadata))

    async def message(self, message):
        self._add("message", message)

        if self._on_message is not None:
            await self._on_message(message)

    async def trailing_metadata(self, metadata):
        self._add("trailing", list(metadata))

    async def close(self, status, message):
        self._add("close", status, message.decode())

    def _add(self, *event):
        self.append(event)
        self._changed.set()

    async def until(self, *names):
        """Wait until the last event is of such a name."""
        with anyio.fail_after(20):
            while not self or self[-1][0] not in names:
                self._changed.clear()
                await self._changed.wait()

    @property
    def messages(self):
        return [event[1] for event in self if event[0] == "message"]


def call(method, message=b"", **fields):
    return GrpcCall("plugin", "up", "test.Service", method, **{"metadata": (), **fields},
                    message=message)  # fmt: skip


def stream(method, **fields):
    return call(method, None, **fields)


def send(pending, message, *, times):
    for _ in range(times):
        pending.send(message, end_stream=False)


async def ask(client, request):
    """What comes of a call."""
    events = Events()
    client.start(request, events)
    assert events == []
    await events.until("message", "close")
    return events


# Unary calls


async def test_a_call_that_succeeds_ends_with_its_message():
    async with serving() as (service, port), calling(port) as client:
        events = await ask(client, call("Echo", b"\x00hello\xff"))

    assert events == [("message", b"\x00hello\xff")]
    assert service.received == [b"\x00hello\xff"]


async def test_a_call_that_fails_ends_with_its_status_and_message():
    async with serving() as (_, port), calling(port) as client:
        events = await ask(client, call("Refuse"))

    assert events == [("close", DENIED, "no entry für dich")]


async def test_an_unknown_method_is_unimplemented():
    async with serving() as (_, port), calling(port) as client:
        [(name, status, _)] = await ask(client, call("Nothing"))

    assert (name, status) == ("close", UNIMPLEMENTED)


async def test_metadata_goes_out_as_it_was_given():
    given = ((b"x-one", b"1"), (b"x-two", b"a b"), (b"x-bin", b"\x00\x80"), (b"x-empty", b""))

    async with serving() as (service, port), calling(port) as client:
        await ask(client, call("Echo", metadata=given))

    assert service.metadata == [
        [("x-one", "1"), ("x-two", "a b"), ("x-bin", b"\x00\x80"), ("x-empty", "")]
    ]


@pytest.mark.parametrize(("own", "entry"), [(0.2, {}), (None, {"timeout": "200ms"})])
async def test_a_deadline_is_the_calls_own_or_its_upstreams(own, entry):
    async with serving() as (service, port), calling(port, **entry) as client:
        [(name, status, _)] = await ask(client, call("Hang", timeout=own))

        with anyio.fail_after(10):
            await service.cancelled.wait()

    assert (name, status) == ("close", DEADLINE)
    [seconds] = service.deadlines
    assert seconds is not None
    assert seconds < 0.3


async def test_an_upstream_that_is_not_there_is_unavailable():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))

        async with calling(closed.getsockname()[1]) as client:
            [(name, status, message)] = await ask(client, call("Echo"))

    assert (name, status) == ("close", UNAVAILABLE)
    assert "refused" in message


async def test_an_upstream_that_comes_back_is_found_again():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        async with calling(port) as client:
            await ask(client, call("Echo"))
            closed.close()

            async with serving(f"127.0.0.1:{port}"):
                with anyio.fail_after(20):
                    while (await ask(client, call("Echo", b"hi"))) != [("message", b"hi")]:
                        pass


async def test_large_messages_pass_up_to_the_limits():
    message = bytes(limits.MAX_GRPC_CALL_BYTES)

    async with serving() as (_, port), calling(port, response_limit="4MB") as client:
        assert await ask(client, call("Echo", message)) == [("message", message)]


async def test_a_message_beyond_the_response_limit_ends_the_call():
    async with serving() as (_, port), calling(port, response_limit="1KB") as client:
        assert await ask(client, call("Echo", bytes(1024))) == [("message", bytes(1024))]
        [(name, status, message)] = await ask(client, call("Echo", bytes(1025)))

    assert (name, status) == ("close", EXHAUSTED)
    assert "1024" in message


async def test_a_cancelled_call_is_cancelled_at_the_server_and_delivers_nothing():
    events = Events()

    async with serving() as (service, port), calling(port) as client:
        pending = client.start(call("Hang"), events)

        with anyio.fail_after(10):
            await service.hanging.wait()
            pending.cancel()
            await service.cancelled.wait()

    assert events == []


async def test_a_call_that_is_cancelled_at_once_is_never_made():
    events = Events()

    async with serving() as (service, port), calling(port) as client:
        client.start(call("Echo"), events).cancel()
        await ask(client, call("Echo", b"another"))

    assert events == []
    assert service.received == [b"another"]


async def test_more_calls_than_may_be_in_flight_are_unavailable_at_once():
    first, second = Events(), Events()

    async with serving() as (service, port), calling(port, max_in_flight=1) as client:
        pending = client.start(call("Hang"), first)

        with anyio.fail_after(10):
            await service.hanging.wait()

        client.start(stream("Talk"), second)
        await second.until("close")
        # What is given up makes room.
        pending.cancel()
        assert await ask(client, call("Echo", b"hi")) == [("message", b"hi")]
        # And so does what has ended.
        assert await ask(client, call("Echo", b"ho")) == [("message", b"ho")]

    assert first == []
    assert second == [
        ("initial", []),
        ("trailing", []),
        ("close", UNAVAILABLE, "1 calls are under way already (max_in_flight)"),
    ]


# Streams


async def test_a_server_streams():
    events = Events()

    async with serving() as (_, port), calling(port) as client:
        client.start(stream("Count"), events).send(b"300", end_stream=True)
        await events.until("close")

    messages = [("message", b"%d" % number) for number in range(300)]
    assert events == [("initial", INITIAL), *messages, ("trailing", TRAILING), ("close", OK, "")]


async def test_a_client_streams_until_it_closes():
    events = Events()

    async with serving() as (_, port), calling(port) as client:
        pending = client.start(stream("Join"), events)

        for message in (b"a", b"", b"c"):
            pending.send(message, end_stream=False)

        pending.close()
        await events.until("close")

    assert events.messages == [b"a++c"]
    assert events[-1] == ("close", OK, "")


async def test_both_stream_in_turn_and_a_half_close_lets_answers_come():
    events = Events()

    async with serving() as (_, port), calling(port) as client:
        pending = client.start(stream("Talk"), events)

        for message in (b"hello", b"again"):
            await events.until("initial", "message")
            before = len(events)
            pending.send(message, end_stream=False)

            with anyio.fail_after(10):
                while len(events) == before:
                    await anyio.sleep(0)

        pending.close()
        await events.until("close")
        # There is nobody to take it.
        pending.send(b"late", end_stream=False)

    assert events.messages == [b"you said hello", b"you said again", b"bye"]


async def test_a_stream_that_the_server_breaks_off_delivers_what_came_before():
    events = Events()

    async with serving() as (_, port), calling(port) as client:
        client.start(stream("Break"), events)
        await events.until("close")

    assert events == [
        ("initial", INITIAL),
        ("message", b"one"),
        ("trailing", TRAILING),
        ("close", DATA_LOSS, "broken"),
    ]


async def test_a_stream_to_nobody_ends_with_all_its_parts():
    events = Events()

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))

        async with calling(closed.getsockname()[1]) as client:
            client.start(stream("Talk"), events).send(b"hello", end_stream=False)
            await events.until("close")

    assert events[:2] == [("initial", []), ("trailing", [])]
    [(_, status, message)] = events[2:]
    assert status == UNAVAILABLE
    assert "refused" in message


async def test_a_stream_has_no_deadline():
    events = Events()

    async with serving() as (service, port), calling(port, timeout="1ms") as client:
        client.start(stream("Count"), events).send(b"1", end_stream=True)
        await events.until("close")

    assert events.messages == [b"0"]
    assert service.deadlines == [None]


async def test_a_cancelled_stream_is_cancelled_at_the_server_and_delivers_nothing_more():
    events = Events()

    async with serving() as (service, port), calling(port) as client:
        pending = client.start(stream("Wait"), events)
        await events.until("message")
        pending.cancel()

        with anyio.fail_after(10):
            await service.cancelled.wait()

    assert events == [("initial", INITIAL), ("message", b"ready")]


async def test_a_stream_may_be_cancelled_before_anything_comes_back():
    events = Events()

    async with serving() as (service, port), calling(port) as client:
        pending = client.start(stream("Silent"), events)

        with anyio.fail_after(10):
            await service.hanging.wait()
            pending.cancel()
            await service.cancelled.wait()

    assert events == []


async def test_a_stream_may_be_cancelled_while_a_message_is_delivered():
    async def cancel(_):
        pending.cancel()
        # The delivery itself goes on to its end.
        await anyio.sleep(0.01)
        delivered.append(True)

    delivered, events = [], Events(cancel)

    async with serving() as (_, port), calling(port) as client:
        pending = client.start(stream("Count"), events)
        pending.send(b"3", end_stream=True)
        await events.until("message")

    assert delivered == [True]
    assert events == [("initial", INITIAL), ("message", b"0")]


async def test_what_the_upstream_does_not_take_yet_waits():
    events, message = Events(), bytes(limits.MIB)

    async with serving() as (service, port), calling(port) as client:
        pending = client.start(stream("Deaf"), events)
        await events.until("initial")

        for _ in range(8):
            pending.send(message, end_stream=False)

        pending.close()
        service.open.set()
        await events.until("close")

    assert events.messages == [b"%d" % (8 * limits.MIB)]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stream_whose_upstream_takes_too_little_is_cut_off(monkeypatch, begun):
    monkeypatch.setattr(limits, "MAX_GRPC_QUEUED_BYTES", 4 * limits.MIB)
    events, message = Events(), bytes(limits.MIB)

    async with serving() as (_, port), calling(port) as client:
        pending = client.start(stream("Deaf"), events)

        if begun:
            await events.until("initial")

        with pytest.raises(StoreFull) as caught:
            send(pending, message, times=8)

        # It is over.
        pending.send(message, end_stream=False)
        await events.until("close")

    end = "4MB of messages wait for the upstream"
    assert events == [
        ("initial", INITIAL if begun else []),
        ("trailing", []),
        ("close", EXHAUSTED, end),
    ]
    assert str(caught.value) == f"a gRPC stream to upstream 'up' is cut off: {end}"


async def test_all_streams_of_a_plugin_share_what_may_wait(monkeypatch):
    monkeypatch.setattr(limits, "MAX_GRPC_QUEUED_TOTAL", 4 * limits.MIB)
    message = bytes(limits.MIB)

    async with serving() as (_, port), calling(port) as client:
        every = [Events() for _ in range(3)]
        one, two = (client.start(stream("Deaf"), events) for events in every[:2])
        other = client.start(replace(stream("Deaf"), plugin="other"), every[2])

        # Nothing is written before the event loop has its turn.
        send(one, message, times=3)

        with pytest.raises(StoreFull, match="4MB of the plugin's messages wait for upstreams"):
            two.send(message, end_stream=False)

        other.send(message, end_stream=False)
        await every[1].until("close")
        assert every[1][-1][:2] == ("close", EXHAUSTED)
        # What is given up gives its room back, but for what is being written.
        one.cancel()
        send(client.start(stream("Deaf"), Events()), message, times=2)


async def test_what_has_been_written_takes_no_room(monkeypatch):
    monkeypatch.setattr(limits, "MAX_GRPC_QUEUED_TOTAL", 200)
    events = Events()

    async with serving() as (_, port), calling(port) as client:
        for _ in range(2):
            pending = client.start(stream("Talk"), events)
            pending.send(bytes(100), end_stream=False)
            await events.until("message")
            pending.send(bytes(100), end_stream=True)
            await events.until("close")

    said = b"you said " + bytes(100)
    assert events.messages == [said, said, b"bye"] * 2


async def test_a_stream_may_be_cut_off_while_a_message_is_delivered(monkeypatch):
    monkeypatch.setattr(limits, "MAX_GRPC_QUEUED_BYTES", 100)

    async def flood(_):
        with pytest.raises(StoreFull):
            send(pending, bytes(90), times=3)

    events = Events(flood)

    async with serving() as (_, port), calling(port) as client:
        pending = client.start(stream("Wait"), events)
        await events.until("close")

    assert [event[:2] for event in events] == [
        ("initial", INITIAL),
        ("message", b"ready"),
        ("trailing", []),
        ("close", EXHAUSTED),
    ]


async def test_an_upstream_that_is_faster_than_the_guest_is_held_back():
    """The next message is read when the one before has been delivered."""
    running = 0
    overlaps = []

    async def slow(_):
        nonlocal running
        running += 1
        overlaps.append(running)
        await anyio.sleep(0)
        running -= 1

    events = Events(slow)

    async with serving() as (_, port), calling(port) as client:
        client.start(stream("Count"), events).send(b"100", end_stream=True)
        await events.until("close")

    assert overlaps == [1] * 100


# Where it goes


async def test_tls_with_a_ca_of_its_own(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    leaf = authority.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)])

    async with serving("localhost:0", credentials) as (_, port):
        client = upstreams(f"https://localhost:{port}", ca_file=str(tmp_path / "ca.pem"))
        assert await ask(client, call("Echo", b"hi")) == [("message", b"hi")]
        await client.aclose()


async def test_a_certificate_of_an_unknown_ca_is_refused():
    leaf = trustme.CA().issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)])

    async with serving("127.0.0.1:0", credentials) as (service, port):
        client = upstreams(f"https://127.0.0.1:{port}")
        [(name, status, message)] = await ask(client, call("Echo"))
        await client.aclose()

    assert (name, status) == ("close", UNAVAILABLE), message
    assert "CERTIFICATE_VERIFY_FAILED" in message
    assert service.received == []


async def test_a_handshake_that_fails_writes_nothing_to_stderr():
    """In a process of its own: here grpcio is imported by tests as well."""
    script = """
import asyncio
from wasm_middleware.config import load_settings
from wasm_middleware.proxy_wasm.ports import GrpcCall
from wasm_middleware.services.grpc import GrpcUpstreams

class Events:
    async def close(self, status, message):
        print(status, message.decode())
        over.set()

async def main():
    global over
    over = asyncio.Event()
    upstream = {"url": "https://127.0.0.1:PORT"}
    client = GrpcUpstreams(load_settings({"plugins": [], "upstreams": {"up": upstream}}))
    client.start(GrpcCall("plugin", "up", "test.Service", "Echo", (), b""), Events())
    await over.wait()
    await client.aclose()

asyncio.run(main())
"""
    async with serving() as (_, port):
        environment = {key: value for key, value in os.environ.items() if "GRPC" not in key}
        process = await anyio.run_process(
            [sys.executable, "-W", "error", "-c", script.replace("PORT", str(port))],
            env=environment,
            check=False,
        )

    assert process.stderr == b""
    assert process.stdout.startswith(b"14 ")
    assert b"andshake" in process.stdout


def test_a_ca_file_that_has_gone_is_a_mistake(tmp_path):
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    entry = {"url": "https://localhost:1", "ca_file": str(path)}
    settings = load_settings({"plugins": [], "upstreams": {"up": entry}})
    path.unlink()

    with pytest.raises(ConfigError, match=r"upstreams\.up\.ca_file: can't be used: No such file"):
        GrpcUpstreams(settings)


async def test_a_unix_socket(tmp_path):
    async with serving(f"unix:{tmp_path}/grpc.sock"):
        client = upstreams(f"unix:{tmp_path}/grpc.sock")
        assert await ask(client, call("Echo", b"hi")) == [("message", b"hi")]
        await client.aclose()


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)

    async with serving() as (_, port), calling(port) as client:
        assert await ask(client, call("Echo", b"hi")) == [("message", b"hi")]


async def test_a_host_that_plugins_may_name():
    async with serving() as (_, port):
        allowed = {"allow_hosts": [f"localhost:{port}"]}
        client = GrpcUpstreams(load_settings({"plugins": [], "callouts": allowed}))
        assert not client.knows("up")
        request = GrpcCall("plugin", f"LocalHost:{port}", "test.Service", "Echo", (), b"hi")
        assert client.refusal(request.upstream) == ""
        assert await ask(client, request) == [("message", b"hi")]
        await client.aclose()


# Refusals


async def test_an_unknown_upstream_is_refused():
    client = upstreams("http://127.0.0.1:1")

    assert client.knows("up")
    assert not client.knows("Up")
    assert not client.knows("UP")
    assert not client.knows("down")
    assert client.refusal("up") == ""
    assert client.refusal("down") == "there is no upstream 'down'"


async def test_without_grpcio_the_refusal_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(grpc_service, "INSTALLED", False)
    client = upstreams("http://127.0.0.1:1")

    assert client.knows("up")
    assert "pip install 'wasm-middleware[grpc]'" in client.refusal("up")


def test_trio_is_refused():
    client = upstreams("http://127.0.0.1:1")

    async def ask_there():
        return client.refusal("up")

    assert "needs asyncio" in trio.run(ask_there)


# Event loops


async def test_closing_cancels_what_is_under_way():
    one, two = Events(), Events()

    async with serving() as (service, port):
        client = upstreams(f"http://127.0.0.1:{port}")
        client.start(call("Hang"), one)
        client.start(stream("Wait"), two)
        await two.until("message")

        with anyio.fail_after(10):
            await service.hanging.wait()
            await client.aclose()
            await service.cancelled.wait()

    assert one == []
    assert two == [("initial", INITIAL), ("message", b"ready")]


@pytest.fixture
def threaded_server():
    """The port of a server without an event loop, which outlives those of the clients."""

    def wait(messages, context):
        yield b"ready"
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(20)

    class Service(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method.endswith("/Echo"):
                return grpc.unary_unary_rpc_method_handler(lambda message, context: message)

            return grpc.stream_stream_rpc_method_handler(wait)

    with ThreadPoolExecutor(10) as pool:
        server = grpc.server(pool, handlers=[Service()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(None).wait()


def test_a_client_outlives_event_loops_and_a_guest_learns_that_its_loop_has_ended(
    threaded_server, caplog
):
    caplog.set_level(logging.INFO)
    client = upstreams(f"http://127.0.0.1:{threaded_server}", max_in_flight=2)

    async def in_a_loop():
        events = Events()
        client.start(stream("Wait"), events)
        await events.until("message")
        assert await ask(client, call("Echo", b"hi")) == [("message", b"hi")]
        return events

    for _ in range(10):
        events = asyncio.run(in_a_loop())

        assert events == [
            ("initial", []),
            ("message", b"ready"),
            ("trailing", []),
            ("close", CANCELLED, "the event loop has ended"),
        ]

    asyncio.run(client.aclose())
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("message", [b"hi", None], ids=["call", "stream"])
def test_a_call_that_never_began_in_its_event_loop_ends_in_the_next(threaded_server, message):
    client = upstreams(f"http://127.0.0.1:{threaded_server}", max_in_flight=1)
    ends = []

    async def start():
        # The second one is one too many, and has not been told so.
        for _ in range(2):
            events = Events()
            ends.append(events)
            client.start(call("Echo", message), events)

        # As asyncio does at the end of a loop.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def serve():
        assert await ask(client, call("Echo", b"hi")) == [("message", b"hi")]

        for events in ends:
            await events.until("close")

    asyncio.run(start())
    assert ends == [[], []]
    asyncio.run(serve())
    asyncio.run(serve())
    end = ("close", CANCELLED, "the event loop has ended")
    before = [] if message is not None else [("initial", []), ("trailing", [])]
    assert ends == [[*before, end]] * 2
    asyncio.run(client.aclose())


def test_a_call_that_was_given_up_before_it_began_is_not_answered_in_the_next_loop(
    threaded_server,
):
    client = upstreams(f"http://127.0.0.1:{threaded_server}")
    events = []

    async def start():
        events.append(Events())
        client.start(call("Echo"), events[0]).cancel()

    async def serve():
        assert await ask(client, call("Echo", b"hi")) == [("message", b"hi")]

    asyncio.run(start())
    asyncio.run(serve())
    assert events == [[]]
    asyncio.run(client.aclose())
