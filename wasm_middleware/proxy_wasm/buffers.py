"""A buffer that a guest may read and splice: a body, or what has gathered of one.

Spec v0.2.1, `proxy_set_buffer_bytes`: bytes `start` to `start + size` are replaced by the value.
So (0, 0) prepends, a start at or beyond the end appends, and the rest replaces or injects; both
ends are clipped to what is there.
"""

from __future__ import annotations


class Buffer:
    """Bytes in place; `changed` tells whether a guest has written to them."""

    __slots__ = ("changed", "data")

    def __init__(self, data: bytes | bytearray = b"") -> None:
        self.data = data
        self.changed = False

    def __len__(self) -> int:
        return len(self.data)

    def get(self, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`; nothing where that is beyond the end."""
        return bytes(self.data[start : start + size])

    def splice(self, start: int, size: int, value: bytes) -> None:
        """Replace `size` bytes from `start` by `value`."""
        data = self.data
        self.changed = True

        if isinstance(data, bytearray):
            data[start : start + size] = value
        elif start == 0 and size >= len(data):
            self.data = value
        else:
            self.data = data[:start] + value + data[start + size :]

    def append(self, data: bytes) -> None:
        """Add what has arrived; in amortised constant time a byte."""
        if not self.data:
            self.data = data
            return

        if isinstance(self.data, bytes):
            self.data = bytearray(self.data)

        self.data += data


#: What may be read where there is no body, or none yet; nothing is ever written to it.
EMPTY = Buffer()
