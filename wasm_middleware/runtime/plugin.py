"""A loaded plugin: its compiled module and its instances.

Streams are spread over the instances in turn. An instance that has failed is never entered again:
it stays with the streams that it was serving, which get the failure policy, and a new one takes its
place at the next request. While a plugin can't be started, it is tried again after a second, then
after two, four and so on, and the requests between get its last error. At a request it may take no
more time than a little above what it took before: the event loop waits for it. An instance that
ticks, or consumes a queue, is replaced without a request, after a while.

Belongs to one event loop's thread at a time.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence

import anyio

from wasm_middleware import limits
from wasm_middleware.abi.enums import AbiVersion, LogLevel
from wasm_middleware.config import PluginSettings
from wasm_middleware.engines.protocol import Instance, InstanceLimits, Module
from wasm_middleware.errors import GuestError, PluginLoadError
from wasm_middleware.proxy_wasm.hostcalls import resolve
from wasm_middleware.proxy_wasm.lograte import LogRate
from wasm_middleware.proxy_wasm.plugin import PYTHON_LEVELS, Plugin
from wasm_middleware.proxy_wasm.ports import Cancel, Services
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.runtime.inspection import (
    NETWORK_CALLBACKS,
    SET_PROPERTY_CALLS,
    Inspection,
    inspect_module,
)
from wasm_middleware.runtime.ticks import Ticks
from wasm_middleware.services.background import running_loop

_LOG = logging.getLogger("wasm_middleware")

_BODY_PHASES = {"on_request_body", "on_response_body"}
#: Seconds until a plugin that would not start is tried again: at first, and at most.
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0
#: How long a start may take at a request: this many seconds, and this many times the last one.
_SHORT_START, _START_FACTOR = 1.0, 3.0


class LoadedPlugin:
    """One entry of the file, ready to run; `configs` are those that routes give it besides."""

    def __init__(
        self,
        settings: PluginSettings,
        module: Module,
        services: Services,
        configs: Sequence[bytes] = (),
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.inspection = inspect_module(module.info)
        self.plugin = _core_plugin(settings, self.inspection)
        self._module = module
        self.services = services
        self._configs = tuple(dict.fromkeys(configs))
        self._vms: list[Vm] = []
        self._next = 0
        self._retry_at = 0.0
        self._retry_interval = _FIRST_RETRY
        self._start_timeout = limits.START_TIMEOUT
        self._last_error: PluginLoadError | None = None
        self._lock: anyio.Lock | None = None
        #: Set when an instance may have ended what it had left to do.
        self._changed: anyio.Event | None = None
        #: The event loop in which a task replaces what has failed, and what cancels that.
        self._healing_in: object | None = None
        self._stop_healing: Cancel | None = None
        #: It is being unloaded, or is: no instance is made any more.
        self._closed = False

        if self.inspection.problems:
            raise PluginLoadError(self.name, "; ".join(self.inspection.problems))

        if self.plugin.network and not self.inspection.callbacks & NETWORK_CALLBACKS:
            reason = "it is of type network, but its module exports no callback for connections"
            raise PluginLoadError(self.name, reason, "remove its `type` if it handles requests")

    @property
    def wants_request_body(self) -> bool:
        return self._has_phase("on_request_body")

    @property
    def wants_response_body(self) -> bool:
        return self._has_phase("on_response_body")

    @property
    def may_change_request_body(self) -> bool:
        return self.wants_request_body and self.plugin.changes_bodies

    @property
    def may_change_response_body(self) -> bool:
        return self.wants_response_body and self.plugin.changes_bodies

    @property
    def sets_properties(self) -> bool:
        """Whether it can set properties that the application may want to read."""
        allowed = any(self.plugin.allows(call) for call in SET_PROPERTY_CALLS)
        return self.inspection.sets_properties and allowed

    def _has_phase(self, phase: str) -> bool:
        callback = f"proxy_{phase}"
        return (
            phase in self.plugin.phases
            and callback in self.inspection.callbacks
            and self.plugin.allows(callback)
        )

    @property
    def vms(self) -> tuple[Vm, ...]:
        """Its instances, for people who look."""
        return tuple(self._vms)

    async def start(self) -> None:
        """Start as many instances as the settings ask for, at least.

        Raises `PluginLoadError` where the plugin refuses or fails.
        """
        try:
            await self._fill()
        except PluginLoadError as error:
            self._note_failure(error)
            raise

    async def _fill(self) -> None:
        while len(self._vms) < self.settings.instances.min:
            self._add(await self._spawn())

    def _add(self, vm: Vm) -> None:
        self._vms.append(vm)
        # What it asked for while it started counts from now on.
        vm.changed()

    def _note_failure(self, error: PluginLoadError) -> None:
        self._last_error = error
        self._retry_at = time.monotonic() + self._retry_interval
        self._retry_interval = min(2 * self._retry_interval, _LAST_RETRY)
        self._start_timeout = _SHORT_START

    def ready(self) -> Vm | None:
        """The instance for the next stream; None if it must be made first (`replace`)."""
        vms = self._vms

        if not vms:
            return None

        self._next = index = (self._next + 1) % len(vms)
        vm = vms[index]
        return None if vm.guest.poisoned else vm

    async def replace(self) -> Vm:
        """A new instance in the place of one that failed, or of one that never started.

        Raises `PluginLoadError`.
        """
        if self._lock is None:
            self._lock = anyio.Lock()

        async with self._lock:
            broken = [index for index, vm in enumerate(self._vms) if vm.guest.poisoned]

            # Somebody may have replaced it in the meantime.
            if (broken or not self._vms) and not self._closed:
                await self._try_to_replace(broken)

            vm = next((vm for vm in self._vms if not vm.guest.poisoned), None)

        if vm is not None:
            return vm

        if self._closed:
            raise PluginLoadError(self.name, "it is unloaded")

        assert self._last_error is not None
        raise self._last_error.with_traceback(None)

    async def _try_to_replace(self, broken: Sequence[int]) -> None:
        """Start an instance in the place of the first that is broken, if it is time to."""
        if self._last_error is not None and time.monotonic() < self._retry_at:
            return

        try:
            vm = await self._spawn()
        except PluginLoadError as error:
            self._note_failure(error)
            _LOG.error("%s; it is tried again in %g s", error, self._retry_interval / 2)
            return

        if self._closed:
            vm.close()
            return

        self._last_error = None
        self._retry_interval = _FIRST_RETRY

        if broken:
            self._vms[broken[0]].close()
            self._vms[broken[0]] = vm
            vm.changed()
            _LOG.info("plugin %r: a failed instance was replaced", self.name)
        else:
            self._add(vm)
            await self._fill()

    async def _spawn(self) -> Vm:
        vm = Vm(self.plugin, self.services)
        vm.on_change = functools.partial(self._look_at, vm, Ticks(vm, lambda: self._may_tick(vm)))
        allowed = InstanceLimits(self.settings.memory_limit, limits.MAX_TABLE_ELEMENTS)

        guest: Instance | None = None
        started = time.monotonic()

        try:
            guest = self._module.instantiate(functools.partial(resolve, vm), allowed)
            vm.attach(guest)
            await vm.start(self._start_timeout)

            for config in self._configs:
                await vm.add_root(config, self._start_timeout)
        except BaseException as error:
            if guest is not None:
                vm.close()

            if not isinstance(error, GuestError):
                raise

            phase = f" in {error.phase}" if error.phase else ""
            reason = f"it failed{phase} while it started: {error.reason}"
            raise PluginLoadError(self.name, reason) from error

        self._start_timeout = _SHORT_START + _START_FACTOR * (time.monotonic() - started)
        return vm

    def _look_at(self, vm: Vm, ticks: Ticks) -> None:
        """Something has changed in an instance that others must know."""
        if self._changed is not None:
            self._changed.set()

        # One that is being started will be looked at when it is.
        if vm not in self._vms:
            return

        if vm.guest.poisoned and (ticks.running or vm.consumes):
            self._begin_healing()

        ticks.update()

    def _begin_healing(self) -> None:
        loop = running_loop()

        # A task of an older loop has ended with it, if it has begun at all.
        if not self._closed and loop is not None and loop is not self._healing_in:
            self._healing_in = loop
            self._stop_healing = self.services.background.start(self._heal)

    def _may_tick(self, vm: Vm) -> bool:
        if self.settings.ticks == "each":
            return True

        return vm is next((vm for vm in self._vms if not vm.guest.poisoned), None)

    async def _heal(self) -> None:
        """Replace what failed and had work of its own: no request may ever come and ask for it."""
        try:
            while any(vm.guest.poisoned for vm in self._vms):
                await anyio.sleep(self._retry_interval)

                try:
                    await self.replace()
                except PluginLoadError as error:
                    _LOG.debug("%s", error)
        finally:
            self._healing_in = None

    async def close(self) -> None:
        """End its root contexts and free its instances.

        What they have left to do (`proxy_done`) may take `limits.DONE_TIMEOUT` seconds; cancelled,
        it frees them at once.
        """
        self._closed = True

        if self._stop_healing is not None:
            self._stop_healing()

        try:
            await self._end_instances()
        finally:
            for vm in self._vms:
                vm.close()

            self._vms.clear()

    async def _end_instances(self) -> None:
        for vm in self._vms:
            await vm.end_roots()

        with anyio.move_on_after(limits.DONE_TIMEOUT):
            while any(vm.pending_done for vm in self._vms):
                self._changed = anyio.Event()
                await self._changed.wait()

        for vm in self._vms:
            await vm.shutdown()


def _core_plugin(settings: PluginSettings, inspection: Inspection) -> Plugin:
    """What the core needs of the settings and of the module."""
    level = LogLevel[settings.log_level.upper()]
    logger = logging.getLogger(f"wasm_middleware.plugin.{settings.name}")
    logger.setLevel(PYTHON_LEVELS[level])
    bodies = inspection.reads_bodies if settings.bodies is None else settings.bodies
    network = settings.type == "network"
    phases = frozenset(settings.phase) - (set() if bodies else _BODY_PHASES)
    return Plugin(
        name=settings.name,
        logger=logger,
        # Of HTTP's phases a connection has its end alone, whatever the file says.
        phases=frozenset({"on_log"}) if network else phases,
        network=network,
        root_id=settings.root_id,
        vm_id=settings.vm_id,
        vm_config=settings.vm_config,
        config=settings.config,
        log_level=level,
        log_rate=LogRate(settings.log_rate),
        timeout=settings.timeout,
        request_timeout=settings.request_timeout,
        pause_timeout=settings.pause_timeout,
        body_limit=settings.body_limit,
        fail_open=settings.failure_policy == "fail_open",
        allow_on_headers_stop_iteration=settings.allow_on_headers_stop_iteration,
        changes_bodies=inspection.changes_bodies,
        missing_header_is_empty=inspection.abi is AbiVersion.V0_1_0,
        environment=settings.environment,
        capabilities=settings.allowed_capabilities,
    )
