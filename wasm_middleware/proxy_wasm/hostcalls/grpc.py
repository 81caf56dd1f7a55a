"""Host calls that make gRPC calls and streams to upstreams (see `proxy_wasm.grpc`).

The SDKs take three answers to a new call. ParseFailure says that it is wrong as it was asked for:
an unknown upstream, a method or metadata that gRPC would not carry. InternalFailure says that this
host can't make it. The log says which it was. What goes wrong from then on, an upstream that can't
be reached as well, comes back as the call's status.
"""

from __future__ import annotations

import re

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, Status
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.proxy_wasm.grpc import (
    GrpcSession,
    outgoing_metadata,
    start_session,
    upstream_name,
)
from wasm_middleware.proxy_wasm.headers import InvalidHeader
from wasm_middleware.proxy_wasm.hostcalls.headers import read_pairs
from wasm_middleware.proxy_wasm.ports import GrpcCall, StoreFull
from wasm_middleware.proxy_wasm.underway import no_room, size_of
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK
#: "/{service}/{method}" is a path; these parts of it need no escape, and none leads out of it.
_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~-]+"
_SERVICE = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_METHOD = re.compile(_SEGMENT)


def proxy_grpc_call(
    vm: Vm,
    upstream: int,
    upstream_size: int,
    service: int,
    service_size: int,
    method: int,
    method_size: int,
    metadata: int,
    metadata_size: int,
    message: int,
    message_size: int,
    timeout: int,
    ret_call: int,
) -> int:
    """Begin a unary call; its token goes to `ret_call`. `timeout` is in milliseconds; 0 leaves it
    to the upstream's own."""
    call = "proxy_grpc_call"

    if message_size > limits.MAX_GRPC_CALL_BYTES:
        return _fail(vm, call, _too_long(message_size))

    return _start(
        vm,
        call,
        (upstream, upstream_size),
        (service, service_size),
        (method, method_size),
        (metadata, metadata_size),
        ret_call,
        message=vm.memory.read(message, message_size),
        timeout=timeout / 1000 if timeout else None,
    )


def proxy_grpc_stream(
    vm: Vm,
    upstream: int,
    upstream_size: int,
    service: int,
    service_size: int,
    method: int,
    method_size: int,
    metadata: int,
    metadata_size: int,
    ret_stream: int,
) -> int:
    """Open a stream; its token goes to `ret_stream`. It has no time limit."""
    return _start(
        vm,
        "proxy_grpc_stream",
        (upstream, upstream_size),
        (service, service_size),
        (method, method_size),
        (metadata, metadata_size),
        ret_stream,
    )


def proxy_grpc_send(vm: Vm, token: int, message: int, message_size: int, end_stream: int) -> int:
    """Send a message on a stream, which may be empty; with `end_stream` it is the last one.

    That too many wait for the upstream is no status: the Rust SDK would panic. The stream ends."""
    call = "proxy_grpc_send"
    session = _session(vm, token)

    if session is None:
        return _no_such(vm, call, token)

    if session.unary:
        return vm.refuse(Status.BAD_ARGUMENT, call, f"{token} is a call, not a stream")

    if session.closed_here:
        return vm.refuse(Status.BAD_ARGUMENT, call, f"stream {token} was closed on this side")

    if message_size > limits.MAX_GRPC_CALL_BYTES:
        return _refuse(vm, Status.BAD_ARGUMENT, call, _too_long(message_size))

    try:
        session.stream.send(vm.memory.read(message, message_size), end_stream=bool(end_stream))
    except StoreFull as error:
        vm.log(LogLevel.ERROR, f"{call}: {error}")

    session.closed_here = bool(end_stream)
    return _OK


def proxy_grpc_cancel(vm: Vm, token: int) -> int:
    """Give up a call or stream; nothing of it is delivered any more."""
    session = _session(vm, token)

    if session is None:
        return _no_such(vm, "proxy_grpc_cancel", token)

    session.cancel()
    return _OK


def proxy_grpc_close(vm: Vm, token: int) -> int:
    """Send nothing more on a stream, whose answers still come; of a call, the same as cancel."""
    session = _session(vm, token)

    if session is None:
        return _no_such(vm, "proxy_grpc_close", token)

    if session.unary:
        session.cancel()
    elif not session.closed_here:
        session.closed_here = True
        session.stream.close()

    return _OK


Text = tuple[int, int]
"""The address and size of a guest's bytes."""


def _start(
    vm: Vm,
    call: str,
    upstream: Text,
    service: Text,
    method: Text,
    metadata: Text,
    ret_token: int,
    *,
    message: bytes | None = None,
    timeout: float | None = None,
) -> int:
    """What calls and streams have in common."""
    root = vm.context.root if vm.context is not None else None
    client = vm.services.grpc
    # Nothing is begun before it is certain that the guest can be told the token.
    vm.memory.read(ret_token, 4)
    name = upstream_name(vm.read_at_most(*upstream, limits.MAX_KEY_BYTES))

    if root is None:
        return _fail(vm, call, "there is no root context to answer to")

    if client is None or not client.knows(name):
        shown = name[: limits.MAX_NAME_IN_MESSAGE]
        return _refuse(vm, Status.PARSE_FAILURE, call, f"there is no upstream {shown!r}")

    reason = client.refusal(name)

    if not reason and len(vm.calls) >= limits.MAX_PENDING_CALLS:
        reason = f"{limits.MAX_PENDING_CALLS} calls are under way already"

    if reason:
        return _fail(vm, call, reason)

    try:
        request = GrpcCall(
            plugin=vm.plugin.name,
            upstream=name,
            service=_part(vm, service, _SERVICE),
            method=_part(vm, method, _METHOD),
            metadata=_metadata(vm, call, metadata),
            message=message,
            timeout=timeout,
        )
    except InvalidHeader as error:
        return _refuse(vm, Status.PARSE_FAILURE, call, str(error))

    size = size_of(request.metadata) + len(message or b"")
    held = vm.plugin.under_way.hold(size)

    if held is None:
        return _fail(vm, call, no_room(size))

    vm.memory.write_u32(ret_token, start_session(root, client, request, held))
    return _OK


def _part(vm: Vm, text: Text, pattern: re.Pattern[str]) -> str:
    part = vm.read_at_most(*text, limits.MAX_HEADER_NAME_BYTES).decode("utf-8", "replace")

    if not pattern.fullmatch(part) or text[1] > limits.MAX_HEADER_NAME_BYTES:
        raise InvalidHeader(f"{part[:100]!r} is not the name of a service or method")

    return part


def _metadata(vm: Vm, call: str, metadata: Text) -> tuple[Pair, ...]:
    assert vm.context is not None
    return outgoing_metadata(read_pairs(vm, call, *metadata), vm.context.trace_headers())


def _session(vm: Vm, token: int) -> GrpcSession | None:
    found = vm.calls.get(token)
    return found if isinstance(found, GrpcSession) else None


def _no_such(vm: Vm, call: str, token: int) -> Status:
    return vm.refuse(Status.NOT_FOUND, call, f"there is no gRPC call or stream {token}")


def _too_long(size: int) -> str:
    return f"a message of {size} bytes, more than {limits.MAX_GRPC_CALL_BYTES}"


def _refuse(vm: Vm, status: Status, call: str, reason: str) -> Status:
    """A mistake that somebody must mend: the log says it at its usual level."""
    return vm.refuse(status, call, reason, LogLevel.WARN)


def _fail(vm: Vm, call: str, reason: str) -> Status:
    return vm.refuse(Status.INTERNAL_FAILURE, call, reason, LogLevel.ERROR)
