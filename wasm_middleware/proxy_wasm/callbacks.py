"""Which callbacks of a guest may be called: those that it exports and its plugin lets run."""

from __future__ import annotations

from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.ports import Guest, GuestFunction

_WITH_TRAILERS = frozenset(("on_response_headers", "on_response_body"))
_DELIVERIES = (
    "proxy_on_tick",
    "proxy_on_queue_ready",
    "proxy_on_http_call_response",
    "proxy_on_grpc_receive_initial_metadata",
    "proxy_on_grpc_receive",
    "proxy_on_grpc_receive_trailing_metadata",
    "proxy_on_grpc_close",
    "proxy_on_foreign_function",
)


class Callbacks:
    """A guest's callbacks that may be called; None for the rest."""

    __slots__ = (
        "context_create",
        "delete",
        "deliveries",
        "done",
        "downstream_close",
        "downstream_data",
        "log",
        "new_connection",
        "phases",
        "request_body",
        "request_headers",
        "response_body",
        "response_headers",
        "response_trailers",
        "upstream_close",
        "upstream_data",
    )

    def __init__(self, guest: Guest, plugin: Plugin) -> None:
        def callback(name: str, *, phase: str = "") -> GuestFunction | None:
            allowed = plugin.allows(name) and (not phase or phase in plugin.phases)
            return guest.function(name) if allowed else None

        self.context_create = callback("proxy_on_context_create")
        self.request_headers = callback("proxy_on_request_headers", phase="on_request_headers")
        self.request_body = callback("proxy_on_request_body", phase="on_request_body")
        self.response_headers = callback("proxy_on_response_headers", phase="on_response_headers")
        self.response_body = callback("proxy_on_response_body", phase="on_response_body")
        # Trailers are headers, and the end of a body: who sees either of the response sees them.
        sees = bool(plugin.phases & _WITH_TRAILERS)
        self.response_trailers = callback("proxy_on_response_trailers") if sees else None
        self.log = callback("proxy_on_log", phase="on_log")

        def network(name: str) -> GuestFunction | None:
            return callback(name) if plugin.network else None

        self.new_connection = network("proxy_on_new_connection")
        self.downstream_data = network("proxy_on_downstream_data")
        self.downstream_close = network("proxy_on_downstream_connection_close")
        self.upstream_data = network("proxy_on_upstream_data")
        self.upstream_close = network("proxy_on_upstream_connection_close")
        #: Those that a chain may call first, by the name of their phase.
        self.phases = {
            "on_request_headers": self.request_headers,
            "on_request_body": self.request_body,
            "on_response_headers": self.response_headers,
            "on_response_body": self.response_body,
            "on_response_trailers": self.response_trailers,
            "on_log": self.log,
            "on_new_connection": self.new_connection,
            "on_downstream_data": self.downstream_data,
            "on_upstream_data": self.upstream_data,
        }
        self.done = callback("proxy_on_done")
        self.delete = callback("proxy_on_delete")
        #: Those of root contexts, by the name that a `Delivery` has.
        self.deliveries = {name: callback(name) for name in _DELIVERIES}
        # The AssemblyScript SDKs know it by the name of an early draft.
        self.deliveries["proxy_on_grpc_receive_trailing_metadata"] = callback(
            "proxy_on_grpc_receive_trailing_metadata"
        ) or callback("proxy_on_grpc_trailing_metadata")
