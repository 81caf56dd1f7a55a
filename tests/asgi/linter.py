"""An ASGI application around another one that notes every breach of the protocol, by either side.

It raises nothing, since what it wraps might swallow that: `violations` is to be empty at the end.
With `trusts_app` only what the server's side says is looked at: for applications that misbehave on
purpose.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_TERMINAL_FILES = ("http.response.pathsend", "http.response.zerocopysend")


#: What a lifespan message answers.
_ANSWERS = {
    "lifespan.startup.complete": "lifespan.startup",
    "lifespan.startup.failed": "lifespan.startup",
    "lifespan.shutdown.complete": "lifespan.shutdown",
    "lifespan.shutdown.failed": "lifespan.shutdown",
}


class AsgiLinter:
    """Wraps `app`; `where` begins every violation."""

    def __init__(self, app, where="", *, trusts_app=False):
        self.app = app
        self.where = where
        self.trusts_app = trusts_app
        self.violations: list[str] = []

    async def __call__(self, scope, receive, send):
        kinds = {"http": _Http, "websocket": _WebSocket, "lifespan": _Lifespan}
        kind = kinds.get(scope["type"])

        if kind is None:
            await self.app(scope, receive, send)
            return

        call = kind(self, scope)

        async def linted_receive():
            message = await receive()
            call.check_received(message)
            return message

        async def linted_send(message):
            if not self.trusts_app:
                call.check_sent(message)

            await send(message)

        result = await self.app(scope, linted_receive, linted_send)

        if not self.trusts_app:
            call.expect(result is None, f"returned {result!r}")
            call.check_end()


class _Call:
    def __init__(self, linter, scope):
        self.linter, self.scope = linter, scope
        self.gone = False
        self.check_scope()

    def expect(self, fine, message):
        if not fine:
            self.linter.violations.append(f"{self.linter.where}: {message}")

    def check_scope(self):
        # Starlette's test client leaves it out of its lifespan.
        self.expect(isinstance(self.scope.get("asgi", {}), dict), "type of asgi")

    def check_headers(self, headers, what):
        for pair in headers:
            name, value = pair
            self.expect(type(name) is bytes and type(value) is bytes, f"{what}: types of {pair}")
            self.expect(_TOKEN.fullmatch(name), f"{what}: name of {pair}")
            self.expect(not re.search(rb"[\r\n\0]", value), f"{what}: value of {pair}")

        names = [name for name, _ in headers]
        self.expect(names.count(b"content-length") <= 1, f"{what}: two content-lengths")

    def check_request_scope(self):
        scope = self.scope
        path, raw_path = scope["path"], scope.get("raw_path")
        self.expect(type(path) is str and type(scope["query_string"]) is bytes, "types of the path")
        self.expect(path[:1] == "/" or path == "*", f"path {path!r}")

        if raw_path is not None:
            same = unquote(raw_path.decode("ascii")) == path
            self.expect(same, f"raw_path {raw_path!r} is not {path!r}")

        self.expect(type(scope["root_path"]) is str, "type of root_path")
        self.check_headers(scope["headers"], "request")

    def check_end(self):
        pass


class _Http(_Call):
    def check_scope(self):
        super().check_scope()
        self.check_request_scope()
        self.expect(re.fullmatch("[A-Z]+", self.scope["method"]), "method")
        self.started = self.complete = False
        self.length = None
        self.sent_bytes = self.received_bytes = 0
        self.trailers = False
        self.request_ended = False

    def check_received(self, message):
        kind = message["type"]

        if kind == "http.disconnect":
            self.gone = True
            return

        self.expect(kind == "http.request", f"received {kind}")
        self.expect(not self.gone, "a request message after the disconnect")
        self.expect(not self.request_ended, "a request message after the last one")
        self.expect(type(message.get("body", b"")) is bytes, "type of the request's body")
        self.received_bytes += len(message.get("body", b""))
        self.request_ended = not message.get("more_body", False)
        declared = dict(self.scope["headers"]).get(b"content-length")

        if self.request_ended and declared is not None:
            lies = self.received_bytes != int(declared)
            self.expect(not lies, f"request: {self.received_bytes} bytes, {declared!r} declared")

    def check_sent(self, message):
        kind = message["type"]
        self.expect(not self.complete, f"{kind} after the response was complete")

        if kind == "http.response.start":
            self._check_start(message)
        elif kind == "http.response.body":
            self._check_body(message)
        elif kind == "http.response.trailers":
            self.expect(self.trailers and self.started, "trailers that were not announced")
            self.check_headers(message["headers"], "trailers")
            self.complete = not message.get("more_trailers", False)
        elif kind in _TERMINAL_FILES:
            self.expect(self.started, f"{kind} before the start")
            self.complete = not message.get("more_body", False)

    def _check_start(self, message):
        self.expect(not self.started, "two starts")
        self.started = True
        status, headers = message["status"], list(message.get("headers", ()))
        self.expect(type(status) is int and 200 <= status <= 599, f"status {status!r}")
        self.check_headers(headers, "response")
        self.trailers = message.get("trailers", False)
        declared = dict(headers).get(b"content-length")
        self.expect(declared is None or declared.isdigit(), f"content-length {declared!r}")
        self.bodiless = self.scope["method"] == "HEAD" or status in (204, 304)
        self.expect(status != 204 or declared is None, "204 with a content-length")
        self.length = None if declared is None or self.bodiless else int(declared)
        self.no_bytes = status in (204, 304)

    def _check_body(self, message):
        self.expect(self.started, "a body before the start")
        body, more = message.get("body", b""), message.get("more_body", False)
        self.expect(type(body) is bytes and type(more) is bool, "types in the response's body")
        self.sent_bytes += len(body)

        if not self.started:
            return

        self.expect(not (self.no_bytes and body), "a body where there is none")

        if self.length is not None:
            self.expect(self.sent_bytes <= self.length, "more body than the content-length")
            enough = more or self.sent_bytes == self.length
            self.expect(enough, f"response: {self.sent_bytes} bytes, {self.length} declared")

        self.complete = not more and not self.trailers

    def check_end(self):
        self.expect(self.complete or self.gone, "returned without a complete response")


class _WebSocket(_Call):
    def check_scope(self):
        super().check_scope()
        self.check_request_scope()
        self.expect(self.scope["scheme"] in ("ws", "wss"), f"scheme {self.scope['scheme']}")
        self.connected = self.accepted = self.closed = self.denied = False

    def check_received(self, message):
        kind = message["type"]
        self.expect(not self.gone, f"{kind} after the disconnect")

        if kind == "websocket.connect":
            self.expect(not self.connected, "two connects")
            self.connected = True
        elif kind == "websocket.receive":
            self.expect(self.accepted, "a frame before the accept")
        elif kind == "websocket.disconnect":
            self.gone = True
        else:
            self.expect(False, f"received {kind}")

    def check_sent(self, message):
        kind = message["type"]
        self.expect(self.connected, f"{kind} before the connect was received")
        self.expect(not self.closed, f"{kind} after the close")

        if kind == "websocket.accept":
            self.expect(not self.accepted, "two accepts")
            self.accepted = True
        elif kind == "websocket.send":
            self.expect(self.accepted, "a frame before the accept")
        elif kind == "websocket.close":
            self.closed = True
        elif kind == "websocket.http.response.start":
            self.expect(not self.accepted and not self.denied, "a late denial")
            extension = "websocket.http.response" in self.scope.get("extensions", {})
            self.expect(extension, "a denial that the server can't send")
            self.denied = True
            self.check_headers(message["headers"], "denial")
        elif kind == "websocket.http.response.body":
            self.expect(self.denied, "a denial's body before its start")
            self.closed = not message.get("more_body", False)


class _Lifespan(_Call):
    def check_scope(self):
        super().check_scope()
        self.asked: list[str] = []

    def check_received(self, message):
        kind = message["type"]
        expected = ["lifespan.startup", "lifespan.shutdown"][len(self.asked)]
        self.expect(kind == expected, f"received {kind}")
        self.asked.append(kind)

    def check_sent(self, message):
        kind = message["type"]
        self.expect(_ANSWERS.get(kind) in self.asked[-1:], f"{kind} after {self.asked}")
