"""Run every target under atheris, and the machine of streams, for FUZZ_SECONDS each (`make fuzz`).

    python -m fuzz [TARGET ...]        all of them, and "stream", unless some are named

Each runs in a process of its own. What atheris finds new is kept in `.fuzz/`, and the next run
begins with it; so are the bytes that break a property. Where there is no atheris for this Python,
hypothesis makes the bytes, and says so.

Exits with 1 if a property was broken.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz import CORPUS, TARGETS

_STREAM = "stream"
_WORK = Path(".fuzz")
_SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
#: Beyond its time: a target ends by itself, unless it hangs. libFuzzer says so after `-timeout`.
_GRACE = 120.0
_INPUT_TIMEOUT = 20


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
        print(f"no such target: {', '.join(sorted(unknown))}; there are {[*TARGETS, _STREAM]}")
        return 2

    has_atheris = importlib.util.find_spec("atheris") is not None

    if not has_atheris:
        version = ".".join(map(str, sys.version_info[:2]))
        print(f"!!! NO ATHERIS for Python {version} here: hypothesis makes the bytes, blindly !!!")

    results = []

    for name in names:
        print(f"--- {name}: {_SECONDS:g} s", flush=True)
        result = _run(name, has_atheris=has_atheris)
        results.append(result)

        if result.finding:
            print(result.finding)

    print(f"\n{'target':10}{'executions':>12}{'seconds':>9}  findings")

    for result in results:
        verdict = "see above" if result.finding else "none"
        print(f"{result.name:10}{result.executions:12,}{result.seconds:9.0f}  {verdict}")

    return int(any(result.finding for result in results))


def _run(name: str, *, has_atheris: bool) -> Result:
    if name == _STREAM or not has_atheris:
        command = ["fuzz.blind", name, f"{_SECONDS:g}"]
    else:
        command = ["fuzz.guided", name, *_libfuzzer(name)]

    begin = time.monotonic()

    try:
        process = subprocess.run(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS + _GRACE,
            check=False,
        )
        output, failed = process.stdout.decode(errors="replace"), process.returncode != 0
    except subprocess.TimeoutExpired as error:
        output, failed = (error.stdout or b"").decode(errors="replace") + "it hangs", True

    return Result(
        name,
        _executions(output),
        time.monotonic() - begin,
        _finding(output) if failed else "",
    )


def _libfuzzer(name: str) -> list[str]:
    found, broken = _WORK / "corpus" / name, _WORK / "findings"
    found.mkdir(parents=True, exist_ok=True)
    broken.mkdir(parents=True, exist_ok=True)
    return [
        f"-max_total_time={max(1, round(_SECONDS))}",
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
