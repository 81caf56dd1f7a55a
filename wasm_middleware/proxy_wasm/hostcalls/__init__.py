"""What guests may call, as one table of named functions; and how an import finds its function.

A host call is a plain function of the VM and the Wasm arguments that returns a status. It reads and
writes guest memory through the VM; a bad pointer raises `MemoryFault`, which the engine answers
with the call's `fault`. It never calls the guest (but its allocator, in `Vm.give`), never waits,
and never raises otherwise.

Every import links. What is not implemented answers a status that the SDKs accept and says why in
the log; an import from beyond the ABI is logged by name when it is called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Final

from wasm_middleware.abi.enums import Errno, LogLevel, Status
from wasm_middleware.abi.signatures import ENV, HOST_CALLS, WASI_CALLS, WASI_MODULES
from wasm_middleware.errors import PluginLoadError
from wasm_middleware.proxy_wasm import wasi
from wasm_middleware.proxy_wasm.hostcalls import buffers, headers, lifecycle, shared, streams
from wasm_middleware.proxy_wasm.ports import HostFunction
from wasm_middleware.proxy_wasm.vm import Vm

HostCall = Callable[..., int | None]

IMPLEMENTED: Final[Mapping[str, HostCall]] = {
    name: getattr(topic, name)
    for topic in (lifecycle, headers, buffers, streams, shared)
    for name in HOST_CALLS
    if hasattr(topic, name)
}

#: What is not implemented yet, with the status that the SDKs take for it.
NOT_YET: Final[Mapping[str, Status]] = {
    "proxy_http_call": Status.INTERNAL_FAILURE,
    "proxy_dispatch_http_call": Status.INTERNAL_FAILURE,
    "proxy_grpc_call": Status.INTERNAL_FAILURE,
    "proxy_grpc_stream": Status.INTERNAL_FAILURE,
    "proxy_grpc_send": Status.NOT_FOUND,
    "proxy_grpc_cancel": Status.NOT_FOUND,
    "proxy_grpc_close": Status.NOT_FOUND,
    "proxy_call_foreign_function": Status.NOT_FOUND,
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
        return HostFunction(_beyond(vm, module, name), Status.UNIMPLEMENTED)

    call = HOST_CALLS[name] if module == ENV else WASI_CALLS[name]

    if signature and signature not in call.signatures:
        raise PluginLoadError(
            vm.plugin.name,
            f"it imports {name} with the type {signature}, but that is {call.signature}",
            "was it built with an SDK for another interface?",
        )

    if not vm.plugin.allows(name):
        return HostFunction(_not_allowed(vm, module, name), Status.INTERNAL_FAILURE)

    if module == ENV:
        return HostFunction(_bind(vm, name), Status.INVALID_MEMORY_ACCESS)

    return HostFunction(_bind_wasi(vm, name), Errno.FAULT)


def _bind(vm: Vm, name: str) -> HostCall:
    if name in IMPLEMENTED:
        return functools.partial(IMPLEMENTED[name], vm)

    status = NOT_YET[name]

    warn = _warn_once(vm, f"{name} is not available in this version of wasm-middleware")

    def not_yet(*_arguments: int) -> int:
        warn()
        return status

    return not_yet


def _bind_wasi(vm: Vm, name: str) -> HostCall:
    if name in wasi.IMPLEMENTED:
        return functools.partial(wasi.IMPLEMENTED[name], vm)

    errno = wasi.ANSWERS.get(name, wasi.DEFAULT_ANSWER)

    def answer(*_arguments: int) -> int:
        if errno is wasi.DEFAULT_ANSWER:
            vm.log_refusal(name, "a plugin has no files and no sockets")

        return errno

    return answer


def _beyond(vm: Vm, module: str, name: str) -> HostCall:
    """An import that nobody specified: the module loads, and the call says so."""
    status = Errno.NOSYS if module in WASI_MODULES else Status.UNIMPLEMENTED

    warn = _warn_once(vm, f"it called {module}.{name}, which this host does not have")

    def beyond(*_arguments: int) -> int:
        warn()
        return status

    return beyond


def _not_allowed(vm: Vm, module: str, name: str) -> HostCall:
    status = Errno.NOTCAPABLE if module in WASI_MODULES else Status.INTERNAL_FAILURE

    warn = _warn_once(vm, f"it called {name}, which its allowed_capabilities do not list")

    def not_allowed(*_arguments: int) -> int:
        warn()
        return status

    return not_allowed


def _warn_once(vm: Vm, message: str) -> Callable[[], None]:
    """Say it as a warning the first time an instance needs it, and at debug level from then on."""
    level = LogLevel.WARN

    def warn() -> None:
        nonlocal level
        vm.log(level, f"plugin {vm.plugin.name!r}: {message}")
        level = LogLevel.DEBUG

    return warn
