"""The properties that a stream answers: Envoy's attributes, as far as ASGI has them.

Who the plugin is (`plugin_name` and its kin) every context of its VM knows. The rest is here: each
row of `_ATTRIBUTES` is one path and the function that computes its value; None is "there is no such
property" for the guest. Values set by plugins (`proxy_set_property`) are found under exactly the
path they were set with, on the stream before on its root context. None takes the place of what the
host knows, a single header included: no plugin tells another who the client is.

Source: Envoy "Attributes"; `source.address` is "ip:port", as there. What differs:

- `connection.id` is of the stream: ASGI does not tell connections apart.
- `connection.mtls`, `subject_peer_certificate`, `sha256_peer_certificate_digest` and
  `transport_failure_reason` are known where the server has the `tls` extension. A certificate that
  the server did not accept is none. Names inside of certificates (`*_san_*`), the server's own
  subject and `requested_server_name` are not known.
- `listener_direction` is inbound. There is no `node`, no `cluster_name` and no `upstream`: that is
  the application in this process.
- `filter_state` and `metadata` hold what plugins set there. As in Envoy, what was set as `name` is
  `filter_state["wasm.name"]` as well.
- `response.flags` is 0.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from wasm_middleware import limits
from wasm_middleware.abi.properties import Nanoseconds, Path, Value, encode_value
from wasm_middleware.proxy_wasm.headers import HeaderMap

if TYPE_CHECKING:
    from wasm_middleware.proxy_wasm.stream import Stream, StreamContext

Attribute = Callable[["StreamContext"], Value | Nanoseconds | None]

#: What a plugin sets as `name` has this in front of it in Envoy's filter state.
_WASM = b"wasm."
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_PROTOCOLS = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2", "3": "HTTP/3"}


class PluginProperties(dict[Path, bytes]):
    """What plugins have set, for one stream or by one root context; written to by `store` alone."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        super().__init__()
        #: Bytes: counted up, since a guest may set one property after the other.
        self._used = 0

    def store(self, path: Path, value: bytes) -> bool:
        """Put a value among the others, if they stay below their caps in `limits`."""
        before = self.get(path)
        used = self._used + len(value)

        if before is not None:
            used -= len(before)
        elif len(self) >= limits.MAX_STREAM_PROPERTIES:
            return False
        else:
            used += sum(map(len, path)) + (len(path) + 1) * limits.PROPERTY_OVERHEAD

        if used > limits.MAX_STREAM_PROPERTIES_BYTES:
            return False

        self[path] = value
        self._used = used
        return True


def get(context: StreamContext, path: Path) -> bytes | None:
    """The encoded value of a property, or None."""
    stream = context.stream

    attribute = _ATTRIBUTES.get(path)

    if attribute is not None:
        value = attribute(context)
        return None if value is None else encode_value(value)

    if len(path) == 3 and path[:2] in _MAPS:
        return _header(_MAPS[path[:2]](stream), path[2])

    for properties in (context.vm.properties, stream.properties):
        if path in properties:
            return properties[path]

    if path[0] == b"filter_state" and len(path) > 1 and path[1].startswith(_WASM):
        name = (path[1][len(_WASM) :], *path[2:])

        if name in stream.properties:
            return stream.properties[name]

    return context.root.properties.get(path)


def _header(headers: HeaderMap | None, name: bytes) -> bytes | None:
    """One header of a map: duplicates joined by commas."""
    if headers is None:
        return None

    name = name.lower()
    name = b":authority" if name == b"host" else name
    values = [value for found, value in headers.pairs if found == name]
    return b",".join(values) if values else None


def _request_header(name: bytes) -> Attribute:
    def attribute(context: StreamContext) -> bytes | None:
        headers = context.stream.request.headers
        return headers.get(name) if headers is not None else None

    return attribute


def _path(context: StreamContext) -> bytes:
    headers = context.stream.request.headers
    return (headers.get(b":path") if headers is not None else None) or b""


def _url_path(context: StreamContext) -> bytes:
    return _path(context).partition(b"?")[0]


def _query(context: StreamContext) -> bytes:
    return _path(context).partition(b"?")[2]


def _protocol(context: StreamContext) -> str:
    version = context.stream.describe().http_version
    return _PROTOCOLS.get(version, f"HTTP/{version}")


def _duration(context: StreamContext) -> Nanoseconds | None:
    """Present once the stream is over, as in Envoy."""
    stream = context.stream
    return Nanoseconds(stream.ended_at - stream.started_at) if stream.finished else None


def _joined(headers: HeaderMap) -> list[tuple[bytes, bytes]]:
    merged: dict[bytes, bytes] = {}

    for name, value in headers.pairs:
        merged[name] = merged[name] + b"," + value if name in merged else value

    return list(merged.items())


def _request_headers(context: StreamContext) -> Value | None:
    headers = context.stream.request.headers
    return _joined(headers) if headers is not None else None


def _response_headers(context: StreamContext) -> Value | None:
    headers = context.stream.response.headers
    return _joined(headers) if headers is not None else None


def _response_trailers(context: StreamContext) -> Value | None:
    trailers = context.stream.response.trailers
    return _joined(trailers) if trailers is not None else None


def _response_total_size(context: StreamContext) -> int:
    response = context.stream.response
    parts = (response.headers, response.trailers)
    return response.bytes_seen + sum(_headers_size(part) or 0 for part in parts)


def _headers_size(headers: HeaderMap | None) -> int | None:
    """Names and values, as Envoy's `byteSize` counts."""
    if headers is None:
        return None

    return sum(len(name) + len(value) for name, value in headers.pairs)


def _number(text: bytes | None) -> int | None:
    """A header's value as a number that fits into 64 bits, if it is one."""
    return int(text) if text is not None and text.isdigit() and len(text) < 19 else None


def _request_size(context: StreamContext) -> int:
    """The body's size: what the client said, else what has been seen of it."""
    request = context.stream.request
    declared = request.headers.get(b"content-length") if request.headers is not None else None
    size = _number(declared)
    return request.bytes_seen if size is None else size


def _response_code(context: StreamContext) -> int | None:
    headers = context.stream.response.headers
    return _number(headers.get(b":status") if headers is not None else None)


def _response_details(context: StreamContext) -> str | None:
    stream = context.stream

    if stream.response.headers is None:
        return None

    return stream.reply.details if stream.reply is not None else "via_upstream"


def _grpc_status(context: StreamContext) -> int | None:
    headers = context.stream.response.headers
    return _number(headers.get(b"grpc-status") if headers is not None else None)


def _address(which: str) -> Attribute:
    def attribute(context: StreamContext) -> str | None:
        peer = getattr(context.stream.describe(), which)

        if peer is None:
            return None

        host, port = peer
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    return attribute


def _port(which: str) -> Attribute:
    def attribute(context: StreamContext) -> int | None:
        peer = getattr(context.stream.describe(), which)
        return peer[1] if peer is not None else None

    return attribute


def _mtls(context: StreamContext) -> bool:
    info = context.stream.describe()
    return info.peer_certificate is not None or info.peer_subject is not None


def _certificate_digest(context: StreamContext) -> str | None:
    """The SHA-256 of the certificate's DER, in hexadecimal."""
    found = _PEM.search(context.stream.describe().peer_certificate or "")

    try:
        der = binascii.a2b_base64(found[1].encode()) if found is not None else b""
    except (binascii.Error, UnicodeEncodeError):
        return None

    return hashlib.sha256(der).hexdigest() if der else None


def _route(context: StreamContext) -> str | None:
    return context.stream.describe().route or None


#: `request.headers.<name>` and its kin.
_MAPS: Final[Mapping[Path, Callable[[Stream], HeaderMap | None]]] = {
    (b"request", b"headers"): lambda stream: stream.request.headers,
    (b"response", b"headers"): lambda stream: stream.response.headers,
    (b"response", b"trailers"): lambda stream: stream.response.trailers,
}

_ATTRIBUTES: Final[Mapping[Path, Attribute]] = {
    (b"request", b"path"): _path,
    (b"request", b"url_path"): _url_path,
    (b"request", b"query"): _query,
    (b"request", b"host"): _request_header(b":authority"),
    (b"request", b"scheme"): _request_header(b":scheme"),
    (b"request", b"method"): _request_header(b":method"),
    (b"request", b"referer"): _request_header(b"referer"),
    (b"request", b"useragent"): _request_header(b"user-agent"),
    (b"request", b"id"): _request_header(b"x-request-id"),
    (b"request", b"protocol"): _protocol,
    (b"request", b"headers"): _request_headers,
    (b"request", b"time"): lambda context: Nanoseconds(context.stream.started_on),
    (b"request", b"duration"): _duration,
    (b"request", b"size"): _request_size,
    (b"request", b"headers_bytes"): lambda context: _headers_size(context.stream.request.headers),
    (b"request", b"total_size"): lambda context: (
        (_headers_size(context.stream.request.headers) or 0) + context.stream.request.bytes_seen
    ),
    (b"response", b"code"): _response_code,
    (b"response", b"code_details"): _response_details,
    (b"response", b"flags"): lambda context: 0,
    (b"response", b"grpc_status"): _grpc_status,
    (b"response", b"headers"): _response_headers,
    (b"response", b"headers_bytes"): lambda context: _headers_size(context.stream.response.headers),
    (b"response", b"size"): lambda context: context.stream.response.bytes_seen,
    (b"response", b"total_size"): _response_total_size,
    (b"response", b"trailers"): _response_trailers,
    (b"source", b"address"): _address("source"),
    (b"source", b"port"): _port("source"),
    (b"destination", b"address"): _address("destination"),
    (b"destination", b"port"): _port("destination"),
    (b"connection_id",): lambda context: context.stream.number,
    (b"connection", b"id"): lambda context: context.stream.number,
    (b"connection", b"mtls"): _mtls,
    (b"connection", b"tls_version"): lambda context: context.stream.describe().tls_version,
    (b"connection", b"subject_peer_certificate"): (
        lambda context: context.stream.describe().peer_subject
    ),
    (b"connection", b"sha256_peer_certificate_digest"): _certificate_digest,
    (b"connection", b"transport_failure_reason"): (
        lambda context: context.stream.describe().tls_failure
    ),
    (b"route_name",): _route,
    (b"xds", b"route_name"): _route,
    (b"route", b"id"): _route,
}

#: Every path that is answered without having been set; for the documentation.
PATHS: Final = tuple(_ATTRIBUTES)
