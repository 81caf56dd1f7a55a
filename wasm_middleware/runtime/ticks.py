"""Ticks: `proxy_on_tick` of root contexts, as often as they asked for.

Each root context with a tick period has one task that waits and then delivers; the next wait begins
when the tick has returned, so ticks never overlap (Envoy). A period that changes begins the wait
anew, 0 ends the task, and so does the end of the instance.

With `ticks: singleton` only the plugin's first instance that is alive ticks; the tasks of the
others wait along, and take over when their instance has become the first.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from wasm_middleware import limits
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.vm import Vm

_TICK = Delivery("proxy_on_tick")


class Ticks:
    """The tick tasks of one instance; `may_tick` is asked before each tick."""

    def __init__(self, vm: Vm, may_tick: Callable[[], bool]) -> None:
        self._vm = vm
        self._may_tick = may_tick
        self._changes: dict[RootContext, anyio.Event] = {}

    @property
    def running(self) -> bool:
        """Whether any of its root contexts ticks."""
        return bool(self._changes)

    def update(self) -> None:
        """Look at the periods: some may have changed."""
        for root in self._vm.roots.values():
            if root in self._changes:
                self._changes[root].set()
            elif root.tick_period:
                self._changes[root] = anyio.Event()
                self._vm.services.background.run(self._run, root)

    async def _run(self, root: RootContext) -> None:
        try:
            while root.tick_period and not (root.ended or self._vm.guest.poisoned):
                self._changes[root] = changed = anyio.Event()

                with anyio.move_on_after(max(root.tick_period / 1000, limits.MIN_TICK_PERIOD)):
                    await changed.wait()

                if not changed.is_set() and self._may_tick():
                    await self._vm.deliver(root, _TICK)
        finally:
            del self._changes[root]
