"""Whatever runs before the first request: start functions, callbacks of the root context."""

from __future__ import annotations

from collections.abc import Iterator

from wasm_middleware.abi.signatures import HOST_CALLS, WASI_CALLS

from .callbacks import TOO_LONG_A_START, UNREACHABLE
from .case import Case, Ends
from .wat import RECURSE, SCRATCH, SPIN, TRAP, call, exits, plugin

_WAYS = {
    "spins": (SPIN, TOO_LONG_A_START),
    "traps": (TRAP, UNREACHABLE),
    "recurses": (RECURSE, "call stack exhausted"),
    "exits": (exits(1), "exit code 1"),
}
#: By the phase that the log names.
_FUNCTIONS = {
    "start": "(func $begin {code}) (start $begin)",
    "_initialize": '(func (export "_initialize") {code})',
    "_start": '(func (export "_start") {code})',
    "main": """(func (export "_initialize"))
      (func (export "main") (param i32 i32) (result i32) {code} (i32.const 0))""",
}
_CALLBACKS = ("context_create", "vm_start", "validate_configuration", "configure")
_ABI = {**HOST_CALLS, **WASI_CALLS}
_NO_CALLS = ("abort", "proc_exit", "pthread_equal", "emscripten_notify_memory_growth")


def cases() -> Iterator[Case]:
    for way, (code, says) in _WAYS.items():
        for name in _FUNCTIONS:
            yield _in_function(way, name, code, says)

        for name in _CALLBACKS:
            yield _in_callback(way, name, code, says)

    yield from _odd_starts()

    for name in _FUNCTIONS:
        yield _calls_the_host(name)


def _name(function: str) -> str:
    """The function that a start section names has no name of its own."""
    return "start-section" if function == "start" else function.strip("_")


def _in_function(way: str, name: str, code: str, says: str) -> Case:
    return Case(
        f"{way}-in-{_name(name)}",
        f"{way} in its {name} function",
        lambda: plugin(fields=_FUNCTIONS[name].format(code=code)),
        Ends.NOT_STARTED,
        name,
        says,
    )


def _in_callback(way: str, name: str, code: str, says: str) -> Case:
    phase = name if name.startswith("validate") else f"on_{name}"
    return Case(
        f"{way}-in-root-{name}",
        f"{way} in {phase} of its root context",
        lambda: plugin(always={name: code}),
        Ends.NOT_STARTED,
        phase,
        says,
    )


def _odd_starts() -> Iterator[Case]:
    for name in ("vm_start", "configure"):
        yield Case(
            f"refuses-in-{name}",
            f"answers false in on_{name}",
            lambda name=name: plugin(always={name: "(return (i32.const 0))"}),
            Ends.NOT_STARTED,
            f"on_{name}",
            "answered false",
        )

    for name in ("_start", "main"):
        yield Case(
            f"exits-with-0-in-{_name(name)}",
            f"ends its {name} by proc_exit(0), as toolchains do",
            lambda name=name: plugin(fields=_FUNCTIONS[name].format(code=exits(0))),
            Ends.SERVED,
        )

    for name in ("start", "_initialize"):
        yield Case(
            f"exits-with-0-in-{_name(name)}",
            f"ends its {name} by proc_exit(0), where nothing may end it",
            lambda name=name: plugin(fields=_FUNCTIONS[name].format(code=exits(0))),
            Ends.NOT_STARTED,
            name,
            "exit code 0",
        )

    yield Case(
        "starts-once",
        "traps in its second start and later ones, after it has failed in a request",
        _starts_once,
        Ends.FAILS_TO_START_AGAIN,
        "on_request_headers",
        UNREACHABLE,
    )


def _starts_once() -> str:
    """That there was a first one is told by shared data, which twins share: two may start."""
    count = f"(i32.load (i32.const {SCRATCH + 32}))"
    started = f"""
      {call("proxy_get_shared_data", 16, 7, SCRATCH, SCRATCH + 4, SCRATCH + 32)}
      (if (i32.ge_u {count} (i32.const 2)) (then unreachable))
      {call("proxy_set_shared_data", 16, 7, 16, 7, 0)}"""
    return plugin({"request_headers": TRAP}, always={"configure": started})


def _calls_the_host(name: str) -> Case:
    """Each host call, where there is no context, with zeros and with all ones."""
    code = "\n".join(
        call(host_call.name, *[value] * len(host_call.signature.partition(">")[0]))
        for host_call in _ABI.values()
        for value in (0, -1)
        if host_call.name not in _NO_CALLS
    )
    return Case(
        f"host-calls-in-{_name(name)}",
        f"makes each host call in its {name} function",
        lambda: plugin(fields=_FUNCTIONS[name].format(code=code)),
        Ends.SERVED,
    )
