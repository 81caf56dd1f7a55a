"""Modules that count: they do what they did before, and no code of theirs is free.

wasmtime runs the old and the new module; it counts instructions by itself (fuel), which says what
has to be paid at least.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings, strategies as st

from tests.wat import wat2wasm
from wasm_middleware.engines import sections as sec
from wasm_middleware.engines.metering import (
    CHECK,
    MEMORY,
    MODULE,
    STACK,
    Metered,
    code,
    instructions,
    meter,
)
from wasm_middleware.engines.metering.code import OUT_OF_STACK
from wasm_middleware.engines.module_info import MemoryType, ModuleFormatError, read_module_info

ROOT = Path(__file__).parents[2]
PLUGINS = [*ROOT.glob("example_app/plugins/*.wasm"), *ROOT.glob("tests/plugins/*.wasm")]
BUDGET = 1 << 20
FUEL = 10_000_000


def binary(wat: str) -> bytes:
    return wat2wasm(wat)


def metered(wat: str, stack: int = BUDGET, table_elements: int = 1000) -> Metered:
    return meter(binary(wat), stack, table_elements)


@dataclass
class Run:
    """What came of one call."""

    result: object
    trap: object
    memory: bytes
    #: wasmtime's own count, of instructions.
    fuel: int
    #: What was paid, and how often it looked at the clock.
    paid: int = 0
    looks: int = 0
    stack: int = 0
    reasons: list[int] = field(default_factory=list)


_CONFIG = wasmtime.Config()
_CONFIG.consume_fuel = True
ENGINE = wasmtime.Engine(_CONFIG)


def _call(
    store: wasmtime.Store, instance: wasmtime.Instance, arguments: tuple[int, ...]
) -> tuple[object, object]:
    function = instance.exports(store)["f"]
    assert isinstance(function, wasmtime.Func)

    try:
        return function(store, *arguments), None
    except wasmtime.Trap as trap:
        return None, trap.trap_code
    except wasmtime.WasmtimeError as error:
        return None, str(error)


def run_plain(wat: str, *arguments: int) -> Run:
    store = wasmtime.Store(ENGINE)
    store.set_fuel(FUEL)
    instance = wasmtime.Instance(store, wasmtime.Module(ENGINE, binary(wat)), [])
    before = store.get_fuel()
    result, trap = _call(store, instance, arguments)
    memory = instance.exports(store).get("memory")
    content = bytes(memory.read(store)) if isinstance(memory, wasmtime.Memory) else b""
    return Run(result, trap, content, before - store.get_fuel())


def run_metered(wat: str, *arguments: int, allowance: int = 0, stack: int = BUDGET) -> Run:
    """`allowance` is what each look at the clock gives."""
    made = metered(wat, stack)
    store = wasmtime.Store(ENGINE)
    store.set_fuel(10 * FUEL)
    run = Run(None, None, b"", 0)
    linker = wasmtime.Linker(ENGINE)
    i32 = wasmtime.ValType.i32()

    def check(reason: int) -> int:
        run.reasons.append(reason)

        if reason == OUT_OF_STACK:
            raise wasmtime.WasmtimeError("no stack")

        # Whatever is taken is below zero, and seen here.
        run.paid += allowance - fuel.value(store)
        run.looks += 1
        return allowance

    linker.define(
        store, MODULE, CHECK, wasmtime.Func(store, wasmtime.FuncType([i32], [i32]), check)
    )

    if made.needs.memory is not None:
        limits = wasmtime.Limits(made.needs.memory.minimum, 100)
        memory = wasmtime.Memory(store, wasmtime.MemoryType(limits))
        linker.define(store, MODULE, MEMORY, memory)

    instance = linker.instantiate(store, wasmtime.Module(ENGINE, exported_fuel(made.wasm)))
    exports = instance.exports(store)
    fuel, left = exports["fuel of the test"], exports[STACK]
    assert isinstance(fuel, wasmtime.Global)
    assert isinstance(left, wasmtime.Global)
    run.result, run.trap = _call(store, instance, arguments)
    run.paid += allowance - fuel.value(store) if run.looks else -fuel.value(store)
    run.stack = left.value(store)

    if made.needs.memory is not None:
        run.memory = bytes(memory.read(store))

    return run


def exported_fuel(wasm: bytes) -> bytes:
    """The module with its counter exported: the global before that of the stack."""
    parts = []

    for number, body in sec.read_sections(wasm):
        if number == sec.EXPORT:
            # Its last byte is the number of the stack's global; there are few here.
            export = sec.sized(b"fuel of the test") + b"\3" + bytes([body[-1] - 1])
            count, rest = body[0], body[1:]
            body = bytes([count + 1]) + rest + export

        parts.append((number, body))

    return sec.join_sections(wasm, parts)


def same(wat: str, *arguments: int, free: int = 0) -> Run:
    """Check that the new module does what the old one did, and pays for it."""
    plain, counted = run_plain(wat, *arguments), run_metered(wat, *arguments)
    assert (counted.result, counted.trap) == (plain.result, plain.trap)
    assert counted.memory == plain.memory

    if plain.trap is None:
        assert counted.paid + free >= plain.fuel
        assert counted.stack == BUDGET

    return counted


# Whole modules


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_a_plugin_keeps_its_outside(path: Path) -> None:
    wasm = path.read_bytes()
    made = meter(wasm, BUDGET, 1_000_000)
    wasmtime.Module.validate(wasmtime.Engine(), made.wasm)
    before, after = read_module_info(wasm), read_module_info(made.wasm)

    assert after.exports[: len(before.exports)] == before.exports
    assert [export.name for export in after.exports[len(before.exports) :]] == [STACK]
    functions = [entry.signature for entry in after.imports if entry.signature]
    assert functions == [entry.signature for entry in before.imports] + ["i>i"]
    assert made.needs.memory == before.memory


EVERYTHING = """(module
  (type $t (func (param i32) (result i32)))
  (import "a" "b" (func $host (param i32) (result i32)))
  (func $one (type $t) (i32.add (local.get 0) (i32.const 1)))
  (func $two (type $t) (i32.add (local.get 0) (i32.const 2)))
  (table $t0 8 20 funcref) (table $t1 funcref (elem $two $one)) (table $t2 3 externref)
  (memory (export "memory") 1 5)
  (global $g (mut funcref) (ref.func $one))
  (global $n i32 (i32.const -77))
  (export "host" (func $host)) (export "g" (global $g)) (export "t" (table $t0))
  (elem (i32.const 0) $one $two)
  (elem $passive func $two $one)
  (elem (table $t0) (i32.const 2) func $two)
  (elem declare func $one)
  (elem (table $t0) (i32.const 3) funcref (ref.func $one) (ref.null func))
  (elem $exprs funcref (ref.func $two))
  (data (i32.const 3) "abc") (data $d "passive")
  (func $start (i32.store (i32.const 100) (global.get $n)))
  (start $start)
  (func $several (param i32) (result i32 i64 f32)
    (if (local.get 0) (then (return (i32.const 1) (i64.const 2) (f32.const 3))))
    (i32.const 4) (i64.const 5) (f32.const 6))
  (func $local (export "f") (param i32 i32) (result i32) (local $f f64) (local $i i64)
    (table.init $t0 $passive (i32.const 4) (i32.const 0) (i32.const 2))
    (table.init $t0 $exprs (i32.const 6) (i32.const 0) (i32.const 1))
    (elem.drop $passive)
    (memory.init $d (i32.const 50) (i32.const 0) (i32.const 7))
    (data.drop $d)
    (memory.copy (i32.const 60) (i32.const 50) (i32.const 7))
    (memory.fill (i32.const 70) (i32.const 42) (local.get 1))
    (table.copy $t0 $t1 (i32.const 0) (i32.const 0) (i32.const 2))
    (table.fill $t2 (i32.const 0) (ref.null extern) (i32.const 3))
    (drop (table.grow $t2 (ref.null extern) (i32.const 2)))
    (table.set $t0 (i32.const 7) (ref.func $two))
    (drop (memory.grow (i32.const 1)))
    (call $several (local.get 0)) (drop) (drop)
    (call_indirect (type $t) (i32.const 10) (local.get 0))
    (i32.add)
    (i32.add (table.size $t2))
    (i32.add (memory.size))
    (i32.add (ref.is_null (table.get $t0 (i32.const 4))))
    (i32.add (i32.trunc_sat_f64_s (f64.const 1e300)))
    (i32.add (i32.extend8_s (i32.const 200)))))"""


WITHOUT_IMPORTS = EVERYTHING.replace(
    '(import "a" "b" (func $host (param i32) (result i32)))', ""
).replace('(export "host" (func $host))', "")


@pytest.mark.parametrize("arguments", [(0, 0), (1, 9), (4, 3), (5, 1), (6, 0), (7, 20)])
def test_everything_that_has_a_number_is_found_again(arguments: tuple[int, int]) -> None:
    counted = same(WITHOUT_IMPORTS, *arguments)

    assert counted.memory[100:104] == (-77).to_bytes(4, "little", signed=True)


def test_imports_come_by_number_and_the_check_last() -> None:
    made = metered(EVERYTHING)
    info = read_module_info(made.wasm)

    assert [(entry.module, entry.name) for entry in info.imports] == [
        (MODULE, "0"), (MODULE, CHECK), (MODULE, MEMORY),
    ]  # fmt: skip
    assert made.needs.memory == MemoryType(1, 5)
    assert made.needs.tables == (8, 2, 3)
    wasmtime.Module.validate(wasmtime.Engine(), made.wasm)


def test_tables_get_a_maximum() -> None:
    wat = """(module (table (export "t") 1 funcref) (table 1 5 funcref) (table 1 5000 funcref)
      (func (export "f") (result i32) (table.grow 0 (ref.null func) (i32.const 1000))))"""

    assert run_metered(wat).result == -1
    assert run_plain(wat).result == 1
    # One that begins larger is left for whoever instantiates it.
    assert metered("(module (table 2000 funcref))").needs.tables == (2000,)


# Code that was made up

LOCALS = 5


def _expressions(depth: int) -> st.SearchStrategy[str]:
    leaf = st.one_of(
        st.integers(0, LOCALS - 1).map(lambda index: f"(local.get {index})"),
        st.integers(-(1 << 31), (1 << 31) - 1).map(lambda value: f"(i32.const {value})"),
    )

    if not depth:
        return leaf

    inner = _expressions(depth - 1)
    operation = st.sampled_from(["add", "sub", "mul", "xor", "div_u", "rem_s", "shl", "lt_s"])
    return st.one_of(
        leaf,
        st.tuples(operation, inner, inner).map(lambda t: f"(i32.{t[0]} {t[1]} {t[2]})"),
        inner.map(lambda e: f"(i32.load (i32.and (i32.const 1020) {e}))"),
        inner.map(lambda e: f"(call $small {e})"),
        st.tuples(inner, inner).map(lambda t: f"(call $looping {t[0]} {t[1]})"),
        st.tuples(inner, inner).map(lambda t: f"(call_indirect (type $t) {t[0]} {t[1]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"(select {' '.join(t)})"),
        st.tuples(inner, inner, inner).map(
            lambda t: f"(if (result i32) {t[0]} (then {t[1]}) (else {t[2]}))"
        ),
        st.tuples(inner, inner).map(
            lambda t: f"(block (result i32) (br_if 0 {t[0]} {t[1]}) (drop) {t[0]})"
        ),
        # A block that takes what is on the stack.
        st.tuples(inner, inner).map(
            lambda t: f"{t[0]} (block (param i32) (result i32) {t[1]} (i32.add))"
        ),
    )


def _statements(depth: int) -> st.SearchStrategy[str]:
    value = _expressions(2)
    simple = st.one_of(
        st.tuples(st.integers(0, LOCALS - 1), value).map(lambda t: f"(local.set {t[0]} {t[1]})"),
        st.tuples(value, value).map(
            lambda t: f"(i32.store (i32.and (i32.const 1020) {t[0]}) {t[1]})"
        ),
        st.tuples(value, value).map(lambda t: f"(if {t[0]} (then (return {t[1]})))"),
        # Leaves the function by its own label, from however deep.
        value.map(lambda e: f"(br_if $body {e} {e}) (drop)"),
        st.just("(drop (memory.grow (i32.const 0)))"),
        st.tuples(value, st.integers(0, 900)).map(
            lambda t: f"(memory.fill (i32.const 64) {t[0]} (i32.const {t[1]}))"
        ),
    )

    if not depth:
        return simple

    inner = st.lists(_statements(depth - 1), max_size=3).map(" ".join)
    return st.one_of(
        simple,
        inner.map(lambda body: f"(block {body})"),
        st.tuples(st.integers(0, 4), inner).map(
            lambda t: (
                f"(local.set $n{depth} (i32.const {t[0]})) (loop $l {t[1]} (br_if $l "
                f"(i32.gt_s (local.tee $n{depth} (i32.sub (local.get $n{depth}) (i32.const 1)))"
                " (i32.const 0))))"
            )
        ),
        st.tuples(value, inner, inner).map(
            lambda t: f"(block (block (block (br_table 0 1 2 0 {t[0]})) {t[1]}) {t[2]})"
        ),
        st.tuples(value, inner).map(
            # A loop by a table: its head is one of the targets.
            lambda t: (
                f"(local.set $n{depth} (i32.const 3)) (block $out (loop $l {t[1]} "
                f"(local.set $n{depth} (i32.sub (local.get $n{depth}) (i32.const 1))) "
                f"(br_table $out $l $l $l $out (local.get $n{depth}))))"
            )
        ),
        st.tuples(value, inner).map(lambda t: f"(if {t[0]} (then {t[1]} (br 0)) (else {t[1]}))"),
        st.tuples(inner, inner).map(lambda t: f"(block {t[0]} (br 0) {t[1]})"),
    )


PROGRAMS = st.lists(_statements(3), max_size=6).map("\n".join)
MODULE_TEXT = """(module (memory (export "memory") 1) (table 3 funcref)
  (type $t (func (param i32) (result i32)))
  (func $small (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
  (func $looping (param i32 i32) (result i32)
    (local.set 0 (i32.and (local.get 0) (i32.const 7)))
    (block (loop (br_if 1 (i32.eqz (local.get 0)))
      (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
      (local.set 1 (i32.add (local.get 1) (i32.const 5))) (br 0)))
    (local.get 1))
  (func $late (type $t) (call $looping (local.get 0) (i32.const 2)))
  (elem (i32.const 0) $small $late)
  (func (export "f") (param i32 i32) (result i32)
    (local i32 i32 i32) (local $n1 i32) (local $n2 i32) (local $n3 i32)
    (block $body (result i32) %s (local.get 2))))"""


@pytest.fixture
def every_byte_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """wasmtime counts as many instructions as bytes are moved."""
    monkeypatch.setattr(code, "_WIDE", {**code._WIDE, instructions.MEMORY_FILL: (-3, 1, 0)})


@pytest.mark.usefixtures("every_byte_counts")
@settings(max_examples=300)
@given(PROGRAMS, st.integers(-3, 1000), st.integers(-3, 1000))
def test_what_is_made_up_does_the_same_and_pays_for_it(
    program: str, first: int, second: int
) -> None:
    same(MODULE_TEXT % program, first, second, free=64)


# Nothing goes on for ever without paying

ENDLESS = {
    "loop": "(loop $l (br $l))",
    "outer loop": "(loop $l (loop) (br $l))",
    "br_if": "(loop $l (br_if $l (i32.const 1)))",
    "br_table": "(loop $l (br_table $l $l (i32.const 1)))",
    "loop with a parameter": "(i32.const 1) (loop $l (param i32) (br $l (i32.const 2)))",
    "recursion": "(call $f)",
    "recursion by a table": "(call_indirect (type $e) (i32.const 0))",
    "small functions": "(loop $l (call $small) (br $l))",
    "memory.fill": "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))",
    "memory.grow": "(loop $l (drop (memory.grow (i32.const 0))) (br $l))",
    "after a block": "(loop $l (block (br 0)) (if (i32.const 1) (then (br $l))))",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
def test_nothing_is_endless(body: str) -> None:
    """wasmtime stops it at the check, which says no."""
    wat = f"""(module (memory 1) (table 1 funcref) (type $e (func)) (elem (i32.const 0) $f)
      (func $small) (func $f (export "f") {body}))"""
    made = metered(wat)
    store = wasmtime.Store(ENGINE)
    store.set_fuel(FUEL)
    looks: list[int] = []

    def check(reason: int) -> int:
        looks.append(reason)

        if len(looks) > 100:
            raise wasmtime.WasmtimeError("enough")

        return 1000

    i32 = wasmtime.ValType.i32()
    linker = wasmtime.Linker(ENGINE)
    linker.define(
        store, MODULE, CHECK, wasmtime.Func(store, wasmtime.FuncType([i32], [i32]), check)
    )
    linker.define(
        store, MODULE, MEMORY, wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, 1)))
    )
    instance = linker.instantiate(store, wasmtime.Module(ENGINE, made.wasm))

    function = instance.exports(store)["f"]
    assert isinstance(function, wasmtime.Func)

    with pytest.raises(wasmtime.WasmtimeError, match="enough"):
        function(store)


def test_moving_bytes_is_paid_by_their_number() -> None:
    wat = """(module (memory (export "memory") 8) (func (export "f") (param i32)
      (memory.fill (i32.const 0) (i32.const 1) (local.get 0))))"""
    few, many = run_metered(wat, 8), run_metered(wat, 8 * 60_000)

    assert many.paid - few.paid == 60_000 - 1


def test_it_is_looked_at_the_clock_whenever_the_memory_has_grown() -> None:
    wat = """(module (memory (export "memory") 1)
      (func (export "f") (drop (memory.grow (i32.const 1)))))"""

    assert run_metered(wat, allowance=100_000).looks == 2


# The stack


def test_recursion_ends_where_the_budget_does() -> None:
    wat = """(module (func $f (export "f") (param i32) (result i32)
      (if (result i32) (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1))))
        (else (i32.const 7)))))"""
    shallow = run_metered(wat, 10, stack=100_000)
    deep = run_metered(wat, 10_000, stack=100_000)

    assert (shallow.result, shallow.stack) == (7, 100_000)
    assert OUT_OF_STACK not in shallow.reasons
    assert deep.reasons[-1] == OUT_OF_STACK
    assert deep.result is None


def test_a_function_with_much_to_keep_takes_more_of_the_stack() -> None:
    def left(body: str) -> int:
        wat = f"""(module (memory 1) (func $g (drop (global.get 0)))
          (global i32 (i32.const 1))
          (func $f (export "f") (param i32) (result i32) {body} (call $h) (i32.const 1))
          (func $h (call $g) unreachable))"""
        return run_metered(wat, 1).stack

    kept = "".join(
        f"(i32.store offset={4 * n} (i32.const 0) (i32.mul (local.get 0) (i32.const {n + 3})))"
        for n in range(1000)
    )
    # A compiler keeps each product, if they are needed once more after a call.
    assert left("") - left(kept) >= 8 * 1000


@pytest.mark.parametrize(
    "leave",
    ["(return (i32.const 5))", "(br 0 (i32.const 5))", "(br_table 0 0 (i32.const 5) (i32.const 1))",
     "(block (result i32) (loop (br 2 (i32.const 5))) unreachable)", "(i32.const 5)"],
)  # fmt: skip
def test_whatever_leaves_a_function_gives_back_its_stack(leave: str) -> None:
    wat = f"""(module (func $g (result i32) (call $h) (drop) {leave})
      (func $h (result i32) (call $small)) (func $small (result i32) (i32.const 3))
      (func (export "f") (result i32) (call $g) (drop) (call $g)))"""
    counted = run_metered(wat)

    assert (counted.result, counted.stack) == (5, BUDGET)


# What is refused


def module_of(body: bytes, locals_: bytes = b"\0") -> bytes:
    """A module of one function, that takes nothing and gives nothing."""
    function = sec.sized(locals_ + body)
    parts = [(sec.TYPE, b"\1\x60\0\0"), (sec.FUNCTION, b"\1\0"), (sec.CODE, b"\1" + function)]
    return sec.join_sections(b"\0asm\1\0\0\0", parts)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x12\0\x0b", "tail calls"),
        (b"\x06\x40\x0b\x0b", "exceptions"),
        (b"\x14\0\x0b", "typed references"),
        (b"\xfb\0\0\x0b", "garbage collection"),
        (b"\xfe\3\0\x0b", "threads"),
        (b"\xff\x0b", "not known"),
        # Vectors of the relaxed proposal.
        (b"\xfd\x80\2\x0b", "vectors"),
        (b"\xfc\x20\x0b", "not known"),
        # Written longer than they have to be.
        (b"\xfc\x8a\0\0\0\x0b", "not known"),
        (b"\xfd\x8d\0\x0b", "vectors"),
        (b"\x41\x80\x80\x80\x80\x80\0\x1a\x0b", "not known"),
        # Of another memory, or with an alignment that says so.
        (b"\x3f\1\x1a\x0b", "not known"),
        (b"\x1c\2\x7f\x7f\x0b", "not known"),
        (b"\x0b\x0b", "goes on after its end"),
        (b"\x02\x40\x0b", "cut short"),
        (b"\x02\x41\x0b\x0b", "cut short"),
        (b"\x10\5\x0b", "cut short"),
        (b"\x11\5\0\x0b", "cut short"),
        (b"\x44\0\x0b", "not known"),
        (b"", "cut short"),
    ],
)
def test_what_is_not_known_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ModuleFormatError, match=reason):
        meter(module_of(body), BUDGET, 10)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([(1, b"\0"), (1, b"\0")], "where there can be none"),
        ([(3, b"\0"), (1, b"\0")], "where there can be none"),
        ([(14, b"\0")], "where there can be none"),
        ([(13, b"\1\0\0")], "exceptions"),
        ([(5, b"\2\0\1\0\1")], "more than one memory"),
        ([(5, b"\1\3\1\2")], "shared"),
        ([(5, b"\1\4\1")], "64 bits"),
        ([(1, b"\1\x60\0\0"), (3, b"\1\1")], "a type that there is not"),
        ([(1, b"\1\x60\0\0"), (10, b"\1\2\0\x0b")], "more code than functions"),
        ([(1, b"\1\x60\0\0"), (3, b"\1\0")], "more functions than code"),
        ([(9, b"\1\x08")], "kind 8"),
        ([(1, b"\0\0")], "longer than what is in it"),
        ([(6, b"\1\x7f\0\x10\0\x0b")], "not known"),
    ],
)
def test_sections_that_can_not_be_are_refused(parts: list[tuple[int, bytes]], reason: str) -> None:
    with pytest.raises(ModuleFormatError, match=reason):
        meter(sec.join_sections(b"\0asm\1\0\0\0", parts), BUDGET, 10)


def test_the_name_of_what_counts_the_stack_is_not_for_modules() -> None:
    with pytest.raises(ModuleFormatError, match="'wasm-middleware stack', a name that is not for"):
        metered(f'(module (func (export "{STACK}")))')


@settings(max_examples=500)
@given(st.data())
def test_a_module_that_is_damaged_is_refused_or_read(data: st.DataObject) -> None:
    """And never anything else; one that is still valid stays so."""
    wasm = bytearray(binary(EVERYTHING))

    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(8, len(wasm) - 1))
        wasm[place] = data.draw(st.integers(0, 255))

    if data.draw(st.booleans()):
        del wasm[data.draw(st.integers(8, len(wasm))) :]

    try:
        made = meter(bytes(wasm), BUDGET, 10)
    except ModuleFormatError:
        return

    if is_valid(bytes(wasm)):
        assert is_valid(made.wasm)


def is_valid(wasm: bytes) -> bool:
    try:
        wasmtime.Module.validate(wasmtime.Engine(), wasm)
    except wasmtime.WasmtimeError:
        return False

    return True
