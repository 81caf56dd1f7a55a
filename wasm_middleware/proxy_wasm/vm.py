"""One instance of a plugin's module, spoken to in Proxy-Wasm.

Theory of operation
-------------------
A VM is made in three steps: its host calls (`hostcalls.resolve`) go to whoever instantiates the
module, it takes the instance (`attach`), and starts it (`start`): `_initialize` and `main`, or else
`_start`; a first root context; `proxy_on_vm_start`; `proxy_on_configure`. Further configurations
are further root contexts (`add_root`).

Every call into the guest goes through `enter`, one at a time. It makes the called context the
effective one, so that a `proxy_set_effective_context` never outlives the callback it was made in,
and gives a failure its plugin and phase. A guest that has failed is never entered again.

Host calls never call the guest, with one exception: its allocator, through `give`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn, cast

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, Status
from wasm_middleware.abi.properties import Path
from wasm_middleware.errors import (
    GuestError,
    GuestExit,
    GuestTrap,
    HostBug,
    MemoryFault,
    PluginLoadError,
)
from wasm_middleware.proxy_wasm.context import Context, RootContext
from wasm_middleware.proxy_wasm.plugin import PYTHON_LEVELS, Plugin
from wasm_middleware.proxy_wasm.ports import Guest, GuestFunction, Memory, Services

_LOG = logging.getLogger("wasm_middleware")

_MAX_ID = 0xFFFF_FFFF
#: The members of an enum take longer to look up than to return.
_OK = Status.OK
_LOST = "its instance failed in another call"


class _NoMemoryYet:
    """The memory of a guest that is being instantiated: host calls can't reach it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise MemoryFault("the instance is still being made")


class Callbacks:
    """A guest's callbacks that may be called; None for the rest."""

    __slots__ = (
        "context_create",
        "delete",
        "done",
        "log",
        "request_body",
        "request_headers",
        "response_body",
        "response_headers",
    )

    def __init__(self, guest: Guest, plugin: Plugin) -> None:
        def callback(name: str, *, phase: str = "") -> GuestFunction | None:
            allowed = plugin.allows(name) and (not phase or phase in plugin.phases)
            return guest.function(name) if allowed else None

        self.context_create = callback("proxy_on_context_create")
        self.request_headers = callback("proxy_on_request_headers", phase="on_request_headers")
        self.request_body = callback("proxy_on_request_body", phase="on_request_body")
        self.response_headers = callback("proxy_on_response_headers", phase="on_response_headers")
        self.response_body = callback("proxy_on_response_body", phase="on_response_body")
        self.log = callback("proxy_on_log", phase="on_log")
        self.done = callback("proxy_on_done")
        self.delete = callback("proxy_on_delete")


class Vm:
    """One guest with its contexts. Belongs to one thread at a time."""

    __slots__ = (
        "_allocate",
        "_allocating",
        "_last_id",
        "_printed",
        "_printed_level",
        "callbacks",
        "context",
        "contexts",
        "guest",
        "memory",
        "phase",
        "plugin",
        "properties",
        "roots",
        "running",
        "services",
        "tick_period",
        "unloading",
    )

    callbacks: Callbacks
    guest: Guest
    memory: Memory

    def __init__(self, plugin: Plugin, services: Services) -> None:
        self.plugin = plugin
        self.services = services
        self.contexts: dict[int, Context] = {}
        #: Root contexts by configuration.
        self.roots: dict[bytes, RootContext] = {}
        #: The effective context, while the guest runs; and what it is running.
        self.context: Context | None = None
        self.phase = ""
        self.running = False
        self.unloading = False
        self.properties: dict[Path, bytes] = {
            (b"plugin_name",): plugin.name.encode(),
            (b"plugin_root_id",): plugin.root_id.encode(),
            (b"plugin_vm_id",): plugin.vm_id.encode(),
        }
        #: Milliseconds, as the guest asked for; 0 is off.
        self.tick_period = 0
        # Until there is an instance: its start function may make host calls.
        self.memory = cast(Memory, _NoMemoryYet())
        self._allocate: Callable[..., int] | None = None
        self._last_id = 0
        self._allocating = False
        #: What the guest has printed of a line that it has not ended yet.
        self._printed = b""
        self._printed_level = LogLevel.INFO

    def attach(self, guest: Guest) -> None:
        """Take the instance whose imports were resolved by this VM's host calls."""
        self.guest = guest
        self.memory = guest.memory
        self.callbacks = Callbacks(guest, self.plugin)
        allocate = guest.inner_function("proxy_on_memory_allocate")
        self._allocate = allocate or guest.inner_function("malloc")

    async def start(self, timeout: float = limits.START_TIMEOUT) -> None:
        """Initialize the guest and its first root context; each call may take `timeout` seconds.

        Raises `PluginLoadError` when it refuses, `GuestError` when it fails.
        """
        self.guest.set_timeout(timeout)
        await self._initialize()
        await self.add_root(self.plugin.config, timeout)

    async def _initialize(self) -> None:
        initialize = self.guest.function("_initialize")

        if initialize is None:
            start = self.guest.function("_start")

            if start is not None:
                await self._run_main(start, "_start")

            return

        await self.enter(None, initialize, "_initialize")

        for name in ("main", "__main_void"):
            main = self.guest.function(name)

            if main is not None:
                await self._run_main(main, name)
                return

    async def _run_main(self, function: GuestFunction, name: str) -> None:
        try:
            await self.enter(None, function, name, 0, 0)
        except GuestExit as error:
            if error.code:
                raise

    async def add_root(self, config: bytes, timeout: float = limits.START_TIMEOUT) -> RootContext:
        """The root context of a configuration, made if there is none yet.

        `proxy_on_vm_start` runs once, on the first. Raises as `start` does.
        """
        if config in self.roots:
            return self.roots[config]

        first = not self.roots
        root = RootContext(self, self.new_id(), config)
        self.contexts[root.id] = root
        self.guest.set_timeout(timeout)

        try:
            await self._start_root(root, first=first)
        finally:
            self.guest.set_timeout(self.plugin.timeout)

        self.roots[config] = root
        return root

    async def _start_root(self, root: RootContext, *, first: bool) -> None:
        create = self.callbacks.context_create

        if create is not None:
            await self.enter(root, create, "on_context_create", root.id, 0)

        if first:
            await self._ask(root, "proxy_on_vm_start", len(self.plugin.vm_config))

        await self._ask(root, "proxy_on_configure", len(root.config))

    async def _ask(self, root: RootContext, name: str, size: int) -> None:
        function = self.guest.function(name) if self.plugin.allows(name) else None

        if function is None:
            return

        phase = name.removeprefix("proxy_")

        if not await self.enter(root, function, phase, root.id, size):
            raise PluginLoadError(
                self.plugin.name,
                f"{phase} answered false: it does not accept its configuration",
                "its log says more",
            )

    async def shutdown(self) -> None:
        """Let the root contexts end in order, then free the guest.

        A root whose `proxy_on_done` answers false would go on until `proxy_done`; the guest is
        going away, so it ends without its delete.
        """
        self.unloading = True

        if not self.guest.poisoned:
            for root in self.roots.values():
                await self._end_root(root)

        self.guest.close()

    async def _end_root(self, root: RootContext) -> None:
        done, delete = self.callbacks.done, self.callbacks.delete

        try:
            if done is not None and not await self.enter(root, done, "on_done", root.id):
                root.done_pending = True
                self.log(LogLevel.DEBUG, "a root context was not done when the plugin was unloaded")
                return

            if delete is not None:
                await self.enter(root, delete, "on_delete", root.id)
        except GuestError as error:
            # Harmless, and not rare: one SDK knows no root contexts here, and traps.
            self.log(LogLevel.INFO, f"failed while it was unloaded: {error.reason}")

    def new_id(self) -> int:
        """A context id that is not in use; never 0, which stands for the VM."""
        context_id = self._last_id

        while True:
            context_id = context_id + 1 if context_id < _MAX_ID else 1

            if context_id not in self.contexts:
                self._last_id = context_id
                return context_id

    async def enter(
        self, context: Context | None, function: GuestFunction, phase: str, *arguments: int
    ) -> int:
        """Call the guest with `context` as the effective one; raises `GuestError`."""
        if self.guest.poisoned:
            raise GuestTrap(_LOST, plugin=self.plugin.name, phase=phase)

        # Before anything is touched: the call that runs must not lose its context to this one.
        if self.running:
            raise HostBug(f"plugin {self.plugin.name!r} is called by two threads at once")

        self.running = True
        self.context = context
        self.phase = phase

        try:
            return await function(*arguments)
        except GuestError as error:
            error.plugin, error.phase = self.plugin.name, phase

            # It has left its callback half-way through; only a `main` may end like that.
            if isinstance(error, GuestExit) and context is not None:
                self.guest.close()

            raise
        except Exception as error:
            _LOG.exception(
                "plugin %r: a host call failed in %s; please report this to wasm-middleware",
                self.plugin.name,
                phase,
            )
            trap = GuestTrap("a host call failed", plugin=self.plugin.name, phase=phase)
            raise trap from error
        finally:
            self.context = None
            self.running = False

            if self._printed:
                self._end_line()

    def give(self, value: bytes, ret_data: int, ret_size: int) -> Status:
        """Hand bytes to the guest in memory of its own allocator.

        The allocator is never asked for nothing: Go's would panic. A bad pointer or an allocator
        that has no memory is a `MemoryFault`, which the engine answers with INVALID_MEMORY_ACCESS.
        """
        address = self.allocate(len(value)) if value else 0
        memory = self.memory

        if value:
            memory.write(address, value)

        memory.write_u32(ret_data, address)
        memory.write_u32(ret_size, len(value))
        return _OK

    def allocate(self, size: int) -> int:
        if self._allocate is None:
            raise MemoryFault("the module exports no allocator")

        # An allocator that asks the host for something to allocate would never come to an end.
        if self._allocating:
            raise MemoryFault("the allocator called itself through the host")

        self._allocating = True

        try:
            address = self._allocate(size)
        finally:
            self._allocating = False

        if not address:
            raise MemoryFault("the allocator has no memory")

        return address

    def read_at_most(self, address: int, size: int, most: int) -> bytes:
        """The first `most` bytes of what a guest hands over; all of it must be there."""
        self.memory.read(address + size, 0)
        return self.memory.read(address, min(size, most))

    def read_log(self, address: int, size: int) -> bytes:
        """A guest's log line, as much of it as is written."""
        most = limits.MAX_LOG_BYTES

        if size <= most:
            return self.memory.read(address, size)

        return self.read_at_most(address, size, most) + b" [%d bytes more]" % (size - most)

    def log_guest(self, level: LogLevel, text: bytes) -> None:
        """Write what the guest said, if its plugin's log level lets it.

        A second line of one message is indented, so that it can't pass for a message of its own.
        """
        if level >= self.plugin.log_level:
            # What it says while it is unloaded concerns nobody but its author.
            level = LogLevel.DEBUG if self.unloading else level
            line = text.decode("utf-8", "replace").rstrip().replace("\r", "")
            self.log(level, line.replace("\n", "\n    "))

    def print(self, level: LogLevel, text: bytes) -> None:
        """Gather what the guest prints, piece by piece, until a line or the call ends."""
        if level is not self._printed_level and self._printed:
            self._end_line()

        self._printed_level = level
        *lines, self._printed = (self._printed + text).split(b"\n")

        for line in lines:
            self.log_guest(level, line)

        if len(self._printed) >= limits.MAX_LOG_BYTES:
            self._end_line()

    def _end_line(self) -> None:
        line, self._printed = self._printed, b""
        self.log_guest(self._printed_level, line)

    def log(self, level: LogLevel, message: str) -> None:
        """Write a line to the plugin's logger; what it may write is decided by the caller."""
        python_level = PYTHON_LEVELS[level]
        logger = self.plugin.logger

        if logger.isEnabledFor(python_level):
            logger.log(python_level, "%s", message, extra=self._log_extra())

    def log_refusal(self, call: str, reason: str) -> None:
        """Say at debug level why a host call did not do what it was asked for."""
        logger = self.plugin.logger

        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s: %s", call, reason, extra=self._log_extra())

    def refuse(self, status: Status, call: str, reason: str) -> Status:
        """The same, with the status to answer."""
        self.log_refusal(call, reason)
        return status

    def _log_extra(self) -> dict[str, object]:
        return {
            "plugin": self.plugin.name,
            "phase": self.phase,
            "context_id": self.context.id if self.context is not None else 0,
        }
