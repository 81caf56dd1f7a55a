"""The application behind the plugins, in a process: `python -m tests.e2e.envoy.origin FOLDER SIDE`.

Each case has a port of its own, so that nothing in a request tells which case it belongs to. The
very same application stands behind Envoy (`plain`), and behind our middleware (`plugins`). What it
sees, and with us what plugins log, is appended to `FOLDER/SIDE.events`, one JSON object a line.
The ports are in `FOLDER/SIDE.ports`. On the port `control`, a line with a case's id lets its answer
go on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Final

import uvicorn

from tests.e2e.envoy.callouts import answer_callout
from tests.e2e.envoy.cases import CASES
from tests.e2e.envoy.middlewares import first_of_each, wrapped
from tests.e2e.envoy.shapes import Answer, Case, as_bytes
from tests.e2e.serving import HOST

Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_PLUGIN_LOGGER: Final = "wasm_middleware.plugin"
_LEVELS: Final = {5: "trace", 10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}


#: What runs until the process ends.
_RUNNING: Final[set[asyncio.Future[None]]] = set()


class Events:
    """What has happened, for whoever follows the file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, case: str, kind: str, **what: object) -> None:
        self._file.write(json.dumps({"case": case, "kind": kind, **what}) + "\n")


class PluginLog(logging.Handler):
    """Plugins' lines as events; a plugin has the name of its case."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        # The host's own remarks are written to the same logger.
        if not getattr(record, "guest", True):
            return

        case = record.name.removeprefix(f"{_PLUGIN_LOGGER}.")
        self._events.write(case, "log", level=_LEVELS[record.levelno], text=record.getMessage())


class Failed(Exception):
    """The application fails, as its case wants."""


class Origin:
    """The application of one case."""

    def __init__(self, case: Case, events: Events) -> None:
        self._case = case
        self._events = events
        self._served = 0
        self.go_on = asyncio.Semaphore(0)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return

        answer = self._case.requests[self._served % len(self._case.requests)].answer
        self._served += 1
        self._write_request(scope)

        if answer.unasked:
            self._write("end", body="", complete=None)

        if answer.unasked or await self._read_body(receive):
            await self._answer(answer, receive, send)

    def _write_request(self, scope: Message) -> None:
        query = scope["query_string"]
        path = scope["raw_path"] + (b"?" + query if query else b"")
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        self._write("request", method=scope["method"], path=path.decode("latin-1"), headers=headers)

    async def _read_body(self, receive: Receive) -> bool:
        body = b""

        while True:
            message = await receive()

            if message["type"] == "http.disconnect":
                self._write("end", body=body.decode("latin-1"), complete=False)
                return False

            body += message.get("body", b"")

            if not message.get("more_body", False):
                self._write("end", body=body.decode("latin-1"), complete=True)
                return True

    async def _answer(self, answer: Answer, receive: Receive, send: Send) -> None:
        if not answer.status:
            raise Failed

        headers = [(name.encode(), as_bytes(value)) for name, value in answer.headers]
        streamed = len(answer.chunks) > 1

        if not streamed:
            body = b"".join(answer.chunks)
            headers.append((b"content-length", b"%d" % len(body)))
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return

        await send({"type": "http.response.start", "status": answer.status, "headers": headers})

        for chunk in answer.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

            if not await self._may_go_on(receive):
                self._write("gone")
                return

        if answer.cut:
            raise Failed

        await send({"type": "http.response.body", "body": b""})

    async def _may_go_on(self, receive: Receive) -> bool:
        """Wait for leave to go on, or for the client to go."""
        tasks = [asyncio.ensure_future(self.go_on.acquire()), asyncio.ensure_future(receive())]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

        for task in pending:
            task.cancel()

        return tasks[0] in done

    def _write(self, kind: str, **what: object) -> None:
        self._events.write(self._case.id, kind, **what)


async def serve(folder: Path, side: str) -> None:
    """Listen on all ports, say which, and serve."""
    events = Events(folder / f"{side}.events")
    logger = logging.getLogger(_PLUGIN_LOGGER)
    logger.addHandler(PluginLog(events))
    logger.propagate = False
    origins = {case.id: Origin(case, events) for case in CASES}
    apps = dict(origins) if side == "plain" else wrapped(folder, origins)

    if side != "plain":
        await asyncio.gather(*(_start(app) for app in first_of_each(apps)))

    by_port = {}
    sockets = {}

    for name in (*apps, "upstream"):
        sockets[name] = _listener()
        by_port[_port(sockets[name])] = apps.get(name, answer_callout)

    async def dispatch(scope: Message, receive: Receive, send: Send) -> None:
        await by_port[scope["server"][1]](scope, receive, send)

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            origins[line.decode().strip()].go_on.release()

        writer.close()

    controller = await asyncio.start_server(control, HOST, 0)
    ports = {name: _port(listener) for name, listener in sockets.items()}
    ports["control"] = _port(controller.sockets[0])
    # Bound, and not listening: nobody else gets it, and who connects is refused.
    refused = socket.socket()
    refused.bind((HOST, 0))
    ports["refused"] = _port(refused)
    options = {"lifespan": "off", "http": "httptools", "access_log": False}
    quiet = {"date_header": False, "server_header": False}
    server = uvicorn.Server(uvicorn.Config(dispatch, log_level="info", **options, **quiet))
    partial = folder / f"{side}.ports.part"
    partial.write_text(json.dumps(ports), encoding="utf-8")
    partial.rename(folder / f"{side}.ports")
    await server.serve(sockets=list(sockets.values()))


async def _start(app: App) -> None:
    """Let an application start; raises if it does not."""
    answers: asyncio.Queue[Message] = asyncio.Queue()
    asked = False

    async def receive() -> Message:
        nonlocal asked

        if asked:
            # The process ends without a word.
            await asyncio.Event().wait()

        asked = True
        return {"type": "lifespan.startup"}

    running = asyncio.ensure_future(app({"type": "lifespan", "asgi": {}}, receive, answers.put))
    _RUNNING.add(running)
    answered = asyncio.ensure_future(answers.get())
    await asyncio.wait((running, answered), return_when=asyncio.FIRST_COMPLETED)

    if not answered.done() or answered.result()["type"] != "lifespan.startup.complete":
        raise RuntimeError("the plugins did not start") from running.exception()


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind((HOST, 0))
    listener.listen()
    return listener


def _port(listener: socket.socket) -> int:
    return listener.getsockname()[1]


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
