"""Host calls on header maps.

Reading is allowed at any time: a map that does not exist, or not yet, is empty. (Envoy answers
BadArgument then, and the Rust SDK panics on it.) Writing has an effect only until the headers have
passed the plugin; a later change is not made, and the log says so. A header that would break out of
its line is refused with BadArgument.
"""

from __future__ import annotations

from wasm_middleware.abi.enums import LogLevel, MapType, Status
from wasm_middleware.abi.pairs import MalformedPairs, Pair, decode, encode, encoded_size
from wasm_middleware.proxy_wasm.headers import HeaderMap, InvalidHeader
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK

_LAST_MAP = MapType.HTTP_CALL_RESPONSE_TRAILERS


def proxy_get_header_map_value(
    vm: Vm, map_type: int, key: int, key_size: int, ret_value: int, ret_size: int
) -> int:
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_get_header_map_value", map_type)

    context = vm.context
    headers = context.header_map(map_type) if context is not None else None
    value = headers.get(vm.memory.read(key, key_size)) if headers is not None else None

    if value is not None:
        return vm.give(value, ret_value, ret_size)

    if vm.plugin.missing_header_is_empty:
        return vm.give(b"", ret_value, ret_size)

    return Status.NOT_FOUND


def proxy_get_header_map_pairs(vm: Vm, map_type: int, ret_pairs: int, ret_size: int) -> int:
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_get_header_map_pairs", map_type)

    return vm.give(encode(_pairs(vm, map_type)), ret_pairs, ret_size)


def proxy_get_header_map_size(vm: Vm, map_type: int, ret_size: int) -> int:
    """The bytes that the pairs take when they are serialized (spec; Envoy counts less)."""
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_get_header_map_size", map_type)

    vm.memory.write_u32(ret_size, encoded_size(_pairs(vm, map_type)))
    return _OK


def proxy_add_header_map_value(
    vm: Vm, map_type: int, key: int, key_size: int, value: int, value_size: int
) -> int:
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_add_header_map_value", map_type)

    headers = _writable(vm, "proxy_add_header_map_value", map_type)

    if headers is None:
        return _OK

    read = vm.memory.read

    try:
        headers.add(read(key, key_size), read(value, value_size))
    except InvalidHeader as error:
        return _invalid(vm, "proxy_add_header_map_value", error)

    return _OK


def proxy_replace_header_map_value(
    vm: Vm, map_type: int, key: int, key_size: int, value: int, value_size: int
) -> int:
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_replace_header_map_value", map_type)

    headers = _writable(vm, "proxy_replace_header_map_value", map_type)

    if headers is None:
        return _OK

    read = vm.memory.read

    try:
        headers.replace(read(key, key_size), read(value, value_size))
    except InvalidHeader as error:
        return _invalid(vm, "proxy_replace_header_map_value", error)

    return _OK


def proxy_remove_header_map_value(vm: Vm, map_type: int, key: int, key_size: int) -> int:
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_remove_header_map_value", map_type)

    headers = _writable(vm, "proxy_remove_header_map_value", map_type)

    if headers is not None:
        headers.remove(vm.memory.read(key, key_size))

    return _OK


def proxy_set_header_map_pairs(vm: Vm, map_type: int, pairs: int, pairs_size: int) -> int:
    """Pairs that can't be read count as none (proxy-wasm-cpp-host); pseudo-headers stay."""
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_set_header_map_pairs", map_type)

    headers = _writable(vm, "proxy_set_header_map_pairs", map_type)

    if headers is None:
        return _OK

    try:
        headers.assign(read_pairs(vm, "proxy_set_header_map_pairs", pairs, pairs_size))
    except InvalidHeader as error:
        return _invalid(vm, "proxy_set_header_map_pairs", error)

    return _OK


def read_pairs(vm: Vm, call: str, address: int, size: int) -> list[Pair]:
    """The pairs that a guest hands over; none where they are malformed."""
    try:
        return decode(vm.memory.read(address, size))
    except MalformedPairs as error:
        vm.log(LogLevel.WARN, f"{call}: malformed pairs count as none: {error}")
        return []


def _pairs(vm: Vm, map_type: int) -> list[Pair]:
    headers = vm.context.header_map(map_type) if vm.context is not None else None
    return headers.pairs if headers is not None else []


def _writable(vm: Vm, call: str, map_type: int) -> HeaderMap | None:
    headers = vm.context.writable_map(map_type) if vm.context is not None else None

    if headers is not None:
        return headers

    vm.log(
        LogLevel.WARN,
        f"{call}: ignored, since {_NAMES[map_type]} have passed this plugin, or are not there yet",
    )
    return None


_NAMES = [map_type.name.lower().replace("_", " ") for map_type in MapType]


def _no_such_map(vm: Vm, call: str, map_type: int) -> int:
    return vm.refuse(Status.BAD_ARGUMENT, call, f"there is no header map {map_type}")


def _invalid(vm: Vm, call: str, error: InvalidHeader) -> int:
    vm.log(LogLevel.WARN, f"{call}: refused: {error}")
    return Status.BAD_ARGUMENT
