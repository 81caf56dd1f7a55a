"""What the compatibility table says and the code does not.

A host call's own docstring stands behind its sentence here; a call with a docstring that says it
all needs none. Everything is looked up by name, and a name that the code does not have fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a row is not `ok`; `cause` is what would have to change first."""

    status: str
    cause: str
    why: str


_METADATA = Gap(
    "not", "ASGI", "METADATA frames of HTTP/2, an extension of Envoy's: ASGI has no such message"
)
#: `ok` but for something that the HTTP client does not give.
OK_WITHOUT_TRAILERS: Final = "ok, trailers n/a (client)"
_SENT = "trailers of the request are left out: `httpcore2` sends none"
_RECEIVED = "the number of trailers is always 0: `httpcore2` drops those that come"

GAPS: Final = {
    "proxy_http_call": Gap(OK_WITHOUT_TRAILERS, "the HTTP client", _SENT),
    "proxy_dispatch_http_call": Gap(OK_WITHOUT_TRAILERS, "the HTTP client", _SENT),
    "proxy_on_http_call_response": Gap(OK_WITHOUT_TRAILERS, "the HTTP client", _RECEIVED),
    "proxy_get_property": Gap(
        "partial",
        "ASGI; names in certificates: here",
        "nothing of an upstream, of a cluster, of Envoy's own node and metadata, and little of "
        "certificates: [all of them by name](#properties)",
    ),
    "proxy_on_request_trailers": Gap(
        "not", "ASGI", "a server has no message to hand over the trailers of a request"
    ),
    "proxy_on_request_metadata": _METADATA,
    "proxy_on_response_metadata": _METADATA,
}

HOST_CALLS: Final = {
    "proxy_set_effective_context": "Host calls of this callback act on another stream or root "
    "context from now on; an unknown id is BadArgument.",
    "proxy_log": "Logs through Python's `logging`, as `wasm_middleware.plugin.<name>`, from the "
    "plugin's `log_level` up.",
    "proxy_get_log_level": "The plugin's `log_level`.",
    "proxy_get_current_time_nanoseconds": "The wall clock.",
    "proxy_set_tick_period_milliseconds": "Asks for `proxy_on_tick`.",
    "proxy_set_buffer_bytes": "Changes a body or a message of a connection.",
    "proxy_get_buffer_bytes": "Reads a body, a configuration, or what is being delivered.",
    "proxy_get_buffer_status": "The size of what `proxy_get_buffer_bytes` would read.",
    "proxy_get_header_map_pairs": "All headers, repeated ones too, in order.",
    "proxy_set_header_map_pairs": "Replaces all headers.",
    "proxy_get_header_map_value": "The first value of a name, in any case. A missing one is "
    "NotFound, and empty with OK for 0.1.0.",
    "proxy_add_header_map_value": "Adds a header, beside those of the same name.",
    "proxy_replace_header_map_value": "Sets a header in place of all of its name.",
    "proxy_remove_header_map_value": "Removes all headers of a name; pseudo-headers stay.",
    "proxy_continue_stream": "Lets a paused direction of a request or a connection go on.",
    "proxy_close_stream": "Ends the request with 503, or cuts a response that has begun; closes a "
    "connection.",
    "proxy_continue_request": "Lets a paused request go on.",
    "proxy_continue_response": "Lets a paused response go on.",
    "proxy_clear_route_cache": "Does nothing: there is no cache. The application's router sees "
    "the request as the plugins have left it.",
    "proxy_send_local_response": "Answers the request in the application's place.",
    "proxy_get_configuration": "The configuration.",
    "proxy_get_property": "One of [the properties](#properties) below, or what a plugin has set.",
    "proxy_set_property": "Sets a property.",
    "proxy_http_call": "Makes an HTTP request to one of the file's `upstreams`, or to a host that "
    "`callouts` allows.",
    "proxy_dispatch_http_call": "The older name of `proxy_http_call`.",
    "proxy_set_shared_data": "Stores a value for all plugins of the same `vm_id`.",
    "proxy_get_shared_data": "A value with its compare-and-swap number. Data, queues and metrics "
    "are of one process, as in Envoy; a server with several workers has several.",
    "proxy_register_shared_queue": "The id of a queue, made if need be; its `proxy_on_queue_ready` "
    "is called from now on.",
    "proxy_resolve_shared_queue": "The id of a queue that somebody registered.",
    "proxy_enqueue_shared_queue": "Adds a message to a queue.",
    "proxy_dequeue_shared_queue": "Takes the oldest message; Empty where there is none.",
    "proxy_define_metric": "The id of a counter, gauge or histogram of the plugin's.",
    "proxy_record_metric": "Sets a gauge, adds to a counter, observes in a histogram.",
    "proxy_increment_metric": "Adds to a counter or a gauge; see "
    "[the differences](#differences-from-envoy).",
    "proxy_get_metric": "The present value; see [the differences](#differences-from-envoy).",
    "proxy_call_foreign_function": "Calls a function of the application's, or one of "
    "[those of Envoy's](#foreign-functions) that are here. `expr_create`, `expr_evaluate` and "
    "`expr_delete` are not (NotFound): they need an interpreter of CEL. A function that is "
    "asynchronous answers with an id, and later through `proxy_on_foreign_function`.",
    "pthread_equal": "Compares two numbers.",
    "emscripten_notify_memory_growth": "Does nothing.",
}

CALLBACKS: Final = {
    "_initialize": "Called first.",
    "_start": "Called first where there is no `_initialize`. It may end with `proc_exit(0)`.",
    "main": "Called after `_initialize`, and never without it.",
    "__main_void": "Called in place of `main` where that is not there.",
    "proxy_on_memory_allocate": "Asked for memory of exactly the size of what is handed over, and "
    "never for none.",
    "malloc": "Asked where there is no `proxy_on_memory_allocate`.",
    "proxy_on_context_create": "Called for each root context, and for each stream right before its "
    "first callback.",
    "proxy_on_vm_start": "Called once for each instance; false: the plugin does not start.",
    "proxy_validate_configuration": "Called before `proxy_on_configure`; false: the plugin does "
    "not start.",
    "proxy_on_configure": "Called for each configuration of the plugin: its own, and those that "
    "routes give it. False: the plugin does not start.",
    "proxy_on_done": "Called at the end of a stream, whose answer does not count, as in Envoy; and "
    "of a root context, which stays until `proxy_done` if it answers false.",
    "proxy_on_log": "Called at the end of each stream, before `proxy_on_done`, when the client "
    "has its response; of a connection, behind it. Both as in Envoy.",
    "proxy_on_delete": "The last callback of each context.",
    "proxy_on_tick": "Called on one instance of the plugin, or on each (`ticks: each`, as in "
    "Envoy). The next period begins when a tick has returned.",
    "proxy_on_new_connection": "With `type: network`: a websocket has begun.",
    "proxy_on_downstream_data": "With `type: network`: a message of the client's. A paused one "
    "waits, with those behind it. Once more with `end_of_stream` when the client has closed or "
    "gone, but not when the application or a plugin closes.",
    "proxy_on_downstream_connection_close": "With `type: network`: the client has closed, or the "
    "connection has ended.",
    "proxy_on_upstream_data": "With `type: network`: a message of the application's. "
    "Once more with `end_of_stream` when the application has closed or returned, but not when the "
    "client or a plugin closes, or the application fails.",
    "proxy_on_upstream_connection_close": "With `type: network`: the application has closed, or "
    "the connection has ended.",
    "proxy_on_request_headers": "Called before the application, with the number of headers, "
    "pseudo-headers included. 0.1.0 has no third parameter.",
    "proxy_on_request_body": "Called for each part of the body that the application reads, when it "
    "reads it; for a body that it never reads, not at all (`bodies-nobody-reads` in "
    "[the differences](#differences-from-envoy)).",
    "proxy_on_request_trailers": "Never called.",
    "proxy_on_request_metadata": "Never called.",
    "proxy_on_response_headers": "Called when the application starts its response; local replies "
    "pass as well. 0.1.0 has no third parameter.",
    "proxy_on_response_body": "Called for each part of the body that the application sends.",
    "proxy_on_response_trailers": "Called where the server has ASGI's `http.response.trailers` and "
    "the application, or another plugin, sends some.",
    "proxy_on_response_metadata": "Never called.",
    "proxy_on_http_call_response": "Called once for each call, on the root context. One without an "
    "answer has `:status` 502, 503 or 504 and a text, as in Envoy.",
    "proxy_on_grpc_receive_initial_metadata": "Called when a stream's answer begins.",
    "proxy_on_grpc_receive": "Called for each message of a stream, and for the one of a call.",
    "proxy_on_grpc_receive_trailing_metadata": "Called before the close of a stream.",
    "proxy_on_grpc_trailing_metadata": "The name of an early draft, which AssemblyScript's SDKs "
    "kept: called in place of `proxy_on_grpc_receive_trailing_metadata`.",
    "proxy_on_grpc_close": "Called at the end of a stream, and of a call that failed.",
    "proxy_on_queue_ready": "Called for each message, on the last that registered the queue.",
    "proxy_on_foreign_function": "Called with the id and the result of an asynchronous foreign "
    "function, on the root context: whoever called it has to keep which context that was, and to "
    "make it effective (`proxy_set_effective_context`). No SDK does that for it, as Rust's and "
    "Go's do for HTTP calls.",
}

WASI_CALLS: Final = {
    "args_sizes_get": "No arguments.",
    "clock_res_get": "1 nanosecond for clocks 0 and 1; `ENOTSUP` for others.",
    "clock_time_get": "The wall clock (0) and the steady one (1); `ENOTSUP` for others.",
    "environ_get": "The plugin's `environment`, and nothing of the process's.",
    "environ_sizes_get": "The plugin's `environment`, and nothing of the process's.",
    "fd_fdstat_get": "Descriptors 1 and 2 can be written to; `EBADF` for others.",
    "fd_write": "",
    "poll_oneoff": "",
    "proc_exit": "Ends the call. Code 0 in `_start` or `main` is success; all else is a failure.",
    "random_get": "Random bytes fit for keys, 64 KiB at a time; `EINVAL` for more.",
}

#: Type and note for each path; the types are those of Envoy, encoded as there.
PROPERTIES: Final = {
    "request.path": ("string", "with the query"),
    "request.url_path": ("string", "without the query"),
    "request.query": ("string", ""),
    "request.host": ("string", ""),
    "request.scheme": ("string", ""),
    "request.method": ("string", ""),
    "request.referer": ("string", ""),
    "request.useragent": ("string", ""),
    "request.id": ("string", "the header `x-request-id`"),
    "request.protocol": ("string", "`HTTP/1.0`, `HTTP/1.1`, `HTTP/2` or `HTTP/3`"),
    "request.headers": (
        "map",
        "repeated ones joined by commas; `request.headers.NAME` is one of them",
    ),
    "request.time": ("timestamp", "nanoseconds since 1970"),
    "request.duration": ("duration", "nanoseconds; from the end of the stream on, in `on_log`"),
    "request.size": ("int", "what the client said, else what was seen of the body"),
    "request.headers_bytes": ("int", ""),
    "request.total_size": ("int", ""),
    "response.code": ("int", ""),
    "response.code_details": ("string", "`via_upstream`, or what came with the local reply"),
    "response.flags": ("int", "always 0: they are Envoy's own"),
    "response.grpc_status": ("int", "the header `grpc-status`"),
    "response.headers": ("map", "as `request.headers`"),
    "response.headers_bytes": ("int", ""),
    "response.size": ("int", ""),
    "response.total_size": ("int", ""),
    "response.trailers": ("map", "as `request.headers`"),
    "source.address": ("string", "`IP:PORT`"),
    "source.port": ("int", ""),
    "destination.address": ("string", "`IP:PORT`"),
    "destination.port": ("int", ""),
    "connection_id": ("int", "as `connection.id`"),
    "connection.id": ("int", "of the stream: ASGI does not tell connections apart"),
    "connection.mtls": ("bool", "needs a server with ASGI's `tls` extension, else false"),
    "connection.tls_version": ("string", "needs the `tls` extension"),
    "connection.subject_peer_certificate": ("string", "needs the `tls` extension"),
    "connection.sha256_peer_certificate_digest": ("string", "needs the `tls` extension"),
    "connection.transport_failure_reason": ("string", "needs the `tls` extension"),
    "route_name": ("string", "the route's `id`"),
    "xds.route_name": ("string", "the route's `id`"),
    "route.id": ("string", "the route's `id`"),
}
#: Those that every context of a plugin has, streams or not.
PLUGIN_PROPERTIES: Final = {
    "plugin_name": ("string", "the plugin's `name`"),
    "plugin_root_id": ("string", "the plugin's `root_id`"),
    "plugin_vm_id": ("string", "the plugin's `vm_id`"),
    "listener_direction": ("int", "inbound (1)"),
    "xds.listener_direction": ("int", "inbound (1)"),
}
_PEER = "dns_san_peer_certificate uri_san_peer_certificate peer_certificate"
_LOCAL = "subject_local_certificate dns_san_local_certificate uri_san_local_certificate"


def _under(prefix: str, *names: str) -> str:
    return ", ".join(f"{prefix}.{name}" for part in names for name in part.split())


#: Those of Envoy's (1.40, "Attributes") that are not here, by the reason.
NO_PROPERTIES: Final = {
    _under(
        "upstream",
        "address port local_address num_endpoints locality tls_version",
        "subject_peer_certificate sha256_peer_certificate_digest",
        _PEER,
        _LOCAL,
        "transport_failure_reason request_attempt_count cx_pool_ready_duration",
    ): "the upstream is the application, in this process",
    "response.backend_latency, upstream_filter_state": "the same",
    "cluster_name, cluster_metadata, upstream_host_metadata": "the same",
    "xds.cluster_name, xds.cluster_metadata": "the same",
    "xds.upstream_host_metadata, xds.upstream_host_locality_metadata": "the same",
    "node, xds.node": "Envoy's description of itself; here there is none",
    "listener_metadata, route_metadata": "metadata of Envoy's configuration; here there is none",
    "xds.listener_metadata, xds.route_metadata, xds.virtual_host_metadata": "the same",
    "xds.virtual_host_name, xds.filter_chain_name": "the same",
    "connection.requested_server_name": "ASGI's `tls` extension does not tell it",
    _under("connection", _PEER, _LOCAL): "where a server has the `tls` extension, it hands over "
    "both certificates; they are not taken apart here",
    "connection.termination_details": "a server does not tell an application why it has closed",
}

#: When a map can be read, and whether it can be changed.
MAPS: Final = {
    "HTTP_REQUEST_HEADERS": "Read at any time; changed until they have passed the plugin.",
    "HTTP_REQUEST_TRAILERS": "Always empty: ASGI has none.",
    "HTTP_RESPONSE_HEADERS": "Read from their start on; changed until they have passed the plugin.",
    "HTTP_RESPONSE_TRAILERS": "Read and changed in `proxy_on_response_trailers`; added with the "
    "last part of the body, where the server can send them.",
    "GRPC_CALL_INITIAL_METADATA": "Read in its callback.",
    "GRPC_CALL_TRAILING_METADATA": "Read in its callback.",
    "HTTP_CALL_RESPONSE_HEADERS": "Read in `proxy_on_http_call_response`.",
    "HTTP_CALL_RESPONSE_TRAILERS": "Always empty: the HTTP client has none.",
}
BUFFERS: Final = {
    "HTTP_REQUEST_BODY": "Read and changed in `proxy_on_request_body`, and while it is paused.",
    "HTTP_RESPONSE_BODY": "Read and changed in `proxy_on_response_body`, and while it is paused.",
    "DOWNSTREAM_DATA": "Read and changed in `proxy_on_downstream_data`, and while it is paused.",
    "UPSTREAM_DATA": "Read and changed in `proxy_on_upstream_data`, and while it is paused.",
    "HTTP_CALL_RESPONSE_BODY": "Read in `proxy_on_http_call_response`.",
    "GRPC_CALL_MESSAGE": "Read in `proxy_on_grpc_receive`.",
    "VM_CONFIGURATION": "Read at any time.",
    "PLUGIN_CONFIGURATION": "Read at any time.",
    "FOREIGN_FUNCTION_ARGUMENTS": "Read in `proxy_on_foreign_function`.",
}

#: What the C++ SDK's numbers do, by the name that it gives them.
HEADERS_STATUS: Final = {
    "CONTINUE": "The headers go on.",
    "STOP_ITERATION": "The headers wait, and the body with them; with "
    "`allow_on_headers_stop_iteration: true` the body is shown meanwhile.",
    "CONTINUE_AND_END_STREAM": "The headers go on, and are all: a body is dropped.",
    "STOP_ALL_ITERATION_AND_BUFFER": "The headers wait, and the body in any case.",
    "STOP_ALL_ITERATION_AND_WATERMARK": "As the one before: who sends is held back by ASGI.",
}
DATA_STATUS: Final = {
    "CONTINUE": "What was gathered goes on.",
    "STOP_ITERATION_AND_BUFFER": "It waits, and what comes is added, up to the plugin's "
    "`body_limit`.",
    "STOP_ITERATION_AND_WATERMARK": "As the one before.",
    "STOP_ITERATION_NO_BUFFER": "It is dropped. So it is for any unknown number.",
}

FOREIGN_FUNCTIONS: Final = {
    "sign": "Signs with a private key; needs `wasm-middleware[crypto]`.",
    "verify_signature": "Verifies with a public key; needs `wasm-middleware[crypto]`.",
}
#: Envoy's that are not here.
NO_FOREIGN_FUNCTIONS: Final = {
    "expr_create, expr_evaluate, expr_delete": "they need an interpreter of CEL",
}


@dataclass(frozen=True, slots=True)
class Sdk:
    """A way to build plugins; `modules` are those that the tests run, from the root on."""

    name: str
    markers: str
    modules: tuple[str, ...]
    notes: str


def _wat(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/plugins/wat/{name}.wat" for name in names)


SDKS: Final = (
    Sdk(
        "Rust: `proxy-wasm` 0.2",
        "0.2.1",
        (
            "example_app/plugins/rate-limit.wasm",
            "tests/plugins/every-callback.wasm",
            "tests/plugins/differ-rust.wasm",
        ),
        "It panics on a status that it does not know for a call. Its modules import nearly all "
        "calls, so whether they look at bodies can't be told: say `bodies: false`, or a `phase`.",
    ),
    Sdk(
        "Go: `proxy-wasm-go-sdk`",
        "0.2.0",
        ("example_app/plugins/jwt-auth.wasm", "tests/plugins/go-every.wasm"),
        "`GOOS=wasip1 -buildmode=c-shared`, from Go 1.24. Modules begin at 3 MB.",
    ),
    Sdk(
        "Go: TinyGo, `-target=wasi -scheduler=none`",
        "0.1.0 or 0.2.0",
        _wat("tinygo-0.1.0-callout", "tinygo-0.1.0-configured", "tinygo-0.2.0"),
        "`_start`, either allocator or both, header callbacks with two or three parameters.",
    ),
    Sdk(
        "Go: Higress's `proxy-wasm-go-sdk`",
        "0.2.100",
        _wat("higress"),
        "Calls of Higress's own (Redis, injected data, upstream hosts) answer Unimplemented.",
    ),
    Sdk(
        "AssemblyScript: `@gcoredev/proxy-wasm-sdk-as`",
        "0.2.1",
        (
            "example_app/plugins/json-validator.wasm",
            "tests/plugins/differ-as.wasm",
            *_wat("assemblyscript"),
        ),
        "With and without `--use abort=abort_proc_exit`.",
    ),
    Sdk(
        "C: clang, without an SDK",
        "0.2.1",
        ("example_app/plugins/redact.wasm", "tests/plugins/differ-c.wasm"),
        "It answers with all of the C++ SDK's action numbers.",
    ),
    Sdk(
        "C++: emscripten, `proxy-wasm-cpp-sdk`",
        "0.1.0 or 0.2.1",
        _wat("emscripten-0.1.0", "emscripten-0.2.1"),
        "Its memory often begins at 16 MiB, which is the default `memory_limit`.",
    ),
)

#: What a version means here, by its number.
VERSIONS: Final = {
    "0.1.0": "`proxy_get_configuration`; header callbacks have two parameters, or three; a missing "
    "header is empty; the calls that continue have a result or none",
    "0.2.0": "configurations are buffers; `proxy_continue_stream`, `proxy_close_stream`; foreign "
    "functions answer later",
    "0.2.1": "`proxy_get_log_level`",
    "0.2.100": "as 0.2.1: the marker of Higress's SDK",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One from Envoy that no case of the comparison shows: it is read from Envoy's sources."""

    calls: str
    here: str
    envoy: str
    why: str
    #: From `tests/` on.
    proof: str


_SHARED = "proxy_wasm/test_shared.py::test_"
DIFFERENCES: Final = (
    Difference(
        "proxy_increment_metric",
        "a counter that is to go down stays, with OK and a warning; 0 is added, with OK",
        "BadArgument for both",
        "Go's SDK panics on any status but OK",
        f"{_SHARED}a_counter_adds_what_is_recorded_and_incremented",
    ),
    Difference(
        "proxy_get_metric",
        "0 for a histogram, with OK and a warning",
        "BadArgument",
        "the same: its histograms have a `Value()`",
        f"{_SHARED}a_histogram_takes_values_and_gives_none",
    ),
    Difference(
        "proxy_define_metric",
        "the same name and type are one id",
        "a new id for the same metric",
        "it is one metric",
        f"{_SHARED}metrics_have_ids_of_their_own_by_name_and_type",
    ),
    Difference(
        "proxy_define_metric",
        "beyond the caps OK, with a warning, and an id that keeps nothing",
        "no caps",
        "a plugin must not fill the process's memory, and both SDKs panic where it is refused",
        f"{_SHARED}a_metric_that_is_not_kept_takes_what_it_is_given",
    ),
    Difference(
        "proxy_get_header_map_size",
        "the size of the serialized pairs",
        "the sizes of names and values",
        "the specification",
        "proxy_wasm/test_header_calls.py::test_the_size_is_that_of_the_serialized_pairs",
    ),
    Difference(
        "proxy_set_buffer_bytes",
        "OK, with a warning, for what can't be written, or not now",
        "BadArgument, or NotFound",
        "Rust's SDK panics on any status but OK",
        "proxy_wasm/test_buffers.py::test_set_ignores_what_is_read_only",
    ),
    Difference(
        "proxy_enqueue_shared_queue",
        "NotFound, with the reason in the log, where the queue is full",
        "no caps",
        "a plugin must not fill the process's memory; the SDKs know NotFound",
        f"{_SHARED}a_full_queue_takes_no_more",
    ),
    Difference(
        "proxy_continue_stream",
        "a pause that nothing ends for `pause_timeout` ends by the plugin's `failure_policy`",
        "it lasts as long as the stream's own timeouts let it",
        "an application has no such timeouts",
        "proxy_wasm/test_failures.py::"
        "test_a_pause_that_expires_under_fail_closed_is_a_503_that_says_what_it_waited_for",
    ),
    Difference(
        "proxy_continue_stream",
        "the upstream direction of a connection goes on as the downstream one does",
        "Unimplemented",
        "the specification",
        "proxy_wasm/test_connection.py::test_a_resume_within_the_callback_wins",
    ),
    Difference(
        "proxy_close_stream",
        "a request ends with a 503",
        "the stream is reset",
        "ASGI can't reset one before its response has begun",
        "proxy_wasm/test_reply_contents.py::test_closing_a_stream_is_a_bare_503",
    ),
    Difference(
        "proxy_done",
        "OK, with a warning, where nothing waits for it",
        "NotFound",
        "Rust's SDK panics on that",
        "proxy_wasm/test_contexts.py::test_done_is_ignored_where_nothing_waits_for_it",
    ),
    Difference(
        "proxy_on_tick",
        "one instance of the plugin ticks, or each with `ticks: each`",
        "each ticks",
        "what a plugin fetches or reports is mostly for all of its instances",
        "runtime/test_ticks.py::test_one_instance_ticks_or_each",
    ),
)
