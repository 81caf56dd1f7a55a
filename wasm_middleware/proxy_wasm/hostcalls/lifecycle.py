"""Host calls about contexts, log, time and configuration."""

from __future__ import annotations

from wasm_middleware.abi.enums import LogLevel, Status
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK


def proxy_log(vm: Vm, level: int, message: int, size: int) -> int:
    if level > LogLevel.CRITICAL:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_log", f"there is no log level {level}")

    # Checked before the message is read: most of what guests log is never shown.
    if level >= vm.plugin.log_level:
        vm.log_guest(LogLevel(level), vm.read_log(message, size))

    return _OK


def proxy_get_log_level(vm: Vm, ret_level: int) -> int:
    vm.memory.write_u32(ret_level, vm.plugin.log_level)
    return _OK


def proxy_get_current_time_nanoseconds(vm: Vm, ret_time: int) -> int:
    vm.memory.write_u64(ret_time, vm.services.clock.now())
    return _OK


def proxy_set_tick_period_milliseconds(vm: Vm, period: int) -> int:
    if period and not vm.tick_period:
        vm.log(LogLevel.WARN, "proxy_on_tick is not called by this version of wasm-middleware")

    vm.tick_period = period
    return _OK


def proxy_set_effective_context(vm: Vm, context_id: int) -> int:
    context = vm.contexts.get(context_id)

    if context is None:
        return vm.refuse(
            Status.BAD_ARGUMENT, "proxy_set_effective_context", f"there is no context {context_id}"
        )

    vm.context = context
    return _OK


def proxy_done(vm: Vm) -> int:
    """End a root context whose `proxy_on_done` answered that it had something left to do."""
    context = vm.context

    if not isinstance(context, RootContext) or not context.done_pending:
        return vm.refuse(Status.NOT_FOUND, "proxy_done", "nothing waits for it")

    context.done_pending = False
    return _OK


def proxy_get_configuration(vm: Vm, ret_value: int, ret_size: int) -> int:
    """0.1.0: the VM's configuration while it starts, the plugin's from then on."""
    if vm.phase == "on_vm_start" or vm.context is None or vm.context.root is None:
        return vm.give(vm.plugin.vm_config, ret_value, ret_size)

    return vm.give(vm.context.root.config, ret_value, ret_size)


def pthread_equal(_vm: Vm, left: int, right: int) -> int:
    """Emscripten's libc++ imports it; there is one thread."""
    return int(left == right)


def emscripten_notify_memory_growth(_vm: Vm, _memory: int) -> None:
    """Emscripten tells JavaScript that its views are stale; ours are checked at each use."""
