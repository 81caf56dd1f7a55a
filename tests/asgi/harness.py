"""A workshop for plugins in Python (`guests`), and a server that is a script.

A plugin is a `Guest` class: `workshop.add(Auth, priority=10)` writes a file that stands for it and
an entry of the configuration. `workshop.wrap(app)` puts the middleware around an application, and a
linter outside and inside of it. `Server` holds what a server would say for one scope, and what it
was told.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import anyio

from wasm_middleware import WasmPluginMiddleware
from wasm_middleware.engines.null import NullEngine, NullGuest

from .linter import AsgiLinter


class Workshop:
    """Plugins in a folder, and the configuration that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plugins: list[dict[str, object]] = []
        self.modules: dict[bytes, type[NullGuest]] = {}
        self.events: list[str] = []
        self.linters: list[AsgiLinter] = []
        self.engine = lambda: NullEngine(self.modules)
        #: The test is about plugins that can't be loaded.
        self.may_refuse = False

    def add(self, guest: type[NullGuest], name: str = "", **settings: object) -> type[NullGuest]:
        """Write a file that stands for `guest`, and its entry; the class as it will run."""
        name = name or guest.__name__.lower()
        guest = type(guest.__name__, (guest,), {"events": self.events, "name": name})
        file = self.folder / f"{name}.wasm"
        # A header, and a custom section that holds the name: a module, if an odd one.
        section = bytes([len(name)]) + name.encode()
        code = b"\0asm\1\0\0\0" + bytes([0, len(section)]) + section
        file.write_bytes(code)
        self.modules[code] = guest
        self.plugins.append({"name": name, "path": str(file), **settings})
        return guest

    def config(self, **settings: object) -> dict[str, object]:
        return {"plugins": self.plugins, **settings}

    def wrap(self, app, *, trusts_app=False, config=None, **options) -> AsgiLinter:
        """The middleware around an application, linted on both sides."""

        async def without_lifespan(scope, receive, send):
            if scope["type"] == "lifespan":
                raise NotImplementedError

            await app(scope, receive, send)

        inner = AsgiLinter(without_lifespan, "inside", trusts_app=trusts_app)
        config = self.config() if config is None else config
        options.setdefault("engine", self.engine)
        outer = AsgiLinter(WasmPluginMiddleware(inner, config=config, **options), "outside")
        self.linters += [inner, outer]
        return outer

    async def load(self, app: AsgiLinter) -> AsgiLinter:
        """Load the plugins of what `wrap` made: a request then waits for nothing but them."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

        async def receive():
            return {"type": "lifespan.startup"}

        async def send(message):
            raise AssertionError(message)

        with contextlib.suppress(NotImplementedError):
            await app(scope, receive, send)

        return app

    def around(self, app, **options) -> AsgiLinter:
        """A linter outside alone, for an application that holds its middlewares itself."""
        linter = AsgiLinter(app, "outside", **options)
        self.linters.append(linter)
        return linter

    @property
    def violations(self) -> list[str]:
        return [violation for linter in self.linters for violation in linter.violations]

    def phases(self, plugin: str) -> list[str]:
        """What was noted of one plugin."""
        return [event.partition(" ")[2] for event in self.events if event.startswith(plugin + " ")]


def http_scope(
    path: str = "/",
    *,
    method: str = "GET",
    headers: Iterable[tuple[bytes, bytes]] = (),
    raw_path: bytes | None = None,
    **more: object,
) -> dict[str, object]:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode() if raw_path is None else raw_path,
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"test"), *headers],
        "client": ("127.0.0.1", 4242),
        "server": ("127.0.0.1", 80),
        "state": {},
        **more,
    }


def post_scope(path: str = "/", *, length: int | None = None, **more) -> dict[str, object]:
    """A request with a body: of a declared length, or chunked."""
    header = (b"transfer-encoding", b"chunked")

    if length is not None:
        header = (b"content-length", b"%d" % length)

    headers = [header, *more.pop("headers", ())]
    return http_scope(path, method="POST", headers=headers, **more)


def chunks(*bodies: bytes) -> list[dict[str, object]]:
    """Request messages, the last of which ends the body."""
    last = len(bodies) - 1
    return [
        {"type": "http.request", "body": body, "more_body": index < last}
        for index, body in enumerate(bodies)
    ]


DISCONNECT = {"type": "http.disconnect"}


class Server:
    """A server for one scope. In its script an event is waited for, and the rest is received.

    After the script it waits until the response is complete, and says that the client is gone, as
    servers do.
    """

    def __init__(self, scope, script=None) -> None:
        self.scope = scope
        default = chunks(b"") if scope["type"] == "http" else []
        self.script = deque(default if script is None else script)
        #: How often it was asked.
        self.received = 0
        self.sent: list[dict[str, object]] = []
        self.complete = anyio.Event()
        #: Called with each message before it counts as sent.
        self.on_send = None

    async def run(self, app) -> Server:
        await app(self.scope, self.receive, self.send)
        return self

    async def receive(self):
        self.received += 1

        while self.script:
            item = self.script[0]

            if isinstance(item, anyio.Event):
                await item.wait()

                if self.script and self.script[0] is item:
                    self.script.popleft()
            else:
                return self.script.popleft()

        await self.complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if self.on_send is not None:
            await self.on_send(message)

        self.sent.append(message)

        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete.set()

    @property
    def start(self):
        (start,) = [one for one in self.sent if one["type"].endswith("http.response.start")]
        return start

    @property
    def status(self) -> int:
        return self.start["status"]

    @property
    def body(self) -> bytes:
        return b"".join(self.bodies)

    @property
    def bodies(self) -> list[bytes]:
        kinds = ("http.response.body", "websocket.http.response.body")
        return [one.get("body", b"") for one in self.sent if one["type"] in kinds]

    def headers(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.start["headers"] if found == name]

    @property
    def types(self) -> list[str]:
        return [one["type"] for one in self.sent]


def respond(*bodies: bytes, status=200, headers=(), length=False, **start):
    """An application that reads nothing and answers with these messages."""
    pairs = list(headers)

    if length:
        pairs.append((b"content-length", b"%d" % sum(map(len, bodies))))

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": pairs, **start})

        for index, body in enumerate(bodies or (b"",)):
            more = index < len(bodies) - 1
            await send({"type": "http.response.body", "body": body, "more_body": more})

    return app


async def read_body(receive) -> bytes:
    body = b""

    while True:
        message = await receive()

        if message["type"] != "http.request":
            raise ConnectionError("the client is gone")

        body += message["body"]

        if not message["more_body"]:
            return body


async def echo(scope, receive, send):
    """An application that answers with the body it was sent."""
    body = await read_body(receive)
    await respond(body, length=True)(scope, receive, send)


class Spy:
    """An application that keeps the scopes it was called with."""

    def __init__(self, app=None):
        self.app = app or respond(b"hello", length=True)
        self.scopes: list[dict[str, object]] = []

    @property
    def scope(self):
        (scope,) = self.scopes
        return scope

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        self.seen = dict(scope)
        await self.app(scope, receive, send)

    def header(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.seen["headers"] if found == name]
