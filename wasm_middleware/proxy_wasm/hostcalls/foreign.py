"""The host call that reaches functions of the application's, and Envoy's, by name.

A function runs inside the call and its result is the call's; while one that is asynchronous is
awaited, the guest is left alone. One that is `deferred` runs in the background: the call answers
with an id (4 bytes, little-endian), and the result comes through `proxy_on_foreign_function` on the
plugin's root context, with the id. That is how nginx's host does it for `resolve_lua`. A failure
comes as no bytes with a status.

Whose mistake it was decides the status: NotFound for a name, BadArgument for a `ValueError`,
InternalFailure for anything else that the function raises, be it the end of a task or of the
process: that is not a plugin's to bring about. Only Ctrl-C goes through. The Rust SDK takes just
these and SerializationFailure.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable

from wasm_middleware import limits
from wasm_middleware.abi.enums import BufferType, LogLevel, Status
from wasm_middleware.proxy_wasm.buffers import Buffer
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.foreign import CONTEXT_FUNCTIONS
from wasm_middleware.proxy_wasm.hostcalls.waiting import wait_for
from wasm_middleware.proxy_wasm.ports import Cancel, ForeignCallRefused, deferred
from wasm_middleware.proxy_wasm.underway import Held, no_room
from wasm_middleware.proxy_wasm.vm import Vm

#: A function that fails concerns its owner: a plugin's own log level does not hide that.
_LOG = logging.getLogger("wasm_middleware")
_CALL = "proxy_call_foreign_function"
_CALLBACK = "proxy_on_foreign_function"
_ID_BYTES = 4
#: What a function may answer beside a result: the Rust SDK panics on the rest.
_REFUSALS = (
    Status.NOT_FOUND,
    Status.BAD_ARGUMENT,
    Status.SERIALIZATION_FAILURE,
    Status.INTERNAL_FAILURE,
)
#: Characters of a reason that a guest is told.
_MAX_WHY = 1000


def proxy_call_foreign_function(
    vm: Vm,
    name: int,
    name_size: int,
    arguments: int,
    arguments_size: int,
    ret_results: int,
    ret_results_size: int,
) -> int:
    if name_size > limits.MAX_FOREIGN_NAME_BYTES:
        return vm.refuse(Status.NOT_FOUND, _CALL, f"a name of {name_size} bytes")

    if arguments_size > limits.MAX_FOREIGN_ARGUMENTS_BYTES:
        return vm.refuse(Status.BAD_ARGUMENT, _CALL, f"{arguments_size} bytes of arguments")

    memory = vm.memory
    text = memory.read(name, name_size).decode("utf-8", "replace")
    given = memory.read(arguments, arguments_size)
    # Nothing is done before it is certain that the guest can be told the result.
    memory.read(ret_results, _ID_BYTES)
    memory.read(ret_results_size, _ID_BYTES)

    def answer(result: bytes | BaseException) -> int:
        if not isinstance(result, BaseException):
            return vm.give(result, ret_results, ret_results_size)

        status, why = _explain(vm, text, vm.phase, result)
        return vm.refuse(status, _CALL, f"{text!r}: {why}")

    try:
        result = _call(vm, text, given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return answer(error)

    if not isinstance(result, bytes):
        wait_for(vm, result, _outcome, answer, Status.INTERNAL_FAILURE)

    return answer(result)


def _call(vm: Vm, name: str, arguments: bytes) -> bytes | Awaitable[object]:
    """The result, what it has to be waited for, or the id under which it will come."""
    function = vm.services.foreign_functions.get(name)

    if function is None:
        return _call_on_context(vm, name, arguments)

    if isinstance(function, deferred):
        # Called in the background: what is not begun need not be ended.
        call = functools.partial(_call_later, function, arguments)
        return _begin(vm, name, call, len(arguments))

    result: object = function(arguments)

    if not inspect.isawaitable(result):
        return _checked(result)

    if _CALL in vm.services.waiting_calls:
        return result

    if inspect.iscoroutine(result):
        result.close()

    raise NotImplementedError("it is asynchronous, and calls can't wait here: make it deferred()")


async def _call_later(function: deferred, arguments: bytes) -> object:
    result: object = function(arguments)
    return await result if inspect.isawaitable(result) else result


async def _outcome(result: Awaitable[object]) -> bytes | BaseException:
    """What comes of an asynchronous function; what it raises is an outcome too."""
    try:
        return _checked(await result)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        return error


def _call_on_context(vm: Vm, name: str, arguments: bytes) -> bytes:
    function = CONTEXT_FUNCTIONS.get(name)

    if function is None:
        there = sorted({*vm.services.foreign_functions, *CONTEXT_FUNCTIONS})
        raise ForeignCallRefused(Status.NOT_FOUND, f"there are {', '.join(there)}")

    if vm.context is None:
        raise ForeignCallRefused(Status.NOT_FOUND, "there is no context yet")

    return function(vm.context, arguments)


def _checked(result: object) -> bytes:
    if result is None:
        return b""

    if not isinstance(result, bytes | bytearray | memoryview):
        raise TypeError(f"a foreign function returns bytes, not {type(result).__name__}")

    size = memoryview(result).nbytes

    if size > limits.MAX_FOREIGN_RESULT_BYTES:
        raise OverflowError(f"a result of {size} bytes: {limits.MAX_FOREIGN_RESULT_BYTES} may be")

    return bytes(result)


def _begin(vm: Vm, name: str, call: Callable[[], Awaitable[object]], size: int) -> bytes:
    """Have an asynchronous function run in the background; its id. `size` is its arguments'."""
    root = vm.context.root if vm.context is not None else None

    if root is None:
        raise ForeignCallRefused(Status.NOT_FOUND, "there is no root context to answer to")

    if len(vm.calls) >= limits.MAX_PENDING_CALLS:
        reason = f"{limits.MAX_PENDING_CALLS} calls are under way already"
        raise ForeignCallRefused(Status.INTERNAL_FAILURE, reason)

    held = vm.plugin.under_way.hold(size)

    if held is None:
        vm.log(LogLevel.ERROR, f"{name!r} is not called: {no_room(size)}")
        raise ForeignCallRefused(Status.INTERNAL_FAILURE, no_room(size))

    if vm.callbacks.deliveries[_CALLBACK] is None:
        vm.log(LogLevel.WARN, f"{name!r} answers later, but the plugin has no {_CALLBACK}")

    late = _LateAnswer(vm, root, name, held)
    late.stop = vm.services.background.start(late.run, call)
    vm.calls[late.token] = late
    return late.token.to_bytes(_ID_BYTES, "little")


class _LateAnswer:
    """Fulfils `PendingCall`: one asynchronous function that runs."""

    __slots__ = ("held", "name", "phase", "root", "stop", "token", "vm")

    stop: Cancel

    def __init__(self, vm: Vm, root: RootContext, name: str, held: Held) -> None:
        self.vm, self.root, self.name, self.held = vm, root, name, held
        self.phase = vm.phase
        self.token = vm.new_token()

    def cancel(self) -> None:
        self.held.release()
        self.stop()

    @property
    def _is_awaited(self) -> bool:
        return self.vm.calls.get(self.token) is self

    def _forget(self) -> None:
        del self.vm.calls[self.token]
        self.held.release()

    async def run(self, call: Callable[[], Awaitable[object]]) -> None:
        vm = self.vm
        status, why = Status.OK, ""

        try:
            result = _checked(await call())
        except (KeyboardInterrupt, GeneratorExit):
            if self._is_awaited:
                self._forget()

            raise
        except BaseException as error:
            # Cancelled by us, it is not awaited any more; by anybody else, it has failed.
            if not (self._is_awaited or isinstance(error, Exception)):
                raise

            result = b""
            status, why = _explain(vm, self.name, self.phase, error)
            vm.log(LogLevel.WARN, f"{_CALLBACK}: {self.name!r} gave no result: {why}")

        # The instance may have failed, or been unloaded, in the meantime.
        if not self._is_awaited:
            return

        self._forget()
        delivery = Delivery(
            _CALLBACK,
            (self.token, len(result)),
            buffers={BufferType.FOREIGN_FUNCTION_ARGUMENTS: Buffer(result)},
            status=(status, why[:_MAX_WHY].encode("utf-8", "replace")),
        )
        await vm.deliver(self.root, delivery)


def _explain(vm: Vm, name: str, phase: str, error: BaseException) -> tuple[Status, str]:
    """The status that stands for a failure, and what a guest may know of it.

    What a function has not raised on purpose is for its owner's eyes, with its traceback.
    """
    if isinstance(error, ForeignCallRefused) and error.status in _REFUSALS:
        return error.status, str(error)

    if isinstance(error, ValueError):
        return Status.BAD_ARGUMENT, str(error)

    if vm.admits(logging.ERROR, limits.TRACEBACK_LINES):
        _LOG.error(
            "plugin %r: the foreign function %r, called in %s, failed",
            vm.plugin.name,
            name,
            phase,
            exc_info=error,
            extra={"plugin": vm.plugin.name, "phase": phase},
        )

    return Status.INTERNAL_FAILURE, "it failed"
