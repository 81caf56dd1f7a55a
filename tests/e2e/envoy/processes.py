"""The processes of `origin`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.serving import ROOT, wait_until

_START = 40.0
_STOP = 10.0


class Origin:
    """The application of all cases; `side` is `plain` or `plugins`. `stop` ends it."""

    def __init__(self, folder: Path, side: str) -> None:
        self.events = folder / f"{side}.events"
        self._ports = folder / f"{side}.ports"
        self.log = folder / f"{side}.log"

        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.envoy.origin", str(folder), side],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> dict[str, int]:
        """The ports, once it listens."""

        def settled() -> bool:
            return self._ports.exists() or self._process.poll() is not None

        if not wait_until(settled, within=_START) or not self._ports.exists():
            raise RuntimeError(f"the application did not start:\n{self.log.read_text()[-4000:]}")

        ports: dict[str, int] = json.loads(self._ports.read_text(encoding="utf-8"))
        return ports

    def stop(self) -> int:
        """End it, by force if it does not end by itself; returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

        try:
            return self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
