"""What guests may call, as one table of named functions; and how an import finds its function.

A host call is a plain function of the VM and the Wasm arguments that returns a status. It reads and
writes guest memory through the VM; a bad pointer raises `MemoryFault`, which the engine answers
with the call's `fault`. One whose answer has to be waited for raises `HostWait` (`waiting`). It
never calls the guest (but its allocator, in `Vm.give`), and never raises otherwise.

Every import links: one from beyond the ABI is logged by name when it is called.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from wasm_middleware.abi.enums import Errno, LogLevel, Status
from wasm_middleware.abi.signatures import ENV, HOST_CALLS, WASI_CALLS, WASI_MODULES
from wasm_middleware.errors import MemoryFault, PluginLoadError
from wasm_middleware.proxy_wasm import wasi
from wasm_middleware.proxy_wasm.hostcalls import (
    buffers,
    callouts,
    foreign,
    grpc,
    headers,
    lifecycle,
    shared,
    streams,
)
from wasm_middleware.proxy_wasm.hostcalls.trace import HostCall, traced
from wasm_middleware.proxy_wasm.ports import HostFunction
from wasm_middleware.proxy_wasm.vm import Vm

IMPLEMENTED: Final[Mapping[str, HostCall]] = {
    name: getattr(topic, name)
    for topic in (lifecycle, headers, buffers, streams, callouts, foreign, grpc, shared)
    for name in HOST_CALLS
    if hasattr(topic, name)
}


def is_known(module: str, name: str) -> bool:
    """Whether an import belongs to the ABI, its extensions, or WASI preview1."""
    return (module == ENV and name in HOST_CALLS) or (module in WASI_MODULES and name in WASI_CALLS)


def resolve(vm: Vm, module: str, name: str, signature: str) -> HostFunction:
    """The function behind an import, bound to a VM.

    Raises `PluginLoadError` where the guest declares a known call with a type that none of its
    versions has: its arguments would be read wrongly.
    """
    if not is_known(module, name):
        return _host_function(vm, module, name, _beyond(vm, module, name))

    call = HOST_CALLS[name] if module == ENV else WASI_CALLS[name]

    if signature and signature not in call.signatures:
        raise PluginLoadError(
            vm.plugin.name,
            f"it imports {name} with the type {signature}, but that is {call.signature}",
            "was it built with an SDK for another interface?",
        )

    if not vm.plugin.allows(name):
        return _host_function(vm, module, name, _not_allowed(vm, module, name))

    return _host_function(vm, module, name, _bind(vm, module, name))


def _host_function(vm: Vm, module: str, name: str, call: HostCall) -> HostFunction:
    fault: Status | Errno = Status.INVALID_MEMORY_ACCESS

    if module in WASI_MODULES:
        fault = Errno.FAULT

    def faulted(error: MemoryFault) -> None:
        vm.refuse(fault, name, str(error))

    if vm.plugin.log_level is LogLevel.TRACE:
        function = IMPLEMENTED.get(name) or wasi.IMPLEMENTED.get(name)
        call = traced(vm, name, call, function, fault)

    return HostFunction(call, fault, faulted, name in vm.services.waiting_calls)


def _bind(vm: Vm, module: str, name: str) -> HostCall:
    implemented = IMPLEMENTED if module == ENV else wasi.IMPLEMENTED

    if name in implemented:
        return functools.partial(implemented[name], vm)

    errno = wasi.ANSWERS.get(name, wasi.DEFAULT_ANSWER)

    def answer(*_arguments: int) -> int:
        return errno and vm.refuse(errno, name, "a plugin has no files, sockets or signals")

    return answer


def _beyond(vm: Vm, module: str, name: str) -> HostCall:
    """An import that nobody specified: the module loads, and the call says so."""
    status = Errno.NOSYS if module in WASI_MODULES else Status.UNIMPLEMENTED
    return _refuse_all(vm, status, f"{module}.{name}", "this host does not have it")


def _not_allowed(vm: Vm, module: str, name: str) -> HostCall:
    """What an operator has forbidden, as in proxy-wasm-cpp-host; most SDKs panic on that."""
    status = Errno.NOTCAPABLE if module in WASI_MODULES else Status.INTERNAL_FAILURE
    return _refuse_all(vm, status, name, "the plugin's allowed_capabilities do not list it")


def _refuse_all(vm: Vm, status: Status | Errno, name: str, reason: str) -> HostCall:
    """Say it as a warning the first time an instance needs it, and at debug level from then on."""
    level = LogLevel.WARN

    def refuse(*_arguments: int) -> int:
        nonlocal level
        now, level = level, LogLevel.DEBUG
        return vm.refuse(status, name, reason, now)

    return refuse
