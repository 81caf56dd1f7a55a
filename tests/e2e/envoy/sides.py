"""A case through Envoy or through us, and what was observed."""

from __future__ import annotations

import json
import re
import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.envoy.client import Client, Received
from tests.e2e.envoy.normalise import application_headers, client_headers
from tests.e2e.envoy.shapes import OVER, Case, Request
from tests.e2e.serving import HOST, wait_until

#: How long to wait for what does come, and for what may not.
_PATIENCE = 5.0
_SETTLING = 3.0
#: After a trap, Envoy's plugin may say nothing more.
_SETTLING_AFTER_A_TRAP = 1.0

_LINE = re.compile(r"(\w+)\twasm log ([^\s:]+)(?: [^\s:]+)?: ?(.*)")

#: What the application says of a body's end.
_ENDS = {True: "complete", False: "its client left before it was complete", None: "not read"}

Line = tuple[str, str]
Event = dict[str, object]


class Follower:
    """A growing file, read line by line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open(encoding="utf-8", errors="replace")
        self._part = ""

    def close(self) -> None:
        self._file.close()

    def lines(self) -> Iterator[str]:
        """The lines that are new and complete."""
        *lines, self._part = (self._part + self._file.read()).split("\n")
        yield from lines


class Side:
    """One way through: the ports of the cases, the application behind, and the plugins' logs."""

    def __init__(
        self, ports: Mapping[str, int], events: Path, control: int, envoy_log: Path | None = None
    ) -> None:
        self._ports = ports
        self._follower = Follower(events)
        self._envoy = Follower(envoy_log) if envoy_log is not None else None
        self._control = socket.create_connection((HOST, control))
        self._logs: defaultdict[str, list[Line]] = defaultdict(list)
        self._events: defaultdict[str, list[Event]] = defaultdict(list)

    def close(self) -> None:
        self._control.close()
        self._follower.close()

        if self._envoy is not None:
            self._envoy.close()

    def log(self, case: Case) -> list[Line]:
        self._read()
        return self._logs[case.id]

    def events(self, case: Case, kind: str) -> list[Event]:
        self._read()
        return [event for event in self._events[case.id] if event["kind"] == kind]

    def port(self, case: Case) -> int:
        return self._ports[case.id]

    def go_on(self, case: Case) -> None:
        """Let the application's answer go on."""
        self._control.sendall(f"{case.id}\n".encode())

    def _read(self) -> None:
        for line in self._follower.lines():
            event = json.loads(line)

            if event["kind"] == "log":
                self._logs[event["case"]].append((event["level"], event["text"]))
            else:
                self._events[event["case"]].append(event)

        for line in self._envoy.lines() if self._envoy is not None else ():
            if match := _LINE.fullmatch(line):
                level, case, text = match.groups()
                self._logs[case].append((level, text.replace("\\n", "\n")))


@dataclass(slots=True)
class Passage:
    """One request of a case, on its way."""

    side: Side
    case: Case
    request: Request

    def run(self) -> Received:
        before = len(self.side.events(self.case, "request"))
        client = Client(self.side.port(self.case), self.request)

        try:
            if len(self.request.chunks) > 1:
                client.send_head()

                # What holds the head holds the body, which then comes all at once.
                if self._reaches_the_application():
                    self._wait(lambda: len(self.side.events(self.case, "request")) > before)

                if not self._stream(client):
                    return Received(end="left")
            else:
                client.send_head(b"".join(self.request.chunks))

            return self._answer(client)
        finally:
            client.close()

    def _reaches_the_application(self) -> bool:
        held = ("pause", "reply", "trap")
        return not any(self.case.says("request_headers", name) for name in held)

    def _stream(self, client: Client) -> bool:
        """Send the chunks one by one; False if the client leaves."""
        seen = self._seen("request_body")

        for number, chunk in enumerate(self.request.chunks, 1):
            client.send_chunk(chunk)

            if self._reaches_the_application():
                self._wait(lambda number=number: self._seen("request_body") >= seen + number)

            if self.request.leaves == "request":
                return False

        client.send_end()
        return True

    def _answer(self, client: Client) -> Received:
        chunks = self.request.answer.chunks

        if self.request.leaves == "response":
            return client.receive(only=len(chunks[0]))

        for number in range(1, len(chunks) + 1) if len(chunks) > 1 else ():
            self._wait(lambda number=number: self._seen("response_body") >= number)
            self.side.go_on(self.case)

        return client.receive()

    def _seen(self, phase: str) -> int:
        """How many parts of a body the plugin has been called with."""
        said = f"{phase} arguments -> "
        return sum(said in text for _, text in self.side.log(self.case))

    @staticmethod
    def _wait(condition) -> None:
        wait_until(condition, within=_PATIENCE)


def observe(side: Side, case: Case) -> dict[str, list[str]]:
    """Run a case; what was seen, by the names of what is compared."""
    seen: dict[str, list[str]] = {}

    for number, request in enumerate(case.requests, 1):
        received = Passage(side, case, request).run()
        _settle(side, case, number)
        seen[f"{number} client"] = [
            f"status {received.status}",
            *client_headers(received.headers),
            f"body: {printable(received.body.decode('latin-1'))}" if received.body else "no body",
            received.end,
        ]

    requests, ends = side.events(case, "request"), side.events(case, "end")

    for number, (request, end) in enumerate(zip(requests, ends, strict=True), 1):
        seen[f"{number} application"] = [
            f"{request['method']} {request['path']}",
            *application_headers(request["headers"]),
            f"body: {printable(end['body'])}" if end["body"] else "no body",
            _ENDS[end["complete"]],
        ]

    if any(request.leaves == "response" for request in case.requests):
        # The application may learn of it later than the plugin does.
        wait_until(lambda: bool(side.events(case, "gone")), within=_SETTLING)

    gone = len(side.events(case, "gone"))
    seen["application"] = [f"told {gone} times that its client left while it answered"]
    seen["log"] = [f"{level}: {printable(text)}" for level, text in side.log(case)]
    return seen


def printable(text: str) -> str:
    """The text on one line, with a blank at its end to be seen; what is long by its length."""
    if len(text) > 1000:
        return f"({len(text)} bytes)"

    line = repr(text)[1:-1]
    return f"{line[:-1]}\\x20" if line.endswith(" ") else line


def _settle(side: Side, case: Case, number: int) -> None:
    """Wait until all is there that comes after the answer."""

    def settled() -> bool:
        requests, ends = side.events(case, "request"), side.events(case, "end")
        return len(requests) == len(ends) and _ended(side, case) >= number

    traps = "trap" in case.config
    wait_until(settled, within=_SETTLING_AFTER_A_TRAP if traps else _SETTLING)


def _ended(side: Side, case: Case) -> int:
    """How many streams are over, by what the plugin has said; Rust says that it panics."""
    return sum(OVER in text or text.startswith("panicked") for _, text in side.log(case))
