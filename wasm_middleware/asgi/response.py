"""The application's response on its way through the chain, in reverse, to the server.

Theory of operation. The start is held back only where a plugin may change the body and a
content-length is declared, until the first data comes out: then the length is made true, or
removed. It is also held while a plugin holds the headers and waits for the body. Everything else
goes on at once, and what is not known goes on as it is.

Content-length is the host's affair: what a plugin makes of it does not count, except that it may
remove it. A plugin that changes the status to one without a body ends the body too.

Trailers, where the server can send them (the `http.response.trailers` extension), pass the plugins
behind the body. A plugin that holds the body back is watched over by a task beside the application,
which sends what it lets go of: the application may have nothing to send, or give up its wait.

What has been let go goes to the server; when the last message has, the stream is finished, in the
application's own task: the client has its answer, and background tasks run afterwards.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from wasm_middleware.abi.pairs import Pair
from wasm_middleware.asgi.scope import lowered
from wasm_middleware.asgi.turn import Turn
from wasm_middleware.asgi.types import Message
from wasm_middleware.proxy_wasm.flow import Flow
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.stream import Stream

if TYPE_CHECKING:
    from wasm_middleware.asgi.exchange import Exchange

_LOG = logging.getLogger("wasm_middleware")

_NO_BODY_STATUS = frozenset((204, 304))
#: How a message is framed is settled before its body (RFC 9110, 6.5.1).
_FRAMING = (b"content-length", b"transfer-encoding")


class Response:
    """The response side of one exchange; used once."""

    __slots__ = (
        "_bodiless",
        "_body_ended",
        "_body_sent",
        "_declared",
        "_emptied",
        "_exchange",
        "_given_trailers",
        "_held",
        "_later",
        "_sending",
        "_trailers",
        "_watched",
    )

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        #: The start, while it is held back, and what is to follow it.
        self._held: Message | None = None
        self._later: list[Message] = []
        #: The content-length that the application declared.
        self._declared: bytes | None = None
        #: It has no body, whatever is sent as one: so it was, or a plugin made it so.
        self._bodiless = False
        self._emptied = False
        #: Trailers are to come behind the body; what has come of them.
        self._trailers = False
        self._given_trailers: list[Pair] = []
        #: The last of the body has come from the application, and has gone to the server.
        self._body_ended = False
        self._body_sent = False
        #: Set when a pause that is watched over has ended.
        self._watched: anyio.Event | None = None
        #: Once one was, two may find what comes out: it is sent in order.
        self._sending: Turn | None = None

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        exchange = self._exchange

        if exchange.over or exchange.stream.interrupted:
            await exchange.reply()
            return

        match message["type"]:
            case "http.response.start":
                await self._start(message)
            case "http.response.body":
                await self._body(message)
            case "http.response.trailers":
                await self._end(message)
            case _:
                await self._other(message)

    async def _start(self, message: Message) -> None:
        exchange, stream = self._exchange, self._exchange.stream
        given = message.get("headers", ())

        if not isinstance(given, (list, tuple)):
            # Read once here, and once more by the server.
            given = list(given)
            message = {**message, "headers": given}

        status = message["status"]
        headers = HeaderMap([(b":status", b"%d" % status), *lowered(given)])
        self._declared = headers.get(b"content-length")
        self._trailers = message.get("trailers", False)
        self._bodiless = exchange.is_head or _has_no_body(status)
        ended = self._bodiless or (self._declared == b"0" and not self._trailers)

        if exchange.chain.wants_response_body:
            stream.may_add_trailers = exchange.can_send_trailers and not self._bodiless

        await exchange.turn.run(self._show_headers(headers, ended=ended))
        flow = stream.response

        if not flow.passed and (ended or not flow.takes_body):
            await exchange.settle(flow)

        if exchange.over or stream.interrupted:
            await exchange.reply()
            return

        self._held = message

        if flow.passed and (ended or not self._may_lie(headers)):
            await self._flush()

    async def _show_headers(self, headers: HeaderMap, *, ended: bool) -> None:
        exchange = self._exchange

        if not (exchange.stream.interrupted or exchange.over):
            await exchange.stream.start_response(headers, end_of_stream=ended)

    def _may_lie(self, headers: HeaderMap) -> bool:
        """Whether the length that is declared may not be the body's in the end."""
        changes = self._exchange.chain.may_change_response_body
        return changes and headers.get(b"content-length") is not None

    async def _body(self, message: Message) -> None:
        exchange, flow = self._exchange, self._exchange.stream.response
        body = message.get("body", b"")
        more = message.get("more_body", False)
        self._body_ended = not more

        if not self._is_read(body):
            flow.bytes_seen += len(body)

            await self._flush()

            if self._emptied and body:
                message = {**message, "body": b""}

            self._body_sent = not more
            await self._send(message, last=not more)
            return

        exchange.inbox.renew(flow)

        # A memoryview, in Starlette; a guest's buffer is bytes.
        body, ended = bytes(body), not (more or self._trailers)
        await exchange.turn.run(exchange.feed(flow, body, end_of_stream=ended))

        if flow.paused_by is not None:
            self._watch_over()

        if not (more or self._trailers):
            await self._let_go()

        await self._send_output(message)

    def _is_read(self, body: object) -> bool:
        """Whether plugins are to see it."""
        exchange = self._exchange

        if self._bodiless or not exchange.chain.wants_response_body:
            return False

        # Its headers said that there is no body. If there is one all the same, plugins see it.
        return bool(body) or not exchange.stream.response.end_of_stream

    async def _send_output(self, message: Message) -> None:
        """Send what plugins have let go of, like `message`, which may have brought it."""
        if self._sending is None:
            await self._take_and_send(message)
            return

        async with self._sending:
            await self._take_and_send(message)

    async def _take_and_send(self, message: Message) -> None:
        exchange, flow = self._exchange, self._exchange.stream.response

        if exchange.over or exchange.stream.interrupted:
            await exchange.reply()
            return

        body = flow.take_output()
        # Behind the last of it may come trailers: then the flow has not ended with it.
        last = flow.output_ended or (self._body_ended and flow.paused_by is None)
        last = last and not self._body_sent

        if body or last:
            self._body_sent = last
            await self._flush(body if last else None)
            body = b"" if self._emptied else body
            await self._send({**message, "body": body, "more_body": not last}, last=last)

        if self._body_sent and self._trailers and flow.trailers_passed:
            await self._send_trailers()

    def _watch_over(self) -> None:
        """See to it that what plugins hold is sent when they let go of it."""
        if self._watched is None or self._watched.is_set():
            self._watched = anyio.Event()
            self._sending = self._sending or Turn()
            self._exchange.run_beside(self._watch)

    async def _watch(self) -> None:
        exchange, flow = self._exchange, self._exchange.stream.response
        assert self._watched is not None

        try:
            while flow.paused_by is not None:
                await exchange.settle(flow)

                if exchange.over or exchange.stream.finished or exchange.stream.interrupted:
                    return

                await self._send_output({"type": "http.response.body"})
        finally:
            self._watched.set()

    async def _let_go(self) -> None:
        """Wait until nothing is held any more; the application may give up this wait."""
        if self._watched is not None:
            await self._watched.wait()

    async def _end(self, message: Message) -> None:
        """Trailers pass the plugins as headers do, when the last of them has come."""
        exchange, flow = self._exchange, self._exchange.stream.response
        self._given_trailers += lowered(message.get("headers", ()))

        if message.get("more_trailers", False) or not self._trailers:
            return

        await exchange.turn.run(self._show_trailers(flow))

        if flow.paused_by is not None:
            self._watch_over()

        await self._let_go()
        await self._send_output({"type": "http.response.body"})

    async def _show_trailers(self, flow: Flow) -> None:
        exchange = self._exchange

        if not (exchange.stream.interrupted or exchange.over):
            await flow.end(HeaderMap(self._given_trailers))

    async def _send_trailers(self) -> None:
        trailers = self._exchange.stream.response.trailers
        assert trailers is not None
        self._trailers = False

        if trailers.changed:
            _drop_framing(trailers)

        await self._send(
            {
                "type": "http.response.trailers",
                "headers": plain_pairs(trailers),
                "more_trailers": False,
            },
            last=True,
        )

    async def _other(self, message: Message) -> None:
        """A file, or what this package does not know: after all that came before it."""
        if not self._exchange.stream.response.passed:
            self._later.append(message)
            return

        match message["type"]:
            case "http.response.pathsend":
                last = True
            case "http.response.zerocopysend":
                last = not message.get("more_body", False)
            case _:
                last = False

        await self._flush()
        await self._send(message, last=last)

    async def _send(self, message: Message, *, last: bool) -> None:
        exchange = self._exchange

        if not last or self._trailers:
            await exchange.send(message)
            return

        exchange.stream.end()
        await exchange.send(message)
        await exchange.finish()

    async def _flush(self, whole_body: bytes | None = None) -> None:
        """Send the start that was held back, with a true content-length or none."""
        message, self._held = self._held, None

        if message is None:
            return

        exchange, stream = self._exchange, self._exchange.stream
        flow = stream.response
        headers = flow.headers
        assert headers is not None
        stream.may_add_trailers = False

        if self._may_lie(headers) and not flow.end_of_stream:
            self._declared = None if whole_body is None else b"%d" % len(whole_body)
            _set_length(headers, self._declared)

        if flow.trailers is not None:
            self._trailers = True

        if self._trailers is not message.get("trailers", False):
            message = {**message, "trailers": self._trailers}

        stream.committed = True

        if headers.changed:
            status = read_status(headers, message["status"])
            self._change_status(status, message["status"])

            if headers.get(b"content-length") is not None:
                _set_length(headers, self._declared)

            # How a body is framed is between server and client (RFC 9112, 6.1).
            headers.remove(b"transfer-encoding")
            message = {**message, "status": status, "headers": plain_pairs(headers)}

        await exchange.send(message)

        for later in self._later:
            await exchange.send(later)

        self._later.clear()

    def _change_status(self, status: int, old: int) -> None:
        """A plugin has changed the status: only some have a body."""
        if _has_no_body(status) != _has_no_body(old):
            self._declared = None

            if not self._exchange.is_head:
                self._emptied = self._bodiless = True


def plain_pairs(headers: HeaderMap) -> list[tuple[bytes, bytes]]:
    """The headers as ASGI has them: without pseudo-headers."""
    return [pair for pair in headers.pairs if pair[0][:1] != b":"]


def _drop_framing(trailers: HeaderMap) -> None:
    """Leave out what would tell a client, or a proxy before it, of another body than there was."""
    found = [name for name in _FRAMING if trailers.get(name) is not None]

    for name in found:
        trailers.remove(name)

    if found:
        names = b", ".join(found).decode()
        _LOG.warning("plugins made %s a trailer, which it can't be: it is left out", names)


def read_status(headers: HeaderMap, default: int) -> int:
    """The status that plugins left, if it is one that can be sent."""
    value = headers.get(b":status") or b""

    if len(value) == 3 and value.isdigit() and 200 <= int(value) <= 599:
        return int(value)

    if value == b"%d" % default:
        return default

    _LOG.warning("a plugin set :status to %r, which is none: 500 is sent", value[:20])
    return 500


def reply_messages(stream: Stream, body: bytes, *, head: bool) -> tuple[Message, Message]:
    """A local reply as the response phases left it."""
    headers = stream.response.headers
    assert headers is not None
    status = read_status(headers, 500)
    headers.remove(b"transfer-encoding")

    if _has_no_body(status):
        body = b""
        _set_length(headers, None)
    elif head:
        body = b""
    else:
        _set_length(headers, b"%d" % len(body))

    start = {"type": "http.response.start", "status": status, "headers": plain_pairs(headers)}
    return start, {"type": "http.response.body", "body": body, "more_body": False}


def _has_no_body(status: int) -> bool:
    return status < 200 or status in _NO_BODY_STATUS


def _set_length(headers: HeaderMap, length: bytes | None) -> None:
    """Make it the only content-length, or remove that."""
    if length is None:
        headers.remove(b"content-length")
    elif [value for name, value in headers.pairs if name == b"content-length"] != [length]:
        headers.replace(b"content-length", length)
