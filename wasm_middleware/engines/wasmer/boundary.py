"""What crosses the boundary: host functions, and failures.

A host function that raises leaves the exception in here. wasmer gets another one, which ends the
guest; the engine raises the first one once it is back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import wasmer

from wasm_middleware import limits
from wasm_middleware.engines.metering.code import FunctionType
from wasm_middleware.engines.protocol import HostFunction
from wasm_middleware.errors import MemoryFault

_U32, _U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
_NUMBERS = {
    0x7F: wasmer.Type.I32,
    0x7E: wasmer.Type.I64,
    0x7D: wasmer.Type.F32,
    0x7C: wasmer.Type.F64,
    0x7B: wasmer.Type.V128,
}
_I32, _I64 = b"\x7f", b"\x7e"
_FLOATS = b"\x7d\x7c"
_FRAME = re.compile(r"at (.*) \(<module>\[(\d+)\]")


class HostFailed(Exception):
    """A host function has raised something that must not cross."""


class Boundary:
    """What one instance's crossings share."""

    __slots__ = ("deadline", "failure", "late")

    def __init__(self, late: Callable[[], BaseException]) -> None:
        self.failure: BaseException | None = None
        #: When the call that runs has had its time, and what is raised then.
        self.deadline = float("inf")
        self.late = late

    def take_failure(self) -> BaseException | None:
        failure, self.failure = self.failure, None
        return failure


def function_type(type_: FunctionType) -> wasmer.FunctionType:
    return wasmer.FunctionType(
        [_NUMBERS[code] for code in type_.parameters], [_NUMBERS[code] for code in type_.results]
    )


def host_callback(
    type_: FunctionType, function: HostFunction, boundary: Boundary
) -> Callable[..., object]:
    """What wasmer calls for an import."""
    call, fault, faulted = function.call, function.fault, function.faulted
    narrow = [index for index, code in enumerate(type_.parameters) if code == _I32[0]]
    all_narrow = len(narrow) == len(type_.parameters)
    answer = _answer(type_.results)
    now = time.perf_counter

    def callback(*values: int) -> object:
        try:
            if now() > boundary.deadline:
                raise boundary.late()

            if all_narrow:
                arguments = [value & _U32 for value in values]
            else:
                arguments = list(values)

                for index in narrow:
                    arguments[index] &= _U32

            try:
                result = call(*arguments)
            except MemoryFault as error:
                faulted(error)
                result = fault

            return answer(result or 0)
        except BaseException as failure:
            boundary.failure = failure
            raise HostFailed from None

    return callback


def _answer(results: bytes) -> Callable[[int], object]:
    """A function that gives a host call's result the shape that wasmer wants."""
    if not results:
        return lambda _: None

    if results == _I32:
        return _U32.__and__

    if results == _I64:
        return _U64.__and__

    zeros = tuple(0.0 if code in _FLOATS else 0 for code in results)
    return lambda _: zeros


def is_panic(error: BaseException) -> bool:
    """Whether wasmer's own code failed; the class has no other name to know it by."""
    return type(error).__name__ == "PanicException"


def reason_of(error: BaseException) -> str:
    """wasmer's message less its backtrace."""
    lines = str(error).splitlines() or [type(error).__name__]
    reason = lines[0].removeprefix("RuntimeError: ")

    if is_panic(error):
        reason = f"wasmer itself failed: {reason}"

    return reason[: limits.MAX_NAME_IN_MESSAGE]


def frames_of(error: BaseException, imported: int) -> str:
    """The innermost functions of a backtrace, for the plugin's author.

    They are numbered as before the change, which has put one behind those that are imported.
    """
    names = []

    for line in str(error).splitlines()[1:6]:
        found = _FRAME.search(line)

        if found is not None:
            name, number = found[1], int(found[2])
            number -= number > imported
            names.append(f"function {number}" if name == "<unnamed>" else name)

    text = f" (in {', called by '.join(names)})" if names else ""
    return text[: 2 * limits.MAX_NAME_IN_MESSAGE]
