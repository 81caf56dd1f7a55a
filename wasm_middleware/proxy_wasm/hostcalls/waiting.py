"""Host calls that have to wait for their answers: a store over a network, say.

The guest is left in the middle of its call meanwhile (`errors.HostWait`), where calls can be left.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import NoReturn, TypeVar

from wasm_middleware.errors import HostWait

T = TypeVar("T")


def answer_with(
    found: T | Awaitable[T], give: Callable[[T], int], failed: Callable[[Exception], int]
) -> int:
    """The answer that `give` makes of what was found, at once or when it has come.

    `failed` makes one of what is raised while it is waited for.
    """
    if isinstance(found, Coroutine):
        raise HostWait(_wait(found, give, failed))

    return give(found)  # type: ignore[arg-type]


def wait_for(found: Awaitable[T], give: Callable[[T], int]) -> NoReturn:
    """The same for what never fails."""
    raise HostWait(_wait(found, give, _impossible))


async def _wait(
    found: Awaitable[T], give: Callable[[T], int], failed: Callable[[Exception], int]
) -> Callable[[], int]:
    try:
        return functools.partial(give, await found)
    except Exception as error:
        return functools.partial(failed, error)


def _impossible(error: Exception) -> NoReturn:
    raise error
