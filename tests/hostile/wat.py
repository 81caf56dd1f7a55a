"""Plugins as text: one that does its work, with room for what an attacker does besides.

Every plugin marks the responses that have passed it. It is armed by a request whose headers are
large, which it sees without an allocator, until the next request; what stands under `armed` runs
then. What a text calls as `$env.X` or `$wasi.X` is imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from wasm_middleware.abi.signatures import HOST_CALLS, WASI_CALLS

#: Headers of more bytes than this arm the plugin.
ARMING_BYTES = 4000

#: Where things are in a plugin's memory; the rest of the first page is free.
MARK, NAME, SCRATCH, ALLOCATED = 16, 32, 64, 8192

_TYPES = {"i": "i32", "I": "i64", "f": "f32", "F": "f64"}

#: Callbacks by name: parameters, and what they answer if the rest of the text does not.
_CALLBACKS = {
    "context_create": (2, None),
    "vm_start": (2, 1),
    "validate_configuration": (2, 1),
    "configure": (2, 1),
    "request_headers": (3, 0),
    "request_body": (3, 0),
    "request_trailers": (2, 0),
    "response_headers": (3, 0),
    "response_body": (3, 0),
    "response_trailers": (2, 0),
    "log": (1, None),
    "done": (1, 1),
    "delete": (1, None),
    "tick": (1, None),
    "queue_ready": (2, None),
    "http_call_response": (5, None),
    "grpc_receive_initial_metadata": (3, None),
    "grpc_receive": (3, None),
    "grpc_close": (3, None),
    "foreign_function": (3, None),
    "new_connection": (1, 0),
    "downstream_data": (3, 0),
    "downstream_connection_close": (2, None),
    "upstream_data": (3, 0),
    "upstream_connection_close": (2, None),
}
_ALWAYS = (
    "context_create",
    "vm_start",
    "configure",
    "request_headers",
    "response_headers",
    "done",
    "log",
    "delete",
)
_ARM = f"""
    (drop (call $env.proxy_get_header_map_size (i32.const 0) (i32.const {SCRATCH})))
    (global.set $armed
      (i32.gt_u (i32.load (i32.const {SCRATCH})) (i32.const {ARMING_BYTES})))"""
_LEAVE_A_MARK = f"""
    (drop (call $env.proxy_add_header_map_value
      (i32.const 2) (i32.const {MARK}) (i32.const 7) (i32.const {NAME}) (i32.const 1)))"""

SPIN = "(call $spin)"
TRAP = "unreachable"
RECURSE = "(drop (call $recurse (i32.const 0)))"

_HELPERS = """
  (func $spin (loop $l (br $l)))
  (func $recurse (param i32) (result i32)
    (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))"""

#: Bytes that are always in the same place: whoever allocates twice overwrites the first.
ALLOCATOR = f"(i32.const {ALLOCATED})"


def exits(code: int) -> str:
    return f"(call $wasi.proc_exit (i32.const {code}))"


def repeat(code: str, times: int = 0) -> str:
    """Code `times` times, or for ever; `$i` counts from 0."""
    again = f"(br_if $again (i32.lt_u (local.get $i) (i32.const {times})))"
    return f"""(local.set $i (i32.const 0))
    (loop $again {code}
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      {again if times else "(br $again)"})"""


def data(pieces: Mapping[int, bytes]) -> str:
    """Bytes in memory, by address."""
    texts = {
        address: "".join(f"\\{byte:02x}" for byte in piece) for address, piece in pieces.items()
    }
    return "\n".join(f'(data (i32.const {address}) "{text}")' for address, text in texts.items())


def call(name: str, *arguments: int | str) -> str:
    """A host call whose answer nobody looks at; numbers are constants, text is code."""
    signature = (HOST_CALLS if name.startswith("proxy_") else WASI_CALLS)[name].signature
    space = "env" if name.startswith("proxy_") else "wasi"
    values = " ".join(
        value if isinstance(value, str) else f"({_TYPES[letter]}.const {value})"
        for letter, value in zip(signature, arguments, strict=False)
    )
    code = f"(call ${space}.{name} {values})"
    return f"(drop {code})" if signature.endswith(">i") else code


def get(where: int = SCRATCH) -> str:
    """A host call that calls the allocator; its status."""
    return f"""(call $env.proxy_get_header_map_value (i32.const 0) (i32.const {MARK + 64})
      (i32.const 7) (i32.const {where}) (i32.const {where + 4}))"""


def plugin(
    armed: Mapping[str, str] | None = None,
    *,
    always: Mapping[str, str] | None = None,
    fields: str = "",
    allocator: str = ALLOCATOR,
    allocator_name: str = "proxy_on_memory_allocate",
    memory: str = '(memory (export "memory") 2)',
    without: tuple[str, ...] = (),
    marker: str = "proxy_abi_version_0_2_1",
) -> str:
    """A plugin's module; `armed` and `always` hold code for callbacks, `fields` what it has more.

    `without` names callbacks that are left out, or written in `fields`.
    """
    armed, always = armed or {}, always or {}
    names = dict.fromkeys([*_ALWAYS, *armed, *always])
    functions = [
        _callback(name, armed.get(name, ""), always.get(name, ""))
        for name in names
        if name not in without
    ]
    allocate = f"""(func $allocate (export "{allocator_name}") (param $size i32) (result i32)
    (local $i i32) {allocator})"""
    body = "\n".join(
        [
            memory,
            f'(data (i32.const {MARK}) "x-guest")',
            f'(data (i32.const {NAME}) "1")',
            # The header that arms it: some 4 KB.
            f'(data (i32.const {MARK + 64}) "x-large")',
            "(global $armed (mut i32) (i32.const 0))",
            f'(func (export "{marker}"))' if marker else "",
            allocate if allocator_name else "",
            _HELPERS,
            *functions,
            fields,
        ]
    )
    return f"(module {imports_of(body)}\n{body})"


def _callback(name: str, armed: str, always: str) -> str:
    count, answer = _CALLBACKS[name]
    parameters = " ".join(f"(param ${letter} i32)" for letter in "abcde"[:count])
    result = "" if answer is None else "(result i32)"
    before = _ARM if name == "request_headers" else ""
    before = _LEAVE_A_MARK if name == "response_headers" else before
    attack = f"(if (global.get $armed) (then {armed}))" if armed else ""
    end = "" if answer is None else f"(i32.const {answer})"
    return f"""(func (export "proxy_on_{name}") {parameters} {result}
    (local $i i32) (local $n i32) {before} {always} {attack} {end})""".replace(
        "proxy_on_validate", "proxy_validate"
    )


def imports_of(text: str) -> str:
    """Imports for the host calls that a text names."""
    lines = []

    for space, name in dict.fromkeys(re.findall(r"\$(env|wasi)\.(\w+)", text)):
        call = HOST_CALLS[name] if space == "env" else WASI_CALLS[name]
        module = "env" if space == "env" else "wasi_snapshot_preview1"
        lines.append(
            f'(import "{module}" "{name}" (func ${space}.{name} {type_of(call.signature)}))'
        )

    return "\n  ".join(lines)


def type_of(signature: str) -> str:
    parameters, _, results = signature.partition(">")
    given = "".join(f"(param {_TYPES[letter]})" for letter in parameters)
    return given + "".join(f"(result {_TYPES[letter]})" for letter in results)
