"""The machine's clock and entropy."""

from __future__ import annotations

import os
import time


class SystemClock:
    """Fulfils `ports.Clock`."""

    now = staticmethod(time.time_ns)
    monotonic = staticmethod(time.perf_counter_ns)


class SystemEntropy:
    """Fulfils `ports.Entropy`."""

    bytes = staticmethod(os.urandom)
