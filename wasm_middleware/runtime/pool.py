"""The instances of one plugin: who gets which, how many there are, and what replaces failed ones.

Theory of operation
-------------------
A context takes an instance when it is first called: one that no call is in at that moment, in turn.
There it stays. Where all calls run from beginning to end there is always one, so that the pool
stays at `min`. Where calls are suspended, contexts may find all instances busy. Then they wait in a
queue (`waiters`), and more instances are started, up to `max`: one in each turn of the event loop,
since a start may hold it up for a while; each in a task of its own, since a start may be suspended
as well. Whoever has waited longest gets the first that is free, be it new or not (`Turn.on_free`).

Calls that a context makes later may find its instance busy, and wait for it (`Turn`): contexts are
too many for their instances then. So for `limits.INSTANCE_IDLE` seconds whoever is new gets the one
that has the fewest, and more are started, up to one for each context.

`_in_use` of the instances are in the rotation. Where these are all busy, one of the others comes
back. Where they were not for some time, the rotation shrinks to `min`, and what is left out is
closed once it has had no contexts for `limits.INSTANCE_IDLE` seconds. The first `min` are never
closed.

An instance that has failed leaves the pool at once; it is closed when the call that failed in it
has returned. Missing ones are started in the background as soon as `healing` allows it, mostly at
once; until then whoever asks for one is refused, unless there are others, and counted (`outage`).

All of this belongs to one event loop at a time. Tasks of an older one have ended with it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.lowlevel

from wasm_middleware import limits
from wasm_middleware.config.settings import Instances
from wasm_middleware.errors import PluginLoadError, PluginUnavailableError
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm
from wasm_middleware.runtime.healing import Attempt, Recovery
from wasm_middleware.runtime.outage import Outage
from wasm_middleware.runtime.waiters import Waiter, Waiters
from wasm_middleware.services.background import Tasks, running_loop

_LOG = logging.getLogger("wasm_middleware")

#: How often it is looked at what is not used, in a period after which that is closed.
_LOOKS = 6


class Pool:
    """See the module's theory of operation. `spawn` starts an instance, or raises
    `PluginLoadError`."""

    def __init__(
        self,
        name: str,
        instances: Instances,
        spawn: Callable[[], Awaitable[Vm]],
        *,
        fail_open: bool,
    ) -> None:
        self._name = name
        self._min, self._max = instances.min, instances.most
        self._spawn = spawn
        self._recovery = Recovery(name)
        self._outage = Outage(name, fail_open=fail_open)
        #: A stream has come to its end without a failure, on whatever instance.
        self.served = self._recovery.served
        #: Those that have not failed; first those in the rotation.
        self.vms: list[Vm] = []
        self._attempts: dict[Vm, Attempt] = {}
        self._in_use = self._min
        self._next = 0
        #: The rotation was too small since that was last looked at.
        self._crowded = False
        #: Waiters were refused, and that was logged.
        self._refusing = False
        #: What is being started, and what of it has not begun.
        self._starts: set[Attempt] = set()
        self._unbegun: deque[Attempt] = deque()
        #: What was lost and is to be replaced.
        self._missing = 0
        #: Which of the tasks are there.
        self._beginning = self._retrying = self._trimming = False
        self._loop: object | None = None
        self._tasks = Tasks()
        self._waiters = Waiters(self._tasks)
        #: Until when contexts are spread, by `time.monotonic`.
        self._spread_until = 0.0
        #: A stream, if it waits, is not to wait any longer.
        self.leave = self._waiters.end
        #: Set when an instance may have ended what it had left to do.
        self._changed: anyio.Event | None = None
        self._closed = False

    # Taking

    def any(self) -> Vm | None:
        """Some instance, busy or not, if there is one at all."""
        return self.vms[0] if self.vms else None

    def ready(self) -> Vm | None:
        """An instance that no call is in at this moment, if there is one."""
        if self._waiters or self._waiters.handed:
            return None

        vms = self.vms
        count = len(vms)

        # As it mostly is; each request comes by here.
        if count == self._min and not self._spread_until:
            self._next = index = (self._next + 1) % count
            vm = vms[index]

            if not (vm.turn.busy or vm.guest.poisoned):
                return vm

        return self._free()

    async def take(self, stream: Stream) -> Vm:
        """Wait for an instance; raises `PluginUnavailableError`."""
        self._follow()
        waiters = self._waiters

        if len(waiters) >= limits.MAX_INSTANCE_WAITERS:
            raise self._busy(f"{len(waiters)} requests wait for one of its instances already")

        waiter = waiters.join(stream)

        while True:
            vm = await self._wait(waiter)

            if not vm.guest.poisoned:
                return vm

            # It has failed before it was the stream's turn to go on.
            waiters.rejoin(waiter)

    async def _wait(self, waiter: Waiter) -> Vm:
        waiters = self._waiters

        try:
            self._provide()
            await waiters.wait(waiter)
        except BaseException:
            waiters.leave(waiter)

            if waiter.vm is not None:
                self._provide()

            raise

        vm = waiter.vm
        waiters.leave(waiter)

        if vm is not None:
            # Whoever got it may not use it at once.
            if waiters:
                self._tasks.run(self._provide_later)

            return vm

        if waiter.late:
            waited = limits.MAX_INSTANCE_WAIT
            raise self._busy(f"none of its {len(self.vms)} instances was free within {waited:g} s")

        if self._closed:
            raise PluginUnavailableError(self._name, "it is unloaded", kind="start")

        raise self._recovery.error()

    def _busy(self, reason: str) -> PluginUnavailableError:
        error = PluginUnavailableError(
            self._name, reason, f"instances.max is {self._max}", kind="pool"
        )

        if not self._refusing:
            self._refusing = True
            _LOG.error("%s", error, extra={"plugin": self._name, "phase": ""})

        return error

    def _is_free(self, vm: Vm) -> bool:
        return not (vm.turn.busy or vm.guest.poisoned or vm in self._waiters.handed)

    def _free(self) -> Vm | None:
        if self._spreads():
            return self._least_used()

        vms = self.vms
        count = min(self._in_use, len(vms))

        for _ in range(count):
            self._next = index = (self._next + 1) % count

            if self._is_free(vms[index]):
                return vms[index]

        for index in range(count, len(vms)):
            if self._is_free(vms[index]):
                # It comes back into the rotation.
                vms[count], vms[index] = vms[index], vms[count]
                self._in_use += 1
                self._crowded = True
                return vms[count]

        return None

    def _least_used(self) -> Vm | None:
        free = [vm for vm in self.vms if self._is_free(vm)]
        return min(free, key=lambda vm: len(vm.contexts), default=None)

    def _spreads(self) -> bool:
        """Whether calls have waited for one another on an instance, not long ago."""
        if self._spread_until and time.monotonic() >= self._spread_until:
            self._spread_until = 0.0

        return self._spread_until > 0.0

    def _spread(self) -> None:
        """A context waits for its instance: there are too few."""
        self._spread_until = time.monotonic() + limits.INSTANCE_IDLE
        self._in_use, self._crowded = max(self._min, len(self.vms)), True

        if not self._starts:
            self._start_missing()

    async def _provide_later(self) -> None:
        self._provide()

    def _provide(self) -> None:
        """Give waiters what is free, and let what is missing be started."""
        if self._closed:
            self._waiters.give_up()
            return

        for vm in [vm for vm in self.vms if vm.guest.poisoned]:
            self._remove(vm)

        while self._waiters and (free := self._free()) is not None:
            self._waiters.give(free)

        self._start_missing()

        if self._waiters and not (self.vms or self._starts):
            self._outage.refused(len(self._waiters), self._recovery.error())
            self._waiters.give_up()

        if self._waiters:
            self._crowded = True
        else:
            self._refusing = False
            self._waiters.rest()

        # It costs something at each call, and is hardly ever needed.
        on_free = self._provide if self._waiters else None

        for vm in self.vms:
            vm.turn.on_free = on_free

    # Starting

    async def start(self) -> None:
        """Start as many as there are to be at least; raises `PluginLoadError`."""
        self._follow()
        attempts = [self._recovery.begin() for _ in range(self._min - len(self.vms))]
        self._starts.update(attempts)

        try:
            for _ in attempts:
                attempt = self._recovery.begin()

                try:
                    self._add(await self._spawn(), attempt)
                except PluginLoadError as error:
                    self._recovery.start_failed(attempt, error)
                    raise
        finally:
            self._starts.difference_update(attempts)

            # What is missing is tried again later.
            self._provide()

    @property
    def retry_in(self) -> float:
        """Seconds until what has failed is started again, if anything has."""
        return max(self._recovery.wait, 0.0)

    def _start_missing(self) -> None:
        recovery = self._recovery

        if self._closed or recovery.disabled or not self._follow():
            return

        count = self._lacking() - len(self._starts)

        if count <= 0:
            return

        if recovery.wait > 0:
            if not self._retrying:
                self._retrying = True
                self._tasks.run(self._retry)

            return

        if recovery.troubled:
            # One will show whether there is any sense in it.
            count = min(count, 1 - len(self._starts))

        for _ in range(count):
            attempt = recovery.begin()
            self._starts.add(attempt)
            self._unbegun.append(attempt)

        if self._unbegun and not self._beginning:
            self._beginning = True
            self._tasks.run(self._begin_starts)

    def _lacking(self) -> int:
        """How many more instances there are to be."""
        lacking = self._min - len(self.vms)

        if lacking > 0:
            return lacking

        # Who was given one and has not gone on yet may be done with it in no time.
        wanted = len(self._waiters) if all(vm.turn.busy for vm in self.vms) else 0

        if self._spreads():
            contexts = sum(len(vm.contexts) - len(vm.roots) for vm in self.vms)
            wanted = max(wanted, contexts - len(self.vms))

        return min(wanted, self._max - len(self.vms))

    async def _retry(self) -> None:
        try:
            # What is served meanwhile may end the pause.
            while (wait := self._recovery.wait) > 0:
                await anyio.sleep(min(wait, limits.FIRST_RESTART))
        finally:
            self._retrying = False

        self._provide()

    async def _begin_starts(self) -> None:
        """One in a turn of the event loop, and none that nobody needs any more."""
        try:
            while self._unbegun:
                attempt = self._unbegun.popleft()

                if self._waiters or self._lacking() > 0:
                    self._tasks.run(self._start_one, attempt)
                else:
                    self._starts.discard(attempt)

                await anyio.lowlevel.checkpoint()
        finally:
            self._beginning = False

    async def _start_one(self, attempt: Attempt) -> None:
        try:
            self._add(await self._spawn(), attempt)
        except PluginLoadError as error:
            self._note_failure(attempt, error)
        except Exception as error:
            _LOG.exception("plugin %r could not be started; please report this", self._name)
            self._note_failure(attempt, PluginLoadError(self._name, f"it failed: {error!r}"))
        finally:
            self._starts.discard(attempt)

        self._provide()

    def _note_failure(self, attempt: Attempt, error: PluginLoadError) -> None:
        recovery = self._recovery

        if not recovery.start_failed(attempt, error):
            _LOG.debug("%s", error)
        elif recovery.disabled:
            _LOG.error("%s", recovery.error(), extra={"plugin": self._name, "phase": "start"})
        else:
            extra = {"plugin": self._name, "phase": "start"}
            _LOG.error("%s; it is tried again in %.1f s", error, recovery.wait, extra=extra)

    def _add(self, vm: Vm, attempt: Attempt) -> None:
        if self._closed:
            vm.close()
            return

        self._recovery.started()
        self._attempts[vm] = attempt
        self.vms.insert(self._in_use, vm)

        if len(self.vms) > self._in_use:
            self._in_use += 1
            self._begin_trimming()

        if self._missing:
            self._missing -= 1
            _LOG.info("plugin %r: a failed instance was replaced", self._name)

        self._outage.over()

        vm.turn.on_wait = self._spread
        # What it asked for while it started counts from now on.
        vm.changed()

    # Losing and closing

    def lost(self, vm: Vm) -> None:
        """An instance has failed, and is replaced."""
        if not self._closed:
            self._remove(vm)
            self._provide()

    def _remove(self, vm: Vm) -> None:
        if not vm.interrupted:
            self._note_loss(self._attempts[vm])

        self._drop(vm)

        if len(self.vms) < self._min:
            self._missing += 1

        if vm.turn.busy:
            # The call that failed in it has not returned yet.
            vm.turn.on_free = vm.close
        else:
            vm.close()

    def _note_loss(self, attempt: Attempt) -> None:
        recovery = self._recovery

        if recovery.lost(attempt):
            self._outage.left_alone(recovery.useless, recovery.wait)

    def _drop(self, vm: Vm) -> None:
        index = self.vms.index(vm)
        del self.vms[index], self._attempts[vm]
        vm.turn.on_free = vm.turn.on_wait = None

        if self._min < self._in_use and index < self._in_use:
            self._in_use -= 1

    def _begin_trimming(self) -> None:
        if not self._trimming:
            self._trimming = True
            self._tasks.run(self._trim)

    async def _trim(self) -> None:
        """Close what is not needed, for as long as there is more than the least."""
        unused_since: dict[Vm, float] = {}

        try:
            while len(self.vms) > self._min:
                await anyio.sleep(limits.INSTANCE_IDLE / _LOOKS)
                unused = [vm for vm in self.vms[self._in_use :] if not self._is_used(vm)]
                now = anyio.current_time()
                unused_since = {vm: unused_since.get(vm, now) for vm in unused}

                if not (self._crowded or self._spreads()):
                    self._in_use = self._min

                self._crowded = False

                for vm, since in unused_since.items():
                    # In the meantime it may have come back, or failed.
                    if (
                        now - since >= limits.INSTANCE_IDLE
                        and vm in self.vms[self._in_use :]
                        and not self._is_used(vm)
                    ):
                        self._drop(vm)
                        await self._end([vm])
        finally:
            self._trimming = False

    def _is_used(self, vm: Vm) -> bool:
        """Whether it has contexts, waits for anything, or is the only one told something."""
        if not self._is_free(vm) or vm.calls or len(vm.contexts) > len(vm.roots):
            return True

        return bool(_queues(vm).difference(*(_queues(one) for one in self.vms if one is not vm)))

    def noticed(self) -> None:
        """Something has changed in an instance."""
        if self._changed is not None:
            self._changed.set()

    async def close(self) -> None:
        """End all root contexts, and free the instances; cancelled, it frees them at once."""
        self._closed = True

        try:
            self._follow()
            self._waiters.give_up()
            await self._tasks.aclose()
            await self._end(tuple(self.vms))
        finally:
            for vm in tuple(self.vms):
                vm.close()

            self.vms.clear()
            self._attempts.clear()

    async def _end(self, vms: Sequence[Vm]) -> None:
        """End instances; the calls in them, and what they have left to do (`proxy_done`), may take
        some time."""
        try:
            with anyio.move_on_after(limits.DONE_TIMEOUT):
                for vm in vms:
                    async with vm.turn:
                        pass

            quiet = [vm for vm in vms if not vm.turn.busy]

            for vm in quiet:
                await vm.end_roots()

            with anyio.move_on_after(limits.DONE_TIMEOUT):
                while any(vm.pending_done for vm in quiet):
                    self._changed = anyio.Event()
                    await self._changed.wait()

            for vm in quiet:
                await vm.shutdown()
        finally:
            for vm in vms:
                vm.close()

    def _follow(self) -> bool:
        """Forget what was under way in an event loop that has ended; False outside of any."""
        loop = running_loop()

        if loop is None:
            return False

        if loop is not self._loop:
            self._loop = loop
            self._beginning = self._retrying = self._trimming = False
            self._starts.clear()
            self._unbegun.clear()
            self._waiters.forget()

            # Whoever was in the midst of a call will not go on with it.
            for vm in [vm for vm in self.vms if vm.turn.busy]:
                self._drop(vm)
                vm.close()

            if len(self.vms) > self._min:
                self._begin_trimming()

        return True


def _queues(vm: Vm) -> set[int]:
    return {queue for root in vm.roots.values() for queue in root.queues}
