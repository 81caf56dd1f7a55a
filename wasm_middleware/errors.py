"""Every error this package raises, in one tree whose axis is *who must act*.

    WasmMiddlewareError
    ├── ConfigError            the operator: the file is wrong (all mistakes at once)
    ├── EngineUnavailableError the operator: this Python has no such engine
    ├── PluginLoadError        the operator: a module that can't be loaded or would not start
    │   └── PluginUnavailableError  there is no instance of it for a request
    ├── GuestError             the plugin's author: the guest failed in one call
    │   ├── GuestTrap            it trapped
    │   │   └── GuestExit          it ended itself with `proc_exit`
    │   ├── GuestTimeout         it ran longer than its `timeout`
    │   ├── GuestMemoryLimit     it wanted more than its `memory_limit`
    │   ├── GuestPaused          it paused a stream and nothing resumed it
    │   ├── GuestBodyLimit       it paused while more than `body_limit` arrived
    │   ├── StoreFailed          the shared store did not answer it (the operator must act)
    │   └── AbiViolation         it broke a rule of the ABI
    ├── StreamAborted          nobody: how a response is cut after it has started
    ├── StreamClosed           nobody: a websocket's application sends to nobody
    └── HostBug                us: please report it

A foreign exception becomes one of these in exactly one place per adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "AbiViolation",
    "ConfigError",
    "Diagnostic",
    "EngineUnavailableError",
    "GuestBodyLimit",
    "GuestError",
    "GuestExit",
    "GuestMemoryLimit",
    "GuestPaused",
    "GuestTimeout",
    "GuestTrap",
    "HostBug",
    "HostWait",
    "MemoryFault",
    "PluginLoadError",
    "PluginUnavailableError",
    "StoreFailed",
    "StreamAborted",
    "StreamClosed",
    "WasmMiddlewareError",
]


class WasmMiddlewareError(Exception):
    """Base of every error that this package raises on purpose."""


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One mistake in a configuration, where it is and how to mend it.

    `file` is empty for a configuration given as a dict; `line` and `column` count from 1 and
    are 0 where no place is known. `path` names the value (`plugins.0.timeout`).
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file or '<config>'}:"

        if self.line:
            place += f"{self.line}:{self.column}:"

        subject = f" {self.path}:" if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{subject} {self.message}{hint}"


class ConfigError(WasmMiddlewareError):
    """The configuration is wrong; `diagnostics` lists every mistake, in file order."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(diagnostics))
        super().__init__("\n".join(str(diagnostic) for diagnostic in self.diagnostics))


class EngineUnavailableError(WasmMiddlewareError):
    """The chosen engine can't run on this Python; the message names the way out."""


class PluginLoadError(WasmMiddlewareError):
    """A plugin's module can't be loaded, linked or started."""

    def __init__(self, plugin: str, reason: str, hint: str = "") -> None:
        self.plugin = plugin
        self.reason = reason
        self.hint = hint
        super().__init__(f"plugin {plugin!r}: {reason}" + (f" ({hint})" if hint else ""))


class PluginUnavailableError(PluginLoadError):
    """There is no instance of a plugin for a request; the plugin's failure policy decides.

    `kind` is what metrics and the reply's details call it: `start` (it failed, and is started again
    later), `disabled` (it is not) or `pool` (all of its instances are busy).
    """

    def __init__(self, plugin: str, reason: str, hint: str = "", *, kind: str) -> None:
        self.kind = kind
        super().__init__(plugin, reason, hint)


class GuestError(WasmMiddlewareError):
    """A guest failed while it ran; its instance is not entered again.

    An engine raises it with a reason alone; `plugin` and `phase` are filled in where they are
    known, before anything logs it.
    """

    #: What `wasm_plugin_errors_total` and the log call this kind of failure.
    kind = "trap"

    def __init__(self, reason: str, *, plugin: str = "", phase: str = "") -> None:
        self.reason = reason
        self.plugin = plugin
        self.phase = phase
        #: It was logged.
        self.reported = False
        super().__init__(reason)

    def __str__(self) -> str:
        where = f" in {self.phase}" if self.phase else ""
        return f"plugin {self.plugin!r}{where}: {self.reason}" if self.plugin else self.reason


class GuestTrap(GuestError):
    """The guest trapped."""


class GuestExit(GuestTrap):
    """The guest called `proc_exit`.

    With code 0 its memory is as it wants it, and its instance may live on: a toolchain's `_start`
    ends so. Anywhere else, and with any other code, it is a trap.
    """

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"it ended itself with exit code {code}")


class GuestTimeout(GuestError):
    """The guest ran longer in one call than its `timeout`."""

    kind = "timeout"


class GuestMemoryLimit(GuestError):
    """The guest failed when it could not grow its memory beyond `memory_limit`."""

    kind = "memory"


class GuestPaused(GuestError):
    """The guest paused a stream and nothing resumed it within `pause_timeout`."""

    kind = "pause_timeout"


class GuestBodyLimit(GuestError):
    """The guest kept a body paused while more than `body_limit` of it arrived."""

    kind = "body_limit"


class StoreFailed(GuestError):
    """What plugins share could not be read or written; the guest itself is sound."""

    kind = "store"


class AbiViolation(GuestError):
    """The guest broke a rule of the ABI that no status can answer."""

    kind = "abi"


#: What a plugin's failure policy is for.
PluginFailure: TypeAlias = GuestError | PluginUnavailableError


class HostWait(Exception):  # it is no error
    """Raised by a host function whose result has to be waited for; never leaves an engine.

    `outcome` is awaited while the guest is left alone. What it gives is called when the guest is
    entered again, and ends the host call as the function itself would have. Only a function that
    `may_wait` may raise it.
    """

    def __init__(self, outcome: Coroutine[object, object, Callable[[], int]]) -> None:
        self.outcome = outcome
        super().__init__("a host call waits")


class MemoryFault(WasmMiddlewareError):
    """A pointer reaches beyond the guest's memory.

    Raised by an engine's memory inside a host call, and answered there with the status that the
    call's specification names (`INVALID_MEMORY_ACCESS`, or `EFAULT` in WASI). Users never see it.
    """


class StreamAborted(WasmMiddlewareError):
    """Raised through the application when a response that has started must not be finished.

    ASGI has no message for it: leaving the application with an exception makes the server close
    the connection, so that the client can tell the answer is cut.
    """


class StreamClosed(WasmMiddlewareError, OSError):
    """Raised by an application's `send` on a websocket that is closed.

    An OSError, as servers raise it for a client that has gone (ASGI 2.4), and frameworks expect it.
    """


class HostBug(WasmMiddlewareError):
    """A rule of this package was broken by this package; please report it."""
