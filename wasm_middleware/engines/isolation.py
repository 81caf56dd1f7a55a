"""Compiling in a process of its own, for modules that nobody vouches for.

Theory of operation
-------------------
A compiler's work has no bound in the size of what it compiles: a module of 22 KB, loops within
loops over many locals, keeps Cranelift busy for minutes, and a thread that compiles can't be
stopped. A process can. It is given the module on its standard input and answers with the compiled
code on its standard output; the kernel ends it beyond its processor time and its memory, and this
side beyond its time on the wall. What comes back was made by the same compiler with the same
settings. What compiles is `compile_code` of an engine's own module, named by `server`; what it is
given beside the module, and what it says beside the code, is that module's own affair.

It is the interpreter that runs here, on the same `sys.path`, isolated from everything else: it has
none of this process's environment, and writes no files.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

from wasm_middleware import limits
from wasm_middleware.engines.module_info import ModuleFormatError

#: What the process says of itself: the module is not valid, and standard error says why.
_INVALID = 65
#: All that it gets of this environment: where libraries are.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
#: Threads that compile, and heaps: each takes of the address space that is limited.
_FRUGAL = {"RAYON_NUM_THREADS": "4", "MALLOC_ARENA_MAX": "4"}
_START = f"""
import sys
server, seconds, memory, *sys.path = sys.argv[1:]
from {__name__} import serve
serve(server, int(seconds), int(memory))
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What compiling one module may take."""

    #: Seconds, of the processor's time and on the wall.
    time: int = limits.MAX_COMPILE_TIME
    #: Bytes of address space; only Linux keeps to it.
    memory: int = limits.MAX_COMPILE_MEMORY


class CompilationFailed(ModuleFormatError):
    """It could not be compiled within its bounds."""


def compile_isolated(server: str, question: bytes, bounds: Bounds) -> bytes:
    """What `compile_code` of the module `server` answers in another process.

    Blocks. Raises `ModuleFormatError`, and `CompilationFailed` where it takes too much.
    """
    paths = [os.path.abspath(entry) for entry in sys.path]

    if not sys.executable:
        raise CompilationFailed("this Python does not know its own program, to compile it apart")

    command = [sys.executable, "-I", "-B", "-c", _START]
    command += [server, str(bounds.time), str(bounds.memory)]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}

    try:
        done = subprocess.run(
            command + paths,
            input=question,
            capture_output=True,
            timeout=bounds.time,
            env=environment | _FRUGAL,
        )
    except subprocess.TimeoutExpired:
        raise _too_slow(bounds) from None
    except OSError as error:
        raise CompilationFailed(f"no process could be started to compile it: {error}") from error

    if done.returncode:
        raise _failure(done.returncode, done.stderr.decode("utf-8", "replace"), bounds)

    return done.stdout


def _failure(code: int, said: str, bounds: Bounds) -> ModuleFormatError:
    lines = [line[: limits.MAX_NAME_IN_MESSAGE] for line in said.strip().splitlines()] or [
        "nothing"
    ]

    if code == _INVALID:
        return ModuleFormatError(lines[-1])

    if code == -signal.SIGXCPU:
        return _too_slow(bounds)

    # Rust aborts when it gets no memory, or no memory for a thread; Python says so.
    if code == -signal.SIGABRT or lines[-1] == "MemoryError":
        mib = bounds.memory // limits.MIB
        return CompilationFailed(f"compiling it takes more than {mib} MB of memory ({lines[0]})")

    return CompilationFailed(f"the process that compiled it ended with {code}: {lines[-1]}")


def _too_slow(bounds: Bounds) -> CompilationFailed:
    return CompilationFailed(f"compiling it takes longer than {bounds.time} s")


def serve(server: str, seconds: int, memory: int) -> None:
    """What the process does."""
    # Whatever else prints something is no part of the answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    compile_code = importlib.import_module(server).compile_code
    _limit(seconds, memory)

    try:
        code = compile_code(sys.stdin.buffer.read())
    except ModuleFormatError as error:
        print(error, file=sys.stderr)
        sys.exit(_INVALID)

    with answers:
        answers.write(code)


def _limit(seconds: int, memory: int) -> None:
    # Not at the top: there is none on Windows.
    import resource

    _lower(resource.RLIMIT_CPU, seconds)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)

    if sys.platform == "linux":
        _lower(resource.RLIMIT_AS, memory)


def _lower(kind: int, most: int) -> None:
    """The soft limit alone for time: SIGXCPU tells it from other ends."""
    import resource

    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


__all__ = ["Bounds", "CompilationFailed", "compile_isolated"]
