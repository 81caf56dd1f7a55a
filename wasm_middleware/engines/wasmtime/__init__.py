"""The default engine: wasmtime.

A module is compiled once, on any thread. Each instance has a store of its own, so that poisoning
one touches no other, and a clock (`epoch`) that ends calls beyond their time. How calls cross the
boundary is a `Binding`; see `binding`. Calls run in slices (`sliced`) where that is safe, and from
beginning to end elsewhere (`instance`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib.metadata import version

import wasmtime

from wasm_middleware import limits
from wasm_middleware.engines.isolation import Bounds, CompilationFailed, compile_isolated
from wasm_middleware.engines.module_info import (
    Import,
    ModuleFormatError,
    ModuleInfo,
    read_module_info,
)
from wasm_middleware.engines.protocol import InstanceLimits, Resolve
from wasm_middleware.engines.start_section import export_start
from wasm_middleware.engines.wasmtime.binding import Binding
from wasm_middleware.engines.wasmtime.epoch import EpochClock, PosixTicker, ThreadTicker, Ticker
from wasm_middleware.engines.wasmtime.instance import WasmtimeInstance, cause
from wasm_middleware.engines.wasmtime.selftest import choose_binding, why_not_sliced
from wasm_middleware.errors import GuestTrap
from wasm_middleware.limits import MAX_TABLES

NewInstance = Callable[[ModuleInfo, wasmtime.Store, InstanceLimits], WasmtimeInstance]


class WasmtimeEngine:
    """wasmtime with Cranelift; a guest call is bounded by an epoch deadline.

    `sliced` says whether calls are to run in slices, which needs an event loop of asyncio;
    `why_inline` says why they do not all the same. `binding` is for tests; without it the best one
    that passes its self-test is taken.
    """

    name = "wasmtime"

    def __init__(self, binding: Binding | None = None, *, sliced: bool = False) -> None:
        self._binding = binding or choose_binding(engine_config)
        self.why_inline = (
            why_not_sliced(self._binding, engine_config) if sliced else "nobody asked for slices"
        )
        self._engine = wasmtime.Engine(engine_config() if self.why_inline else _fiber_config())
        self._clock = EpochClock(*self._tickers())
        self._new_instance = self._instances()

    def _instances(self) -> NewInstance:
        """What makes an instance of the kind that calls are to run in."""
        if self.why_inline:
            return functools.partial(WasmtimeInstance, self._binding, self._clock)

        # Not at the top: it needs what the self-test has found to be there.
        from wasm_middleware.engines.wasmtime.fibers import Bridges
        from wasm_middleware.engines.wasmtime.sliced import SlicedInstance
        from wasm_middleware.engines.wasmtime.slices import Slices

        bridges = Bridges(self._engine)
        return functools.partial(SlicedInstance, Slices(), bridges, self._binding, self._clock)

    @property
    def suspends(self) -> bool:
        return not self.why_inline

    def _tickers(self) -> Iterator[Callable[[], Ticker]]:
        native = self._binding.native_tick(self._engine)

        if native is not None:
            yield functools.partial(PosixTicker, native)

        yield functools.partial(ThreadTicker, self._binding.increment_epoch(self._engine))

    @property
    def description(self) -> str:
        scheme = "sliced" if self.suspends else "inline"
        return f"wasmtime {version('wasmtime')}, {self._binding.description}, {scheme}"

    def compile(self, wasm: bytes) -> WasmtimeModule:
        info = read_module_info(wasm)

        try:
            module = wasmtime.Module(self._engine, export_start(wasm, info))
        except wasmtime.WasmtimeError as error:
            raise ModuleFormatError(cause(str(error))) from error

        return WasmtimeModule(self._engine, self._new_instance, module, info)

    def compile_isolated(self, wasm: bytes, bounds: Bounds | None = None) -> WasmtimeModule:
        info = read_module_info(wasm)
        code = compile_isolated(__name__, export_start(wasm, info), bounds or Bounds())

        try:
            module = wasmtime.Module.deserialize(self._engine, code)
        except wasmtime.WasmtimeError as error:
            raise CompilationFailed(f"it was compiled for another engine: {error}") from error

        return WasmtimeModule(self._engine, self._new_instance, module, info)

    def close(self) -> None:
        self._clock.close()


def compile_code(wasm: bytes) -> bytes:
    """Compile; what `Module.deserialize` reads, which checks the version and the settings.

    Raises `ModuleFormatError`.
    """
    try:
        return bytes(wasmtime.Module(wasmtime.Engine(engine_config()), wasm).serialize())
    except wasmtime.WasmtimeError as error:
        raise ModuleFormatError(cause(str(error))) from error


def engine_config() -> wasmtime.Config:
    """The compiler's settings; `raw` relies on memories that never move."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = limits.MAX_WASM_STACK
    config.memory_reservation = limits.MAX_MEMORY_LIMIT
    config.memory_may_move = False
    return config


def _fiber_config() -> wasmtime.Config:
    # Not at the top: it needs what the self-test has found to be there.
    from wasm_middleware.engines.wasmtime.fibers import set_stack_size

    config = engine_config()
    set_stack_size(config, limits.MAX_WASM_STACK + limits.HOST_STACK)
    return config


class WasmtimeModule:
    """Compiled code, and what is needed to instantiate it."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        new_instance: NewInstance,
        module: wasmtime.Module,
        info: ModuleInfo,
    ) -> None:
        self.info = info
        self._engine, self._new_instance, self._module = engine, new_instance, module
        # By position: a module may import one name twice, with two types.
        self._imports = [
            (entry, declared.type)
            for entry, declared in zip(info.imports, module.imports, strict=True)
        ]

    def instantiate(self, resolve: Resolve, limits: InstanceLimits) -> WasmtimeInstance:
        store = wasmtime.Store(self._engine)
        store.set_limits(
            memory_size=limits.memory,
            table_elements=limits.table_elements,
            memories=1,
            tables=MAX_TABLES,
        )
        instance = self._new_instance(self.info, store, limits)
        made: dict[Import, wasmtime.Func] = {}
        imports = []

        for entry, declared in self._imports:
            # A module may import one function a thousand times. Not where its type says more than
            # its signature: there are several kinds of references.
            function = made.get(entry) if "r" not in entry.signature else None

            if function is None:
                function = made[entry] = _import(instance, resolve, entry, declared)

            imports.append(function)

        instance.link(self._module, imports)
        return instance


def _import(
    instance: WasmtimeInstance, resolve: Resolve, entry: Import, declared: object
) -> wasmtime.Func:
    if not isinstance(declared, wasmtime.FuncType):
        raise GuestTrap(f"it imports {entry.module}.{entry.name}, which is not a function")

    function = resolve(entry.module, entry.name, entry.signature)
    return instance.host_function(declared, entry.signature, function)


__all__ = ["WasmtimeEngine", "engine_config"]
