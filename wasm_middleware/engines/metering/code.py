"""One function's code, counted.

Each count pays in advance for a piece of code that can't run twice before the next count: a
function's entry for all that is outside of its loops, the head of a loop for all that is in it but
not in loops within it. What is paid is the number of bytes, which is more than that of
instructions. Instructions whose work depends on an operand pay for that, too.

    head:   fuel -= bytes; if fuel < 0 { fuel = check(OUT_OF_FUEL) }
    entry:  stack -= frame; if stack < 0 { check(OUT_OF_STACK) }
    end:    stack += frame

A function's code becomes a block, so that whatever leaves it comes by its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from wasm_middleware.engines.metering import instructions as op
from wasm_middleware.engines.module_info import ModuleFormatError, Reader
from wasm_middleware.engines.sections import signed, unsigned

OUT_OF_FUEL, OUT_OF_STACK = 0, 1
#: A function of no more bytes that calls nothing is paid for by its callers.
_SMALL = 32
#: So much of the machine's stack may a function take that calls nothing, unpaid.
_SMALL_FRAME = 4096
#: What one value may take of a frame; what a frame takes besides.
_VALUE, _FRAME = 8, 128
#: How often a value on the operand stack may lie in a frame: kept, and passed on to a function and
#: back as what it takes and gives.
_COPIES = 4
#: How many values calling through a table may leave to be kept.
_INDIRECT_VALUES = 8
#: Bytes of memory, or elements of a table, that are moved for one unit, as shifts.
_MOVED_BYTES, _MOVED_ELEMENTS = 3, 1

_I32 = b"\x7f"
_REFERENCES = b"\x70\x6f"
#: A constant of each type.
_ZEROS = {
    0x7F: b"\x41\0",
    0x7E: b"\x42\0",
    0x7D: b"\x43" + bytes(4),
    0x7C: b"\x44" + bytes(8),
    0x70: b"\xd0\x70",
    0x6F: b"\xd0\x6f",
}


@dataclass(frozen=True, slots=True)
class FunctionType:
    """Value types as the binary format has them, one byte each."""

    parameters: bytes
    results: bytes


@dataclass(slots=True)
class Space:
    """What a function's code refers to."""

    types: list[FunctionType]
    #: The type of each function, imported ones first, by its number before the change.
    functions: Sequence[int]
    #: The number of the imported check; later functions move up by one.
    check: int
    #: Globals.
    fuel: int
    stack: int
    #: Functions that stand for imported ones, by the imported ones' numbers.
    stand_ins: dict[int, int] = field(default_factory=dict)
    #: Types that had to be added: of blocks, and of what stand-ins call.
    added: dict[FunctionType, int] = field(default_factory=dict)

    def moved(self, function: int) -> bytes:
        """The number of a function in the new module."""
        function = self.stand_ins.get(function, function)
        return unsigned(function + (function >= self.check))

    def block_of(self, results: bytes) -> bytes:
        """The type of a block that takes nothing."""
        if not results:
            return bytes([op.EMPTY_BLOCK])

        if len(results) == 1:
            return results

        return signed(self.added_type(FunctionType(b"", results)))

    def added_type(self, type_: FunctionType) -> int:
        """The number of a type that the module does not have."""
        return self.added.setdefault(type_, len(self.types) + len(self.added))

    def charge(self, amount: bytes, local: bytes) -> bytes:
        """Code that takes what the code `amount` leaves, and looks at the clock below zero."""
        fuel = unsigned(self.fuel)
        return (
            b"\x23%b%b\x6b\x22%b\x24%b\x20%b\x41\x00\x48\x04\x40"
            % (fuel, amount, local, fuel, local)
            + self.look()
            + b"\x0b"
        )

    def look(self) -> bytes:
        """Code that looks at the clock."""
        return b"\x41%b\x10%b\x24%b" % (
            signed(OUT_OF_FUEL),
            unsigned(self.check),
            unsigned(self.fuel),
        )

    def enter(self, frame: int, local: bytes) -> bytes:
        stack = unsigned(self.stack)
        return b"\x23%b\x41%b\x6b\x22%b\x24%b\x20%b\x41\x00\x48\x04\x40\x41%b\x10%b\x1a\x0b" % (
            stack,
            signed(frame),
            local,
            stack,
            local,
            signed(OUT_OF_STACK),
            unsigned(self.check),
        )

    def leave(self, frame: int) -> bytes:
        stack = unsigned(self.stack)
        return b"\x23%b\x41%b\x6a\x24%b" % (stack, signed(frame), stack)


@dataclass(slots=True)
class _Block:
    """What a block's end has to know; `piece` is the piece of code that it belongs to.

    `changed` are the locals that are set in it. Where paths meet, at its end or at the head of a
    loop, each of them is another value.
    """

    base: int
    parameters: int
    results: int
    piece: int
    changed: set[bytes] = field(default_factory=set)


def meter_function(body: bytes, type_: FunctionType, space: Space) -> bytes:
    """The body of the function in the new module.

    Raises `ModuleFormatError` for instructions that are not known, and `IndexError` where the code
    is cut short. That it is valid is for the compiler to say.
    """
    return _Metering(body, type_, space).result()


class _Metering:
    def __init__(self, body: bytes, type_: FunctionType, space: Space) -> None:
        self._space, self._type = space, type_
        self._reader = reader = Reader(body, 0, len(body))
        self._groups = [(reader.number(), value_type(reader)) for _ in range(reader.count())]
        self._locals = len(type_.parameters) + sum(count for count, _ in self._groups)
        self._local = unsigned(self._locals)
        self._out: list[bytes] = []
        #: The bytes of each piece, and where those but the first have to be paid for.
        self._weights = [0]
        self._heads: dict[int, int] = {}
        self._returns: list[tuple[int, int]] = []
        self._height = self._highest = self._values = 0
        self._calls = self._pays = False
        self._blocks = [_Block(0, 0, len(type_.results), 0)]
        self._read()

    def result(self) -> bytes:
        space, out = self._space, self._out
        values = self._locals + _COPIES * self._highest + self._values
        frame = _FRAME + values * _VALUE
        weight = self._weights[0]
        before = after = b""

        for piece, at in self._heads.items():
            out[at] = space.charge(b"\x41" + signed(self._weights[piece]), self._local)

        if self._heads or self._calls or self._pays or weight > _SMALL:
            before = space.charge(b"\x41" + signed(weight), self._local)

        if self._calls or frame > _SMALL_FRAME:
            before += space.enter(frame, self._local) + b"\x02" + space.block_of(self._type.results)
            after = b"\x0b" + space.leave(frame)

            for at, depth in self._returns:
                out[at] = b"\x0c" + unsigned(depth)

        groups = [*self._groups, (1, _I32[0])] if before else self._groups
        declared = b"".join(unsigned(count) + bytes([kind]) for count, kind in groups)
        return unsigned(len(groups)) + declared + before + b"".join(out) + after + b"\x0b"

    # Reading

    def _read(self) -> None:
        reader = self._reader

        while True:
            while run := op.PLAIN_RUN.match(reader.data, reader.position, reader.end):
                self._plain(run.group())
                reader.position = run.end()

            at = reader.position
            code = reader.byte()
            read = _READERS.get(code)

            if read is None:
                raise _unknown(code)

            read(self, at)

            if not self._blocks:
                break

        if reader.position != reader.end:
            raise ModuleFormatError("a function goes on after its end")

    def _plain(self, text: bytes) -> None:
        found = op.PLAIN.findall(text)
        codes = [one[0] for one in found]
        self._blocks[-1].changed.update([one for one in found if one[0] in op.LOCAL_SETS])
        changes = [op.HEIGHT[code] for code in codes]
        self._values += sum([op.VALUES[code] for code in codes])
        self._highest = max(self._highest, *accumulate(changes, initial=self._height))
        self._height += sum(changes)
        self._add(text)

    def _add(self, text: bytes) -> None:
        self._weights[self._blocks[-1].piece] += len(text)
        self._out.append(text)

    def _push(self, change: int) -> None:
        self._height += change
        self._highest = max(self._highest, self._height)

    def _since(self, at: int) -> bytes:
        return self._reader.data[at : self._reader.position]

    # Blocks

    def _block_type(self) -> tuple[int, int]:
        """How many parameters and results the block has that follows."""
        reader = self._reader
        code = reader.data[reader.position] if reader.position < reader.end else 0

        if code == op.VECTOR:
            raise _no_vectors()

        if code == op.EMPTY_BLOCK or code in op.VALUE_TYPES:
            reader.position += 1
            return 0, int(code != op.EMPTY_BLOCK)

        type_ = self._space.types[reader.number(33)]
        return len(type_.parameters), len(type_.results)

    def _block(self, at: int) -> None:
        code = self._reader.data[at]
        parameters, results = self._block_type()
        self._height -= code == op.IF
        self._add(self._since(at))
        piece = self._blocks[-1].piece

        if code == op.LOOP:
            piece = len(self._weights)
            self._weights.append(0)
            self._heads[piece] = len(self._out)
            # What pays comes here when it is known how much.
            self._out.append(b"")

        self._blocks.append(_Block(self._height - parameters, parameters, results, piece))

    def _else(self, at: int) -> None:
        self._add(self._since(at))
        block = self._blocks[-1]
        self._height = block.base
        self._push(block.parameters)

    def _end(self, at: int) -> None:
        block = self._blocks.pop()
        self._height = block.base
        self._push(block.results)
        self._values += len(block.changed) + block.parameters + block.results

        # The last one is written when it is known what comes before it.
        if self._blocks:
            self._blocks[-1].changed |= block.changed
            self._add(self._since(at))

    def _return(self, at: int) -> None:
        self._returns.append((len(self._out), len(self._blocks) - 1))
        self._add(self._since(at))

    def _branch_table(self, at: int) -> None:
        reader = self._reader

        for _ in range(reader.count() + 1):
            reader.number()

        self._height -= 1
        self._add(self._since(at))

    # Calls

    def _call(self, _at: int) -> None:
        function = self._reader.number()
        self._called(self._space.types[self._space.functions[function]])
        self._add(b"\x10" + self._space.moved(function))

    def _call_indirect(self, at: int) -> None:
        type_ = self._space.types[self._reader.number()]
        self._reader.number()
        self._height -= 1
        self._values += _INDIRECT_VALUES
        self._called(type_)
        self._add(self._since(at))

    def _called(self, type_: FunctionType) -> None:
        self._calls = True
        self._values += len(type_.results)
        self._push(len(type_.results) - len(type_.parameters))
        self._weights[self._blocks[-1].piece] += _SMALL

    def _ref_func(self, _at: int) -> None:
        self._push(1)
        self._add(b"\xd2" + self._space.moved(self._reader.number()))

    # What takes as long as its operand says

    def _memory_grow(self, at: int) -> None:
        self._reader.number()
        self._add(self._since(at) + self._space.look())
        self._pays = True

    def _wide(self, at: int) -> None:
        reader, space = self._reader, self._space
        code = reader.byte()
        change, numbers, moved = _WIDE.get(code, (0, -1, None))

        if numbers < 0:
            raise ModuleFormatError(f"an instruction that is not known: 0xfc 0x{code:02x}")

        for _ in range(numbers):
            reader.number()

        self._push(change)
        text = self._since(at)

        if moved is not None:
            self._pays = True
            # The size is what the instruction takes last.
            amount = b"\x20%b\x41%b\x76" % (self._local, signed(moved))
            self._add(b"\x22" + self._local + space.charge(amount, self._local))

        if code == op.TABLE_GROW:
            self._pays = True
            text += space.look()

        self._add(text)

    def _select(self, at: int) -> None:
        """One that is not plain: of vectors, or of something else that there is not."""
        what = self._reader.data[at + 1 : at + 3]
        raise _no_vectors() if what == bytes([1, op.VECTOR]) else _unknown(op.SELECT_TYPED)


#: By the second byte: what it does to the operand stack, how many numbers follow, and by how far
#: its last operand is shifted to be paid.
_WIDE: Mapping[int, tuple[int, int, int | None]] = {
    op.MEMORY_INIT: (-3, 2, _MOVED_BYTES),
    op.DATA_DROP: (0, 1, None),
    op.MEMORY_COPY: (-3, 2, _MOVED_BYTES),
    op.MEMORY_FILL: (-3, 1, _MOVED_BYTES),
    op.TABLE_INIT: (-3, 2, _MOVED_ELEMENTS),
    op.ELEM_DROP: (0, 1, None),
    op.TABLE_COPY: (-3, 2, _MOVED_ELEMENTS),
    op.TABLE_GROW: (-1, 1, None),
    op.TABLE_SIZE: (1, 1, None),
    op.TABLE_FILL: (-3, 1, _MOVED_ELEMENTS),
}

_READERS = {
    **dict.fromkeys((op.BLOCK, op.LOOP, op.IF), _Metering._block),
    op.ELSE: _Metering._else,
    op.END: _Metering._end,
    op.RETURN: _Metering._return,
    op.BR_TABLE: _Metering._branch_table,
    op.CALL: _Metering._call,
    op.CALL_INDIRECT: _Metering._call_indirect,
    op.REF_FUNC: _Metering._ref_func,
    op.MEMORY_GROW: _Metering._memory_grow,
    op.WIDE: _Metering._wide,
    op.SELECT_TYPED: _Metering._select,
}


def without_references(type_: FunctionType) -> FunctionType:
    """What is left of a host function's type where no reference can be passed.

    A host has no reference to give, so that one that is to give some gives nothing.
    """
    gives = any(code in _REFERENCES for code in type_.results)
    parameters = bytes(code for code in type_.parameters if code not in _REFERENCES)
    return FunctionType(parameters, b"" if gives else type_.results)


def stand_in(type_: FunctionType, function: int) -> bytes:
    """The code of a function that calls an imported one `without_references`."""
    passed = [
        b"\x20" + unsigned(index)
        for index, code in enumerate(type_.parameters)
        if code not in _REFERENCES
    ]
    call = b"\x10" + unsigned(function)
    kept = without_references(type_).results == type_.results
    zeros = b"" if kept else b"".join(_ZEROS[code] for code in type_.results)
    return b"\0" + b"".join(passed) + call + zeros + b"\x0b"


def constant(reader: Reader, space: Space) -> bytes:
    """A constant expression, up to its end, in the new module."""
    out = []

    while True:
        while run := op.PLAIN_RUN.match(reader.data, reader.position, reader.end):
            out.append(run.group())
            reader.position = run.end()

        code = reader.byte()

        if code == op.END:
            return b"".join([*out, b"\x0b"])

        if code == op.REF_FUNC:
            out.append(b"\xd2" + space.moved(reader.number()))
        else:
            raise _unknown(code)


def value_type(reader: Reader) -> int:
    """The next byte, which says what type a value has."""
    code = reader.byte()

    if code == op.VECTOR:
        raise _no_vectors()

    return code


def _no_vectors() -> ModuleFormatError:
    return _unknown(0xFD)


def _unknown(code: int) -> ModuleFormatError:
    if code in op.PROPOSALS:
        return ModuleFormatError(
            f"it uses {op.PROPOSALS[code]}, which this engine does not have (engine: wasmtime has "
            "more)"
        )

    return ModuleFormatError(f"an instruction that is not known, or badly written: 0x{code:02x}")
