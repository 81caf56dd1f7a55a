"""Host calls on buffers."""

from __future__ import annotations

from wasm_middleware.abi.enums import BufferType, Status
from wasm_middleware.proxy_wasm.buffers import EMPTY
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK

_LAST_BUFFER = BufferType.FOREIGN_FUNCTION_ARGUMENTS
#: What a guest may change; the rest is read-only, as in Envoy.
_WRITABLE = (
    BufferType.HTTP_REQUEST_BODY,
    BufferType.HTTP_RESPONSE_BODY,
    BufferType.DOWNSTREAM_DATA,
    BufferType.UPSTREAM_DATA,
)
_NAMES = [buffer_type.name.lower().replace("_", " ") for buffer_type in BufferType]


def proxy_get_buffer_bytes(
    vm: Vm, buffer_type: int, start: int, max_size: int, ret_data: int, ret_size: int
) -> int:
    """At most `max_size` bytes from `start`; nothing, with OK, where that is beyond the end."""
    if buffer_type > _LAST_BUFFER:
        return _no_such_buffer(vm, "proxy_get_buffer_bytes", buffer_type)

    buffer = vm.context.buffer(buffer_type) if vm.context is not None else None

    if buffer is None:
        return vm.refuse(Status.NOT_FOUND, "proxy_get_buffer_bytes", _not_now(buffer_type))

    return vm.give(buffer.get(start, max_size), ret_data, ret_size)


def proxy_get_buffer_status(vm: Vm, buffer_type: int, ret_size: int, ret_unused: int) -> int:
    if buffer_type > _LAST_BUFFER:
        return _no_such_buffer(vm, "proxy_get_buffer_status", buffer_type)

    buffer = vm.context.buffer(buffer_type) if vm.context is not None else None

    if buffer is None:
        return vm.refuse(Status.NOT_FOUND, "proxy_get_buffer_status", _not_now(buffer_type))

    vm.memory.write_u32(ret_size, len(buffer))
    vm.memory.write_u32(ret_unused, 0)
    return _OK


def proxy_set_buffer_bytes(
    vm: Vm, buffer_type: int, start: int, size: int, value: int, value_size: int
) -> int:
    """Prepend, append, inject or replace.

    See `Buffer.splice`. The Rust SDK knows no other answer than OK. So what can't be written, or
    not now, is ignored (Envoy: BadArgument, or NotFound); and a body that would grow beyond
    `body_limit` ends its stream, as one that is gathered does: it must not go on without the
    change.
    """
    call = "proxy_set_buffer_bytes"

    if buffer_type > _LAST_BUFFER:
        return _no_such_buffer(vm, call, buffer_type)

    if buffer_type not in _WRITABLE:
        return vm.ignore(call, f"the {_NAMES[buffer_type]} is read-only")

    context = vm.context
    buffer = context.buffer(buffer_type) if context is not None else None

    if context is None or buffer is None or buffer is EMPTY:
        return vm.ignore(call, _not_now(buffer_type))

    limit, present = vm.plugin.body_limit, len(buffer)
    removed = min(size, max(present - start, 0))

    if present - removed + value_size > max(limit, present):
        vm.read_at_most(value, value_size, 0)
        context.body_limit_exceeded(buffer_type)
        return vm.ignore(call, f"the {_NAMES[buffer_type]} would have more than {limit} bytes")

    buffer.splice(start, size, vm.memory.read(value, value_size))
    return _OK


def _no_such_buffer(vm: Vm, call: str, buffer_type: int) -> int:
    return vm.refuse(Status.BAD_ARGUMENT, call, f"there is no buffer {buffer_type}")


def _not_now(buffer_type: int) -> str:
    return f"there is no {_NAMES[buffer_type]} at this moment"
