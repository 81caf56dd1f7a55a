"""WebAssembly's text format, for tests: read by whichever engine is installed."""

from __future__ import annotations

try:
    from wasmtime import wat2wasm as _wat2wasm
except ImportError:
    # It knows the text of 2022, which is enough for what every engine is shown.
    from wasmer import wat2wasm as _wat2wasm


def wat2wasm(text: str) -> bytes:
    """The module in the binary format; raises whatever the engine raises for wrong text."""
    return bytes(_wat2wasm(text))
