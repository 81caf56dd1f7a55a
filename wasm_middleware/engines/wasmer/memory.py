"""A guest's memory, at the address of the buffer that wasmer gives.

A buffer is of the size that the memory had, so a new one is taken whenever the guest has grown its
memory: the guest itself says so (`engines.metering`), and an old one is never used again. Only its
address is kept. The buffer would have to be let go of on the thread that took it.
"""

from __future__ import annotations

import ctypes

import wasmer

from wasm_middleware.engines.mapped_memory import MappedMemory


class WasmerMemory(MappedMemory):
    """Guest memory; `refresh` after each growth."""

    __slots__ = ("_memory",)

    def __init__(self, memory: wasmer.Memory) -> None:
        self._memory: wasmer.Memory | None = memory
        self.refresh()

    def refresh(self) -> None:
        if self._memory is not None:
            size: int = self._memory.data_size
            # A buffer of nothing has no address.
            buffer = (ctypes.c_char * size).from_buffer(self._memory.buffer) if size else None
            self.map(0 if buffer is None else ctypes.addressof(buffer), size)

    def close(self) -> None:
        self._memory = None
        super().close()
