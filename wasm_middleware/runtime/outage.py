"""What is said of a plugin that requests are without.

Theory of operation. What has failed is said where it fails, and once. That it goes on is said here:
that a plugin is left alone, and for how long; every so often while it is missed, in how many
requests it was; and that when it is up again. All of this is WARNING, which Python shows to those
who have configured nothing.

Requests that come by cost a count. Where none come, nothing is missed, and nothing is said.
"""

from __future__ import annotations

import logging
import time

from wasm_middleware import limits
from wasm_middleware.errors import PluginUnavailableError

_LOG = logging.getLogger("wasm_middleware")


class Outage:
    """One plugin's; `fail_open` says what becomes of requests."""

    __slots__ = ("_extra", "_fate", "_left_alone", "_plugin", "_refused", "_told_at")

    def __init__(self, plugin: str, *, fail_open: bool) -> None:
        self._plugin = plugin
        self._fate = "went on without it" if fail_open else "were answered 503"
        self._extra = {"plugin": plugin, "phase": "start"}
        #: Requests since it was up last.
        self._refused = 0
        self._left_alone = False
        #: When that was said last, by `time.monotonic`.
        self._told_at = 0.0

    def left_alone(self, losses: int, seconds: float) -> None:
        """It fails again and again, and serves nobody: it is not started for a while."""
        self._left_alone = True
        _LOG.warning(
            "plugin %r has failed %d times in a row and served nobody: no instance of it is "
            "started for %.1f s",
            self._plugin,
            losses,
            seconds,
            extra=self._extra,
        )

    def refused(self, count: int, error: PluginUnavailableError) -> None:
        """So many requests have found no instance."""
        now = time.monotonic()

        # Why there is none was said when it failed.
        if not self._refused:
            self._told_at = now

        self._refused += count

        if now - self._told_at >= limits.REMIND_EVERY:
            self._told_at = now
            _LOG.warning("%s; %s so far", error, self._requests(), extra=self._extra)

    def over(self) -> None:
        """It has an instance."""
        if self._refused or self._left_alone:
            _LOG.warning(
                "plugin %r is up; %s meanwhile", self._plugin, self._requests(), extra=self._extra
            )
            self._refused, self._left_alone = 0, False

    def _requests(self) -> str:
        one = self._refused == 1
        fate = self._fate.replace("were", "was") if one else self._fate
        return f"{self._refused:,} request{'' if one else 's'} {fate}"
