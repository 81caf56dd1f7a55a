"""The second engine: wasmer 1.1.0 with its Cranelift, where its wheels are (CPython up to 3.10).

Theory of operation
-------------------
wasmer can't interrupt a guest, limit its memory, or end its recursion before the stack's end. So
every module is changed before it is compiled (`engines.metering`): it counts what it runs, and
its memory becomes an import, which the host makes as large as an instance may have. A call looks at
the clock at each count and each host call, and runs from its beginning to its end.

wasmer's objects belong to the thread that made them, and panic on any other. So compiled code is
kept as bytes, and made a module again by the thread that instantiates it; an instance that another
thread asks for is lost, and replaced.

A panic of wasmer's own code becomes an exception that is no `Exception`. It is caught in here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import version

import wasmer

from wasm_middleware import limits
from wasm_middleware.engines.isolation import Bounds
from wasm_middleware.engines.metering import Needs
from wasm_middleware.engines.module_info import (
    ExternKind,
    read_module_info,
)
from wasm_middleware.engines.protocol import InstanceLimits, Resolve
from wasm_middleware.engines.start_section import export_start
from wasm_middleware.engines.wasmer.compiling import (
    Compiled,
    compile_metered,
    compile_metered_isolated,
    new_store,
)
from wasm_middleware.engines.wasmer.instance import WasmerInstance
from wasm_middleware.engines.wasmer.stack import guest_stack
from wasm_middleware.engines.wasmer.threads import this_thread
from wasm_middleware.errors import GuestTrap

_Made = tuple[wasmer.Store, wasmer.Module]


class WasmerEngine:
    """wasmer with Cranelift; a guest call is bounded by counting."""

    name = "wasmer"
    #: A guest can't be left in its middle.
    suspends = False
    why_inline = "wasmer can't leave a guest in its middle"

    def __init__(self) -> None:
        self._stack = guest_stack()

    @property
    def description(self) -> str:
        return f"wasmer {version('wasmer')}, metered, inline"

    def compile(self, wasm: bytes) -> WasmerModule:
        return WasmerModule(wasm, self._stack, compile_metered)

    def compile_isolated(self, wasm: bytes, bounds: Bounds | None = None) -> WasmerModule:
        compile_ = functools.partial(compile_metered_isolated, bounds=bounds or Bounds())
        return WasmerModule(wasm, self._stack, compile_)

    def close(self) -> None:
        """There is no clock to stop."""


class WasmerModule:
    """Compiled code as bytes, and the modules that were made of it."""

    def __init__(
        self, wasm: bytes, stack: int, compile_: Callable[[bytes, int, int], Compiled]
    ) -> None:
        """Compile it as instances mostly want it; raises `ModuleFormatError`."""
        self.info = read_module_info(wasm)
        self._wasm = export_start(wasm, self.info)
        self._stack, self._compile = stack, compile_
        #: What was compiled, by how many elements its tables may have.
        self._compiled: dict[int, Compiled] = {}
        #: The last thread to instantiate one, and its modules, made in stores of their own.
        self._made: tuple[object, dict[int, _Made]] = (None, {})
        self._code(limits.MAX_TABLE_ELEMENTS)

    def _code(self, table_elements: int) -> Compiled:
        if table_elements not in self._compiled:
            compiled = self._compile(self._wasm, self._stack, table_elements)
            self._compiled[table_elements] = compiled

        return self._compiled[table_elements]

    def _module(self, table_elements: int, code: bytes) -> _Made:
        thread, made = self._made

        if thread is not this_thread():
            made = {}
            self._made = this_thread(), made

        if table_elements not in made:
            store = new_store()
            made[table_elements] = store, wasmer.Module.deserialize(store, code)

        return made[table_elements]

    def instantiate(self, resolve: Resolve, limits: InstanceLimits) -> WasmerInstance:
        for entry in self.info.imports:
            if entry.kind is not ExternKind.FUNCTION:
                raise GuestTrap(f"it imports {entry.module}.{entry.name}, which is not a function")

        functions = [
            resolve(entry.module, entry.name, entry.signature) for entry in self.info.imports
        ]
        compiled = self._code(limits.table_elements)
        _check_tables(compiled.needs, limits)
        # Of the thread that the guest is to run on.
        instance = WasmerInstance(self.info, limits, guest_stack())
        make = functools.partial(self._module, limits.table_elements, compiled.code)
        instance.link(make, compiled.needs, functions)
        return instance


def _check_tables(needs: Needs, allowed: InstanceLimits) -> None:
    if len(needs.tables) > limits.MAX_TABLES:
        raise GuestTrap(f"it has {len(needs.tables)} tables, and may have {limits.MAX_TABLES}")

    for elements in needs.tables:
        if elements > allowed.table_elements:
            raise GuestTrap(
                f"it begins with a table of {elements:,} elements, and may have "
                f"{allowed.table_elements:,}"
            )


__all__ = ["WasmerEngine"]
