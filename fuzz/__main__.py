"""Run every target under atheris, and the machine of streams, for FUZZ_SECONDS each (`make fuzz`).

    python -m fuzz [TARGET ...]        all of them, and "stream", unless some are named

Each runs in a process of its own. What atheris finds new is kept in `.fuzz/`, and the next run
begins with it; so are the bytes that break a property. Where there is no atheris for this Python,
hypothesis makes the bytes, and says so.

The last line is PASSED or FAILED. Exits with 1 if a property was broken or a target did nothing,
and with 2 for what can't be run.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fuzz import CORPUS, TARGETS

_STREAM = "stream"
_WORK = Path(".fuzz")
_DEFAULT_SECONDS = "60"
#: Beyond its time: a target ends by itself, unless it hangs. libFuzzer says so after `-timeout`.
_GRACE = 120.0
_INPUT_TIMEOUT = 20
#: Seconds between two lines about a target that is running.
_PROGRESS = 10.0


@dataclass(frozen=True)
class Result:
    """What became of one target: executions, and the text of what it found."""

    name: str
    executions: int
    seconds: float
    finding: str = ""


def main() -> int:
    names = sys.argv[1:] or [*TARGETS, _STREAM]
    unknown = set(names) - {*TARGETS, _STREAM}

    if unknown:
        known = ", ".join([*TARGETS, _STREAM])
        print(f"no such target: {', '.join(sorted(unknown))}; there are {known}")
        return 2

    asked = os.environ.get("FUZZ_SECONDS", _DEFAULT_SECONDS)
    seconds = _seconds(asked)

    if seconds is None:
        print(f"FUZZ_SECONDS={asked}: write a number of seconds, 1 or more")
        return 2

    has_atheris = importlib.util.find_spec("atheris") is not None

    if not has_atheris:
        version = ".".join(map(str, sys.version_info[:2]))
        print(f"!!! NO ATHERIS for Python {version} here: hypothesis makes the bytes, blindly !!!")

    results = []

    for name in names:
        print(f"--- {name}: {seconds:g} s", flush=True)
        result = _run(name, seconds, has_atheris=has_atheris)
        results.append(result)

        if result.finding:
            print(result.finding)

    print(f"\n{'target':10}{'executions':>12}{'seconds':>9}  findings")

    for result in results:
        verdict = "see above" if result.finding else "none"
        print(f"{result.name:10}{result.executions:12,}{result.seconds:9.0f}  {verdict}")

    failed = any(result.finding for result in results)
    print("FAILED" if failed else "PASSED")
    return int(failed)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None

    return seconds if 1 <= seconds < math.inf else None


def _run(name: str, seconds: float, *, has_atheris: bool) -> Result:
    if name == _STREAM or not has_atheris:
        command = ["fuzz.blind", name, f"{seconds:g}"]
    else:
        command = ["fuzz.guided", name, *_libfuzzer(name, seconds)]

    begin = time.monotonic()
    output, failed = _watch(name, command, seconds)
    executions = _executions(output)

    if not (executions or failed):
        output, failed = f"{output}\nit has tried nothing", True

    return Result(name, executions, time.monotonic() - begin, _finding(output) if failed else "")


def _watch(name: str, command: list[str], seconds: float) -> tuple[str, bool]:
    """Run a target's process, and say now and then how far it is.

    Gives what it has written, and whether it failed.
    """
    begin = time.monotonic()

    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=file, stderr=subprocess.STDOUT
        )

        try:
            while time.monotonic() - begin < seconds + _GRACE:
                try:
                    code = process.wait(_PROGRESS)
                except subprocess.TimeoutExpired:
                    passed = time.monotonic() - begin
                    tried = _executions(_output(file))
                    print(f"    {name}: {passed:.0f} s, {tried:,} executions", flush=True)
                else:
                    return _output(file), code != 0

            return f"{_output(file)}\nit hangs", True
        finally:
            process.kill()
            process.wait()


def _output(file: IO[bytes]) -> str:
    """What a process has written to a file that it shares."""
    size = os.fstat(file.fileno()).st_size
    # Its place in the file is the process's as well.
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


def _libfuzzer(name: str, seconds: float) -> list[str]:
    found, broken = _WORK / "corpus" / name, _WORK / "findings"
    found.mkdir(parents=True, exist_ok=True)
    broken.mkdir(parents=True, exist_ok=True)
    return [
        f"-max_total_time={round(seconds)}",
        f"-timeout={_INPUT_TIMEOUT}",
        "-max_len=4096",
        "-print_final_stats=1",
        f"-artifact_prefix={broken}/{name}-",
        str(found),
        str(CORPUS / name),
    ]


def _finding(output: str) -> str:
    """The end of what was said, without libFuzzer's word on its progress."""
    lines = [line for line in output.splitlines() if not line.startswith(("#", "INFO: "))]
    return "\n".join(lines[-80:])


def _executions(output: str) -> int:
    numbers = re.findall(r"(?:number_of_executed_units|executions): *(\d+)|^#(\d+)\t", output, re.M)
    return max((int(final or running) for final, running in numbers), default=0)


if __name__ == "__main__":
    sys.exit(main())
