"""The clock that ends guests which run too long.

wasmtime compares a counter, the engine's epoch, with each store's deadline at every loop and
function entry of the guest. Something must increment it. On Linux that is a POSIX timer whose
function is wasmtime's own `wasmtime_engine_increment_epoch`: it needs no interpreter lock, so it
ticks on time whatever Python's threads and host calls are doing. Elsewhere, and where the private
interface is not to be used, a Python thread does it, and is late by what it waits for the lock.

It ticks only while guests run: a thread that looks once a second stops it when no guest is running
and none has run since the last look; the next call starts it again.

Neither a timer nor a thread is there any more in a process that was forked. Each clock begins anew
there, also where a call goes on that the fork was made in.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from wasm_middleware.errors import HostBug

_LOG = logging.getLogger("wasm_middleware")

#: Seconds between two ticks.
TICK = 0.001

#: Seconds between two looks at whether the clock is needed.
_LOOK = 1.0
_CLOCK_MONOTONIC = 1
_SIGEV_THREAD = 2
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class NativeTick:
    """A C function of one pointer that ticks, by address, and its argument."""

    function: int
    argument: int


class Ticker(Protocol):
    """What ticks."""

    def start(self) -> None:
        """Raises OSError where it can't tick."""

    def stop(self) -> None:
        """A tick may still come that is on its way."""


class _SigEvent(ctypes.Structure):
    """`struct sigevent` of 64-bit Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("padding", ctypes.c_byte * 32),
    )


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class PosixTicker:
    """A POSIX timer. Raises OSError or AttributeError where there is none.

    There is none in a process forked by one that had some: at each tick glibc takes a lock, and
    whoever is forked meanwhile finds it taken for ever when it makes a timer.
    """

    #: The process that has made the first one.
    _process: ClassVar[int | None] = None

    def __init__(self, tick: NativeTick) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError("no POSIX timers that call a function")

        if PosixTicker._process not in (None, os.getpid()):
            raise OSError("the process that forked this one had timers")

        PosixTicker._process = os.getpid()
        self._library = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _SigEvent(value=tick.argument, notify=_SIGEV_THREAD, function=tick.function)
        created = self._library.timer_create(
            _CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)
        )

        if created:
            raise OSError(ctypes.get_errno(), "timer_create failed")

    def start(self) -> None:
        self._set(int(TICK * _NANOSECONDS))

    def stop(self) -> None:
        self._set(0)

    def _set(self, nanoseconds: int) -> None:
        spec = _TimerSpec(0, nanoseconds, 0, nanoseconds)

        if self._library.timer_settime(self._timer, 0, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timer_settime failed")


class ThreadTicker:
    """A Python thread."""

    def __init__(self, increment: Callable[[], None]) -> None:
        self._increment = increment
        self._stop: threading.Event | None = None

    def start(self) -> None:
        self._stop = stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                time.sleep(TICK)
                self._increment()

        threading.Thread(target=run, name="wasm-epoch", daemon=True).start()

    def stop(self) -> None:
        if self._stop is not None:
            self._stop.set()


class EpochClock:
    """Starts and stops the first of the tickers that can tick; they are made when it is woken.

    A call sets `used` and `running`, calls `wake` if the clock is `parked`, and resets `running`.
    """

    __slots__ = (
        "__weakref__",
        "_close",
        "_keeper",
        "_lock",
        "_makers",
        "_ticker",
        "parked",
        "running",
        "used",
    )

    def __init__(self, *makers: Callable[[], Ticker]) -> None:
        self._makers = makers
        #: Whether a guest is running, for however long: ticks may be late, so no time says it.
        self.running = False
        #: Set by every call, so that the clock sees that it is needed.
        self.used = False
        self._begin()
        _CLOCKS.add(self)

    def _begin(self) -> None:
        self._ticker: Ticker | None = None
        self._lock = threading.Lock()
        self._close = threading.Event()
        self._keeper: threading.Thread | None = None
        #: Whether it must be woken before a guest is entered.
        self.parked = True

    def begin_anew(self) -> None:
        """Called in a process that was forked. What ticked is gone; a lock may be held by nobody.

        A ticker and its threads are only made once they are needed: most such processes have other
        things to do.
        """
        was_closed = self._close.is_set()
        self._begin()

        if was_closed:
            self._close.set()
        elif self.running:
            self.wake()

    def wake(self) -> None:
        """Tick from now on; raises `HostBug` on a clock that is closed: nothing would tick."""
        with self._lock:
            if self._close.is_set():
                raise HostBug("a guest is called after its engine was closed")

            if self.parked:
                self._start()
                self.parked = False

            if self._keeper is None:
                self._keeper = threading.Thread(
                    target=self._keep, name="wasm-epoch-keeper", daemon=True
                )
                self._keeper.start()

    def _start(self) -> None:
        made = self._ticker
        makers = self._makers if made is None else (lambda: made, *self._makers)

        for make in makers:
            try:
                ticker = make()
                ticker.start()
            except (OSError, AttributeError) as error:
                _LOG.debug("what was to end guests in time does not tick: %s", error)
                continue

            self._ticker = ticker
            return

        raise HostBug("nothing ticks: a guest that does not end could not be ended")

    def close(self) -> None:
        """Stop for ever; idempotent."""
        self._close.set()

        if self._keeper is not None:
            self._keeper.join()

        with self._lock:
            self._stop()
            self.parked = True

    def _stop(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()

    def _keep(self) -> None:
        """Stop the ticker while it is not needed."""
        while not self._close.wait(_LOOK):
            if self.used or self.running:
                self.used = False
            elif not self.parked:
                self._park()

    def _park(self) -> None:
        with self._lock:
            self.parked = True

            # A call that came between the look and this line did not see that it is parked.
            if self.used or self.running:
                self.parked = False
            else:
                self._stop()


_CLOCKS: weakref.WeakSet[EpochClock] = weakref.WeakSet()


def _begin_anew() -> None:
    for clock in list(_CLOCKS):
        clock.begin_anew()


# There are systems that don't fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
