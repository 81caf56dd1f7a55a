"""Host calls that make HTTP requests to upstreams.

A call is checked here, handed to `services.http`, and answered later: `on_http_call_response` on
the plugin's root context, exactly once, whatever became of the stream that made it. An answer that
stands for a failure looks like Envoy's: `:status` 504 for a time-out, 502 where it is not HTTP, 503
for the rest, and text.

Envoy refuses a call without `:path`, `:method` or `:authority`, or with an unknown upstream, with
BadArgument; so do we, and the log says which it was. What they hold Envoy sends as it is, and joins
those that are given twice with a comma. Here they are what a request has (RFC 9112, section 3): a
guest may have them from a client, and no server on the way shall read another request out of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wasm_middleware import limits
from wasm_middleware.abi.enums import BufferType, LogLevel, MapType, Status
from wasm_middleware.abi.pairs import Pair
from wasm_middleware.proxy_wasm.buffers import Buffer
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.headers import HeaderMap, InvalidHeader, canonical_name, check_value
from wasm_middleware.proxy_wasm.hostcalls.headers import read_pairs
from wasm_middleware.proxy_wasm.ports import Cancel, HttpAnswer, HttpCall
from wasm_middleware.proxy_wasm.underway import Held, no_room, size_of
from wasm_middleware.proxy_wasm.vm import Vm

#: The members of an enum take longer to look up than to return.
_OK = Status.OK
_REQUIRED = (b":method", b":path", b":authority")
#: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VISIBLE = re.compile(rb"[!-~]+")
#: Less strict than a URL: an upstream of a mesh has bars in its name, and is given as its host.
_NO_AUTHORITY = re.compile(rb"[^!-~]|[@/?#\\,]")
#: The guest gives milliseconds as a u32; its SDK may have had a negative number.
_NEGATIVE = 0x8000_0000


def proxy_http_call(
    vm: Vm,
    upstream: int,
    upstream_size: int,
    headers: int,
    headers_size: int,
    body: int,
    body_size: int,
    trailers: int,
    trailers_size: int,
    timeout: int,
    ret_call: int,
) -> int:
    """Begin a call; its token goes to `ret_call`."""
    call = "proxy_http_call"
    root = vm.context.root if vm.context is not None else None

    if root is None:
        return vm.refuse(Status.BAD_ARGUMENT, call, "there is no root context to answer to")

    read = vm.memory.read
    # Nothing is begun before it is certain that the guest can be told the token.
    read(ret_call, 4)
    name = read(upstream, min(upstream_size, limits.MAX_KEY_BYTES)).decode("utf-8", "replace")
    reason = _refusal(vm, name, body_size, timeout)

    if reason:
        return vm.refuse(Status.BAD_ARGUMENT, call, reason)

    try:
        request = HttpCall(
            plugin=vm.plugin.name,
            upstream=name,
            headers=_request_headers(vm, read_pairs(vm, call, headers, headers_size)),
            body=read(body, body_size),
            trailers=_checked(read_pairs(vm, call, trailers, trailers_size)),
            timeout=timeout / 1000 if timeout else None,
        )
    except InvalidHeader as error:
        return vm.refuse(Status.BAD_ARGUMENT, call, str(error))

    size = size_of(request.headers) + body_size + size_of(request.trailers)
    held = vm.plugin.under_way.hold(size)

    if held is None:
        return vm.refuse(Status.BAD_ARGUMENT, call, no_room(size), LogLevel.ERROR)

    vm.memory.write_u32(ret_call, _start(vm, root, request, held))
    return _OK


#: The name that it had in older SDKs.
proxy_dispatch_http_call = proxy_http_call


def _refusal(vm: Vm, upstream: str, body_size: int, timeout: int) -> str:
    """Why the call can't be made, as far as that is known without its headers."""
    client = vm.services.http

    if client is None:
        return f"there is no upstream {upstream!r}: the configuration has no `upstreams`"

    if timeout >= _NEGATIVE:
        return f"the timeout is negative: {timeout - (1 << 32)} ms"

    if len(vm.calls) >= limits.MAX_PENDING_CALLS:
        return f"{limits.MAX_PENDING_CALLS} calls are under way already"

    if body_size > limits.MAX_CALL_BODY_BYTES:
        return f"a body of {body_size} bytes is too long"

    return client.refusal(upstream)


def _request_headers(vm: Vm, given: list[Pair]) -> tuple[Pair, ...]:
    pairs = _checked(given)
    _check_target(_pseudo_headers(pairs))
    names = [name for name, value in pairs if value]
    assert vm.context is not None
    traced = [pair for pair in vm.context.trace_headers() if pair[0] not in names]
    return (*pairs, *traced)


def _pseudo_headers(pairs: Sequence[Pair]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}

    for name, value in pairs:
        if name in found:
            raise InvalidHeader(f"it has {name.decode()} twice")

        if name[:1] == b":":
            found[name] = value

    for name in _REQUIRED:
        if not found.get(name):
            raise InvalidHeader(f"it has no {name.decode()}")

    return found


def _check_target(pseudo: dict[bytes, bytes]) -> None:
    """Raise `InvalidHeader` for what is no request; no message shows a value, maybe a secret."""
    method, path, authority = (pseudo[name] for name in _REQUIRED)

    if b":status" in pseudo:
        raise InvalidHeader("it has a :status, as a response")

    if not _METHOD.fullmatch(method):
        raise InvalidHeader(":method is not the name of a method")

    if method == b"CONNECT":
        raise InvalidHeader("a call can't be a CONNECT")

    if path[:1] != b"/" and (method, path) != (b"OPTIONS", b"*"):
        raise InvalidHeader(":path does not begin with a /")

    if not _VISIBLE.fullmatch(path):
        raise InvalidHeader(":path holds a space, a control character or what is not ASCII")

    if _NO_AUTHORITY.search(authority):
        raise InvalidHeader(":authority is not a host and a port")


def _checked(given: list[Pair]) -> tuple[Pair, ...]:
    for name, value in given:
        check_value(name, value)

    return tuple((canonical_name(name), value) for name, value in given)


@dataclass(frozen=True, slots=True)
class _PendingHttpCall:
    """Fulfils `PendingCall`."""

    stop: Cancel
    held: Held

    def cancel(self) -> None:
        self.held.release()
        self.stop()


def _start(vm: Vm, root: RootContext, request: HttpCall, held: Held) -> int:
    token = vm.new_token()

    async def answered(answer: HttpAnswer) -> None:
        # It may have been given up at the very last moment.
        if vm.calls.pop(token, None) is None:
            return

        held.release()
        await vm.deliver(root, _delivery(token, answer))

    client = vm.services.http
    assert client is not None
    vm.calls[token] = _PendingHttpCall(client.start(request, answered), held)
    return token


def _delivery(token: int, answer: HttpAnswer) -> Delivery:
    status = (Status.BROKEN_CONNECTION, answer.failure.encode()) if answer.failure else (_OK, b"")
    return Delivery(
        "proxy_on_http_call_response",
        (token, len(answer.headers), len(answer.body), len(answer.trailers)),
        {
            MapType.HTTP_CALL_RESPONSE_HEADERS: HeaderMap(list(answer.headers)),
            MapType.HTTP_CALL_RESPONSE_TRAILERS: HeaderMap(list(answer.trailers)),
        },
        {BufferType.HTTP_CALL_RESPONSE_BODY: Buffer(answer.body)},
        status,
    )
