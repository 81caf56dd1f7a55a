"""Contexts: what an id of the ABI stands for.

A VM has root contexts (one for each configuration of its plugin) and those of chains: one for each
request, or connection, that passes it. Host calls ask the effective context; what a kind of context
does not have is answered here by "there is none".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_middleware.abi.enums import Action, BufferType, MapType
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.abi.properties import Path
from wasm_middleware.errors import (
    AbiViolation,
    GuestError,
    PluginFailure,
    PluginUnavailableError,
)
from wasm_middleware.proxy_wasm.buffers import Buffer
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.properties import PluginProperties

if TYPE_CHECKING:
    from wasm_middleware.proxy_wasm.plugin import Plugin
    from wasm_middleware.proxy_wasm.ports import GuestFunction, Instances
    from wasm_middleware.proxy_wasm.reply import LocalReply
    from wasm_middleware.proxy_wasm.stream import Stream
    from wasm_middleware.proxy_wasm.vm import Vm


class Context:
    """What every context answers; a root context answers little more."""

    __slots__ = ("id", "root", "time_left", "vm")

    def __init__(self, vm: Vm, context_id: int, root: RootContext | None) -> None:
        #: Nanoseconds that are left for its calls, by the clock on the wall; None for no limit.
        self.time_left: int | None = None
        self.vm = vm
        self.id = context_id
        self.root = root

    def header_map(self, map_type: int) -> HeaderMap | None:
        """The map, or None where it does not exist, or not yet."""
        delivery = self.vm.delivery
        return delivery.maps.get(MapType(map_type)) if delivery is not None else None

    def writable_map(self, map_type: int) -> HeaderMap | None:
        """The map, if a change to it would still have an effect."""
        return None

    def buffer(self, buffer_type: int) -> Buffer | None:
        """The buffer, or None where there is nothing in it at this moment."""
        if buffer_type == BufferType.PLUGIN_CONFIGURATION and self.root is not None:
            return Buffer(self.root.config)

        if buffer_type == BufferType.VM_CONFIGURATION:
            return Buffer(self.vm.plugin.vm_config)

        delivery = self.vm.delivery
        return delivery.buffers.get(BufferType(buffer_type)) if delivery is not None else None

    def body_limit_exceeded(self, buffer_type: int) -> None:
        """A guest wants to make a body larger than it may be."""

    def trace_headers(self) -> list[Pair]:
        """The request's headers that tie a call to the trace it is made in."""
        return []

    def break_abi(self, reason: str) -> None:
        """The guest has asked for something that can't be done, nor be left undone in silence."""
        vm = self.vm
        self.fail(AbiViolation(reason, plugin=vm.plugin.name, phase=vm.phase))

    def fail(self, error: GuestError) -> None:
        """Its stream gets the failure policy, though the guest goes on; a root context has none."""
        self.vm.report(error)

    def instance_lost(self, error: GuestError) -> None:
        """The instance failed in a call of another context."""

    def send_local_response(self, reply: LocalReply) -> None:
        """Note a reply; whether it is sent is the stream's affair."""
        self.vm.log_refusal("proxy_send_local_response", "there is no stream to reply to")

    def resume(self, *, response: bool) -> None:
        """Let a paused direction go on once the guest has returned."""
        self.vm.log_refusal("proxy_continue_stream", "there is no stream to continue")

    def close(self) -> None:
        """End the stream once the guest has returned."""
        self.vm.log_refusal("proxy_close_stream", "there is no stream to close")

    def resume_connection(self, *, upstream: bool) -> None:
        """Let a paused direction of a connection go on once the guest has returned."""
        self.vm.log_refusal("proxy_continue_stream", "there is no connection to continue")

    def close_connection(self, *, upstream: bool) -> None:
        """End the connection once the guest has returned; a stream ends whatever it was called."""
        self.close()

    def get_property(self, path: Path) -> bytes | None:
        """The encoded value, or None. Who the plugin is comes first: nobody changes that."""
        return self.vm.properties.get(path)

    def set_property(self, path: Path, value: bytes) -> bool:
        """Keep a value; False where that would take more memory than `limits` allows."""
        return False


class ChainContext(Context):
    """One plugin's context in a chain of them, in a stream or in a connection.

    The guest learns of it when it is first called. Only then is the instance chosen that it stays
    on, since who is busy by then is known by then: until it is `created`, `vm` is any of the
    plugin's, which can say what callbacks there are.
    """

    __slots__ = ("_instances", "created", "left_out", "plugin", "stream")

    root: RootContext
    #: The request; that which began the connection.
    stream: Stream

    def __init__(
        self, vm: Vm, root: RootContext, stream: Stream, instances: Instances | None
    ) -> None:
        super().__init__(vm, 0, root)
        self.plugin: Plugin = vm.plugin
        self.stream = stream
        #: None where it is to be `vm`.
        self._instances = instances
        #: The guest knows it: `proxy_on_context_create` was called, or would have been.
        self.created = False
        #: It failed under fail_open, or ended the stream: no phase of it runs any more.
        self.left_out = False

    async def call(
        self, function: GuestFunction | None, phase: str, first: int = 0, second: int = 0
    ) -> int:
        """Run one phase, if there is such a callback; the action that its answer, or its failure,
        stands for."""
        try:
            if not self.created:
                await self._create()
                function = self.vm.callbacks.phases[phase]

            if function is None:
                return Action.CONTINUE

            return await self.vm.enter(self, function, phase, self.id, first, second)
        except (GuestError, PluginUnavailableError) as error:
            return self.failed(error)

    def failed(self, error: PluginFailure) -> int:
        """Apply the failure policy; the action that the failed call counts as."""
        raise NotImplementedError

    async def _create(self) -> None:
        if self._instances is not None:
            self.move_to(self._instances.ready() or await self._instances.take(self.stream))

        vm = self.vm
        self.id = vm.new_id()
        self.created = True
        vm.contexts[self.id] = self
        create = vm.callbacks.context_create

        if create is None:
            return

        try:
            await vm.enter(self, create, "on_context_create", self.id, self.root.id)
        except (GuestError, PluginUnavailableError):
            # It was never entered, and must not hear of the end of what it does not know.
            if not vm.guest.poisoned:
                del vm.contexts[self.id]
                self.created = False

            raise

    def tell_served(self) -> None:
        """The stream is over: unless the plugin has failed in it, that speaks for the plugin."""
        if self._instances is not None and not self.left_out:
            self._instances.served()

    def move_to(self, vm: Vm) -> None:
        """Another instance is the one that it stays on."""
        if vm is not self.vm:
            self.vm, self.root = vm, vm.roots[self.root.config]


class RootContext(Context):
    """One configuration of a plugin on one VM."""

    __slots__ = (
        "_tick_period",
        "config",
        "done_pending",
        "ended",
        "properties",
        "queues",
        "tick_changes",
    )

    def __init__(self, vm: Vm, context_id: int, config: bytes) -> None:
        super().__init__(vm, context_id, None)
        self.root = self
        self.config = config
        #: Its `proxy_on_done` answered false: it waits for `proxy_done`.
        self.done_pending = False
        #: It is done; nothing is delivered to it any more.
        self.ended = False
        self._tick_period = 0
        #: How often the period was set: the same one set anew counts (Envoy: `setTimerPeriod`).
        self.tick_changes = 0
        #: The queues whose messages it wants to be told of.
        self.queues: set[int] = set()
        #: What the plugin has set here, for all of its streams.
        self.properties = PluginProperties()

    def get_property(self, path: Path) -> bytes | None:
        value = super().get_property(path)
        return self.properties.get(path) if value is None else value

    def set_property(self, path: Path, value: bytes) -> bool:
        return self.properties.store(path, value)

    @property
    def tick_period(self) -> int:
        """Milliseconds between two ticks, as the guest asked for; 0 is off."""
        return self._tick_period

    @tick_period.setter
    def tick_period(self, period: int) -> None:
        self._tick_period = period
        self.tick_changes += 1

    def retire(self) -> None:
        """Nothing comes to it any more: no ticks, no messages."""
        self.tick_period = 0

        for queue in self.queues:
            self.vm.services.queues.unregister(queue, self.queue_ready)

    def queue_ready(self, queue: int) -> bool:
        """A message has come into a queue that it registered: say so after the current call."""
        vm = self.vm

        if self.ended or vm.guest.poisoned:
            return False

        vm.services.background.run(self._tell_ready, queue)
        return True

    async def _tell_ready(self, queue: int) -> None:
        await self.vm.deliver(self, Delivery("proxy_on_queue_ready", (queue,)))
        self.vm.services.queues.told(queue)
