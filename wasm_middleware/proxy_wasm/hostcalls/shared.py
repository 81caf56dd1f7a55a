"""Host calls on what instances share: data, queues, metrics."""

from __future__ import annotations

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, MetricType, Status
from wasm_middleware.proxy_wasm.ports import StoreFull
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK
_TOO_LONG = f"a key or name has at most {limits.MAX_KEY_BYTES} bytes"


def proxy_get_shared_data(
    vm: Vm, key: int, key_size: int, ret_value: int, ret_size: int, ret_cas: int
) -> int:
    if key_size > limits.MAX_KEY_BYTES:
        return vm.refuse(Status.NOT_FOUND, "proxy_get_shared_data", _TOO_LONG)

    found = vm.services.shared_data.get(vm.plugin.vm_id, vm.memory.read(key, key_size))

    if found is None:
        return Status.NOT_FOUND

    value, cas = found
    vm.memory.write_u32(ret_cas, cas)
    return vm.give(value, ret_value, ret_size)


def proxy_set_shared_data(
    vm: Vm, key: int, key_size: int, value: int, value_size: int, cas: int
) -> int:
    """`cas` 0 stores in any case; a stale one is CasMismatch."""
    if key_size > limits.MAX_KEY_BYTES:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_set_shared_data", _TOO_LONG)

    read = vm.memory.read

    try:
        stored = vm.services.shared_data.set(
            vm.plugin.vm_id, read(key, key_size), read(value, value_size), cas
        )
    except StoreFull as error:
        # Rust panics on any status but these two; a mismatch is one that callers handle.
        vm.log(LogLevel.ERROR, f"proxy_set_shared_data: {error}")
        return Status.CAS_MISMATCH

    return _OK if stored else Status.CAS_MISMATCH


def proxy_register_shared_queue(vm: Vm, name: int, name_size: int, ret_queue: int) -> int:
    if name_size > limits.MAX_KEY_BYTES:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_register_shared_queue", _TOO_LONG)

    try:
        queue = vm.services.queues.register(vm.plugin.vm_id, vm.memory.read(name, name_size))
    except StoreFull as error:
        vm.log(LogLevel.ERROR, f"proxy_register_shared_queue: {error}")
        return Status.INTERNAL_FAILURE

    vm.log(LogLevel.WARN, "proxy_on_queue_ready is not delivered by this version: poll the queue")
    vm.memory.write_u32(ret_queue, queue)
    return _OK


def proxy_resolve_shared_queue(
    vm: Vm, vm_id: int, vm_id_size: int, name: int, name_size: int, ret_queue: int
) -> int:
    """An empty `vm_id` is the caller's own."""
    if max(vm_id_size, name_size) > limits.MAX_KEY_BYTES:
        return vm.refuse(Status.NOT_FOUND, "proxy_resolve_shared_queue", _TOO_LONG)

    read = vm.memory.read
    owner = read(vm_id, vm_id_size).decode("utf-8", "replace") or vm.plugin.vm_id
    queue = vm.services.queues.resolve(owner, read(name, name_size))

    if queue is None:
        return vm.refuse(Status.NOT_FOUND, "proxy_resolve_shared_queue", "nobody registered it")

    vm.memory.write_u32(ret_queue, queue)
    return _OK


def proxy_enqueue_shared_queue(vm: Vm, queue: int, value: int, value_size: int) -> int:
    try:
        known = vm.services.queues.enqueue(queue, vm.memory.read(value, value_size))
    except StoreFull as error:
        vm.log(LogLevel.ERROR, f"proxy_enqueue_shared_queue: {error}")
        return Status.NOT_FOUND

    return _OK if known else Status.NOT_FOUND


def proxy_dequeue_shared_queue(vm: Vm, queue: int, ret_value: int, ret_size: int) -> int:
    try:
        value = vm.services.queues.dequeue(queue)
    except KeyError:
        return vm.refuse(Status.NOT_FOUND, "proxy_dequeue_shared_queue", f"no queue {queue}")

    if value is None:
        return Status.EMPTY

    return vm.give(value, ret_value, ret_size)


def proxy_define_metric(vm: Vm, kind: int, name: int, name_size: int, ret_metric: int) -> int:
    if kind > MetricType.HISTOGRAM:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_define_metric", f"no metric type {kind}")

    if name_size > limits.MAX_METRIC_NAME_BYTES:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_define_metric", "the name is too long")

    text = vm.memory.read(name, name_size).decode("utf-8", "replace")

    try:
        metric = vm.services.metrics.define(vm.plugin.name, MetricType(kind), text)
    except StoreFull as error:
        vm.log(LogLevel.ERROR, f"proxy_define_metric: {error}")
        return Status.INTERNAL_FAILURE

    vm.memory.write_u32(ret_metric, metric)
    return _OK


def proxy_record_metric(vm: Vm, metric: int, value: int) -> int:
    known = vm.services.metrics.record(metric, value % (1 << 64))
    return _OK if known else _no_such_metric(vm, "proxy_record_metric", metric)


def proxy_increment_metric(vm: Vm, metric: int, delta: int) -> int:
    try:
        known = vm.services.metrics.increment(metric, delta)
    except ValueError as error:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_increment_metric", str(error))

    return _OK if known else _no_such_metric(vm, "proxy_increment_metric", metric)


def proxy_get_metric(vm: Vm, metric: int, ret_value: int) -> int:
    try:
        value = vm.services.metrics.get(metric)
    except ValueError as error:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_get_metric", str(error))

    if value is None:
        return _no_such_metric(vm, "proxy_get_metric", metric)

    vm.memory.write_u64(ret_value, value % (1 << 64))
    return _OK


def _no_such_metric(vm: Vm, call: str, metric: int) -> int:
    return vm.refuse(Status.NOT_FOUND, call, f"there is no metric {metric}")
