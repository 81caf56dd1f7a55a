"""Host calls on buffers."""

from __future__ import annotations

from wasm_middleware.abi.enums import BufferType, LogLevel, Status
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
    """Prepend, append, inject or replace; see `Buffer.splice`."""
    if buffer_type not in _WRITABLE:
        return vm.refuse(
            Status.BAD_ARGUMENT, "proxy_set_buffer_bytes", f"buffer {buffer_type} is read-only"
        )

    buffer = vm.context.buffer(buffer_type) if vm.context is not None else None

    if buffer is None:
        return vm.refuse(Status.NOT_FOUND, "proxy_set_buffer_bytes", _not_now(buffer_type))

    limit, present = vm.plugin.body_limit, len(buffer)
    removed = min(size, max(present - start, 0))

    if present - removed + value_size > max(limit, present):
        vm.log(LogLevel.ERROR, f"proxy_set_buffer_bytes: refused: more than {limit} bytes")
        return Status.BAD_ARGUMENT

    buffer.splice(start, size, vm.memory.read(value, value_size))
    return _OK


def _no_such_buffer(vm: Vm, call: str, buffer_type: int) -> int:
    return vm.refuse(Status.BAD_ARGUMENT, call, f"there is no buffer {buffer_type}")


def _not_now(buffer_type: int) -> str:
    name = BufferType(buffer_type).name.lower().replace("_", " ")
    return f"there is no {name} at this moment"
