"""Host calls on header maps.

Reading is allowed at any time: a map that does not exist, or not yet, is empty. (Envoy answers
BadArgument then, and the Rust SDK panics on it.) Writing has an effect only until the headers have
passed the plugin; a later change is not made, and the log says so.

A header that would not be one on the wire is answered with OK, on which alone the Rust SDK does not
panic, and then the request fails by the plugin's failure policy, as it fails in Envoy with 503: a
filter must not believe that it has set a header that is not there. What stood under a name that was
to be replaced is gone: with fail_open, a client's own value must not pass for the plugin's.
"""

from __future__ import annotations

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, MapType, Status
from wasm_middleware.abi.pairs import MalformedPairs, Pair, decode, encode, encoded_size
from wasm_middleware.proxy_wasm.headers import (
    HeaderMap,
    InvalidHeader,
    NoSuchHeader,
    canonical_name,
    check_value,
)
from wasm_middleware.proxy_wasm.trace import quoted
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK

_LAST_MAP = MapType.HTTP_CALL_RESPONSE_TRAILERS
_LONGEST_NAME = limits.MAX_HEADER_NAME_BYTES


def proxy_get_header_map_value(
    vm: Vm, map_type: int, key: int, key_size: int, ret_value: int, ret_size: int
) -> int:
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_get_header_map_value", map_type)

    if key_size > _LONGEST_NAME:
        key_size = _shortened(vm, key, key_size)

    context = vm.context
    headers = context.header_map(map_type) if context is not None else None
    value = headers.get(vm.memory.read(key, key_size)) if headers is not None else None

    if value is not None:
        return vm.give(value, ret_value, ret_size)

    if vm.plugin.missing_header_is_empty:
        return vm.give(b"", ret_value, ret_size)

    # Frequent and normal: not a word about it unless somebody reads it.
    if not vm.explains:
        return Status.NOT_FOUND

    what = quoted(vm.memory.read(key, key_size)) + " in " if headers is not None else ""
    why = f"there is no {what}{_NAMES[map_type]}"
    return vm.refuse(Status.NOT_FOUND, "proxy_get_header_map_value", why)


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

    if key_size > _LONGEST_NAME:
        key_size = _shortened(vm, key, key_size)

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

    if key_size > _LONGEST_NAME:
        key_size = _shortened(vm, key, key_size)

    headers = _writable(vm, "proxy_replace_header_map_value", map_type)

    if headers is None:
        return _OK

    read = vm.memory.read

    try:
        headers.replace(read(key, key_size), read(value, value_size))
    except InvalidHeader as error:
        headers.drop(read(key, key_size))
        return _invalid(vm, "proxy_replace_header_map_value", error)

    return _OK


def proxy_remove_header_map_value(vm: Vm, map_type: int, key: int, key_size: int) -> int:
    if map_type > _LAST_MAP:
        return _no_such_map(vm, "proxy_remove_header_map_value", map_type)

    if key_size > _LONGEST_NAME:
        key_size = _shortened(vm, key, key_size)

    headers = _writable(vm, "proxy_remove_header_map_value", map_type)

    if headers is not None:
        headers.remove(vm.memory.read(key, key_size))

    return _OK


def proxy_set_header_map_pairs(vm: Vm, map_type: int, pairs: int, pairs_size: int) -> int:
    """Pairs that can't be read count as none (proxy-wasm-cpp-host); pseudo-headers stay."""
    call = "proxy_set_header_map_pairs"

    if map_type > _LAST_MAP:
        return _no_such_map(vm, call, map_type)

    headers = _writable(vm, call, map_type)

    if headers is None:
        return _OK

    try:
        headers.assign(read_pairs(vm, call, pairs, pairs_size))
    except InvalidHeader as error:
        return _invalid(vm, call, error)

    return _OK


def read_pairs(vm: Vm, call: str, address: int, size: int) -> list[Pair]:
    """The pairs that a guest hands over; none where they are malformed."""
    try:
        # Not copied first: a guest may hand over all of its memory, again and again.
        if size > limits.MAX_PAIRS_BYTES:
            vm.read_at_most(address, size, 0)
            raise MalformedPairs(f"{size} bytes of pairs, more than {limits.MAX_PAIRS_BYTES}")

        return decode(vm.memory.read(address, size))
    except MalformedPairs as error:
        vm.log(LogLevel.WARN, f"{call}: malformed pairs count as none: {error}")
        return []


def valid_pairs(vm: Vm, call: str, given: list[Pair]) -> list[Pair]:
    """Those that can be sent, under their canonical names; a warning for each of the others."""
    valid = []
    room = limits.MAX_HEADERS_BYTES

    for name, value in given:
        try:
            check_value(name, value)
            valid.append((canonical_name(name), value))
        except InvalidHeader as error:
            vm.log(LogLevel.WARN, f"{call}: a header is left out: {error}")
            continue

        room -= len(name) + len(value)

        if room < 0:
            valid.pop()
            most = limits.MAX_HEADERS_BYTES
            vm.log(LogLevel.WARN, f"{call}: headers beyond {most} bytes are left out")
            break

    return valid


def _pairs(vm: Vm, map_type: int) -> list[Pair]:
    headers = vm.context.header_map(map_type) if vm.context is not None else None
    return headers.pairs if headers is not None else []


def _writable(vm: Vm, call: str, map_type: int) -> HeaderMap | None:
    headers = vm.context.writable_map(map_type) if vm.context is not None else None

    if headers is not None:
        return headers

    vm.ignore(call, f"{_NAMES[map_type]} have passed this plugin, or are not there yet")
    return None


def _shortened(vm: Vm, key: int, key_size: int) -> int:
    """Of a name that is too long, as much as shows that it is; all of it must be there."""
    vm.read_at_most(key, key_size, 0)
    return _LONGEST_NAME + 1


_NAMES = [map_type.name.lower().replace("_", " ") for map_type in MapType]


def _no_such_map(vm: Vm, call: str, map_type: int) -> int:
    return vm.refuse(Status.BAD_ARGUMENT, call, f"there is no header map {map_type}")


def _invalid(vm: Vm, call: str, error: InvalidHeader) -> int:
    # Envoy leaves those out, too, and lets the request go on.
    if isinstance(error, NoSuchHeader):
        return vm.ignore(call, str(error))

    context = vm.context
    assert context is not None
    context.break_abi(f"{call}: {error}")
    return _OK
