"""A gRPC call or stream of a guest: what is checked on its way out, and what comes back.

Theory of operation
-------------------
A *call* is unary: one message out, and one callback back, `proxy_on_grpc_receive` with the answer
or `proxy_on_grpc_close` with what went wrong. Never both: the SDKs forget a call's token with the
first (Envoy, `Context::onGrpcReceiveWrapper`). It has no metadata callbacks.

A *stream* gets initial metadata, messages, trailing metadata, and `proxy_on_grpc_close` last, once,
with the status: always all four kinds but the messages, in that order, metadata that is empty too.

Both are known by a token in `Vm.calls`; what is not there any more (ended, cancelled, its instance
lost) is delivered no further. Everything goes to the root context: the stream of HTTP that made the
call may be gone, and the SDKs find their own way back to it.

Metadata is what stands on the wire, as in Envoy: a value whose name ends in `-bin` is base64 for
the guest, both ways (gRPC over HTTP/2, "Custom-Metadata"), and its plain bytes for the client.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from wasm_middleware import limits
from wasm_middleware.abi.enums import BufferType, MapType
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.abi.protobuf import ProtobufError, decode
from wasm_middleware.proxy_wasm.buffers import Buffer
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.headers import HeaderMap, InvalidHeader, check_value
from wasm_middleware.proxy_wasm.ports import GrpcCall, GrpcClient, GrpcStream
from wasm_middleware.proxy_wasm.underway import Held

if TYPE_CHECKING:
    from wasm_middleware.proxy_wasm.context import RootContext

#: gRPC over HTTP/2, "Custom-Metadata": Header-Name and ASCII-Value.
_NAME = re.compile(rb"[0-9a-z_.-]+")
_ASCII = re.compile(rb"[ -~]*")
#: What the protocol or its library writes by itself.
_RESERVED = frozenset(
    b"connection content-length content-type host keep-alive proxy-connection te trailer"
    b" transfer-encoding upgrade user-agent".split()
)
_BINARY = b"-bin"
_OK = (0, b"")


class GrpcSession:
    """One call or stream: the client's `GrpcEvents`, the VM's `PendingCall`."""

    __slots__ = ("_call", "_held", "_root", "_token", "closed_here", "stream")

    stream: GrpcStream

    def __init__(self, root: RootContext, token: int, call: GrpcCall, held: Held) -> None:
        self._held = held
        self._root = root
        self._token = token
        self._call = call
        #: The guest has said that it sends nothing more.
        self.closed_here = False

    @property
    def unary(self) -> bool:
        return self._call.message is not None

    async def initial_metadata(self, metadata: Sequence[Pair]) -> None:
        await self._metadata(
            "proxy_on_grpc_receive_initial_metadata", MapType.GRPC_CALL_INITIAL_METADATA, metadata
        )

    async def message(self, message: bytes) -> None:
        """A stream's next message; or a call's answer, which is its end."""
        if self.unary and self._end():
            await self._message(message, _OK)
        elif not self.unary and self._is_open:
            await self._message(message, None)

    async def trailing_metadata(self, metadata: Sequence[Pair]) -> None:
        await self._metadata(
            "proxy_on_grpc_receive_trailing_metadata", MapType.GRPC_CALL_TRAILING_METADATA, metadata
        )

    async def close(self, status: int, message: bytes) -> None:
        """The end, unless it was a call's answer. The message is cut to whole characters: the Rust
        SDK panics on what is not UTF-8."""
        if not self._end():
            return

        text = message[: limits.MAX_GRPC_MESSAGE_BYTES].decode("utf-8", "ignore")

        if status:
            call = f"{self._call.service}/{self._call.method}"
            reason = f"{call} of {self._call.upstream!r} ended with status {status}: {text!r}"
            self._root.vm.log_refusal("proxy_on_grpc_close", reason)

        await self._deliver("proxy_on_grpc_close", status, status=(status, text.encode()))

    def cancel(self) -> None:
        self._end()
        self._held.release()
        self.stream.cancel()

    @property
    def _is_open(self) -> bool:
        return self._root.vm.calls.get(self._token) is self

    def _end(self) -> bool:
        """Forget it; False if it was over already."""
        if not self._is_open:
            return False

        del self._root.vm.calls[self._token]
        self._held.release()
        return True

    async def _metadata(self, callback: str, map_type: MapType, given: Sequence[Pair]) -> None:
        if self._is_open and not self.unary:
            pairs = [(name, _to_wire(name, value)) for name, value in given]
            await self._deliver(callback, len(pairs), maps={map_type: HeaderMap(pairs)})

    async def _message(self, message: bytes, status: tuple[int, bytes] | None) -> None:
        buffers = {BufferType.GRPC_CALL_MESSAGE: Buffer(message)}
        await self._deliver("proxy_on_grpc_receive", len(message), buffers=buffers, status=status)

    async def _deliver(
        self,
        callback: str,
        argument: int,
        *,
        maps: Mapping[MapType, HeaderMap] | None = None,
        buffers: Mapping[BufferType, Buffer] | None = None,
        status: tuple[int, bytes] | None = None,
    ) -> None:
        arguments = (self._token, argument)
        delivery = Delivery(callback, arguments, maps or {}, buffers or {}, status)
        await self._root.vm.deliver(self._root, delivery)


def start_session(root: RootContext, client: GrpcClient, call: GrpcCall, held: Held) -> int:
    """Begin a call or stream that is answered to `root`, and has that room; its token."""
    vm = root.vm
    token = vm.new_token()
    session = GrpcSession(root, token, call, held)
    session.stream = client.start(call, session)
    vm.calls[token] = session
    return token


def outgoing_metadata(given: Iterable[Pair], trace: Iterable[Pair]) -> tuple[Pair, ...]:
    """A guest's metadata for the client: names in lower case, binary values decoded. To that come
    those of the headers of the request's trace that the guest does not give itself.

    Raises `InvalidHeader` for what gRPC would not carry, or carries for itself.
    """
    pairs = [_from_guest(name.lower(), value) for name, value in given]
    names = {name for name, _ in pairs}
    # A client may have put anything into its headers.
    traced = (pair for pair in trace if pair[0] not in names and _ASCII.fullmatch(pair[1]))
    return (*pairs, *traced)


def _from_guest(name: bytes, value: bytes) -> Pair:
    if not _NAME.fullmatch(name) or len(name) > limits.MAX_HEADER_NAME_BYTES:
        raise InvalidHeader(f"{name[:100]!r} is not a name of gRPC metadata")

    if name in _RESERVED or name.startswith(b"grpc-"):
        raise InvalidHeader(f"{name.decode()!r} is reserved for gRPC itself")

    check_value(name, value)

    if name.endswith(_BINARY):
        try:
            # Servers accept it with and without padding; so must we.
            return name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error as error:
            raise InvalidHeader(f"the value of {name.decode()!r} is not base64") from error

    if not _ASCII.fullmatch(value):
        raise InvalidHeader(f"the value of {name.decode()!r} is not printable ASCII")

    return name, value


def _to_wire(name: bytes, value: bytes) -> bytes:
    """Implementations send base64 without padding ("Custom-Metadata")."""
    return base64.b64encode(value).rstrip(b"=") if name.endswith(_BINARY) else value


def upstream_name(given: bytes) -> str:
    """The upstream that a guest means: a name, as the Rust SDK gives it, or a serialized
    `envoy.config.core.v3.GrpcService`, as the C++ SDK does. Of that only the cluster is read:
    field 1 (`envoy_grpc`), and in it field 1 (`cluster_name`)."""
    try:
        cluster = decode(decode(given).data(1)).data(1)
    except ProtobufError:
        cluster = b""

    return (cluster or given).decode("utf-8", "replace")
