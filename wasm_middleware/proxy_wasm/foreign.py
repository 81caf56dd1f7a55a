"""Foreign functions that need more than bytes: Envoy's that act on the request or the plugin.

They are called like the rest, by name. A function of the application's with the same name takes
their place. Envoy's `expr_create`, `expr_evaluate` and `expr_delete` are not here: they need an
interpreter of CEL.

Source of names and messages: Envoy's `source/extensions/common/wasm/foreign.cc` and `ext/*.proto`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from wasm_middleware import limits
from wasm_middleware.abi import protobuf
from wasm_middleware.abi.enums import Status
from wasm_middleware.abi.properties import parse_path
from wasm_middleware.proxy_wasm.context import Context, RootContext
from wasm_middleware.proxy_wasm.ports import ForeignCallRefused

ContextFunction = Callable[[Context, bytes], bytes]


def clear_route_cache(_context: Context, _arguments: bytes) -> bytes:
    """Nothing to do: routes are matched again by themselves when a plugin has changed the path."""
    return b""


def set_envoy_filter_state(context: Context, arguments: bytes) -> bytes:
    """`SetEnvoyFilterStateArguments` (path 1, value 2, span 3): a value for later plugins.

    They find it as the property `filter_state.<path>`, and so does the application. Envoy knows a
    fixed set of paths, each with a type; here any path takes any bytes, until the request is over.
    """
    message = protobuf.decode(arguments)
    text = message.text(1).encode()

    # As for every property: a path of millions of segments takes long to take apart.
    if len(text) > limits.MAX_PROPERTY_PATH_BYTES:
        raise ValueError(f"a path of {len(text)} bytes")

    path = parse_path(text)

    if not path:
        raise ValueError("there is no path")

    if isinstance(context, RootContext):
        raise ForeignCallRefused(Status.NOT_FOUND, "there is no request")

    if not context.set_property((b"filter_state", *path), message.data(2)):
        raise ValueError("the properties take too much memory")

    return b""


def declare_property(_context: Context, arguments: bytes) -> bytes:
    """`DeclarePropertyArguments` (name 1, readonly 2, type 3, schema 4, span 5): taken, no more.

    A property is bytes here and ends with its request, so type, schema and span say nothing; and
    a property can be set again. Envoy refuses a second declaration of a name.
    """
    protobuf.decode(arguments).text(1)
    return b""


CONTEXT_FUNCTIONS: Final[Mapping[str, ContextFunction]] = {
    "clear_route_cache": clear_route_cache,
    "declare_property": declare_property,
    "set_envoy_filter_state": set_envoy_filter_state,
}
