"""A guest's memory at its address in this process: it is read without asking the engine."""

from __future__ import annotations

import ctypes
import struct

from wasm_middleware.errors import MemoryFault

_read_u32 = struct.Struct("<I").unpack_from
_write_u32 = struct.Struct("<I").pack_into
_write_u64 = struct.Struct("<Q").pack_into


class MappedMemory:
    """An engine says in `refresh` where the memory is, and how large.

    A guest's memory only grows. So a reach beyond the size that is known asks for the present one
    before it is a fault, and no other does.
    """

    __slots__ = ("_bytes", "_size", "_view")

    def refresh(self) -> None:
        """Ask the engine, and call `map`; nothing once it is closed."""
        raise NotImplementedError

    def map(self, address: int, size: int) -> None:
        """It is there, in bytes; nothing else may be there while this is used."""
        self._size = size
        array = ctypes.c_char * size
        # The same bytes twice: slices of the array are the fastest to read, of the view to write.
        self._bytes = array.from_address(address) if size else array()
        self._view = memoryview(self._bytes).cast("B")

    def close(self) -> None:
        """Be empty from now on, whoever still holds this."""
        self.map(0, 0)

    def _check(self, address: int, size: int) -> None:
        """Called only for what lies beyond the known size."""
        self.refresh()

        if address + size > self._size:
            raise MemoryFault(f"a pointer to {size} bytes at {address}, of {self._size}")

    @property
    def size(self) -> int:
        self.refresh()
        return self._size

    def read(self, address: int, size: int) -> bytes:
        end = address + size

        if end > self._size:
            self._check(address, size)

        return self._bytes[address:end]  # type: ignore[return-value]  # of c_char, it is bytes

    def read_u32(self, address: int) -> int:
        if address + 4 > self._size:
            self._check(address, 4)

        return _read_u32(self._bytes, address)[0]  # type: ignore[no-any-return]

    def write(self, address: int, data: bytes) -> None:
        end = address + len(data)

        if end > self._size:
            self._check(address, len(data))

        self._view[address:end] = data

    def write_u32(self, address: int, value: int) -> None:
        if address + 4 > self._size:
            self._check(address, 4)

        _write_u32(self._bytes, address, value)

    def write_u64(self, address: int, value: int) -> None:
        if address + 8 > self._size:
            self._check(address, 8)

        _write_u64(self._bytes, address, value)
