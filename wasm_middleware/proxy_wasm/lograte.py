"""How many lines a plugin may log within a second.

Time is cut into seconds that begin with a line. Each has room for so many lines; the first that
finds none says that lines are dropped. How many were is said by the first line of the next second,
or when the second is over and none has come, or when the plugin ends. So a plugin that logs without
end is heard, at two lines a second more than it may write, and whoever reads its log knows that it
is not complete. A record of several lines is written as a whole or not
at all: the last one of a second may take more than is left.
"""

from __future__ import annotations

import logging

from wasm_middleware import limits

_SECOND = 1_000_000_000


class LogRate:
    """The lines of all instances of one plugin. Times are nanoseconds of a monotonic clock."""

    __slots__ = ("_began", "_dropped", "_left", "level", "lines")

    def __init__(self, lines: int = limits.DEFAULT_LOG_RATE) -> None:
        #: Within one second.
        self.lines = lines
        #: Python's level at which it was said last that lines are dropped.
        self.level = logging.WARNING
        self._left = 0
        self._dropped = 0
        #: Before any clock.
        self._began = -_SECOND

    def admit(self, now: int, lines: int = 1) -> tuple[bool, str]:
        """Whether a record may be written, and what has to be said first, if anything."""
        if now - self._began >= _SECOND:
            self._began = now
            self._left = self.lines - lines
            return True, self.rest()

        if self._left > 0:
            self._left -= lines
            return True, ""

        first = not self._dropped
        self._dropped += lines

        if first:
            return False, f"more than {self.lines} lines within a second: they are dropped"

        return False, ""

    def time_left(self, now: int) -> int:
        """The time until the second is over."""
        return max(self._began + _SECOND - now, 0)

    def rest(self) -> str:
        """What has to be said when no line of this second will follow, if anything."""
        dropped, self._dropped = self._dropped, 0
        return f"{dropped} of its lines were dropped" if dropped else ""
