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

Host calls never call the guest, with one exception: its allocator, through `give`. What they set
going (a call to an upstream, a message in a queue) comes back as a `Delivery`, between calls.

A guest that fails takes along what it has under way: its calls are cancelled, and the streams that
it holds back learn of it at once. So it is with one that is interrupted in the midst of a call, by
a signal or because the call was cancelled, and with one that is unloaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, Status
from wasm_middleware.abi.properties import INBOUND, Path
from wasm_middleware.errors import (
    GuestError,
    GuestExit,
    GuestTimeout,
    GuestTrap,
    MemoryFault,
    PluginLoadError,
    PluginUnavailableError,
)
from wasm_middleware.proxy_wasm.callbacks import Callbacks
from wasm_middleware.proxy_wasm.context import Context, RootContext
from wasm_middleware.proxy_wasm.delivery import Delivery, PendingCall
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.pluginlog import PluginLog
from wasm_middleware.proxy_wasm.ports import Guest, GuestFunction, Memory, Services
from wasm_middleware.proxy_wasm.trace import TracedGuest
from wasm_middleware.proxy_wasm.turn import Turn

_LOG = logging.getLogger("wasm_middleware")

_MAX_ID = 0xFFFF_FFFF
#: The members of an enum take longer to look up than to return.
_OK = Status.OK
_LOST = "its instance failed in another call"
_LOST_BEFORE = f"{_LOST}, before this one began"
_LAST_PHASES = ("on_log", "on_done", "on_delete")
_UNLOADED = "its instance was unloaded"


class Vm(PluginLog):
    """One guest with its contexts. Belongs to one thread at a time."""

    __slots__ = (
        "__weakref__",
        "_allocate",
        "_allocating",
        "_gone",
        "_last_id",
        "_last_token",
        "callbacks",
        "calls",
        "contexts",
        "delivery",
        "guest",
        "interrupted",
        "last_status",
        "memory",
        "on_change",
        "properties",
        "roots",
        "services",
        "turn",
    )

    callbacks: Callbacks
    guest: Guest
    memory: Memory

    def __init__(self, plugin: Plugin, services: Services) -> None:
        super().__init__(plugin)
        self.services = services
        self.contexts: dict[int, Context] = {}
        #: Root contexts by configuration.
        self.roots: dict[bytes, RootContext] = {}
        #: Whose call is in the guest; one may be left in its middle.
        self.turn = Turn(lambda: services.background.event())
        self.properties: dict[Path, bytes] = {
            (b"plugin_name",): plugin.name.encode(),
            (b"plugin_root_id",): plugin.root_id.encode(),
            (b"plugin_vm_id",): plugin.vm_id.encode(),
            (b"listener_direction",): INBOUND,
            (b"xds", b"listener_direction"): INBOUND,
        }
        #: What it has asked of others and has no answer to yet, by token.
        self.calls: dict[int, PendingCall] = {}
        #: What is being delivered, and the status that the last one brought.
        self.delivery: Delivery | None = None
        self.last_status: tuple[int, bytes] = (0, b"")
        #: Told when a root context has changed its tick period or is done, or the guest has failed.
        self.on_change: Callable[[], None] | None = None
        self._allocate: Callable[..., int] | None = None
        self._last_id = 0
        self._last_token = 0
        self._allocating = False
        #: It failed since a call into it was given up, and not by its own doing.
        self.interrupted = False
        #: Why it can't be entered any more, once whoever waits for it has been told.
        self._gone = ""

    def attach(self, guest: Guest) -> None:
        """Take the instance whose imports were resolved by this VM's host calls."""
        traced = self.plugin.log_level is LogLevel.TRACE
        self.guest = guest = TracedGuest(guest, self) if traced else guest
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
        begin = self.guest.start_function()

        if begin is not None:
            await self.enter(None, begin, "start")

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
        self.changed()
        return root

    async def _start_root(self, root: RootContext, *, first: bool) -> None:
        create = self.callbacks.context_create

        if create is not None:
            await self.enter(root, create, "on_context_create", root.id, 0)

        if first:
            await self._ask(root, "proxy_on_vm_start", len(self.plugin.vm_config))

        await self._ask(root, "proxy_validate_configuration", len(root.config))
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
        """End what can be ended at once, then free the guest: for those who have no time to wait.

        Whoever has some calls `end_roots`, waits until nothing is `pending_done`, and then this.
        """
        await self.end_roots()

        for root in self.pending_done:
            self.log(LogLevel.DEBUG, f"root context {root.id} was not done when it was unloaded")

        self.close()

    async def end_roots(self) -> None:
        """Let the root contexts end, in order; those that have something left to do stay.

        Such a one answered false to `proxy_on_done`; it gets its callbacks until it calls
        `proxy_done`, and is deleted then (spec, "proxy_done").
        """
        for root in list(self.roots.values()):
            if not (root.ended or root.done_pending or self.guest.poisoned):
                await self._end_root(root)

    @property
    def pending_done(self) -> list[RootContext]:
        """The root contexts that are to end and have not called `proxy_done` yet."""
        if self.guest.poisoned:
            return []

        return [root for root in self.roots.values() if root.done_pending]

    async def _end_root(self, root: RootContext) -> None:
        done = self.callbacks.done

        try:
            if done is not None and not await self.enter(root, done, "on_done", root.id):
                root.done_pending = True
            else:
                await self._delete_root(root)
        except GuestError as error:
            # Harmless, and not rare: one SDK knows no root contexts here, and traps.
            self.log(LogLevel.INFO, f"failed while it was unloaded: {error.reason}")

    async def _delete_root(self, root: RootContext) -> None:
        root.ended = True
        root.retire()
        delete = self.callbacks.delete

        if delete is not None:
            await self.enter(root, delete, "on_delete", root.id)

    async def root_done(self, root: RootContext) -> None:
        """Delete a root context that has called `proxy_done`, after that call has returned."""
        try:
            if not self.guest.poisoned:
                await self._delete_root(root)
        except GuestError as error:
            self.log(LogLevel.INFO, f"failed while it was unloaded: {error.reason}")
        finally:
            root.done_pending = False
            self.changed()

    def close(self) -> None:
        """Give up what it has under way, tell whoever waits for it, and free the guest; idempotent.

        Not to be called while the guest runs.
        """
        self._give_up()
        self._tell(None, _UNLOADED, "")
        self.guest.close()

    def _give_up(self) -> None:
        calls, self.calls = self.calls, {}

        for call in calls.values():
            call.cancel()

        # Among the contexts: one that would not start is none of `roots`.
        for context in self.contexts.values():
            if isinstance(context, RootContext):
                context.retire()

        self.changed()

    @property
    def consumes(self) -> bool:
        """Whether any of its root contexts waits for messages of a queue."""
        return any(root.queues for root in self.roots.values())

    def changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    async def deliver(self, root: RootContext, delivery: Delivery) -> None:
        """Call a root context back; a failure is logged, and costs the instance."""
        callback = self.callbacks.deliveries[delivery.callback]

        async with self.turn:
            if self.guest.poisoned or root.ended:
                return

            if delivery.status is not None:
                self.last_status = delivery.status

            if callback is None:
                return

            phase = delivery.callback.removeprefix("proxy_")
            self.delivery = delivery

            try:
                await self._call(root, callback, phase, root.id, *delivery.arguments)
            except GuestError as error:
                self.report(error)
            finally:
                self.delivery = None

    def report(self, error: GuestError) -> None:
        """Log a failure, once, whoever it comes by."""
        if not error.reported:
            error.reported = True
            # What has failed in another call was said there.
            beside = error.reason in (_LOST, _LOST_BEFORE)
            level = logging.WARNING if beside else logging.ERROR
            extra = {"plugin": self.plugin.name, "phase": error.phase}
            # Not the error itself: who keeps records would keep its traceback, and this instance.
            _LOG.log(level, "%s", str(error), extra=extra)

    def new_token(self) -> int:
        """A number for a call that is not in use; never 0."""
        self._last_token = self._unused(self._last_token, self.calls)
        return self._last_token

    def new_id(self) -> int:
        """A context id that is not in use; never 0, which stands for the VM."""
        context_id = self._last_id + 1

        if context_id in self.contexts or context_id > _MAX_ID:
            context_id = self._unused(self._last_id, self.contexts)

        self._last_id = context_id
        return context_id

    @staticmethod
    def _unused(last: int, used: Container[int]) -> int:
        while True:
            last = last + 1 if last < _MAX_ID else 1

            if last not in used:
                return last

    async def enter(
        self, context: Context | None, function: GuestFunction, phase: str, *arguments: int
    ) -> int:
        """Call the guest with `context` as the effective one; raises `GuestError`.

        Waits for a call that was left in its middle. A stream does so for a bounded time, and among
        a bounded number; beyond that it raises `PluginUnavailableError`, and costs nobody else.
        """
        if context is not None and context.time_left is not None:
            return await self._enter_limited(context, context.time_left, function, phase, arguments)

        turn = self.turn

        if turn.busy:
            await self._wait_for_turn(context, phase, limits.MAX_INSTANCE_WAIT)

        turn.busy = True

        try:
            return await self._call(context, function, phase, *arguments)
        finally:
            turn.release()

    async def _wait_for_turn(self, context: Context | None, phase: str, seconds: float) -> None:
        turn = self.turn

        # Root contexts have no failure policy; and whoever was created is to be ended.
        if context is None or context is context.root or phase in _LAST_PHASES:
            await turn.wait(turn.join())
            return

        if turn.waiting >= limits.MAX_INSTANCE_WAITERS:
            raise self._too_busy(f"{turn.waiting} requests wait for its instance already")

        place = turn.join()
        stop = self.services.background.after(seconds, lambda: turn.leave(place))

        try:
            if not await turn.wait(place):
                raise self._too_busy(f"its instance was busy with others for {seconds:.3g} s")
        finally:
            stop()

    def _too_busy(self, reason: str) -> PluginUnavailableError:
        error = PluginUnavailableError(self.plugin.name, reason, kind="pool")
        self.log(LogLevel.ERROR, reason)
        return error

    async def _enter_limited(
        self,
        context: Context,
        left: int,
        function: GuestFunction,
        phase: str,
        arguments: tuple[int, ...],
    ) -> int:
        """The same for a context whose calls may take some time in all, waiting included."""
        clock, turn = self.services.clock, self.turn
        begun = clock.monotonic()

        try:
            if turn.busy:
                seconds = min(max(left, 0) / 1e9, limits.MAX_INSTANCE_WAIT)
                await self._wait_for_turn(context, phase, seconds)

            turn.busy = True

            try:
                left -= clock.monotonic() - begun

                # The last callbacks are for tidying up, and have the plugin's `timeout`.
                if left <= 0 and phase not in _LAST_PHASES:
                    reason = "its request_timeout was over before it was called again"
                    raise GuestTimeout(reason, plugin=self.plugin.name, phase=phase)

                if left > 0:
                    self.guest.limit_call(left / 1e9)

                return await self._call(context, function, phase, *arguments)
            finally:
                turn.release()
        finally:
            assert context.time_left is not None
            context.time_left -= clock.monotonic() - begun

    async def _call(
        self, context: Context | None, function: GuestFunction, phase: str, *arguments: int
    ) -> int:
        if self.guest.poisoned:
            reason = _LOST_BEFORE if self._gone in ("", _LOST) else self._gone
            raise GuestTrap(reason, plugin=self.plugin.name, phase=phase)

        try:
            self.context = context
            self.phase = phase
            return await function(*arguments)
        except GuestError as error:
            error.plugin, error.phase = self.plugin.name, phase

            # It has left its callback half-way through; only a `main` may end like that.
            if isinstance(error, GuestExit) and context is not None:
                self.guest.close()

            if self.guest.poisoned:
                self._lost(context, error)

            raise
        except Exception as error:
            _LOG.exception(
                "plugin %r: a host call failed in %s; please report this to wasm-middleware",
                self.plugin.name,
                phase,
            )
            trap = GuestTrap("a host call failed", plugin=self.plugin.name, phase=phase)

            # Where it was the engine that failed, nobody knows how far the guest has come.
            if not self.guest.poisoned:
                self.guest.close()

            self._lost(context, trap)
            raise trap from error
        except BaseException as error:
            # A signal's handler, or a call that was cancelled. One that was cancelled before it
            # began has touched nothing; of any other the guest is half-way through.
            if self.guest.poisoned:
                self.interrupted = True
                reason = f"it was interrupted by {type(error).__name__}"
                # The failed context as well: nobody turns this error into its failure policy.
                self._lost(None, GuestTrap(reason, plugin=self.plugin.name, phase=phase))

            raise
        finally:
            if self._printed:
                self._end_line()

            self.context = None

    def _lost(self, failed: Context | None, error: GuestError) -> None:
        """Give up what a failed guest has under way; the context that failed learns it by the
        error."""
        self._give_up()

        # Before those who have only been beside it.
        if any(
            not (context is failed or isinstance(context, RootContext))
            for context in self.contexts.values()
        ):
            self.report(error)

        self._tell(failed, _LOST, error.phase)

    def _tell(self, failed: Context | None, reason: str, phase: str) -> None:
        """Tell the contexts, once, that nothing enters the guest any more."""
        if self._gone:
            return

        self._gone = reason
        lost = GuestTrap(reason, plugin=self.plugin.name, phase=phase)

        for context in list(self.contexts.values()):
            if context is not failed:
                context.instance_lost(lost)

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
        if size <= most:
            return self.memory.read(address, size)

        self.memory.read(address + size, 0)
        return self.memory.read(address, most)

    def read_log(self, address: int, size: int) -> bytes:
        """A guest's log line, as much of it as is written."""
        most = limits.MAX_LOG_BYTES

        if size <= most:
            return self.memory.read(address, size)

        return self.read_at_most(address, size, most) + b" [%d bytes more]" % (size - most)
