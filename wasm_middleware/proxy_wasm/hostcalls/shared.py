"""Host calls on what instances share: data, queues, metrics.

Each has caps in `limits`. What goes beyond one is not kept, and the log says so; the answer is one
that SDKs take. So a value that can't be stored is a CasMismatch, the one answer that says so: a
rate limit must not count on what is not there. A queue that can't be registered is one that nobody
knows; a metric that can't be defined takes values, and shows none.
"""

from __future__ import annotations

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, MetricType, Status
from wasm_middleware.errors import GuestError, StoreFailed
from wasm_middleware.proxy_wasm.hostcalls.waiting import answer_with, fail_context
from wasm_middleware.proxy_wasm.ports import StoreFull
from wasm_middleware.proxy_wasm.trace import quoted
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK
_TOO_LONG = f"a key or name has at most {limits.MAX_KEY_BYTES} bytes"
#: The id of a queue that can't be: enqueue and dequeue answer NotFound.
_NO_QUEUE = 0
#: The id of each metric that is not kept: more than any store has room for.
_NO_METRIC = 0xFFFF_FFFE


def proxy_get_shared_data(
    vm: Vm, key: int, key_size: int, ret_value: int, ret_size: int, ret_cas: int
) -> int:
    if key_size > limits.MAX_KEY_BYTES:
        return vm.refuse(Status.NOT_FOUND, "proxy_get_shared_data", _TOO_LONG)

    name = vm.memory.read(key, key_size)

    def give(found: tuple[bytes, int] | None) -> int:
        if found is None:
            # Frequent and normal: not a word about it unless somebody reads it.
            why = f"there is no key {quoted(name)}" if vm.explains else ""
            return vm.refuse(Status.NOT_FOUND, "proxy_get_shared_data", why)

        value, cas = found
        vm.memory.write_u32(ret_cas, cas)
        return vm.give(value, ret_value, ret_size)

    def failed(error: Exception) -> int:
        return _store_failed(vm, Status.NOT_FOUND, "proxy_get_shared_data", error)

    return answer_with(vm.services.shared_data.get(vm.plugin.vm_id, name), give, failed)


def proxy_set_shared_data(
    vm: Vm, key: int, key_size: int, value: int, value_size: int, cas: int
) -> int:
    """`cas` 0 stores in any case; a stale one is CasMismatch."""
    call = "proxy_set_shared_data"

    if key_size > limits.MAX_KEY_BYTES:
        vm.read_at_most(key, key_size, 0)
        return vm.refuse(Status.CAS_MISMATCH, call, _TOO_LONG, LogLevel.ERROR)

    read = vm.memory.read

    def answer(stored: bool) -> int:
        why = f"{cas} is not its number now"
        return _OK if stored else vm.refuse(Status.CAS_MISMATCH, call, why)

    def failed(error: Exception) -> int:
        if isinstance(error, StoreFull):
            return vm.refuse(Status.CAS_MISMATCH, call, str(error), LogLevel.ERROR)

        return _store_failed(vm, Status.CAS_MISMATCH, call, error)

    try:
        return answer_with(
            vm.services.shared_data.set(
                vm.plugin.vm_id, read(key, key_size), read(value, value_size), cas
            ),
            answer,
            failed,
        )
    except StoreFull as error:
        return failed(error)


def _store_failed(vm: Vm, status: Status, call: str, error: Exception) -> int:
    """The request gets its failure policy, and the guest a status that its SDK takes."""
    if isinstance(error, GuestError):
        return fail_context(vm, error, status)

    reason = f"{call}: the shared store failed: {str(error) or type(error).__name__}"
    return fail_context(vm, StoreFailed(reason), status)


def proxy_register_shared_queue(vm: Vm, name: int, name_size: int, ret_queue: int) -> int:
    call = "proxy_register_shared_queue"
    vm.memory.write_u32(ret_queue, _NO_QUEUE)

    if name_size > limits.MAX_KEY_BYTES:
        vm.read_at_most(name, name_size, 0)
        return vm.ignore(call, _TOO_LONG)

    root = vm.context.root if vm.context is not None else None

    if root is None:
        return vm.ignore(call, "there is no root context yet")

    text = vm.memory.read(name, name_size)

    try:
        queue = vm.services.queues.register(vm.plugin.vm_id, text, root.queue_ready)
    except StoreFull as error:
        return vm.ignore(call, str(error))

    root.queues.add(queue)
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
    call = "proxy_enqueue_shared_queue"

    try:
        known = vm.services.queues.enqueue(queue, vm.memory.read(value, value_size))
    except StoreFull as error:
        return vm.refuse(Status.NOT_FOUND, call, str(error), LogLevel.ERROR)

    return _OK if known else vm.refuse(Status.NOT_FOUND, call, f"there is no queue {queue}")


def proxy_dequeue_shared_queue(vm: Vm, queue: int, ret_value: int, ret_size: int) -> int:
    call = "proxy_dequeue_shared_queue"

    try:
        value = vm.services.queues.dequeue(queue)
    except KeyError:
        return vm.refuse(Status.NOT_FOUND, call, f"there is no queue {queue}")

    if value is None:
        return vm.refuse(Status.EMPTY, call, "nothing waits in it")

    return vm.give(value, ret_value, ret_size)


def proxy_define_metric(vm: Vm, kind: int, name: int, name_size: int, ret_metric: int) -> int:
    call = "proxy_define_metric"

    if kind > MetricType.HISTOGRAM:
        return vm.refuse(Status.BAD_ARGUMENT, call, f"there is no metric type {kind}")

    vm.memory.write_u32(ret_metric, _NO_METRIC)

    if name_size > limits.MAX_METRIC_NAME_BYTES:
        vm.read_at_most(name, name_size, 0)
        return vm.ignore(call, f"a name has at most {limits.MAX_METRIC_NAME_BYTES} bytes")

    text = vm.memory.read(name, name_size).decode("utf-8", "replace")

    try:
        metric = vm.services.metrics.define(vm.plugin.name, MetricType(kind), text)
    except StoreFull as error:
        return vm.ignore(call, str(error))

    vm.memory.write_u32(ret_metric, metric)
    return _OK


def proxy_record_metric(vm: Vm, metric: int, value: int) -> int:
    known = vm.services.metrics.record(metric, value % (1 << 64))
    return _OK if known else _no_such_metric(vm, "proxy_record_metric", metric)


def proxy_increment_metric(vm: Vm, metric: int, delta: int) -> int:
    """A counter never goes down: that is ignored, since the Go SDK panics on any status here.

    (The specification and Envoy: BadArgument.)
    """
    call = "proxy_increment_metric"

    try:
        known = vm.services.metrics.increment(metric, delta)
    except ValueError as error:
        if delta < 0:
            return vm.ignore(call, f"{error} ({delta})")

        return vm.refuse(Status.BAD_ARGUMENT, call, str(error))

    return _OK if known else _no_such_metric(vm, call, metric)


def proxy_get_metric(vm: Vm, metric: int, ret_value: int) -> int:
    """Of a histogram it is 0: its Go type has a `Value()`, which panics on Envoy's BadArgument."""
    call = "proxy_get_metric"

    try:
        value = vm.services.metrics.get(metric)
    except ValueError as error:
        vm.memory.write_u64(ret_value, 0)
        return vm.ignore(call, str(error))

    if value is None and metric != _NO_METRIC:
        return _no_such_metric(vm, call, metric)

    vm.memory.write_u64(ret_value, (value or 0) % (1 << 64))
    return _OK


def _no_such_metric(vm: Vm, call: str, metric: int) -> Status:
    if metric == _NO_METRIC:
        return _OK

    return vm.refuse(Status.NOT_FOUND, call, f"there is no metric {metric}")
