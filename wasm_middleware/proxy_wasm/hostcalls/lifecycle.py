"""Host calls about contexts, log, time and configuration."""

from __future__ import annotations

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, Status
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK


def proxy_log(vm: Vm, level: int, message: int, message_size: int) -> int:
    if level > LogLevel.CRITICAL:
        return vm.refuse(Status.BAD_ARGUMENT, "proxy_log", f"there is no log level {level}")

    # Checked before the message is read: most of what guests log is never shown.
    if level >= vm.plugin.log_level:
        vm.log_guest(LogLevel(level), vm.read_log(message, message_size))

    return _OK


def proxy_get_log_level(vm: Vm, ret_level: int) -> int:
    vm.memory.write_u32(ret_level, vm.plugin.log_level)
    return _OK


def proxy_get_current_time_nanoseconds(vm: Vm, ret_time: int) -> int:
    vm.memory.write_u64(ret_time, vm.services.clock.now())
    return _OK


def proxy_set_tick_period_milliseconds(vm: Vm, period: int) -> int:
    """From any context it is the root context's; 0 stops its ticks."""
    root = vm.context.root if vm.context is not None else None

    if root is None:
        return vm.ignore("proxy_set_tick_period_milliseconds", "there is no root context yet")

    root.tick_period = period
    vm.changed()
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
    """End a root context whose `proxy_on_done` answered that it had something left to do.

    Where nothing waits for it, it is ignored: the Rust SDK panics on the specification's NotFound.
    """
    context = vm.context

    if not isinstance(context, RootContext) or not context.done_pending or context.ended:
        return vm.ignore("proxy_done", "no root context here waits for it")

    context.ended = True
    vm.services.background.run(vm.root_done, context)
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


def abort(vm: Vm, message: int = 0, file: int = 0, line: int = 0, column: int = 0) -> None:
    """Log why AssemblyScript's runtime gives up; the guest traps by itself right after."""
    place = f" ({_utf16(vm, file)}:{line}:{column})" if file else ""
    reason = f": {_utf16(vm, message)}" if message else ""
    vm.log_guest(LogLevel.ERROR, f"it aborted{reason}{place}".encode())


def _utf16(vm: Vm, address: int) -> str:
    """A string of AssemblyScript's: its size in bytes stands in front of it."""
    size = vm.memory.read_u32(address - 4) if address >= 4 else 0
    return vm.memory.read(address, min(size, limits.MAX_LOG_BYTES)).decode("utf-16-le", "replace")
