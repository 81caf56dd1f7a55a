"""Recursion, memory, and all that a guest can ask of the host without end."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from wasm_middleware.abi.pairs import encode

from .callbacks import TOO_LONG
from .case import Case, Ends
from .wat import SCRATCH, call, data, get, plugin, repeat

_DEEP = "call stack exhausted"
_PHASE = "on_request_headers"
_RET = SCRATCH + 16
_PAIRS = encode([(b":path", b"/"), (b":method", b"POST"), (b":authority", b"test")])
_DATA = data({272: b"queue", 288: b"nowhere", 304: b"later", 320: _PAIRS, 512: b"some text\n"})
#: A name of eight letters that no two turns of a loop share, at 600.
_NEW_NAME = """
  (i32.store (i32.const 600) (i32.const 0x61616161))
  (i32.store (i32.const 604) (i32.add (i32.const 0x61616161)
    (i32.or (i32.or (i32.and (local.get $i) (i32.const 15))
        (i32.and (i32.shl (local.get $i) (i32.const 4)) (i32.const 0xf00)))
      (i32.or (i32.and (i32.shl (local.get $i) (i32.const 8)) (i32.const 0xf0000))
        (i32.and (i32.shl (local.get $i) (i32.const 12)) (i32.const 0xf000000))))))
  (i32.store8 (i32.const 600) (i32.add (i32.const 97)
    (i32.rem_u (i32.shr_u (local.get $i) (i32.const 16)) (i32.const 26))))"""

#: Asked for ever; what the guest has not used up, its timeout ends.
_FLOODS = {
    "log-lines": call("proxy_log", 2, 512, 9),
    "long-log-lines": call("proxy_log", 2, 0, 131072),
    "log-lines-nobody-reads": call("proxy_log", 0, 512, 9),
    "errors-logged": call("proxy_log", 4, 512, 9),
    "lines-printed": "(i64.store (i32.const 64) (i64.const 0xa00000200))"
    + call("fd_write", 2, 64, 1, 72),
    "what-is-no-line": "(i64.store (i32.const 64) (i64.const 0x500000200))"
    + call("fd_write", 1, 64, 1, 72),
    "unknown-files": call("fd_write", 9, 64, 1, 72),
    "time": call("proxy_get_current_time_nanoseconds", _RET),
    "random-bytes": call("random_get", 65536, 65536),
    "metrics": _NEW_NAME + call("proxy_define_metric", 0, 600, 8, _RET),
    "metric-values": call("proxy_increment_metric", 1, 1) + call("proxy_record_metric", 7, -1),
    "shared-data": _NEW_NAME + call("proxy_set_shared_data", 600, 8, 65536, 60000, 0),
    "shared-keys": _NEW_NAME + call("proxy_set_shared_data", 600, 8, 0, 0, 0),
    "stale-shared-data": call("proxy_set_shared_data", 512, 8, 0, 9, 12345),
    "queues": _NEW_NAME + call("proxy_register_shared_queue", 600, 8, _RET),
    "messages": call("proxy_register_shared_queue", 272, 5, _RET)
    + call("proxy_enqueue_shared_queue", f"(i32.load (i32.const {_RET}))", 65536, 60000),
    "empty-messages": call("proxy_register_shared_queue", 272, 5, _RET)
    + call("proxy_enqueue_shared_queue", f"(i32.load (i32.const {_RET}))", 0, 0),
    "properties": _NEW_NAME + call("proxy_set_property", 600, 8, 65536, 60000),
    "http-calls": call("proxy_http_call", 288, 7, 320, len(_PAIRS), 0, 0, 0, 0, 5000, _RET),
    "grpc-calls": call("proxy_grpc_call", 288, 7, 272, 5, 272, 5, 0, 0, 0, 0, 5000, _RET),
    "grpc-streams": call("proxy_grpc_stream", 288, 7, 272, 5, 272, 5, 0, 0, _RET),
    "foreign-calls": call("proxy_call_foreign_function", 304, 5, 0, 9, _RET, _RET + 4),
    "replies": call("proxy_send_local_response", 429, 0, 9, 0, 99, 0, 0, -1),
    "continuing": call("proxy_continue_stream", 0) + call("proxy_continue_stream", 1),
    "closing": call("proxy_close_stream", 0) + call("proxy_close_stream", 1),
    "ticks": call("proxy_set_tick_period_milliseconds", "(local.get $i)"),
    "done": call("proxy_done"),
    "contexts": call("proxy_set_effective_context", "(local.get $i)"),
    "headers": _NEW_NAME + call("proxy_add_header_map_value", 0, 600, 8, 16, 7),
    "one-header": call("proxy_add_header_map_value", 0, 16, 7, 0, 0),
    "replacing": call("proxy_replace_header_map_value", 0, 16, 7, 32, 1),
    "removing": call("proxy_remove_header_map_value", 0, 16, 7),
    "all-pairs": call("proxy_get_header_map_pairs", 0, _RET, _RET + 4),
    "large-pairs": call("proxy_set_header_map_pairs", 0, 65536, 65536),
    "bodies": call("proxy_set_buffer_bytes", 0, 0, 0, 65536, 65536),
    "yields": call("sched_yield"),
    "polls": call("poll_oneoff", 0, 64, 1, 72),
    "memory": "(drop (memory.grow (i32.const 1)))",
    "nothing-grown": "(drop (memory.grow (i32.const 0)))",
    "copies": "(memory.copy (i32.const 65536) (i32.const 0) (i32.const 65536))",
}
#: The same with 15 MiB each time, which is nearly all that it may have.
_HUGE = 15 << 20
_HUGE_FLOODS = {
    "log-lines": call("proxy_log", 4, 0, _HUGE),
    "header-names": call("proxy_add_header_map_value", 0, 0, _HUGE, 16, 7),
    "header-values": call("proxy_replace_header_map_value", 0, 16, 7, 0, _HUGE),
    "names-that-are-not-there": call("proxy_get_header_map_value", 0, 0, _HUGE, _RET, _RET + 4),
    "names-to-remove": call("proxy_remove_header_map_value", 0, 0, _HUGE),
    "pairs": call("proxy_set_header_map_pairs", 0, 0, _HUGE),
    "bodies": call("proxy_set_buffer_bytes", 0, 0, 0, 0, _HUGE),
    "shared-data": call("proxy_set_shared_data", 16, 7, 0, _HUGE, 0),
    "keys": call("proxy_get_shared_data", 0, _HUGE, _RET, _RET + 4, _RET + 8),
    "messages": call("proxy_register_shared_queue", 272, 5, _RET)
    + call("proxy_enqueue_shared_queue", f"(i32.load (i32.const {_RET}))", 0, _HUGE),
    "queue-names": call("proxy_register_shared_queue", 0, _HUGE, _RET),
    "metric-names": call("proxy_define_metric", 0, 0, _HUGE, _RET),
    "properties": call("proxy_set_property", 272, 5, 0, _HUGE),
    "property-paths": call("proxy_get_property", 0, _HUGE, _RET, _RET + 4),
    "http-bodies": call("proxy_http_call", 288, 7, 320, len(_PAIRS), 0, _HUGE, 0, 0, 5000, _RET),
    "grpc-messages": call("proxy_grpc_call", 288, 7, 272, 5, 272, 5, 0, 0, 0, _HUGE, 5000, _RET),
    "upstream-names": call("proxy_http_call", 0, _HUGE, 320, len(_PAIRS), 0, 0, 0, 0, 5000, _RET),
    "arguments": call("proxy_call_foreign_function", 304, 5, 0, _HUGE, _RET, _RET + 4),
    "function-names": call("proxy_call_foreign_function", 0, _HUGE, 0, 0, _RET, _RET + 4),
    "reply-bodies": call("proxy_send_local_response", 429, 0, 0, 0, _HUGE, 0, 0, -1),
    "reply-details": call("proxy_send_local_response", 429, 0, _HUGE, 0, 0, 0, 0, -1),
    "random-bytes": call("random_get", 0, _HUGE),
    "printed-lines": "(i32.store (i32.const 64) (i32.const 0))"
    + f"(i32.store (i32.const 68) (i32.const {_HUGE}))"
    + call("fd_write", 1, 64, 1, 72),
}
#: The guest has replied to its request, or closed it, before it fails.
_OPEN_STATUS = {"replies": 429, "closing": 503}
#: And these break a rule before: that is a failure of its own.
_TOO_MANY = {"headers": "headers already", "one-header": "headers already"}
_TOO_LARGE = {"header-names": "too long", "header-values": "too long"}
#: A few that are over after a while, with time enough.
_MANY = {
    "a-million-log-lines-nobody-reads": (call("proxy_log", 0, 512, 9), 1_000_000),
    "a-million-metrics": (_NEW_NAME + call("proxy_define_metric", 0, 600, 8, _RET), 100_000),
    "many-headers": (_NEW_NAME + call("proxy_add_header_map_value", 0, 600, 8, 16, 7), 20_000),
}


def cases() -> Iterator[Case]:
    yield from _recursion()
    yield from _memory()
    yield from _pairs()
    yield from _contexts()

    for name, code in _FLOODS.items():
        yield Case(
            f"endless-{name}",
            f"asks for {name.replace('-', ' ')} without end",
            lambda code=code: plugin({"request_headers": repeat(code)}, fields=_DATA),
            Ends.FAILS,
            _PHASE,
            _TOO_MANY.get(name, TOO_LONG),
            open_status=_OPEN_STATUS.get(name, 200),
            failures=2 if name in _TOO_MANY else 1,
        )

    for name, code in _HUGE_FLOODS.items():
        yield Case(
            f"huge-{name}",
            f"hands over {name.replace('-', ' ')} of 15 MiB, without end",
            lambda code=code: plugin(
                {"request_headers": "(drop (memory.grow (i32.const 250)))" + repeat(code)},
                fields=_DATA,
            ),
            Ends.FAILS,
            _PHASE,
            _TOO_LARGE.get(name, TOO_LONG),
            failures=2 if name in _TOO_LARGE else 1,
            open_status=429 if name.startswith("reply") else 200,
        )

    for name, (code, times) in _MANY.items():
        yield Case(
            name,
            f"asks {times:,} times in one callback, and has the time to",
            lambda code=code, times=times: plugin(
                {"request_headers": repeat(code, times)}, fields=_DATA
            ),
            Ends.CONTAINED,
            settings={"timeout": "20s"},
            bound=40,
        )

    yield Case(
        "metrics-at-each-request",
        "defines 500 metrics with new names at each of five requests",
        _metrics_at_each_request,
        Ends.SERVED,
        requests=5,
        settings={"timeout": "5s"},
    )


def _metrics_at_each_request() -> str:
    names = "(local.set $n (global.get $names))" + repeat(
        "(local.set $i (i32.add (local.get $i) (local.get $n)))"
        + _NEW_NAME
        + "(local.set $i (i32.sub (local.get $i) (local.get $n)))"
        + call("proxy_define_metric", 0, 600, 8, _RET),
        500,
    )
    count = "(global.set $names (i32.add (global.get $names) (i32.const 500)))"
    fields = "(global $names (mut i32) (i32.const 0))"
    return plugin({"request_headers": names + count}, fields=fields)


def _recursion() -> Iterator[Case]:
    deeds = {
        "logs": call("proxy_log", 0, 512, 9),
        "reads-a-header": f"(drop {get()})",
        "sets-a-header": call("proxy_replace_header_map_value", 0, 16, 7, 32, 1),
        "calls-itself-by-table": "(drop (call_indirect (type $t) (local.get 0) (i32.const 0)))",
        "has-large-frames": "".join(f"(local.set ${n} (i64.const {n}))" for n in range(3, 500)),
    }

    for name, code in deeds.items():
        frames = " ".join(f"(local ${n} i64)" for n in range(3, 500)) if "frames" in name else ""
        # At each depth, and so at the last one too, where there is no room for what it calls.
        deep = f"""
          (type $t (func (param i32) (result i32)))
          (table funcref (elem $deep))
          (func $deep (type $t) (param i32) (result i32) {frames}
            {code} (i32.add (i32.const 1) (call $deep (local.get 0))))"""
        yield Case(
            f"recursion-that-{name}",
            f"recurses to the end of its stack, and {name.replace('-', ' ')} at each depth",
            lambda deep=deep: plugin(
                {"request_headers": "(drop (call $deep (i32.const 0)))"}, fields=deep + _DATA
            ),
            Ends.FAILS,
            _PHASE,
            # What takes long at each depth may take too long before the stack ends.
            "" if "reads" in name or "sets" in name or "logs" in name else _DEEP,
            settings={"timeout": "5s"},
        )

    yield Case(
        "recursion-and-a-host-call",
        "recurses until 16 frames are left, time after time, and calls the host from there",
        _to_the_end,
        Ends.FAILS,
        _PHASE,
        "",
        settings={"timeout": "500ms"},
    )


def _to_the_end() -> str:
    """The depth grows by some frames at each try, until a host call comes with next to no stack."""
    deep = f"""
      (func $deep (param i32) (result i32)
        (if (result i32) (i32.eqz (local.get 0))
          (then {get()})
          (else (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1)))))))"""
    code = repeat("(drop (call $deep (i32.mul (local.get $i) (i32.const 3))))")
    return plugin({"request_headers": code}, fields=deep)


def _memory() -> Iterator[Case]:
    grow = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
    fill = f"""{grow} (memory.fill (i32.const 4096) (i32.const 255)
      (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4096)))"""
    yield Case(
        "memory-to-the-limit",
        "grows its memory to its limit, and goes on",
        lambda: plugin({"request_headers": grow}),
        Ends.SERVED,
    )
    yield Case(
        "memory-to-the-limit-and-filled",
        "grows its memory to its limit, and writes to all of it",
        lambda: plugin({"request_headers": fill}),
        Ends.SERVED,
        settings={"timeout": "5s"},
    )
    yield Case(
        "memory-to-the-limit-and-given-up",
        "grows its memory to its limit, and gives up as runtimes do",
        lambda: plugin({"request_headers": f"{grow} unreachable"}),
        Ends.FAILS,
        _PHASE,
        "bytes of memory in use",
    )
    yield Case(
        "memory-in-one-step",
        "asks for 4 GiB at once, for ever",
        lambda: plugin({"request_headers": repeat("(drop (memory.grow (i32.const 65535)))")}),
        Ends.FAILS,
        _PHASE,
        TOO_LONG,
    )
    yield Case(
        "memory-out-of-bounds",
        "reads beyond its memory",
        lambda: plugin({"request_headers": "(drop (i32.load (i32.const -4)))"}),
        Ends.FAILS,
        _PHASE,
        "out of bounds",
    )
    yield Case(
        "memory-filled-out-of-bounds",
        "fills 4 GiB from the middle of its memory on",
        lambda: plugin(
            {
                "request_headers": "(memory.fill (i32.const 65536) (i32.const 0) (i32.const -1))",
            }
        ),
        Ends.FAILS,
        _PHASE,
        "out of bounds",
    )
    yield Case(
        "memory-too-large",
        "begins with more memory than it may have",
        lambda: plugin(memory='(memory (export "memory") 4096)'),
        Ends.NOT_STARTED,
        "",
        "memory",
    )
    yield Case(
        "memory-of-4-gib",
        "declares 4 GiB of memory",
        lambda: plugin(memory='(memory (export "memory") 65536)'),
        Ends.NOT_STARTED,
        "",
        "memory",
    )
    yield Case(
        "memory-filled-again-and-again",
        "fills all of its 16 MiB for ever: an instruction that takes milliseconds",
        lambda: plugin({"request_headers": fill + repeat(fill.replace(grow, ""))}),
        Ends.FAILS,
        _PHASE,
        TOO_LONG,
    )


def _pairs() -> Iterator[Case]:
    size = 12 * 1024 * 1024
    million = f"""(drop (memory.grow (i32.const 200)))
      (i32.store (i32.const 131072) (i32.const 1000000))
      {call("proxy_set_header_map_pairs", 0, 131072, size)}"""
    yield Case(
        "pairs-a-million",
        "hands over 1,000,000 header pairs, each without a name",
        lambda: plugin({"request_headers": million}),
        Ends.SERVED,
        settings={"timeout": "5s"},
    )
    yield Case(
        "pairs-a-million-for-ever",
        "hands over 1,000,000 header pairs, for ever",
        lambda: plugin({"request_headers": repeat(million)}),
        Ends.FAILS,
        _PHASE,
        TOO_LONG,
    )
    small = encode([(b"a%d" % number, b"b") for number in range(1000)])
    yield Case(
        "pairs-a-thousand-for-ever",
        "hands over 1,000 good header pairs, for ever",
        lambda: plugin(
            {"request_headers": repeat(call("proxy_set_header_map_pairs", 0, 1024, len(small)))},
            fields=data({1024: small}),
        ),
        Ends.FAILS,
        _PHASE,
        TOO_LONG,
    )
    good = encode([(b"x-one", b"1"), (b"x-two", b"2")])
    forged = {
        "count-too-large": struct.pack("<I", 0xFFFF_FFFF) + good[4:],
        "count-too-small": struct.pack("<I", 1) + good[4:],
        "negative-length": good[:4] + struct.pack("<I", 0xFFFF_FFFF) + good[8:],
        "length-beyond": good[:8] + struct.pack("<I", 1000) + good[12:],
        "lengths-that-overflow": good[:4]
        + struct.pack("<II", 0x8000_0000, 0x8000_0000)
        + good[12:],
        "no-ends": good.replace(b"\0x", b"xx"),
        "cut": good[:-5],
        "cut-in-the-count": good[:3],
        "bytes-behind": good + b"more",
    }

    for name, raw in forged.items():
        yield Case(
            f"pairs-forged-{name}",
            "hands over forged pairs as headers, as a call's, and as a reply's",
            lambda raw=raw: plugin(
                {"request_headers": _use(raw)}, fields=_DATA + data({1024: raw})
            ),
            Ends.CONTAINED,
        )

    bad = {
        "line-breaks": [(b"x-a", b"1\r\nx-b: 2")],
        "line-breaks-in-a-name": [(b"x-a\r\nx-b", b"2")],
        "nul": [(b"x-a", b"\0")],
        "an-empty-name": [(b"", b"1")],
        "a-pseudo-header": [(b":status", b"200"), (b":evil", b"1")],
    }

    for name, pairs in bad.items():
        raw = encode(pairs)
        yield Case(
            f"headers-with-{name}",
            f"sets headers with {name.replace('-', ' ')}",
            lambda raw=raw: plugin(
                {"request_headers": _use(raw)}, fields=_DATA + data({1024: raw})
            ),
            Ends.CONTAINED,
        )


def _use(raw: bytes) -> str:
    return "\n".join(
        [
            call("proxy_http_call", 288, 7, 1024, len(raw), 0, 0, 1024, len(raw), 1000, _RET),
            call("proxy_grpc_call", 288, 7, 272, 5, 272, 5, 1024, len(raw), 0, 0, 1000, _RET),
            call("proxy_set_header_map_pairs", 2, 1024, len(raw)),
            call("proxy_set_header_map_pairs", 0, 1024, len(raw)),
        ]
    )


def _contexts() -> Iterator[Case]:
    deeds = "\n".join(
        call("proxy_set_effective_context", number)
        + call("proxy_add_header_map_value", 0, 16, 7, 32, 1)
        + call("proxy_set_property", 272, 5, 16, 7)
        + call("proxy_set_tick_period_milliseconds", 0)
        + call("proxy_done")
        for number in (0, 1, 2, 3, 99, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
    )

    for name in ("context_create", "request_headers", "response_headers", "log", "done", "delete"):
        yield Case(
            f"unknown-contexts-in-{name}",
            f"acts for contexts that are not its own, or are none, in proxy_on_{name}",
            lambda name=name: plugin({name: deeds}, fields=_DATA),
            Ends.SERVED,
        )

    yield Case(
        "replies-for-others",
        "sends a local reply for, and closes, every context from 1 to 200",
        lambda: plugin(
            {
                "request_headers": repeat(
                    call("proxy_set_effective_context", "(local.get $i)")
                    + call("proxy_send_local_response", 418, 0, 0, 0, 0, 0, 0, -1)
                    + call("proxy_close_stream", 0),
                    200,
                )
            }
        ),
        Ends.CONTAINED,
    )
