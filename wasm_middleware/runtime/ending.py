"""The end of what was loaded: all of it ends, whatever becomes of each part.

A part that fails is logged where it fails, and one that takes too long is left behind with a
warning; neither keeps the others open. What has failed is raised once, when all is over.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import anyio

from wasm_middleware.errors import HostBug

_LOG = logging.getLogger("wasm_middleware")

#: A part's name for people, and what ends it.
Step = tuple[str, Callable[[], Awaitable[None]]]


class Ending:
    """One end, and what went wrong with it."""

    def __init__(self) -> None:
        self._problems: list[str] = []

    async def run(self, steps: Sequence[Step], timeout: float) -> None:
        """End parts side by side, each within `timeout` seconds; never raises."""
        async with anyio.create_task_group() as group:
            for name, close in steps:
                group.start_soon(self._run, name, close, timeout)

    async def _run(self, name: str, close: Callable[[], Awaitable[None]], timeout: float) -> None:
        try:
            with anyio.move_on_after(timeout) as scope:
                await close()
        except Exception as error:
            self._note(name, error)

        if scope.cancelled_caught:
            _LOG.warning("%s has not ended within %g s", name, timeout)

    def close(self, name: str, close: Callable[[], None]) -> None:
        """End a part that ends at once; never raises."""
        try:
            close()
        except Exception as error:
            self._note(name, error)

    def _note(self, name: str, error: Exception) -> None:
        _LOG.error("%s could not be ended", name, exc_info=error)
        self._problems.append(f"{name} could not be ended: {error!r}")

    def check(self) -> None:
        """Raise `HostBug` if anything has failed."""
        if self._problems:
            raise HostBug("; ".join(self._problems))
