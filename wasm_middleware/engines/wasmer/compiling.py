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


def compile_code(wasm: bytes) -> bytes:
    """Compile; what `Module.deserialize` reads. Raises `ModuleFormatError`."""
    try:
        return bytes(wasmer.Module(new_store(), wasm).serialize())
    except BaseException as error:
        if isinstance(error, RuntimeError) or is_panic(error):
            raise ModuleFormatError(reason_of(error)) from error

        raise
