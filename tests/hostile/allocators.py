"""The allocator, the one function of a guest that the host calls in the midst of a host call."""

from __future__ import annotations

from collections.abc import Iterator

from .callbacks import TOO_LONG, UNREACHABLE
from .case import Case, Ends
from .wat import ALLOCATOR, RECURSE, SCRATCH, SPIN, TRAP, call, data, exits, get, plugin, repeat

_ASK = f"(drop {get()})"
_INNER = "its allocator ran for longer"
#: What the allocator answers, with what is said of it.
_ANSWERS = {
    "null": ("0", "no memory"),
    "odd": ("8193", "an odd address"),
    "the-end": ("131072", "the address behind its memory"),
    "near-the-end": ("131070", "an address with two bytes behind it"),
    "beyond": ("0x7ffffff0", "an address far beyond its memory"),
    "minus-one": ("-1", "the last address that there is"),
    "sign-bit": ("0x80000000", "an address that is negative as a signed number"),
    "in-use": (str(SCRATCH), "the memory that the host is to write the address to"),
    "its-stack": ("1", "memory that it uses itself, from its first byte on"),
}
#: What the allocator does, what comes of it, and what the log says.
_DEEDS = {
    "spins": (SPIN, Ends.FAILS, _INNER),
    "traps": (TRAP, Ends.FAILS, UNREACHABLE),
    "recurses": (RECURSE, Ends.FAILS, "call stack exhausted"),
    "exits": (exits(3), Ends.FAILS, "exit code 3"),
    "exits-with-0": (exits(0), Ends.FAILS, "exit code 0"),
    "asks-the-host": (_ASK, Ends.SERVED, ""),
    "asks-for-all-pairs": (call("proxy_get_header_map_pairs", 0, 64, 68), Ends.SERVED, ""),
    "asks-for-ever": (repeat(_ASK), Ends.FAILS, _INNER),
    "logs-for-ever": (repeat(call("proxy_log", 2, 16, 7)), Ends.FAILS, _INNER),
    "removes-what-is-read": (call("proxy_remove_header_map_value", 0, 80, 7), Ends.SERVED, ""),
    "adds-to-what-is-read": (
        repeat(call("proxy_add_header_map_value", 0, 16, 7, 32, 1), 10),
        Ends.SERVED,
        "",
    ),
    "changes-the-context": (call("proxy_set_effective_context", 1), Ends.SERVED, ""),
    "grows-the-memory": ("(drop (memory.grow (i32.const 1)))", Ends.SERVED, ""),
    "grows-to-the-limit": (
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))",
        Ends.SERVED,
        "",
    ),
}


def cases() -> Iterator[Case]:
    for name, (address, does) in _ANSWERS.items():
        yield Case(
            f"allocator-answers-{name}",
            f"its allocator answers {does}, for a value, all pairs and a body",
            lambda address=address: plugin(
                {"request_headers": _everything()},
                allocator=f"(i32.const {address})",
            ),
            Ends.SERVED,
        )

    for name, (code, ends, says) in _DEEDS.items():
        yield Case(
            f"allocator-{name}",
            f"its allocator {name.replace('-', ' ')} (in a host call)",
            lambda code=code: plugin({"request_headers": _ASK}, allocator=code + ALLOCATOR),
            ends,
            "on_request_headers" if ends is Ends.FAILS else "",
            says,
        )

    yield from _slow()
    yield from _replies()


def _everything() -> str:
    return "\n".join(
        [
            _ASK,
            call("proxy_get_header_map_pairs", 0, SCRATCH, SCRATCH + 4),
            call("proxy_get_property", 272, 12, SCRATCH, SCRATCH + 4),
            call("proxy_get_status", SCRATCH, SCRATCH + 4, SCRATCH + 8),
            # What it may have been led to overwrite.
            "(i64.store (i32.const 16) (i64.const 0x0074736575672d78))",
            "(i32.store8 (i32.const 32) (i32.const 49))",
        ]
    )


def _slow() -> Iterator[Case]:
    wait = "(loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))" + (
        "(br_if $l (i32.lt_u (local.get $i) (i32.const 400000))))"
    )
    yield Case(
        "allocator-is-slow",
        "its allocator takes some of its time, and it asks for ever: never long in a host call",
        lambda: plugin({"request_headers": repeat(_ASK)}, allocator=wait + ALLOCATOR),
        Ends.FAILS,
        "on_request_headers",
        # On a busy machine one of them may be too long.
        "longer than",
        # Long enough that it shows where it does not give way: that is some 700, or 20.
        settings={"timeout": "600ms"},
        least_beside=100,
    )
    yield Case(
        "asks-for-ever",
        "makes a host call that calls the allocator, for ever",
        lambda: plugin({"request_headers": repeat(_ASK)}),
        Ends.FAILS,
        "on_request_headers",
        TOO_LONG,
    )
    yield Case(
        "allocator-spins-in-log",
        "its allocator spins in a host call in proxy_on_log",
        lambda: plugin({"log": _ASK}, allocator=SPIN + ALLOCATOR),
        Ends.FAILS_LATER,
        "on_log",
        _INNER,
    )
    yield Case(
        "allocator-spins-at-the-start",
        "its allocator spins in a host call in proxy_on_configure",
        lambda: plugin(
            always={"configure": call("proxy_get_buffer_bytes", 7, 0, 9, SCRATCH, SCRATCH + 4)},
            allocator=SPIN + ALLOCATOR,
        ),
        Ends.NOT_STARTED,
        "on_configure",
        _INNER,
        settings={"config": "something"},
    )


def _replies() -> Iterator[Case]:
    yield Case(
        "allocator-replies",
        "its allocator sends a local reply",
        lambda: plugin(
            {"request_headers": _ASK},
            allocator=call("proxy_send_local_response", 418, 0, 0, 0, 0, 0, 0, -1) + ALLOCATOR,
        ),
        Ends.REPLIED,
        status=418,
    )
    take = call("proxy_dequeue_shared_queue", "(i32.load (i32.const 64))", 96, 100)
    yield Case(
        "allocator-takes-what-is-taken",
        "its allocator takes from the queue that the host is taking from",
        lambda: plugin(
            {
                "request_headers": call("proxy_register_shared_queue", 272, 5, 64)
                + call("proxy_enqueue_shared_queue", "(i32.load (i32.const 64))", 16, 7) * 2
                + take
            },
            allocator=take + ALLOCATOR,
            fields=data({272: b"queue"}),
        ),
        Ends.SERVED,
    )
