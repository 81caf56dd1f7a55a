"""Calls to real servers: what goes out, what comes back, and what stands for an answer."""

from __future__ import annotations

import asyncio
import gzip
import logging
import ssl
from contextlib import asynccontextmanager

import anyio
import pytest
import trustme

from wasm_middleware.config import Settings, load_settings
from wasm_middleware.errors import ConfigError
from wasm_middleware.proxy_wasm.ports import HttpCall
from wasm_middleware.services.callout import HttpCallouts

from .upstreams import Server, answering, refusing

pytestmark = pytest.mark.anyio

RESET = b"upstream connect error or disconnect/reset before headers. reset reason: "


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


def settings(**upstreams):
    return load_settings({"plugins": [], "upstreams": upstreams})


@asynccontextmanager
async def calling(server, **options):
    """A client whose upstream `up` is the server, or the port."""
    port = server.port if isinstance(server, Server) else server
    callouts = HttpCallouts(settings(up={"url": f"http://127.0.0.1:{port}", **options}))

    try:
        yield callouts
    finally:
        await callouts.aclose()


def call(*headers, method=b"GET", path=b"/", upstream="up", body=b"", timeout=None, **fields):
    pseudo = ((b":method", method), (b":path", path), (b":authority", b"auth.example"))
    return HttpCall("plugin", upstream, (*pseudo, *headers), body, (), timeout, **fields)


async def ask(callouts, request):
    """The answer to one call."""
    answers, answered = [], anyio.Event()

    async def take(answer):
        answers.append(answer)
        answered.set()

    callouts.start(request, take)
    assert answers == []

    with anyio.fail_after(20):
        await answered.wait()

    await anyio.wait_all_tasks_blocked()
    [answer] = answers
    return answer


async def closed(server):
    """Wait until the client has closed all connections."""
    await anyio.to_thread.run_sync(server.wait_until_all_are_closed)


def status(answer):
    assert answer.headers[0][0] == b":status"
    return int(answer.headers[0][1])


async def test_a_call_goes_out_as_it_was_given():
    headers = [
        (b"x-first", b"1"),
        (b"cookie", b"a=b"),
        (b"x-twice", b"one"),
        (b"cookie", b"c=d"),
        (b"x-twice", b"two"),
        (b"x-bytes", b"\xff\xfe"),
        (b"content-length", b"999"),
        (b"host", b"another.example"),
    ]

    with Server() as server:
        async with calling(server) as callouts:
            path = b"/a/../b/%7e;x?q=%41&r=[]|"
            await ask(callouts, call(*headers, method=b"pOsT", path=path, body=b"hello"))

    assert server.requests == [
        b"pOsT /a/../b/%7e;x?q=%41&r=[]| HTTP/1.1\r\n"
        b"host: auth.example\r\n"
        b"x-first: 1\r\n"
        b"cookie: a=b\r\n"
        b"x-twice: one\r\n"
        b"cookie: c=d\r\n"
        b"x-twice: two\r\n"
        b"x-bytes: \xff\xfe\r\n"
        b"content-length: 5\r\n"
        b"\r\n"
        b"hello"
    ]


async def test_what_belongs_to_a_connection_does_not_go_out():
    headers = [
        (b"connection", b"close, X-Private"),
        (b"x-private", b"1"),
        (b"keep-alive", b"timeout=9"),
        (b"te", b"trailers"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"websocket"),
        (b"proxy-connection", b"close"),
        (b"x-kept", b"1"),
    ]

    with Server() as server:
        async with calling(server) as callouts:
            await ask(callouts, call(*headers))

    assert server.requests == [b"GET / HTTP/1.1\r\nhost: auth.example\r\nx-kept: 1\r\n\r\n"]


@pytest.mark.parametrize(
    ("method", "length"),
    [
        (b"GET", False),
        (b"HEAD", False),
        (b"DELETE", False),
        (b"POST", True),
        (b"PUT", True),
        (b"PATCH", True),
    ],
)
async def test_an_empty_body_has_a_length_where_one_is_expected(method, length):
    with Server() as server:
        async with calling(server) as callouts:
            await ask(callouts, call(method=method))

    assert (b"\r\ncontent-length: 0\r\n" in server.requests[0]) is length


async def test_an_answer_comes_back_as_it_was_sent():
    body = gzip.compress(b"hello " * 100)
    lines = (
        b"HTTP/1.1 418 I'm a teapot",
        b"Set-Cookie: a=b",
        b"X-Last: ",
        b"Content-Encoding: gzip",
        b"set-cookie: c=d",
        b"x-bytes: \xff",
        b"Content-Length: %d" % len(body),
        b"Connection: X-Private",
        b"X-Private: 1",
        b"Keep-Alive: timeout=5",
    )

    with answering(*lines, body=body) as server:
        async with calling(server) as callouts:
            answer = await ask(callouts, call())

    assert answer.headers == (
        (b":status", b"418"),
        (b"set-cookie", b"a=b"),
        (b"x-last", b""),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"c=d"),
        (b"x-bytes", b"\xff"),
        (b"content-length", b"%d" % len(body)),
    )
    assert answer.body == body
    assert (answer.trailers, answer.failure) == ((), "")


async def test_chunks_become_a_body_and_trailers_are_left_out():
    chunks = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n"
    lines = (b"HTTP/1.1 200 OK", b"transfer-encoding: chunked", b"x-a: 1")

    with answering(*lines, body=chunks) as server:
        async with calling(server) as callouts:
            answer = await ask(callouts, call())
            again = await ask(callouts, call())

    assert answer.headers == ((b":status", b"200"), (b"x-a", b"1"))
    assert (answer.body, answer.trailers) == (b"abcdefg", ())
    assert again == answer
    assert server.connections == 1


async def test_trailers_of_a_call_are_not_sent_and_the_log_says_so(caplog):
    caplog.set_level(logging.DEBUG, "wasm_middleware")
    request = call((b"trailer", b"x-sum"), body=b"x", method=b"POST")
    request = HttpCall(
        request.plugin, "up", request.headers, b"x", ((b"x-sum", b"secret"),), timeout=None
    )

    with Server() as server:
        async with calling(server) as callouts:
            assert (await ask(callouts, request)).body == b"x"

    assert b"trailer" not in server.requests[0]
    assert b"x-sum" not in server.requests[0]
    assert "plugin 'plugin': trailers to upstream 'up' are not sent" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("method", "line"),
    [(b"HEAD", b"HTTP/1.1 200 OK"), (b"GET", b"HTTP/1.1 304 Not Modified")],
)
async def test_a_length_without_a_body_is_kept(method, line):
    with answering(line, b"content-length: 12345") as server:
        async with calling(server) as callouts:
            for _ in range(2):
                answer = await ask(callouts, call(method=method))
                assert answer.headers[1:] == ((b"content-length", b"12345"),)
                assert (answer.body, answer.failure) == (b"", "")

    assert server.connections == 1


async def test_no_content_has_no_body():
    with answering(b"HTTP/1.1 204 No Content", b"x-a: 1") as server:
        async with calling(server) as callouts:
            answer = await ask(callouts, call(method=b"DELETE"))

    assert answer.headers == ((b":status", b"204"), (b"x-a", b"1"))
    assert answer.body == b""


async def test_informational_answers_are_passed_over():
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"

    with answering(early + b"HTTP/1.1 200 OK", b"content-length: 2", body=b"ok") as server:
        async with calling(server) as callouts:
            answer = await ask(callouts, call((b"expect", b"100-continue"), body=b"x"))

    assert answer.headers == ((b":status", b"200"), (b"content-length", b"2"))
    assert answer.body == b"ok"


async def test_nothing_is_followed_kept_or_added(monkeypatch):
    with refusing() as dead:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{dead}")

        lines = (b"HTTP/1.1 302 Found", b"location: /other", b"set-cookie: s=1; Path=/")

        with answering(*lines, b"content-length: 0") as server:
            async with calling(server) as callouts:
                for _ in range(2):
                    assert status(await ask(callouts, call())) == 302

    assert server.requests == [b"GET / HTTP/1.1\r\nhost: auth.example\r\n\r\n"] * 2


async def test_large_bodies_go_both_ways():
    body = bytes(range(256)) * 12_000

    with Server() as server:
        async with calling(server, response_limit="4MB") as callouts:
            answer = await ask(callouts, call(body=body, method=b"PUT"))

    assert answer.body == body


async def test_a_connection_is_used_again():
    with Server() as server:
        async with calling(server) as callouts:
            for number in range(5):
                body = b"%d" % number
                assert (await ask(callouts, call(body=body))).body == body

            assert server.connections == 1

        await closed(server)


async def test_a_connection_that_the_server_has_closed_is_not_used_again():
    with answering(b"HTTP/1.1 200 OK", b"content-length: 0", then="close") as server:
        async with calling(server) as callouts:
            for _ in range(3):
                assert (await ask(callouts, call())).failure == ""
                await closed(server)

    assert server.connections == 3


async def test_a_connection_that_was_idle_for_long_is_closed(monkeypatch):
    monkeypatch.setattr("wasm_middleware.services.callout._KEEP_ALIVE", 0.01)

    with Server() as server:
        async with calling(server) as callouts:
            await ask(callouts, call())

            await closed(server)
            assert (await ask(callouts, call(body=b"again"))).body == b"again"

    assert server.connections == 2


@pytest.mark.parametrize("lines", [[], [b"HTTP/1.1 200 OK", b"content-length: 5"]])
@pytest.mark.parametrize("own", [True, False])
async def test_a_call_that_takes_too_long_is_answered_504(lines, own):
    async def hang(connection):
        await server.read(connection)

        if lines:
            await connection.send(*lines, body=b"hel")

        await connection.wait_closed()

    with Server(hang) as server:
        async with calling(server, timeout="30s" if own else "50ms") as callouts:
            answer = await ask(callouts, call(timeout=0.05 if own else None))
            await closed(server)

    assert answer.headers == (
        (b":status", b"504"),
        (b"content-length", b"24"),
        (b"content-type", b"text/plain"),
    )
    assert answer.body == b"upstream request timeout"
    assert answer.failure == "no answer within 50ms"


async def test_a_refused_connection_is_answered_503():
    with refusing() as port:
        async with calling(port) as callouts:
            answer = await ask(callouts, call())

    assert answer.headers == (
        (b":status", b"503"),
        (b"content-length", b"98"),
        (b"content-type", b"text/plain"),
    )
    assert answer.body == RESET + b"remote connection failure"
    assert answer.failure == "no connection: connection refused"


async def test_a_host_that_is_not_known_is_answered_503():
    for host in ("no-such-host.invalid", f"{'a' * 70}.invalid"):
        callouts = HttpCallouts(settings(up=f"http://{host}:80"))
        answer = await ask(callouts, call())
        assert answer.body == RESET + b"remote connection failure"
        assert answer.failure.startswith("no connection: ")
        await callouts.aclose()


@pytest.mark.parametrize(
    ("sent", "then"),
    [
        (b"", "close"),
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\nconte", "close"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "close"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "reset"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "close"),
    ],
)
async def test_an_answer_that_breaks_off_is_answered_503(sent, then):
    async def handler(connection):
        await server.read(connection)
        connection.writer.write(sent)
        await connection.writer.drain()

        if then == "reset":
            connection.reset()

    with Server(handler) as server:
        async with calling(server) as callouts:
            answer = await ask(callouts, call())
            again = await ask(callouts, call())

    assert status(answer) == 503
    assert answer.body == RESET + b"connection termination"
    assert answer.failure == "the upstream closed the connection"
    assert again == answer
    assert server.connections == 2


@pytest.mark.parametrize(
    ("sent", "failure"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 secret\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nx secret: 1\r\n\r\n", "illegal header line"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: secret\r\n\r\n", "bad Content-Length"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: secret\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nx: " + b"secret" * 30_000, "Receive buffer too long"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nsecret\r\n",
            "illegal chunk header",
        ),
    ],
)
async def test_what_is_not_http_is_answered_502_and_not_quoted(sent, failure, caplog):
    caplog.set_level(logging.DEBUG)

    async def handler(connection):
        await server.read(connection)
        connection.writer.write(sent)
        await connection.wait_closed()

    with Server(handler) as server:
        async with calling(server) as callouts:
            answer = await ask(callouts, call())

    assert status(answer) == 502
    assert answer.body == RESET + b"protocol error"
    assert answer.failure.startswith("the answer is not valid HTTP: " + failure)
    assert "secret" not in answer.failure + caplog.text


@pytest.mark.parametrize(
    "request_",
    [call(method=b"CONNECT"), call(path=b"/a b secret"), call(method=b"G T")],
    ids=["connect", "path", "method"],
)
async def test_a_call_that_is_not_http_is_answered_502_and_not_sent(request_):
    with Server() as server:
        async with calling(server) as callouts:
            answer = await ask(callouts, request_)

    assert status(answer) == 502
    assert answer.failure.startswith("the call is not valid HTTP: ")
    assert "secret" not in answer.failure
    assert server.requests == []


@pytest.mark.parametrize(
    "lines", [[b"content-length: 1025"], [b"transfer-encoding: chunked"], [b"connection: close"]]
)
async def test_an_answer_that_is_too_long_is_answered_503(lines):
    body = b"401\r\n" + b"x" * 1025 if b"chunked" in lines[0] else b"x" * 1025

    with answering(b"HTTP/1.1 200 OK", *lines, body=body, then="hang") as server:
        async with calling(server, response_limit="1KB") as callouts:
            answer = await ask(callouts, call())
            await closed(server)

    assert status(answer) == 503
    assert answer.body == RESET + b"local reset"
    assert answer.failure == "the answer is longer than 1KB (response_limit)"


async def test_an_answer_may_be_as_long_as_the_limit():
    with answering(b"HTTP/1.1 200 OK", b"content-length: 1024", body=b"x" * 1024) as server:
        async with calling(server, response_limit="1KB") as callouts:
            assert (await ask(callouts, call())).body == b"x" * 1024


async def test_more_calls_than_max_in_flight_are_answered_503_at_once():
    with answering(then="hang") as server:
        async with calling(server, max_in_flight=2) as callouts:
            answers = []

            async def take(answer):
                answers.append(answer)

            cancels = [callouts.start(call(), take) for _ in range(2)]
            refused = await ask(callouts, call())
            assert status(refused) == 503
            assert refused.body == RESET + b"overflow"
            assert refused.failure == "2 calls are under way already (max_in_flight)"
            assert answers == []

            for cancel in cancels:
                cancel()

            await closed(server)

            # The server may see it before the tasks that ended the calls have ended themselves.
            with anyio.fail_after(5):
                while "max_in_flight" in (late := await ask(callouts, call(timeout=0.05))).failure:
                    await anyio.lowlevel.checkpoint()

            assert late.failure == "no answer within 50ms"


async def test_each_upstream_has_its_own_calls_in_flight():
    with answering(then="hang") as slow, Server() as quick:
        entry = {"url": f"http://127.0.0.1:{slow.port}", "max_in_flight": 1}
        callouts = HttpCallouts(settings(up=entry, quick=f"http://127.0.0.1:{quick.port}"))

        async def take(answer):
            raise AssertionError

        callouts.start(call(), take)
        answer = await ask(callouts, call(upstream="quick", body=b"x"))
        assert answer.body == b"x"
        await callouts.aclose()


async def test_a_call_from_within_an_answer_has_room():
    with Server() as server:
        async with calling(server, max_in_flight=1) as callouts:
            answers = []

            async def take(answer):
                answers.append(await ask(callouts, call(body=answer.body + b"!")))
                done.set()

            done = anyio.Event()
            callouts.start(call(body=b"x"), take)

            with anyio.fail_after(10):
                await done.wait()

    assert [answer.body for answer in answers] == [b"x!"]
    assert server.connections == 1


async def test_many_calls_at_once_are_all_answered():
    with Server() as server:
        async with calling(server, max_in_flight=200) as callouts:
            answers = []

            async def one(number):
                body = b"%d" % number
                answers.append((await ask(callouts, call(body=body))).body)

            for _ in range(2):
                async with anyio.create_task_group() as group:
                    for number in range(200):
                        group.start_soon(one, number)

    assert sorted(map(int, answers)) == sorted([*range(200)] * 2)
    assert server.connections <= 200


async def test_a_call_that_is_cancelled_is_never_answered(caplog):
    with answering(then="hang") as server:
        async with calling(server) as callouts:

            async def take(answer):
                raise AssertionError

            cancel = callouts.start(call(), take)
            cancel()  # before it has begun
            cancel = callouts.start(call(), take)

            with anyio.fail_after(10):
                while not server.requests:
                    await anyio.lowlevel.checkpoint()

            cancel()
            cancel()
            await closed(server)
            await anyio.wait_all_tasks_blocked()

    assert caplog.records == []


async def test_an_answer_that_is_being_delivered_is_not_cut():
    with Server() as server:
        async with calling(server) as callouts:
            done = anyio.Event()

            async def take(answer):
                cancel()
                await anyio.lowlevel.checkpoint()
                done.set()

            cancel = callouts.start(call(), take)

            with anyio.fail_after(10):
                await done.wait()


async def test_closing_gives_up_calls_and_closes_connections(caplog):
    with Server() as server, answering(then="hang") as slow:
        urls = {"up": server.port, "slow": slow.port}
        callouts = HttpCallouts(
            settings(**{name: f"http://127.0.0.1:{port}" for name, port in urls.items()})
        )

        async def take(answer):
            raise AssertionError

        await ask(callouts, call())
        callouts.start(call(upstream="slow"), take)
        await callouts.aclose()
        await closed(server)
        await closed(slow)
        callouts.start(call(), take)()
        await anyio.wait_all_tasks_blocked()

    assert caplog.records == []


def test_each_event_loop_has_connections_of_its_own(anyio_backend):
    with Server() as server:
        callouts = HttpCallouts(settings(up=f"http://127.0.0.1:{server.port}"))

        async def serve():
            for _ in range(2):
                assert (await ask(callouts, call(body=b"x"))).body == b"x"

        for number in range(1, 4):
            anyio.run(serve, backend=anyio_backend)
            server.wait_until_all_are_closed()
            assert server.connections == number

        anyio.run(callouts.aclose, backend=anyio_backend)


def test_a_call_whose_event_loop_ends_is_answered_before_that(anyio_backend, caplog):
    caplog.set_level(logging.INFO, "wasm_middleware")
    answers = []

    async def take(answer):
        await anyio.lowlevel.checkpoint()
        answers.append(answer)

    with answering(then="hang") as server:
        callouts = HttpCallouts(settings(up=f"http://127.0.0.1:{server.port}"))

        async def serve():
            callouts.start(call(), take)

            with anyio.fail_after(10):
                while len(server.requests) < number:
                    await anyio.sleep(0.001)

        for number in range(1, 4):
            anyio.run(serve, backend=anyio_backend)
            assert len(answers) == number
            server.wait_until_all_are_closed()

        anyio.run(callouts.aclose, backend=anyio_backend)

    assert [status(answer) for answer in answers] == [503] * 3
    assert {answer.body for answer in answers} == {RESET + b"local reset"}
    message = "plugin 'plugin': no answer from upstream 'up': the event loop has ended"
    assert caplog.messages == [message] * 3


def cancel_all_others():
    """As asyncio does at the end of a loop."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.parametrize("way", ["run", "close"])
def test_a_call_that_never_began_in_its_event_loop_is_answered_in_the_next(way):
    answers = []

    async def take(answer):
        answers.append(answer)

    with Server() as server:
        callouts = HttpCallouts(settings(up=f"http://127.0.0.1:{server.port}"))

        async def start():
            callouts.start(call(), take)

            if way == "run":
                cancel_all_others()
            else:
                asyncio.get_running_loop().stop()

        async def serve():
            assert (await ask(callouts, call(body=b"x"))).body == b"x"

            with anyio.fail_after(10):
                while not answers:
                    await anyio.lowlevel.checkpoint()

        if way == "run":
            asyncio.run(start())
        else:
            loop = asyncio.new_event_loop()
            starting = loop.create_task(start())
            loop.run_forever()
            assert starting.done()
            abandoned = asyncio.all_tasks(loop)
            loop.close()

        assert answers == []
        asyncio.run(serve())
        asyncio.run(serve())
        server.wait_until_all_are_closed()
        asyncio.run(callouts.aclose())

        if way == "close":
            # As the garbage collector would, which has a word to say.
            for task in abandoned:
                task._log_destroy_pending = False
                task.get_coro().close()

    [answer] = answers
    assert answer.body == RESET + b"local reset"
    assert answer.failure == "the event loop has ended"
    assert len(server.requests) == 2


def test_a_call_of_an_event_loop_that_lives_is_left_alone():
    """One runs while another waits for its next turn."""
    answers = []

    async def take(answer):
        answers.append(answer)

    with Server() as server:
        callouts = HttpCallouts(settings(up=f"http://127.0.0.1:{server.port}"))
        loop = asyncio.new_event_loop()

        async def start():
            callouts.start(call(body=b"first"), take)

        async def serve():
            assert (await ask(callouts, call(body=b"x"))).body == b"x"

        async def wait():
            with anyio.fail_after(10):
                while not answers:
                    await anyio.lowlevel.checkpoint()

            await callouts.aclose()

        loop.run_until_complete(start())
        asyncio.run(serve())
        assert answers == []
        loop.run_until_complete(wait())
        loop.run_until_complete(loop.shutdown_asyncgens())

        for task in asyncio.all_tasks(loop):
            task.cancel()

        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

    assert [answer.body for answer in answers] == [b"first"]


async def test_our_own_mistake_is_logged_and_answered(monkeypatch, caplog):
    def fail(call, method, authority):
        raise ZeroDivisionError

    monkeypatch.setattr("wasm_middleware.services.callout.request_headers", fail)

    with Server() as server:
        async with calling(server) as callouts:
            answer = await ask(callouts, call())

    assert status(answer) == 503
    assert "plugin 'plugin': a call to upstream 'up' failed; please report this" in caplog.messages
    assert "ZeroDivisionError" in caplog.text


async def test_no_secret_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    lines = (b"HTTP/1.1 200 OK", b"set-cookie: s=hidden-1", b"content-length: 8")

    with answering(*lines, body=b"hidden-2") as server:
        async with calling(server) as callouts:
            headers = [(b"authorization", b"Bearer hidden-3")]
            request = call(*headers, path=b"/?token=hidden-4", body=b"hidden-5")
            assert (await ask(callouts, request)).failure == ""

    assert "hidden" not in caplog.text


async def test_tls_with_a_ca_of_ones_own(authority, tmp_path):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    with Server(ssl=context) as server:
        trusting = {"url": f"https://localhost:{server.port}", "ca_file": str(tmp_path / "ca.pem")}
        callouts = HttpCallouts(
            settings(
                up=trusting,
                wary=f"https://localhost:{server.port}",
                other={**trusting, "url": f"https://127.0.0.1:{server.port}"},
                plain=f"http://localhost:{server.port}",
            )
        )

        for _ in range(2):
            assert (await ask(callouts, call(body=b"sealed"))).body == b"sealed"

        assert server.connections == 1
        wary = await ask(callouts, call(upstream="wary"))
        assert wary.body == RESET + b"remote connection failure"
        assert "certificate" in wary.failure
        other = await ask(callouts, call(upstream="other"))
        assert "IP address mismatch" in other.failure
        plain = await ask(callouts, call(upstream="plain"))
        assert status(plain) in (502, 503)
        await callouts.aclose()

    assert len(server.requests) == 2


async def test_tls_where_there_is_none():
    async def handler(connection):
        await connection.reader.read(1)
        connection.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await connection.wait_closed()

    with Server(handler) as server:
        callouts = HttpCallouts(settings(up=f"https://127.0.0.1:{server.port}"))
        answer = await ask(callouts, call())
        await callouts.aclose()

    assert answer.body == RESET + b"remote connection failure"
    assert answer.failure.startswith("no connection: TLS: ")


async def test_a_handshake_that_hangs_is_given_up():
    async def hang(connection):
        await connection.wait_closed()

    with Server(hang) as server:
        callouts = HttpCallouts(settings(up=f"https://127.0.0.1:{server.port}"))
        answer = await ask(callouts, call(timeout=0.05))
        assert status(answer) == 504
        await closed(server)
        await callouts.aclose()


async def test_a_unix_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with Server(path=str(tmp_path / "auth.sock")) as server:
        callouts = HttpCallouts(settings(up="unix:auth.sock", none="unix:/none.sock"))

        for _ in range(2):
            assert (await ask(callouts, call(body=b"near"))).body == b"near"

        assert server.requests[0].startswith(b"GET / HTTP/1.1\r\nhost: auth.example\r\n")
        assert server.connections == 1
        answer = await ask(callouts, call(upstream="none"))
        assert answer.failure == "no connection: no such file or directory"
        await callouts.aclose()


async def test_a_host_that_is_allowed_is_an_upstream():
    with Server() as server:
        name = f"LocalHost:{server.port}"
        callouts = HttpCallouts(load_settings({"plugins": [], "callouts": {"allow_hosts": [name]}}))
        assert callouts.refusal(name) == callouts.refusal(name.lower()) == ""
        assert (await ask(callouts, call(upstream=name, body=b"x"))).body == b"x"
        await callouts.aclose()

    assert callouts.refusal("localhost:1") != ""


def test_an_upstream_that_is_not_there_is_refused_with_a_hint():
    callouts = HttpCallouts(settings(**{"auth-service": "http://127.0.0.1:1"}))
    assert callouts.refusal("auth-service") == ""
    assert callouts.refusal("auth-servise") == (
        "there is no upstream 'auth-servise' (did you mean auth-service?)"
    )
    assert callouts.refusal("Auth-Service").startswith("there is no upstream 'Auth-Service'")
    assert callouts.refusal("127.0.0.1:1") == (
        "there is no upstream '127.0.0.1:1' (define it under upstreams)"
    )
    assert "there is no upstream ''" in callouts.refusal("")


def test_a_ca_file_that_has_gone_bad_fails_with_its_place(tmp_path):
    file = tmp_path / "ca.pem"
    entry = {"url": "https://localhost", "ca_file": str(file)}
    config = {"plugins": [], "upstreams": {"up": entry}}
    loaded = load_settings(config, check_files=False)

    for content in (None, b"nothing"):
        if content:
            file.write_bytes(content)

        with pytest.raises(ConfigError, match=r"upstreams\.up\.ca_file: can't be used: "):
            HttpCallouts(loaded)


def test_settings_made_by_hand_will_do():
    callouts = HttpCallouts(Settings.model_validate({"upstreams": {"a": "http://localhost"}}))
    assert callouts.refusal("a") == ""
