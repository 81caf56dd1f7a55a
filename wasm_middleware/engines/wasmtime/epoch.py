"""The clock that ends guests which run too long.

wasmtime compares a counter, the engine's epoch, with each store's deadline at every loop and
function entry of the guest. A thread increments the epoch every few milliseconds: each tick takes
the interpreter lock from whoever runs, so there are no more of them than the promise of a timeout
needs (never early, late by less than 20 ms). It ticks only while guests run: after the longest
deadline there is, and a second more, in which no call began it parks, and the next call wakes it.

The thread never catches up for ticks that came late. A deadline is therefore never early by more
than a tick, and late by what the thread was late: on a busy interpreter that is a few ms.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from wasm_middleware.errors import HostBug

#: Seconds between two ticks.
TICK = 0.004

_IDLE_TICKS = 250


class EpochClock:
    """Ticks on a daemon thread of its own, once a call has set `used` and woken it."""

    __slots__ = ("_closed", "_increment", "_thread", "_wake", "epoch", "longest", "parked", "used")

    def __init__(self, increment: Callable[[], None]) -> None:
        self._increment = increment
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        #: Whether a call must `wake` the clock before it enters a guest.
        self.parked = True
        #: Ticks so far. Within one tick a deadline that was set holds for the next call too.
        self.epoch = 0
        #: The longest deadline of all instances, in ticks: a guest may run for as long.
        self.longest = 0
        #: Set by every call, so that the clock sees that it is needed.
        self.used = False

    def wake(self) -> None:
        """Tick from now on; raise `HostBug` after `close`: nothing would end the call."""
        if self._closed:
            raise HostBug("a guest is called after its engine was closed")

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="wasm-epoch", daemon=True)
            self._thread.start()

        self.parked = False
        self._wake.set()

    def close(self) -> None:
        """Stop the thread and wait for it; idempotent."""
        self._closed = True
        self._wake.set()

        if self._thread is not None:
            self._thread.join()
            self._thread = None

        self.parked = True

    def _run(self) -> None:
        idle = 0

        while not self._closed:
            time.sleep(TICK)
            self.epoch += 1
            self._increment()

            if self.used:
                self.used = False
                idle = 0
                continue

            idle += 1

            if idle > _IDLE_TICKS + self.longest:
                idle = 0
                self._wake.clear()
                self.parked = True

                # A call, or `close`, that came between the lines above did not see the flag.
                if not (self._closed or self.used):  # type: ignore[redundant-expr]  # set by others
                    self._wake.wait()

                self.parked = False
