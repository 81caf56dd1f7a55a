"""Host calls that steer a stream: continue, close, reply, properties."""

from __future__ import annotations

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, Status, StreamType
from wasm_middleware.abi.properties import Path, parse_path
from wasm_middleware.proxy_wasm.headers import InvalidHeader, canonical_name, check_value
from wasm_middleware.proxy_wasm.hostcalls.headers import read_pairs
from wasm_middleware.proxy_wasm.reply import HIGHEST_STATUS, LOWEST_STATUS, LocalReply
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK

_NO_GRPC_STATUS = 0xFFFF_FFFF


def proxy_continue_stream(vm: Vm, stream_type: int) -> int:
    """Noted, and carried out when the guest has returned. Not paused is not an error."""
    if stream_type in (StreamType.DOWNSTREAM, StreamType.UPSTREAM):
        return vm.refuse(
            Status.UNIMPLEMENTED, "proxy_continue_stream", "there is no L4 stream in HTTP"
        )

    if stream_type > StreamType.UPSTREAM:
        return _no_such_stream(vm, "proxy_continue_stream", stream_type)

    _continue(vm, response=stream_type == StreamType.HTTP_RESPONSE)
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

    if vm.context is not None:
        vm.context.close()

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

    pairs = []

    for name, value in read_pairs(vm, call, headers, headers_size):
        try:
            check_value(name, value)
            pairs.append((canonical_name(name), value))
        except InvalidHeader as error:
            vm.log(LogLevel.WARN, f"{call}: a header is left out: {error}")

    reply = LocalReply(
        status=status,
        headers=tuple(pair for pair in pairs if pair[0][:1] != b":"),
        body=read(body, body_size, limits.MAX_LOCAL_RESPONSE_BYTES),
        details=read(details, details_size, limits.MAX_LOG_BYTES).decode("utf-8", "replace"),
        grpc_status=-1 if grpc_status == _NO_GRPC_STATUS else grpc_status,
    )

    if vm.context is None:
        return vm.refuse(Status.BAD_ARGUMENT, call, "there is no stream to reply to")

    vm.context.send_local_response(reply)
    return _OK


def proxy_get_status(vm: Vm, ret_code: int, ret_message: int, ret_size: int) -> int:
    """How the last gRPC or HTTP call ended: none has been made from this context."""
    vm.memory.write_u32(ret_code, 0)
    return vm.give(b"", ret_message, ret_size)


def proxy_get_property(vm: Vm, path: int, path_size: int, ret_value: int, ret_size: int) -> int:
    name = _path(vm, path, path_size)
    value = vm.context.get_property(name) if vm.context is not None and name else None

    if value is None:
        return vm.refuse(
            Status.NOT_FOUND, "proxy_get_property", f"there is no property {_dotted(name)}"
        )

    return vm.give(value, ret_value, ret_size)


def proxy_set_property(vm: Vm, path: int, path_size: int, value: int, value_size: int) -> int:
    """Kept for the stream: later plugins read it, under the same path."""
    name = _path(vm, path, path_size)
    context = vm.context

    if context is None or not name:
        return vm.refuse(Status.NOT_FOUND, "proxy_set_property", "there is no path, or no stream")

    if value_size > limits.MAX_STREAM_PROPERTIES_BYTES:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_set_property", "the value is too long")

    if not context.set_property(name, vm.memory.read(value, value_size)):
        return vm.refuse(
            Status.BAD_ARGUMENT, "proxy_set_property", "the properties take too much memory"
        )

    return _OK


def _path(vm: Vm, address: int, size: int) -> Path:
    if size > limits.MAX_PROPERTY_PATH_BYTES:
        return ()

    return parse_path(vm.memory.read(address, size))


def _dotted(path: Path) -> str:
    return b".".join(path).decode("utf-8", "replace")


def _continue(vm: Vm, *, response: bool) -> None:
    if vm.context is not None:
        vm.context.resume(response=response)


def _no_such_stream(vm: Vm, call: str, stream_type: int) -> int:
    return vm.refuse(Status.BAD_ARGUMENT, call, f"there is no stream type {stream_type}")
