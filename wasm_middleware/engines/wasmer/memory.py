"""A guest's memory, at the address of the buffer that wasmer gives.

A buffer is of the size that the memory had, so a new one is taken whenever the guest has grown its
memory: the guest itself says so (`engines.metering`), and an old one is never used again. Only its
address is kept. The buffer would have to be let go of on the thread that took it.
"""

from __future__ import annotations

import ctypes
import struct

import wasmer

from wasm_middleware.errors import MemoryFault

_read_u32 = struct.Struct("<I").unpack_from
_write_u32 = struct.Struct("<I").pack_into
_write_u64 = struct.Struct("<Q").pack_into


class WasmerMemory:
    """Guest memory; `refresh` after each growth."""

    __slots__ = ("_bytes", "_memory", "_size", "_view")

    def __init__(self, memory: wasmer.Memory) -> None:
        self._memory: wasmer.Memory | None = memory
        self.refresh()

    def refresh(self) -> None:
        """Take the buffer that the memory has now."""
        if self._memory is not None:
            self._size: int = self._memory.data_size
            array = ctypes.c_char * self._size
            # A buffer of nothing has no address.
            address = ctypes.addressof(array.from_buffer(self._memory.buffer)) if self._size else 0
            # The same bytes twice: slices of the array are the fastest to read, of the view to
            # write.
            self._bytes = array.from_address(address) if address else array()
            self._view = memoryview(self._bytes).cast("B")

    def _check(self, address: int, size: int) -> None:
        if address + size > self._size:
            raise MemoryFault(f"a pointer to {size} bytes at {address}, of {self._size}")

    @property
    def size(self) -> int:
        return self._size

    def read(self, address: int, size: int) -> bytes:
        end = address + size

        if end > self._size:
            self._check(address, size)

        return self._bytes[address:end]  # type: ignore[no-any-return]  # of c_char, it is bytes

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

    def close(self) -> None:
        """Be empty from now on, whoever still holds this."""
        self._memory = None
        self._size = 0
        self._bytes = (ctypes.c_char * 0)()
        self._view = memoryview(b"")
