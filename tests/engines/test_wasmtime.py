"""wasmtime alone: what only WebAssembly can do, time, and the choice of a binding."""

from __future__ import annotations

import pytest
from proxy_wasm.harness import run, started

from tests.wat import wat2wasm
from wasm_middleware.engines.module_info import ModuleFormatError
from wasm_middleware.engines.protocol import Engine, Instance, InstanceLimits
from wasm_middleware.engines.start_section import START
from wasm_middleware.errors import GuestError, GuestMemoryLimit, GuestTrap
from wasm_middleware.proxy_wasm.ports import HostFunction

LIMITS = InstanceLimits(4 * 65536, 100)


def make(
    engine: Engine,
    wat: str,
    *functions: HostFunction,
    limits: InstanceLimits = LIMITS,
    timeout: float | None = 5.0,
) -> Instance:
    waiting = list(functions)
    module = engine.compile(wat2wasm(wat))
    return started(module.instantiate(lambda *_: waiting.pop(0), limits), timeout)


def enter(instance: Instance, name: str = "f", *arguments: int) -> int:
    function = instance.function(name)
    assert function is not None
    return run(function(*arguments))


# Imports


def test_imports_of_one_name_and_two_types_are_two_imports(wasm_engine: Engine) -> None:
    seen: list[tuple[str, tuple[object, ...]]] = []

    def resolve(_module: str, _name: str, signature: str) -> HostFunction:
        return HostFunction(lambda *arguments: seen.append((signature, arguments)) or 7, 0)  # type: ignore[func-returns-value]

    wat = """(module
      (import "a" "f" (func $wide (param i32 i32 i32 i32)))
      (import "a" "f" (func $narrow (result i32)))
      (import "a" "f" (func $long (param i64) (result i32)))
      (func (export "f") (result i32)
        (call $wide (i32.const 1) (i32.const 2) (i32.const 3) (i32.const 4))
        (i32.add (call $narrow) (call $long (i64.const -9)))))"""
    module = wasm_engine.compile(wat2wasm(wat))
    instance = started(module.instantiate(resolve, LIMITS), 5.0)

    assert enter(instance) == 14
    assert seen == [("iiii>", (1, 2, 3, 4)), (">i", ()), ("I>i", (-9,))]


def test_one_function_imported_again_and_again_is_made_once(wasmtime_engine: Engine) -> None:
    """Each takes a fraction of a millisecond to make, in the event loop."""
    asked: list[str] = []

    def resolve(_module: str, name: str, _signature: str) -> HostFunction:
        asked.append(name)
        return HostFunction(lambda: 7, 0)

    imports = '(import "a" "f" (func (result i32)))' * 100
    references = """(import "a" "r" (func (result externref)))
      (import "a" "r" (func (result funcref)))"""
    wat = f"""(module {imports} (import "a" "g" (func (result i32))) {references}
      (func (export "f") (result i32) (i32.add (call 0) (call 99))))"""
    module = wasmtime_engine.compile(wat2wasm(wat))

    assert enter(started(module.instantiate(resolve, LIMITS), 5.0)) == 14
    assert asked == ["f", "g", "r", "r"]


@pytest.mark.parametrize("type_", ["externref", "funcref"])
def test_a_reference_from_the_host_is_null(wasm_engine: Engine, type_: str) -> None:
    wat = f"""(module (import "a" "f" (func $f (param i32) (result {type_})))
      (func (export "f") (result i32) (ref.is_null (call $f (i32.const 1)))))"""

    assert enter(make(wasm_engine, wat, HostFunction(lambda _: 12, 0))) == 1


def test_references_to_and_from_the_host_are_nothing(wasm_engine: Engine) -> None:
    """However the function is reached: called, through a table, or by its export."""
    seen: list[object] = []
    wat = """(module
      (type $t (func (param i32 externref f32 funcref i64) (result i32 externref i64)))
      (import "a" "f" (func $f (type $t)))
      (import "a" "g" (func $g (param i32) (result i32)))
      (table 1 funcref) (elem (i32.const 0) $f)
      (global $r funcref (ref.func $f)) (export "f2" (func $f))
      (func $numbers (param i32 externref i64) (result i32)
        (i32.add (i32.add (local.get 0) (ref.is_null (local.get 1))) (i32.wrap_i64 (local.get 2))))
      (func (export "f") (result i32)
        (i32.const 1) (ref.null extern) (f32.const 0) (ref.func $f) (i64.const -5)
        (call $f) (call $numbers)
        (i32.const 2) (ref.null extern) (f32.const 0) (ref.null func) (i64.const -6)
        (call_indirect (type $t) (i32.const 0)) (call $numbers)
        (i32.add) (i32.add (call $g (i32.const 40)))))"""
    functions = [
        HostFunction(lambda *given: seen.append((given[0], given[-1])) or 0, 0),  # type: ignore[func-returns-value]
        HostFunction(lambda number: number, 0),
    ]

    assert enter(make(wasm_engine, wat, *functions)) == 42
    assert seen == [(1, -5), (2, -6)]


@pytest.mark.parametrize(("type_", "letter"), [("i64", "I"), ("f32", "f"), ("f64", "F")])
def test_other_results_are_numbers(wasm_engine: Engine, type_: str, letter: str) -> None:
    wat = f"""(module (import "a" "f" (func $f (param {type_}) (result {type_})))
      (memory (export "memory") 1)
      (func (export "f") ({type_}.store (i32.const 0) (call $f ({type_}.const 0)))))"""
    instance = make(wasm_engine, wat, HostFunction(lambda _: 12, 0))
    enter(instance)

    assert instance.memory.read(0, 4) == (b"\x0c\0\0\0" if letter == "I" else bytes(4))


def test_an_import_with_several_results_gets_zeros(wasm_engine: Engine) -> None:
    wat = """(module (import "a" "f" (func $f (result i32 i32)))
      (func (export "f") (result i32) (i32.add (call $f))))"""

    assert enter(make(wasm_engine, wat, HostFunction(lambda: 0, 0))) == 0


@pytest.mark.parametrize("what", ["(memory 1)", "(global i32)", "(table 1 funcref)"])
def test_only_functions_can_be_imported(wasm_engine: Engine, what: str) -> None:
    with pytest.raises(GuestTrap, match=r"it imports a\.b, which is not a function"):
        make(wasm_engine, f'(module (import "a" "b" {what}))')


def test_what_finding_a_function_raises_is_raised(wasm_engine: Engine) -> None:
    def resolve(*_arguments: str) -> HostFunction:
        raise LookupError("x")

    module = wasm_engine.compile(wat2wasm('(module (import "a" "b" (func)))'))

    with pytest.raises(LookupError):
        module.instantiate(resolve, LIMITS)


def test_what_a_host_function_raises_in_a_start_function_is_raised(
    wasm_engine: Engine,
) -> None:
    error = ZeroDivisionError()

    def fail() -> int:
        raise error

    with pytest.raises(ZeroDivisionError) as caught:
        make(wasm_engine, '(module (import "a" "b" (func $f)) (start $f))', HostFunction(fail, 0))

    assert caught.value is error


# Modules and limits


@pytest.mark.parametrize(
    "wasm",
    [b"", b"\0asm", b"\0asm\1\0\0\0\xff", b"\0asm\x0d\0\1\0", b"(module)", b"\x7fELF" + bytes(60)],
)
def test_what_is_no_module_is_not_compiled(wasm_engine: Engine, wasm: bytes) -> None:
    with pytest.raises(ModuleFormatError):
        wasm_engine.compile(wasm)


@pytest.mark.parametrize("type_", ["(param i32)", "(result i32)"])
def test_a_start_function_takes_and_gives_nothing(wasm_engine: Engine, type_: str) -> None:
    """It is called, and the engine would believe the caller. Text would not be taken."""
    result = "(i32.const 1)" if "result" in type_ else ""
    wasm = wat2wasm(f"(module (func $a) (func {type_} {result}) (start $a))")

    with pytest.raises(ModuleFormatError, match="parameters or results"):
        wasm_engine.compile(wasm.replace(b"\x08\1\0", b"\x08\1\1"))


@pytest.mark.parametrize("what", ["(func (export {0}) (param i32))", "(memory (export {0}) 1)"])
def test_a_module_can_not_pass_for_one_with_a_start_function(
    wasm_engine: Engine, what: str
) -> None:
    wasm = wat2wasm(f"(module {what.format(chr(34) + START + chr(34))})")

    with pytest.raises(ModuleFormatError, match="a name that is not for modules"):
        wasm_engine.compile(wasm)


def test_code_that_is_not_valid_says_why(wasm_engine: Engine) -> None:
    # A function that promises an i32 and gives none.
    wasm = b"\0asm\1\0\0\0\1\5\1\x60\0\1\x7f\3\2\1\0\x0a\4\1\2\0\x0b"

    with pytest.raises(ModuleFormatError, match="type mismatch"):
        wasm_engine.compile(wasm)


@pytest.mark.parametrize("body", ["(table 101 funcref)", "(table 1 funcref)" * 5])
def test_tables_have_limits(wasm_engine: Engine, body: str) -> None:
    with pytest.raises(GuestError):
        make(wasm_engine, f"(module {body})")


def test_there_can_be_one_memory(wasmtime_engine: Engine) -> None:
    with pytest.raises(GuestError):
        make(wasmtime_engine, "(module (memory 1) (memory 1))")


def test_tables_do_not_grow_beyond_the_limit(wasm_engine: Engine) -> None:
    wat = """(module (table $t 1 funcref)
      (func (export "f") (param i32) (result i32)
        (table.grow $t (ref.null func) (local.get 0))))"""
    instance = make(wasm_engine, wat)

    assert enter(instance, "f", 100) == 0xFFFF_FFFF
    assert enter(instance, "f", 99) == 1


def test_a_module_without_memory_has_an_empty_one(wasm_engine: Engine) -> None:
    instance = make(wasm_engine, '(module (func (export "f")))')

    assert instance.memory.size == 0

    for reach in (lambda: instance.memory.read(0, 0), lambda: instance.memory.write_u32(0, 0)):
        with pytest.raises(Exception, match="exports no memory"):
            reach()


def test_a_memory_may_begin_with_nothing(wasm_engine: Engine) -> None:
    wat = """(module (memory (export "memory") 0)
      (func (export "f") (result i32) (memory.grow (i32.const 1))))"""
    instance = make(wasm_engine, wat)
    assert instance.memory.size == 0
    assert enter(instance) == 0
    instance.memory.write(65532, b"last")

    assert instance.memory.read(65532, 4) == b"last"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const -1)))", "out of bounds memory access"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(call $f)", "call stack exhausted"),
    ],
)
def test_a_trap_says_what_it_was_and_where(wasm_engine: Engine, body: str, reason: str) -> None:
    wat = f"""(module (memory 1)
      (func $f {body}) (func $named (export "f") (call $f)))"""

    with pytest.raises(GuestTrap) as caught:
        enter(make(wasm_engine, wat))

    assert reason in caught.value.reason
    assert "\n" not in caught.value.reason


def test_an_exception_that_nobody_catches_is_a_trap(wasm_engine: Engine) -> None:
    wat = '(module (tag $e) (func (export "f") (throw $e)))'

    try:
        instance = make(wasm_engine, wat)
    except ModuleFormatError:
        pytest.skip("this wasmtime has no exceptions by default")

    with pytest.raises(GuestTrap, match="thrown Wasm exception"):
        enter(instance)


def test_a_trap_in_a_start_function_is_a_guest_error(wasm_engine: Engine) -> None:
    with pytest.raises(GuestTrap, match="unreachable"):
        make(wasm_engine, "(module (start $f) (func $f unreachable))")


def test_a_data_segment_beyond_the_memory_is_a_guest_error(wasm_engine: Engine) -> None:
    with pytest.raises(GuestTrap, match="out of bounds"):
        make(wasm_engine, '(module (memory 1) (data (i32.const 65536) "x"))')


def test_a_module_that_begins_beyond_its_limit_is_a_memory_error(wasm_engine: Engine) -> None:
    with pytest.raises(GuestMemoryLimit, match="262,144 bytes"):
        make(wasm_engine, '(module (memory (export "memory") 5))')


# Interrupted


def test_a_call_that_is_interrupted_while_it_begins_leaves_no_busy_instance(
    wasmtime_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's handler may raise before the guest is entered. It is lost, and says so."""

    def interrupted(_ticks: int) -> None:
        raise KeyboardInterrupt

    instance = make(wasmtime_engine, '(module (func (export "f")))')
    monkeypatch.setattr(instance, "_set_deadline", interrupted)

    with pytest.raises(KeyboardInterrupt):
        enter(instance)

    assert instance.poisoned
    assert not instance._entered  # type: ignore[attr-defined]
