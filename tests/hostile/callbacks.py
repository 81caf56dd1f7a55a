"""Spinning and trapping in each callback, and what else ends a guest in one."""

from __future__ import annotations

from collections.abc import Iterator

from wasm_middleware.abi.pairs import encode

from .case import Case, Ends
from .wat import RECURSE, SCRATCH, SPIN, TRAP, data, exits, plugin

TOO_LONG, UNREACHABLE = "longer than its timeout", "unreachable"
#: See `stage`.
TOO_LONG_A_START = "longer than the 0.3 s that a start has"

_IN_A_REQUEST = ("request_headers", "request_body", "response_headers", "response_body")
_AT_ITS_END = ("log", "done", "delete")
_WAYS = {
    "spins": (SPIN, TOO_LONG),
    "traps": (TRAP, UNREACHABLE),
    "recurses": (RECURSE, "call stack exhausted"),
    "exits": (exits(1), "exit code 1"),
    "exits-with-0": (exits(0), "exit code 0"),
}
_PAIRS = encode([(b":path", b"/"), (b":method", b"POST"), (b":authority", b"test")])
_DATA = data({272: b"queue", 288: b"nowhere", 304: b"later", 320: _PAIRS})
_NOTHING = "(i32.const 0) (i32.const 0)"
_TOKEN = f"(i32.const {SCRATCH + 16})"
#: What makes the host call back, beside requests.
_CAUSES = {
    "tick": "(drop (call $env.proxy_set_tick_period_milliseconds (i32.const 10)))",
    "queue_ready": f"""
      (drop (call $env.proxy_register_shared_queue (i32.const 272) (i32.const 5) {_TOKEN}))
      (drop (call $env.proxy_enqueue_shared_queue (i32.load {_TOKEN}) {_NOTHING}))""",
    "http_call_response": f"""
      (drop (call $env.proxy_http_call (i32.const 288) (i32.const 7) (i32.const 320)
        (i32.const {len(_PAIRS)}) {_NOTHING} {_NOTHING} (i32.const 1000) {_TOKEN}))""",
    "grpc_close": f"""
      (drop (call $env.proxy_grpc_call (i32.const 288) (i32.const 7) (i32.const 272)
        (i32.const 5) (i32.const 272) (i32.const 5) {_NOTHING} {_NOTHING} (i32.const 1000)
        {_TOKEN}))""",
    "foreign_function": f"""
      (drop (call $env.proxy_call_foreign_function (i32.const 304) (i32.const 5) {_NOTHING}
        {_TOKEN} (i32.const {SCRATCH + 24})))""",
}
_NETWORK = (
    "new_connection",
    "downstream_data",
    "upstream_data",
    "downstream_connection_close",
    "upstream_connection_close",
)


def cases() -> Iterator[Case]:
    for way, (code, says) in _WAYS.items():
        for name in _IN_A_REQUEST:
            yield _case(name, way, code, says, Ends.FAILS)

        for name in _AT_ITS_END:
            yield _case(name, way, code, says, Ends.FAILS_LATER)

    for way in ("spins", "traps"):
        code, says = _WAYS[way]
        yield _context_create(way, code, says)
        yield _response_trailers(way, code, says)

        for name in _CAUSES:
            yield _delivery(name, way, code, says)

        for name in _NETWORK:
            yield _network(name, way, code, says)


def _case(name: str, way: str, code: str, says: str, ends: Ends) -> Case:
    return Case(
        f"{way}-in-{name}",
        f"{way} in proxy_on_{name}",
        lambda: plugin({name: code}, fields=_reads_bodies(name)),
        ends,
        f"on_{name}",
        says,
    )


def _reads_bodies(name: str) -> str:
    """A body callback is only called where the module imports something to read bodies with."""
    if "body" not in name:
        return ""

    return f"""(func (drop (call $env.proxy_get_buffer_bytes (i32.const 0) {_NOTHING}
      (i32.const {SCRATCH}) {_TOKEN})))"""


def _context_create(way: str, code: str, says: str) -> Case:
    return Case(
        f"{way}-in-context_create",
        f"{way} when a stream's context is created, once armed by the request before",
        lambda: plugin({"context_create": code}),
        Ends.FAILS,
        "on_context_create",
        says,
        requests=2,
    )


def _response_trailers(way: str, code: str, says: str) -> Case:
    return Case(
        f"{way}-in-response_trailers",
        f"{way} in proxy_on_response_trailers: most of the answer has gone out",
        lambda: plugin({"response_trailers": code}),
        Ends.FAILS,
        "on_response_trailers",
        says,
        trailers=True,
    )


def _delivery(name: str, way: str, code: str, says: str) -> Case:
    return Case(
        f"{way}-in-{name}",
        f"{way} in proxy_on_{name}, which a request has caused",
        lambda: plugin({name: code, "request_headers": _CAUSES[name]}, fields=_DATA),
        Ends.FAILS_BESIDE,
        f"on_{name}",
        says,
    )


def _network(name: str, way: str, code: str, says: str) -> Case:
    return Case(
        f"{way}-in-{name}",
        f"{way} in proxy_on_{name} of each websocket",
        lambda: plugin(always={name: code}),
        Ends.FAILS,
        f"on_{name}",
        says,
        settings={"type": "network"},
        websocket=True,
    )
