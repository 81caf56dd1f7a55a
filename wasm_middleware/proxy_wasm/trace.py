"""The explain log: what a plugin's `log_level: trace` makes of each crossing, in one line.

Theory of operation
-------------------
A host call is wrapped where it is bound (`hostcalls.trace`), a guest where it is taken into its VM
(`TracedGuest`), and both only at that level: at any other nothing of this is on the way.

What crosses may be secret. The values of headers that carry credentials, and whatever stands in the
plugin's configurations or its environment, are shown as their length alone; so is a text that has
such a value in it. Names are shown: of headers, properties, keys, upstreams, functions. A secret of
less than `_SHORTEST_SECRET` bytes is none: it would hide half of the log and protect nothing.

Guests choose what stands here. It is cut, and control characters, those that turn text around too,
are escaped: no line can be made to look like another.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from wasm_middleware import limits
from wasm_middleware.abi.enums import Action, DataStatus, HeadersStatus, LogLevel, PeerType
from wasm_middleware.abi.pairs import Pair

if TYPE_CHECKING:
    from wasm_middleware.proxy_wasm.ports import Guest, GuestFunction, Memory
    from wasm_middleware.proxy_wasm.vm import Vm

#: Headers whose values let somebody in.
SECRET_HEADERS: Final = frozenset(
    (b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key")
)
_SHORTEST_SECRET = 4
#: The keys of a JSON object are mostly words; one of this length may be a token.
_SHORTEST_SECRET_KEY = 16
_BETWEEN_WORDS = re.compile(rb"[\s\"',;:=]+")
#: A byte that is no UTF-8, as `surrogateescape` has it.
_FIRST_STRAY, _LAST_STRAY = "\udc80", "\udcff"


def quoted(data: bytes) -> str:
    """Bytes as text in quotes, on one line; what is long is cut, and its length told."""
    most = limits.MAX_TRACED_BYTES
    text = data[:most].decode("utf-8", "surrogateescape")
    shown = "".join(map(_escaped, text))
    return f'"{shown}"' if len(data) <= most else f'"{shown}"… ({len(data)} bytes)'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"

    if _FIRST_STRAY <= character <= _LAST_STRAY:
        return f"\\x{ord(character) - 0xDC00:02x}"

    return character if character.isprintable() else ascii(character)[1:-1]


def shown(vm: Vm, data: bytes) -> str:
    """A value: quoted, or the length of one that is secret."""
    return hidden(data) if _is_secret(vm, data) else quoted(data)


def hidden(data: bytes) -> str:
    return f"{len(data)} bytes"


def shown_pairs(vm: Vm, pairs: Sequence[Pair]) -> str:
    """Headers, those with credentials by the length of their values."""
    entries = [
        f"{quoted(name)}: {hidden(value) if name.lower() in SECRET_HEADERS else shown(vm, value)}"
        for name, value in pairs[: limits.MAX_TRACED_PAIRS]
    ]

    if len(pairs) > limits.MAX_TRACED_PAIRS:
        entries.append(f"{len(pairs) - limits.MAX_TRACED_PAIRS} more")

    return "{" + ", ".join(entries) + "}"


def _is_secret(vm: Vm, data: bytes) -> bool:
    if len(data) < _SHORTEST_SECRET:
        return False

    return any(
        data in secret or (len(secret) >= _SHORTEST_SECRET and secret in data)
        for secret in _secrets_of(vm)
    )


def _secrets_of(vm: Vm) -> Iterator[bytes]:
    plugin, root = vm.plugin, vm.context.root if vm.context is not None else None

    for _, value in plugin.environment:
        yield value.encode("utf-8", "surrogateescape")

    # A root context that is being configured is not yet among them.
    for config in {plugin.vm_config, plugin.config, *vm.roots, root.config if root else b""}:
        yield from _values_in(config)


@functools.lru_cache(maxsize=64)
def _values_in(config: bytes) -> tuple[bytes, ...]:
    """A configuration, and the texts in it: of JSON its strings, else its words."""
    try:
        found = list(_strings(json.loads(config)))
    except (ValueError, RecursionError):
        found = _BETWEEN_WORDS.split(config)

    return tuple({config, *found} - {b""})


def _strings(value: object) -> Iterator[bytes]:
    match value:
        case str():
            yield value.encode("utf-8", "surrogatepass")
        case list():
            for one in value:
                yield from _strings(one)
        case dict():
            for key, one in value.items():
                if len(key) >= _SHORTEST_SECRET_KEY:
                    yield from _strings(key)

                yield from _strings(one)


class TracedGuest:
    """Fulfils `Guest`: another one, with a line when a callback begins and one when it ends."""

    __slots__ = ("_guest", "_vm")

    def __init__(self, guest: Guest, vm: Vm) -> None:
        self._guest, self._vm = guest, vm

    @property
    def memory(self) -> Memory:
        return self._guest.memory

    @property
    def poisoned(self) -> bool:
        return self._guest.poisoned

    def start_function(self) -> GuestFunction | None:
        return self._traced("start", self._guest.start_function())

    def set_timeout(self, seconds: float | None) -> None:
        self._guest.set_timeout(seconds)

    def limit_call(self, seconds: float) -> None:
        self._guest.limit_call(seconds)

    def inner_function(self, name: str) -> Callable[..., int] | None:
        return self._guest.inner_function(name)

    def close(self) -> None:
        self._guest.close()

    def function(self, name: str) -> GuestFunction | None:
        return self._traced(name, self._guest.function(name))

    def _traced(self, name: str, function: GuestFunction | None) -> GuestFunction | None:
        vm = self._vm

        if function is None:
            return None

        async def call(*arguments: int) -> int:
            said = f"{name.removeprefix('proxy_')}({_arguments(name, arguments)})"
            vm.log(LogLevel.TRACE, f"enter {said}")

            try:
                result = await function(*arguments)
            except BaseException as error:
                vm.log(LogLevel.TRACE, f"{said} -> failed: {str(error) or repr(error)}")
                raise

            vm.log(LogLevel.TRACE, f"{said} -> {_ANSWERS.get(name, _nothing)(result)}")
            return result

        return call


def _arguments(name: str, arguments: Sequence[int]) -> str:
    words = zip(_ARGUMENTS.get(name, ()), arguments, strict=False)
    return ", ".join(word for what, value in words if (word := _argument(what, value)))


def _argument(what: str, value: int) -> str:
    if what == "end_of_stream":
        return what if value else ""

    if what == "peer":
        return f"{PeerType(value).name.lower()} peer"

    # What can be counted stands behind its number, what has one before it.
    return f"{value} {what}" if what.endswith("s") and what != "status" else f"{what} {value}"


def _nothing(_result: int) -> str:
    return "nothing"


def _truth(result: int) -> str:
    return "true" if result else "false"


def _action(result: int) -> str:
    return Action(result).name if result in (0, 1) else str(result)


def _headers_status(result: int) -> str:
    known = 1 < result <= max(HeadersStatus)
    return HeadersStatus(result).name if known else _action(result)


def _data_status(result: int) -> str:
    return DataStatus(result).name if 1 < result <= max(DataStatus) else _action(result)


_CALL = ("context", "call")
_BYTES = ("context", "bytes", "end_of_stream")
_HEADERS = ("context", "headers", "end_of_stream")

#: What a callback's arguments are; of functions that are not here none is shown.
_ARGUMENTS: Final[Mapping[str, Sequence[str]]] = {
    "proxy_on_context_create": ("context", "parent"),
    "proxy_on_vm_start": ("context", "bytes"),
    "proxy_validate_configuration": ("context", "bytes"),
    "proxy_on_configure": ("context", "bytes"),
    "proxy_on_done": ("context",),
    "proxy_on_log": ("context",),
    "proxy_on_delete": ("context",),
    "proxy_on_tick": ("context",),
    "proxy_on_new_connection": ("context",),
    "proxy_on_downstream_data": _BYTES,
    "proxy_on_downstream_connection_close": ("context", "peer"),
    "proxy_on_upstream_data": _BYTES,
    "proxy_on_upstream_connection_close": ("context", "peer"),
    "proxy_on_request_headers": _HEADERS,
    "proxy_on_request_body": _BYTES,
    "proxy_on_request_trailers": ("context", "trailers"),
    "proxy_on_response_headers": _HEADERS,
    "proxy_on_response_body": _BYTES,
    "proxy_on_response_trailers": ("context", "trailers"),
    "proxy_on_http_call_response": (*_CALL, "headers", "bytes", "trailers"),
    "proxy_on_grpc_receive_initial_metadata": (*_CALL, "elements"),
    "proxy_on_grpc_receive": (*_CALL, "bytes"),
    "proxy_on_grpc_receive_trailing_metadata": (*_CALL, "elements"),
    "proxy_on_grpc_close": (*_CALL, "status"),
    "proxy_on_queue_ready": ("context", "queue"),
    "proxy_on_foreign_function": (*_CALL, "bytes"),
}

#: What those mean that answer something.
_ANSWERS: Final[Mapping[str, Callable[[int], str]]] = {
    "main": str,
    "__main_void": str,
    **dict.fromkeys(
        (
            "proxy_on_vm_start",
            "proxy_validate_configuration",
            "proxy_on_configure",
            "proxy_on_done",
        ),
        _truth,
    ),
    **dict.fromkeys(("proxy_on_request_headers", "proxy_on_response_headers"), _headers_status),
    **dict.fromkeys(("proxy_on_request_body", "proxy_on_response_body"), _data_status),
    **dict.fromkeys(
        (
            "proxy_on_new_connection",
            "proxy_on_downstream_data",
            "proxy_on_upstream_data",
            "proxy_on_request_trailers",
            "proxy_on_response_trailers",
        ),
        _action,
    ),
}
