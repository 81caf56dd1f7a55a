"""The foreign functions of a generation: Envoy's that work on bytes alone, and the application's.

`compress` and `uncompress` are zlib's format (RFC 1950). `verify_signature` and `sign` are in
`services.signatures`, where the library `cryptography` is installed. Those that act on a request
are in `proxy_wasm.foreign`. Names and arguments are those of Envoy's
`source/extensions/common/wasm/foreign.cc`.
"""

from __future__ import annotations

import inspect
import logging
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

import anyio
import anyio.to_thread

from wasm_middleware import limits
from wasm_middleware.abi.enums import Status
from wasm_middleware.config.units import format_duration
from wasm_middleware.proxy_wasm.foreign import CONTEXT_FUNCTIONS
from wasm_middleware.proxy_wasm.ports import ForeignCallRefused, ForeignFunction, deferred

_LOG = logging.getLogger("wasm_middleware")
#: Bytes for which zlib takes a millisecond; zeros become a thousand times as many.
_QUICKLY_COMPRESSED, _QUICKLY_UNCOMPRESSED = 64 * limits.KIB, 256
#: Bytes of which a hash takes some 0.1 ms.
_QUICKLY_HASHED = 64 * limits.KIB
_Plain = Callable[[bytes], bytes]
_NEED_CRYPTOGRAPHY = ("sign", "verify_signature")


def foreign_functions(
    given: Mapping[str, ForeignFunction], *, may_wait: bool = False
) -> dict[str, ForeignFunction]:
    """All functions by name; one of the application's takes the place of one of ours.

    Where a call `may_wait`, what takes long does not hold up the event loop.
    """
    built_in: dict[str, ForeignFunction] = {"compress": compress, "uncompress": uncompress}

    if may_wait:
        built_in = {
            "compress": _off_the_loop(compress, _QUICKLY_COMPRESSED),
            "uncompress": _off_the_loop(uncompress, _QUICKLY_UNCOMPRESSED),
        }

    signatures = _signatures()
    built_in.update(signatures)

    if may_wait:
        # A key is checked when it is first used, which takes up to 290 ms.
        built_in["sign"] = _off_the_loop(signatures["sign"], 0)
        verify = signatures["verify_signature"]
        built_in["verify_signature"] = _off_the_loop(verify, _QUICKLY_HASHED)

    for name in given:
        if name in built_in or name in CONTEXT_FUNCTIONS:
            _LOG.debug("the application's foreign function %r takes the built-in one's place", name)

    in_time = {
        name: _in_time(function)
        for name, function in given.items()
        if isinstance(function, deferred)
    }
    return {**built_in, **given, **in_time}


def _in_time(function: deferred) -> deferred:
    """The same; it fails when it takes longer than `limits` allows.

    What it was given is kept until it ends, and that is not the plugin's to say.
    """

    async def call(arguments: bytes) -> bytes:
        seconds = limits.MAX_DEFERRED_TIME

        with anyio.move_on_after(seconds):
            result = function(arguments)
            return await result if inspect.isawaitable(result) else result

        reason = f"it took longer than {format_duration(seconds)}"
        raise ForeignCallRefused(Status.INTERNAL_FAILURE, reason)

    return deferred(call)


def _off_the_loop(function: _Plain, quick: int) -> ForeignFunction:
    """The same, on a worker thread where it is given more than `quick` bytes."""

    def call(arguments: bytes) -> bytes | Awaitable[bytes]:
        if len(arguments) <= quick:
            return function(arguments)

        return anyio.to_thread.run_sync(function, arguments)

    return call


def compress(arguments: bytes) -> bytes:
    """Compress to zlib's format, at zlib's default level."""
    return zlib.compress(arguments)


def uncompress(arguments: bytes) -> bytes:
    """Take zlib's format apart; SerializationFailure where it is not, is cut off, or a bomb.

    What follows the end is ignored, as zlib's `uncompress` does.
    """
    decompressor = zlib.decompressobj()

    try:
        result = decompressor.decompress(arguments, limits.MAX_FOREIGN_RESULT_BYTES + 1)
    except zlib.error as error:
        raise ForeignCallRefused(Status.SERIALIZATION_FAILURE, str(error)) from error

    if len(result) > limits.MAX_FOREIGN_RESULT_BYTES:
        reason = f"it has more than {limits.MAX_FOREIGN_RESULT_BYTES} bytes"
        raise ForeignCallRefused(Status.SERIALIZATION_FAILURE, reason)

    if not decompressor.eof:
        raise ForeignCallRefused(Status.SERIALIZATION_FAILURE, "it is cut off")

    return result


def _signatures() -> dict[str, _Plain]:
    try:
        # Not at the top: it takes as long to import as the rest of this package.
        from wasm_middleware.services import signatures
    except ImportError as error:
        return {name: _missing(name, error) for name in _NEED_CRYPTOGRAPHY}

    signer = signatures.Signer()
    return {"sign": signer.sign, "verify_signature": signatures.verify_signature}


def _missing(name: str, error: ImportError) -> _Plain:
    """A function that says, once for all to see, what would bring it."""
    level = logging.WARNING

    def missing(_arguments: bytes) -> NoReturn:
        nonlocal level
        reason = f"it needs {error.name}: pip install 'wasm-middleware[crypto]'"
        _LOG.log(level, "a plugin called %r, which is not there: %s", name, reason)
        level = logging.DEBUG
        raise ForeignCallRefused(Status.NOT_FOUND, reason)

    return missing
