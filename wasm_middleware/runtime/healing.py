"""When an instance may be started, after what has failed before: at once, or with a back-off.

Theory of operation. A request that makes an instance fail costs itself and those beside it on that
instance. It must not cost those that come after it, however many such requests there are. So as
long as the plugin is of use to anybody, what fails is replaced at once: a stream came to its end
without a failure (on whatever instance: `served`) within the last `limits.USEFUL_FOR` seconds, or
the instance has lived for `limits.SOUND_AFTER` seconds.

Where nothing of that holds, `limits.SPARE_RESTARTS` losses in a row are made good at once, since
nobody knows yet what the next request will be. Beyond them the plugin is left alone: for a second,
and each time for twice as long, up to a cap. Requests meanwhile get the failure policy. One that is
served after all, by an instance that is left, ends that.

A start that fails is never repeated at once; its intervals grow likewise, whatever other instances
do meanwhile. A plugin that would not start so many times in a row is disabled: it is not tried
again.

What was begun before the last failure that counts tells nothing new: instances that fail together
count once.
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
    """What is known of one plugin's failures, and of its successes."""

    __slots__ = (
        "_crashes",
        "_hint",
        "_known",
        "_left_alone",
        "_reason",
        "_retry_at",
        "_served_at",
        "plugin",
        "useless",
    )

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        #: All failures that count, and the last starts'.
        self._known = self._crashes = 0
        #: Losses in a row of a plugin that has served nobody.
        self.useless = 0
        #: When a stream was served last, by `time.monotonic`, as all times here.
        self._served_at = self._retry_at = float("-inf")
        #: Nothing is started until `_retry_at`, because of losses: not because a start failed.
        self._left_alone = False
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
        failing = self._crashes > 0 or self.useless > limits.SPARE_RESTARTS
        return failing and -self.wait < limits.SOUND_AFTER

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

        self._known += 1
        self._pause(self._crashes)
        self._crashes += 1
        self._left_alone = False
        return True

    def served(self) -> None:
        """A stream has come to its end, and the plugin has not failed in it."""
        self._served_at = time.monotonic()

        if self._left_alone:
            self._left_alone = False
            self._retry_at = self._served_at
            self.useless = 0

    def lost(self, attempt: Attempt) -> bool:
        """An instance has failed, after it was started; whether the plugin is left alone now."""
        if attempt.failures != self._known:
            return False

        now = time.monotonic()
        self._known += 1
        self._reason, self._hint = "its instance has failed", "the log says why"

        if (
            now - self._served_at < limits.USEFUL_FOR
            or now - attempt.begun_at >= limits.SOUND_AFTER
        ):
            self.useless = 0

        self.useless += 1

        # The interval of a start that has failed holds.
        if self._crashes:
            return False

        self._left_alone = self.useless > limits.SPARE_RESTARTS

        if self._left_alone:
            self._pause(self.useless - limits.SPARE_RESTARTS - 1)
        else:
            self._retry_at = now

        return self._left_alone

    def _pause(self, doublings: int) -> None:
        # Their number has no end.
        interval = limits.FIRST_RESTART * 2.0 ** min(doublings, 32)
        spread = random.uniform(1 - _JITTER, 1 + _JITTER)
        self._retry_at = time.monotonic() + min(interval * spread, limits.LAST_RESTART)

    def error(self) -> PluginUnavailableError:
        """Why there is no instance."""
        reason, kind = self._reason, "start"

        if self.disabled:
            kind = "disabled"
            reason = (
                f"it is disabled until the service is restarted, since "
                f"{limits.MAX_FAILED_STARTS} starts in a row have failed: {reason}"
            )

        return PluginUnavailableError(self.plugin, reason, self._hint, kind=kind)
