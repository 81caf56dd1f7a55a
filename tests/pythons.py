"""`make test-pythons`: what depends on the Python, on each that this package is for.

Guest calls that are left in their middle rest on how CPython uses the machine's stack, and on what
a thread's state keeps of it. Both differ from one minor version to the next. So the engines, the
modules that attack and requests that wait are tried on each; what decides by values alone is not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
PARTS = (
    ("tests/engines",),
    (
        "tests/hostile",
        "-k",
        "(allocator or spins or recurses or recursion or event_loops) and not inline-spins",
    ),
    (
        "tests/asgi/test_given_up.py",
        "tests/asgi/test_late_start.py",
        "tests/asgi/test_lifespan_ending.py",
        "tests/asgi/test_nothing_lost.py",
        "tests/asgi/test_pools.py",
        "tests/asgi/test_requests.py",
        "tests/asgi/test_waiting.py",
        "-k",
        "not very_many",
    ),
)
#: Fails on another version, and without the lock that guest calls in slices need.
_PROBE = """
import ensurepip, sys, sysconfig, venv
version = "%d.%d" % sys.version_info[:2]
sys.exit(version != sys.argv[1] or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
"""


def candidates(version: str) -> Iterator[str]:
    """Where an interpreter of a version may be. A name on the PATH may be a shim of pyenv's."""
    found = shutil.which(f"python{version}")

    if found is not None:
        yield found

    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")

    for folder in sorted((pyenv / "versions").glob(f"{version}.*"), reverse=True):
        yield str(folder / "bin" / "python3")


def find(version: str) -> str | None:
    """An interpreter of that version that really runs."""
    for path in candidates(version):
        try:
            probe = subprocess.run(
                [path, "-c", _PROBE, version], capture_output=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue

        if probe.returncode == 0:
            return path

    return None


def run(version: str, python: str, environment: str) -> str:
    """Make the environment and run every part in it; what came of it, in words."""
    target = f"{environment}/.installed"
    variables = f"VENV={environment}", f"PYTHON={python}"
    made = subprocess.run(["make", "--no-print-directory", target, *variables], check=False)

    if made.returncode:
        return "FAILED: its environment can't be made"

    failed, took = [], []

    for part in PARTS:
        started = time.monotonic()
        # Where the last failures are kept there is one place for all versions.
        command = [f"{environment}/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]

        if subprocess.run([*command, *part], check=False).returncode:
            failed.append(part[0])

        took.append(f"{time.monotonic() - started:.0f} s")

    said = f"{', '.join(took)} ({python})"
    return f"FAILED in {', '.join(failed)} after {said}" if failed else f"passed in {said}"


def main(environment: str, versions: list[str]) -> int:
    """`environment` is the folder's name without the version."""
    own = "{}.{}".format(*sys.version_info)
    report = {}

    for version in versions or [one for one in SUPPORTED if one != own]:
        python = find(version)

        if python is None:
            report[version] = (
                f"NOT TRIED: no python{version} with venv that runs, on PATH or of pyenv"
            )
            continue

        print(f"== Python {version}: {python}", flush=True)
        report[version] = run(version, python, f"{environment}-{version}")

    print("", *(f"Python {version}: {what}" for version, what in report.items()), sep="\n")
    return any(what.startswith("FAILED") for what in report.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
