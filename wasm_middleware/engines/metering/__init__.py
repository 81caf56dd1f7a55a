"""Metering: a module is changed so that its guest can be stopped, where the engine can't stop one.

Theory of operation
-------------------
The new module counts what it runs (`code`): whenever so much has run as the host allowed, it calls
an imported function, the check, which looks at the clock. The check either gives it more to run, or
raises, and the guest traps. So a guest is stopped by time, to within what runs between two looks.
The same way it counts what it has of the machine's stack: an engine that has no limit of its own
would let a guest come to the stack's end and call the host there.

A guest can't reach the counters: they are globals beyond those that its code can name. No code is
left out: what is not understood is refused. What the compiler is given was written by us, and is
validated by the compiler like any other module.

Besides, imports get new names, one each; one whose type has references gets a function in front of
it that drops them and answers with null, for engines that can't pass any. The memory becomes an
import, so that the host makes it, as large as it may become; the clock is looked at whenever the
memory has grown, so that the host knows. Tables get a maximum. Of custom sections the names of
functions remain. The check is the last imported function: the numbers of all defined ones go up by
one.

It bounds what a module runs, not what it takes to compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wasm_middleware.engines import sections as sec
from wasm_middleware.engines.metering.code import (
    FunctionType,
    Space,
    constant,
    meter_function,
    stand_in,
    value_type,
    without_references,
)
from wasm_middleware.engines.module_info import ExternKind, MemoryType, ModuleFormatError, Reader
from wasm_middleware.engines.sections import signed, sized, unsigned

#: What all imports are of; imported functions are called "0", "1" and so on.
MODULE, MEMORY, CHECK = "wasm-middleware", "memory", "check"
#: The exported global that says how much of the stack is left.
STACK = "wasm-middleware stack"
_FUNCTION_TYPE = 0x60
#: Takes why it was called, and answers how much may run until it is called again.
CHECK_TYPE = FunctionType(b"\x7f", b"\x7f")


@dataclass(frozen=True, slots=True)
class Needs:
    """What an instance of a module that counts has to be given, or may have too much of."""

    #: The types of the functions that it imports, without the check; none has references.
    imports: tuple[FunctionType, ...]
    #: The memory that it imports, if it does.
    memory: MemoryType | None
    #: How many elements each of its tables begins with.
    tables: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Metered:
    """A module that counts."""

    wasm: bytes
    needs: Needs


def meter(wasm: bytes, stack: int, table_elements: int) -> Metered:
    """Change a module; its guest may use `stack` bytes and `table_elements` in each table.

    Raises `ModuleFormatError` for what can't be read, and for instructions that are not known.
    """
    try:
        return _Module(wasm, stack, table_elements).result()
    except (IndexError, UnicodeDecodeError) as error:
        raise ModuleFormatError("the file is damaged or cut short") from error


class _Module:
    """A module's sections, each changed with what those before it have told."""

    def __init__(self, wasm: bytes, stack: int, table_elements: int) -> None:
        self._wasm, self._stack, self._table_elements = wasm, stack, table_elements
        sections = sec.read_sections(wasm)
        self._sections, self._names = _in_order(sections), _function_names(sections)
        self._tables: list[int] = []
        self._imported: list[int] = []
        self._other_imports: list[bytes] = []
        self._imported_globals = 0
        types = [_type(reader) for reader in self._items(sec.TYPE)]

        for reader in self._items(sec.IMPORT):
            self._read_import(reader)

        defined = [reader.number() for reader in self._items(sec.FUNCTION)]
        memories = [_limits(reader) for reader in self._items(sec.MEMORY)]

        if len(memories) > 1:
            raise ModuleFormatError("it has more than one memory, which this engine does not have")

        self._memory = memories[0] if memories else None
        self._defined = defined
        fuel = self._imported_globals + self._reader(sec.GLOBAL).count()
        functions = (*self._imported, *defined)

        # Here, and not wherever one is looked up.
        if any(number >= len(types) for number in functions):
            raise ModuleFormatError("it has a function of a type that there is not")

        self._space = Space(types, functions, len(self._imported), fuel, fuel + 1)
        #: The types of imported functions as they are imported.
        self._given = [without_references(types[number]) for number in self._imported]

        for number, given in enumerate(self._given):
            if given != types[self._imported[number]]:
                self._space.stand_ins[number] = len(functions) + len(self._space.stand_ins)

    def result(self) -> Metered:
        space = self._space
        # Code first: it adds types of blocks, and those come before everything else.
        bodies = {
            sec.CODE: self._code(),
            sec.TABLE: self._each(sec.TABLE, self._table),
            sec.GLOBAL: self._each(sec.GLOBAL, self._global, *self._counters()),
            sec.EXPORT: self._each(sec.EXPORT, self._export, _exported_global(space.stack)),
            sec.ELEMENT: self._each(sec.ELEMENT, self._element),
        }

        if sec.START in self._sections:
            bodies[sec.START] = space.moved(self._reader(sec.START).number())

        bodies[sec.IMPORT] = self._imports()
        types = [*space.types, *space.added]
        bodies[sec.TYPE] = _vector([_encoded(type_) for type_ in types])
        stand_ins = [unsigned(self._imported[number]) for number in space.stand_ins]
        numbers = [*map(unsigned, self._defined), *stand_ins]
        bodies[sec.FUNCTION] = _vector(numbers) if numbers else b""
        kept = (sec.DATA_COUNT, sec.DATA)
        bodies |= {number: self._sections[number] for number in kept if number in self._sections}
        written = [(number, bodies[number]) for number in sec.ORDER if bodies.get(number)]
        written.append((sec.CUSTOM, self._named()))
        return Metered(
            wasm=sec.join_sections(self._wasm, written),
            needs=Needs(tuple(self._given), self._memory, tuple(self._tables)),
        )

    # Taking sections apart

    def _reader(self, number: int) -> Reader:
        body = self._sections.get(number, b"\0")
        return Reader(body, 0, len(body))

    def _items(self, number: int) -> Iterator[Reader]:
        """The reader of a section, as often as the section has items."""
        reader = self._reader(number)

        for _ in range(reader.count()):
            yield reader

        if reader.position != reader.end:
            raise ModuleFormatError("a section is longer than what is in it")

    def _each(self, number: int, change: Callable[[Reader], bytes], *more: bytes) -> bytes:
        """A section with its items changed, and more of them; empty if there are none."""
        items = [*(change(reader) for reader in self._items(number)), *more]
        return _vector(items) if items else b""

    # Imports and what is numbered after them

    def _read_import(self, reader: Reader) -> None:
        at = reader.position
        reader.name(), reader.name()
        kind = reader.byte()

        if kind == ExternKind.FUNCTION:
            self._imported.append(reader.number())
            return

        if kind == ExternKind.TABLE:
            reader.byte()
            _limits(reader)
        elif kind == ExternKind.MEMORY:
            _limits(reader)
        elif kind == ExternKind.GLOBAL:
            reader.byte(), reader.byte()
            self._imported_globals += 1
        else:
            raise ModuleFormatError("it imports what this engine does not have")

        self._other_imports.append(reader.data[at : reader.position])

    def _imports(self) -> bytes:
        space = self._space
        imports = list(self._other_imports)

        for index, type_ in enumerate(self._imported):
            number = space.added_type(self._given[index]) if index in space.stand_ins else type_
            imports.append(_import(str(index), ExternKind.FUNCTION, unsigned(number)))

        check = space.added_type(CHECK_TYPE)
        imports.append(_import(CHECK, ExternKind.FUNCTION, unsigned(check)))

        if self._memory is not None:
            limits = b"\0" + unsigned(self._memory.minimum)
            imports.append(_import(MEMORY, ExternKind.MEMORY, limits))

        return _vector(imports)

    def _named(self) -> bytes:
        """The names of functions, for the engine to tell where a guest has trapped."""
        space = self._space
        # In their order, each once, or the engine may read none.
        known = {
            number: name
            for number, name in sorted(self._names)
            if number < len(space.functions) and number not in space.stand_ins
        }
        names = [space.moved(number) + sized(name) for number, name in known.items()]
        return sec.NAMES + bytes([sec.FUNCTION_NAMES]) + sized(_vector(names))

    # Items

    def _table(self, reader: Reader) -> bytes:
        kind = reader.byte()
        limits = _limits(reader)
        self._tables.append(limits.minimum)
        most = self._table_elements if limits.maximum is None else limits.maximum
        # One that begins larger is refused where it is instantiated.
        most = max(limits.minimum, min(most, self._table_elements))
        return bytes([kind, 1]) + unsigned(limits.minimum) + unsigned(most)

    def _global(self, reader: Reader) -> bytes:
        return bytes([value_type(reader), reader.byte()]) + constant(reader, self._space)

    def _counters(self) -> tuple[bytes, bytes]:
        return b"\x7f\1\x41\0\x0b", b"\x7f\1\x41" + signed(self._stack) + b"\x0b"

    def _export(self, reader: Reader) -> bytes:
        at = reader.position

        if reader.name() == STACK:
            raise ModuleFormatError(f"it exports {STACK!r}, a name that is not for modules")

        kind = reader.byte()
        named = reader.data[at : reader.position]
        number = reader.number()
        is_function = kind == ExternKind.FUNCTION
        return named + (self._space.moved(number) if is_function else unsigned(number))

    def _element(self, reader: Reader) -> bytes:
        """A segment. Three bits say what it has: no table, another table or kind, expressions."""
        flags = reader.number()

        if flags > 7:
            raise ModuleFormatError(f"a segment of elements of kind {flags}")

        parts = [unsigned(flags)]

        if flags & 3 == 2:
            parts.append(unsigned(reader.number()))

        if not flags & 1:
            parts.append(constant(reader, self._space))

        if flags & 3:
            parts.append(bytes([reader.byte()]))

        count = reader.count()
        parts.append(unsigned(count))

        for _ in range(count):
            if flags & 4:
                parts.append(constant(reader, self._space))
            else:
                parts.append(self._space.moved(reader.number()))

        return b"".join(parts)

    def _code(self) -> bytes:
        space = self._space
        bodies = []
        defined = iter(self._defined)

        for reader in self._items(sec.CODE):
            part = reader.part()
            body = part.data[part.position : part.end]
            type_ = next(defined, None)

            if type_ is None:
                raise ModuleFormatError("it has more code than functions")

            bodies.append(sized(meter_function(body, space.types[type_], space)))

        if next(defined, None) is not None:
            raise ModuleFormatError("it has more functions than code")

        for number in space.stand_ins:
            bodies.append(sized(stand_in(space.types[self._imported[number]], number)))

        return _vector(bodies) if bodies else b""


def _in_order(sections: list[tuple[int, bytes]]) -> dict[int, bytes]:
    """The sections by their numbers, without custom ones."""
    found: dict[int, bytes] = {}
    last = -1

    for number, body in sections:
        if number == sec.CUSTOM:
            continue

        if number == sec.TAG:
            raise ModuleFormatError("it uses exceptions, which this engine does not have")

        place = sec.ORDER.index(number) if number in sec.ORDER else -1

        if place <= last:
            raise ModuleFormatError(f"a section of number {number} where there can be none")

        found[number], last = body, place

    return found


def _function_names(sections: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The names of functions by their numbers; none where they can't be read.

    They are for people: what is wrong with them is no reason to refuse a module.
    """
    for number, body in sections:
        if number == sec.CUSTOM and body.startswith(sec.NAMES):
            try:
                return _names_in(Reader(body, len(sec.NAMES), len(body)))
            except (IndexError, ModuleFormatError, UnicodeDecodeError):
                return []

    return []


def _names_in(reader: Reader) -> list[tuple[int, bytes]]:
    while reader.position < reader.end:
        kind, part = reader.byte(), reader.part()

        if kind == sec.FUNCTION_NAMES:
            return [(part.number(), part.name().encode()) for _ in range(part.count())]

    return []


def _type(reader: Reader) -> FunctionType:
    if reader.byte() != _FUNCTION_TYPE:
        raise ModuleFormatError("it uses garbage collection, which this engine does not have")

    return FunctionType(_value_types(reader), _value_types(reader))


def _value_types(reader: Reader) -> bytes:
    return bytes(value_type(reader) for _ in range(reader.count()))


def _encoded(type_: FunctionType) -> bytes:
    return b"\x60" + sized(type_.parameters) + sized(type_.results)


def _limits(reader: Reader) -> MemoryType:
    flags = reader.byte()

    if flags > 1:
        raise ModuleFormatError("it has a memory that is shared, or of 64 bits")

    minimum = reader.number()
    return MemoryType(minimum, reader.number() if flags else None)


def _import(name: str, kind: ExternKind, what: bytes) -> bytes:
    return sized(MODULE.encode()) + sized(name.encode()) + bytes([kind]) + what


def _exported_global(number: int) -> bytes:
    return sized(STACK.encode()) + bytes([ExternKind.GLOBAL]) + unsigned(number)


def _vector(items: list[bytes]) -> bytes:
    return unsigned(len(items)) + b"".join(items)
