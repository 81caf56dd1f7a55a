"""Modules that are odd before they run: types, imports, sizes; and files that are damaged."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from tests.wat import wat2wasm
from wasm_middleware.engines.start_section import START

from .case import Case, Ends
from .wat import call, exits, get, plugin, repeat

_MARKER = "proxy_abi_version"
#: Of the binary that is cut and mutated.
_CUTS, _MUTANTS = 25, 60


def cases() -> Iterator[Case]:
    yield from _types()
    yield from _starts()
    yield from _missing()
    yield from _imports()
    yield from _sizes()
    yield from _damaged()


def _types() -> Iterator[Case]:
    wrong = {
        "proxy_on_request_headers": "(param i64 i64 i64) (result i64) (i64.const 0)",
        "proxy_on_request_body": "(param f32 f32 f32) (result f32) (f32.const 0)",
        "proxy_on_response_body": "(result i32) (i32.const 0)",
        "proxy_on_tick": "(param i32 i32 i32 i32 i32 i32 i32 i32 i32)",
        "proxy_on_queue_ready": "(param externref funcref)",
        "proxy_on_grpc_close": "(param v128)",
        "proxy_on_http_call_response": "(result i32 i32) (i32.const 1) (i32.const 1)",
        "malloc": "(param i64) (result i64) (i64.const 0)",
        "_initialize": "(param i32)",
        "_start": "(result i32) (i32.const 0)",
        "main": "(param f64) (result f64) (f64.const 0)",
    }

    for name, rest in wrong.items():
        skip = ("request_headers",) if name == "proxy_on_request_headers" else ()
        yield Case(
            f"wrong-type-of-{name}",
            f"exports {name} with a type that it never has",
            lambda name=name, rest=rest, skip=skip: plugin(
                fields=f'(func (export "{name}") {rest})', without=skip
            ),
            Ends.REFUSED,
            name,
            "has the type",
        )

    for name, rest in {
        "proxy_log": "(param i64 i32 i32) (result i32)",
        "proxy_get_property": "(param i32)",
        "proxy_send_local_response": "(result i32)",
        "proxy_set_shared_data": "(param f32 f64 externref) (result i64)",
    }.items():
        yield Case(
            f"wrong-import-of-{name}",
            f"imports {name} with a type that it never has",
            lambda name=name, rest=rest: _importing(f'(import "env" "{name}" (func {rest}))'),
            Ends.NOT_STARTED,
            name,
            "with the type",
        )

    for kind, rest in {
        "global": '(global (export "proxy_on_log") i32 (i32.const 0))',
        "table": '(table (export "proxy_on_log") 1 funcref)',
    }.items():
        yield Case(
            f"a-{kind}-for-a-callback",
            f"exports a {kind} by the name of a callback",
            lambda rest=rest: plugin(fields=rest, without=("log",)),
            Ends.SERVED,
        )

    for kind, rest in {
        "global": '(global (export "memory") i32 (i32.const 0)) (memory 2)',
        "function": '(func (export "memory")) (memory 2)',
    }.items():
        yield Case(
            f"a-{kind}-for-its-memory",
            f"exports a {kind} by the name of its memory",
            lambda rest=rest: plugin({"request_headers": f"(drop {get()})"}, memory=rest),
            Ends.CONTAINED_BLIND,
        )

    yield Case(
        "a-memory-of-64-bits",
        "has a memory whose addresses have 64 bits",
        lambda: _MEMORY_64,
        Ends.CONTAINED_BLIND,
    )
    yield Case(
        "a-shared-memory",
        "has a memory that threads may share",
        lambda: plugin(memory='(memory (export "memory") 2 2 shared)'),
        Ends.REFUSED,
    )
    yield Case(
        "two-memories",
        "has two memories",
        lambda: plugin(memory='(memory (export "memory") 2) (memory 2)'),
        Ends.REFUSED,
    )


_MEMORY_64 = """(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") i64 2)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 8192))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $log (i32.const 2) (i32.const 65536) (i32.const 7))) (i32.const 0)))"""


def _starts() -> Iterator[Case]:
    """What is run before anything else is called with no room for parameters and results."""
    results = f"(result {'i64 ' * 1_000})", "(i64.const 0x4141414141414141)" * 1_000
    parameters = f"(param {'i64 ' * 1_000})", "(i64.store (i32.const 0) (local.get 999))"

    for name, (type_, code) in {"results": results, "parameters": parameters}.items():
        for scheduling in ("sliced", "inline"):
            prefix = "inline-" if scheduling == "inline" else ""
            yield Case(
                f"{prefix}exports-the-name-of-starts-with-{name}",
                f"exports a function of 1,000 {name} by the name that the host gives to start"
                f" functions; scheduling: {scheduling}",
                lambda type_=type_, code=code: plugin(
                    fields=f'(func (export "{START}") {type_} {code})'
                ),
                Ends.REFUSED,
                "",
                "a name that is not for modules",
                scheduling=scheduling,
            )
            yield Case(
                f"{prefix}starts-with-{name}",
                f"has a start function of 1,000 {name}; scheduling: {scheduling}",
                lambda type_=type_, code=code: _started(f"(func $odd {type_} {code})"),
                Ends.REFUSED,
                "",
                "its start function has parameters or results",
                scheduling=scheduling,
            )


def _started(function: str) -> bytes:
    """A start section that names the function, whatever its type: text would not be taken."""
    whole = wat2wasm(plugin(fields=f"(func $begin) (start $begin) {function}"))
    (start,) = re.findall(rb"\x08\x01.(?=[\x09\x0a])", whole, re.DOTALL)
    return whole.replace(start, bytes([*start[:2], start[2] + 1]))


def _missing() -> Iterator[Case]:
    yield Case(
        "no-allocator",
        "exports no allocator",
        lambda: plugin(allocator_name="allocate"),
        Ends.REFUSED,
        "",
        "no allocator",
    )
    yield Case(
        "no-marker",
        "exports no ABI version",
        lambda: plugin(marker=""),
        Ends.REFUSED,
        "",
        "no marker",
    )
    yield Case(
        "an-unknown-marker",
        "exports an ABI version that there is none of",
        lambda: plugin(marker="proxy_abi_version_9_9_9"),
        Ends.REFUSED,
        "",
        "no marker",
    )
    yield Case("nothing", "is an empty module", lambda: "(module)", Ends.REFUSED, "", "no marker")
    yield Case("an-empty-file", "is an empty file", lambda: b"", Ends.REFUSED)
    yield Case("no-module", "is a text", lambda: b"#!/bin/sh\n", Ends.REFUSED, "", "WebAssembly")
    yield Case(
        "a-component",
        "is a component",
        lambda: b"\0asm\x0d\0\1\0",
        Ends.REFUSED,
        "",
        "component",
    )
    yield Case(
        "no-memory",
        "exports no memory, and makes host calls that need one",
        lambda: plugin({"request_headers": f"(drop {get()})"}, memory="(memory 2)"),
        Ends.CONTAINED_BLIND,
    )


def _importing(imports: str, fields: str = "", armed: str = "") -> str:
    text = plugin({"request_headers": armed} if armed else {}, fields=fields)
    return text.replace("(module ", f"(module {imports}\n", 1)


def _imports() -> Iterator[Case]:
    unknown = """
      (import "evil" "system" (func $a (param i32) (result i32)))
      (import "env" "proxy_nothing" (func $b (param i32 i64 f32 f64) (result i64)))
      (import "wasi_snapshot_preview1" "fd_nothing" (func $c (result i32)))
      (import "" "" (func $d (param v128) (result f32)))
      (import "env" "dlopen" (func $e (result externref)))
      (import "env" "fork" (func $f (result i32 i32 i32)))
      (import "env" "\\f0\\9f\\92\\a3" (func $g (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"""
    calls = """(drop (call $a (i32.const 1)))
      (drop (call $b (i32.const 1) (i64.const -1) (f32.const 1) (f64.const nan)))
      (drop (call $c)) (drop (call $d (v128.const i64x2 1 2))) (drop (call $e))
      (drop (drop (drop (call $f))))
      (call $g (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1)
        (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1))"""
    calls = calls.replace("(drop (drop (drop (call $f))))", "(call $f) drop drop drop")
    yield Case(
        "unknown-imports",
        "imports and calls functions that nobody has, of all types",
        lambda: _importing(unknown, armed=calls),
        Ends.SERVED,
    )

    for name, count, ends, why in (
        ("hundreds", 900, Ends.SERVED, ""),
        ("thousands", 20_000, Ends.REFUSED, "more than 1,000 imports"),
    ):
        yield Case(
            f"{name}-of-unknown-imports",
            f"imports {count:,} functions that nobody has",
            lambda count=count: _importing(
                "".join(f'(import "evil" "f{n}" (func (param i32)))' for n in range(count))
            ),
            ends,
            "",
            why,
        )

    for kind in ("(memory 1)", "(table 1 funcref)", "(global i32)", "(global (mut i64))"):
        what = kind.strip("()").split(" ")[0]
        name = f"imports-a-{'mutable-' if 'mut' in kind else ''}{what}"
        yield Case(
            name,
            f"imports a {what}",
            lambda kind=kind: _importing(f'(import "env" "it" {kind})').replace(
                '(memory (export "memory") 2)',
                "" if "memory" in kind else '(memory (export "memory") 2)',
            ),
            Ends.REFUSED,
            "",
            "imports the",
        )


def _sizes() -> Iterator[Case]:
    many = 20_000
    yield Case(
        "thousands-of-functions",
        f"has {many:,} functions",
        lambda: plugin(fields="(func)" * many),
        Ends.SERVED,
    )
    yield Case(
        "thousands-of-exports",
        f"exports one function {many:,} times",
        lambda: plugin(
            fields="(func $x)" + "".join(f'(export "e{n}" (func $x))' for n in range(many))
        ),
        Ends.REFUSED,
        "",
        "more than 1,000 exports",
    )
    yield Case(
        "hundreds-of-exports",
        "exports one function 900 times",
        lambda: plugin(
            fields="(func $x)" + "".join(f'(export "e{n}" (func $x))' for n in range(900))
        ),
        Ends.SERVED,
    )
    yield Case(
        "thousands-of-types",
        f"has {many:,} types",
        lambda: plugin(fields="(type (func (param i32)))" * many),
        Ends.SERVED,
    )
    yield Case(
        "too-many-locals",
        "has a function of 60,000 locals",
        lambda: plugin(fields=f"(func {'(local i64)' * 60_000})"),
        Ends.REFUSED,
    )
    yield Case(
        "many-locals-and-recursion",
        "recurses with 40,000 locals in each frame",
        lambda: plugin({"request_headers": "(call $r)"}, fields=_many_locals(40_000)),
        Ends.FAILS,
        "on_request_headers",
        "call stack exhausted",
    )
    yield Case(
        "deep-blocks",
        "has a function with 900 blocks in each other",
        lambda: plugin(fields=f"(func {'(block ' * 900} {')' * 900})"),
        Ends.SERVED,
    )
    yield Case(
        "a-wide-branch",
        "branches to one of 50,000 places",
        lambda: plugin(fields=f"(func (param i32) (br_table {'0 ' * 50_000} (local.get 0)))"),
        Ends.SERVED,
    )
    yield Case(
        "a-huge-table",
        "has a table of 10,000,000 elements",
        lambda: plugin(fields="(table 10000000 funcref)"),
        Ends.NOT_STARTED,
        "",
        "table",
    )
    yield Case(
        "a-table-that-grows",
        "grows its table for ever",
        lambda: plugin(
            {"request_headers": repeat("(drop (table.grow $t (ref.null func) (i32.const 1000)))")},
            fields="(table $t 0 funcref)",
        ),
        Ends.FAILS,
        "on_request_headers",
        "longer than its timeout",
    )
    yield Case(
        "too-many-tables",
        "has 50 tables",
        lambda: plugin(fields="(table 1 funcref)" * 50),
        Ends.NOT_STARTED,
        "",
        "table",
    )
    yield Case(
        "a-data-bomb",
        "has 50,000 data segments, all for one place",
        lambda: plugin(fields='(data (i32.const 70000) "boom")' * 50_000),
        Ends.SERVED,
    )
    yield Case(
        "data-out-of-bounds",
        "has a data segment behind its memory",
        lambda: plugin(fields='(data (i32.const 131072) "boom")'),
        Ends.NOT_STARTED,
        "",
        "out of bounds",
    )
    yield Case(
        "elements-out-of-bounds",
        "has table elements behind its table",
        lambda: plugin(fields="(table 1 funcref) (elem (i32.const 1) $spin)"),
        Ends.NOT_STARTED,
        "",
        "out of bounds",
    )
    yield Case(
        "a-long-name",
        "has a function, an import and an export with names of 60,000 letters",
        lambda: _importing(
            f'(import "{"m" * 60_000}" "{"n" * 60_000}" (func $long))',
            fields=f'(export "{"e" * 60_000}" (func $long))',
            armed="(call $long)",
        ),
        Ends.SERVED,
    )
    yield Case(
        "calls-through-nothing",
        "calls through an empty table element",
        lambda: plugin(
            {"request_headers": "(call_indirect (i32.const 0))"}, fields="(table 1 funcref)"
        ),
        Ends.FAILS,
        "on_request_headers",
        "uninitialized",
    )
    yield Case(
        "divides-by-zero",
        "divides by zero",
        lambda: plugin({"request_headers": "(drop (i32.div_u (i32.const 1) (i32.const 0)))"}),
        Ends.FAILS,
        "on_request_headers",
        "divide by zero",
    )


def _many_locals(count: int) -> str:
    """All of them are in use at the call, so each has its place in the frame."""
    names = range(0, count, 100)
    sets = "".join(f"(local.set {n} (i64.load (i32.const {n})))" for n in names)
    uses = "".join(f"(i64.store (i32.const {n}) (local.get {n}))" for n in names)
    return f"(func $r {'(local i64)' * count} {sets} (call $r) {uses})"


def _damaged() -> Iterator[Case]:
    """Seeded: the same files each time."""
    whole = wat2wasm(_victim())
    chance = random.Random(4)

    for size in sorted(chance.sample(range(9, len(whole)), _CUTS)):
        yield Case(
            f"cut-at-{size}",
            f"is the first {size} of {len(whole)} bytes of a plugin",
            lambda size=size: whole[:size],
            Ends.REFUSED,
        )

    for number in range(_MUTANTS):
        yield Case(
            f"mutant-{number}",
            "is a plugin in which some bytes are other ones",
            lambda number=number: _mutant(whole, number),
            Ends.MUTANT,
        )


def _victim() -> str:
    """Small, with something of everything."""
    armed = (
        f"(drop {get()})"
        + call("proxy_log", 2, 16, 7)
        + call("proxy_set_shared_data", 16, 7, 16, 7, 0)
    )
    fields = f"""(table 4 funcref) (elem (i32.const 0) $spin $recurse)
      (func (if (i32.const 0) (then {exits(1)})))"""
    return plugin({"request_headers": armed, "log": armed}, fields=fields)


def _mutant(whole: bytes, number: int) -> bytes:
    chance = random.Random(number)
    wasm = bytearray(whole)

    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(8, len(wasm))
        deed = chance.randrange(4)

        if deed == 0:
            wasm[place] = chance.randrange(256)
        elif deed == 1:
            wasm[place] ^= 1 << chance.randrange(8)
        elif deed == 2:
            del wasm[place]
        else:
            wasm.insert(place, chance.choice((0, 0x7F, 0x80, 0xFF)))

    return bytes(wasm)
