"""From a module's bytes to machine code as bytes.

The compiler is of 2021. It panics where it meets what it can't do, and what it has locked then
stays locked: so each module is compiled in a store of its own. It keeps the interpreter's lock.
"""

from __future__ import annotations

import wasmer
import wasmer_compiler_cranelift

from wasm_middleware.engines.module_info import ModuleFormatError
from wasm_middleware.engines.wasmer.boundary import is_panic, reason_of

#: Where `engines.isolation` finds `compile_code`.
SERVER = __name__


def new_store() -> wasmer.Store:
    return wasmer.Store(wasmer.engine.Universal(wasmer_compiler_cranelift.Compiler))


def validate(wasm: bytes) -> None:
    """Raise `ModuleFormatError` unless it is a module that wasmer takes."""
    store = new_store()

    if not wasmer.Module.validate(store, wasm):
        # It does not say why; compiling does, and begins with the same.
        compile_code(wasm)
        raise ModuleFormatError("wasmer says that it is not valid, and not why")


def compile_code(wasm: bytes) -> bytes:
    """Compile; what `Module.deserialize` reads. Raises `ModuleFormatError`."""
    try:
        return bytes(wasmer.Module(new_store(), wasm).serialize())
    except BaseException as error:
        if isinstance(error, RuntimeError) or is_panic(error):
            raise ModuleFormatError(_explained(reason_of(error))) from error

        raise


def _explained(reason: str) -> str:
    """The compiler is of 2021; what it says of newer WebAssembly is that it is not enabled."""
    return f"{reason}; engine: wasmtime has more" if "enabled" in reason else reason
