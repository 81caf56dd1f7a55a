"""An ASGI scope as Proxy-Wasm headers, and back.

ASGI keeps method, path, scheme and query apart from the headers; Proxy-Wasm has them as
pseudo-headers at the front, with `host` as `:authority`. On the way back a scope is copied only if
a plugin changed something, and `path`, `raw_path` and `query_string` change together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

from wasm_middleware.abi.pairs import Pair
from wasm_middleware.asgi.types import Scope
from wasm_middleware.errors import AbiViolation
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.stream import RequestInfo

_PATH = re.compile(rb"\*|/[!-~]*")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Host and port (RFC 3986, 3.2.2): nothing that could end it, or put a user before it.
_AUTHORITY = re.compile(rb"[!$%&'()*+,\-.0-9:;=A-Z\[\]_a-z~]*")
#: What an HTTP path may hold unescaped.
_SAFE = "/!$&'()*+,;=:@~-._"
_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}

#: As Envoy names them.
_TLS_VERSIONS = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}

_FRAMING = (b"content-length", b"transfer-encoding")
#: Sent in place of a file's bytes: a plugin that reads bodies would not see them.
_FILE_EXTENSIONS = ("http.response.pathsend", "http.response.zerocopysend")


def lowered(headers: Iterable[Pair]) -> list[Pair]:
    """Header pairs with names in lower case, duplicates and order kept."""
    return [(name.lower(), value) for name, value in headers]


def request_path(scope: Scope) -> bytes:
    """The path as it was sent, with its query."""
    raw, decoded = scope.get("raw_path"), scope["path"]
    path = raw.partition(b"?")[0] if raw else b""

    # The router goes by `path`: where something outside has changed that alone, so do plugins.
    if path != decoded.encode() and _decode(path) != decoded:
        path = quote(decoded, safe=_SAFE).encode()

    query = scope.get("query_string")
    return b"%b?%b" % (path, query) if query else path


def request_headers(scope: Scope) -> HeaderMap:
    """A request's headers as plugins see them. The first `host` is `:authority`, and the only."""
    pairs = lowered(scope["headers"])
    pseudo = []
    hosts = [value for name, value in pairs if name == b"host"]

    if hosts:
        pseudo.append((b":authority", hosts[0]))
        pairs = [pair for pair in pairs if pair[0] != b"host"]

    pseudo.append((b":path", request_path(scope)))
    pseudo.append((b":method", scope.get("method", "GET").encode("latin-1")))
    pseudo.append((b":scheme", _scheme(scope)))
    return HeaderMap(pseudo + pairs)


def _scheme(scope: Scope) -> bytes:
    """http or https: a websocket's handshake is an HTTP request."""
    scheme: str = scope.get("scheme") or "http"
    return {"ws": b"http", "wss": b"https"}.get(scheme, scheme.encode("latin-1"))


def target(headers: HeaderMap) -> tuple[bytes | None, ...]:
    """What a request is routed by."""
    return headers.get(b":path"), headers.get(b":method"), headers.get(b":authority")


def ends_with_headers(scope: Scope, headers: HeaderMap) -> bool:
    """Whether a request has no body, as far as its headers tell (RFC 9112, 6.3).

    HTTP/2 and later may send one without announcing it.
    """
    length = headers.get(b"content-length")

    if length is not None:
        return length.strip() == b"0"

    return scope["http_version"][:1] == "1" and headers.get(b"transfer-encoding") is None


def describe(scope: Scope, route: str) -> RequestInfo:
    """What plugins may ask about a request beside its headers."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    failure = tls.get("client_cert_error")
    # A certificate that was not accepted says nothing about who the client is.
    chain = tuple(tls.get("client_cert_chain") or ()) if not failure else ()
    return RequestInfo(
        source=_peer(scope.get("client")),
        destination=_peer(scope.get("server")),
        http_version=scope.get("http_version", "1.1"),
        tls_version=_TLS_VERSIONS.get(tls.get("tls_version") or 0),
        peer_certificate=chain[0] if chain else None,
        peer_subject=tls.get("client_cert_name") or None if not failure else None,
        tls_failure=failure or None,
        route=route,
    )


def _peer(address: object) -> tuple[str, int] | None:
    """Host and port; a unix socket has no port and counts as none."""
    match address:
        case [str(host), int(port)]:
            return host, port

    return None


def changed_scope(scope: Scope, headers: HeaderMap, *, body_may_change: bool) -> Scope:
    """A copy of the scope that says what the plugins made of the request.

    With `body_may_change` its content-length is no longer known, and is left out: the body's end is
    where ASGI says it is. Raises `AbiViolation` for a path, method or authority that HTTP does not
    allow.
    """
    pairs = [pair for pair in headers.pairs if pair[0][:1] != b":"]
    framing = [pair for pair in lowered(scope["headers"]) if pair[0] in _FRAMING]

    # Where the body ends is the server's to say: a plugin that says otherwise is not heard.
    if [pair for pair in pairs if pair[0] in _FRAMING] != framing:
        pairs = [pair for pair in pairs if pair[0] not in _FRAMING] + framing

    if body_may_change:
        pairs = [pair for pair in pairs if pair[0] != b"content-length"]

    new = dict(scope)
    new["headers"] = pairs
    # A guest that hands over pairs may name one twice; for all who ask, the first counts.
    authority = headers.get(b":authority")

    if authority is not None:
        pairs.insert(0, (b"host", authority))

    if headers.pseudo_changed:
        _set_pseudo_headers(new, scope, headers)

    return new


def _set_pseudo_headers(new: Scope, scope: Scope, headers: HeaderMap) -> None:
    """Check what a plugin made of the pseudo-headers; put it where ASGI has it."""
    path, method = headers.get(b":path"), headers.get(b":method")
    scheme = headers.get(b":scheme")
    _checked(_AUTHORITY, b":authority", headers.get(b":authority") or b"")

    if path is not None and path != request_path(scope):
        _set_path(new, _checked(_PATH, b":path", path))

    if method is not None and "method" in scope:
        new["method"] = _checked(_METHOD, b":method", method).decode("ascii")

    if scheme is not None and scheme != _scheme(scope):
        name = _checked(_METHOD, b":scheme", scheme).decode("ascii")
        websocket = scope["type"] == "websocket"
        new["scheme"] = _WEBSOCKET_SCHEMES.get(name, name) if websocket else name


def _checked(allowed: re.Pattern[bytes], name: bytes, value: bytes) -> bytes:
    if not allowed.fullmatch(value):
        raise AbiViolation(f"{name.decode()} was set to {value[:100]!r}, which HTTP does not allow")

    return value


def _decode(path: bytes) -> str:
    return unquote_to_bytes(path).decode("utf-8", "replace")


def _set_path(scope: Scope, value: bytes) -> None:
    path, _, query = value.partition(b"?")
    scope["path"] = _decode(path)
    scope["raw_path"] = path
    scope["query_string"] = query


def without_file_extensions(scope: Scope) -> Scope:
    """The scope, so that the application sends a file's bytes and not its path."""
    extensions = scope.get("extensions")

    if not extensions or not any(name in extensions for name in _FILE_EXTENSIONS):
        return scope

    new = dict(scope)
    new["extensions"] = {
        name: value for name, value in extensions.items() if name not in _FILE_EXTENSIONS
    }
    return new
