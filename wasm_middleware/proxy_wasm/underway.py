"""How much memory the calls of a plugin take that are under way.

A call keeps what it sends until it is answered or given up, and how long that takes is the guest's
to say, or nobody's. The number of calls says little: ten thousand may be empty, or of 10 MiB each.
So their bytes are counted, over all instances of a plugin and all kinds of calls: one that has used
up its room takes none of another's.
"""

from __future__ import annotations

from collections.abc import Iterable

from wasm_middleware import limits
from wasm_middleware.abi.pairs import Pair


class UnderWay:
    """What all calls of one plugin hold. Belongs to one event loop's thread at a time."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0

    def hold(self, size: int) -> Held | None:
        """Room for a call of so many bytes; None if there is not enough."""
        if self.bytes + size > limits.MAX_PENDING_BYTES:
            return None

        self.bytes += size
        return Held(self, size)


class Held:
    """The room that one call takes."""

    __slots__ = ("_size", "_under_way")

    def __init__(self, under_way: UnderWay, size: int) -> None:
        self._under_way = under_way
        self._size = size

    def release(self) -> None:
        """Give it back; idempotent."""
        self._under_way.bytes -= self._size
        self._size = 0


def no_room(size: int) -> str:
    """Why a call of so many bytes is not made."""
    most = limits.MAX_PENDING_BYTES
    return f"with its {size} bytes the plugin's calls under way would hold more than {most}"


def size_of(pairs: Iterable[Pair]) -> int:
    """The memory that headers or metadata take."""
    return sum(len(name) + len(value) + limits.PAIR_OVERHEAD for name, value in pairs)
