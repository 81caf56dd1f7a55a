"""When an instance may be started, after what has failed before: exponential back-off.

Theory of operation. Failures are counted as long as nothing good comes between them: a start that
fails, and an instance that fails before it has been of any use (`Vm.has_served`, or
`limits.SOUND_AFTER` seconds of life). The first loss of an instance is made good at once; from then
on the time until the next start doubles, up to a cap. Requests meanwhile get the failure policy. So
a plugin that always fails is left alone, and whoever sends now and then a request that makes it
fail does not stop it for the others.

What was begun before the last failure that counts tells nothing new: instances that fail together
count once. A plugin that would not start so many times in a row is disabled: it is not tried again.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from wasm_middleware import limits
from wasm_middleware.errors import PluginLoadError, PluginUnavailableError

#: By how much an interval may differ from what it should be: the workers of a service, which fail
#: together, are not to start again together.
_JITTER = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A start: when it was begun, by `time.monotonic`, and how many failures there were then."""

    begun_at: float
    failures: int


class Recovery:
    """What is known of one plugin's failures."""

    __slots__ = ("_crashes", "_hint", "_in_a_row", "_known", "_reason", "_retry_at", "plugin")

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        #: All failures that count, those since anything good has come, and the last starts'.
        self._known = self._in_a_row = self._crashes = 0
        self._retry_at = float("-inf")
        #: What is told to those who get no instance. Not the error itself: that holds on to the
        #: instance, by its traceback.
        self._reason, self._hint = "it has not been started", ""

    @property
    def disabled(self) -> bool:
        """It is not to be started again."""
        return self._crashes >= limits.MAX_FAILED_STARTS

    @property
    def troubled(self) -> bool:
        """It has failed again and again, and not long ago."""
        return self._in_a_row > 1 and -self.wait < limits.SOUND_AFTER

    @property
    def wait(self) -> float:
        """Seconds until an instance may be started; 0 or less is now."""
        return self._retry_at - time.monotonic()

    def begin(self) -> Attempt:
        """An instance is being started."""
        return Attempt(time.monotonic(), self._known)

    def started(self) -> None:
        """It was."""
        self._crashes = 0

    def start_failed(self, attempt: Attempt, error: PluginLoadError) -> bool:
        """It was not; whether that is news."""
        self._reason, self._hint = error.reason, error.hint

        if attempt.failures != self._known:
            return False

        self._crashes += 1
        # Only the loss of an instance is made good at once.
        self._in_a_row = max(self._in_a_row, 1)
        self._fail()
        return True

    def lost(self, attempt: Attempt, *, served: bool) -> None:
        """An instance has failed, after it was started."""
        if attempt.failures != self._known:
            return

        if served or time.monotonic() - attempt.begun_at >= limits.SOUND_AFTER:
            self._in_a_row = 0

        self._reason, self._hint = "its instance has failed", "the log says why"
        self._fail()

    def _fail(self) -> None:
        self._known += 1
        self._in_a_row += 1
        doublings = self._in_a_row - 2
        self._retry_at = time.monotonic()

        if doublings >= 0:
            # The number of doublings has no end.
            interval = limits.FIRST_RESTART * 2.0 ** min(doublings, 32)
            spread = random.uniform(1 - _JITTER, 1 + _JITTER)
            self._retry_at += min(interval * spread, limits.LAST_RESTART)

    def error(self) -> PluginUnavailableError:
        """Why there is no instance."""
        reason, kind = self._reason, "start"

        if self.disabled:
            kind = "disabled"
            reason = (
                f"it is disabled until the configuration is loaded anew, since "
                f"{limits.MAX_FAILED_STARTS} starts in a row have failed: {reason}"
            )

        return PluginUnavailableError(self.plugin, reason, self._hint, kind=kind)
