"""Host calls that have to wait for their answers: a store over a network, say.

The guest is left in the middle of its call meanwhile (`errors.HostWait`), where calls can be left.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import NoReturn, TypeVar

from wasm_middleware.errors import HostWait

T = TypeVar("T")


def answer_with(found: T | Awaitable[T], give: Callable[[T], int]) -> int:
    """The answer that `give` makes of what was found, at once or when it has come."""
    if isinstance(found, Coroutine):
        wait_for(found, give)

    return give(found)  # type: ignore[arg-type]


def wait_for(found: Awaitable[T], give: Callable[[T], int]) -> NoReturn:
    raise HostWait(_wait(found, give))


async def _wait(found: Awaitable[T], give: Callable[[T], int]) -> Callable[[], int]:
    return functools.partial(give, await found)
