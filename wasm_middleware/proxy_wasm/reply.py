"""Local replies: responses that a plugin, or the host on its behalf, makes instead of the app's."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from wasm_middleware import limits
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.proxy_wasm.headers import HeaderMap

_NO_BODY = frozenset((204, 304))
#: What is the host's to say.
_FRAMING = (b":status", b"content-length", b"transfer-encoding")
#: What a local reply may have: the rest is not final, or no status.
LOWEST_STATUS, HIGHEST_STATUS = 200, 599

#: Envoy's `Grpc::Utility::httpToGrpcStatus`.
_GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_GRPC_UNKNOWN = 2


@dataclass(frozen=True, slots=True)
class LocalReply:
    """A reply as it was asked for; `pairs` makes it one that HTTP allows."""

    status: int
    headers: tuple[Pair, ...] = ()
    body: bytes = b""
    details: str = ""
    grpc_status: int = -1
    #: It goes to the client as it is, past all plugins: it was made while a response passed them.
    direct: bool = False

    def pairs(self, *, grpc: bool) -> tuple[list[Pair], bytes]:
        """The response headers, with `:status` first, and the body.

        A status that can't be sent becomes 500. Content-length is the truth whatever the plugin
        said, and text without a type is text/plain (Envoy). A gRPC request gets its status in
        headers: clients of gRPC look nowhere else.
        """
        status = self.status if LOWEST_STATUS <= self.status <= HIGHEST_STATUS else 500

        if grpc:
            return self._grpc_pairs(status), b""

        body = b"" if status in _NO_BODY else self.body[: limits.MAX_LOCAL_RESPONSE_BYTES]
        headers = [pair for pair in self.headers if pair[0] not in _FRAMING]

        if status not in _NO_BODY:
            headers.append((b"content-length", b"%d" % len(body)))

        if body and not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", b"text/plain"))

        return [(b":status", b"%d" % status), *headers], body

    def _grpc_pairs(self, status: int) -> list[Pair]:
        grpc_status = self.grpc_status

        if grpc_status < 0:
            grpc_status = _GRPC_STATUS.get(status, _GRPC_UNKNOWN)

        pairs = [
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"%d" % grpc_status),
        ]

        if self.body:
            message = self.body[: limits.MAX_GRPC_MESSAGE_BYTES]
            pairs.append((b"grpc-message", quote(message, safe=" !\"#$&'()*+,/:;<=>?@").encode()))

        dropped = (*_FRAMING, b"content-type", b"grpc-status", b"grpc-message")
        return pairs + [pair for pair in self.headers if pair[0] not in dropped]


def is_grpc(request: HeaderMap | None) -> bool:
    """Whether a request is a gRPC call (`Grpc::Common::isGrpcRequestHeaders`)."""
    kind = request.get(b"content-type") if request is not None else None
    return kind is not None and (
        kind == b"application/grpc" or kind.startswith((b"application/grpc+", b"application/grpc;"))
    )
