"""A loaded plugin: its compiled module, what follows from it, and how an instance is started.

The first start may take a long time. Later ones, which requests wait for, may take no more than a
little above what the last one took.

Belongs to one event loop's thread at a time.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence

from wasm_middleware import limits
from wasm_middleware.abi.enums import AbiVersion, LogLevel
from wasm_middleware.config import PluginSettings
from wasm_middleware.engines.protocol import Instance, InstanceLimits, Module
from wasm_middleware.errors import GuestError, PluginLoadError
from wasm_middleware.proxy_wasm.hostcalls import resolve
from wasm_middleware.proxy_wasm.lograte import LogRate
from wasm_middleware.proxy_wasm.plugin import PYTHON_LEVELS, Plugin
from wasm_middleware.proxy_wasm.ports import Services
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.runtime.inspection import (
    NETWORK_CALLBACKS,
    SET_PROPERTY_CALLS,
    Inspection,
    inspect_module,
)
from wasm_middleware.runtime.pool import Pool
from wasm_middleware.runtime.ticks import Ticks

_BODY_PHASES = {"on_request_body", "on_response_body"}
#: How long a start may take that requests may wait for: so many seconds, and so many times the
#: last one.
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
        self._start_timeout = limits.START_TIMEOUT
        self._pool = Pool(settings.name, settings.instances, self._spawn)
        #: See `Pool`; it fulfils `ports.Instances`.
        self.any, self.ready = self._pool.any, self._pool.ready
        self.take, self.leave = self._pool.take, self._pool.leave

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
        return tuple(self._pool.vms)

    async def start(self) -> None:
        """Start as many instances as the settings ask for, at least.

        Raises `PluginLoadError` where the plugin refuses or fails; it is tried again later.
        """
        await self._pool.start()

    async def close(self) -> None:
        """End its root contexts and free its instances.

        What they have left to do (`proxy_done`) may take `limits.DONE_TIMEOUT` seconds; cancelled,
        it frees them at once.
        """
        await self._pool.close()

    async def _spawn(self) -> Vm:
        """Start an instance; raises `PluginLoadError`."""
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

            self._start_timeout = _SHORT_START

            if not isinstance(error, GuestError):
                raise

            phase = f" in {error.phase}" if error.phase else ""
            reason = f"it failed{phase} while it started: {error.reason}"
            raise PluginLoadError(self.name, reason) from error

        self._start_timeout = _SHORT_START + _START_FACTOR * (time.monotonic() - started)
        return vm

    def _look_at(self, vm: Vm, ticks: Ticks) -> None:
        """Something has changed in an instance that others must know."""
        self._pool.noticed()

        # One that is being started will be looked at when it is.
        if vm in self._pool.vms:
            if vm.guest.poisoned:
                self._pool.lost(vm)
        elif not ticks.running:
            return

        ticks.update()

    def _may_tick(self, vm: Vm) -> bool:
        return self.settings.ticks == "each" or self._pool.vms[:1] == [vm]


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
