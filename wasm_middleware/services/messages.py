"""What of a plugin's call goes on the wire, and what of an answer comes back to it.

The list goes out as the plugin gave it, in its order and with its duplicates, but for what belongs
to a connection, and for the length, which is that of the body. An answer's does likewise, in lower
case. Trailers go neither way: the client does not send them, and drops those that come.

An answer that stands for a failure is the one that Envoy 1.40 gives: 504 and "upstream request
timeout", 502 where an upstream does not speak HTTP, 503 for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from wasm_middleware.abi.pairs import Pair
from wasm_middleware.proxy_wasm.ports import HttpAnswer, HttpCall

__all__ = ["answer_headers", "overflow", "request_headers", "reset", "timed_out"]

#: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
_CONNECTION: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade")
)
#: Made anew from the call.
_OURS: Final = frozenset((b"host", b"content-length"))
#: What has a length of 0 rather than none: https://www.rfc-editor.org/rfc/rfc9110#section-8.6
_WITH_CONTENT: Final = frozenset((b"POST", b"PUT", b"PATCH"))

#: Why there is no answer, in Envoy's words (`Utility::resetReasonToString`).
Reset = Literal[
    "connection termination", "local reset", "overflow", "protocol error",
    "remote connection failure",
]  # fmt: skip


def request_headers(call: HttpCall, method: bytes, authority: bytes) -> list[Pair]:
    """The header fields of a call, `host` first; without pseudo-headers."""
    connection = _connection_fields(call.headers)
    headers = [(b"host", authority)]
    headers += [
        (name, value)
        for name, value in call.headers
        if not name.startswith(b":") and name not in connection and name not in _OURS
    ]

    if call.body or method in _WITH_CONTENT:
        headers.append((b"content-length", b"%d" % len(call.body)))

    if call.trailers:
        # Nothing announces what is not sent.
        headers = [pair for pair in headers if pair[0] != b"trailer"]

    return headers


def answer_headers(status: int, headers: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs of an answer that the plugin reads, `:status` first."""
    lowered = [(name.lower(), value) for name, value in headers]
    connection = _connection_fields(lowered)
    kept = (pair for pair in lowered if pair[0] not in connection)
    return ((b":status", b"%d" % status), *kept)


def _connection_fields(headers: Iterable[Pair]) -> frozenset[bytes]:
    named = frozenset(_named_by_connection(headers))
    return _CONNECTION | named if named else _CONNECTION


def _named_by_connection(headers: Iterable[Pair]) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"connection":
            for field in value.split(b","):
                yield field.strip().lower()


def timed_out(failure: str) -> HttpAnswer:
    """What stands for an answer that has not come in time; `failure` says so to the operator."""
    return _failed(504, b"upstream request timeout", failure)


def overflow(failure: str) -> HttpAnswer:
    """What stands for an answer where too many calls were under way."""
    return reset("overflow", failure)


def reset(reason: Reset, failure: str) -> HttpAnswer:
    """What stands for an answer that can't come any more."""
    status = 502 if reason == "protocol error" else 503
    text = f"upstream connect error or disconnect/reset before headers. reset reason: {reason}"
    return _failed(status, text.encode(), failure)


def _failed(status: int, text: bytes, failure: str) -> HttpAnswer:
    headers = (
        (b":status", b"%d" % status),
        (b"content-length", b"%d" % len(text)),
        (b"content-type", b"text/plain"),
    )
    return HttpAnswer(headers, text, failure=failure)
