"""Each host call, with pointers and lengths at every edge: null, the end, beyond, overflowing,
overlapping."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from wasm_middleware.abi.signatures import HOST_CALLS, WASI_CALLS, Call

from .case import Case, Ends
from .wat import data, plugin

_SIZE = 2 * 65536
#: The last ones are negative, or overflow when something is added.
_EDGES = (0, 1, 2, 3, 7, 64, 8192, 65535, 65536, _SIZE - 8, _SIZE - 4, _SIZE - 3, _SIZE - 1, _SIZE)
_BEYOND = (_SIZE + 1, 1 << 20, 0x7FFF_FFFF, 0x8000_0000, 0xFFFE_0000, 0xFFFF_FFF8, 0xFFFF_FFFF)
_WIDE = (0, 1, -1, 1 << 32, (1 << 63) - 1, -(1 << 63))
_RANDOM_ROWS = 150
#: Where the rows are in memory.
_TABLE = 10_000

#: What a call may do to its request, by its meaning.
_ENDS = {
    "proc_exit": (Ends.FAILS, "exit code"),
    "proxy_close_stream": (Ends.CONTAINED, ""),
    "proxy_send_local_response": (Ends.CONTAINED, ""),
    "proxy_add_header_map_value": (Ends.CONTAINED, ""),
    "proxy_replace_header_map_value": (Ends.CONTAINED, ""),
    "proxy_set_header_map_pairs": (Ends.CONTAINED, ""),
}


def cases() -> Iterator[Case]:
    for call in (*HOST_CALLS.values(), *WASI_CALLS.values()):
        ends, says = _ENDS.get(call.name, (Ends.SERVED, ""))
        yield Case(
            f"pointers-{call.name}",
            f"calls {call.name} with every edge",
            lambda call=call: _module(call),
            ends,
            "on_request_headers" if ends is Ends.FAILS else "",
            says,
            # It is some hundred calls, and each may be worth a line in the log.
            settings={"timeout": "5s"},
        )


def _rows(call: Call) -> list[list[int]]:
    letters = call.signature.partition(">")[0]
    chance = random.Random(call.name)
    edges = {"i": (*_EDGES, *_BEYOND), "I": _WIDE}
    rows = [[edge] * len(letters) for edge in edges["i"]]

    for index, letter in enumerate(letters):
        for edge in edges[letter]:
            row = [64] * len(letters)
            row[index] = edge
            rows.append(row)

    rows += [[chance.choice(edges[letter]) for letter in letters] for _ in range(_RANDOM_ROWS)]
    return rows


def _module(call: Call) -> str:
    letters, _, results = call.signature.partition(">")
    rows = _rows(call)
    table = b"".join(struct.pack("<Q", value % (1 << 64)) for row in rows for value in row)
    stride = 8 * len(letters)
    space = "env" if call.name in HOST_CALLS else "wasi"
    loads = [_load(letter, 8 * index) for index, letter in enumerate(letters)]
    one = f"(call ${space}.{call.name} {' '.join(loads)})"
    code = f"""
      (local.set $i (i32.const {_TABLE}))
      (local.set $n (i32.const {_TABLE + stride * len(rows)}))
      (loop $again
        {f"(drop {one})" if results else one}
        (local.set $i (i32.add (local.get $i) (i32.const {stride or 8})))
        (br_if $again (i32.lt_u (local.get $i) (local.get $n))))
      (i64.store (i32.const 16) (i64.const 0x0074736575672d78))
      (i32.store8 (i32.const 32) (i32.const 49))"""
    return plugin({"request_headers": code}, fields=data({_TABLE: table}))


def _load(letter: str, offset: int) -> str:
    kind = {"i": "i32", "I": "i64"}[letter]
    return f"({kind}.load (i32.add (local.get $i) (i32.const {offset})))"
