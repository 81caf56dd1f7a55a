"""Host calls in the explain log: each one, its arguments and its answer, in one line.

    proxy_get_header_map_value(http_request_headers, "x-user") -> NOT_FOUND
    proxy_get_header_map_value(http_request_headers, "x-user") -> OK "alice"
    proxy_get_header_map_value(http_request_headers, "cookie") -> OK 31 bytes

What an argument is, its name in the function's own parameters says: `key, key_size` are an address
and a size, `map_type` a number with a name, `ret_…` where to put something, which is shown once it
is there. `proxy_wasm.trace` says what is secret. A pointer that leads nowhere is shown as such; the
call then answers as if nobody looked on.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from wasm_middleware import limits
from wasm_middleware.abi.enums import (
    BufferType,
    Errno,
    LogLevel,
    MapType,
    MetricType,
    Status,
    StreamType,
    answer_name,
)
from wasm_middleware.abi.pairs import MalformedPairs, decode
from wasm_middleware.abi.properties import parse_path
from wasm_middleware.errors import HostWait, MemoryFault
from wasm_middleware.proxy_wasm.trace import SECRET_HEADERS, quoted, shown, shown_pairs
from wasm_middleware.proxy_wasm.vm import Vm

HostCall = Callable[..., int | None]

_ENUMS: Final[Mapping[str, type[enum.IntEnum]]] = {
    "buffer_type": BufferType,
    "kind": MetricType,
    "level": LogLevel,
    "map_type": MapType,
    "stream_type": StreamType,
}
#: Texts that name something: they are shown whatever they are.
_NAMES = frozenset(("key", "name", "path", "upstream", "service", "method", "vm_id"))
_PAIRS = frozenset(("headers", "trailers", "metadata", "pairs", "ret_pairs"))
#: Where the address of bytes goes, and their size behind it.
_BYTES_OUT = frozenset(("ret_data", "ret_message", "ret_pairs", "ret_results", "ret_value"))
_WIDE_OUT = frozenset(("ret_resolution", "ret_time", "ret_value"))
#: Addresses of what is no text.
_NOT_SHOWN = frozenset(
    (
        *("buffer", "iovecs", "ret_array", "ret_buffer", "ret_events", "ret_stat", "ret_unused"),
        *("_in", "_memory", "_out", "_precision"),
    )
)
#: Their result is a number and no status.
_NO_STATUS = frozenset(("pthread_equal",))
#: A private key is what these are given.
_SECRET_FUNCTIONS = frozenset((b"sign",))
_CONFIGURATIONS = (BufferType.VM_CONFIGURATION, BufferType.PLUGIN_CONFIGURATION)
_MAPS = frozenset((b"headers", b"trailers"))


def traced(
    vm: Vm, name: str, call: HostCall, function: HostCall | None, fault: Status | Errno
) -> HostCall:
    """The same call, with a line in the log; `function` is what names its parameters."""
    parameters = list(inspect.signature(function).parameters)[1:] if function is not None else []
    answers = type(fault)

    def trace(*arguments: int) -> int | None:
        line = _Line(vm, name, parameters, arguments)
        said = f"{name}({', '.join(line.arguments())})"

        try:
            return answered(line, said, call(*arguments))
        except HostWait as wait:
            vm.log(LogLevel.TRACE, f"{said} waits")
            given_up = wait.given_up
            raise HostWait(
                functools.partial(later, line, said, wait),
                lambda error: answered(line, said, given_up(error)) or 0,
                wait.forget,
            ) from None
        except MemoryFault as error:
            vm.log(LogLevel.TRACE, f"{said} -> {answer_name(fault)}: {error}")
            raise
        except BaseException as error:
            vm.log(LogLevel.TRACE, f"{said} -> {str(error) or repr(error)}")
            raise

    def answered(line: _Line, said: str, result: int | None) -> int | None:
        words = [_answer(name, answers, result), *(() if result else line.results())]
        vm.log(LogLevel.TRACE, f"{said} -> {' '.join(words)}")
        return result

    async def later(line: _Line, said: str, wait: HostWait) -> Callable[[], int]:
        finish = await wait.outcome()
        return lambda: answered(line, said, finish()) or 0

    return trace


def _answer(name: str, answers: type[Status] | type[Errno], result: int | None) -> str:
    if result is None:
        return "nothing"

    if name in _NO_STATUS:
        return str(result)

    return answer_name(answers(result)) if result else "OK"


class _Line:
    """One call: what its arguments say, by the names of its parameters."""

    __slots__ = ("_conceals", "_unnamed", "_values", "_vm")

    def __init__(
        self, vm: Vm, name: str, parameters: Sequence[str], arguments: Sequence[int]
    ) -> None:
        self._vm = vm
        self._values = dict(zip(parameters, arguments, strict=False))
        self._unnamed = arguments[len(parameters) :]
        self._conceals = name == "proxy_get_configuration" or self._is_secret()

    def arguments(self) -> Iterator[str]:
        values = self._values

        for name, value in values.items():
            is_size = name.endswith("_size") and name.removesuffix("_size") in values

            if is_size or name in _NOT_SHOWN or name.startswith("ret_"):
                continue

            size = values.get(f"{name}_size")
            yield _number(name, value) if size is None else self._text(name, value, size)

        yield from map(str, self._unnamed)

    def results(self) -> Iterator[str]:
        """What was put where the guest wanted it."""
        names = list(self._values)
        after_bytes = False

        for name, following in zip(names, [*names[1:], ""], strict=False):
            if after_bytes or name in _NOT_SHOWN or not name.startswith("ret_"):
                after_bytes = False
                continue

            address = self._values[name]
            after_bytes = name in _BYTES_OUT and following.endswith("size")

            if after_bytes:
                size = self._integer(self._values[following])
                yield self._text(name, self._integer(address), size)
            else:
                width = 8 if name in _WIDE_OUT else 4
                yield f"{name.removeprefix('ret_')}={self._integer(address, width)}"

    def _integer(self, address: int, width: int = 4) -> int:
        return int.from_bytes(self._vm.memory.read(address, width), "little")

    def _text(self, name: str, address: int, size: int) -> str:
        try:
            data = self._peek(address, size)
        except MemoryFault as error:
            return f"<{error}>"

        # Too much to look for secrets in, and to read.
        if (self._conceals and name not in _NAMES) or data is None:
            return f"{size} bytes"

        if name in _PAIRS:
            return self._pairs(data)

        if name == "path":
            return quoted(b".".join(parse_path(data)))

        return quoted(data) if name in _NAMES else shown(self._vm, data)

    def _peek(self, address: int, size: int) -> bytes | None:
        """The bytes that are there; None for very many. Raises `MemoryFault`."""
        data = self._vm.read_at_most(address, size, limits.MAX_PAIRS_BYTES)
        return data if len(data) == size else None

    def _pairs(self, data: bytes) -> str:
        try:
            return shown_pairs(self._vm, decode(data))
        except MalformedPairs as error:
            return f"<{error}>"

    def _is_secret(self) -> bool:
        """Whether its value is, whatever it says."""
        if self._values.get("buffer_type") in _CONFIGURATIONS:
            return True

        if "arguments" in self._values:
            return self._name("name") in _SECRET_FUNCTIONS

        path = parse_path(self._name("path")) or (b"",)
        return bool(SECRET_HEADERS & {self._name("key"), path[-1]}) or path[-1] in _MAPS

    def _name(self, name: str) -> bytes:
        """One of its names in lower case; nothing if there is none."""
        try:
            data = self._peek(self._values.get(name, 0), self._values.get(f"{name}_size", 0))
        except MemoryFault:
            # The call itself will say so.
            return b""

        return (data or b"").lower()


def _number(name: str, value: int) -> str:
    kind = _ENUMS.get(name)

    if kind is not None and 0 <= value < len(kind):
        return kind(value).name.lower()

    # It is a number below 0 where there is none.
    if name == "grpc_status":
        value -= value >> 31 << 32

    return f"{name.strip('_')}={value}"
