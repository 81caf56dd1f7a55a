"""From a module's bytes to machine code as bytes.

The compiler is of 2022. It panics where it meets what it can't do, and what it has locked then
stays locked: so each module is compiled in a store of its own. It keeps the interpreter's lock.

Whatever takes as long as the module is large is done here, and so by the other process where a
module is compiled in one (`engines.isolation`): it is validated as it came, so that what is wrong
with it is told in its own terms, rewritten, and compiled.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import wasmer
import wasmer_compiler_cranelift

from wasm_middleware.engines.isolation import Bounds, CompilationFailed, compile_isolated
from wasm_middleware.engines.metering import Needs, meter
from wasm_middleware.engines.metering.code import FunctionType
from wasm_middleware.engines.module_info import MemoryType, ModuleFormatError
from wasm_middleware.engines.wasmer.boundary import is_panic, reason_of


@dataclass(frozen=True, slots=True)
class Compiled:
    """What `Module.deserialize` reads, and what an instance has to be given."""

    code: bytes
    needs: Needs


class _Said(TypedDict):
    """`Needs`, as JSON."""

    imports: list[list[str]]
    memory: tuple[int, int | None] | None
    tables: list[int]


def new_store() -> wasmer.Store:
    return wasmer.Store(wasmer.engine.Universal(wasmer_compiler_cranelift.Compiler))


def compile_metered(wasm: bytes, stack: int, table_elements: int) -> Compiled:
    """Rewrite (see `metering.meter`) and compile. Raises `ModuleFormatError`."""
    _validate(wasm)
    metered = meter(wasm, stack, table_elements)
    return Compiled(_compile(metered.wasm), metered.needs)


def compile_metered_isolated(
    wasm: bytes, stack: int, table_elements: int, bounds: Bounds
) -> Compiled:
    """The same, in a process of its own; `CompilationFailed` where it takes too much."""
    answer = compile_isolated(__name__, b"%d %d\n" % (stack, table_elements) + wasm, bounds)
    head, _, code = answer.partition(b"\n")

    try:
        needs = _needs(json.loads(head))
    except (ValueError, TypeError, KeyError) as error:
        raise CompilationFailed(
            f"what the process that compiled it said is {head!r:.100}"
        ) from error

    return Compiled(code, needs)


def compile_code(question: bytes) -> bytes:
    """What that process does."""
    head, _, wasm = question.partition(b"\n")
    stack, table_elements = map(int, head.split())
    compiled = compile_metered(wasm, stack, table_elements)
    return _head(compiled.needs) + b"\n" + compiled.code


def _head(needs: Needs) -> bytes:
    memory = needs.memory
    said = _Said(
        imports=[[type_.parameters.hex(), type_.results.hex()] for type_ in needs.imports],
        memory=None if memory is None else (memory.minimum, memory.maximum),
        tables=list(needs.tables),
    )
    return json.dumps(said).encode()


def _needs(said: _Said) -> Needs:
    return Needs(
        imports=tuple(FunctionType(*map(bytes.fromhex, type_)) for type_ in said["imports"]),
        memory=None if said["memory"] is None else MemoryType(*said["memory"]),
        tables=tuple(said["tables"]),
    )


def _validate(wasm: bytes) -> None:
    """Raise `ModuleFormatError` unless it is a module that wasmer takes."""
    with _panics_are_told():
        if wasmer.Module.validate(new_store(), wasm):
            return

    # It does not say why; compiling does, and begins with the same.
    _compile(wasm)
    raise ModuleFormatError("wasmer says that it is not valid, and not why")


def _compile(wasm: bytes) -> bytes:
    with _panics_are_told():
        return bytes(wasmer.Module(new_store(), wasm).serialize())


@contextlib.contextmanager
def _panics_are_told() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if isinstance(error, RuntimeError) or is_panic(error):
            raise ModuleFormatError(_explained(reason_of(error))) from error

        raise


#: What the compiler says of a feature that it does not have, and what that is called; whether
#: wasmtime lets plugins have it.
_FEATURES = {
    r"tail calls": ("tail calls", True),
    r"[Ee]xceptions|[Oo]pcode: 0x(06|07|08|09|0a|18|19|1f)": ("exceptions", True),
    r"[Oo]pcode: 0x(12|13)": ("tail calls", True),
    r"[Oo]pcode: 0x(14|15|d3|d4|d5|d6)": ("typed references", False),
    r"init_expr": ("extended constant expressions", True),
    r"multiple memories": ("multiple memories", False),
    r"memory64": ("memory64", False),
    r"threads": ("threads", False),
}


def _explained(reason: str) -> str:
    """The compiler's words for newer WebAssembly sound as if something could be enabled."""
    for pattern, (feature, elsewhere) in _FEATURES.items():
        if re.search(pattern, reason):
            way_out = "engine: wasmtime has them" if elsewhere else "build it without"
            return f"it uses {feature}, which wasmer 1.1.0 does not have: {way_out} ({reason})"

    return reason
