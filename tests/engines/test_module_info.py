"""The section reader: against wasmtime's own view, against damage, and by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings, strategies as st

from tests.wat import wat2wasm
from wasm_middleware import limits
from wasm_middleware.engines.module_info import (
    Export,
    ExternKind,
    Import,
    MemoryType,
    ModuleFormatError,
    ModuleInfo,
    is_component,
    read_module_info,
)

ROOT = Path(__file__).parents[2]
MODULES = sorted([*ROOT.glob("example_app/plugins/*.wasm"), *ROOT.glob("tests/plugins/*.wasm")])
EMPTY = b"\0asm\1\0\0\0"
_LETTERS = {"i32": "i", "i64": "I", "f32": "f", "f64": "F"}


def compiled(wat: str) -> bytes:
    return wat2wasm(wat)


def signature(type_: object, read: str) -> str:
    """wasmtime's view of a type, unless it has types that make wasmtime's own C functions abort."""
    if not isinstance(type_, wasmtime.FuncType):
        return ""

    if set(read) - set("iIfF>"):
        return read

    return ">".join(
        "".join(_LETTERS[str(kind)] for kind in kinds) for kinds in (type_.params, type_.results)
    )


def kind(type_: object) -> ExternKind:
    return {
        "FuncType": ExternKind.FUNCTION,
        "TableType": ExternKind.TABLE,
        "MemoryType": ExternKind.MEMORY,
        "GlobalType": ExternKind.GLOBAL,
        "TagType": ExternKind.TAG,
    }[type(type_).__name__]


def assert_seen_alike(wasm: bytes) -> None:
    """What was read is what wasmtime sees."""
    config = wasmtime.Config()
    config.cranelift_opt_level = "none"
    info, module = read_module_info(wasm), wasmtime.Module(wasmtime.Engine(config), wasm)
    imports = [
        Import(
            entry.module, entry.name or "", kind(entry.type), signature(entry.type, read.signature)
        )
        for entry, read in zip(module.imports, info.imports, strict=True)
    ]
    exports = [
        Export(entry.name, kind(entry.type), signature(entry.type, read.signature))
        for entry, read in zip(module.exports, info.exports, strict=True)
    ]
    memories = [
        MemoryType(entry.type.limits.min, entry.type.limits.max)
        for entry in module.exports
        if isinstance(entry.type, wasmtime.MemoryType)
    ]

    assert list(info.imports) == imports
    assert list(info.exports) == exports
    assert not memories or info.memory == memories[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_it_sees_what_wasmtime_sees(path: Path) -> None:
    wasm = path.read_bytes()
    assert_seen_alike(wasm)
    info = read_module_info(wasm)

    assert info.memory is not None
    assert info.size == len(wasm)
    assert info.sha256 == hashlib.sha256(wasm).hexdigest()


def test_there_are_real_modules_to_look_at() -> None:
    assert len(MODULES) >= 7


EVERYTHING = """(module
  (import "a" "f" (func (param i32 i64 f32 f64 v128 funcref externref) (result i64 f32)))
  (import "a" "t" (table 1 2 funcref))
  (import "a" "g" (global (mut i32)))
  (import "a" "same" (func))
  (import "b" "same" (func (param i32)))
  (memory (export "memory") 2 9)
  (table (export "table") 1 externref)
  (global (export "global") i32 (i32.const 0))
  (func (export "one") (param i32) (result i32) (local.get 0))
  (func (export "two") (param i64))
  (func $hidden)
  (export "naïve" (func 0)))"""


def test_it_sees_every_kind_of_import_and_export() -> None:
    wasm = compiled(EVERYTHING)
    info = read_module_info(wasm)

    assert_seen_alike(wasm)
    assert info.imports[0].signature == "iIfFvrr>If"
    assert info.exported_function("one") == Export("one", ExternKind.FUNCTION, "i>i")
    assert info.exported_function("naïve") is not None
    assert info.exported_function("memory") is None
    assert info.exported_function("hidden") is None
    assert info.memory == MemoryType(2, 9)


def test_an_imported_memory_is_the_memory() -> None:
    assert read_module_info(compiled('(module (import "a" "m" (memory 3)))')).memory == MemoryType(
        3, None
    )


@pytest.mark.parametrize(
    ("names", "imported"),
    [(("f",), True), (("g", "same"), True), (("g",), False), (("x",), False), ((), False)],
)
def test_it_tells_whether_a_function_is_imported(names: tuple[str, ...], imported: bool) -> None:
    assert read_module_info(compiled(EVERYTHING)).imports_function(*names) is imported


def test_an_empty_module_has_nothing() -> None:
    info = read_module_info(EMPTY)

    assert info == ModuleInfo(size=8, sha256=hashlib.sha256(EMPTY).hexdigest())


def test_tags_are_seen() -> None:
    info = read_module_info(
        compiled('(module (import "a" "t" (tag)) (tag (export "e") (param i32)))')
    )

    assert info.imports == (Import("a", "t", ExternKind.TAG),)
    assert info.exports == (Export("e", ExternKind.TAG),)


def test_a_component_is_told_from_a_module() -> None:
    component = b"\0asm\x0d\0\1\0"

    assert is_component(component)
    assert not is_component(EMPTY)

    with pytest.raises(ModuleFormatError, match="a component"):
        read_module_info(component)


@pytest.mark.parametrize(
    ("wasm", "reason"),
    [
        (b"", "not a WebAssembly file"),
        (b"(module)", "not a WebAssembly file"),
        (b"\0asm", "unknown binary version"),
        (b"\0asm\2\0\0\0", "unknown binary version 02000000"),
        (EMPTY + b"\1", "damaged or cut short"),
        (EMPTY + b"\1\5", "damaged or cut short"),
        (EMPTY + b"\1\xff\xff\xff\xff\xff", "a number is too long"),
        (EMPTY + b"\1\2\xff\x7f", "damaged or cut short"),
        (EMPTY + b"\1\2\1\x5f", "garbage collection"),
        (EMPTY + b"\1\4\1\x60\1\x00", "unknown value type"),
        (EMPTY + b"\1\6\1\x60\1\x64\x70\0", "typed references"),
        (EMPTY + b"\2\6\1\1a\1b\5", "unknown kind"),
        (EMPTY + b"\2\7\1\1a\1b\0\7", "damaged or cut short"),
        (EMPTY + b"\2\4\1\1\xff\0", "damaged or cut short"),
        (EMPTY + b"\3\2\1\0", "damaged or cut short"),
        (EMPTY + b"\7\5\1\1f\0\0", "damaged or cut short"),
    ],
)
def test_what_is_damaged_is_refused(wasm: bytes, reason: str) -> None:
    with pytest.raises(ModuleFormatError, match=reason):
        read_module_info(wasm)


def test_sections_that_are_not_needed_are_skipped() -> None:
    assert read_module_info(EMPTY + b"\0\3\2hi" + b"\x0b\1\0" + b"\x63\0").imports == ()


def read(wasm: bytes) -> ModuleInfo | None:
    try:
        return read_module_info(wasm)
    except ModuleFormatError:
        return None


SMALL = compiled(EVERYTHING)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read(EMPTY + data)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(SMALL)),
)
def test_a_damaged_module_is_read_or_refused(changes: list[tuple[int, int]], length: int) -> None:
    wasm = bytearray(SMALL)

    for position, value in changes:
        wasm[position] = value

    read(bytes(wasm[:length]))
    info = read(bytes(wasm))

    # What wasmtime takes as well, both see alike: calls are made by what is read here.
    if info is not None and wasmtime_takes(bytes(wasm)):
        assert_seen_alike(bytes(wasm))


def wasmtime_takes(wasm: bytes) -> bool:
    try:
        wasmtime.Module.validate(wasmtime.Engine(), wasm)
    except wasmtime.WasmtimeError:
        return False

    return True


def leb(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + leb(rest) if rest else bytes([low])


def section(number: int, body: bytes) -> bytes:
    return bytes([number]) + leb(len(body)) + body


MANY = limits.MAX_MODULE_ITEMS + 1
TYPE = section(1, b"\1\x60\0\0")


@pytest.mark.parametrize(
    "wasm",
    [
        EMPTY + TYPE + section(2, leb(MANY) + bytes(4) * MANY),
        EMPTY + TYPE + section(3, leb(MANY) + bytes(MANY)),
        EMPTY + section(1, b"\1\x60" + leb(MANY) + b"\x7f" * MANY + b"\0"),
        EMPTY + TYPE + section(3, leb(MANY // 2) + bytes(MANY // 2)) * 2,
        EMPTY + section(0, b"\0") * MANY,
    ],
    ids=["imports", "functions", "parameters", "functions in two sections", "sections"],
)
def test_a_module_that_declares_without_end_is_refused(wasm: bytes) -> None:
    """Each would be read in Python, 64 MB of them for minutes."""
    with pytest.raises(ModuleFormatError, match="it declares more than any module needs"):
        read_module_info(wasm)


def imports(count: int) -> bytes:
    return EMPTY + TYPE + section(2, leb(count) + b"\0\0\0\0" * count)


def exports(count: int) -> bytes:
    names = b"".join(leb(len(name)) + name + b"\0\0" for name in _names(count))
    return EMPTY + TYPE + section(3, b"\1\0") + section(7, leb(count) + names)


def _names(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize(
    ("made", "most"), [(imports, limits.MAX_IMPORTS), (exports, limits.MAX_EXPORTS)]
)
def test_more_imports_or_exports_than_any_plugin_has_are_refused(
    made: Callable[[int], bytes], most: int
) -> None:
    read_module_info(made(most))

    with pytest.raises(ModuleFormatError, match=f"it has more than 1,000 {made.__name__}"):
        read_module_info(made(most + 1))


def test_the_start_function_has_a_type() -> None:
    begins = EMPTY + bytes([1, 5, 1, 0x60, 1, 0x7E, 0, 3, 2, 1, 0])

    assert read_module_info(begins).start is None
    assert read_module_info(begins + bytes([8, 1, 0])).start == "I>"

    with pytest.raises(ModuleFormatError, match="more than one start section"):
        read_module_info(begins + bytes([8, 1, 0, 8, 1, 0]))

    with pytest.raises(ModuleFormatError, match="damaged"):
        read_module_info(begins + bytes([8, 1, 1]))


@pytest.mark.parametrize("section", [bytes([8, 2, 0, 0]), bytes([7, 2, 0, 0])])
def test_a_section_with_more_in_it_than_it_says_is_refused(section: bytes) -> None:
    begins = EMPTY + bytes([1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0])

    with pytest.raises(ModuleFormatError, match="longer than what is in it"):
        read_module_info(begins + section)
