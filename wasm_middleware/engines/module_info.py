"""What a module's bytes say about it, without an engine.

A module is a sequence of sections, each an id byte, a size and a body (core specification,
"Binary Format"). Six of them hold what a host wants to know: types, imports, functions, memories,
exports and the start function. The rest is skipped by its size. Nothing is trusted: every read is
checked, every count is bounded by the bytes that are left, and all of them together by
`limits.MAX_MODULE_ITEMS`.

A function's type is written as in `abi.signatures`: one letter a value, `i` i32, `I` i64, `f` f32,
`F` f64, `v` v128, `r` a reference; `"ii>i"`.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field

from wasm_middleware import limits
from wasm_middleware.errors import WasmMiddlewareError

MAGIC = b"\0asm"
CORE_VERSION = b"\1\0\0\0"
COMPONENT_VERSION = b"\x0d\0\1\0"
PAGE = 65536

_VALUE_TYPES = {0x7F: "i", 0x7E: "I", 0x7D: "f", 0x7C: "F", 0x7B: "v"}
_VALUE_TYPES |= dict.fromkeys((*range(104, 117), 111, 112), "r")
_TYPED_REFERENCES = (0x63, 0x64)
_FUNCTION_TYPE = 0x60


class ModuleFormatError(WasmMiddlewareError):
    """The bytes are not a core WebAssembly module, or one that this package can't read."""


class ExternKind(enum.IntEnum):
    FUNCTION = 0
    TABLE = 1
    MEMORY = 2
    GLOBAL = 3
    TAG = 4


@dataclass(frozen=True, slots=True)
class Import:
    module: str
    name: str
    kind: ExternKind
    #: Of a function; empty for everything else.
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    name: str
    kind: ExternKind
    signature: str = ""


@dataclass(frozen=True, slots=True)
class MemoryType:
    """Sizes in pages of 64 KiB; `maximum` is None where the module sets none."""

    minimum: int
    maximum: int | None
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module's outside."""

    size: int
    sha256: str
    imports: tuple[Import, ...] = ()
    exports: tuple[Export, ...] = ()
    #: The first of its memories.
    memory: MemoryType | None = None
    memories: int = 0
    #: The type of its start function, if it has one: any module may say so, of any function.
    start: str | None = None

    def exported_function(self, name: str) -> Export | None:
        for export in self.exports:
            if export.name == name and export.kind is ExternKind.FUNCTION:
                return export

        return None

    def imports_function(self, *names: str) -> bool:
        return any(entry.name in names for entry in self.imports if entry.signature)


def is_component(wasm: bytes) -> bool:
    """Whether the bytes begin as a WIT component does, and not as a core module."""
    return wasm[:4] == MAGIC and wasm[4:8] == COMPONENT_VERSION


def read_module_info(wasm: bytes) -> ModuleInfo:
    """Read a core module's imports, exports and memory; raise `ModuleFormatError`."""
    if wasm[:4] != MAGIC:
        raise ModuleFormatError("not a WebAssembly file: it does not begin with \\0asm")

    if is_component(wasm):
        raise ModuleFormatError("a component, not a core module")

    if wasm[4:8] != CORE_VERSION:
        raise ModuleFormatError(f"unknown binary version {wasm[4:8].hex()}")

    sections = _Sections()

    try:
        _read_sections(Reader(wasm, 8, len(wasm)), sections)
    except (IndexError, UnicodeDecodeError) as error:
        raise ModuleFormatError("the file is damaged or cut short") from error

    return ModuleInfo(
        size=len(wasm),
        sha256=hashlib.sha256(wasm).hexdigest(),
        imports=tuple(sections.imports),
        exports=tuple(sections.exports),
        memory=sections.memories[0] if sections.memories else None,
        memories=len(sections.memories),
        start=sections.start,
    )


@dataclass(slots=True)
class _Sections:
    types: list[str] = field(default_factory=list)
    #: The type of each function, imported ones first.
    functions: list[str] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    memories: list[MemoryType] = field(default_factory=list)
    start: str | None = None
    #: How many more may be read, of anything that there are several of.
    left: int = limits.MAX_MODULE_ITEMS

    def take(self, count: int) -> range:
        self.left -= count

        if self.left < 0:
            raise ModuleFormatError("it declares more than any module needs")

        return range(count)


class Reader:
    """Reads the binary format's primitives between two positions; raises IndexError at the end."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int, end: int) -> None:
        if end > len(data):
            raise IndexError

        self.data, self.position, self.end = data, position, end

    def byte(self) -> int:
        if self.position >= self.end:
            raise IndexError

        self.position += 1
        return self.data[self.position - 1]

    def number(self, bits: int = 32) -> int:
        """An unsigned LEB128 number."""
        value = shift = 0

        while shift < bits:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7

            if byte < 0x80:
                return value

        raise ModuleFormatError("a number is too long")

    def count(self) -> int:
        """The length of a vector, each element of which takes a byte at least."""
        count = self.number()

        if count > self.end - self.position:
            raise IndexError

        return count

    def name(self) -> str:
        size = self.count()
        self.position += size
        return self.data[self.position - size : self.position].decode()

    def part(self) -> Reader:
        """A reader for the next `size` bytes, which this one skips."""
        size = self.count()
        part = Reader(self.data, self.position, self.position + size)
        self.position += size
        return part


def _read_sections(reader: Reader, sections: _Sections) -> None:
    while reader.position < reader.end:
        sections.take(1)
        number = reader.byte()
        body = reader.part()

        if number == _START:
            if sections.start is not None:
                raise ModuleFormatError("it has more than one start section")

            sections.start = sections.functions[body.number()]
        elif number in _SECTIONS:
            for _ in sections.take(body.count()):
                _SECTIONS[number](body, sections)
        else:
            continue

        # What is taken apart anew (`start_section`) must have been read to its end.
        if body.position != body.end:
            raise ModuleFormatError(f"its section {number} is longer than what is in it")


def _read_type(reader: Reader, sections: _Sections) -> None:
    form = reader.byte()

    if form != _FUNCTION_TYPE:
        raise ModuleFormatError("it uses types of the garbage collection proposal")

    parameters = [_value_type(reader) for _ in sections.take(reader.count())]
    results = [_value_type(reader) for _ in sections.take(reader.count())]
    sections.types.append("".join([*parameters, ">", *results]))


def _value_type(reader: Reader) -> str:
    code = reader.byte()

    # One that may not be null could not be answered by a host that knows nothing of its type.
    if code in _TYPED_REFERENCES:
        raise ModuleFormatError("it uses typed references, which no plugin's interface has")

    if code not in _VALUE_TYPES:
        raise ModuleFormatError(f"unknown value type 0x{code:02x}")

    return _VALUE_TYPES[code]


def _limits(reader: Reader) -> MemoryType:
    flags = reader.byte()
    minimum = reader.number(64)
    maximum = reader.number(64) if flags & 1 else None
    return MemoryType(minimum, maximum, bool(flags & 2))


def _read_import(reader: Reader, sections: _Sections) -> None:
    if len(sections.imports) == limits.MAX_IMPORTS:
        raise ModuleFormatError(f"it has more than {limits.MAX_IMPORTS:,} imports")

    module, name, kind = reader.name(), reader.name(), _kind(reader)
    signature = ""

    match kind:
        case ExternKind.FUNCTION:
            signature = sections.types[reader.number()]
            sections.functions.append(signature)
        case ExternKind.TABLE:
            _value_type(reader)
            _limits(reader)
        case ExternKind.MEMORY:
            sections.memories.append(_limits(reader))
        case ExternKind.GLOBAL:
            _value_type(reader)
            reader.byte()
        case ExternKind.TAG:
            reader.byte()
            reader.number()

    sections.imports.append(Import(module, name, kind, signature))


def _kind(reader: Reader) -> ExternKind:
    code = reader.byte()

    if code > ExternKind.TAG:
        raise ModuleFormatError(f"unknown kind 0x{code:02x} of import or export")

    return ExternKind(code)


def _read_function(reader: Reader, sections: _Sections) -> None:
    sections.functions.append(sections.types[reader.number()])


def _read_memory(reader: Reader, sections: _Sections) -> None:
    sections.memories.append(_limits(reader))


def _read_export(reader: Reader, sections: _Sections) -> None:
    if len(sections.exports) == limits.MAX_EXPORTS:
        raise ModuleFormatError(f"it has more than {limits.MAX_EXPORTS:,} exports")

    name, kind, index = reader.name(), _kind(reader), reader.number()
    signature = sections.functions[index] if kind is ExternKind.FUNCTION else ""
    sections.exports.append(Export(name, kind, signature))


_SECTIONS = {
    1: _read_type,
    2: _read_import,
    3: _read_function,
    5: _read_memory,
    7: _read_export,
}
_START = 8
