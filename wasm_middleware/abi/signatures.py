"""Signature tables: every host call and callback of every version, as data.

A signature is written as its parameters, an arrow and its results, one letter a value: `i` is an
i32, `I` an i64. `"iii>i"` takes three i32 and answers one. The tables hold the type that the
newest version declares; `Call.variants` lists older or SDK-specific ones that are linked too.

Calls are linked by name and not by version: real modules of every version import any of these.

Sources: spec v0.2.1 and v0.1.0 "Functions implemented in the host / module";
proxy-wasm-cpp-host `exports.h` for the imports beyond the specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from wasm_middleware.abi.enums import AbiVersion

ENV: Final = "env"
#: The same calls are linked under both names; wasi-libc before 2020 imports the second.
WASI_MODULES: Final = ("wasi_snapshot_preview1", "wasi_unstable")

_ALL = (AbiVersion.V0_1_0, AbiVersion.V0_2_0, AbiVersion.V0_2_1)
_SINCE_0_2_0 = (AbiVersion.V0_2_0, AbiVersion.V0_2_1)
_ONLY_0_1_0 = (AbiVersion.V0_1_0,)
_ONLY_0_2_1 = (AbiVersion.V0_2_1,)


@dataclass(frozen=True, slots=True)
class Call:
    """One function that crosses the boundary: a host call or a guest's callback."""

    name: str
    signature: str
    versions: tuple[AbiVersion, ...] = _ALL
    variants: tuple[str, ...] = ()
    #: Not in the specification: from an SDK, a toolchain or another host.
    extension: bool = False

    @property
    def signatures(self) -> tuple[str, ...]:
        return (self.signature, *self.variants)


def _table(*calls: Call) -> Mapping[str, Call]:
    return MappingProxyType({call.name: call for call in calls})


HOST_CALLS: Final = _table(
    # Contexts, log, time
    Call("proxy_done", ">i"),
    Call("proxy_set_effective_context", "i>i"),
    Call("proxy_log", "iii>i"),
    Call("proxy_get_log_level", "i>i", _ONLY_0_2_1),
    Call("proxy_get_current_time_nanoseconds", "i>i"),
    Call("proxy_set_tick_period_milliseconds", "i>i"),
    # Buffers and header maps
    Call("proxy_set_buffer_bytes", "iiiii>i"),
    Call("proxy_get_buffer_bytes", "iiiii>i"),
    Call("proxy_get_buffer_status", "iii>i"),
    Call("proxy_get_header_map_size", "ii>i"),
    Call("proxy_get_header_map_pairs", "iii>i"),
    Call("proxy_set_header_map_pairs", "iii>i"),
    Call("proxy_get_header_map_value", "iiiii>i"),
    Call("proxy_add_header_map_value", "iiiii>i"),
    Call("proxy_replace_header_map_value", "iiiii>i"),
    Call("proxy_remove_header_map_value", "iii>i"),
    # Streams
    Call("proxy_continue_stream", "i>i", _SINCE_0_2_0),
    Call("proxy_close_stream", "i>i", _SINCE_0_2_0),
    Call("proxy_continue_request", ">", _ONLY_0_1_0, (">i",)),
    Call("proxy_continue_response", ">", _ONLY_0_1_0, (">i",)),
    Call("proxy_clear_route_cache", ">i", _ONLY_0_1_0, (">",), extension=True),
    Call("proxy_send_local_response", "iiiiiiii>i"),
    Call("proxy_get_status", "iii>i"),
    # Configuration and properties
    Call("proxy_get_configuration", "ii>i", _ONLY_0_1_0),
    Call("proxy_get_property", "iiii>i"),
    Call("proxy_set_property", "iiii>i"),
    # HTTP and gRPC calls
    Call("proxy_http_call", "iiiiiiiiii>i"),
    Call("proxy_dispatch_http_call", "iiiiiiiiii>i", extension=True),
    Call("proxy_grpc_call", "iiiiiiiiiiii>i"),
    Call("proxy_grpc_stream", "iiiiiiiii>i"),
    Call("proxy_grpc_send", "iiii>i"),
    Call("proxy_grpc_cancel", "i>i"),
    Call("proxy_grpc_close", "i>i"),
    # What instances share
    Call("proxy_set_shared_data", "iiiii>i"),
    Call("proxy_get_shared_data", "iiiii>i"),
    Call("proxy_register_shared_queue", "iii>i"),
    Call("proxy_resolve_shared_queue", "iiiii>i"),
    Call("proxy_enqueue_shared_queue", "iii>i"),
    Call("proxy_dequeue_shared_queue", "iii>i"),
    Call("proxy_define_metric", "iiii>i"),
    Call("proxy_record_metric", "iI>i"),
    Call("proxy_increment_metric", "iI>i"),
    Call("proxy_get_metric", "ii>i"),
    Call("proxy_call_foreign_function", "iiiiii>i"),
    # What C++ toolchains import besides
    Call("pthread_equal", "ii>i", extension=True),
    Call("emscripten_notify_memory_growth", "i>", extension=True),
    # AssemblyScript's, with a message and its place; older emscripten's, without
    Call("abort", "iiii>", variants=(">",), extension=True),
)

WASI_CALLS: Final = _table(
    Call("args_get", "ii>i"),
    Call("args_sizes_get", "ii>i"),
    Call("clock_res_get", "ii>i"),
    Call("clock_time_get", "iIi>i"),
    Call("environ_get", "ii>i"),
    Call("environ_sizes_get", "ii>i"),
    Call("fd_advise", "iIIi>i"),
    Call("fd_allocate", "iII>i"),
    Call("fd_close", "i>i"),
    Call("fd_datasync", "i>i"),
    Call("fd_fdstat_get", "ii>i"),
    Call("fd_fdstat_set_flags", "ii>i"),
    Call("fd_fdstat_set_rights", "iII>i"),
    Call("fd_filestat_get", "ii>i"),
    Call("fd_filestat_set_size", "iI>i"),
    Call("fd_filestat_set_times", "iIIi>i"),
    Call("fd_pread", "iiiIi>i"),
    Call("fd_prestat_dir_name", "iii>i"),
    Call("fd_prestat_get", "ii>i"),
    Call("fd_pwrite", "iiiIi>i"),
    Call("fd_read", "iiii>i"),
    Call("fd_readdir", "iiiIi>i"),
    Call("fd_renumber", "ii>i"),
    Call("fd_seek", "iIii>i"),
    Call("fd_sync", "i>i"),
    Call("fd_tell", "ii>i"),
    Call("fd_write", "iiii>i"),
    Call("path_create_directory", "iii>i"),
    Call("path_filestat_get", "iiiii>i"),
    Call("path_filestat_set_times", "iiiiIIi>i"),
    Call("path_link", "iiiiiii>i"),
    Call("path_open", "iiiiiIIii>i"),
    Call("path_readlink", "iiiiii>i"),
    Call("path_remove_directory", "iii>i"),
    Call("path_rename", "iiiiii>i"),
    Call("path_symlink", "iiiii>i"),
    Call("path_unlink_file", "iii>i"),
    Call("poll_oneoff", "iiii>i"),
    Call("proc_exit", "i>"),
    Call("proc_raise", "i>i"),
    Call("random_get", "ii>i"),
    Call("sched_yield", ">i"),
    Call("sock_accept", "iii>i"),
    Call("sock_recv", "iiiiii>i"),
    Call("sock_send", "iiiii>i"),
    Call("sock_shutdown", "ii>i"),
)

CALLBACKS: Final = _table(
    # Integration
    Call("_initialize", ">"),
    Call("_start", ">"),
    Call("main", "ii>i"),
    Call("__main_void", ">i", extension=True),
    Call("proxy_on_memory_allocate", "i>i"),
    Call("malloc", "i>i"),
    # Contexts
    Call("proxy_on_context_create", "ii>"),
    Call("proxy_on_vm_start", "ii>i"),
    Call("proxy_validate_configuration", "ii>i", extension=True),
    Call("proxy_on_configure", "ii>i"),
    Call("proxy_on_done", "i>i"),
    Call("proxy_on_log", "i>"),
    Call("proxy_on_delete", "i>"),
    Call("proxy_on_tick", "i>"),
    # L4
    Call("proxy_on_new_connection", "i>i"),
    Call("proxy_on_downstream_data", "iii>i"),
    Call("proxy_on_downstream_connection_close", "ii>"),
    Call("proxy_on_upstream_data", "iii>i"),
    Call("proxy_on_upstream_connection_close", "ii>"),
    # HTTP; 0.1.0 has no end_of_stream in the header callbacks
    Call("proxy_on_request_headers", "iii>i", variants=("ii>i",)),
    Call("proxy_on_request_body", "iii>i"),
    Call("proxy_on_request_trailers", "ii>i"),
    Call("proxy_on_request_metadata", "ii>i", extension=True),
    Call("proxy_on_response_headers", "iii>i", variants=("ii>i",)),
    Call("proxy_on_response_body", "iii>i"),
    Call("proxy_on_response_trailers", "ii>i"),
    Call("proxy_on_response_metadata", "ii>i", extension=True),
    # Answers to calls
    Call("proxy_on_http_call_response", "iiiii>"),
    Call("proxy_on_grpc_receive_initial_metadata", "iii>"),
    Call("proxy_on_grpc_receive", "iii>"),
    Call("proxy_on_grpc_receive_trailing_metadata", "iii>"),
    Call("proxy_on_grpc_trailing_metadata", "iii>", extension=True),
    Call("proxy_on_grpc_close", "iii>"),
    Call("proxy_on_queue_ready", "ii>"),
    Call("proxy_on_foreign_function", "iii>", _SINCE_0_2_0),
)

MARKERS: Final = MappingProxyType({version.value: version for version in AbiVersion})
