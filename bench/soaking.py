"""The requests of a soak: their kinds in turn, the application they meet, and how each has to end.

A kind depends on nothing but a request's number, so that what has to become of each is known. What
can't be known is who is beside a request that fails: those who share its instance fail with it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import Counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.inmemory import answer_lifespan, http_scope
from wasm_middleware.abi.pairs import Pair

#: The plugins that misbehave, and of how many requests one asks them to.
TRAPS, SPINS = "traps", "spins"
_TRAP_EVERY, _SPIN_EVERY = 1_000, 10_000
#: Where they are asked to, in turn; see misbehave.wat.
_PHASES: Final = (b"1", b"2", b"3")
_IN_THE_LOG: Final = b"3"
_ENOUGH: Final = 100
#: By what is left of a request's number in a hundred; the others are plain ones.
_PATHS: Final = {7: "/body", 19: "/body", 33: "/gone", 58: "/raise", 77: "/hang"}


class ApplicationError(Exception):
    """What the application raises where it is asked to."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, fails, hangs or finds its client gone, by its path."""
    if scope["type"] == "lifespan":
        await answer_lifespan(receive, send)
        return

    if (b"x-processed-by", b"wasm") not in scope["headers"]:
        raise RuntimeError("a plugin did not see the request")

    # Others come in between, as they would while an application waits for its database.
    await asyncio.sleep(0)
    bodies = [b"hello"]

    match scope["path"]:
        case "/raise":
            raise ApplicationError
        case "/hang":
            await asyncio.Event().wait()
        case "/gone":
            while (await receive())["type"] != "http.disconnect":
                pass

            return
        case "/body":
            bodies = await _read(receive)

    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})

    for body in bodies:
        await send({"type": "http.response.body", "body": body, "more_body": True})

    await send({"type": "http.response.body", "body": b""})


async def _read(receive: Receive) -> list[bytes]:
    bodies = []

    while True:
        message = await receive()
        bodies.append(message["body"])

        if not message["more_body"]:
            return bodies


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    path: str = "/"
    #: The plugin that is to fail in it, and its phase.
    plugin: str = ""
    phase: bytes = b""

    @property
    def headers(self) -> list[Pair]:
        headers = [(b"authorization", b"Bearer a.b.c")]

        if self.plugin:
            headers.append((b"x-trap" if self.plugin == TRAPS else b"x-spin", self.phase))

        return headers


def asked(number: int) -> Asked:
    """What the request of a number, counted from 0, asks for."""
    for plugin, every, which in ((TRAPS, _TRAP_EVERY, 999), (SPINS, _SPIN_EVERY, 9_499)):
        if number % every == which:
            return Asked(plugin=plugin, phase=_PHASES[number // every % len(_PHASES)])

    return Asked(_PATHS.get(number % _ENOUGH, "/"))


class Soak:
    """Requests that are made one by one, by several who take the next."""

    def __init__(self, app: ASGIApp, requests: int) -> None:
        self._app, self._requests = app, requests
        self._numbers = itertools.count()
        self.done = 0
        #: How requests ended: as they had to, and not.
        self.expected: Counter[str] = Counter()
        self.unexplained: Counter[str] = Counter()
        #: How often plugins were asked to fail, and have failed as far as the log says.
        self.asked: Counter[str] = Counter()
        self.failures = 0

    async def work(self) -> None:
        """Make requests, one after another, as long as there are any left."""
        while (number := next(self._numbers)) < self._requests:
            failures = self.failures
            ended = await self._request(asked(number))
            kind, as_it_must = ended.judge(others_failed=self.failures > failures)
            (self.expected if as_it_must else self.unexplained)[kind] += 1
            self.asked[ended.asked.plugin] += 1
            self.done += 1

    async def _request(self, asked: Asked) -> Ended:
        ended = Ended(asked)
        method = "POST" if asked.path == "/body" else "GET"
        scope = http_scope(asked.path, asked.headers, method)

        if method == "POST":
            scope["headers"].append((b"transfer-encoding", b"chunked"))

        script = iter(_SCRIPTS.get(asked.path, _EMPTY))

        async def receive() -> Message:
            return next(script, _DISCONNECT)

        async def send(message: Message) -> None:
            ended.sent.append(message)

        call = self._app(scope, receive, send)

        try:
            if asked.path == "/hang":
                task = asyncio.ensure_future(call)
                await asyncio.sleep(0)
                task.cancel()
                await task
            else:
                await call
        except (Exception, asyncio.CancelledError) as error:
            ended.raised = type(error).__name__

        return ended


_EMPTY: Final[tuple[Message, ...]] = ({"type": "http.request", "body": b"", "more_body": False},)
_SCRIPTS: Final[dict[str, tuple[Message, ...]]] = {
    "/body": (
        {"type": "http.request", "body": b"hel", "more_body": True},
        {"type": "http.request", "body": b"lo", "more_body": False},
    )
}
_DISCONNECT: Final[Message] = {"type": "http.disconnect"}
#: How those end that are not answered.
_RAISED: Final = {"/raise": ApplicationError.__name__, "/hang": "CancelledError", "/gone": ""}


@dataclasses.dataclass(slots=True)
class Ended:
    """What became of a request."""

    asked: Asked
    sent: list[Message] = dataclasses.field(default_factory=list)
    raised: str = ""

    def judge(self, *, others_failed: bool) -> tuple[str, bool]:
        """What it is called, and whether it had to be so."""
        asked = self.asked
        status = self._status()

        if status == 503 and not self.raised:
            return self._judge_refusal(others_failed=others_failed)

        fails = asked.plugin and asked.phase != _IN_THE_LOG

        if status is None and self.raised == _RAISED.get(asked.path):
            return f"{asked.path} ended without an answer, as it had to", True

        if status == 200 and not self.raised and not fails and asked.path not in _RAISED:
            return "answered", True

        return f"{asked}: status {status}, raised {self.raised or 'nothing'}", False

    def _judge_refusal(self, *, others_failed: bool) -> tuple[str, bool]:
        headers: list[Pair] = self.sent[0]["headers"]
        # A failure that comes of the response itself passes no plugin any more, so none says why.
        details = dict(headers).get(b"x-details", b"in the response").decode()

        if details == "start":
            return "503: a plugin was not up again (start)", True

        if self.asked.plugin:
            return f"503: it asked that one {self.asked.plugin} ({details})", True

        return f"503: its instance failed in another request ({details})", others_failed

    def _status(self) -> int | None:
        """The status of a response that is complete, and is what one of ours made."""
        if not self.sent:
            return None

        status: int = self.sent[0]["status"]
        body = b"".join(message["body"] for message in self.sent[1:])
        complete = not self.sent[-1].get("more_body", False)
        ours = (b"x-gateway", b"wasm") in self.sent[0]["headers"] and body == b"hello"
        return status if complete and (status != 200 or ours) else 0
