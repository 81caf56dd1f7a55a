"""A guest that does what a test has written down, as WebAssembly and in Python.

It imports every host call of the tables and exports every callback. Each callback runs its script,
which a test writes into the guest's memory: host calls with their arguments, then a value to
return. The results go back to memory, where the test finds them. A callback without a script
returns what lets the host go on. `guest_module` makes it as a module of any engine: generated WAT
for wasmtime, a `NullGuest` for the null engine; both read the very same bytes.

Memory: control words and a table of scripts in page 0 (its first KiB is free for tests), scripts in
page 1, what a test puts there in page 2, a log of all callbacks in page 3, then the heap.

A script is the address of the one for the next time (0: the same again), a filler, and steps of 112
bytes: operation, host call, where its result goes, a bit for each argument that is to be fetched
from memory, and twelve arguments of 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from tests.wat import wat2wasm
from wasm_middleware.abi.signatures import CALLBACKS, ENV, HOST_CALLS, WASI_CALLS
from wasm_middleware.engines.module_info import ExternKind, Import
from wasm_middleware.engines.null import NullEngine, NullGuest
from wasm_middleware.engines.protocol import Engine, Module

PAGE = 65536
OUT = 16  # free for tests: where out-pointers point
BUMP_AT, LOG_COUNT_AT, ARGUMENTS_AT, RESOLVED_AT, TABLE_AT = 1024, 1028, 1032, 1056, 2048
SCRIPTS_AT, TEXTS_AT, LOG_AT, HEAP_AT = PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE
LOG_ENTRY, LOG_MAX = 24, 2700
MEMORY_PAGES = 5

RETURN, CALL, TRAP, SPIN, GROW = range(5)
STEP = struct.Struct("<IIII12Q")
#: What an allocator's script returns to have the memory allocated after all.
BUMP = 0xFFFF_FFFF

ALLOCATORS = ("proxy_on_memory_allocate", "malloc")
#: What a callback without a script returns, where that is not 0.
DEFAULTS = {
    **dict.fromkeys(ALLOCATORS, BUMP),
    "proxy_on_vm_start": 1,
    "proxy_validate_configuration": 1,
    "proxy_on_configure": 1,
    "proxy_on_done": 1,
}


@dataclass(frozen=True)
class Shape:
    """What a guest imports and exports, where that is not everything."""

    #: Callbacks that it does not export.
    without: frozenset[str] = frozenset()
    #: Other types for imports and callbacks: those of an older version.
    types: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: Imports beside those of the tables: module, name, type.
    extra: tuple[tuple[str, str, str], ...] = ()
    wasi: str = "wasi_snapshot_preview1"

    def __hash__(self) -> int:
        return hash((self.without, tuple(sorted(self.types.items())), self.extra, self.wasi))

    @property
    def imports(self) -> list[tuple[str, str, str]]:
        host = [(ENV, call.name, call.signature) for call in HOST_CALLS.values()]
        wasi = [(self.wasi, call.name, call.signature) for call in WASI_CALLS.values()]
        return [
            (module, name, self.types.get(name, signature))
            for module, name, signature in (*host, *wasi, *self.extra)
        ]

    @property
    def exports(self) -> list[tuple[int, str, str]]:
        """The index in the table of scripts, the name and the type of each."""
        return [
            (index, name, self.types.get(name, CALLBACKS[name].signature))
            for index, name in enumerate(CALLBACKS)
            if name not in self.without
        ]


EVERYTHING = Shape()
NAMES = list(CALLBACKS)
_WASM_TYPES = {"i": "i32", "I": "i64", "f": "f32", "F": "f64", "r": "externref"}


def guest_module(engine: Engine, shape: Shape = EVERYTHING) -> Module:
    """The scripted guest, compiled by `engine`."""
    if engine.name == "null":
        return NullEngine({b"scripted": null_guest(shape)}).compile(b"scripted")

    return engine.compile(wat2wasm(wat(shape)))


def _declared(signature: str) -> str:
    parameters, _, results = signature.partition(">")
    takes = "".join(f" {_WASM_TYPES[letter]}" for letter in parameters)
    gives = "".join(f" {_WASM_TYPES[letter]}" for letter in results)
    return f"(param{takes}) (result{gives})"


def _host_call(index: int, signature: str) -> str:
    """One branch of the dispatcher: the call with its arguments, its result stored."""
    parameters, _, results = signature.partition(">")
    arguments = " ".join(
        f"({_WASM_TYPES[letter]}.load offset={RESOLVED_AT + 8 * position} (i32.const 0))"
        if letter in "iI"
        else f"({_WASM_TYPES[letter]}.const 0)"
        for position, letter in enumerate(parameters)
    )
    made = f"(call $h{index} {arguments})"

    if results in ("i", "I"):
        made = f"({_WASM_TYPES[results]}.store (local.get 1) {made})"
    else:
        made += "(drop)" * len(results)

    return f"(if (i32.eq (local.get 0) (i32.const {index})) (then {made} (return)))"


def _callback(index: int, name: str, signature: str) -> str:
    parameters, _, results = signature.partition(">")
    passed = [f"(local.get {position})" for position in range(len(parameters))]
    passed += ["(i32.const 0)"] * (5 - len(passed))
    body = f"(call $run (i32.const {index}) {' '.join(passed)})"

    if name in ALLOCATORS:
        body = f"(call $allocate {body} (local.get 0))"
    elif not results:
        body = f"(drop {body})"

    return f'(func (export "{name}") {_declared(signature)} {body})'


@cache
def wat(shape: Shape) -> str:
    imports = [
        f'(import "{module}" "{name}" (func $h{index} {_declared(signature)}))'
        for index, (module, name, signature) in enumerate(shape.imports)
    ]
    dispatch = [
        _host_call(index, signature) for index, (_, _, signature) in enumerate(shape.imports)
    ]
    defaults = [
        f"(if (i32.eq (local.get 0) (i32.const {NAMES.index(name)}))"
        f" (then (return (i32.const {value - (value >> 31 << 32)}))))"
        for name, value in DEFAULTS.items()
    ]
    first, second = (NAMES.index(name) for name in ALLOCATORS)
    store_arguments = " ".join(
        f"(i32.store offset={ARGUMENTS_AT + 4 * position} (i32.const 0) (local.get {position + 1}))"
        for position in range(5)
    )
    record = " ".join(
        f"(i32.store offset={4 * position} (local.get $at) (local.get {position}))"
        for position in range(6)
    )
    callbacks = [_callback(*export) for export in shape.exports]
    return f"""(module
  {chr(10).join(imports)}
  (memory (export "memory") {MEMORY_PAGES})
  (func (export "proxy_abi_version_0_2_1"))
  (func $dispatch (param i32 i32) {" ".join(dispatch)})
  (func $default (param i32) (result i32) {" ".join(defaults)} (i32.const 0))
  (func $allocate (param $answer i32) (param $size i32) (result i32) (local $at i32)
    (if (i32.ne (local.get $answer) (i32.const -1)) (then (return (local.get $answer))))
    (local.set $at (i32.load (i32.const {BUMP_AT})))
    (if (i32.eqz (local.get $at)) (then (local.set $at (i32.const {HEAP_AT}))))
    (if (i32.gt_u (i32.add (local.get $at) (local.get $size))
                  (i32.mul (memory.size) (i32.const {PAGE})))
      (then (if (i32.eq (i32.const -1) (memory.grow
          (i32.add (i32.const 1) (i32.div_u (local.get $size) (i32.const {PAGE})))))
        (then (return (i32.const 0))))))
    (i32.store (i32.const {BUMP_AT}) (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func $record (param i32 i32 i32 i32 i32 i32) (local $at i32)
    (local.set $at (i32.load (i32.const {LOG_COUNT_AT})))
    (if (i32.ge_u (local.get $at) (i32.const {LOG_MAX})) (then (return)))
    (i32.store (i32.const {LOG_COUNT_AT}) (i32.add (local.get $at) (i32.const 1)))
    (local.set $at (i32.add (i32.const {LOG_AT})
                            (i32.mul (local.get $at) (i32.const {LOG_ENTRY}))))
    {record})
  (func $run (param $callback i32) (param i32 i32 i32 i32 i32) (result i32)
    (local $entry i32) (local $ip i32) (local $i i32) (local $value i64)
    (call $record (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)
                  (local.get 5))
    (if (i32.and (i32.ne (local.get 0) (i32.const {first}))
                 (i32.ne (local.get 0) (i32.const {second})))
      (then {store_arguments}))
    (local.set $entry (i32.add (i32.const {TABLE_AT}) (i32.mul (local.get 0) (i32.const 4))))
    (local.set $ip (i32.load (local.get $entry)))
    (if (i32.eqz (local.get $ip)) (then (return (call $default (local.get 0)))))
    (if (i32.load (local.get $ip))
      (then (i32.store (local.get $entry) (i32.load (local.get $ip)))))
    (local.set $ip (i32.add (local.get $ip) (i32.const 8)))
    (loop $next
      (local.set $i (i32.const 0))
      (loop $arguments
        (local.set $value (i64.load offset=16
          (i32.add (local.get $ip) (i32.mul (local.get $i) (i32.const 8)))))
        (if (i32.and (i32.const 1)
                     (i32.shr_u (i32.load offset=12 (local.get $ip)) (local.get $i)))
          (then (local.set $value (i64.load32_u (i32.wrap_i64 (local.get $value))))))
        (i64.store offset={RESOLVED_AT} (i32.mul (local.get $i) (i32.const 8)) (local.get $value))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $arguments (i32.lt_u (local.get $i) (i32.const 12))))
      (block $grow (block $spin (block $trap (block $call (block $return
        (br_table $return $call $trap $spin $grow (i32.load (local.get $ip))))
        (return (i32.load (i32.const {RESOLVED_AT}))))
        (call $dispatch (i32.load offset=4 (local.get $ip)) (i32.load offset=8 (local.get $ip)))
        (local.set $ip (i32.add (local.get $ip) (i32.const {STEP.size})))
        (br $next))
        unreachable)
        (loop $for_ever (br $for_ever)))
      (i32.store (i32.load offset=8 (local.get $ip))
                 (memory.grow (i32.load (i32.const {RESOLVED_AT}))))
      (local.set $ip (i32.add (local.get $ip) (i32.const {STEP.size})))
      (br $next))
    unreachable)
  {chr(10).join(callbacks)})"""


class ScriptedGuest(NullGuest):
    """The same in Python."""

    markers = ("proxy_abi_version_0_2_1",)
    memory_size = MEMORY_PAGES * PAGE
    shape: Shape

    def run(self, index: int, *arguments: int) -> int:
        memory = self.memory
        given = [*arguments, *[0] * (5 - len(arguments))]
        name = NAMES[index]
        count = memory.read_u32(LOG_COUNT_AT)

        if count < LOG_MAX:
            memory.write_u32(LOG_COUNT_AT, count + 1)
            memory.write(LOG_AT + count * LOG_ENTRY, struct.pack("<6I", index, *given))

        if name not in ALLOCATORS:
            memory.write(ARGUMENTS_AT, struct.pack("<5I", *given))

        entry = TABLE_AT + 4 * index
        script = memory.read_u32(entry)

        if not script:
            return DEFAULTS.get(name, 0)

        following = memory.read_u32(script)
        memory.write_u32(entry, following or script)
        at = script + 8

        while True:
            value = self.step(at)

            if value is not None:
                return value

            at += STEP.size

    def step(self, at: int) -> int | None:
        operation, host_call, result_at, fetched, *arguments = STEP.unpack(
            self.memory.read(at, STEP.size)
        )

        for position, value in enumerate(arguments):
            if fetched >> position & 1:
                arguments[position] = self.memory.read_u32(value)

        match operation:
            case 0:
                return int(arguments[0]) & 0xFFFF_FFFF
            case 1:
                self.call(host_call, result_at, arguments)
            case 2:
                raise RuntimeError("unreachable")
            case 4:
                before = self.memory.size // PAGE
                grown = self.memory.grow(arguments[0] * PAGE)
                self.memory.write_u32(result_at, before if grown else 0xFFFF_FFFF)
            case _:
                raise NotImplementedError("Python can't be interrupted")

        return None

    def call(self, host_call: int, result_at: int, arguments: list[int]) -> None:
        _, name, signature = self.shape.imports[host_call]
        parameters, _, results = signature.partition(">")
        values = [
            value & 0xFFFF_FFFF if letter == "i" else value - (value >> 63 << 64)
            for letter, value in zip(parameters, arguments, strict=False)
        ]
        result = getattr(self.host, name)(*values)

        if results:
            self.memory.write_u32(result_at, result)

    def allocate(self, index: int, size: int) -> int:
        answer = self.run(index, size)

        if answer != BUMP:
            return answer

        at = self.memory.read_u32(BUMP_AT) or HEAP_AT

        if at + size > self.memory.size and not self.memory.grow((size // PAGE + 1) * PAGE):
            return 0

        self.memory.write_u32(BUMP_AT, at + size)
        return at


def _method(index: int, name: str, count: int) -> object:
    """A method with that number of parameters, which is what the null engine goes by."""
    if name in ALLOCATORS:
        return lambda self, size: self.allocate(index, size)

    return {
        0: lambda self: self.run(index),
        1: lambda self, a: self.run(index, a),
        2: lambda self, a, b: self.run(index, a, b),
        3: lambda self, a, b, c: self.run(index, a, b, c),
        4: lambda self, a, b, c, d: self.run(index, a, b, c, d),
        5: lambda self, a, b, c, d, e: self.run(index, a, b, c, d, e),
    }[count]


@cache
def null_guest(shape: Shape) -> type[NullGuest]:
    methods: dict[str, object] = dict.fromkeys(shape.without)

    for index, name, signature in shape.exports:
        methods[name] = _method(index, name, signature.index(">"))

    imports = tuple(
        Import(module, name, ExternKind.FUNCTION, signature)
        for module, name, signature in shape.imports
    )
    return type("Scripted", (ScriptedGuest,), {**methods, "shape": shape, "imports": imports})
