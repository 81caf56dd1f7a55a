"""What a row of the table is made of: a request, what the application answers, and the row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.e2e.serving import ROOT

Header = tuple[str, str | bytes]
Plugin = Literal["differ-rust", "go-every", "differ-as", "differ-c"]

#: The last line of every stream's log: all is there that comes.
OVER: Final = "(over)"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application behind the plugin answers.

    One chunk is sent as one message with its content-length, several as a stream: each but the
    first waits until the plugin has seen the one before. `cut`: it fails after the chunks.
    `unasked`: it answers without having read the request's body.
    """

    status: int = 200
    headers: tuple[Header, ...] = (("content-type", "text/plain"),)
    chunks: tuple[bytes, ...] = (b"hello",)
    cut: bool = False
    unasked: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What the client sends.

    One chunk is sent with its content-length, several as a stream, like an answer's. `leaves`: the
    client closes its connection in the middle of its body, or of the answer's.
    """

    method: str = "GET"
    path: str = "/"
    headers: tuple[Header, ...] = ()
    chunks: tuple[bytes, ...] = ()
    leaves: Literal["", "request", "response"] = ""
    answer: Answer = Answer()


@dataclass(frozen=True, slots=True)
class Case:
    """One plugin with one script, and the requests that go through it, one after the other."""

    id: str
    topic: str
    plugin: Plugin
    config: str
    requests: tuple[Request, ...]

    @property
    def script(self) -> str:
        """What the plugin is given: the case's lines, and one that marks the end of a log."""
        return f"{self.config}\nlog: log info {OVER}"

    def says(self, phase: str, operation: str) -> bool:
        """Whether the script has that operation in that phase."""
        lines = (line.split(": ", 1) for line in self.config.split("\n"))
        said = {name for at, names in lines if at == phase for name in names.split("; ")}
        return any(name.split(" ")[0] == operation for name in said)


def module(plugin: Plugin) -> Path:
    """The built file of a plugin."""
    return ROOT / "tests" / "plugins" / f"{plugin}.wasm"


def as_bytes(value: str | bytes) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else value
