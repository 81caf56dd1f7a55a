"""Real servers in processes of their own, each on a free port of the loopback interface."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
HOST: Final = "127.0.0.1"
#: Seconds. Compiling the example's Go plugin takes one or two, on a busy machine several.
_START: Final = 40.0
_STOP: Final = 10.0
_ATTEMPTS: Final = 3

#: The command that serves an application on a port.
Command = Callable[[str, int], Sequence[str]]


def uvicorn(*options: str) -> Command:
    """The command of uvicorn, without the access log that would hide the plugin's."""

    def command(app: str, port: int) -> Sequence[str]:
        where = ("--host", HOST, "--port", str(port))
        return [sys.executable, "-m", "uvicorn", app, *where, "--no-access-log", *options]

    return command


def hypercorn(app: str, port: int) -> Sequence[str]:
    return [sys.executable, "-m", "hypercorn", app, "--bind", f"{HOST}:{port}"]


def granian(app: str, port: int) -> Sequence[str]:
    where = ("--host", HOST, "--port", str(port))
    return [sys.executable, "-m", "granian", "--interface", "asgi", *where, "--no-ws", app]


class DidNotStart(Exception):
    """The server ended before it listened; its text is the server's log."""


class Server:
    """A server that is running; `stop` ends it."""

    def __init__(
        self, command: Command, app: str, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}

        for attempt in range(_ATTEMPTS):
            self.port = _free_port()
            self._start(command(app, self.port))

            try:
                self._wait_until_it_listens()
            except DidNotStart as error:
                # Somebody else took the port since it was found free.
                if "address already in use" in str(error).lower() and attempt + 1 < _ATTEMPTS:
                    continue

                raise

            return

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def log(self) -> str:
        """All that it has written to its standard output and error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def logged(self, text: str, *, within: float = 10.0) -> int:
        """How many lines of its log hold a text, once there is one; 0 if none comes."""
        wait_until(lambda: text in self.log(), within=within)
        return sum(text in line for line in self.log().splitlines())

    def connect(self, timeout: float = 20.0) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout)

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """End it, by force if it does not end by itself; returns its exit code."""
        self.terminate()

        try:
            return self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _start(self, command: Sequence[str]) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_until_it_listens(self) -> None:
        def settled() -> bool:
            return self._process.poll() is not None or self._answers()

        if not wait_until(settled, within=_START):
            self.stop()
            raise DidNotStart(f"it did not listen within {_START:g} s\n{self.log()}")

        if self._process.poll() is not None:
            raise DidNotStart(self.log())

    def _answers(self) -> bool:
        try:
            self.connect(timeout=1.0).close()
        except OSError:
            return False

        return True


def wait_until(condition: Callable[[], bool], *, within: float) -> bool:
    """Poll until a condition holds; False if it does not in time."""
    deadline = time.monotonic() + within

    while not condition():
        if time.monotonic() > deadline:
            return False

        time.sleep(0.02)

    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
