"""wasmer alone: threads, panics, what it can't pass, and that nothing of it gets past the counts.

Skipped where there is no wasmer: CPython 3.11 and later, and without `wasm-middleware[wasmer]`.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import random
import threading
import time
import weakref

import pytest
from proxy_wasm.harness import run, started

from tests.conftest import WASMER
from tests.wat import wat2wasm
from wasm_middleware.engines.isolation import Bounds, CompilationFailed
from wasm_middleware.engines.metering import STACK, instructions
from wasm_middleware.engines.module_info import ModuleFormatError
from wasm_middleware.engines.protocol import Engine, Instance, InstanceLimits
from wasm_middleware.errors import (
    GuestExit,
    GuestMemoryLimit,
    GuestTimeout,
    GuestTrap,
    HostBug,
    MemoryFault,
)
from wasm_middleware.proxy_wasm.ports import HostFunction

from .test_metering import EVERYTHING, WITHOUT_IMPORTS, module_of, run_plain

if not WASMER:
    pytest.skip("wasmer needs CPython 3.10 and wasm-middleware[wasmer]", allow_module_level=True)

import wasmer

from wasm_middleware.engines.wasmer import WasmerEngine, WasmerModule, compiling
from wasm_middleware.engines.wasmer.compiling import new_store
from wasm_middleware.engines.wasmer.instance import WasmerInstance

PAGE = 65536
LIMITS = InstanceLimits(4 * PAGE, 100)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return WasmerEngine()


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


# What it can't do is said


@pytest.mark.parametrize(
    ("wat", "reason"),
    [
        ("(module (func $f (return_call $f)))", "tail calls"),
        ('(module (tag $e) (func (export "f") (throw $e)))', "exceptions, .* wasmtime has them"),
        ("(module (func (block $b (try_table (catch_all $b)))))", "exceptions, .* has them"),
        ("(module (global i32 (i32.add (i32.const 1) (i32.const 2))))", "extended constant"),
        ("(module (memory 1) (memory 1))", "multiple memories, .* build it without"),
        ("(module (memory i64 1))", "memory64"),
        ("(module (memory 1 1 shared))", "threads"),
    ],
)
def test_newer_webassembly_is_a_clear_error(engine: Engine, wat: str, reason: str) -> None:
    with pytest.raises(ModuleFormatError, match=reason):
        engine.compile(wat2wasm(wat))


def test_tail_calls_name_the_engine_that_has_them(engine: Engine) -> None:
    with pytest.raises(ModuleFormatError, match=r"tail calls, .* engine: wasmtime has them"):
        engine.compile(wat2wasm("(module (func $f (return_call $f)))"))


def test_a_module_that_begins_beyond_its_limit_is_refused_with_both_numbers(
    engine: Engine,
) -> None:
    with pytest.raises(GuestMemoryLimit, match=r"327,680 bytes .* 262,144 bytes"):
        make(engine, '(module (memory (export "memory") 5))')


def test_one_module_has_instances_of_different_limits(engine: Engine) -> None:
    wat = """(module (memory (export "memory") 1 9)
      (func (export "f") (param i32) (result i32) (memory.grow (local.get 0))))"""
    module = engine.compile(wat2wasm(wat))
    most = {}

    for pages in (2, 5, 100):
        instance = module.instantiate(
            lambda *_: HostFunction(int, 0), InstanceLimits(pages * PAGE, 9)
        )
        grown = [enter(instance, "f", 1) for _ in range(12)]
        most[pages] = instance.memory.size // PAGE
        assert grown.count(0xFFFF_FFFF) == 12 - (most[pages] - 1)

    assert most == {2: 2, 5: 5, 100: 9}


def test_a_panic_of_the_compiler_is_a_module_that_can_not_be_compiled(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A panic is no `Exception`; here is one of another cause."""
    instance = make(engine, '(module (func (export "f")))')
    assert isinstance(instance, WasmerInstance)
    panics: list[BaseException] = []

    def elsewhere() -> None:
        try:
            _ = instance._instance.exports
        except BaseException as error:
            panics.append(error)

    in_thread(elsewhere)
    assert not isinstance(panics[0], Exception)

    def panic(*_arguments: object) -> None:
        raise panics[0]

    monkeypatch.setattr(wasmer, "Module", panic)
    monkeypatch.setattr(panic, "validate", lambda *_: True, raising=False)

    with pytest.raises(ModuleFormatError, match="wasmer itself failed"):
        engine.compile(b"\0asm\1\0\0\0")


# Threads


def in_thread(function: object) -> None:
    thread = threading.Thread(target=function)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_a_module_may_be_compiled_on_any_thread_and_be_used_on_others(engine: Engine) -> None:
    modules = []
    wat = '(module (func (export "f") (result i32) (i32.const 7)))'
    in_thread(lambda: modules.append(engine.compile(wat2wasm(wat))))
    results: list[int] = []

    def use() -> None:
        instance = modules[0].instantiate(lambda *_: HostFunction(int, 0), LIMITS)
        results.append(enter(instance))
        instance.close()

    use()
    in_thread(use)
    use()
    assert results == [7, 7, 7]


def test_an_instance_is_lost_to_other_threads_and_harms_nobody(engine: Engine) -> None:
    wat = '(module (memory (export "memory") 1) (func (export "f") (result i32) (i32.const 7)))'
    instance = make(engine, wat)
    function = instance.function("f")
    assert function is not None
    seen: list[object] = []

    def elsewhere() -> None:
        seen.append(instance.poisoned)

        try:
            run(function())
        except GuestTrap as error:
            seen.append(str(error))

    in_thread(elsewhere)
    assert seen == [True, "wasmer keeps its instance to the thread that has started it"]
    assert not instance.poisoned
    assert run(function()) == 7
    in_thread(instance.close)

    with pytest.raises(HostBug):
        run(function())


def test_a_thread_that_comes_after_one_that_has_ended_is_another(engine: Engine) -> None:
    """Though the system may give it the same number."""
    wat = '(module (memory (export "memory") 1) (func (export "f") (result i32) (i32.const 7)))'
    module = engine.compile(wat2wasm(wat))
    made: list[Instance] = []
    seen: list[object] = []

    def use() -> None:
        seen.extend(instance.poisoned for instance in made)
        made.append(module.instantiate(lambda *_: HostFunction(int, 0), LIMITS))
        seen.append(enter(made[-1]))

    for _ in range(3):
        in_thread(use)

    assert seen == [7, True, 7, True, True, 7]


# What holds on to what


def test_a_closed_instance_is_freed_with_its_host_functions(engine: Engine) -> None:
    class Host:
        def call(self, *_arguments: int) -> int:
            return 0

    wat = """(module (import "a" "f" (func $f)) (memory (export "memory") 1)
      (func (export "f") (call $f)))"""
    module = engine.compile(wat2wasm(wat))
    alive = weakref.WeakSet[Host]()

    for _ in range(5):
        host = Host()
        alive.add(host)
        given = HostFunction(host.call, 0)
        instance = module.instantiate(lambda *_, given=given: given, LIMITS)
        function = instance.function("f")
        assert function is not None
        run(function())
        instance.memory.write_u32(0, 1)
        instance.close()

        with pytest.raises(MemoryFault):
            instance.memory.read(0, 1)

    del host, given, instance, function
    gc.collect()
    assert not alive


def test_no_view_of_the_memory_from_before_it_grew_is_used(engine: Engine) -> None:
    """The guest grows it in the middle of a call, between two host calls and within one."""
    wat = """(module (import "a" "f" (func $f (result i32))) (memory (export "memory") 1)
      (func (export "grow") (result i32) (memory.grow (i32.const 1)))
      (func (export "f") (result i32)
        (drop (call $f)) (drop (memory.grow (i32.const 1))) (drop (call $f))
        (i32.load (i32.const 131068))))"""
    views: list[object] = []
    sizes: list[int] = []

    def host() -> int:
        memory = instance.memory
        views.append(memory._view)  # type: ignore[attr-defined]
        sizes.append(memory.size)

        if len(sizes) == 2:
            memory.write_u32(131068, 42)
            grow = instance.inner_function("grow")
            assert grow is not None
            grow()
            views.append(memory._view)  # type: ignore[attr-defined]
            sizes.append(memory.size)
            memory.write(3 * PAGE - 1, b"x")

        return 0

    instance = make(engine, wat, HostFunction(host, 0))
    assert enter(instance) == 42
    assert sizes == [PAGE, 2 * PAGE, 3 * PAGE]
    assert len({id(view) for view in views}) == 3


# Time


@pytest.mark.parametrize(
    "body",
    [
        "(loop $l (br $l))",
        "(loop $l (call $f) (br $l))",
        "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 262144)) (br $l))",
        "(loop $l (drop (memory.grow (i32.const 0))) (br $l))",
        "(loop $l (br_table $l $l (i32.const 0)))",
        "(loop $l (call $g) (br $l))",
    ],
)
@pytest.mark.timeout(30, method="thread")
def test_whatever_a_guest_spins_with_is_stopped(engine: Engine, body: str) -> None:
    wat = f"""(module (import "a" "f" (func $f)) (memory 4)
      (func $g) (func (export "f") {body}))"""
    instance = make(engine, wat, HostFunction(lambda: 0, 0), timeout=0.05)
    begun = time.perf_counter()

    with pytest.raises(GuestTimeout, match="50 ms"):
        enter(instance)

    assert 0.049 < time.perf_counter() - begun < 1


def test_a_request_that_has_less_left_says_so(engine: Engine) -> None:
    instance = make(engine, '(module (func (export "f") (loop $l (br $l))))', timeout=1)
    instance.limit_call(0.02)

    with pytest.raises(GuestTimeout, match="the 20 ms left of its request_timeout"):
        enter(instance)


def test_other_threads_run_while_a_guest_spins(engine: Engine) -> None:
    """wasmer keeps the interpreter's lock; the looks at the clock let go of it."""
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    instance = make(engine, '(module (func (export "f") (loop $l (br $l))))', timeout=0.3)
    thread.start()
    begun = time.perf_counter()

    with pytest.raises(GuestTimeout):
        enter(instance)

    stop.set()
    thread.join()
    assert sum(tick < begun + 0.3 for tick in ticks) > 5


# The stack

DEEP = """(module (import "a" "h" (func $h (param i32) (result i32)))
  (memory (export "memory") 4) %s
  (func $f (export "f") (param $n i32) (result i32) %s
    (drop (call $h (local.get $n)))
    (if (i32.eqz (local.get $n)) (then (return (i32.const 0))))
    %s))"""
AGAIN = "(call $f (i32.sub (local.get $n) (i32.const 1)))"


def _repeated(count: int, text: str) -> str:
    return "".join(text % {"n": n, "at": 4 * n} for n in range(count))


def _declared(count: int) -> str:
    return "".join(f"(local $l{n} i32)" for n in range(count))


_PRODUCTS = _repeated(
    2000, "(i32.store offset=%(at)d (i32.const 0) (i32.mul (local.get $n) (i32.const %(n)d)))"
)
_ADDRESSES = _repeated(
    2000, "(i32.store (i32.add (local.get $n) (i32.const %(at)d)) (local.get $n))"
)
_QUOTIENTS = _repeated(
    500, "(i32.store offset=%(at)d (i32.const 0) (i32.div_u (local.get $n) (i32.const 1%(n)d7)))"
)
_LOADED = "(local.set $l%(n)d (i32.and (i32.const 255) (i32.load offset=%(at)d (local.get $n))))"
_CALL_H = "(drop (call $h (i32.const 1)))"


def _shuffled(count: int, seed: int) -> str:
    """Each local becomes what another one was, by way of the one behind them."""
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    steps = zip([count, *numbers], [*numbers, count], strict=True)
    return "".join(f"(local.set $l{to} (local.get $l{of}))" for to, of in steps)


# Where paths meet, each local that one of them has set is another value.
_JOINS = "".join(
    f"(if (local.get $l{seed}) (then {_shuffled(200, seed)})) {_CALL_H}" for seed in range(40)
)
FRAMES = {
    "small": ("", "", AGAIN),
    "locals": ("", _declared(3000), _repeated(3000, _LOADED) + AGAIN
               + _repeated(3000, "(i32.add (local.get $l%(n)d))")),
    "operands": ("", "", _repeated(3000, "(i32.load offset=%(at)d (local.get $n))") + AGAIN
                 + "(i32.add)" * 3000),
    # What is computed twice is computed once, and kept over the call between.
    "products": ("", "", _PRODUCTS + _CALL_H + _PRODUCTS + AGAIN),
    "addresses": ("", "", _ADDRESSES + _CALL_H + _ADDRESSES + AGAIN),
    "quotients": ("", "", _QUOTIENTS + _CALL_H + _QUOTIENTS + AGAIN),
    "joins": ("", _declared(201), _repeated(200, _LOADED) + _JOINS + AGAIN + _JOINS),
    "arguments": (f"(func $g (param {'i64 ' * 200}))", "",
                  f"(call $g {_repeated(200, '(i64.load offset=%(at)d (local.get $n))')})" + AGAIN),
    "results": (f"(func $g (result {'i64 ' * 200}) {'(i64.const 1)' * 200})", "",
                "(call $g)" + "(drop)" * 200 + AGAIN),
    "tables": ("(type $t (func)) (table 1 funcref) (elem (i32.const 0) $e) (func $e)",
               _declared(200),
               _repeated(200, "(call_indirect (type $t) (local.get $l%(n)d))") * 2 + AGAIN),
}  # fmt: skip


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="knows where Linux on x86-64 keeps the stack's pointer",
)
@pytest.mark.parametrize("shape", FRAMES)
def test_no_frame_takes_more_of_the_stack_than_is_counted(engine: Engine, shape: str) -> None:
    libc = ctypes.CDLL(None)
    registers = ctypes.create_string_buffer(2048)
    pointers: dict[int, int] = {}
    left: dict[int, int] = {}
    depth = 6

    def look(number: int) -> int:
        libc.getcontext(registers)
        pointer = int.from_bytes(registers.raw[160:168], "little")
        # Where it is called more than once, the first time.
        assert isinstance(instance, WasmerInstance)
        pointers.setdefault(number, pointer)
        left.setdefault(number, getattr(instance._instance.exports, STACK).value)
        return 0

    instance = make(engine, DEEP % FRAMES[shape], HostFunction(look, 0))
    enter(instance, "f", depth)
    # Not to the end: `$h` is called with 1 from elsewhere.
    taken = pointers[depth] - pointers[2]
    counted = left[depth] - left[2]

    assert 0 < taken <= counted


def test_a_guest_at_the_end_of_its_stack_calls_the_host_and_harms_nobody(engine: Engine) -> None:
    """wasmer would let it go on to the machine's end, and leave Python from within."""

    def deep(count: int) -> int:
        return deep(count - 1) + 1 if count else 0

    called: list[int] = []

    def host(number: int) -> int:
        called.append(number)
        return deep(200)

    for _ in range(3):
        with pytest.raises(GuestTrap, match="call stack exhausted"):
            enter(make(engine, DEEP % ("", "", "(call $f (i32.add (local.get $n) (i32.const 1)))"),
                       HostFunction(host, 0)), "f", 1)  # fmt: skip

    assert max(called) > 1000
    assert deep(200) == 200


def test_what_is_passed_on_and_given_back_counts_for_the_stack(engine: Engine) -> None:
    """Seen at 1.3 of what was counted, which a thread with a small stack has no room for."""
    count = 120
    gets = "".join(f"(local.get {index + 1})" for index in range(count))
    uses = "".join(f"(call $use (local.get {index + 1}))" for index in range(count))
    many = "i64 " * count
    wat = f"""(module (import "a" "h" (func $h (param i32) (result i32)))
      (func $g (param i32 {many}) (result {many})
        (drop (call $h (local.get 0)))
        (call $g (i32.add (local.get 0) (i32.const 1)) {gets}) {uses})
      (func $use (param i64))
      (func (export "f") (param i32)
        (call $g (local.get 0) {"(i64.const 3)" * count}) {"(drop)" * count}))"""
    libc = ctypes.CDLL(None)
    registers = ctypes.create_string_buffer(2048)
    pointers: list[int] = []
    left: list[int] = []

    def look(number: int) -> int:
        libc.getcontext(registers)
        pointers.append(int.from_bytes(registers.raw[160:168], "little"))
        assert isinstance(instance, WasmerInstance)
        left.append(getattr(instance._instance.exports, STACK).value)
        return 0

    instance = make(engine, wat, HostFunction(look, 0))

    with pytest.raises(GuestTrap, match="call stack exhausted"):
        enter(instance, "f", 1)

    assert 0 < pointers[0] - pointers[-1] <= left[0] - left[-1]


def test_a_guest_has_half_of_the_stack_of_the_thread_that_it_runs_on(engine: Engine) -> None:
    module = engine.compile(wat2wasm(DEEP % ("", "", AGAIN)))
    left = []

    def look() -> None:
        instance = module.instantiate(lambda *_: HostFunction(lambda _: 0, 0), LIMITS)
        assert isinstance(instance, WasmerInstance)
        left.append(getattr(instance._instance.exports, STACK).value)
        instance.close()

    in_thread(look)
    before = threading.stack_size(256 * 1024)

    try:
        in_thread(look)
    finally:
        threading.stack_size(before)

    assert left == [4 * 1024 * 1024, 128 * 1024]


def test_the_stack_of_what_was_left_is_given_back(engine: Engine) -> None:
    def leave() -> int:
        raise GuestExit(0)

    wat = """(module (import "a" "f" (func $f))
      (func $deep (export "f") (param i32) (result i32)
        (if (i32.eqz (local.get 0)) (then (call $f)))
        (call $deep (i32.sub (local.get 0) (i32.const 1)))))"""
    instance = make(engine, wat, HostFunction(leave, 0))

    for _ in range(200):
        with pytest.raises(GuestExit):
            enter(instance, "f", 1000)

    assert not instance.poisoned


# That wasmer reads instructions as we do

_MEMORY_ACCESSES = dict.fromkeys(range(40, 63), b"\x00\x06")
_CONSTANTS = {0x41: b"\6", 0x42: b"\6", 0x43: b"\6" * 4, 0x44: b"\6" * 8}
_NUMERIC = dict.fromkeys((0x00, 0x01, 0x1A, 0x1B, *range(0x45, 0xC5), 0xD1), b"")
_TYPED = {0x1C: b"\1\x7f", 0x3F: b"\0", 0xD0: b"\x70"}
#: What names something by a number.
_NAMING = (0x0C, 0x0D, *range(0x20, 0x27), 0x10, 0xD2, 0x3F, 0x40, 0xD0)
_DROP = b"\x1a"


def _accepts(*parts: bytes) -> bool:
    """Whether wasmer takes these instructions, between two that leave the types open.

    Were they read too long, a part of the number that follows would be left over.
    """
    wasm = module_of(b"\0" + b"".join(parts) + b"\x44" + b"\6" * 8 + b"\0\x0b")
    at = wasm.index(b"\x0a", 16)
    return bool(wasmer.Module.validate(new_store(), wasm[:at] + b"\5\3\1\0\1" + wasm[at:]))


@pytest.mark.parametrize(
    ("code", "rest"),
    [*_MEMORY_ACCESSES.items(), *_CONSTANTS.items(), *_NUMERIC.items(), *_TYPED.items()],
)
def test_a_plain_instruction_ends_where_we_think(code: int, rest: bytes) -> None:
    text = bytes([code]) + rest

    assert instructions.PLAIN.fullmatch(text)
    assert _accepts(text)

    if rest:
        assert not instructions.PLAIN.fullmatch(text[:-1])


@pytest.mark.parametrize(
    "fields",
    [
        "(func (drop (v128.const i64x2 1 2)))",
        "(func (local v128))",
        "(func (param v128))",
        "(func (result v128) unreachable)",
        "(func (block (result v128) unreachable) drop)",
        "(func (select (result v128) unreachable) drop)",
        "(global v128 (v128.const i64x2 1 2))",
        """(import "a" "f" (func (result v128)))""",
    ],
)
def test_vectors_are_refused(engine: Engine, fields: str) -> None:
    """wasmer's compiler gives wrong results for some: `select` takes 32 bits of 128."""
    with pytest.raises(ModuleFormatError, match=r"it uses vectors.*engine: wasmtime has more"):
        engine.compile(wat2wasm(f"(module {fields})"))


@pytest.mark.parametrize("code", _NAMING)
def test_what_is_named_is_a_part_of_the_instruction(code: int) -> None:
    """Nothing has the number 26; as an instruction of its own it would be fine."""
    assert not _accepts(bytes([code]), _DROP)


def test_wasmer_runs_all_of_it_as_wasmtime_does(engine: Engine) -> None:
    wat = EVERYTHING.replace("i32.const -77", "i32.const 77")

    for arguments in [(0, 0), (1, 9), (4, 3), (5, 1), (6, 0), (7, 20)]:
        ours = make(engine, wat, HostFunction(int, 0))
        theirs = run_plain(WITHOUT_IMPORTS, *arguments)

        if theirs.trap is None:
            assert enter(ours, "f", *arguments) == theirs.result
        else:
            with pytest.raises(GuestTrap):
                enter(ours, "f", *arguments)


# What becomes of failures of wasmer's own


def test_an_instance_that_is_closed_in_a_call_keeps_its_memory_until_it_is_left(
    engine: Engine,
) -> None:
    wat = """(module (import "a" "h" (func $h)) (memory (export "memory") 1)
      (func (export "f") (result i32)
        (call $h) (i32.store (i32.const 60000) (i32.const 7)) (i32.load (i32.const 60000))))"""
    instance = make(engine, wat, HostFunction(lambda: instance.close() or 0, 0))

    assert enter(instance) == 7
    assert instance.poisoned
    assert instance.memory.size == 0


def test_memory_that_the_system_refuses_is_a_failure_of_the_guest(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("Error when allocating memory: Cannot allocate memory (os error 12)")

    monkeypatch.setattr(wasmer, "Memory", refuse)

    with pytest.raises(GuestTrap, match="Cannot allocate memory"):
        make(engine, "(module (memory 1))")


def test_looking_a_function_up_again_keeps_nothing(engine: Engine) -> None:
    instance = make(engine, '(module (func (export "f")))')

    for _ in range(3):
        assert instance.function("f") is not None
        assert instance.function("g") is None

    assert isinstance(instance, WasmerInstance)
    assert list(instance._entries) == ["f"]


# Where it has trapped


@pytest.mark.parametrize(
    ("given", "said"), [("$inner", "inner, called by outer"), ("", "function 1, called by outer")]
)
def test_a_trap_names_the_functions_of_the_module_as_it_came(
    engine: Engine, given: str, said: str
) -> None:
    # The imported one has a function in front of it, which is numbered after all others.
    wat = f"""(module (import "a" "g" (func $given (param externref)))
      (func {given} unreachable) (func $outer (export "f") (call 1)))"""
    instance = make(engine, wat, HostFunction(lambda: None, 0))

    with pytest.raises(GuestTrap, match=rf"unreachable \(in {said}\)"):
        enter(instance)


# As the binary format has it: function 0 twice, one that there is not, and a section cut short.
@pytest.mark.parametrize(
    "names", [b"\1\x07\2\0\1a\0\1b", b"\1\4\1\x09\1a", b"\1\xff", b"\1\4\1\0\1\xff"]
)
def test_names_that_are_wrong_are_no_reason_to_refuse_a_module(
    engine: Engine, names: bytes
) -> None:
    wasm = wat2wasm('(module (func (export "f") unreachable))')
    section = b"\4name" + names
    module = engine.compile(wasm + bytes([0, len(section)]) + section)
    instance = started(module.instantiate(lambda *_: HostFunction(int, 0), LIMITS), 5.0)

    with pytest.raises(GuestTrap, match="unreachable"):
        enter(instance)


# Compiled elsewhere


def test_what_is_compiled_elsewhere_runs_here(engine: Engine) -> None:
    wat = """(module (import "a" "f" (func $f (param i32) (result i32)))
      (global $started (mut i32) (i32.const 0)) (start $begin)
      (func $begin (global.set $started (i32.const 100)))
      (func (export "f") (param i32) (result i32)
        (i32.add (global.get $started) (call $f (local.get 0)))))"""
    module = engine.compile_isolated(wat2wasm(wat))
    instance = started(
        module.instantiate(lambda *_: HostFunction(lambda number: number + 1, 0), LIMITS), 5.0
    )

    assert enter(instance, "f", 6) == 107


def test_what_is_compiled_elsewhere_has_the_same_memory_and_tables(engine: Engine) -> None:
    wat = """(module (import "a" "f" (func (param f64 externref) (result i64)))
      (memory (export "memory") 2 3) (table 7 funcref)
      (func (export "f") (result i32) (memory.grow (i32.const 1))))"""
    wasm = wat2wasm(wat)
    here, elsewhere = engine.compile(wasm), engine.compile_isolated(wasm)
    assert isinstance(here, WasmerModule)
    assert isinstance(elsewhere, WasmerModule)
    assert here._code(100).needs == elsewhere._code(100).needs
    instance = started(elsewhere.instantiate(lambda *_: HostFunction(int, 0), LIMITS), 5.0)
    assert enter(instance) == 2


def test_a_module_that_is_slow_to_read_is_read_elsewhere(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither validated nor rewritten in the process that serves."""
    monkeypatch.setattr(compiling, "compile_metered", None)
    monkeypatch.setattr(compiling, "meter", None)
    engine.compile_isolated(wat2wasm("(module)"))


@pytest.mark.parametrize("said", [b"", b"hello\n", b"{}\n", b"[1]\n\0"])
def test_what_another_process_says_besides_is_no_code(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(compiling, "compile_isolated", lambda *_: said)

    with pytest.raises(CompilationFailed, match="the process that compiled it said"):
        engine.compile_isolated(wat2wasm("(module)"))


def test_a_module_that_takes_long_is_given_up() -> None:
    changes = "".join(
        f"(local.set {7 * n % 900} (i32.add (local.get {3 * n % 900}) (local.get {n % 900})))"
        for n in range(3600)
    )
    body = "(loop " * 900 + changes + "(br_if 0 (local.get 0)))" * 900
    hostile = wat2wasm(f"(module (func (local {'i32 ' * 900}) {body}))")

    with pytest.raises(CompilationFailed, match="compiling it takes longer than 3 s"):
        WasmerEngine().compile_isolated(hostile, Bounds(time=3))
