"""WASI preview1, as far as SDKs need it: nothing here reaches the system.

A guest may write to its log through file descriptors 1 and 2, read the clock and random bytes, read
the environment that its plugin is given, and end itself. There are no files, no directories and no
sockets: each call answers the errno by which libraries learn that (after proxy-wasm-cpp-host's
`exports.cc`), and what it answers is one row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from wasm_middleware import limits
from wasm_middleware.abi.enums import Errno, LogLevel
from wasm_middleware.errors import GuestExit
from wasm_middleware.proxy_wasm.vm import Vm

_STDOUT, _STDERR = 1, 2
_REALTIME, _MONOTONIC = 0, 1
_RIGHT_TO_WRITE = 64
_MAX_IOVECS = 1024


def fd_write(vm: Vm, fd: int, iovecs: int, count: int, ret_written: int) -> int:
    """Standard output is the log at info, standard error at error, line by line."""
    if fd not in (_STDOUT, _STDERR):
        return vm.refuse(Errno.BADF, "fd_write", _no_such_file(fd))

    if count > _MAX_IOVECS:
        return vm.refuse(Errno.INVAL, "fd_write", f"{count} vectors; {_MAX_IOVECS} may be")

    memory = vm.memory
    parts = []
    room = limits.MAX_LOG_BYTES

    for index in range(count):
        address = memory.read_u32(iovecs + 8 * index)
        length = memory.read_u32(iovecs + 8 * index + 4)
        parts.append(memory.read(address, min(length, room)))
        room = max(room - length, 0)

    # Of more than a log line takes, a part is written: libraries then come again with the rest.
    memory.write_u32(ret_written, limits.MAX_LOG_BYTES - room)
    level = LogLevel.INFO if fd == _STDOUT else LogLevel.ERROR
    vm.print(level, b"".join(parts))
    return Errno.SUCCESS


def clock_time_get(vm: Vm, clock: int, _precision: int, ret_time: int) -> int:
    if clock == _REALTIME:
        now = vm.services.clock.now()
    elif clock == _MONOTONIC:
        now = vm.services.clock.monotonic()
    else:
        return vm.refuse(Errno.NOTSUP, "clock_time_get", _no_such_clock(clock))

    vm.memory.write_u64(ret_time, now)
    return Errno.SUCCESS


def clock_res_get(vm: Vm, clock: int, ret_resolution: int) -> int:
    if clock not in (_REALTIME, _MONOTONIC):
        return vm.refuse(Errno.NOTSUP, "clock_res_get", _no_such_clock(clock))

    vm.memory.write_u64(ret_resolution, 1)
    return Errno.SUCCESS


def random_get(vm: Vm, buffer: int, size: int) -> int:
    if size > limits.MAX_RANDOM_BYTES:
        why = f"{size} bytes; {limits.MAX_RANDOM_BYTES} may be"
        return vm.refuse(Errno.INVAL, "random_get", why)

    vm.memory.write(buffer, vm.services.entropy.bytes(size))
    return Errno.SUCCESS


def _environment(vm: Vm) -> list[bytes]:
    entries = (f"{key}={value}\0" for key, value in vm.plugin.environment)
    return [entry.encode("utf-8", "surrogateescape") for entry in entries]


def environ_sizes_get(vm: Vm, ret_count: int, ret_size: int) -> int:
    entries = _environment(vm)
    vm.memory.write_u32(ret_count, len(entries))
    vm.memory.write_u32(ret_size, sum(map(len, entries)))
    return Errno.SUCCESS


def environ_get(vm: Vm, ret_array: int, ret_buffer: int) -> int:
    for index, entry in enumerate(_environment(vm)):
        vm.memory.write_u32(ret_array + 4 * index, ret_buffer)
        vm.memory.write(ret_buffer, entry)
        ret_buffer += len(entry)

    return Errno.SUCCESS


def args_sizes_get(vm: Vm, ret_count: int, ret_size: int) -> int:
    vm.memory.write_u32(ret_count, 0)
    vm.memory.write_u32(ret_size, 0)
    return Errno.SUCCESS


def fd_fdstat_get(vm: Vm, fd: int, ret_stat: int) -> int:
    if fd not in (_STDOUT, _STDERR):
        return vm.refuse(Errno.BADF, "fd_fdstat_get", _no_such_file(fd))

    vm.memory.write(ret_stat, bytes(24))
    vm.memory.write_u64(ret_stat + 8, _RIGHT_TO_WRITE)
    return Errno.SUCCESS


def poll_oneoff(vm: Vm, _in: int, _out: int, _count: int, ret_events: int) -> int:
    """Nothing ever happens. Go's scheduler needs a success here."""
    vm.memory.write_u32(ret_events, 0)
    return Errno.SUCCESS


def proc_exit(_vm: Vm, code: int) -> int:
    raise GuestExit(code)


def _no_such_file(fd: int) -> str:
    return f"there is no file {fd}: a plugin has 1 and 2, which are its log"


def _no_such_clock(clock: int) -> str:
    return f"there is no clock {clock}: a plugin has 0 (realtime) and 1 (monotonic)"


#: What has an answer of its own.
IMPLEMENTED: Final[Mapping[str, Callable[..., int]]] = {
    "args_sizes_get": args_sizes_get,
    "clock_res_get": clock_res_get,
    "clock_time_get": clock_time_get,
    "environ_get": environ_get,
    "environ_sizes_get": environ_sizes_get,
    "fd_fdstat_get": fd_fdstat_get,
    "fd_write": fd_write,
    "poll_oneoff": poll_oneoff,
    "proc_exit": proc_exit,
    "random_get": random_get,
}

#: What has none: the errno that says so in the way libraries expect. BADF ends the search for
#: preopened directories; the rest of the files and sockets is not there.
ANSWERS: Final[Mapping[str, Errno]] = {
    "args_get": Errno.SUCCESS,
    "fd_close": Errno.SUCCESS,
    "fd_filestat_get": Errno.BADF,
    "fd_prestat_get": Errno.BADF,
    "fd_seek": Errno.SUCCESS,
    "path_filestat_get": Errno.NOTSUP,
    "path_open": Errno.NOENT,
    "sched_yield": Errno.SUCCESS,
    "sock_accept": Errno.NOTSUP,
    "sock_recv": Errno.NOTSUP,
    "sock_send": Errno.NOTSUP,
    "sock_shutdown": Errno.NOTSUP,
}
#: And for every call that is in neither table.
DEFAULT_ANSWER: Final = Errno.NOSYS
