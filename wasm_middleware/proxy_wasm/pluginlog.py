"""What is written to a plugin's logger: what the guest says, and what the host says about it.

The guest's own lines are filtered by the plugin's `log_level`, and what it prints is put together
to lines. The host says at debug level why it answered with another status than OK. Each line, the
host's too, is one that a guest can bring about as often as it likes: so their number is limited.

Guests choose what stands here. A second line of one record is indented, so that it can't pass for a
record of its own, and control characters, those that turn text around too, are escaped: no terminal
is steered by them. What reads as ordinary text stays as it is.
"""

from __future__ import annotations

import functools
import logging
from typing import TypeVar

from wasm_middleware import limits
from wasm_middleware.abi.enums import Errno, LogLevel, Status, answer_name
from wasm_middleware.proxy_wasm.context import Context, RootContext
from wasm_middleware.proxy_wasm.plugin import PYTHON_LEVELS, Plugin
from wasm_middleware.proxy_wasm.ports import Clock, Services

#: The members of an enum take longer to look up than to return.
_OK = Status.OK
_Answer = TypeVar("_Answer", bound=Status | Errno)
#: Both are in what AssemblyScript's runtime says when a map lacks a key.
_NO_SUCH_KEY = (b"Key does not exist", b"~lib/map.ts")
#: Seconds after which a second is over by every clock.
_LATE = 0.05
_NEXT_LINE = "\n    "
#: C0 but tab and line feed, DEL and C1, the separators of lines and what changes directions.
_ESCAPED = (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F))
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in (*_ESCAPED, *range(0x2066, 0x206A))}


class PluginLog:
    """The logger of one instance's plugin; `Vm` says what the guest is at."""

    __slots__ = ("_printed", "_printed_level", "context", "phase", "plugin")

    #: `Vm` has them.
    services: Services

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        #: The effective context, while the guest runs; and what it is running.
        self.context: Context | None = None
        self.phase = ""
        #: What the guest has printed of a line that it has not ended yet.
        self._printed = b""
        self._printed_level = LogLevel.INFO

    def log_guest(self, level: LogLevel, text: bytes) -> None:
        """Write what the guest said, if its plugin's log level lets it."""
        if level >= self.plugin.log_level:
            level = LogLevel.DEBUG if self._is_unknown_root(text) else level
            self._write(level, text.rstrip(b"\r\n").decode("utf-8", "replace"), guest=True)

    def _is_unknown_root(self, text: bytes) -> bool:
        """Whether AssemblyScript's SDK aborts, as it does at the end of every root context.

        It looks for it among its streams (`proxy_on_done` in its exports.ts): its plugins can't
        help it, and nobody should read of an error whenever a server stops.
        """
        return (
            self.phase == "on_done"
            and isinstance(self.context, RootContext)
            and all(part in text for part in _NO_SUCH_KEY)
        )

    def print(self, level: LogLevel, text: bytes) -> None:
        """Gather what the guest prints, piece by piece, until a line or the call ends.

        Each line is a record, but of many at once the later ones share some: each takes its time.
        """
        if level is not self._printed_level and self._printed:
            self._end_line()

        self._printed_level = level
        *lines, self._printed = (self._printed + text).split(b"\n")
        most = limits.MAX_LOG_LINES

        for line in lines[:most]:
            self.log_guest(level, line)

        for begin in range(most, len(lines), most):
            self.log_guest(level, b"\n".join(lines[begin : begin + most]))

        if len(self._printed) >= limits.MAX_LOG_BYTES:
            self._end_line()

    def _end_line(self) -> None:
        line, self._printed = self._printed, b""
        self.log_guest(self._printed_level, line)

    def log(self, level: LogLevel, message: str) -> None:
        """Write what the host has to say to the plugin's logger."""
        self._write(level, message, guest=False)

    def _write(self, level: LogLevel, message: str, *, guest: bool) -> None:
        python_level = PYTHON_LEVELS[level]
        logger = self.plugin.logger

        if not logger.isEnabledFor(python_level):
            return

        # Nothing is done for what is dropped: a guest may go on with it for all of its time.
        breaks = message.count("\n")

        if self.admits(python_level, min(breaks, limits.MAX_LOG_LINES) + 1):
            shown = _shown(message)
            logger.log(python_level, "%s", shown, extra=self._log_extra(guest=guest))

    def admits(self, level: int, lines: int = 1) -> bool:
        """Whether the plugin has not written too much; where it has, says so at `level` or above.

        To be asked for whatever a guest can bring about, by any logger. A log that shows errors
        alone shows that some of them are missing.
        """
        plugin, clock = self.plugin, self.services.clock
        rate = plugin.log_rate
        admitted, notice = rate.admit(clock.monotonic(), lines)

        if notice:
            level = max(level, logging.WARNING)
            plugin.logger.log(level, "%s", notice, extra=self._log_extra(guest=False))

            if not admitted:
                rate.level = level
                # Not this instance's: it may be gone by then.
                self.services.background.after(
                    rate.time_left(clock.monotonic()) / 1e9 + _LATE,
                    functools.partial(_tell_second, plugin, clock),
                )

        return admitted

    @property
    def explains(self) -> bool:
        """Whether anybody reads why: for reasons that take time to put into words."""
        return self.plugin.logger.isEnabledFor(logging.DEBUG)

    def log_refusal(self, call: str, reason: str) -> None:
        """Say at debug level why a host call did not do what it was asked for, and answered OK."""
        self._write(LogLevel.DEBUG, f"{call}: {reason}", guest=False)

    def refuse(
        self, answer: _Answer, call: str, reason: str, level: LogLevel = LogLevel.DEBUG
    ) -> _Answer:
        """What to answer; the log says so in one line, and why."""
        if self.plugin.logger.isEnabledFor(PYTHON_LEVELS[level]):
            self._write(level, f"{call} -> {answer_name(answer)}: {reason}", guest=False)

        return answer

    def ignore(self, call: str, reason: str) -> Status:
        """OK for what is not done, with a warning: an SDK would panic on any other status."""
        self._write(LogLevel.WARN, f"{call}: ignored: {reason}", guest=False)
        return _OK

    def _log_extra(self, *, guest: bool) -> dict[str, object]:
        return {
            # Whether the plugin said it, or the host about it.
            "guest": guest,
            "plugin": self.plugin.name,
            "phase": self.phase,
            "context_id": self.context.id if self.context is not None else 0,
        }


def _tell_second(plugin: Plugin, clock: Clock) -> None:
    if not plugin.log_rate.time_left(clock.monotonic()):
        tell_dropped(plugin)


def tell_dropped(plugin: Plugin) -> None:
    """Say how many lines were dropped since that was said last, if any."""
    rate = plugin.log_rate
    notice = rate.rest()

    if notice:
        extra = {"guest": False, "plugin": plugin.name, "phase": "", "context_id": 0}
        plugin.logger.log(rate.level, "%s", notice, extra=extra)


def _shown(message: str) -> str:
    """A message that looks like none but itself; what has too many lines is cut."""
    if message.isprintable():
        return message

    most = limits.MAX_LOG_LINES
    lines = message.replace("\r", "").split("\n", most)

    if len(lines) > most:
        more = lines.pop().count("\n") + 1
        lines.append(f"[{more} lines more]")

    return _NEXT_LINE.join(lines).translate(_ESCAPES)
