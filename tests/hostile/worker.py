"""The process that cases are played in: one line of JSON asks for a case, one answers.

It dies alone: whoever asks sees that, and starts another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import functools
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from queue import Empty, Queue

import anyio

from .case import Answer, Error, Observation

#: The most that a case may take; none takes a tenth.
MOST_SECONDS = 90.0


class Died(AssertionError):
    """The process has ended, or does not answer: what a hostile module must not bring about."""


class Worker:
    """The asking side. `loop` is the kind of the event loop: asyncio, uvloop or trio."""

    def __init__(self, loop: str = "asyncio") -> None:
        self.loop = loop
        self._process: subprocess.Popen[str] | None = None
        self._lines: Queue[str] = Queue()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in `close`

    def play(self, name: str, policy: str) -> Observation:
        """Raises `Died` if the process did not live through it."""
        process = self._process

        if process is None:
            process = self._start()

        assert process.stdin is not None
        process.stdin.write(json.dumps([name, policy]) + "\n")
        process.stdin.flush()

        try:
            line = self._lines.get(timeout=MOST_SECONDS)
        except Empty:
            self._end()
            raise Died(f"no answer within {MOST_SECONDS:g} s: {self._said()}") from None

        if not line:
            code = process.wait()
            self._end()
            raise Died(f"the process ended with {code}: {self._said()}")

        return _observation(json.loads(line))

    def _start(self) -> subprocess.Popen[str]:
        self._process = process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.hostile.worker", self.loop],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        lines = self._lines = Queue()
        stdout = process.stdout
        assert stdout is not None

        def read() -> None:
            for line in stdout:
                lines.put(line)

            lines.put("")

        threading.Thread(target=read, daemon=True).start()
        return process

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-3000:]

    def close(self) -> None:
        self._end()
        self._errors.close()

    def _end(self) -> None:
        process, self._process = self._process, None
        self._errors.seek(0, os.SEEK_END)

        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.kill()
            process.wait()

            for stream in (process.stdin, process.stdout):
                # What was to be written to it is lost with it.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _observation(data: dict[str, object]) -> Observation:
    seen = Observation(**data)
    seen.errors = [Error(**error) for error in data["errors"]]
    seen.attack = None if data["attack"] is None else Answer(**data["attack"])
    seen.held = None if data["held"] is None else Answer(**data["held"])
    seen.after = None if data["after"] is None else Answer(**data["after"])
    return seen


def main() -> None:
    """The answering side."""
    loop = sys.argv[1]
    from .stage import play
    from .table import CASES

    faulthandler.enable()
    # What a library prints is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    for line in sys.stdin:
        name, policy = json.loads(line)

        with tempfile.TemporaryDirectory() as folder:
            seen = _play(loop, functools.partial(play, CASES[name], policy, Path(folder), loop))

        answers.write(json.dumps(dataclasses.asdict(seen)) + "\n")
        answers.flush()


def _play(loop: str, play: Callable[[], Coroutine[object, object, Observation]]) -> Observation:
    complaints: list[str] = []
    sys.unraisablehook = lambda told: complaints.append(f"{told.err_msg}: {told.exc_value!r}")

    try:
        seen = anyio.run(
            play,
            backend="trio" if loop == "trio" else "asyncio",
            backend_options={"use_uvloop": True} if loop == "uvloop" else {},
        )
    except Exception as error:
        import traceback

        seen = Observation(complaints=["".join(traceback.format_exception(error))])

    gc.collect()
    seen.complaints += complaints
    return seen


if __name__ == "__main__":
    main()
