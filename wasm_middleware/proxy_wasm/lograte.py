"""How many lines a plugin may log within a second.

Time is cut into seconds that begin with a line. Each has room for so many lines; the first that
finds none says that lines are dropped, and the first of the next second says how many were. So a
plugin that logs without end is heard, at two lines a second more than it may write, and whoever
reads its log knows that it is not complete.
"""

from __future__ import annotations

from wasm_middleware import limits

_SECOND = 1_000_000_000


class LogRate:
    """The lines of all instances of one plugin. Times are nanoseconds of a monotonic clock."""

    __slots__ = ("_began", "_dropped", "_left", "lines")

    def __init__(self, lines: int = limits.DEFAULT_LOG_RATE) -> None:
        #: Within one second.
        self.lines = lines
        self._left = 0
        self._dropped = 0
        #: Before any clock.
        self._began = -_SECOND

    def admit(self, now: int) -> tuple[bool, str]:
        """Whether a line may be written, and what has to be said first, if anything."""
        if now - self._began >= _SECOND:
            dropped, self._dropped = self._dropped, 0
            self._began = now
            self._left = self.lines - 1
            return True, f"{dropped} of its lines were dropped" if dropped else ""

        if self._left:
            self._left -= 1
            return True, ""

        self._dropped += 1

        if self._dropped == 1:
            return False, f"more than {self.lines} lines within a second: they are dropped"

        return False, ""
