"""Host calls that have to wait for their answers: a store over a network, say.

The guest is left in the middle of its call meanwhile (`errors.HostWait`), where calls can be left.
A wait that is given up answers with the call's failure; its request gets the failure policy, and
the instance, which others are on, is as good as before.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import NoReturn, TypeVar

from wasm_middleware.abi.enums import Status
from wasm_middleware.errors import GuestError, HostWait
from wasm_middleware.proxy_wasm.vm import Vm

S = TypeVar("S")
T = TypeVar("T")


def answer_with(
    found: T | Awaitable[T], give: Callable[[T], int], failed: Callable[[Exception], int]
) -> int:
    """The answer that `give` makes of what was found, at once or when it has come.

    `failed` makes one of what is raised while it is waited for, or why that was given up.
    """
    if not isinstance(found, Coroutine):
        return give(found)  # type: ignore[arg-type]

    async def wait() -> Callable[[], int]:
        try:
            return functools.partial(give, await found)
        except Exception as error:
            return functools.partial(failed, error)

    raise HostWait(wait, failed, functools.partial(_forget, found))


def wait_for(
    vm: Vm,
    found: Awaitable[S],
    outcome: Callable[[Awaitable[S]], Awaitable[T]],
    give: Callable[[T], int],
    status: Status,
) -> NoReturn:
    """The same for what comes of `outcome`, which never fails; `status` is for what is given up."""

    async def wait() -> Callable[[], int]:
        return functools.partial(give, await outcome(found))

    raise HostWait(
        wait,
        lambda error: fail_context(vm, error, status),
        functools.partial(_forget, found),
    )


def fail_context(vm: Vm, error: GuestError, status: Status) -> Status:
    """The request gets its failure policy, and the guest a status that its SDK takes."""
    error.plugin, error.phase = vm.plugin.name, vm.phase

    if vm.context is not None:
        vm.context.fail(error)

    return status


def _forget(found: Awaitable[object]) -> None:
    """Nobody waits for it. What has not begun is closed, so that Python does not complain of it."""
    if inspect.iscoroutine(found) and inspect.getcoroutinestate(found) == inspect.CORO_CREATED:
        found.close()
