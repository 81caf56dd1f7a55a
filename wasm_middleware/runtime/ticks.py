"""Ticks: `proxy_on_tick` of root contexts, as often as they asked for.

Each root context with a tick period has one task that waits and then delivers; the next wait begins
when the tick has returned, so ticks never overlap (Envoy). A period that is set begins the wait of
its own root context anew, be it the same as before (Envoy's `Wasm::setTimerPeriod`); 0 ends the
task, and so does the end of the instance.

With `ticks: singleton` only the plugin's first instance that is alive ticks; the tasks of the
others wait along, and take over when their instance has become the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from wasm_middleware import limits
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.services.background import has_closed, running_loop

_TICK = Delivery("proxy_on_tick")


@dataclass(slots=True)
class _Wait:
    """A root context's wait for its next tick."""

    #: The root's `tick_changes` when it began.
    since: int
    #: The event loop that it waits in.
    loop: object | None = field(default_factory=running_loop)
    over: anyio.Event = field(default_factory=anyio.Event)


class Ticks:
    """The tick tasks of one instance; `may_tick` is asked before each tick."""

    def __init__(self, vm: Vm, may_tick: Callable[[], bool]) -> None:
        self._vm = vm
        self._may_tick = may_tick
        self._waits: dict[RootContext, _Wait] = {}

    @property
    def running(self) -> bool:
        """Whether any of its root contexts ticks."""
        return bool(self._waits)

    def update(self) -> None:
        """Look at the periods: some may have been set."""
        for root in self._vm.roots.values():
            wait = self._waits.get(root)

            # A task of a loop that has ended may never have begun.
            if wait is not None and not has_closed(wait.loop):
                if wait.since != root.tick_changes:
                    wait.over.set()
            elif root.tick_period:
                self._waits[root] = _Wait(root.tick_changes)
                self._vm.services.background.run(self._run, root)

    async def _run(self, root: RootContext) -> None:
        wait = self._waits[root]

        try:
            while root.tick_period and not (root.ended or self._vm.guest.poisoned):
                self._waits[root] = wait = _Wait(root.tick_changes)

                with anyio.move_on_after(max(root.tick_period / 1000, limits.MIN_TICK_PERIOD)):
                    await wait.over.wait()

                if not wait.over.is_set() and self._may_tick():
                    await self._vm.deliver(root, _TICK)
        finally:
            # Where its loop has ended, another task may have taken its place.
            if self._waits.get(root) is wait:
                del self._waits[root]
