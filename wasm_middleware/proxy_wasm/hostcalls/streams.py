"""Host calls that steer a stream or a connection: continue, close, reply, properties."""

from __future__ import annotations

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, Status, StreamType
from wasm_middleware.abi.properties import Path, parse_path
from wasm_middleware.proxy_wasm.hostcalls.headers import read_pairs, valid_pairs
from wasm_middleware.proxy_wasm.reply import HIGHEST_STATUS, LOWEST_STATUS, LocalReply
from wasm_middleware.proxy_wasm.trace import quoted
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK

_NO_GRPC_STATUS = 0xFFFF_FFFF
_NO_PATH = "the path is empty, or too long"


def proxy_continue_stream(vm: Vm, stream_type: int) -> int:
    """Noted, and carried out when the guest has returned. Not paused is not an error.

    Envoy answers UNIMPLEMENTED to UPSTREAM; here that direction goes on as the other does.
    """
    if stream_type > StreamType.UPSTREAM:
        return _no_such_stream(vm, "proxy_continue_stream", stream_type)

    if stream_type < StreamType.DOWNSTREAM:
        _continue(vm, response=stream_type == StreamType.HTTP_RESPONSE)
    elif vm.context is not None:
        vm.context.resume_connection(upstream=stream_type == StreamType.UPSTREAM)

    return _OK


def proxy_continue_request(vm: Vm) -> int:
    """0.1.0; some SDKs declare a result for it."""
    _continue(vm, response=False)
    return _OK


def proxy_continue_response(vm: Vm) -> int:
    """0.1.0; some SDKs declare a result for it."""
    _continue(vm, response=True)
    return _OK


def proxy_clear_route_cache(_vm: Vm) -> int:
    """0.1.0: routes are matched again by themselves when a plugin has changed the path."""
    return _OK


def proxy_close_stream(vm: Vm, stream_type: int) -> int:
    if stream_type > StreamType.UPSTREAM:
        return _no_such_stream(vm, "proxy_close_stream", stream_type)

    if vm.context is None:
        return _OK

    if stream_type < StreamType.DOWNSTREAM:
        vm.context.close()
    else:
        vm.context.close_connection(upstream=stream_type == StreamType.UPSTREAM)

    return _OK


def proxy_send_local_response(
    vm: Vm,
    status: int,
    details: int,
    details_size: int,
    body: int,
    body_size: int,
    headers: int,
    headers_size: int,
    grpc_status: int,
) -> int:
    """The first reply of a stream wins, over the action that the callback returns as well."""
    read = vm.read_at_most
    call = "proxy_send_local_response"

    if body_size > limits.MAX_LOCAL_RESPONSE_BYTES:
        vm.log(LogLevel.ERROR, f"{call}: a body of {body_size} bytes is cut, it is too long")

    if not LOWEST_STATUS <= status <= HIGHEST_STATUS:
        vm.log(LogLevel.WARN, f"{call}: there is no status {status}, it becomes 500")

    pairs = valid_pairs(vm, call, read_pairs(vm, call, headers, headers_size))
    reply = LocalReply(
        status=status,
        headers=tuple(pair for pair in pairs if pair[0][:1] != b":"),
        body=read(body, body_size, limits.MAX_LOCAL_RESPONSE_BYTES),
        details=read(details, details_size, limits.MAX_LOG_BYTES).decode("utf-8", "replace"),
        grpc_status=-1 if grpc_status == _NO_GRPC_STATUS else grpc_status,
    )

    if vm.context is None:
        return vm.ignore(call, "there is no stream to reply to")

    vm.context.send_local_response(reply)
    return _OK


def proxy_get_status(vm: Vm, ret_code: int, ret_message: int, ret_size: int) -> int:
    """How the last call to an upstream ended whose end was delivered to this instance."""
    code, message = vm.last_status
    vm.memory.write_u32(ret_code, code)
    return vm.give(message, ret_message, ret_size)


def proxy_get_property(vm: Vm, path: int, path_size: int, ret_value: int, ret_size: int) -> int:
    """A path that is none is NotFound: on the specification's SerializationFailure the Rust SDK's
    `Context::get_property` panics."""
    name = _path(vm, path, path_size)
    value = vm.context.get_property(name) if vm.context is not None and name else None

    if value is not None:
        return vm.give(value, ret_value, ret_size)

    # Frequent and normal: not a word about it unless somebody reads it.
    if not vm.explains:
        return Status.NOT_FOUND

    why = f"there is no property {quoted(b'.'.join(name))}" if name else _NO_PATH
    return vm.refuse(Status.NOT_FOUND, "proxy_get_property", why)


def proxy_set_property(vm: Vm, path: int, path_size: int, value: int, value_size: int) -> int:
    """Kept for the stream: later plugins read it, under the same path.

    What can't be kept is not: SDKs know no other answer than OK. (The specification has NotFound.)
    """
    call = "proxy_set_property"
    name = _path(vm, path, path_size)
    context = vm.context

    if context is None:
        return vm.ignore(call, "there is no stream")

    if not name:
        return vm.ignore(call, _NO_PATH)

    if value_size > limits.MAX_STREAM_PROPERTIES_BYTES:
        vm.read_at_most(value, value_size, 0)
        return vm.ignore(call, f"a value of {value_size} bytes is too long")

    if not context.set_property(name, vm.memory.read(value, value_size)):
        return vm.ignore(call, "the properties take too much memory")

    return _OK


def _path(vm: Vm, address: int, size: int) -> Path:
    """The segments; none of a path that is too long."""
    path = vm.read_at_most(address, size, limits.MAX_PROPERTY_PATH_BYTES)
    return parse_path(path) if size <= limits.MAX_PROPERTY_PATH_BYTES else ()


def _continue(vm: Vm, *, response: bool) -> None:
    if vm.context is not None:
        vm.context.resume(response=response)


def _no_such_stream(vm: Vm, call: str, stream_type: int) -> int:
    return vm.refuse(Status.BAD_ARGUMENT, call, f"there is no stream type {stream_type}")
