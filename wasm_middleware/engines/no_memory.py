"""The memory of a module that exports none."""

from __future__ import annotations

from wasm_middleware.errors import MemoryFault


class NoMemory:
    """Every reach into it is a fault."""

    size = 0

    def read(self, address: int, size: int) -> bytes:
        raise MemoryFault("the module exports no memory")

    def read_u32(self, address: int) -> int:
        raise MemoryFault("the module exports no memory")

    def write(self, address: int, data: bytes) -> None:
        raise MemoryFault("the module exports no memory")

    def write_u32(self, address: int, value: int) -> None:
        raise MemoryFault("the module exports no memory")

    write_u64 = write_u32

    def close(self) -> None:
        """There is nothing to let go of."""
