"""The module reader, beside wasmtime.

- Any bytes are a `ModuleInfo` or `ModuleFormatError`.
- A module that wasmtime accepts is read, and read as wasmtime reads it: the same imports and
  exports in the same order, the same types of functions, the same memory. Calls are made by what is
  read here. Only what the reader says it does not read may be refused (`_NOT_READ`).
- What is read can't be larger than the bytes it came from.

wasmtime is left out where its C functions can't show a type.
"""

from __future__ import annotations

import wasmtime

from wasm_middleware.engines.module_info import (
    Export,
    ExternKind,
    Import,
    ModuleFormatError,
    ModuleInfo,
    read_module_info,
)

_NOT_READ = ("garbage collection", "typed references")
_LETTERS = {"i32": "i", "i64": "I", "f32": "f", "f64": "F"}
_KINDS: dict[type, ExternKind] = {
    wasmtime.FuncType: ExternKind.FUNCTION,
    wasmtime.TableType: ExternKind.TABLE,
    wasmtime.MemoryType: ExternKind.MEMORY,
    wasmtime.GlobalType: ExternKind.GLOBAL,
    wasmtime.TagType: ExternKind.TAG,
}


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.cranelift_opt_level = "none"
    # Which of several memories is a plugin's is nobody's to say.
    config.wasm_multi_memory = False
    return wasmtime.Engine(config)


_ENGINE = _engine()


def fuzz(data: bytes) -> None:
    """Check the properties for `data` as it is, and for `data` as the sections of a module."""
    _check(data)
    _check(b"\0asm\1\0\0\0" + data)


def _check(wasm: bytes) -> None:
    try:
        info = read_module_info(wasm)
    except ModuleFormatError as error:
        reason = str(error)
        assert any(part in reason for part in _NOT_READ) or not _is_valid(wasm), reason
        return

    assert info.size == len(wasm)
    entries: list[Import | Export] = [*info.imports, *info.exports]
    assert len(entries) + sum(len(entry.name.encode()) for entry in entries) <= len(wasm)

    if _is_valid(wasm):
        _check_against_wasmtime(info, wasm)


def _is_valid(wasm: bytes) -> bool:
    # The text format would be taken too.
    if wasm[:4] != b"\0asm":
        return False

    try:
        wasmtime.Module.validate(_ENGINE, wasm)
    except wasmtime.WasmtimeError:
        return False

    return True


def _check_against_wasmtime(info: ModuleInfo, wasm: bytes) -> None:
    module = wasmtime.Module(_ENGINE, wasm)
    imports = [(entry.module, entry.name) for entry in module.imports]
    exports = [entry.name for entry in module.exports]
    assert [(entry.module, entry.name) for entry in info.imports] == imports
    assert [entry.name for entry in info.exports] == exports

    for imported, entry in zip(info.imports, module.imports, strict=True):
        _check_entry(info, imported, entry)

    for exported, export in zip(info.exports, module.exports, strict=True):
        _check_entry(info, exported, export)


def _check_entry(
    info: ModuleInfo, read: Import | Export, entry: wasmtime.ImportType | wasmtime.ExportType
) -> None:
    # Of v128 and of references wasmtime's C functions make an abort.
    if set(read.signature) - set("iIfF>"):
        return

    shown = entry.type
    assert _KINDS[type(shown)] is read.kind

    if isinstance(shown, wasmtime.FuncType):
        assert _signature(shown) == read.signature

    if isinstance(shown, wasmtime.MemoryType):
        assert info.memory is not None
        assert shown.limits.min == info.memory.minimum
        assert shown.limits.max == info.memory.maximum


def _signature(shown: wasmtime.FuncType) -> str:
    return ">".join(
        "".join(_LETTERS[str(kind)] for kind in kinds) for kinds in (shown.params, shown.results)
    )
